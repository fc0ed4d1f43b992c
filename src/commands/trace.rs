//! `zmailer trace`: the life of a message, from the mail logs and the queue.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::ExitCode;

use serde_json::json;

use super::{exit, fail, queue};
use crate::config::Config;
use crate::control::client;

/// Messages of an address that are shown.
const MESSAGES_MAX: usize = 100;

/// Tells the life of a message, or of those an address took part in.
pub(super) fn run(config: &Config, wanted: &str) -> ExitCode {
    let lines = match lines(config) {
        Ok(lines) => lines,
        Err(error) => return fail(exit::UNAVAILABLE, error),
    };
    let ids = if wanted.contains('@') {
        ids_of(&lines, wanted)
    } else {
        vec![wanted.to_owned()]
    };
    let mut found = false;
    for id in ids.iter().take(MESSAGES_MAX) {
        found |= tell(config, &lines, id);
    }
    if ids.len() > MESSAGES_MAX {
        println!("and {} more messages", ids.len() - MESSAGES_MAX);
    }
    if found {
        ExitCode::SUCCESS
    } else {
        let text =
            format!("nothing is known of {wanted}: neither the mail logs nor the queue name it");
        fail(exit::UNAVAILABLE, text)
    }
}

/// All lines of the mail logs, in the order of their times. Times begin the lines and sort as text.
fn lines(config: &Config) -> Result<Vec<String>, String> {
    let dir = &config.paths.log_dir;
    let unreadable = |error: std::io::Error| format!("{}: {error}", dir.display());
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)?.flatten() {
        let name = entry.file_name();
        let is_log = name.to_str().is_some_and(|name| name.starts_with("mail."));
        if is_log {
            let file = File::open(entry.path()).map_err(unreadable)?;
            all.extend(BufReader::new(file).lines().map_while(Result::ok));
        }
    }
    all.sort();
    Ok(all)
}

fn ids_of(lines: &[String], address: &str) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for line in lines {
        let names = ["to", "from"].iter().filter_map(|key| value(line, key));
        if names
            .into_iter()
            .any(|name| name.eq_ignore_ascii_case(address))
            && let Some(id) = value(line, "id")
            && !ids.iter().any(|known| known == id)
        {
            ids.push(id.to_owned());
        }
    }
    ids
}

/// The plain value of a key in a line.
fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split(' ')
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

fn tell(config: &Config, lines: &[String], id: &str) -> bool {
    let mut found = false;
    for line in lines.iter().filter(|line| value(line, "id") == Some(id)) {
        println!("{line}");
        found = true;
    }
    let socket = config.paths.postoffice.join("control.sock");
    let request = json!({ "command": "queue", "act": "list", "where": format!("id = \"{id}\"") });
    let answer = client::request_entries(&socket, &request, |entry| {
        found = true;
        println!("still here:");
        queue::show(
            entry,
            queue::now_ms(),
            usize::MAX,
            &mut std::io::stdout().lock(),
        )
    });
    if let Err(error) = answer {
        eprintln!("zmailer: the queue is not known: {error}");
    }
    found
}
