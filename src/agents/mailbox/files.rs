//! Files of users for the routing script: `.forward`, lists, and what `:include:` names, with the rights of their owner.
//!
//! What is asked for is opened as the user and never waited for: a pipe, a device or a socket is refused, a large file
//! is, too. Root's rights serve to say what a file is; of its content they give nothing but root's own `.forward`, so
//! that whoever gets hold of the daemon does not get hold of the files of root.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::control::script::failure;
use crate::control::script::rights::{FILE_BYTES_MAX, Kind, Question};
use crate::router::request::{Failure, Stat};
use crate::sys::accounts;
use crate::sys::process::{self, Acting, User};

/// The answer to a question.
pub(super) fn answer(question: &Question) -> Result<(Vec<u8>, Stat), Failure> {
    let path = Path::new(OsStr::from_bytes(&question.path));
    let found = match question.kind {
        Kind::Read => read(path, question.user),
        Kind::Stat => stat(path, question.user, false).map(|stat| (Vec::new(), stat)),
        Kind::Link => stat(path, question.user, true).map(|stat| (Vec::new(), stat)),
    };
    found.map_err(|error| failure(&question.path, &error))
}

/// Acts as a user from now on; root and we ourselves stay who we are.
fn acting(user: Option<u32>) -> io::Result<Option<Acting>> {
    let Some(uid) = user.filter(|user| *user != 0 && process::is_root()) else {
        return Ok(None);
    };
    // An owner without an account has no group that could give him anything.
    let gid = accounts::by_uid(uid)?.map_or(NO_GROUP, |account| account.gid);
    Acting::begin(User { uid, gid }).map(Some)
}

/// A group that gives no rights.
const NO_GROUP: u32 = 65534;

fn read(path: &Path, user: Option<u32>) -> io::Result<(Vec<u8>, Stat)> {
    let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
    let own = rustix::process::geteuid().as_raw();
    let user = user.ok_or_else(refused)?;
    if process::is_root() && user == 0 && !is_roots_forward(path)? {
        return Err(refused());
    }
    let _acting = acting(Some(user))?;
    let file = open(path, user == 0)?;
    let metadata = file.metadata()?;
    // Without root's rights the bits of the file have to let the user.
    let bit = if metadata.uid() == user { 0o400 } else { 0o004 };
    if !process::is_root() && user != own && metadata.mode() & bit == 0 {
        return Err(refused());
    }
    if user == 0 && (metadata.uid() != 0 || metadata.nlink() > 1) {
        return Err(refused());
    }
    let mut content = Vec::new();
    let mut some = file.take(FILE_BYTES_MAX + 1);
    some.read_to_end(&mut content)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "more than {FILE_BYTES_MAX} bytes"
        )));
    }
    Ok((content, of(&metadata, 4)))
}

/// Opens a regular file, and waits for nothing.
fn open(path: &Path, is_plain: bool) -> io::Result<File> {
    let mut flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    if is_plain {
        flags |= libc::O_NOFOLLOW;
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

/// Whether it is the `.forward` in the home of root.
fn is_roots_forward(path: &Path) -> io::Result<bool> {
    let home = accounts::by_uid(0)?.map(|account| account.home);
    Ok(home.is_some_and(|home| path == Path::new(&home).join(".forward")))
}

fn stat(path: &Path, user: Option<u32>, link: bool) -> io::Result<Stat> {
    let _acting = acting(user)?;
    let metadata = if link {
        fs::symlink_metadata(path)
    } else {
        fs::metadata(path)
    }?;
    // To open anything but a regular file may do something.
    let readable = metadata.is_file() && open(path, false).is_ok();
    let own = user.unwrap_or(0);
    let shift = if metadata.uid() == own { 6 } else { 0 };
    let others = ((metadata.mode() >> shift) & 3) as u8;
    let all = if own == 0 { 2 } else { 0 };
    let read = if readable { 4 } else { 0 };
    Ok(of(&metadata, read | others | all))
}

fn of(metadata: &Metadata, access: u8) -> Stat {
    Stat {
        mode: metadata.mode(),
        user: metadata.uid(),
        group: metadata.gid(),
        size: metadata.len(),
        modified: metadata.mtime(),
        identity: (metadata.dev(), metadata.ino()),
        access,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(kind: Kind, user: Option<u32>, path: &Path) -> Result<(Vec<u8>, Stat), Failure> {
        let path = path.as_os_str().as_bytes().to_vec();
        answer(&Question { kind, user, path })
    }

    /// Nobody writes to the pipe: opening it in the usual way would wait for ever.
    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let own = Some(rustix::process::geteuid().as_raw());
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        assert!(open(&pipe, false).is_err() && open(&pipe, true).is_err());
        let failure = ask(Kind::Read, own, &pipe).unwrap_err();
        assert!(!failure.missing, "{failure}");
        let (_, stat) = ask(Kind::Stat, own, &pipe).unwrap();
        assert_eq!((stat.mode & 0o170_000, stat.access & 4), (0o010_000, 0));
        assert!(open(Path::new("/dev/zero"), false).is_err());
        let failure = ask(Kind::Read, own, &dir.path().join("nosuch")).unwrap_err();
        assert!(failure.missing || process::is_root(), "{failure}");
    }

    /// Of root's files nothing is read but his own `.forward`; without a user nothing at all.
    #[test]
    fn roots_files_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".forward");
        fs::write(&file, "secret").unwrap();
        assert!(ask(Kind::Read, None, &file).is_err());
        if process::is_root() {
            assert!(ask(Kind::Read, Some(0), &file).is_err());
            assert_eq!(ask(Kind::Stat, None, &file).unwrap().1.size, 6);
        }
    }
}
