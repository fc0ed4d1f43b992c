//! Spool directories beyond the number of shards: their messages move into the log of a shard that
//! runs, before anything is delivered.
//!
//! Order: files with content under their name in the target too, copies of the records committed there,
//! then the source gets a name that no shard has, durably, and only then its files go: one of them alone
//! would be a log whose done records are missing. A cut before that leaves a message in both under one id;
//! the next start sees that it is there and copies the rest. A cut behind it leaves a directory that a start
//! removes. Nothing has been delivered by then, so nothing is delivered twice. A source in which something
//! is damaged is not removed.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use spool::blocking::{BlockingDisk, file_name};
use spool::op::FileId;
use spool::{Content, ContentFile, Log, Recovered, RecoveryReport, Refusal, SpoolId};

use super::driven::Driven;

/// What is behind the number of a directory whose messages have been moved...
const ABSORBED: &str = ".absorbed";

/// ... and of one that is kept, because something in it is damaged.
pub(super) const DAMAGED: &str = ".damaged";

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
        let (id, envelope) = (message.id, &message.envelope);
        let adopt = |target: &mut Driven| {
            let now = target.now;
            target.log.adopt(now, id, envelope, &outcomes, &content)
        };
        let mut staged = adopt(&mut target);
        if staged == Err(Refusal::Busy) {
            target.commit()?;
            staged = adopt(&mut target);
        }
        staged.map_err(|refusal| format!("message {}: {refusal:?}", message.id))?;
        moved += 1;
    }
    target.commit()?;
    drop(source);
    put_away(source_dir, is_damaged(&found.report)).map_err(io_error)?;
    Ok(moved)
}

fn is_damaged(report: &RecoveryReport) -> bool {
    !(report.damaged.is_empty() && report.aside.is_empty() && report.missing.is_empty())
}

/// Takes a directory whose messages are in another log out of the shards' names.
fn put_away(dir: &Path, damaged: bool) -> io::Result<()> {
    let parent = dir.parent().unwrap_or(dir);
    let away = if damaged {
        // A shard of this number may have been damaged before.
        let mut names = (0..).map(|number| match number {
            0 => named(dir, DAMAGED),
            _ => named(dir, &format!("{DAMAGED}.{number}")),
        });
        names.find(|name| !name.exists())
    } else {
        Some(named(dir, ABSORBED))
    };
    let away = away.ok_or(io::ErrorKind::AlreadyExists)?;
    fs::rename(dir, &away)?;
    fs::File::open(parent)?.sync_all()?;
    if damaged {
        tracing::error!("something is damaged: {} is kept", away.display());
        return Ok(());
    }
    fs::remove_dir_all(&away)
}

fn named(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    dir.with_file_name(name)
}

/// Removes what a start that was cut off has left of directories whose messages have been moved.
///
/// # Errors
/// Those of the file system.
pub(super) fn remove_leftovers(spool: &Path) -> io::Result<()> {
    let entries: Vec<fs::DirEntry> = fs::read_dir(spool)?.collect::<io::Result<_>>()?;
    if entries
        .iter()
        .any(|entry| is_leftover(&entry.file_name().to_string_lossy()))
    {
        // The name may be older than the sync that makes it one: without that it could turn back into a
        // shard's, with half of its files.
        fs::File::open(spool)?.sync_all()?;
    }
    for entry in entries {
        if is_leftover(&entry.file_name().to_string_lossy()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn is_leftover(name: &str) -> bool {
    name.strip_suffix(ABSORBED)
        .is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a directory");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("readable").file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn shard(parent: &Path, name: &str) -> PathBuf {
        let dir = parent.join(name);
        fs::create_dir(&dir).expect("new");
        fs::write(dir.join("log.00000000"), b"x").expect("writable");
        dir
    }

    /// What was lost: files of an absorbed directory went one by one under the shard's name, and a cut in
    /// between left a log without its done records. What such a cut leaves now is not a shard's.
    #[test]
    fn a_directory_leaves_the_names_of_shards_before_its_files_go() {
        let spool = tempfile::tempdir().expect("a directory");
        let dir = shard(spool.path(), "0003");
        put_away(&dir, false).expect("no damage");
        assert!(names(spool.path()).is_empty());
        for name in [
            "0000",
            "0001",
            "0003.absorbed",
            "0004.damaged",
            "x.absorbed",
        ] {
            shard(spool.path(), name);
        }
        remove_leftovers(spool.path()).expect("removable");
        assert_eq!(
            names(spool.path()),
            ["0000", "0001", "0004.damaged", "x.absorbed"]
        );
    }

    #[test]
    fn a_damaged_directory_is_kept() {
        let spool = tempfile::tempdir().expect("a directory");
        for _ in 0..2 {
            let dir = shard(spool.path(), "0003");
            put_away(&dir, true).expect("renamed");
        }
        assert_eq!(names(spool.path()), ["0003.damaged", "0003.damaged.1"]);
    }
}
