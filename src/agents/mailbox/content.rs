//! The content of one message on its way to mailboxes: in memory up to a limit, the rest in a file that
//! has no name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::mail::header;
use crate::mail::line_ends::FromWire;

/// Content held in memory by one connection, at most.
pub(super) const HELD_BYTES_MAX: usize = 1 << 20;

const PIECE_BYTES: usize = 64 << 10;

/// Content with CR LF line ends, as it came.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// What has been moved out of memory, and how much.
    file: Option<(File, u64)>,
    /// What follows it.
    rest: Vec<u8>,
}

impl Content {
    /// Moves more of it to the file, which is in `dir`.
    pub(super) fn store(&mut self, dir: &Path, bytes: &[u8]) -> io::Result<()> {
        let (file, len) = match self.file.take() {
            Some(stored) => stored,
            None => (nameless(dir)?, 0),
        };
        file.write_all_at(bytes, len)?;
        self.file = Some((file, len + bytes.len() as u64));
        Ok(())
    }

    /// The last of it has come.
    pub(super) fn end(&mut self, rest: Vec<u8>) {
        self.rest = rest;
    }

    /// Its bytes as it came.
    pub(super) fn len(&self) -> usize {
        let stored = self.file.as_ref().map_or(0, |(_, len)| *len as usize);
        stored + self.rest.len()
    }

    /// Writes it with LF line ends. The Received field that the session has put in front is left out: the
    /// way from the daemon to its own agent is no hop.
    pub(super) fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let (mut ends, mut text) = (FromWire::default(), Vec::new());
        let mut first = true;
        self.pieces(|piece| {
            let piece = if std::mem::take(&mut first) {
                without_first_field(piece)
            } else {
                piece
            };
            text.clear();
            ends.feed(piece, &mut text);
            out.write_all(&text)
        })?;
        text.clear();
        ends.end(&mut text);
        out.write_all(&text)
    }

    /// Whether the last bytes of a file of `file_bytes` are what [`Content::write_to`] writes.
    pub(super) fn ends_file(&self, file: &File, file_bytes: u64) -> io::Result<bool> {
        let mut count = Count(0);
        self.write_to(&mut count)?;
        let Some(at) = file_bytes.checked_sub(count.0) else {
            return Ok(false);
        };
        let mut comparison = Comparison {
            file,
            at,
            found: Vec::new(),
            same: true,
        };
        self.write_to(&mut comparison)?;
        Ok(comparison.same)
    }

    fn pieces(&self, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        if let Some((file, len)) = &self.file {
            let mut buf = vec![0; PIECE_BYTES];
            let mut at = 0;
            while at < *len {
                let count = (*len - at).min(PIECE_BYTES as u64) as usize;
                let (piece, _) = buf.split_at_mut(count);
                file.read_exact_at(piece, at)?;
                each(piece)?;
                at += count as u64;
            }
        }
        each(&self.rest)
    }
}

/// Counts what is written.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compares what is written with what a file holds.
struct Comparison<'a> {
    file: &'a File,
    at: u64,
    found: Vec<u8>,
    same: bool,
}

impl Write for Comparison<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = bytes.get(..PIECE_BYTES).unwrap_or(bytes);
        self.found.resize(bytes.len(), 0);
        match self.file.read_exact_at(&mut self.found, self.at) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            result => self.same &= result.is_ok() && self.found == bytes,
        }
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that goes with its last descriptor.
fn nameless(dir: &Path) -> io::Result<File> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!(".mailbox.{}.{count}", std::process::id()));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let file = options
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn without_first_field(content: &[u8]) -> &[u8] {
    let mut fields = header::fields(content);
    fields.next();
    fields.rest()
}
