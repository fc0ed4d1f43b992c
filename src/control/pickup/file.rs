//! One file of `router/`: opened so that nobody can make us read something else, read in pieces.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use spool::Source;

/// Age up to which a file that makes no sense may still be written by somebody who does not know that
/// message files are written in `public/`.
const YOUNG: Duration = Duration::from_secs(2);

/// Bytes read at a time.
const PIECE_BYTES: u64 = 64 << 10;

/// A file as it was found.
#[derive(Debug)]
pub(super) struct Opened {
    file: File,
    /// What tells it from every other file.
    pub(super) source: Source,
    /// The same, whatever is done to it.
    pub(super) identity: Identity,
    /// Its owner.
    pub(super) uid: u32,
    /// Its change time, in nanoseconds since 1970.
    changed_ns: u64,
    /// Bytes of it that have not been read.
    rest_bytes: u64,
}

/// What tells a file from another under its name, and stays when its mode or owner is changed. The time
/// of birth, where the file system has one, tells it from a later file with the same inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    born: Option<SystemTime>,
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            born: metadata.created().ok(),
        }
    }
}

/// Why a file is not taken.
#[derive(Debug)]
pub(super) enum Odd {
    /// Somebody else removed it.
    Gone,
    /// It changed a moment ago, or while it was read: it is looked at again.
    Changing,
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
            Self::Changing => "changing",
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
            Self::Changing => f.write_str("it is being written"),
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

impl Opened {
    /// Opens a file; nothing is followed, nothing is waited for.
    pub(super) fn open(path: &Path) -> Result<Self, Odd> {
        // Opening a device can already do something.
        check(&fs::symlink_metadata(path).map_err(unreadable)?)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty());
        let file = File::from(file.map_err(|errno| unreadable(errno.into()))?);
        // The name may have been given to another file meanwhile.
        let metadata = file.metadata().map_err(unreadable)?;
        check(&metadata)?;
        Ok(Self {
            file,
            source: source(&metadata),
            changed_ns: changed_ns(&metadata),
            identity: Identity::of(&metadata),
            uid: metadata.uid(),
            rest_bytes: metadata.len(),
        })
    }

    /// Appends the next bytes, up to a limit; false when there are no more behind them. What has come to the file since
    /// it was opened is not read: [`Self::check_unchanged`] sees it.
    pub(super) fn piece(&mut self, out: &mut Vec<u8>) -> Result<bool, Odd> {
        let wanted = self.rest_bytes.min(PIECE_BYTES) as usize;
        if wanted == 0 {
            return Ok(false);
        }
        out.reserve(wanted);
        let read = || rustix::io::read(&self.file, rustix::buffer::spare_capacity(out));
        let count =
            rustix::io::retry_on_intr(read).map_err(|errno| Odd::Unreadable(errno.into()))?;
        self.rest_bytes = match count {
            0 => 0,
            _ => self.rest_bytes.saturating_sub(count as u64),
        };
        Ok(self.rest_bytes > 0)
    }

    /// Whether it was written a moment ago.
    pub(super) fn is_young(&self) -> bool {
        let changed = SystemTime::UNIX_EPOCH + Duration::from_nanos(self.changed_ns);
        // A file of the future is as old as it will ever be.
        let age = SystemTime::now().duration_since(changed);
        age.is_ok_and(|age| age < YOUNG)
    }

    /// Whether it is still what it was when it was opened.
    pub(super) fn check_unchanged(&self) -> Result<(), Odd> {
        let metadata = self.file.metadata().map_err(unreadable)?;
        match metadata.nlink() {
            0 => Err(Odd::Gone),
            _ if source(&metadata) != self.source => Err(Odd::Changing),
            _ if changed_ns(&metadata) != self.changed_ns => Err(Odd::Changing),
            _ => Ok(()),
        }
    }
}

fn unreadable(error: io::Error) -> Odd {
    match error.raw_os_error() {
        Some(libc::ENOENT) => Odd::Gone,
        Some(libc::ELOOP | libc::ENXIO) => Odd::NotAFile,
        _ => Odd::Unreadable(error),
    }
}

fn check(metadata: &Metadata) -> Result<(), Odd> {
    if !metadata.is_file() {
        return Err(Odd::NotAFile);
    }
    match metadata.nlink() {
        0 => Err(Odd::Gone),
        1 => Ok(()),
        count => Err(Odd::Linked(count)),
    }
}

fn changed_ns(metadata: &Metadata) -> u64 {
    nanoseconds(metadata.ctime(), metadata.ctime_nsec())
}

fn source(metadata: &Metadata) -> Source {
    Source {
        born_ns: metadata.created().map_or(0, nanoseconds_of),
        inode: metadata.ino(),
        modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        size: metadata.len(),
    }
}

fn nanoseconds_of(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

fn nanoseconds(seconds: i64, nanos: i64) -> u64 {
    let positive = |number: i64| u64::try_from(number).unwrap_or(0);
    positive(seconds)
        .saturating_mul(1_000_000_000)
        .saturating_add(positive(nanos))
}

/// Moves a file to `postman/`, under a name that nobody has there. Gives back the new path.
pub(super) fn move_to_postman(path: &Path, postman: &Path, odd: &Odd) -> io::Result<PathBuf> {
    /// Files of one name and one fault.
    const NAMES_MAX: u32 = 10_000;
    let name = path.file_name().unwrap_or_default();
    for number in 0..NAMES_MAX {
        let target = postman.join(postman_name(name, odd.word(), number));
        match rustix::fs::renameat_with(CWD, path, CWD, &target, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(target),
            Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// As the name was, short enough for what is added.
fn postman_name(name: &OsStr, word: &str, number: u32) -> OsString {
    const NAME_BYTES_MAX: usize = 200;
    let bytes = name.as_bytes();
    let kept = bytes.get(..NAME_BYTES_MAX).unwrap_or(bytes);
    let mut out = [b"rtr.", kept, b".", word.as_bytes()].concat();
    if number > 0 {
        out.extend_from_slice(format!(".{number}").as_bytes());
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_postman_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let postman = dir.path().join("postman");
        fs::create_dir(&postman).unwrap();
        let long = "n".repeat(255);
        for (number, (name, expected)) in [
            ("12", "rtr.12.notafile"),
            ("12", "rtr.12.notafile.1"),
            ("12", "rtr.12.notafile.2"),
            (&long, &format!("rtr.{}.notafile", "n".repeat(200))),
        ]
        .into_iter()
        .enumerate()
        {
            let path = dir.path().join(name);
            fs::write(&path, number.to_string()).unwrap();
            let target = move_to_postman(&path, &postman, &Odd::NotAFile).unwrap();
            assert_eq!(target, postman.join(expected));
            assert_eq!(fs::read_to_string(target).unwrap(), number.to_string());
        }
    }
}
