//! One sync of a directory for all who put something into it at the same time.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Directories remembered; beyond it those that rest are forgotten.
const DIRECTORIES_MAX: usize = 10_000;

/// Syncs under way, by directory.
#[derive(Debug, Default)]
pub(super) struct Batches {
    directories: Mutex<HashMap<PathBuf, Arc<Directory>>>,
}

#[derive(Debug, Default)]
struct Directory {
    state: Mutex<State>,
    changed: Condvar,
}

/// Syncs are numbered from 1.
#[derive(Debug, Default)]
struct State {
    /// The latest that has begun.
    begun: u64,
    /// The latest that has ended.
    ended: u64,
    running: bool,
    /// Of the syncs that failed: the last number and its error.
    failed: Option<(u64, i32)>,
}

impl Batches {
    /// Returns when a sync that began after this call has ended.
    ///
    /// # Errors
    /// That of the sync.
    pub(super) fn sync(&self, path: &Path) -> io::Result<()> {
        let directory = self.directory(path);
        let mut state = directory
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let wanted = state.begun + 1;
        while state.ended < wanted {
            if state.running {
                state = directory
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.running = true;
            state.begun += 1;
            let number = state.begun;
            drop(state);
            let result = File::open(path).and_then(|dir| dir.sync_all());
            state = directory
                .state
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            state.running = false;
            state.ended = number;
            if let Err(error) = result {
                state.failed = Some((number, error.raw_os_error().unwrap_or(libc::EIO)));
            }
            directory.changed.notify_all();
        }
        match state.failed {
            // Who waited for an earlier one and wakes late is told of the later failure: no harm.
            Some((number, errno)) if number >= wanted => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    fn directory(&self, path: &Path) -> Arc<Directory> {
        let mut all = self
            .directories
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = all.get(path) {
            return Arc::clone(directory);
        }
        if all.len() >= DIRECTORIES_MAX {
            all.retain(|_, directory| Arc::strong_count(directory) > 1);
        }
        let directory = Arc::<Directory>::default();
        all.insert(path.to_owned(), Arc::clone(&directory));
        directory
    }
}
