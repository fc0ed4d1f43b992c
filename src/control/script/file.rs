//! Files for scripts.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, Mode};

use crate::router::request::{Failure, Stat};

/// Largest file that a script reads.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What cannot be done with a file.
#[must_use]
pub fn failure(path: &[u8], error: &io::Error) -> Failure {
    Failure {
        missing: matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        ),
        temporary: is_temporary(error),
        text: format!("{}: {error}", String::from_utf8_lossy(path)),
    }
}

/// Whether it is about the host, not about the file: want of resources, a disk or another host that does not answer.
fn is_temporary(error: &io::Error) -> bool {
    const ERRNOS: &[i32] = &[
        libc::EAGAIN,
        libc::EINTR,
        libc::EIO,
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOLCK,
        libc::ENOMEM,
        libc::ESTALE,
        libc::ETIMEDOUT,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
    ];
    let errno = error.raw_os_error();
    errno.is_some_and(|errno| ERRNOS.contains(&errno))
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Regular files, pipes and devices do not block here: they are opened without waiting and refused.
pub(super) fn read(name: &[u8], user: Option<u32>) -> Result<(Vec<u8>, Stat), Failure> {
    let read = || -> io::Result<(Vec<u8>, Stat)> {
        let file = open_as(path(name), user)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() && metadata.rdev() != null_device() {
            return Err(io::Error::other("not a regular file"));
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(io::Error::other(format!(
                "more than {FILE_BYTES_MAX} bytes"
            )));
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok((bytes, of_metadata(path(name), &metadata)))
    };
    read().map_err(|error| failure(name, &error))
}

/// `/dev/null` is an empty file.
fn null_device() -> u64 {
    rustix::fs::makedev(1, 3)
}

/// Opens with the rights of an account: one that is not root and not our own must be let by the permission bits.
fn open_as(path: &Path, user: Option<u32>) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    if let Some(user) = user {
        let metadata = file.metadata()?;
        let bit = if metadata.uid() == user { 0o400 } else { 0o004 };
        if user != 0 && metadata.mode() & bit == 0 {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
    }
    Ok(file)
}

pub(super) fn write(name: &[u8], append: bool, bytes: &[u8]) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.create(true).custom_flags(libc::O_CLOEXEC);
        if append {
            options.append(true);
        } else {
            options.write(true).truncate(true);
        }
        options.open(path(name))?.write_all(bytes)
    };
    write().map_err(|error| failure(name, &error))
}

pub(super) fn stat(name: &[u8], link: bool) -> Result<Stat, Failure> {
    let path = path(name);
    let metadata = if link {
        fs::symlink_metadata(path)
    } else {
        fs::metadata(path)
    };
    match metadata {
        Ok(metadata) => Ok(of_metadata(path, &metadata)),
        Err(error) => Err(failure(name, &error)),
    }
}

/// Whether we may not see or read it, and others perhaps may.
pub(super) fn is_hidden(name: &[u8], link: bool) -> bool {
    let path = path(name);
    let metadata = if link {
        fs::symlink_metadata(path)
    } else {
        fs::metadata(path)
    };
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    match metadata {
        Ok(metadata) => of_metadata(path, &metadata).access & 4 == 0,
        Err(error) => refused(&error),
    }
}

fn of_metadata(path: &Path, metadata: &fs::Metadata) -> Stat {
    let may = |access| rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS).is_ok();
    let bits = [
        (Access::READ_OK, 4),
        (Access::WRITE_OK, 2),
        (Access::EXEC_OK, 1),
    ];
    Stat {
        mode: metadata.mode(),
        user: metadata.uid(),
        group: metadata.gid(),
        size: metadata.len(),
        modified: metadata.mtime(),
        identity: (metadata.dev(), metadata.ino()),
        access: bits
            .iter()
            .filter(|(access, _)| may(*access))
            .map(|(_, bit)| bit)
            .sum(),
    }
}

pub(super) fn change_directory(name: &[u8]) -> Result<(), Failure> {
    std::env::set_current_dir(path(name)).map_err(|error| failure(name, &error))
}

/// Sets the mask, or only says it; answers the mask as it was.
pub(super) fn umask(mask: Option<u32>) -> u32 {
    let mode = |bits: u32| Mode::from_raw_mode(bits & 0o777);
    match mask {
        Some(mask) => rustix::process::umask(mode(mask)).bits(),
        None => {
            let old = rustix::process::umask(mode(0o077));
            rustix::process::umask(old);
            old.bits()
        }
    }
}
