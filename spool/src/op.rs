//! What the engine asks of a disk, and what a disk answers.
//!
//! Operations are primitive, one system call each, so that the simulated disk can cut the power
//! after every one of them. The engine never has two writes to the same bytes in flight.

#![expect(missing_docs, reason = "fields are named for what they hold")]

use crate::buffer::AlignedBuf;

/// Names a file of one shard's spool directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileId {
    /// A log segment, by number: `log.NNNNNNNN` (eight decimal digits).
    Segment(u32),
    /// One of the two checkpoint pointer files, `checkpoint.0` and `checkpoint.1`.
    Checkpoint(u8),
    /// A large content file, by the 128 bits of its spool id: `content.` and 32 hexadecimal digits.
    Content(u128),
    /// The same in the directory of another shard, for reading: `../NNNN/content.` and the id.
    Foreign { shard: u16, id: u128 },
}

/// Connects an operation with its completion; chosen by the engine, unique among those in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// One request to a disk.
#[derive(Debug)]
pub struct Request {
    /// Comes back in the [`Completion`].
    pub token: Token,
    /// What to do.
    pub op: Op,
}

/// One primitive disk operation. Offsets and lengths of reads and writes are multiples of
/// [`ALIGN_BYTES`](crate::buffer::ALIGN_BYTES).
#[derive(Debug)]
pub enum Op {
    /// Create an empty file that must not exist and open it. Not durable until [`Op::SyncDir`].
    Create { file: FileId },
    /// Open an existing file for reading and writing; the answer is its length in bytes.
    Open { file: FileId },
    /// Write all of `buf` at `offset`. With `durable` the data is on disk at completion (one
    /// `RWF_DSYNC` write, or write and `fdatasync`); without, only a later sync makes it so.
    Write {
        file: FileId,
        offset: u64,
        buf: AlignedBuf,
        durable: bool,
    },
    /// Fill `buf` from `offset`; the answer is the number of bytes read, short at end of file.
    Read {
        file: FileId,
        offset: u64,
        buf: AlignedBuf,
    },
    /// Make data and size of one file durable (`fsync`).
    SyncFile { file: FileId },
    /// Make the names in the directory durable.
    SyncDir,
    /// Remove a file. Not durable until [`Op::SyncDir`].
    Remove { file: FileId },
    /// Forget the open file; nothing changes on the disk.
    Close { file: FileId },
    /// List the files of the directory; names the engine does not know are left out.
    List,
}

/// The answer to a [`Request`]. Buffers come back to their owner, on failure too.
#[derive(Debug)]
pub struct Completion {
    /// Of the request.
    pub token: Token,
    /// Bytes moved (reads and writes), file length (open), else 0; or the `errno`.
    pub result: Result<u64, i32>,
    /// The buffer of a read or write.
    pub buf: Option<AlignedBuf>,
    /// The answer to [`Op::List`], else empty.
    pub files: Vec<FileId>,
}
