//! Spool directories beyond the number of shards: their messages move into the log of a shard that
//! runs, before anything is delivered.
//!
//! Order: files with content under their name in the target too, copies of the records committed there,
//! then the source removed. A cut in between leaves a message
//! in both under one id; the next start sees that it is there and copies the rest. Nothing has been
//! delivered by then, so nothing is delivered twice.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use spool::blocking::{BlockingDisk, file_name};
use spool::op::FileId;
use spool::{Content, ContentFile, Log, Recovered, Refusal, SpoolId};

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
    let mut source = Driven::new(source_dir, open(source_dir)?, source);
    let mut target = Driven::new(target_dir, open(target_dir)?, target);
    // A start that was cut off may have left names without a record: they go before they come again.
    target.commit()?;
    let mut moved = 0;
    for message in found
        .messages
        .iter()
        .filter(|message| !known.contains(&message.id))
    {
        let content = source.content(message)?;
        if let Content::File(file) = &content {
            link(source_dir, target_dir, file).map_err(io_error)?;
        }
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

/// Gives a file with content its name in the target too, and syncs it.
fn link(source: &Path, target: &Path, file: &ContentFile) -> io::Result<()> {
    let name = file_name(FileId::Content(file.id.bits()));
    match fs::hard_link(source.join(&name), target.join(&name)) {
        // A start that was cut off came as far as this.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        linked => linked?,
    }
    fs::File::open(target)?.sync_all()
}
