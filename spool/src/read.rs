//! Reading content back: aligned ranges, several for large content, verified before it is given out.

use std::sync::Arc;

use crate::buffer::{ALIGN_BYTES, AlignedBuf};
use crate::content::ContentFile;
use crate::id::SpoolId;
use crate::layout::aligned;
use crate::log::{Location, Log, Place};
use crate::op::{Completion, FileId, Op, Request};
use crate::record;
use crate::types::{Content, Event, MessageKey, ReadError, ReadTicket};

/// Bytes of one read request.
const READ_BYTES_MAX: u64 = 1 << 20;

/// A read under way.
#[derive(Debug)]
pub(crate) struct Read {
    ticket: ReadTicket,
    key: MessageKey,
    id: SpoolId,
    place: Location,
    /// The content is in a file: what is read is the record that speaks of it.
    has_file: bool,
    /// What has been read, from the block the payload begins in.
    bytes: Vec<u8>,
}

impl Read {
    fn from(&self) -> u64 {
        self.place.payload / ALIGN_BYTES as u64 * ALIGN_BYTES as u64
    }

    fn wanted(&self) -> u64 {
        aligned((self.place.payload + self.place.payload_len - self.from()) as usize) as u64
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
        self.ticket_next += 1;
        let ticket = ReadTicket(self.ticket_next);
        self.reads.push_back(Read {
            ticket,
            key,
            id,
            place,
            has_file,
            bytes: Vec::new(),
        });
        Some(ticket)
    }

    pub(crate) fn poll_read(&mut self) -> Option<Request> {
        let read = self.reads.pop_front()?;
        let token = self.token();
        let done = read.bytes.len() as u64;
        let len = (read.wanted() - done).min(READ_BYTES_MAX);
        let file = FileId::Segment(read.place.segment);
        let offset = read.from() + done;
        let buf = AlignedBuf::zeroed(len as usize);
        self.reading.insert(token, read);
        Some(Request {
            token,
            op: Op::Read { file, offset, buf },
        })
    }

    pub(crate) fn read_done(&mut self, mut read: Read, completion: Completion) {
        let content = match (completion.result, completion.buf) {
            (Ok(len), Some(buf)) if len == buf.len() as u64 => {
                read.bytes.extend_from_slice(&buf);
                if (read.bytes.len() as u64) < read.wanted() {
                    self.reads.push_back(read);
                    return;
                }
                verified(&read, self.settings.shard)
            }
            (Ok(_), _) => Err(ReadError::Damaged),
            (Err(errno), _) => Err(ReadError::Disk(errno)),
        };
        if content == Err(ReadError::Damaged) {
            self.mark_damaged(read.place.segment);
        }
        self.events.push_back(Event::Content {
            ticket: read.ticket,
            key: read.key,
            content,
        });
    }

    /// Whether a read of `segment` is under way; its bytes have to stay until then.
    pub(crate) fn reads_from(&self, segment: u32) -> bool {
        let reads = self.reads.iter().chain(self.reading.values());
        reads.into_iter().any(|read| read.place.segment == segment)
    }
}

fn verified(read: &Read, shard: u16) -> Result<Content, ReadError> {
    let at = (read.place.payload - read.from()) as usize;
    let end = at + read.place.payload_len as usize;
    let payload = read.bytes.get(at..end).ok_or(ReadError::Damaged)?;
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
