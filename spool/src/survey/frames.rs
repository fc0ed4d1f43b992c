//! Records in bytes that are damaged: followed one by one while they can be, searched for where not.

use crate::record::{self, DecodeError, Frame, HEADER_BYTES, Kind, MESSAGE_HEAD_BYTES, Reader};

use crate::routing;

use super::{Says, is_final};

/// A whole record: where its payload begins in the bytes given, and how far it goes.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) payload: usize,
    pub(super) end: usize,
    pub(super) says: Says,
}

/// What ended a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The bytes.
    Whole,
    /// A record that is not whole, at this offset.
    Broken(usize),
    /// A kind that this version does not read.
    Unknown(u8),
}

/// Follows the records from the start of `bytes` to the end, or to the first that is not whole.
pub(super) fn walk(bytes: &[u8], mut each: impl FnMut(Piece)) -> End {
    let mut unknown = None;
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        match (take(rest), length(rest)) {
            (Ok((len, says)), _) => {
                each(piece(at, len, says));
                at += len;
            }
            (Err(DecodeError::UnknownKind(kind)), Some(len)) => {
                unknown = unknown.or(Some(kind));
                at += len;
            }
            _ => return End::Broken(at),
        }
    }
    unknown.map_or(End::Whole, End::Unknown)
}

/// Steps from record to record by their lengths alone; gives the whole ones, and the offsets of the others, to
/// `each`. The sum of it all is made of the sums that the records name for their payloads, so it is that of the bytes as they were written:
/// when it is what the commit says, no length and no whole record is other than it was. None when the
/// lengths do not meet the end.
pub(super) fn sum_as_written(
    bytes: &[u8],
    mut each: impl FnMut(Result<Piece, usize>),
) -> Option<u32> {
    let (mut at, mut sum) = (0, 0);
    while at < bytes.len() {
        let rest = bytes.get(at..)?;
        let len = length(rest)?;
        let header = rest.get(..HEADER_BYTES)?;
        let payload_sum = Reader(header.get(8..)?).u32().ok()?;
        sum = crc32c::crc32c_append(sum, header);
        sum = crc32c::crc32c_combine(sum, payload_sum, len - HEADER_BYTES);
        each(match take(rest) {
            Ok((len, says)) => Ok(piece(at, len, says)),
            Err(_) => Err(at),
        });
        at += len;
    }
    Some(sum)
}

/// What a damaged record seems to be. Its id may be what is damaged.
pub(super) fn name(record: &[u8]) -> String {
    let kind = record.first().copied().and_then(Kind::from_byte);
    let payload = record.get(HEADER_BYTES..).unwrap_or_default();
    match (kind, record::id_and_rest(payload)) {
        (Some(kind @ (Kind::Outcome | Kind::Done | Kind::Routing)), Ok((id, _))) => {
            let kind = format!("{kind:?}").to_lowercase();
            format!("the {kind} record of message {id} is damaged")
        }
        (Some(kind), Ok((id, _))) if is_message(kind) => format!("message {id} is damaged"),
        _ => "a record is damaged".to_owned(),
    }
}

fn is_message(kind: Kind) -> bool {
    use Kind::{CopyForward, Large, Message, RoutedCopy, RoutedLarge};
    matches!(
        kind,
        Message | CopyForward | Large | RoutedCopy | RoutedLarge
    )
}

fn piece(at: usize, len: usize, says: Says) -> Piece {
    Piece {
        payload: at + HEADER_BYTES,
        end: at + len,
        says,
    }
}

/// Searches `bytes` for whole records. Checksums are taken over so many times their length at most: content
/// can be made to look like the beginning of many long records.
pub(super) fn search(bytes: &[u8], mut each: impl FnMut(Piece)) -> bool {
    const EFFORT: usize = 32;
    let mut effort = EFFORT.saturating_mul(bytes.len().max(1 << 20));
    let mut at = 0;
    while let Some(next) = candidate(bytes, at) {
        let rest = bytes.get(next..).unwrap_or_default();
        let len = length(rest).unwrap_or(HEADER_BYTES);
        let Some(left) = effort.checked_sub(len) else {
            return false;
        };
        effort = left;
        match take(rest) {
            Ok((len, says)) => {
                each(piece(next, len, says));
                at = next + len;
            }
            Err(_) => at = next + 1,
        }
    }
    true
}

/// The next offset at which a record may begin.
fn candidate(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() > HEADER_BYTES) {
        if rest.starts_with(&[0, 0, 0]) {
            // No kind is zero.
            let zeroes = rest.iter().position(|byte| *byte != 0)?;
            at += zeroes.max(1);
            continue;
        }
        let kind = rest.first().copied().and_then(Kind::from_byte);
        let plain = rest.get(1..4) == Some(&[0, 0, 0]);
        if kind.is_some() && plain && length(rest).is_some_and(|len| is_likely(rest, len)) {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// Bytes of the record at the start of `rest`, when they are all there.
fn length(rest: &[u8]) -> Option<usize> {
    let mut reader = Reader(rest.get(4..8)?);
    let len = HEADER_BYTES + reader.u32().ok()? as usize;
    (len <= rest.len()).then_some(len)
}

/// Whether it is worth taking the checksum of what may be a record: what is in it agrees with its length.
fn is_likely(rest: &[u8], len: usize) -> bool {
    /// Three texts and a few numbers: a state of a next hop.
    const SMALL_BYTES_MAX: usize = 3 * (1 << 16);
    let payload = rest.get(HEADER_BYTES..len).unwrap_or_default();
    let kind = rest.first().copied().and_then(Kind::from_byte);
    let all = payload.len() as u64;
    match kind {
        Some(Kind::Message) => message_len(payload) == Some(all),
        // Outcomes come on top.
        Some(Kind::CopyForward | Kind::RoutedCopy) => {
            message_len(payload).is_some_and(|len| len <= all)
        }
        Some(Kind::Routing) => payload.len() > routing::PIECE_HEAD_BYTES,
        Some(Kind::Large | Kind::RoutedLarge) => payload.len() >= MESSAGE_HEAD_BYTES,
        Some(_) => payload.len() <= SMALL_BYTES_MAX,
        None => false,
    }
}

/// The length that the fixed part of a message record speaks of, outcomes left out.
fn message_len(payload: &[u8]) -> Option<u64> {
    let head = record::MessageHead::decode(&mut Reader(payload)).ok()?;
    let fixed = MESSAGE_HEAD_BYTES as u64 + u64::from(head.envelope_len);
    fixed.checked_add(head.content_len)
}

/// The record at the start of `rest`: bytes, and what it says.
fn take(rest: &[u8]) -> Result<(usize, Says), DecodeError> {
    let mut after = rest;
    let frame = record::take_frame(&mut after)?;
    Ok((rest.len() - after.len(), says(&frame)?))
}

fn says(frame: &Frame<'_>) -> Result<Says, DecodeError> {
    Ok(match frame.kind {
        Kind::Message | Kind::CopyForward | Kind::RoutedCopy => {
            let parts = record::message(frame.payload)?;
            message(frame, parts.head.id, parts.envelope, &parts.outcomes)?
        }
        Kind::Large | Kind::RoutedLarge => {
            let parts = record::large(frame.payload)?;
            message(frame, parts.head.id, parts.envelope, &parts.outcomes)?
        }
        Kind::Outcome => {
            let (id, mut reader) = record::id_and_rest(frame.payload)?;
            let (recipient, finished) = is_final(&record::outcome(&mut reader)?);
            reader.end()?;
            Says::Outcome {
                id,
                recipient,
                finished,
            }
        }
        Kind::Done => {
            let (id, reader) = record::id_and_rest(frame.payload)?;
            reader.end()?;
            Says::Done(id)
        }
        Kind::Void => {
            let mut reader = Reader(frame.payload);
            let sequence = reader.u64()?;
            reader.end()?;
            Says::Void(sequence)
        }
        Kind::Thread => {
            record::thread(frame.payload)?;
            Says::Nothing
        }
        Kind::Routing => {
            let (id, mut reader) = record::id_and_rest(frame.payload)?;
            let piece = routing::Piece::take(&mut reader)?;
            Says::Round { id, piece }
        }
        kind @ (Kind::Action | Kind::Checkpoint) => {
            return Err(DecodeError::UnknownKind(kind as u8));
        }
    })
}

fn message(
    frame: &Frame<'_>,
    id: crate::id::SpoolId,
    envelope: &[u8],
    outcomes: &[crate::types::Outcome],
) -> Result<Says, DecodeError> {
    let recipients = record::envelope(envelope)?.recipients_count() as u32;
    Ok(Says::Message {
        id,
        kind: frame.kind,
        payload_len: frame.payload.len() as u64,
        sum: crc32c::crc32c(frame.payload),
        recipients,
        outcomes: outcomes.iter().map(is_final).collect(),
    })
}

/// The record at `at`, when it is whole.
pub(super) fn first(bytes: &[u8], at: usize) -> Option<Piece> {
    let (len, says) = take(bytes.get(at..)?).ok()?;
    Some(piece(at, len, says))
}
