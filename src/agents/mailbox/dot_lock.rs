//! The lock beside a mailbox that other programs know: a file of its name with `.lock` behind it.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::sys::filesystem;

/// How often a lock that somebody else has is tried.
const LOOK: Duration = Duration::from_millis(20);

/// A lock that is older is a leftover: nobody keeps one while nothing is done. So is one from before this host's start.
const ABANDONED_AFTER: Duration = Duration::from_secs(300);

/// Held while it lives.
pub(super) struct DotLock(PathBuf);

impl Drop for DotLock {
    fn drop(&mut self) {
        // What stays behind is a leftover after a while.
        let _ = fs::remove_file(&self.0);
    }
}

/// Takes the lock of a file. None: we may not make files there, which is so in many places; the lock on the file itself
/// has to do then.
///
/// # Errors
/// [`ErrorKind::TimedOut`]: somebody else keeps it; and those of files.
pub(super) fn take(file: &Path, until: Instant) -> io::Result<Option<DotLock>> {
    let mut name = file.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    let booted_s = booted_s(file);
    loop {
        match make(&path) {
            Ok(()) => return Ok(Some(DotLock(path))),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) if is_refusal(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        if is_abandoned(&path, booted_s) {
            tracing::warn!("{}: an old lock is removed", path.display());
            match fs::remove_file(&path) {
                Err(error) if is_refusal(&error) => return Ok(None),
                _ => continue,
            }
        }
        if Instant::now() >= until {
            let text = format!("{} has been there for too long", path.display());
            return Err(io::Error::new(ErrorKind::TimedOut, text));
        }
        std::thread::sleep(LOOK);
    }
}

fn make(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.custom_flags(libc::O_NOFOLLOW).open(path)?;
    // Others look at the age alone; a disk that is full shows when the mail is written.
    let _ = writeln!(file, "{}", std::process::id());
    Ok(())
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
    )
}

/// When this host was started, in seconds since 1970, for locks that nobody else can have made; otherwise 0.
fn booted_s(file: &Path) -> u64 {
    let dir = file.parent().unwrap_or(file);
    if !filesystem::of(dir).is_ok_and(|found| found.is_local()) {
        return 0;
    }
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn is_abandoned(path: &Path, booted_s: u64) -> bool {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return false;
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let made = u64::try_from(metadata.ctime()).unwrap_or(0);
    let is_old = now.saturating_sub(made) > ABANDONED_AFTER.as_secs();
    metadata.is_file() && (is_old || made < booted_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_from_before_the_start_of_the_host_is_a_leftover() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("joe.lock");
        make(&path).unwrap();
        let made = fs::metadata(&path).unwrap().ctime() as u64;
        assert!(is_abandoned(&path, made + 1));
        assert!(!is_abandoned(&path, made));
        assert!(!is_abandoned(&path, 0));
        let booted = booted_s(&path);
        assert!(booted > 0 && booted <= made, "{booted}");
    }
}
