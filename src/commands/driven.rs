//! A spool engine with a blocking disk, for tools.

use std::io;
use std::path::{Path, PathBuf};

use spool::blocking::{BlockingDisk, read_content};
use spool::{Content, Event, Log, RecoveredMessage};

/// One turn of the engine's clock, in nanoseconds: longer than any commit delay.
const TICK_NS: u64 = 1_000_000_000;

/// After so many turns without an end there is none: the engine has tried everything more than once.
const TURNS_MAX: u32 = 60;

/// An engine with its disk.
pub(super) struct Driven {
    pub(super) log: Log,
    dir: PathBuf,
    disk: BlockingDisk,
    pub(super) now: u64,
}

impl Driven {
    /// For the log in `dir`, whose disk is `disk`.
    pub(super) fn new(dir: &Path, disk: BlockingDisk, log: Log) -> Self {
        Self {
            log,
            dir: dir.to_owned(),
            disk,
            now: 1,
        }
    }

    /// Lets the engine do all it wants now; gives back what it says.
    fn turn(&mut self) -> Vec<Event> {
        self.now += TICK_NS;
        while let Some(request) = self.log.poll_op(self.now) {
            let done = self.disk.execute(request);
            self.log.complete(self.now, done);
        }
        std::iter::from_fn(|| self.log.poll_event()).collect()
    }

    /// Where the content of a message is.
    pub(super) fn content(&mut self, message: &RecoveredMessage) -> Result<Content, String> {
        let unreadable = || format!("message {} cannot be read", message.id);
        let ticket = self.log.read(message.key).ok_or_else(unreadable)?;
        for event in self.turn() {
            if let Event::Content {
                ticket: of,
                content,
                ..
            } = event
                && of == ticket
            {
                return content.map_err(|error| format!("message {}: {error}", message.id));
            }
        }
        Err(unreadable())
    }

    /// Gives the content of a message to `each`, in verified pieces.
    pub(super) fn read(
        &mut self,
        message: &RecoveredMessage,
        mut each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), String> {
        let done = match self.content(message)? {
            Content::Whole(content) => each(&content),
            Content::File(file) => read_content(&self.dir, &file, each),
        };
        done.map_err(|error| format!("message {}: {error}", message.id))
    }

    /// Writes what is staged, and does what else is due.
    pub(super) fn commit(&mut self) -> Result<(), String> {
        let mut troubles = Vec::new();
        for _ in 0..TURNS_MAX {
            for event in self.turn() {
                match event {
                    Event::Failed { .. } => troubles.push("a commit has failed twice".to_owned()),
                    Event::Trouble(text) => troubles.push(text),
                    _ => {}
                }
            }
            if self.log.idle() && self.log.stats().accepting {
                return Ok(());
            }
        }
        Err(format!("copies cannot be written: {}", troubles.join("; ")))
    }
}
