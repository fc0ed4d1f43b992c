//! What became of a message's recipients when it was routed: rounds, each a routing record in pieces.
//!
//! RoutedRecipients of the envelope have the numbers 0 to n-1. A round replaces some recipients by others, which get the
//! next numbers, one at least; a number is never given twice, so outcomes of any time mean what they meant. A round
//! counts when its last piece is on disk. A copy of the message has all rounds behind its envelope.

use std::sync::Arc;

use crate::layout::{COMMIT_HEADER_BYTES, aligned};
use crate::log::{Location, Log};
use crate::record::{DecodeError, HEADER_BYTES, Kind, Put, Reader, Size};
use crate::routed::{Routed, RoutedRecipients, RoutedRef};
use crate::types::{Envelope, Event, MessageKey, Outcome, Refusal, Status};

/// Bytes before a piece: id 16, first number 4, piece 4, pieces 4.
pub(crate) const PIECE_HEAD_BYTES: usize = 28;

/// Stands in the count of a group's edits: the address for reports follows.
const HAS_ERRORS_TO: u32 = 1 << 31;

/// Likewise: RET and ENVID are not for the group.
const DETACHED: u32 = 1 << 30;

const FLAGS: u32 = HAS_ERRORS_TO | DETACHED;

/// A change of the content of a message on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Offset in the stored content.
    pub at: u64,
    /// Bytes that are left out there.
    pub remove: u32,
    /// Bytes that come in their place.
    pub insert: Vec<u8>,
}

/// RoutedRecipients that get the same content from the same sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Envelope sender.
    pub sender: Vec<u8>,
    /// Who is told of failures instead of the sender.
    pub errors_to: Option<Vec<u8>>,
    /// A list has taken the message over: its RET and ENVID are not for them (RFC 3461 5.2.7.3).
    pub detached: bool,
    /// By their places; they do not overlap.
    pub edits: Vec<Edit>,
}

/// One result of routing, or several of a message one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// Of the configuration that made it, the latest one of several.
    pub generation: u64,
    /// Channel and host.
    pub hops: Vec<(Arc<str>, Arc<str>)>,
    /// Sender and content.
    pub groups: Vec<Group>,
    /// By number, from the first behind those that were there before.
    pub recipients: RoutedRecipients,
}

impl Routing {
    /// Adds a later round.
    pub fn extend(&mut self, later: Self) {
        let (hops, groups) = (self.hops.len() as u32, self.groups.len() as u32);
        self.generation = later.generation;
        self.hops.extend(later.hops);
        self.groups.extend(later.groups);
        for recipient in later.recipients.iter() {
            self.recipients.push(RoutedRef {
                group: recipient.group + groups,
                hop: recipient.hop + hops,
                ..recipient
            });
        }
    }

    /// Appends it as a round that replaces these recipients.
    pub(crate) fn put(&self, out: &mut impl Put, replaced: &[u32]) {
        out.put(&self.generation.to_le_bytes());
        put_count(out, replaced.len());
        for number in replaced {
            out.put(&number.to_le_bytes());
        }
        put_count(out, self.hops.len());
        for (channel, host) in &self.hops {
            out.text(channel.as_bytes());
            out.text(host.as_bytes());
        }
        put_count(out, self.groups.len());
        for group in &self.groups {
            out.text(&group.sender);
            let told = group.errors_to.as_ref().map_or(0, |_| HAS_ERRORS_TO);
            let detached = if group.detached { DETACHED } else { 0 };
            let count = group.edits.len() as u32;
            debug_assert!(count & FLAGS == 0, "edits are bounded far below");
            out.put(&(count | told | detached).to_le_bytes());
            if let Some(errors_to) = &group.errors_to {
                out.text(errors_to);
            }
            for edit in &group.edits {
                out.put(&edit.at.to_le_bytes());
                out.put(&edit.remove.to_le_bytes());
                put_count(out, edit.insert.len());
                out.put(&edit.insert);
            }
        }
        put_count(out, self.recipients.len());
        for recipient in self.recipients.iter() {
            for number in [recipient.of, recipient.group, recipient.hop] {
                out.put(&number.to_le_bytes());
            }
            match recipient.privilege {
                None => out.put(&[0]),
                Some(user) => {
                    out.put(&[1]);
                    out.put(&user.to_le_bytes());
                }
            }
            out.put(&[recipient.notify]);
            out.option(recipient.orcpt);
            out.text(recipient.user);
        }
    }

    /// Takes a round; gives the numbers that it replaces.
    pub(crate) fn take(reader: &mut Reader<'_>) -> Result<(Self, Vec<u32>), DecodeError> {
        let generation = reader.u64()?;
        let replaced = many(reader, 4, Reader::u32)?;
        let hops = many(reader, 4, |reader| Ok((name(reader)?, name(reader)?)))?;
        let groups = many(reader, 6, group)?;
        let (hops_count, groups_count) = (hops.len() as u32, groups.len() as u32);
        let count = reader.u32()? as usize;
        believable(reader, count, 17)?;
        let mut recipients = RoutedRecipients::default();
        for _ in 0..count {
            let recipient = routed(reader)?;
            // Whatever refers to nothing was not written by this program.
            if recipient.group >= groups_count || recipient.hop >= hops_count {
                return Err(DecodeError::Value);
            }
            recipients.push(recipient.borrowed());
        }
        if recipients.is_empty() {
            return Err(DecodeError::Value);
        }
        let routing = Self {
            generation,
            hops,
            groups,
            recipients,
        };
        Ok((routing, replaced))
    }
}

fn put_count(out: &mut impl Put, count: usize) {
    out.put(&(count as u32).to_le_bytes());
}

/// A list that begins with the count of its entries.
fn many<'a, T>(
    reader: &mut Reader<'a>,
    least: usize,
    one: impl Fn(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.u32()? as usize;
    these(reader, count, least, one)
}

fn these<'a, T>(
    reader: &mut Reader<'a>,
    count: usize,
    least: usize,
    one: impl Fn(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    believable(reader, count, least)?;
    (0..count).map(|_| one(reader)).collect()
}

/// Entries take `least` bytes each: a count that cannot be true allocates nothing.
fn believable(reader: &Reader<'_>, count: usize, least: usize) -> Result<(), DecodeError> {
    if count > reader.0.len() / least {
        return Err(DecodeError::Truncated);
    }
    Ok(())
}

fn name(reader: &mut Reader<'_>) -> Result<Arc<str>, DecodeError> {
    let text = String::from_utf8(reader.text()?).map_err(|_| DecodeError::Value)?;
    Ok(text.into())
}

fn group(reader: &mut Reader<'_>) -> Result<Group, DecodeError> {
    let sender = reader.text()?;
    let count = reader.u32()?;
    let errors_to = match count & HAS_ERRORS_TO {
        0 => None,
        _ => Some(reader.text()?),
    };
    Ok(Group {
        sender,
        errors_to,
        detached: count & DETACHED != 0,
        edits: these(reader, (count & !FLAGS) as usize, 16, edit)?,
    })
}

fn edit(reader: &mut Reader<'_>) -> Result<Edit, DecodeError> {
    let (at, remove) = (reader.u64()?, reader.u32()?);
    let len = reader.u32()? as usize;
    Ok(Edit {
        at,
        remove,
        insert: reader.bytes(len)?.to_vec(),
    })
}

fn routed(reader: &mut Reader<'_>) -> Result<Routed, DecodeError> {
    let (of, group, hop) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let privilege = match reader.u8()? {
        0 => None,
        1 => Some(reader.u32()?),
        _ => return Err(DecodeError::Value),
    };
    Ok(Routed {
        of,
        group,
        hop,
        privilege,
        notify: reader.u8()?,
        orcpt: reader.option()?.map(Vec::into_boxed_slice),
        user: reader.text()?.into(),
    })
}

/// A piece of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The number of the first recipient that the round makes.
    pub(crate) first: u32,
    pub(crate) piece: u32,
    pub(crate) pieces: u32,
    pub(crate) bytes: Vec<u8>,
}

impl Piece {
    /// Takes what follows the id of a routing record.
    pub(crate) fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (first, piece, pieces) = (reader.u32()?, reader.u32()?, reader.u32()?);
        if piece >= pieces {
            return Err(DecodeError::Value);
        }
        let bytes = reader.bytes(reader.0.len())?.to_vec();
        Ok(Self {
            first,
            piece,
            pieces,
            bytes,
        })
    }
}

/// The bytes of a round in the payload of one of its pieces.
pub(crate) fn body(payload: &[u8]) -> &[u8] {
    payload.get(PIECE_HEAD_BYTES..).unwrap_or_default()
}

/// Pieces of rounds that are found one after the other; a round counts when all of it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gathered {
    first: u32,
    pieces: u32,
    bytes: Vec<u8>,
    places: Vec<Location>,
}

/// A round of which every piece is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) first: u32,
    pub(crate) routing: Routing,
    pub(crate) replaced: Vec<u32>,
    pub(crate) places: Vec<Location>,
}

impl Gathered {
    /// Takes the next piece; gives the round when it was the last one.
    pub(crate) fn take(
        &mut self,
        piece: Piece,
        place: Location,
        half_counts: bool,
    ) -> Result<Option<Round>, DecodeError> {
        if piece.piece == 0 {
            // What came before was cut off, and was made again.
            *self = Self {
                first: piece.first,
                pieces: piece.pieces,
                ..Self::default()
            };
        }
        let next = self.places.len() as u32;
        let fits = piece.first == self.first && piece.pieces == self.pieces && piece.piece == next;
        if !fits {
            *self = Self::default();
            return Ok(None);
        }
        self.bytes.extend_from_slice(&piece.bytes);
        self.places.push(place);
        if next + 1 < self.pieces && !half_counts {
            return Ok(None);
        }
        let whole = std::mem::take(self);
        let (routing, replaced) = match Routing::take(&mut Reader(&whole.bytes)) {
            Err(_) if half_counts => Default::default(),
            taken => taken?,
        };
        Ok(Some(Round {
            first: whole.first,
            routing,
            replaced,
            places: whole.places,
        }))
    }
}

/// Where the rounds of a message are that its own record does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rounds {
    /// Pieces on disk, in their order.
    pub(crate) places: Vec<Location>,
    /// Pieces that are to be staged or on their way to the disk.
    pub(crate) staged: u32,
    /// So many of the pieces are in a copy of the message that is on its way to the disk.
    pub(crate) copied: u32,
    /// RoutedRecipients, those of the envelope included; 0: only those.
    pub(crate) numbers: u32,
}

impl Rounds {
    /// The copy is on disk: it has the first pieces. Gives their places.
    pub(crate) fn arrive(&mut self) -> Vec<Location> {
        let count = std::mem::take(&mut self.copied) as usize;
        self.places.drain(..count.min(self.places.len())).collect()
    }

    /// Of a message whose record has all of them.
    pub(crate) fn of(envelope: &Envelope) -> Self {
        let routed = envelope.routing.is_some();
        Self {
            numbers: if routed {
                envelope.recipients_count() as u32
            } else {
                0
            },
            ..Self::default()
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty() && self.staged == 0 && self.numbers == 0
    }
}

/// A round that is larger than one piece, on its way into batches.
#[derive(Debug)]
pub(crate) struct Staging {
    key: MessageKey,
    id: u128,
    first: u32,
    next: u32,
    piece_bytes: usize,
    bytes: Vec<u8>,
}

impl Staging {
    fn pieces(&self) -> u32 {
        self.bytes.len().div_ceil(self.piece_bytes).max(1) as u32
    }

    /// Bytes of the log that it takes: pieces of a larger one have a commit each.
    fn cost(&self) -> u64 {
        let piece = COMMIT_HEADER_BYTES + HEADER_BYTES + PIECE_HEAD_BYTES + self.piece_bytes;
        match self.pieces() {
            1 => self.bytes.len() as u64,
            pieces => u64::from(pieces - self.next) * aligned(piece) as u64,
        }
    }

    fn payload(&self) -> Vec<u8> {
        let from = self.next as usize * self.piece_bytes;
        let end = (from + self.piece_bytes).min(self.bytes.len());
        let mut payload = Vec::with_capacity(PIECE_HEAD_BYTES + end - from);
        payload.put(&self.id.to_le_bytes());
        for number in [self.first, self.next, self.pieces()] {
            payload.put(&number.to_le_bytes());
        }
        payload.put(self.bytes.get(from..end).unwrap_or_default());
        payload
    }
}

impl Log {
    /// Records what routing has made of some recipients of a message, one recipient at least: those in `replaced`
    /// need nothing any more, the new ones have the numbers from the one that is given back. True: all of it is staged, and outcomes
    /// of the new ones may follow; else [`Event::Routed`] says when.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] when the message would not fit into a segment with it, [`Refusal::Busy`] until what is
    /// staged is on disk, [`Refusal::Full`] while only the reserve is left.
    pub fn route(
        &mut self,
        now: u64,
        key: MessageKey,
        replaced: &[u32],
        routing: &Routing,
    ) -> Result<(u32, bool), Refusal> {
        debug_assert!(
            !routing.recipients.is_empty(),
            "a round is told by the numbers it gives"
        );
        let limit = self.payload_max();
        let mut size = Size::default();
        routing.put(&mut size, replaced);
        let Some(live) = self.live.get(&key).filter(|live| !live.done) else {
            return Err(Refusal::Failed);
        };
        let before = live.rounds.places.iter().map(|place| place.payload_len);
        let whole = live.record_bytes() + before.sum::<u64>() + size.0 as u64;
        if whole > limit / 2 {
            let limit = limit / 2;
            return Err(Refusal::TooLarge { limit });
        }
        if live.rounds.staged > 0 {
            return Err(Refusal::Busy);
        }
        let mut bytes = Vec::with_capacity(size.0);
        routing.put(&mut bytes, replaced);
        let staging = Staging {
            key,
            id: live.id.bits(),
            first: live.recipients_count,
            next: 0,
            piece_bytes: self.settings.round_piece_bytes.max(1) as usize,
            bytes,
        };
        self.room_for_round(staging.cost())?;
        let first = staging.first;
        self.replace(
            key,
            replaced,
            routing.recipients.len() as u32,
            staging.pieces(),
        );
        if staging.pieces() == 1 {
            self.staging.round(now, key, &staging.payload(), false);
            return Ok((first, true));
        }
        self.rounds.push_back(staging);
        self.stage_rounds(now);
        Ok((first, false))
    }

    /// Routing makes records like mail does, so it leaves the reserve whole as well; and what is in pieces on its way
    /// fits into half a segment, but for one larger one.
    fn room_for_round(&self, cost: u64) -> Result<(), Refusal> {
        let waiting: u64 = self.rounds.iter().map(Staging::cost).sum();
        if waiting > 0 && waiting + cost > self.settings.segment_bytes / 2 {
            return Err(Refusal::Busy);
        }
        if self.has_space(self.staging.len() as u64 + waiting + cost) {
            Ok(())
        } else {
            Err(Refusal::Full)
        }
    }

    fn replace(&mut self, key: MessageKey, replaced: &[u32], added: u32, pieces: u32) {
        let Some(live) = self.live.get_mut(&key) else {
            return;
        };
        for number in replaced {
            live.keep(replacement(*number));
        }
        live.recipients_count += added;
        live.rounds.numbers = live.recipients_count;
        live.rounds.staged += pieces;
    }

    /// Stages rounds of several pieces, a piece in each batch: mail waits for no more.
    pub(crate) fn stage_rounds(&mut self, now: u64) {
        while let Some(mut round) = self.rounds.pop_front() {
            let live = self.live.get(&round.key);
            if live.is_none_or(|live| live.done) {
                continue;
            }
            if self.staging.has_piece() {
                self.rounds.push_front(round);
                return;
            }
            let payload = round.payload();
            self.staging.round(now, round.key, &payload, true);
            round.next += 1;
            if round.next < round.pieces() {
                self.rounds.push_front(round);
            } else {
                let (key, batch) = (round.key, self.staging.batch());
                self.events.push_back(Event::Routed { key, batch });
            }
        }
    }

    /// A piece of a round is on disk.
    pub(crate) fn round_placed(&mut self, key: MessageKey, place: Location) {
        let Some(live) = self.live.get_mut(&key) else {
            return;
        };
        live.rounds.staged -= 1;
        live.rounds.places.push(place);
        self.bytes_arrive(place);
    }
}

/// Kinds of records with a message, and whether rounds may be behind their envelopes.
pub(crate) const fn routed_kind(has_file: bool, is_routed: bool) -> Kind {
    match (has_file, is_routed) {
        (false, false) => Kind::CopyForward,
        (true, false) => Kind::Large,
        (false, true) => Kind::RoutedCopy,
        (true, true) => Kind::RoutedLarge,
    }
}

/// Enters the latest outcome of a recipient into a list by number.
pub(crate) fn keep(outcomes: &mut Vec<Outcome>, outcome: Outcome) {
    let number = |other: &Outcome| other.recipient;
    match outcomes.binary_search_by_key(&outcome.recipient, number) {
        Ok(at) => {
            if let Some(other) = outcomes.get_mut(at) {
                *other = outcome;
            }
        }
        Err(at) => outcomes.insert(at, outcome),
    }
}

/// What is kept of a recipient that a round has replaced.
pub(crate) fn replacement(number: u32) -> Outcome {
    Outcome {
        recipient: number,
        attempt: 0,
        status: Status::Replaced,
        next_ms: 0,
        reply: Vec::new(),
    }
}
