//! One message at the end of a file of many: a mailbox in the form mbox, or a file that an alias names.
//!
//! With two locks, as other programs do it: a file `NAME.lock`, then fcntl(2) on the file. What is written is synced
//! before anybody hears of success, and taken away again when it could not be written whole. A message that may have been
//! delivered by a run that crashed is looked for first: an entry that is there counts, one that was cut off at the end of
//! the file is made good; behind which others have come, it stays beside the repeat. It is looked for in the last 16 MiB; an entry that a reader has moved away or changed
//! meanwhile is not found, and the message is there twice.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use super::batch::Batches;
use super::dot_lock;
use super::entry::Entry;
use super::maildir::{Letter, Owner};
use crate::sys::lock;
use crate::sys::process::Acting;

/// What is looked through for an earlier attempt.
const WINDOW_BYTES: u64 = 16 << 20;

/// Files of one name that were exchanged while we waited for their lock.
const EXCHANGES_MAX: usize = 5;

/// How often a lock that somebody else has is tried.
const LOOK: Duration = Duration::from_millis(20);

/// Why a message is not in a file.
#[derive(Debug)]
pub(super) enum Fault {
    /// No mail ever goes there.
    Never(&'static str),
    /// It may later.
    Later(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Later(error)
    }
}

/// Appends; when it returns the message is on disk.
pub(super) fn append(
    path: &Path,
    owner: Option<&Owner>,
    letter: &Letter<'_>,
    batches: &Batches,
    until: Instant,
) -> Result<(), Fault> {
    if path == Path::new("/dev/null") {
        return Ok(());
    }
    let _acting = owner.map(|owner| Acting::begin(owner.0)).transpose()?;
    let _lock = dot_lock::take(path, until)?;
    let (file, is_new) = open_locked(path, until)?;
    let entry = Entry {
        letter,
        among_others: true,
    };
    let mut len = file.metadata()?.len();
    if letter.perhaps_there {
        match earlier(&file, len, &entry)? {
            Earlier::None => {}
            Earlier::Whole => {
                file.sync_data()?;
                return Ok(());
            }
            Earlier::CutOff(at) => {
                file.set_len(at)?;
                len = at;
            }
        }
    }
    if let Err(error) = write(&file, len, &entry) {
        // Whoever reads the file finds whole messages only.
        let _ = file.set_len(len);
        return Err(error.into());
    }
    if is_new && let Some(parent) = path.parent() {
        match batches.sync(parent) {
            // A directory that we may not read is synced with the next one who may.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            result => result?,
        }
    }
    Ok(())
}

fn write(file: &File, len: u64, entry: &Entry<'_>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(64 << 10, At { file, at: len });
    out.write_all(separator(file, len)?)?;
    entry.write_to(&mut out)?;
    out.flush()?;
    file.sync_data()
}

/// What is missing to the empty line between two entries.
fn separator(file: &File, len: u64) -> io::Result<&'static [u8]> {
    let mut end = [b'\n'; 2];
    let count = len.min(2) as usize;
    let (_, tail) = end.split_at_mut(2 - count);
    file.read_exact_at(tail, len - count as u64)?;
    Ok(match end {
        [b'\n', b'\n'] => b"",
        [_, b'\n'] => b"\n",
        _ => b"\n\n",
    })
}

/// The file with its lock, and whether it was made now. While its lock is waited for others may put another file in its
/// place.
fn open_locked(path: &Path, until: Instant) -> Result<(File, bool), Fault> {
    for _ in 0..EXCHANGES_MAX {
        let (file, is_new) = open(path)?;
        while !lock::try_exclusive(&file)? {
            if Instant::now() >= until {
                let text = "another program keeps it locked";
                return Err(io::Error::new(ErrorKind::TimedOut, text).into());
            }
            std::thread::sleep(LOOK);
        }
        let (ours, there) = (file.metadata()?, fs::symlink_metadata(path));
        let same = there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
        if same {
            return Ok((file, is_new));
        }
    }
    let text = "another file takes its place again and again";
    Err(io::Error::other(text).into())
}

fn open(path: &Path) -> Result<(File, bool), Fault> {
    // Opening a pipe or a device must not wait; a link may lead where its maker may not write.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(flags);
    let opened = match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let made = options.create_new(true).open(path);
            made.map(|file| (file, true))
        }
        result => result.map(|file| (file, false)),
    };
    let (file, is_new) = match opened {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(Fault::Never("it is a symbolic link"));
        }
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            return Err(Fault::Never("it is a directory"));
        }
        // What open(2) says of a pipe that nobody reads, and of a socket.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            return Err(Fault::Never("it is no regular file"));
        }
        result => result?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Fault::Never("it is no regular file"));
    }
    if metadata.nlink() > 1 {
        return Err(Fault::Never("it has more than one name"));
    }
    Ok((file, is_new))
}

/// Writes behind what is there.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Write for At<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What an earlier attempt has left.
#[derive(Debug, PartialEq, Eq)]
enum Earlier {
    None,
    Whole,
    /// Its entry begins here and the file ends in the middle of it.
    CutOff(u64),
}

fn earlier(file: &File, len: u64, entry: &Entry<'_>) -> io::Result<Earlier> {
    let start = len.saturating_sub(WINDOW_BYTES);
    let mut window = vec![0; (len - start) as usize];
    file.read_exact_at(&mut window, start)?;
    let head = entry.head();
    for at in memchr::memmem::find_iter(&window, &head) {
        let before = at.checked_sub(1).map(|before| window.get(before).copied());
        if before.flatten().is_some_and(|byte| byte != b'\n') {
            continue;
        }
        let at = start + at as u64;
        let mut comparison = Comparison {
            file,
            at,
            found: Vec::new(),
            same: true,
            ended: false,
        };
        entry.write_to(&mut comparison)?;
        match (comparison.same, comparison.ended) {
            (true, false) => return Ok(Earlier::Whole),
            (true, true) => return Ok(Earlier::CutOff(at)),
            (false, _) => {}
        }
    }
    Ok(Earlier::None)
}

/// Compares what is written with what a file holds, as far as it goes.
struct Comparison<'a> {
    file: &'a File,
    at: u64,
    found: Vec<u8>,
    same: bool,
    ended: bool,
}

impl Write for Comparison<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.same || self.ended {
            return Ok(bytes.len());
        }
        self.found.resize(bytes.len(), 0);
        let mut count = 0;
        while let Some(rest) = self.found.get_mut(count..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, self.at + count as u64) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.same = self.found.get(..count) == bytes.get(..count);
        self.ended = count < bytes.len();
        self.at += count as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::mailbox::content::Content;

    fn content(text: &str) -> Content {
        let mut content = Content::default();
        content.end(format!("Received: by x\r\n{text}").into_bytes());
        content
    }

    fn letter(content: &Content) -> Letter<'_> {
        Letter {
            id: "1",
            arrival_ms: 951_868_800_000,
            perhaps_there: true,
            hostname: "h",
            sender: b"",
            recipient: b"archive@home.example",
            content,
        }
    }

    const HEAD: &str = "From MAILER-DAEMON Wed Mar  1 00:00:00 2000\nReturn-Path: <>\n\
                        Delivered-To: archive@home.example\n";

    /// What an earlier attempt may have left, and what stands there after the next one.
    #[test]
    fn a_repeat_makes_good_what_was_cut_off_and_doubles_nothing() {
        let content = content("Subject: s\r\n\r\nFrom x\r\n");
        let entry = format!("{HEAD}Subject: s\n\n>From x\n\n");
        let other = entry.replace("Subject: s", "Subject: t");
        let cut = &entry[..entry.len() - 9];
        let cases = [
            (String::new(), entry.clone()),
            (entry.clone(), entry.clone()),
            (
                format!("{other}{entry}{other}"),
                format!("{other}{entry}{other}"),
            ),
            (other.clone(), format!("{other}{entry}")),
            (cut.to_owned(), entry.clone()),
            (format!("{other}{cut}"), format!("{other}{entry}")),
            (format!("x{entry}"), format!("x{entry}{entry}")),
            ("x".to_owned(), format!("x\n\n{entry}")),
            ("x\n".to_owned(), format!("x\n\n{entry}")),
        ];
        let dir = tempfile::tempdir().unwrap();
        for (before, after) in cases {
            let path = dir.path().join("f");
            fs::write(&path, &before).unwrap();
            let letter = letter(&content);
            append(&path, None, &letter, &Batches::default(), Instant::now()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), after, "{before:?}");
        }
    }

    #[test]
    fn a_lock_of_another_is_respected() {
        let content = content("x\r\n");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = File::create(&path).unwrap();
        assert!(lock::try_exclusive(&file).unwrap());
        let try_it = || {
            append(
                &path,
                None,
                &letter(&content),
                &Batches::default(),
                Instant::now(),
            )
        };
        assert!(
            matches!(try_it(), Err(Fault::Later(error)) if error.kind() == ErrorKind::TimedOut)
        );
        drop(file);
        let lock = dir.path().join("f.lock");
        fs::write(&lock, "").unwrap();
        assert!(
            matches!(try_it(), Err(Fault::Later(error)) if error.kind() == ErrorKind::TimedOut)
        );
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        fs::remove_file(&lock).unwrap();
        try_it().unwrap();
        assert!(!lock.exists() && fs::metadata(&path).unwrap().len() > 0);
    }
}
