//! One daemon a postoffice: a locked file that holds the daemon's pid.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
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
