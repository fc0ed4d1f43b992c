//! A spool engine with a blocking disk, for tools.

use spool::blocking::BlockingDisk;
use spool::{Event, Log, RecoveredMessage};

/// One turn of the engine's clock, in nanoseconds: longer than any commit delay.
const TICK_NS: u64 = 1_000_000_000;

/// An engine with its disk.
pub(super) struct Driven {
    pub(super) log: Log,
    disk: BlockingDisk,
    pub(super) now: u64,
}

impl Driven {
    pub(super) fn new(disk: BlockingDisk, log: Log) -> Self {
        Self { log, disk, now: 1 }
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

    pub(super) fn content(&mut self, message: &RecoveredMessage) -> Result<Vec<u8>, String> {
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
    pub(super) fn commit(&mut self) -> Result<(), String> {
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
