//! One daemon a postoffice: a locked file that holds the daemon's pid.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

const NAME: &str = ".pid.zmailer";

/// Held while the daemon runs; the lock goes with the process, whatever ends it.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// The lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// Another daemon has it.
    Held {
        /// Its pid, as it wrote it.
        pid: String,
    },
    /// The file cannot be used.
    Io(io::Error),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { pid } => write!(f, "a daemon with pid {pid} runs on this postoffice"),
            Self::Io(error) => write!(f, "{NAME}: {error}"),
        }
    }
}

/// Takes the lock of a postoffice.
///
/// # Errors
/// See [`LockError`].
pub fn take(postoffice: &Path) -> Result<Lock, LockError> {
    let mut file = open(postoffice, true).map_err(LockError::Io)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        file.read_to_string(&mut pid).map_err(LockError::Io)?;
        return Err(LockError::Held {
            pid: pid.trim().to_owned(),
        });
    }
    let pid = std::process::id();
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{pid}"));
    written.map_err(LockError::Io)?;
    Ok(Lock { _file: file })
}

/// Whether a daemon runs on a postoffice.
#[must_use]
pub fn is_held(postoffice: &Path) -> bool {
    let Ok(file) = open(postoffice, false) else {
        return false;
    };
    flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

/// Locks a file as fcntl(2) does, for this descriptor alone: other threads of this process and other programs that use
/// fcntl(2) or lockf(3) are kept out. False: somebody else has it. It goes with the descriptor.
///
/// # Errors
/// That of the file system.
#[allow(unsafe_code)]
pub fn try_exclusive(file: &File) -> io::Result<bool> {
    // SAFETY: a flock of zeroes is a valid value: numbers only.
    let mut wanted: libc::flock = unsafe { std::mem::zeroed() };
    wanted.l_type = libc::F_WRLCK as libc::c_short;
    wanted.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the descriptor is open as long as the borrow lasts; the kernel reads the structure during the call only.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const wanted) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

fn open(postoffice: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(create)
        .create(create)
        .truncate(false)
        .open(postoffice.join(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_locked_for_one_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let first = File::create(&path).unwrap();
        let second = File::options().write(true).open(&path).unwrap();
        assert!(try_exclusive(&first).unwrap());
        assert!(!try_exclusive(&second).unwrap());
        drop(first);
        assert!(try_exclusive(&second).unwrap());
    }

    #[test]
    fn a_second_lock_names_the_first_pid() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_held(dir.path()));
        let lock = take(dir.path()).unwrap();
        assert!(is_held(dir.path()));
        let Err(LockError::Held { pid }) = take(dir.path()) else {
            panic!("taken twice")
        };
        assert_eq!(pid, std::process::id().to_string());
        drop(lock);
        assert!(take(dir.path()).is_ok());
    }
}
