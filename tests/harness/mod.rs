//! What the stories in `e2e/` are told with: a daemon in a scratch directory, a client, next hops.

pub mod client;
pub mod daemon;
pub mod dialog;
pub mod dns;
pub mod hop;
pub mod mount;
pub mod outside;
pub mod person;
pub mod power;
pub mod sendmail;
pub mod site;

use std::io::Write;
use std::time::{Duration, Instant};

/// How long any condition is waited for before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Says loudly that something is not tested here: past the capture of a test's output.
pub fn skip(what: &str) {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}

/// Whether a program of another package is here; says so when it is not.
pub fn installed(program: &str) -> bool {
    let paths = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    let found = paths
        .split(':')
        .any(|dir| std::path::Path::new(dir).join(program).exists());
    if !found {
        skip(&format!("{program} is not installed"));
    }
    found
}

/// Waits until `condition` gives a value.
///
/// # Panics
/// When it does not within [`PATIENCE`]; `what` says what was waited for.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
