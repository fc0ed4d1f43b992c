//! `zmailer status`: the running daemon's counters.

use std::process::ExitCode;

use serde_json::Value;

use super::{exit, fail};
use crate::config::Config;
use crate::control::client;

/// Asks the daemon and prints its answer.
pub(super) fn run(config: &Config, json: bool) -> ExitCode {
    let socket = config.paths.postoffice.join("control.sock");
    match client::request(&socket, "status") {
        Err(error) => fail(exit::UNAVAILABLE, error),
        Ok(status) if json => {
            println!("{status}");
            ExitCode::SUCCESS
        }
        Ok(status) => {
            print_status(&status);
            ExitCode::SUCCESS
        }
    }
}

fn print_status(status: &Value) {
    let number = |path: &str| status.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    println!(
        "zmailer {} up {} s, {} shards, {} sessions",
        status["version"].as_str().unwrap_or("?"),
        number("/uptime_s"),
        status["shards"].as_array().map_or(0, Vec::len),
        number("/sessions"),
    );
    println!(
        "queue   {} messages, {} recipients, {} bytes",
        number("/queue/messages"),
        number("/queue/recipients"),
        number("/queue/bytes"),
    );
    println!(
        "spool   {} segments, {} bytes, {} live; {} commits of {} us, {} flushes",
        number("/spool/segments"),
        number("/spool/bytes"),
        number("/spool/live_bytes"),
        number("/spool/commits"),
        number("/spool/commit_us"),
        number("/spool/flushes"),
    );
    println!(
        "mail    {} accepted, {} delivered, {} deferred, {} failed",
        number("/mail/accepted"),
        number("/mail/delivered"),
        number("/mail/deferred"),
        number("/mail/failed"),
    );
}
