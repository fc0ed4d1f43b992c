//! Removes files whose messages are committed: many, then one sync of each directory, then the shards
//! hear that the files are gone for good.
//!
//! A name is removed once and only while it is the file that was taken: submitters may rename another
//! file over it, and a number of an inode, which is what most names are, is given again as soon as its
//! file is gone. What stands under the name then is a message that nobody has read.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use spool::MessageKey;

use super::file::Identity;
use super::{Answers, Ends, REFUSED, Setup, Wake};

/// Files removed under one sync, at most.
const BATCH_MAX: usize = 1024;

/// A file, and the message that was made of it.
struct Taken {
    path: PathBuf,
    identity: Identity,
    /// Its name is gone, or was never ours to remove.
    gone: bool,
    shard: u16,
    key: MessageKey,
}

/// The way to the thread that removes, and back. The pick-up bounds how much is under way.
pub(super) struct Remover {
    sender: Sender<Taken>,
    removed: Receiver<PathBuf>,
}

impl Remover {
    /// Starts the thread.
    pub(super) fn start(setup: &Setup) -> io::Result<Self> {
        let (sender, taken) = mpsc::channel();
        let (done, removed) = mpsc::channel();
        let worker = Worker {
            taken,
            done,
            ends: setup.ends.clone(),
            wake: Arc::clone(&setup.wake),
            answers: Arc::clone(&setup.answers),
        };
        thread::Builder::new()
            .name("remover".to_owned())
            .spawn(move || worker.run())?;
        Ok(Self { sender, removed })
    }

    /// Has a file removed.
    pub(super) fn remove(&self, path: PathBuf, identity: Identity, shard: u16, key: MessageKey) {
        let taken = Taken {
            path,
            identity,
            gone: false,
            shard,
            key,
        };
        // The thread ends with this sender only.
        let _ = self.sender.send(taken);
    }

    /// The next file that is gone for good.
    pub(super) fn removed(&self) -> Option<PathBuf> {
        self.removed.try_recv().ok()
    }
}

struct Worker {
    taken: Receiver<Taken>,
    done: Sender<PathBuf>,
    ends: Vec<Ends>,
    wake: Wake,
    answers: Arc<Answers>,
}

impl Worker {
    fn run(self) {
        while let Ok(first) = self.taken.recv() {
            let mut batch = vec![first];
            batch.extend(self.taken.try_iter().take(BATCH_MAX - 1));
            while let Err(error) = remove_all(&mut batch) {
                // Their messages stay in the spool, so the files are known for what they are.
                tracing::error!("files in router/ cannot be removed: {error}");
                thread::sleep(REFUSED);
            }
            for Taken {
                path, shard, key, ..
            } in batch
            {
                release(&self.ends, &self.wake, shard, key);
                let _ = self.done.send(path);
            }
            for shard in 0..self.ends.len() {
                (self.wake)(shard);
            }
            self.answers.nudge();
        }
    }
}

fn remove_all(batch: &mut [Taken]) -> io::Result<()> {
    for taken in batch.iter_mut().filter(|taken| !taken.gone) {
        match remove(taken) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => taken.gone = true,
        }
    }
    let mut dirs: Vec<&Path> = batch
        .iter()
        .filter_map(|taken| taken.path.parent())
        .collect();
    dirs.sort_unstable();
    dirs.dedup();
    dirs.iter().try_for_each(|dir| File::open(dir)?.sync_all())
}

/// Removes the file that was taken; another under its name stays.
fn remove(taken: &Taken) -> io::Result<()> {
    if Identity::of(&fs::symlink_metadata(&taken.path)?) == taken.identity {
        fs::remove_file(&taken.path)?;
    }
    Ok(())
}

/// Tells a shard that the file of a message is gone for good.
pub(super) fn release(ends: &[Ends], wake: &Wake, shard: u16, mut key: MessageKey) {
    let released = &ends[usize::from(shard)].released;
    // The shard takes them every turn; a full queue means that it has not had one yet.
    while let Err(back) = released.push(key) {
        key = back;
        wake(shard.into());
        thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(path: &Path) -> Taken {
        Taken {
            path: path.to_owned(),
            identity: Identity::of(&fs::symlink_metadata(path).unwrap()),
            gone: false,
            shard: 0,
            key: MessageKey(1),
        }
    }

    /// What was lost: a file that a submitter had renamed over one that was taken went with it, unread.
    #[test]
    fn another_file_under_the_same_name_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1");
        fs::write(&path, "taken").unwrap();
        let mut batch = [taken(&path)];
        fs::write(dir.path().join("2"), "new").unwrap();
        fs::rename(dir.path().join("2"), &path).unwrap();
        remove_all(&mut batch).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        let mut batch = [taken(&path)];
        remove_all(&mut batch).unwrap();
        assert!(!path.exists());
    }

    /// What could be lost: after a sync that failed all names were removed again, and by then one could
    /// be a new file's, with the same inode.
    #[test]
    fn a_name_is_removed_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1");
        fs::write(&path, "taken").unwrap();
        let mut batch = [taken(&path)];
        remove_all(&mut batch).unwrap();
        fs::write(&path, "new").unwrap();
        batch[0].identity = taken(&path).identity;
        remove_all(&mut batch).unwrap();
        assert!(path.exists());
    }
}
