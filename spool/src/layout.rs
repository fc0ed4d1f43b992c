//! Bytes of segments and commits. The document is `FORMAT.md`.

use crate::buffer::ALIGN_BYTES;
use crate::record::{Put, Reader};

/// First bytes of a segment.
const SEGMENT_MAGIC: u64 = 0x3130_4753_4c4d_5a00;
/// The same of one that is set aside.
const ASIDE_MAGIC: u64 = 0x5341_4753_4c4d_5a00;
/// First bytes of a commit.
const COMMIT_MAGIC: u32 = 0x7443_5a01;
/// Version of the format.
pub const VERSION: u16 = 1;
/// Where commits begin: behind the two copies of the header.
pub const DATA_START: u64 = 2 * ALIGN_BYTES as u64;
/// Bytes of a commit header.
pub const COMMIT_HEADER_BYTES: usize = 64;

/// A segment's header; there are two copies, so that one damaged block loses nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The shard.
    pub shard: u16,
    /// Number of the segment.
    pub segment: u32,
    /// Commits count only in this generation...
    pub generation: u64,
    /// ... and only of the run that wrote the header.
    pub secret: u64,
}

/// What a header block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderBlock {
    /// A header of this format.
    Valid(SegmentHeader),
    /// The segment is damaged: nothing in it counts, and nothing is written to it.
    Aside(SegmentHeader),
    /// A good checksum of another version.
    Version(u16),
    /// Never written, or torn.
    Invalid,
}

impl SegmentHeader {
    /// Bytes of it that say something, the checksum included; zeroes follow.
    pub const USED: usize = 36;

    /// Its block.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encode_as(SEGMENT_MAGIC)
    }

    /// Its block when the segment is set aside.
    #[must_use]
    pub fn encode_aside(&self) -> Vec<u8> {
        self.encode_as(ASIDE_MAGIC)
    }

    fn encode_as(&self, magic: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(ALIGN_BYTES);
        out.put(&magic.to_le_bytes());
        out.put(&VERSION.to_le_bytes());
        out.put(&self.shard.to_le_bytes());
        out.put(&self.segment.to_le_bytes());
        out.put(&self.generation.to_le_bytes());
        out.put(&self.secret.to_le_bytes());
        let sum = crc32c::crc32c(&out);
        out.put(&sum.to_le_bytes());
        out.resize(ALIGN_BYTES, 0);
        out
    }

    /// Reads a block.
    #[must_use]
    pub fn decode(block: &[u8]) -> HeaderBlock {
        Self::try_decode(block).unwrap_or(HeaderBlock::Invalid)
    }

    fn try_decode(block: &[u8]) -> Option<HeaderBlock> {
        let body = block.get(..32)?;
        let mut reader = Reader(block);
        let magic = reader.u64().ok()?;
        let version = reader.u16().ok()?;
        let shard = reader.u16().ok()?;
        let segment = reader.u32().ok()?;
        let generation = reader.u64().ok()?;
        let secret = reader.u64().ok()?;
        let sum = reader.u32().ok()?;
        if !matches!(magic, SEGMENT_MAGIC | ASIDE_MAGIC) || crc32c::crc32c(body) != sum {
            return None;
        }
        if version != VERSION {
            return Some(HeaderBlock::Version(version));
        }
        let header = Self {
            shard,
            segment,
            generation,
            secret,
        };
        Some(if magic == ASIDE_MAGIC {
            HeaderBlock::Aside(header)
        } else {
            HeaderBlock::Valid(header)
        })
    }

    /// Offset of the copy that generation `generation` is written to first.
    #[must_use]
    pub fn offset(generation: u64) -> u64 {
        (generation % 2) * ALIGN_BYTES as u64
    }
}

/// Header of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitHeader {
    /// Of the run. Content of a message that looks like a commit does not know it.
    pub secret: u64,
    /// Counts commits of the log.
    pub sequence: u64,
    /// Generation of the segment.
    pub generation: u64,
    /// Number of the segment.
    pub segment: u32,
    /// Bytes of the commit, header and padding included.
    pub length: u32,
    /// Bytes of the records.
    pub records: u32,
    /// `link` of the commit before.
    pub previous: u32,
    /// Checksum of the records.
    pub sum: u32,
}

impl CommitHeader {
    /// Bytes of it that say something, the checksum included; zeroes follow.
    pub const USED: usize = 52;

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; COMMIT_HEADER_BYTES] {
        let mut out = Vec::with_capacity(COMMIT_HEADER_BYTES);
        out.put(&COMMIT_MAGIC.to_le_bytes());
        out.put(&self.secret.to_le_bytes());
        out.put(&self.sequence.to_le_bytes());
        out.put(&self.generation.to_le_bytes());
        out.put(&self.segment.to_le_bytes());
        out.put(&self.length.to_le_bytes());
        out.put(&self.records.to_le_bytes());
        out.put(&self.previous.to_le_bytes());
        out.put(&self.sum.to_le_bytes());
        let own = crc32c::crc32c(&out);
        out.put(&own.to_le_bytes());
        let mut bytes = [0; COMMIT_HEADER_BYTES];
        let (used, _) = bytes.split_at_mut(out.len());
        used.copy_from_slice(&out);
        bytes
    }

    /// Reads a header whose own checksum is good.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let body = bytes.get(..48)?;
        let mut reader = Reader(bytes);
        if reader.u32().ok()? != COMMIT_MAGIC {
            return None;
        }
        let header = Self {
            secret: reader.u64().ok()?,
            sequence: reader.u64().ok()?,
            generation: reader.u64().ok()?,
            segment: reader.u32().ok()?,
            length: reader.u32().ok()?,
            records: reader.u32().ok()?,
            previous: reader.u32().ok()?,
            sum: reader.u32().ok()?,
        };
        (reader.u32().ok()? == crc32c::crc32c(body)).then_some(header)
    }

    /// What the next commit names as its predecessor. The place of the commit is not part of it, so
    /// the same bytes written again elsewhere keep the chain.
    #[must_use]
    pub fn link(&self) -> u32 {
        let mut out = Vec::with_capacity(20);
        out.put(&self.secret.to_le_bytes());
        out.put(&self.sequence.to_le_bytes());
        out.put(&self.sum.to_le_bytes());
        crc32c::crc32c(&out)
    }
}

/// `len` rounded up to whole blocks.
#[must_use]
pub fn aligned(len: usize) -> usize {
    len.div_ceil(ALIGN_BYTES) * ALIGN_BYTES
}
