//! `zmailer kill`: stop the daemon and wait until it is gone.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{exit, fail};
use crate::config::Config;
use crate::control::client;
use crate::sys::lock;

/// Draining takes 2 s at most, the last commit 5 s more.
const PATIENCE: Duration = Duration::from_secs(15);

/// Asks the daemon to stop.
pub(super) fn run(config: &Config) -> ExitCode {
    let socket = config.paths.postoffice.join("control.sock");
    if let Err(error) = client::request(&socket, "stop") {
        return fail(exit::UNAVAILABLE, error);
    }
    let deadline = Instant::now() + PATIENCE;
    while lock::is_held(&config.paths.postoffice) {
        if Instant::now() >= deadline {
            return fail(exit::UNAVAILABLE, "the daemon is still stopping");
        }
        sleep(Duration::from_millis(10));
    }
    ExitCode::SUCCESS
}
