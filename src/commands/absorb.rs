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
use spool::{Log, Recovered, Refusal, SpoolId};

use super::driven::Driven;

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
    let open = |dir| BlockingDisk::open(dir).map_err(io_error);
    let mut source = Driven::new(open(source_dir)?, source);
    let mut target = Driven::new(open(target_dir)?, target);
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
