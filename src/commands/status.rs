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
        "space   {} bytes free (at least {}), {} inodes (at least {}){}",
        number("/spool/space/free_bytes"),
        number("/spool/space/min_free"),
        number("/spool/space/free_inodes"),
        number("/spool/space/min_free_inodes"),
        short_of(status),
    );
    println!(
        "mail    {} accepted, {} delivered, {} deferred, {} failed",
        number("/mail/accepted"),
        number("/mail/delivered"),
        number("/mail/deferred"),
        number("/mail/failed"),
    );
}

/// What is short, if anything is.
fn short_of(status: &Value) -> String {
    let short = status.pointer("/spool/space/short_of");
    let words = short.and_then(Value::as_array).into_iter().flatten();
    let words: Vec<&str> = words.filter_map(Value::as_str).collect();
    if words.is_empty() {
        String::new()
    } else {
        format!("; NEW MAIL IS REFUSED: {}", words.join(", "))
    }
}
