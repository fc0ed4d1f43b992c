//! Records: kinds, encoding, decoding. Byte layouts are in `FORMAT.md`.

use crate::content::{ContentFile, PIECE_BYTES, large_head};
use crate::id::SpoolId;
use crate::routing::Routing;
use crate::types::{
    BodyKind, Envelope, Origin, Outcome, Recipient, Ret, Source, Status, Submitter, ThreadState,
};

/// Bytes before every payload: kind, three zero bytes, length, checksum of the payload.
pub const HEADER_BYTES: usize = 12;

/// Record kinds. A number is never used again for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Envelope and content of a message.
    Message = 1,
    /// A piece of a routing result.
    Routing = 2,
    /// The result of an attempt for one recipient.
    Outcome = 3,
    /// State of a (channel, host).
    Thread = 4,
    /// An operator's action on queued recipients.
    Action = 5,
    /// All recipients of a message are finished.
    Done = 6,
    /// A live message copied out of an old segment.
    CopyForward = 7,
    /// A commit sequence that failed and must not count.
    Void = 8,
    /// State up to a log position.
    Checkpoint = 9,
    /// Envelope of a message whose content is in a file of its own.
    Large = 10,
    /// As a copy, with the results of routing behind the envelope.
    RoutedCopy = 11,
    /// Likewise, with the content in a file of its own.
    RoutedLarge = 12,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Message,
        Self::Routing,
        Self::Outcome,
        Self::Thread,
        Self::Action,
        Self::Done,
        Self::CopyForward,
        Self::Void,
        Self::Checkpoint,
        Self::Large,
        Self::RoutedCopy,
        Self::RoutedLarge,
    ];

    /// Whether the content of the message is in a file.
    #[must_use]
    pub fn has_file(self) -> bool {
        matches!(self, Self::Large | Self::RoutedLarge)
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They end too early or a length is wrong.
    Truncated,
    /// The checksum does not match.
    Checksum,
    /// A kind of a newer format, with a good checksum.
    UnknownKind(u8),
    /// A value that no writer writes.
    Value,
}

/// A record's frame: kind and payload, checksum verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its kind.
    pub kind: Kind,
    /// Its payload.
    pub payload: &'a [u8],
}

/// Takes the next record off `bytes`.
///
/// # Errors
/// See [`DecodeError`].
pub fn take_frame<'a>(bytes: &mut &'a [u8]) -> Result<Frame<'a>, DecodeError> {
    let (header, rest) = bytes
        .split_at_checked(HEADER_BYTES)
        .ok_or(DecodeError::Truncated)?;
    let mut reader = Reader(header);
    let kind = reader.u8()?;
    let padding = [reader.u8()?, reader.u8()?, reader.u8()?];
    let len = reader.u32()? as usize;
    let sum = reader.u32()?;
    if padding != [0; 3] {
        return Err(DecodeError::Value);
    }
    let (payload, rest) = rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
    if crc32c::crc32c(payload) != sum {
        return Err(DecodeError::Checksum);
    }
    *bytes = rest;
    let kind = Kind::from_byte(kind).ok_or(DecodeError::UnknownKind(kind))?;
    Ok(Frame { kind, payload })
}

/// Reads little-endian values off a slice.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.bytes(N)?
            .try_into()
            .map_err(|_| DecodeError::Truncated)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, DecodeError> {
        self.array().map(u128::from_le_bytes)
    }

    /// A string with a 16-bit length.
    pub(crate) fn text(&mut self) -> Result<Vec<u8>, DecodeError> {
        let len = self.u16()?;
        self.bytes(len.into()).map(<[u8]>::to_vec)
    }

    pub(crate) fn option(&mut self) -> Result<Option<Vec<u8>>, DecodeError> {
        match self.u8()? {
            0 => Ok(None),
            1 => self.text().map(Some),
            _ => Err(DecodeError::Value),
        }
    }

    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Value)
        }
    }
}

/// Appends little-endian values.
pub(crate) trait Put {
    fn put(&mut self, bytes: &[u8]);

    /// A string with a 16-bit length; what is longer is cut, which no caller relies on.
    fn text(&mut self, text: &[u8]) {
        let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
        self.put(&len.to_le_bytes());
        self.put(text.get(..len.into()).unwrap_or(text));
    }

    fn option(&mut self, text: Option<&[u8]>) {
        match text {
            None => self.put(&[0]),
            Some(text) => {
                self.put(&[1]);
                self.text(text);
            }
        }
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// How many bytes would be appended.
#[derive(Default)]
pub(crate) struct Size(pub(crate) usize);

impl Put for Size {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Appends an envelope.
pub fn put_envelope(out: &mut Vec<u8>, envelope: &Envelope) {
    out.put(&envelope.arrival_ms.to_le_bytes());
    let body = match envelope.body {
        BodyKind::SevenBit => 0u8,
        BodyKind::EightBit => 1,
        BodyKind::Binary => 2,
    };
    let ret = match envelope.ret {
        None => 0u8,
        Some(Ret::Full) => 1,
        Some(Ret::Headers) => 2,
    };
    out.put(&[body, u8::from(envelope.smtputf8), ret]);
    out.text(&envelope.sender);
    out.option(envelope.envid.as_deref());
    out.text(&envelope.client);
    out.text(&envelope.helo);
    out.text(&envelope.protocol);
    put_origin(out, envelope);
    out.put(&(envelope.recipients.len() as u32).to_le_bytes());
    for recipient in &envelope.recipients {
        out.text(&recipient.address);
        out.put(&[recipient.notify]);
        out.option(recipient.orcpt.as_deref());
    }
    if let Some(routing) = &envelope.routing {
        // What was replaced is among the outcomes.
        routing.put(out, &[]);
    }
}

/// Bits of the byte that says what is known of where a message came from. Mail of other hosts has none.
const FROM_FILE: u8 = 1;
const FROM_CLIENT: u8 = 2;
const FROM_USER: u8 = 4;

/// Whether a user is trusted.
const TRUSTED: u8 = 1;

fn put_origin(out: &mut Vec<u8>, envelope: &Envelope) {
    let brought = match &envelope.origin {
        Origin::Relay => 0,
        Origin::Submission => FROM_CLIENT,
        Origin::User(_) => FROM_USER,
    };
    let file = envelope.source.map_or(0, |_| FROM_FILE);
    out.put(&[brought | file]);
    if let Some(source) = envelope.source {
        put_identity(out, source);
    }
    if let Origin::User(user) = &envelope.origin {
        out.put(&user.uid.to_le_bytes());
        out.put(&[if user.trusted { TRUSTED } else { 0 }]);
        out.text(&user.login);
        out.text(&user.full_name);
    }
}

fn take_origin(reader: &mut Reader<'_>) -> Result<(Option<Source>, Origin), DecodeError> {
    let bits = reader.u8()?;
    let source = match bits & FROM_FILE {
        0 => None,
        _ => Some(take_identity(reader)?),
    };
    let origin = match bits & !FROM_FILE {
        0 => Origin::Relay,
        FROM_CLIENT => Origin::Submission,
        FROM_USER => Origin::User(Box::new(Submitter {
            uid: reader.u32()?,
            trusted: match reader.u8()? {
                0 => false,
                TRUSTED => true,
                _ => return Err(DecodeError::Value),
            },
            login: reader.text()?,
            full_name: reader.text()?,
        })),
        _ => return Err(DecodeError::Value),
    };
    Ok((source, origin))
}

pub(crate) fn put_source(out: &mut Vec<u8>, source: Option<Source>) {
    let Some(source) = source else {
        out.put(&[0]);
        return;
    };
    out.put(&[1]);
    put_identity(out, source);
}

fn put_identity(out: &mut Vec<u8>, source: Source) {
    for number in [
        source.born_ns,
        source.inode,
        source.modified_ns,
        source.size,
    ] {
        out.put(&number.to_le_bytes());
    }
}

pub(crate) fn take_source(reader: &mut Reader<'_>) -> Result<Option<Source>, DecodeError> {
    match reader.u8()? {
        0 => Ok(None),
        1 => Ok(Some(take_identity(reader)?)),
        _ => Err(DecodeError::Value),
    }
}

fn take_identity(reader: &mut Reader<'_>) -> Result<Source, DecodeError> {
    Ok(Source {
        born_ns: reader.u64()?,
        inode: reader.u64()?,
        modified_ns: reader.u64()?,
        size: reader.u64()?,
    })
}

/// Reads an envelope that fills `bytes`.
///
/// # Errors
/// See [`DecodeError`].
pub fn envelope(bytes: &[u8]) -> Result<Envelope, DecodeError> {
    let mut reader = Reader(bytes);
    let arrival_ms = reader.u64()?;
    let body = match reader.u8()? {
        0 => BodyKind::SevenBit,
        1 => BodyKind::EightBit,
        2 => BodyKind::Binary,
        _ => return Err(DecodeError::Value),
    };
    let smtputf8 = reader.u8()? != 0;
    let ret = match reader.u8()? {
        0 => None,
        1 => Some(Ret::Full),
        2 => Some(Ret::Headers),
        _ => return Err(DecodeError::Value),
    };
    let sender = reader.text()?;
    let envid = reader.option()?;
    let client = reader.text()?;
    let helo = reader.text()?;
    let protocol = reader.text()?;
    let (source, origin) = take_origin(&mut reader)?;
    let count = reader.u32()? as usize;
    // A recipient takes four bytes at least: a count that cannot be true allocates nothing.
    if count > reader.0.len() / 4 {
        return Err(DecodeError::Truncated);
    }
    let mut recipients = Vec::with_capacity(count);
    for _ in 0..count {
        let address = reader.text()?;
        let notify = reader.u8()?;
        let orcpt = reader.option()?;
        recipients.push(Recipient {
            address,
            notify,
            orcpt,
        });
    }
    let routing = take_rounds(&mut reader)?;
    Ok(Envelope {
        sender,
        recipients,
        arrival_ms,
        body,
        smtputf8,
        ret,
        envid,
        client,
        helo,
        protocol,
        source,
        origin,
        routing,
    })
}

/// All rounds up to the end.
fn take_rounds(reader: &mut Reader<'_>) -> Result<Option<Box<Routing>>, DecodeError> {
    let mut routing: Option<Box<Routing>> = None;
    while !reader.0.is_empty() {
        let (round, _) = Routing::take(reader)?;
        match &mut routing {
            Some(routing) => routing.extend(round),
            None => routing = Some(Box::new(round)),
        }
    }
    Ok(routing)
}

/// Appends an outcome.
pub fn put_outcome(out: &mut Vec<u8>, outcome: &Outcome) {
    let status = match outcome.status {
        Status::Delivered => 0u8,
        Status::Deferred => 1,
        Status::Failed => 2,
        Status::Expired => 3,
        Status::Held => 4,
        Status::Replaced => 5,
    };
    out.put(&outcome.recipient.to_le_bytes());
    out.put(&outcome.attempt.to_le_bytes());
    out.put(&[status]);
    out.put(&outcome.next_ms.to_le_bytes());
    out.text(&outcome.reply);
}

/// Reads an outcome.
pub(crate) fn outcome(reader: &mut Reader<'_>) -> Result<Outcome, DecodeError> {
    let recipient = reader.u32()?;
    let attempt = reader.u32()?;
    let status = match reader.u8()? {
        0 => Status::Delivered,
        1 => Status::Deferred,
        2 => Status::Failed,
        3 => Status::Expired,
        4 => Status::Held,
        5 => Status::Replaced,
        _ => return Err(DecodeError::Value),
    };
    let next_ms = reader.u64()?;
    let reply = reader.text()?;
    Ok(Outcome {
        recipient,
        attempt,
        status,
        next_ms,
        reply,
    })
}

/// Appends a thread state.
pub fn put_thread(out: &mut Vec<u8>, state: &ThreadState) {
    out.text(&state.channel);
    out.text(&state.host);
    out.put(&state.attempt.to_le_bytes());
    out.put(&state.next_ms.to_le_bytes());
    out.text(&state.reply);
}

/// Appends a string with a 16-bit length; what is longer is cut.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.text(text);
}

/// Reads a thread state that fills `bytes`.
///
/// # Errors
/// See [`DecodeError`].
pub fn thread(bytes: &[u8]) -> Result<ThreadState, DecodeError> {
    let mut reader = Reader(bytes);
    let state = take_thread(&mut reader)?;
    reader.end()?;
    Ok(state)
}

/// Takes a thread state off the front.
pub(crate) fn take_thread(reader: &mut Reader<'_>) -> Result<ThreadState, DecodeError> {
    Ok(ThreadState {
        channel: reader.text()?,
        host: reader.text()?,
        attempt: reader.u32()?,
        next_ms: reader.u64()?,
        reply: reader.text()?,
    })
}

/// The fixed part of a message or copy-forward payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageHead {
    /// The message's id.
    pub id: SpoolId,
    /// Bytes of the envelope that follows.
    pub envelope_len: u32,
    /// Outcomes that follow the envelope; 0 in a message record.
    pub outcomes_count: u32,
    /// Bytes of the content at the end.
    pub content_len: u64,
    /// Checksum of the content.
    pub content_sum: u32,
}

/// Bytes of a [`MessageHead`].
pub const MESSAGE_HEAD_BYTES: usize = 36;

impl MessageHead {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; MESSAGE_HEAD_BYTES] {
        let mut out = Vec::with_capacity(MESSAGE_HEAD_BYTES);
        out.put(&self.id.bits().to_le_bytes());
        out.put(&self.envelope_len.to_le_bytes());
        out.put(&self.outcomes_count.to_le_bytes());
        out.put(&self.content_len.to_le_bytes());
        out.put(&self.content_sum.to_le_bytes());
        let mut bytes = [0; MESSAGE_HEAD_BYTES];
        bytes.copy_from_slice(&out);
        bytes
    }

    /// Reads it.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: SpoolId::from_bits(reader.u128()?),
            envelope_len: reader.u32()?,
            outcomes_count: reader.u32()?,
            content_len: reader.u64()?,
            content_sum: reader.u32()?,
        })
    }
}

/// The payload of a copy-forward record from its parts.
#[must_use]
pub fn whole_payload(
    id: SpoolId,
    envelope: &Envelope,
    outcomes: &[Outcome],
    content: &[u8],
) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(256);
    put_envelope(&mut encoded, envelope);
    let head = MessageHead {
        id,
        envelope_len: encoded.len() as u32,
        outcomes_count: outcomes.len() as u32,
        content_len: content.len() as u64,
        content_sum: crc32c::crc32c(content),
    };
    let mut out = Vec::with_capacity(encoded.len() + content.len() + 64);
    out.put(&head.encode());
    out.put(&encoded);
    for outcome in outcomes {
        put_outcome(&mut out, outcome);
    }
    out.put(content);
    out
}

/// The payload of a copy-forward record for the message or copy in `payload`, with `rounds` behind its envelope.
///
/// # Errors
/// When `payload` is damaged.
pub fn copy_payload(
    payload: &[u8],
    rounds: &[u8],
    outcomes: &[Outcome],
) -> Result<Vec<u8>, DecodeError> {
    let message = message(payload)?;
    if crc32c::crc32c(message.content) != message.head.content_sum {
        return Err(DecodeError::Checksum);
    }
    let head = MessageHead {
        envelope_len: (message.envelope.len() + rounds.len()) as u32,
        outcomes_count: outcomes.len() as u32,
        ..message.head
    };
    let mut out = Vec::with_capacity(payload.len() + rounds.len() + 64);
    out.put(&head.encode());
    out.put(message.envelope);
    out.put(rounds);
    for outcome in outcomes {
        put_outcome(&mut out, outcome);
    }
    out.put(message.content);
    Ok(out)
}

/// The payload of a record for content in a file.
#[must_use]
pub fn large_payload(envelope: &Envelope, outcomes: &[Outcome], content: &ContentFile) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(256);
    put_envelope(&mut encoded, envelope);
    let head = large_head(content, encoded.len(), outcomes.len());
    let mut out = Vec::with_capacity(encoded.len() + 4 * content.sums.len() + 64);
    out.put(&head.encode());
    out.put(&encoded);
    for outcome in outcomes {
        put_outcome(&mut out, outcome);
    }
    out.put(&[u8::from(content.eight_bit)]);
    out.put(&(content.sums.len() as u32).to_le_bytes());
    for sum in &content.sums {
        out.put(&sum.to_le_bytes());
    }
    out
}

/// What every record of a message begins with: fixed part, encoded envelope, outcomes.
fn front<'a>(
    reader: &mut Reader<'a>,
) -> Result<(MessageHead, &'a [u8], Vec<Outcome>), DecodeError> {
    let head = MessageHead::decode(reader)?;
    let envelope = reader.bytes(head.envelope_len as usize)?;
    let mut outcomes = Vec::new();
    for _ in 0..head.outcomes_count {
        outcomes.push(outcome(reader)?);
    }
    Ok((head, envelope, outcomes))
}

/// The payload of a record for content in a file, taken apart.
#[derive(Debug)]
pub struct LargeParts<'a> {
    /// The fixed part.
    pub head: MessageHead,
    /// Encoded envelope.
    pub envelope: &'a [u8],
    /// Outcomes of a copy.
    pub outcomes: Vec<Outcome>,
    /// A byte of the content is above 127.
    pub eight_bit: bool,
    /// Checksum of each piece of the content.
    pub sums: Vec<u32>,
}

/// Takes a payload for content in a file apart; the checksum of the checksums is verified.
///
/// # Errors
/// See [`DecodeError`].
pub fn large(payload: &[u8]) -> Result<LargeParts<'_>, DecodeError> {
    let mut reader = Reader(payload);
    let (head, envelope, outcomes) = front(&mut reader)?;
    let eight_bit = reader.u8()? != 0;
    let count = reader.u32()?;
    if reader.0.len() != count as usize * 4
        || u64::from(count) != head.content_len.div_ceil(PIECE_BYTES as u64)
    {
        return Err(DecodeError::Value);
    }
    if crc32c::crc32c(reader.0) != head.content_sum {
        return Err(DecodeError::Checksum);
    }
    let sums = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
    Ok(LargeParts {
        head,
        envelope,
        outcomes,
        eight_bit,
        sums,
    })
}

/// The payload of a copy of the record in `payload`, whose content is in a file, with `rounds` behind its envelope.
///
/// # Errors
/// When `payload` is damaged.
pub fn copy_large_payload(
    payload: &[u8],
    rounds: &[u8],
    outcomes: &[Outcome],
) -> Result<Vec<u8>, DecodeError> {
    let parts = large(payload)?;
    let routed = [parts.envelope, rounds].concat();
    let content = ContentFile {
        id: parts.head.id,
        shard: 0,
        len: parts.head.content_len,
        eight_bit: parts.eight_bit,
        sums: parts.sums,
    };
    Ok(large_payload(&envelope(&routed)?, outcomes, &content))
}

/// A message or copy-forward payload, taken apart; the content's checksum is not verified here.
#[derive(Debug)]
pub struct MessageParts<'a> {
    /// The fixed part.
    pub head: MessageHead,
    /// Encoded envelope.
    pub envelope: &'a [u8],
    /// Outcomes of a copy.
    pub outcomes: Vec<Outcome>,
    /// Content.
    pub content: &'a [u8],
}

/// Takes a payload apart.
///
/// # Errors
/// See [`DecodeError`].
pub fn message(payload: &[u8]) -> Result<MessageParts<'_>, DecodeError> {
    let mut reader = Reader(payload);
    let (head, envelope, outcomes) = front(&mut reader)?;
    let len = usize::try_from(head.content_len).map_err(|_| DecodeError::Truncated)?;
    let content = reader.bytes(len)?;
    reader.end()?;
    Ok(MessageParts {
        head,
        envelope,
        outcomes,
        content,
    })
}

/// The id at the start of an outcome, done or message payload and what follows it.
pub(crate) fn id_and_rest(payload: &[u8]) -> Result<(SpoolId, Reader<'_>), DecodeError> {
    let mut reader = Reader(payload);
    let id = SpoolId::from_bits(reader.u128()?);
    Ok((id, reader))
}
