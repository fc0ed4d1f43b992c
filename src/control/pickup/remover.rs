//! Removes files whose messages are committed: many, then one sync of each directory, then the shards
//! hear that the files are gone for good.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use spool::MessageKey;

use super::{Answers, Ends, REFUSED, Setup, Wake};

/// Files removed under one sync, at most.
const BATCH_MAX: usize = 1024;

/// A file, and the message that was made of it.
struct Taken {
    path: PathBuf,
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
    pub(super) fn remove(&self, path: PathBuf, shard: u16, key: MessageKey) {
        // The thread ends with this sender only.
        let _ = self.sender.send(Taken { path, shard, key });
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
            while let Err(error) = remove_all(&batch) {
                // Their messages stay in the spool, so the files are known for what they are.
                tracing::error!("files in router/ cannot be removed: {error}");
                thread::sleep(REFUSED);
            }
            for Taken { path, shard, key } in batch {
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

fn remove_all(batch: &[Taken]) -> io::Result<()> {
    for taken in batch {
        match fs::remove_file(&taken.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
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
