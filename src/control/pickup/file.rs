//! One file of `router/`: opened so that nobody can make us read something else, and read whole.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use spool::Source;

/// A file as it was found.
#[derive(Debug)]
pub(super) struct Loaded {
    /// What tells it from every other file.
    pub(super) source: Source,
    /// Its owner.
    pub(super) uid: u32,
    /// When it was written last, in milliseconds since 1970.
    pub(super) modified_ms: u64,
    /// All of it.
    pub(super) bytes: Vec<u8>,
}

/// Why a file is not taken.
#[derive(Debug)]
pub(super) enum Odd {
    /// Somebody else removed it.
    Gone,
    /// A link, a directory, a device, a socket.
    NotAFile,
    /// It has another name as well: its owner could still change it.
    Linked(u64),
    /// We may not read it, or it cannot be read.
    Unreadable(io::Error),
    /// It belongs to nobody the system knows.
    NoOwner(u32),
    /// Larger than the limit.
    TooLarge(u64),
    /// Its envelope is wrong.
    BadEnvelope(String),
    /// It has passed too many hosts, or its header is too large.
    BadMessage(&'static str),
}

impl Odd {
    /// One word, for the name in `postman/`.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::NotAFile => "notafile",
            Self::Linked(_) => "linked",
            Self::Unreadable(_) => "unreadable",
            Self::NoOwner(_) => "noowner",
            Self::TooLarge(_) => "toolarge",
            Self::BadEnvelope(_) => "badenvelope",
            Self::BadMessage(_) => "badmessage",
        }
    }
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("gone"),
            Self::NotAFile => f.write_str("not a regular file"),
            Self::Linked(count) => write!(f, "it has {count} names"),
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Self::NoOwner(uid) => write!(f, "its owner {uid} is not known here"),
            Self::TooLarge(limit) => write!(f, "larger than {limit} bytes"),
            Self::BadEnvelope(what) => write!(f, "not a message file: {what}"),
            Self::BadMessage(what) => f.write_str(what),
        }
    }
}

/// Opens and reads a file; nothing is followed, nothing is waited for.
pub(super) fn load(path: &Path, bytes_max: u64) -> Result<Loaded, Odd> {
    // The envelope comes on top of the message.
    const ENVELOPE_BYTES: u64 = 16 << 20;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        rustix::io::Errno::NOENT => Odd::Gone,
        rustix::io::Errno::LOOP | rustix::io::Errno::NXIO => Odd::NotAFile,
        errno => Odd::Unreadable(errno.into()),
    })?;
    let mut file = File::from(file);
    let metadata = file.metadata().map_err(Odd::Unreadable)?;
    if !metadata.is_file() {
        return Err(Odd::NotAFile);
    }
    if metadata.nlink() != 1 {
        return Err(Odd::Linked(metadata.nlink()));
    }
    if metadata.len() > bytes_max + ENVELOPE_BYTES {
        return Err(Odd::TooLarge(bytes_max));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize + 1);
    file.by_ref()
        .take(bytes_max + ENVELOPE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(Odd::Unreadable)?;
    let nanoseconds = |seconds: i64, nanos: i64| {
        (seconds.max(0) as u64)
            .saturating_mul(1_000_000_000)
            .saturating_add(nanos.max(0) as u64)
    };
    Ok(Loaded {
        source: Source {
            device: metadata.dev(),
            inode: metadata.ino(),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            size: metadata.len(),
        },
        uid: metadata.uid(),
        modified_ms: nanoseconds(metadata.mtime(), metadata.mtime_nsec()) / 1_000_000,
        bytes,
    })
}
