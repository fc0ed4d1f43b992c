//! Replaces a file as a whole: whoever opens it finds the old content or the new one, and after a power cut
//! it is one of them too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Whose the new file is, and what its mode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Owner and group; none: who writes it.
    pub owner: Option<(u32, u32)>,
    /// Mode.
    pub mode: u32,
}

/// Writes `bytes` beside `path`, syncs, renames, and syncs the directory. A writer that was killed leaves
/// `.NAME.new`, which the next one uses again. An owner that is not ours can be set by root only.
///
/// # Errors
/// Those of the file operations; `WouldBlock` when another process is replacing the same file. The old file
/// stays as it was.
pub fn replace(path: &Path, bytes: &[u8], rights: Rights) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    let beside = dir.join(hidden);
    let file = open(&beside)?;
    match fill(&file, bytes, rights).and_then(|()| fs::rename(&beside, path)) {
        Ok(()) => File::open(dir)?.sync_all(),
        Err(error) => {
            // The first error is the one to tell.
            let _ = fs::remove_file(&beside);
            Err(error)
        }
    }
}

/// The file beside, locked. Between opening and locking it another writer may have renamed its own to the
/// final name: then it is not ours to write to.
fn open(path: &PathBuf) -> io::Result<File> {
    loop {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let no_link = rustix::fs::OFlags::NOFOLLOW.bits();
        let file = options.custom_flags(no_link.cast_signed()).open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            io::Error::new(io::ErrorKind::WouldBlock, "another process replaces it")
        })?;
        let (ours, there) = (file.metadata()?, fs::symlink_metadata(path));
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(file);
        }
    }
}

fn fill(mut file: &File, bytes: &[u8], rights: Rights) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(bytes)?;
    if let Some((uid, gid)) = rights.owner {
        let is = file.metadata()?;
        if (is.uid(), is.gid()) != (uid, gid) {
            fchown(file, Some(uid), Some(gid))?;
        }
    }
    file.set_permissions(fs::Permissions::from_mode(rights.mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Rights = Rights {
        owner: None,
        mode: 0o640,
    };

    #[test]
    fn content_and_mode_are_those_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map");
        for content in ["first, longer", "second"] {
            replace(&path, content.as_bytes(), PLAIN).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn who_has_the_old_file_open_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map");
        replace(&path, b"old", PLAIN).unwrap();
        let mut open = File::open(&path).unwrap();
        replace(&path, b"new and longer", PLAIN).unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut open, &mut text).unwrap();
        assert_eq!(text, "old");
    }

    #[test]
    fn remains_are_used_again_and_a_second_writer_waits_for_another_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map");
        let beside = dir.path().join(".map.new");
        fs::write(&beside, "remains that are longer than the content").unwrap();
        let held = open(&beside).unwrap();
        let error = replace(&path, b"new", PLAIN).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(held);
        replace(&path, b"new", PLAIN).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join(".map.new")).unwrap();
        assert!(replace(&dir.path().join("map"), b"new", PLAIN).is_err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }
}
