//! Reading records back: aligned ranges, several for large content, verified before anything of it is given out.

use std::sync::Arc;

use crate::buffer::{ALIGN_BYTES, AlignedBuf};
use crate::content::ContentFile;
use crate::id::SpoolId;
use crate::layout::aligned;
use crate::log::{Location, Log, Place};
use crate::op::{Completion, FileId, Op, Request};
use crate::record::{self, HEADER_BYTES, Kind, MESSAGE_HEAD_BYTES, MessageHead, Reader};
use crate::routing;
use crate::types::{Content, Envelope, Event, MessageKey, ReadError, ReadTicket};

/// Bytes of one read request.
const READ_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a record that hold most envelopes.
const HEAD_BYTES: u64 = 1024;

/// What a record is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The content of a live message.
    Content,
    /// All of a resting message.
    Wake,
    /// The envelope of a resting message.
    Inspect,
}

/// A read under way.
#[derive(Debug)]
pub(crate) struct Read {
    ticket: ReadTicket,
    key: MessageKey,
    id: SpoolId,
    place: Location,
    /// The content is in a file: what is read is the record that speaks of it.
    has_file: bool,
    purpose: Purpose,
    /// What has been read, from the block the record begins in.
    bytes: Vec<u8>,
    /// Recipients that it has with what routing made when the read began.
    numbers: u32,
    /// Pieces of what routing made, which are read behind it.
    rounds: Vec<Location>,
    /// So many of them have been read, and this is what they say.
    rounds_read: usize,
    routed: Vec<u8>,
    /// Of the next one, from the block it begins in.
    piece: Vec<u8>,
}

impl Read {
    /// The piece that is being read, once the record has been.
    fn round(&self) -> Option<Location> {
        let whole = self.bytes.len() as u64 >= self.wanted();
        let next = self.rounds.get(self.rounds_read).copied();
        next.filter(|_| whole)
    }

    /// The next bytes to read: segment, offset, length.
    fn next_range(&self) -> (u32, u64, u64) {
        let (segment, from, end, done) = match self.round() {
            Some(place) => {
                let (from, end) = blocks(place);
                (place.segment, from, end, self.piece.len() as u64)
            }
            None => {
                let (from, done) = (self.from(), self.bytes.len() as u64);
                (self.place.segment, from, from + self.wanted(), done)
            }
        };
        let len = (end - from).saturating_sub(done).min(READ_BYTES_MAX);
        (segment, from + done, len)
    }

    /// Takes what was read; says whether there is more to read.
    fn take(&mut self, bytes: &[u8]) -> Result<bool, ReadError> {
        let Some(place) = self.round() else {
            self.bytes.extend_from_slice(bytes);
            return Ok((self.bytes.len() as u64) < self.wanted() || self.round().is_some());
        };
        self.piece.extend_from_slice(bytes);
        let (from, end) = blocks(place);
        if (self.piece.len() as u64) < end - from {
            return Ok(true);
        }
        let payload = piece_payload(&self.piece, from, place, self.id);
        self.routed.extend_from_slice(routing::body(payload?));
        self.piece.clear();
        self.rounds_read += 1;
        Ok(self.rounds_read < self.rounds.len())
    }

    /// The record begins here.
    fn start(&self) -> u64 {
        self.place.payload - HEADER_BYTES as u64
    }

    fn from(&self) -> u64 {
        self.start() / ALIGN_BYTES as u64 * ALIGN_BYTES as u64
    }

    /// Bytes to be read in all, as far as is known.
    fn wanted(&self) -> u64 {
        let len = match self.purpose {
            Purpose::Content | Purpose::Wake => self.place.payload_len,
            Purpose::Inspect => self.head_len().min(self.place.payload_len),
        };
        aligned((self.place.payload + len - self.from()) as usize) as u64
    }

    /// Bytes of the payload with the envelope in them.
    fn head_len(&self) -> u64 {
        let payload = self.payload();
        if payload.len() < MESSAGE_HEAD_BYTES {
            return HEAD_BYTES;
        }
        let head = MessageHead::decode(&mut Reader(payload));
        head.map_or(0, |head| {
            (MESSAGE_HEAD_BYTES + head.envelope_len as usize) as u64
        })
    }

    /// As much of the payload as has been read.
    fn payload(&self) -> &[u8] {
        let at = (self.place.payload - self.from()) as usize;
        let end = at + self.place.payload_len as usize;
        let end = end.min(self.bytes.len());
        self.bytes.get(at..end).unwrap_or_default()
    }

    fn whole_payload(&self) -> Result<&[u8], ReadError> {
        let payload = self.payload();
        if payload.len() as u64 == self.place.payload_len {
            Ok(payload)
        } else {
            Err(ReadError::Damaged)
        }
    }
}

impl Log {
    /// Starts reading the content of a live message that is on disk; [`Event::Content`] answers.
    pub fn read(&mut self, key: MessageKey) -> Option<ReadTicket> {
        let live = self.live.get(&key)?;
        let (id, has_file) = (live.id, live.has_file);
        let Place::Disk(place) = live.place else {
            return None;
        };
        Some(self.start_read(key, id, place, has_file, Purpose::Content))
    }

    pub(crate) fn start_read(
        &mut self,
        key: MessageKey,
        id: SpoolId,
        place: Location,
        has_file: bool,
        purpose: Purpose,
    ) -> ReadTicket {
        self.ticket_next += 1;
        let ticket = ReadTicket(self.ticket_next);
        self.reads.push_back(Read {
            ticket,
            key,
            id,
            place,
            has_file,
            purpose,
            bytes: Vec::new(),
            numbers: self.resting.rounds(key).map_or(0, |rounds| rounds.numbers),
            rounds: if purpose == Purpose::Content {
                Vec::new()
            } else {
                let rounds = self.resting.rounds(key);
                rounds.map_or_else(Vec::new, |rounds| rounds.places.clone())
            },
            rounds_read: 0,
            routed: Vec::new(),
            piece: Vec::new(),
        });
        ticket
    }

    pub(crate) fn poll_read(&mut self) -> Option<Request> {
        let read = self.reads.pop_front()?;
        let token = self.token();
        let (segment, offset, len) = read.next_range();
        let file = FileId::Segment(segment);
        let buf = AlignedBuf::zeroed(len as usize);
        self.reading.insert(token, read);
        Some(Request {
            token,
            op: Op::Read { file, offset, buf },
        })
    }

    pub(crate) fn read_done(&mut self, mut read: Read, completion: Completion) {
        let read_all = match (completion.result, completion.buf) {
            (Ok(len), Some(buf)) if len == buf.len() as u64 => match read.take(&buf) {
                Ok(true) => {
                    self.reads.push_back(read);
                    return;
                }
                taken => taken.map(|_| ()),
            },
            (Ok(_), _) => Err(ReadError::Damaged),
            (Err(errno), _) => Err(ReadError::Disk(errno)),
        };
        let (ticket, key, segment) = (read.ticket, read.key, read.place.segment);
        if read.purpose != Purpose::Content && self.is_stale(&read) {
            self.read_anew(&read);
            return;
        }
        let damaged = match read.purpose {
            Purpose::Content => {
                let content = read_all.and_then(|()| verified(&read, self.settings.shard));
                let damaged = content == Err(ReadError::Damaged);
                self.events.push_back(Event::Content {
                    ticket,
                    key,
                    content,
                });
                damaged
            }
            Purpose::Wake => {
                let all = read_all.and_then(|()| whole(&read, self.settings.shard));
                let damaged = all == Err(ReadError::Damaged);
                self.woken(ticket, key, all);
                damaged
            }
            Purpose::Inspect => {
                let result = read_all.and_then(|()| inspected(&read));
                let damaged = result == Err(ReadError::Damaged);
                self.events.push_back(Event::Inspected {
                    ticket,
                    key,
                    result,
                });
                damaged
            }
        };
        if damaged {
            self.mark_damaged(segment);
        }
    }

    /// Whether a message that rests has been awake since, and was routed.
    fn is_stale(&self, read: &Read) -> bool {
        let rests = self.resting.get(read.key).is_some();
        let rounds = self.resting.rounds(read.key);
        rests && rounds.map_or(0, |rounds| rounds.numbers) != read.numbers
    }

    fn read_anew(&mut self, read: &Read) {
        let Some(rest) = self.resting.get(read.key) else {
            return;
        };
        let place = rest.location();
        self.start_read(read.key, read.id, place, read.has_file, read.purpose);
        if let Some(again) = self.reads.back_mut() {
            again.ticket = read.ticket;
        }
    }

    /// Whether a read of `segment` is under way; its bytes have to stay until then.
    pub(crate) fn reads_from(&self, segment: u32) -> bool {
        let reads = self.reads.iter().chain(self.reading.values());
        let in_it = |place: &Location| place.segment == segment;
        reads
            .into_iter()
            .any(|read| in_it(&read.place) || read.rounds.iter().any(in_it))
    }
}

/// Envelope and content; every byte of the record is verified.
fn whole(read: &Read, shard: u16) -> Result<(Envelope, Content), ReadError> {
    let at = (read.start() - read.from()) as usize;
    let end = (read.place.payload + read.place.payload_len - read.from()) as usize;
    let mut bytes = read.bytes.get(at..end).ok_or(ReadError::Damaged)?;
    record::take_frame(&mut bytes).map_err(|_| ReadError::Damaged)?;
    let content = verified(read, shard)?;
    Ok((inspected(read)?, content))
}

/// The envelope, of which the id is verified.
fn inspected(read: &Read) -> Result<Envelope, ReadError> {
    let mut reader = Reader(read.payload());
    let envelope = MessageHead::decode(&mut reader)
        .ok()
        .filter(|head| head.id == read.id)
        .and_then(|head| reader.bytes(head.envelope_len as usize).ok())
        .and_then(|bytes| record::envelope(&[bytes, &read.routed].concat()).ok());
    envelope.ok_or(ReadError::Damaged)
}

/// The whole blocks that hold a record.
pub(crate) fn blocks(place: Location) -> (u64, u64) {
    let block = ALIGN_BYTES as u64;
    let from = (place.payload - HEADER_BYTES as u64) / block * block;
    (
        from,
        aligned((place.payload + place.payload_len) as usize) as u64,
    )
}

/// The payload of a routing record of this message in its blocks, verified.
pub(crate) fn piece_payload(
    bytes: &[u8],
    from: u64,
    place: Location,
    id: SpoolId,
) -> Result<&[u8], ReadError> {
    let at = (place.payload - HEADER_BYTES as u64 - from) as usize;
    let mut bytes = bytes.get(at..).ok_or(ReadError::Damaged)?;
    let frame = record::take_frame(&mut bytes).map_err(|_| ReadError::Damaged)?;
    let (of, _) = record::id_and_rest(frame.payload).map_err(|_| ReadError::Damaged)?;
    let right = frame.kind == Kind::Routing && of == id;
    right.then_some(frame.payload).ok_or(ReadError::Damaged)
}

fn verified(read: &Read, shard: u16) -> Result<Content, ReadError> {
    let payload = read.whole_payload()?;
    if read.has_file {
        return file_of(read, payload, shard).ok_or(ReadError::Damaged);
    }
    let message = record::message(payload).map_err(|_| ReadError::Damaged)?;
    // Ids are never used twice, so the right id is the right generation of the segment too.
    let right =
        message.head.id == read.id && crc32c::crc32c(message.content) == message.head.content_sum;
    if right {
        Ok(Content::Whole(message.content.to_vec()))
    } else {
        Err(ReadError::Damaged)
    }
}

/// The file that a record speaks of.
fn file_of(read: &Read, payload: &[u8], shard: u16) -> Option<Content> {
    let parts = record::large(payload).ok()?;
    let file = ContentFile {
        id: parts.head.id,
        shard,
        len: parts.head.content_len,
        eight_bit: parts.eight_bit,
        sums: parts.sums,
    };
    (file.id == read.id).then(|| Content::File(Arc::new(file)))
}
