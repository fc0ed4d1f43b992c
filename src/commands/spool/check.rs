//! `zmailer spool check`: every checksum and every reference, offline and under a running daemon.
//!
//! It looks at the files and asks nobody: it says what is on disk, not what a daemon believes, works when
//! there is none or it does not answer, and costs the shards nothing. What was written since it began it has
//! not seen.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};
use spool::survey::Finding;

use super::look::Look;
use super::{directories, exit, fail, kept};
use crate::config::Config;
use crate::sys::lock;

pub(super) fn check(config: &Config, as_json: bool) -> Result<ExitCode, ExitCode> {
    let running = lock::is_held(&config.paths.postoffice);
    let dirs = directories(config).map_err(|error| fail(exit::UNAVAILABLE, error))?;
    let mut total = Total {
        running,
        ..Total::default()
    };
    for dir in kept(config) {
        total.findings += 1;
        if !as_json {
            println!("{}: kept, something in it is damaged", dir.display());
        }
        total.shards.push(json!({ "directory": dir, "kept": true }));
    }
    for dir in dirs {
        match Look::at(&dir, !running) {
            Ok(look) => total.add(&look, as_json),
            Err(error) => total.unreadable(format!("{}: {error}", dir.display())),
        }
    }
    total.show(as_json);
    Ok(total.code())
}

#[derive(Default)]
struct Total {
    running: bool,
    shards: Vec<Value>,
    messages: usize,
    commits: u64,
    bytes: u64,
    findings: usize,
    unreadable: usize,
}

impl Total {
    fn add(&mut self, look: &Look, as_json: bool) {
        let surveyed = &look.surveyed;
        let messages = surveyed
            .messages
            .iter()
            .filter(|found| found.counts)
            .count();
        self.messages += messages;
        self.commits += surveyed.commits;
        self.bytes += surveyed.bytes;
        self.findings += surveyed.findings.len();
        for error in &look.unreadable {
            self.unreadable(error.clone());
        }
        if !as_json {
            show_all(&look.dir, "", &surveyed.findings);
            show_all(&look.dir, "no damage: ", &surveyed.notes);
        }
        self.shards.push(json!({
            "directory": look.dir,
            "segments": look.segments,
            "messages": messages,
            "commits": surveyed.commits,
            "references_to_freed": surveyed.freed,
            "bytes": surveyed.bytes,
            "findings": surveyed.findings.iter().map(object).collect::<Vec<_>>(),
            "notes": surveyed.notes.iter().map(object).collect::<Vec<_>>(),
        }));
    }

    fn unreadable(&mut self, error: String) {
        eprintln!("zmailer: {error}");
        self.unreadable += 1;
    }

    fn show(&self, as_json: bool) {
        if as_json {
            let object = json!({
                "running": self.running,
                "messages": self.messages,
                "findings": self.findings,
                "unreadable": self.unreadable,
                "shards": self.shards,
            });
            println!("{object}");
            return;
        }
        let moving = if self.running {
            "; a daemon runs: what it has written since this began was not looked at"
        } else {
            ""
        };
        println!(
            "{} messages, {} commits, {} bytes read, {} findings{moving}",
            self.messages, self.commits, self.bytes, self.findings
        );
    }

    fn code(&self) -> ExitCode {
        match (self.findings, self.unreadable) {
            (0, 0) => ExitCode::SUCCESS,
            (0, _) => ExitCode::from(exit::IO),
            _ => ExitCode::from(exit::DATA),
        }
    }
}

/// One line for each: directory, segment:offset, what.
pub(super) fn show_all(dir: &Path, kind: &str, findings: &[Finding]) {
    for Finding { place, what } in findings {
        let place = place.map(|place| format!("{}:{}: ", place.segment, place.offset));
        println!(
            "{}: {}{kind}{what}",
            dir.display(),
            place.unwrap_or_default()
        );
    }
}

fn object(finding: &Finding) -> Value {
    json!({
        "segment": finding.place.map(|place| place.segment),
        "offset": finding.place.map(|place| place.offset),
        "what": finding.what,
    })
}
