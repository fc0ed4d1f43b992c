//! Spool directories beyond the number of shards: their messages move into the log of a shard that
//! runs, before anything is delivered.
//!
//! Order: copies committed in the target, then the source removed. A cut in between leaves a message
//! in both under one id; the next start sees that it is there and copies the rest. Nothing has been
//! delivered by then, so nothing is delivered twice.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use spool::blocking::BlockingDisk;
use spool::{Event, Log, Recovered, RecoveredMessage, Refusal, SpoolId};

/// One turn of the engine's clock, in nanoseconds: longer than any commit delay.
const TICK_NS: u64 = 1_000_000_000;

/// An engine with its disk.
struct Driven {
    log: Log,
    disk: BlockingDisk,
    now: u64,
}

impl Driven {
    fn open(dir: &Path, log: Log) -> io::Result<Self> {
        Ok(Self {
            log,
            disk: BlockingDisk::open(dir)?,
            now: 1,
        })
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

    fn content(&mut self, message: &RecoveredMessage) -> Result<Vec<u8>, String> {
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

    /// Writes what is staged.
    fn commit(&mut self) -> Result<(), String> {
        while !self.log.idle() {
            for event in self.turn() {
                if let Event::Failed { .. } | Event::Trouble(_) = event {
                    return Err(format!("copies cannot be written: {event:?}"));
                }
            }
        }
        Ok(())
    }
}

/// Moves all messages of `source` into `target` and removes the files of `source`.
///
/// # Errors
/// What could not be read or written; `source` is untouched then.
pub(super) fn absorb(
    (source_dir, source, found): (&Path, Log, &Recovered),
    (target_dir, target, present): (&Path, Log, &Recovered),
) -> Result<usize, String> {
    let io_error = |error: io::Error| error.to_string();
    let known: HashSet<SpoolId> = present.messages.iter().map(|message| message.id).collect();
    let mut source = Driven::open(source_dir, source).map_err(io_error)?;
    let mut target = Driven::open(target_dir, target).map_err(io_error)?;
    let mut moved = 0;
    for message in found
        .messages
        .iter()
        .filter(|message| !known.contains(&message.id))
    {
        let content = source.content(message)?;
        let outcomes: Vec<_> = message.outcomes.iter().flatten().cloned().collect();
        let mut staged = target.log.adopt(
            target.now,
            message.id,
            &message.envelope,
            &outcomes,
            &content,
        );
        if staged == Err(Refusal::Busy) {
            target.commit()?;
            staged = target.log.adopt(
                target.now,
                message.id,
                &message.envelope,
                &outcomes,
                &content,
            );
        }
        staged.map_err(|refusal| format!("message {}: {refusal:?}", message.id))?;
        moved += 1;
    }
    target.commit()?;
    drop(source);
    fs::remove_dir_all(source_dir).map_err(io_error)?;
    let parent = source_dir.parent().unwrap_or(source_dir);
    fs::File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error)?;
    Ok(moved)
}
