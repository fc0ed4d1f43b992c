//! A thread with a ring of its own for futures. Who starts it hears whether the ring could be made.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::thread;

use crate::ring::SetupError;

/// Entries of the ring: few operations are under way at a time, and locked memory may be short.
const RING_ENTRIES: u32 = 64;

/// The least that works.
const RING_ENTRIES_MIN: u32 = 8;

/// Why a thread did not start.
#[derive(Debug)]
pub enum StartError {
    /// The kernel refused the ring.
    Ring(SetupError),
    /// The thread, or what it is to serve, could not be made.
    Thread(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(error) => error.fmt(f),
            Self::Thread(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for StartError {}

/// Starts a thread that runs the future of `make`. It ends with the process.
///
/// # Errors
/// When the thread or its ring cannot be made.
pub(super) fn start<F: Future>(
    name: &'static str,
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<(), StartError> {
    let (told, made) = mpsc::sync_channel(1);
    let run = move || {
        let (result, runtime) = match runtime() {
            Ok(runtime) => (Ok(()), Some(runtime)),
            Err(error) => (Err(error), None),
        };
        // Who started us waits for this.
        let _ = told.send(result);
        if let Some(runtime) = runtime {
            runtime.block_on(make());
        }
    };
    let failed = |error: io::Error| StartError::Thread(format!("thread {name}: {error}"));
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(failed)?;
    match made.recv() {
        Ok(result) => {
            result.map_err(|error| StartError::Ring(SetupError::new("io_uring_setup", error)))
        }
        Err(_) => Err(StartError::Thread(format!("thread {name} has ended"))),
    }
}

fn runtime() -> io::Result<tokio_uring::Runtime> {
    let of = |entries| tokio_uring::Runtime::new(tokio_uring::builder().entries(entries));
    of(RING_ENTRIES).or_else(|_| of(RING_ENTRIES_MIN))
}
