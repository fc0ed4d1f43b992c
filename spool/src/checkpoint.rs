//! Checkpoints: the state of a log up to a commit, so that a start need not read what is before it.
//!
//! Two files take turns. One is written from behind: entries of messages in chunks, then the
//! directory, and last its header, when all it says is on disk. What is said may be newer than the
//! commit that the header names (entries are made one after the other while the log goes on): replaying
//! what follows that commit ends in the right state all the same. The argument is in `FORMAT.md`.

pub(crate) mod load;
pub(crate) mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::buffer::{ALIGN_BYTES, AlignedBuf};
use crate::id::SpoolId;
use crate::layout::aligned;
use crate::log::{Location, Log, ThreadName};
use crate::record::{self, DecodeError, Reader};
use crate::rest::{NO_GENERATION, RestRecipient, Standing};
use crate::routing::Rounds;
use crate::types::{Source, ThreadState};

const MAGIC: [u8; 8] = *b"\0ZMLCP01";

const VERSION: u16 = 1;

/// Bytes of a header that its checksum covers.
pub(crate) const HEADER_BYTES: usize = 72;

/// More bytes than a directory can have: a million chunks, next hops or replies.
const DIRECTORY_BYTES_MAX: u64 = 1 << 30;

/// The header of a checkpoint file, in its first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) shard: u16,
    /// Counts the checkpoints of a log: the higher one is the later one.
    pub(crate) number: u64,
    /// The last commit that the checkpoint covers, and its link.
    pub(crate) covered: u64,
    pub(crate) link: u32,
    /// No message in it has this key or a higher one.
    pub(crate) key_next: u64,
    /// Entries.
    pub(crate) messages: u64,
    pub(crate) directory: Extent,
}

/// Some bytes of the file with their checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) sum: u32,
}

impl Extent {
    pub(crate) fn is_good(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.len && crc32c::crc32c(bytes) == self.sum
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.sum.to_le_bytes());
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            offset: reader.u64()?,
            len: reader.u64()?,
            sum: reader.u32()?,
        })
    }
}

impl Header {
    pub(crate) fn encode(&self) -> AlignedBuf {
        let mut out = Vec::with_capacity(ALIGN_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.shard.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for value in [self.number, self.covered, self.key_next, self.messages] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out.extend_from_slice(&self.link.to_le_bytes());
        self.directory.put(&mut out);
        let sum = crc32c::crc32c(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        padded(&out)
    }

    /// None: the block is not a header of this version and shard, or it is damaged.
    pub(crate) fn decode(block: &[u8], shard: u16) -> Option<Self> {
        let (fields, rest) = block.split_at_checked(HEADER_BYTES)?;
        let sum = Reader(rest).u32().ok()?;
        let fields = fields.strip_prefix(&MAGIC)?;
        let mut reader = Reader(fields);
        let right = reader.u16() == Ok(VERSION) && reader.u16() == Ok(shard);
        if !right || crc32c::crc32c(block.get(..HEADER_BYTES)?) != sum {
            return None;
        }
        let mut decode = || {
            reader.u32()?;
            Ok(Self {
                shard,
                number: reader.u64()?,
                covered: reader.u64()?,
                key_next: reader.u64()?,
                messages: reader.u64()?,
                link: reader.u32()?,
                directory: Extent::take(&mut reader)?,
            })
        };
        let header: Result<Self, DecodeError> = decode();
        header
            .ok()
            .filter(|header| header.directory.len <= DIRECTORY_BYTES_MAX)
    }
}

/// A segment in use when the checkpoint was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownSegment {
    pub(crate) number: u32,
    pub(crate) generation: u64,
    pub(crate) tag: u32,
    /// It was in use when the covered commit was the last one.
    pub(crate) before: bool,
    /// No commit behind the covered one is in it.
    pub(crate) sealed: bool,
    pub(crate) damaged: bool,
}

/// A state of a next hop, and the segment with its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownThread {
    pub(crate) state: ThreadState,
    pub(crate) segment: u32,
    pub(crate) tag: u32,
}

/// A chunk of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) extent: Extent,
    pub(crate) entries: u32,
    /// The earliest wall time at which one of its messages is due.
    pub(crate) due_ms: u64,
}

/// What is not an entry of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    /// Oldest first.
    pub(crate) segments: Vec<KnownSegment>,
    pub(crate) threads: Vec<KnownThread>,
    /// Channel and host of next hops, by the number entries give them.
    pub(crate) hops: Vec<ThreadName>,
    /// Shard and epoch of ids, by number.
    pub(crate) origins: Vec<(u16, u64)>,
    /// Replies, by number.
    pub(crate) replies: Vec<Arc<[u8]>>,
    /// Files that messages were taken from and that may still be there.
    pub(crate) sources: Vec<(u64, Source)>,
    pub(crate) chunks: Vec<Chunk>,
    /// Configurations that routed messages, by number. Absent in checkpoints of older versions.
    pub(crate) generations: Vec<u64>,
}

impl Directory {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let count = |out: &mut Vec<u8>, count: usize| {
            out.extend_from_slice(&(count as u32).to_le_bytes());
        };
        count(&mut out, self.segments.len());
        for segment in &self.segments {
            out.extend_from_slice(&segment.number.to_le_bytes());
            out.extend_from_slice(&segment.generation.to_le_bytes());
            out.extend_from_slice(&segment.tag.to_le_bytes());
            let flags = [segment.sealed, segment.damaged, segment.before];
            let bits = flags.iter().rev();
            out.push(bits.fold(0, |all, flag| all << 1 | u8::from(*flag)));
        }
        count(&mut out, self.threads.len());
        for thread in &self.threads {
            out.extend_from_slice(&thread.segment.to_le_bytes());
            out.extend_from_slice(&thread.tag.to_le_bytes());
            record::put_thread(&mut out, &thread.state);
        }
        count(&mut out, self.hops.len());
        for (channel, host) in &self.hops {
            record::put_text(&mut out, channel);
            record::put_text(&mut out, host);
        }
        count(&mut out, self.origins.len());
        for (shard, epoch) in &self.origins {
            out.extend_from_slice(&shard.to_le_bytes());
            out.extend_from_slice(&epoch.to_le_bytes());
        }
        count(&mut out, self.replies.len());
        for reply in &self.replies {
            record::put_text(&mut out, reply);
        }
        count(&mut out, self.sources.len());
        for (key, source) in &self.sources {
            out.extend_from_slice(&key.to_le_bytes());
            record::put_source(&mut out, Some(*source));
        }
        count(&mut out, self.chunks.len());
        for chunk in &self.chunks {
            chunk.extent.put(&mut out);
            out.extend_from_slice(&chunk.entries.to_le_bytes());
            out.extend_from_slice(&chunk.due_ms.to_le_bytes());
        }
        count(&mut out, self.generations.len());
        for generation in &self.generations {
            out.extend_from_slice(&generation.to_le_bytes());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let reader = &mut Reader(bytes);
        let directory = Self {
            segments: many(reader, segment)?,
            threads: many(reader, |reader| {
                Ok(KnownThread {
                    segment: reader.u32()?,
                    tag: reader.u32()?,
                    state: record::take_thread(reader)?,
                })
            })?,
            hops: many(reader, |reader| Ok((reader.text()?, reader.text()?)))?,
            origins: many(reader, |reader| Ok((reader.u16()?, reader.u64()?)))?,
            replies: many(reader, |reader| Ok(reader.text()?.into()))?,
            sources: many(reader, |reader| {
                let key = reader.u64()?;
                let source = record::take_source(reader)?;
                Ok((key, source.ok_or(DecodeError::Value)?))
            })?,
            chunks: many(reader, |reader| {
                Ok(Chunk {
                    extent: Extent::take(reader)?,
                    entries: reader.u32()?,
                    due_ms: reader.u64()?,
                })
            })?,
            generations: if reader.0.is_empty() {
                Vec::new()
            } else {
                many(reader, |reader| reader.u64())?
            },
        };
        if reader.0.is_empty() {
            Ok(directory)
        } else {
            Err(DecodeError::Value)
        }
    }
}

fn segment(reader: &mut Reader<'_>) -> Result<KnownSegment, DecodeError> {
    let (number, generation) = (reader.u32()?, reader.u64()?);
    let (tag, flags) = (reader.u32()?, reader.u8()?);
    Ok(KnownSegment {
        number,
        generation,
        tag,
        sealed: flags & 1 != 0,
        damaged: flags & 2 != 0,
        before: flags & 4 != 0,
    })
}

fn many<T>(
    reader: &mut Reader<'_>,
    one: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.u32()?;
    (0..count).map(|_| one(reader)).collect()
}

/// A message as a checkpoint has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: u64,
    /// Number of the origin of its id, and the sequence.
    pub(crate) origin: u16,
    pub(crate) sequence: u64,
    pub(crate) segment: u32,
    /// Of the segment: what was reused meanwhile is told by it.
    pub(crate) tag: u32,
    pub(crate) payload: u32,
    pub(crate) payload_len: u32,
    pub(crate) content_len: u64,
    pub(crate) arrival_s: u32,
    pub(crate) has_file: bool,
    /// Number of the configuration that routed it; all ones: not known.
    pub(crate) generation: u16,
    /// Of a message some of whose recipients routing has replaced.
    pub(crate) rounds: Rounds,
    /// Hops and replies by the numbers of the directory.
    pub(crate) recipients: Vec<RestRecipient>,
}

impl Entry {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key.to_le_bytes());
        let id = u64::from(self.origin) << 48 | self.sequence;
        out.extend_from_slice(&id.to_le_bytes());
        for value in [
            self.segment,
            self.tag,
            self.payload,
            self.payload_len,
            self.arrival_s,
        ] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out.extend_from_slice(&self.content_len.to_le_bytes());
        let is_routed = !self.rounds.is_empty();
        let by = Some(self.generation).filter(|number| *number != NO_GENERATION);
        let flags = [by.is_some(), is_routed, self.has_file];
        out.push(flags.iter().fold(0, |all, flag| all << 1 | u8::from(*flag)));
        if let Some(number) = by {
            out.extend_from_slice(&number.to_le_bytes());
        }
        if is_routed {
            out.extend_from_slice(&self.rounds.numbers.to_le_bytes());
            out.extend_from_slice(&(self.rounds.places.len() as u32).to_le_bytes());
            for place in &self.rounds.places {
                let bytes = [place.payload as u32, place.payload_len as u32];
                for value in [place.segment].into_iter().chain(bytes) {
                    out.extend_from_slice(&value.to_le_bytes());
                }
            }
        }
        out.extend_from_slice(&(self.recipients.len() as u32).to_le_bytes());
        for recipient in &self.recipients {
            for value in [recipient.number, recipient.hop, recipient.reply] {
                out.extend_from_slice(&value.to_le_bytes());
            }
            out.extend_from_slice(&recipient.attempt.to_le_bytes());
            out.push(recipient.standing as u8);
            out.extend_from_slice(&recipient.next_ms.to_le_bytes());
        }
    }

    pub(crate) fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (key, id) = (reader.u64()?, reader.u64()?);
        let mut entry = Self {
            key,
            origin: (id >> 48) as u16,
            sequence: id & ((1 << 48) - 1),
            segment: reader.u32()?,
            tag: reader.u32()?,
            payload: reader.u32()?,
            payload_len: reader.u32()?,
            arrival_s: reader.u32()?,
            content_len: reader.u64()?,
            has_file: false,
            generation: NO_GENERATION,
            rounds: Rounds::default(),
            recipients: Vec::new(),
        };
        let flags = reader.u8()?;
        entry.has_file = flags & 1 != 0;
        if flags & 4 != 0 {
            entry.generation = reader.u16()?;
        }
        if flags & 2 != 0 {
            entry.rounds.numbers = reader.u32()?;
            entry.rounds.places = many(reader, place)?;
        }
        entry.recipients = many(reader, recipient)?;
        Ok(entry)
    }

    /// The earliest time at which something of it is to be done.
    pub(crate) fn due_ms(&self) -> u64 {
        crate::rest::due_ms(&self.recipients)
    }
}

fn place(reader: &mut Reader<'_>) -> Result<Location, DecodeError> {
    Ok(Location {
        segment: reader.u32()?,
        payload: reader.u32()?.into(),
        payload_len: reader.u32()?.into(),
    })
}

fn recipient(reader: &mut Reader<'_>) -> Result<RestRecipient, DecodeError> {
    Ok(RestRecipient {
        number: reader.u32()?,
        hop: reader.u32()?,
        reply: reader.u32()?,
        attempt: reader.u16()?,
        standing: Standing::from_byte(reader.u8()?).ok_or(DecodeError::Value)?,
        next_ms: reader.u64()?,
    })
}

/// The entries of a chunk.
pub(crate) fn entries(bytes: &[u8], chunk: &Chunk) -> Result<Vec<Entry>, DecodeError> {
    if !chunk.extent.is_good(bytes) {
        return Err(DecodeError::Checksum);
    }
    let mut reader = Reader(bytes);
    (0..chunk.entries)
        .map(|_| Entry::take(&mut reader))
        .collect()
}

/// What tells the life of a segment from every other one of any segment.
pub(crate) fn tag(segment: u32, generation: u64, secret: u64) -> u32 {
    let mut bytes = Vec::with_capacity(20);
    bytes.extend_from_slice(&segment.to_le_bytes());
    bytes.extend_from_slice(&generation.to_le_bytes());
    bytes.extend_from_slice(&secret.to_le_bytes());
    crc32c::crc32c(&bytes)
}

impl Log {
    /// The tag of a segment as it is now.
    pub(crate) fn tag(&self, segment: u32) -> u32 {
        let known = self.segments.get(&segment);
        known.map_or(0, |known| tag(segment, known.generation, known.secret))
    }
}

/// In whole blocks.
pub(crate) fn padded(bytes: &[u8]) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(aligned(bytes.len()));
    let (data, _) = buf.split_at_mut(bytes.len());
    data.copy_from_slice(bytes);
    buf
}

/// The id of an entry.
pub(crate) fn id_of(entry: &Entry, origins: &[(u16, u64)]) -> Option<SpoolId> {
    let (shard, epoch) = origins.get(usize::from(entry.origin))?;
    Some(SpoolId {
        shard: *shard,
        epoch: *epoch,
        sequence: entry.sequence,
    })
}
