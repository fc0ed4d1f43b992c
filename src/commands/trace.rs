//! `zmailer trace`: the life of a message, from the mail logs and the queue.
//!
//! The logs are read line by line, twice for an address: whose messages, then their lines. Only what
//! will be shown is kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{exit, fail, queue};
use crate::config::Config;
use crate::control::client::{self, ControlError};

/// Messages of an address that are shown: the latest.
const MESSAGES_MAX: usize = 100;

/// Lines of one message that are shown.
const LINES_MAX: usize = 100_000;

/// Tells the life of a message, or of those an address took part in.
pub(super) fn run(config: &Config, wanted: &str) -> Result<ExitCode, ExitCode> {
    let address = wanted.trim_start_matches('<').trim_end_matches('>');
    let (ids, more) = if address.contains('@') {
        ids_of(config, address)
    } else {
        (vec![wanted.to_owned()], 0)
    };
    let mut lives: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let places: HashMap<&str, usize> = ids.iter().map(String::as_str).zip(0..).collect();
    each_line(&config.paths.log_dir, |line| {
        let id = value(line, "id").unwrap_or_default();
        if let Some(place) = places.get(String::from_utf8_lossy(&id).as_ref()) {
            let life = lives.entry(*place).or_default();
            if life.len() < LINES_MAX {
                life.push(line.to_owned());
            }
        }
    });
    let mut found = false;
    for (place, id) in ids.iter().enumerate() {
        let life = lives.remove(&place).unwrap_or_default();
        found |= tell(config, life, id)?;
    }
    if more > 0 {
        println!("and {more} more messages before these");
    }
    if found {
        return Ok(ExitCode::SUCCESS);
    }
    let text = format!("nothing is known of {wanted}: neither the mail logs nor the queue name it");
    Err(fail(exit::UNAVAILABLE, text))
}

/// Gives each line of the mail logs to `each`, file by file. What cannot be read is complained about:
/// the queue may know more.
fn each_line(dir: &Path, mut each: impl FnMut(&str)) {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => return eprintln!("zmailer: {}: {error}", dir.display()),
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str());
        if !name.is_some_and(|name| name.starts_with("mail.")) {
            continue;
        }
        if let Err(error) = lines_of(&path, &mut each) {
            eprintln!("zmailer: {}: {error}", path.display());
        }
    }
}

fn lines_of(path: &Path, each: &mut impl FnMut(&str)) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(64 << 10, File::open(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        each(String::from_utf8_lossy(line.trim_ascii_end()).as_ref());
    }
}

/// The latest messages of an address, oldest first, and how many more there are.
fn ids_of(config: &Config, address: &str) -> (Vec<String>, usize) {
    let mut latest = Latest::default();
    each_line(&config.paths.log_dir, |line| {
        let is_named = |key| {
            value(line, key).is_some_and(|value| value.eq_ignore_ascii_case(address.as_bytes()))
        };
        if (is_named("to") || is_named("orig") || is_named("from"))
            && let Some(id) = value(line, "id")
        {
            let time = line.split(' ').next().unwrap_or_default();
            latest.insert(time, &String::from_utf8_lossy(&id));
        }
    });
    // The log may be younger than what waits. A quotation mark cannot be written in an expression.
    let pattern = address.replace('"', "?");
    let filter = format!("recipient ~ \"{pattern}\" or sender ~ \"{pattern}\"");
    ask(config, &filter, |entry| {
        if let Some(id) = entry["id"].as_str()
            && names(entry, address)
        {
            latest.insert("", id);
        }
        Ok(())
    });
    latest.into_ids()
}

/// Whether an entry of the queue is from or to an address.
fn names(entry: &Value, address: &str) -> bool {
    let recipients = entry["recipients"].as_array().into_iter().flatten();
    let all = recipients.map(|recipient| &recipient["recipient"]);
    all.chain([&entry["sender"]])
        .filter_map(Value::as_str)
        .any(|name| name.eq_ignore_ascii_case(address))
}

/// The messages that began last.
#[derive(Default)]
struct Latest {
    began: HashMap<String, String>,
    by_time: BTreeSet<(String, String)>,
    dropped: usize,
}

impl Latest {
    /// Times begin the lines of a log and sort as text.
    fn insert(&mut self, time: &str, id: &str) {
        if let Some(known) = self.began.get_mut(id) {
            if !time.is_empty() && (known.is_empty() || time < known.as_str()) {
                let old = std::mem::replace(known, time.to_owned());
                self.by_time.remove(&(old, id.to_owned()));
                self.by_time.insert((time.to_owned(), id.to_owned()));
            }
            return;
        }
        self.began.insert(id.to_owned(), time.to_owned());
        self.by_time.insert((time.to_owned(), id.to_owned()));
        if self.by_time.len() > MESSAGES_MAX
            && let Some((_, id)) = self.by_time.pop_first()
        {
            // Other lines of it may follow, so the count is of those at most.
            self.began.remove(&id);
            self.dropped += 1;
        }
    }

    fn into_ids(self) -> (Vec<String>, usize) {
        let ids = self.by_time.into_iter().map(|(_, id)| id);
        (ids.collect(), self.dropped)
    }
}

/// The value of a key in a line, as it was before it was written.
fn value(line: &str, key: &str) -> Option<Vec<u8>> {
    let mut rest = line;
    loop {
        let (name, behind) = rest.split_once('=')?;
        let (value, next) = match behind.strip_prefix('"') {
            Some(inside) => unquoted(inside),
            None => {
                let (value, next) = behind.split_once(' ').unwrap_or((behind, ""));
                (value.as_bytes().to_vec(), next)
            }
        };
        if name == key {
            return Some(value);
        }
        rest = next;
    }
}

/// What stands before the closing quotation mark, and what follows it.
fn unquoted(text: &str) -> (Vec<u8>, &str) {
    let (mut value, bytes) = (Vec::new(), text.as_bytes());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match (byte, bytes.get(at)) {
            (b'"', _) => break,
            (b'\\', Some(b'x')) => {
                let digits = text.get(at + 1..at + 3).unwrap_or_default();
                value.push(u8::from_str_radix(digits, 16).unwrap_or(b'?'));
                at += 3;
            }
            (b'\\', Some(escaped)) => {
                value.push(*escaped);
                at += 1;
            }
            _ => value.push(*byte),
        }
    }
    (value, text.get(at..).unwrap_or_default().trim_start())
}

fn tell(config: &Config, mut life: Vec<String>, id: &str) -> Result<bool, ExitCode> {
    life.sort();
    let mut found = !life.is_empty();
    for line in life {
        println!("{line}");
    }
    let filter = format!("id = {}", queue::quoted(id)?);
    ask(config, &filter, |entry| {
        found = true;
        let mut out = io::stdout().lock();
        writeln!(out, "still here:")?;
        queue::show(entry, queue::now_ms(), usize::MAX, &mut out)
    });
    Ok(found)
}

fn ask(config: &Config, filter: &str, entry: impl FnMut(&Value) -> io::Result<()>) {
    let socket = config.paths.postoffice.join("control.sock");
    let request = json!({ "command": "queue", "act": "list", "where": filter });
    match client::request_entries(&socket, &request, entry) {
        // Nobody reads any more.
        Err(ControlError::Io(_, error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => eprintln!("zmailer: the queue is not known: {error}"),
        Ok(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_were_written() {
        let line = "time=1 event=delivered id=abc to=\"a \\\"b\\\\ id=x\\xc3\\xb6\" host=h reply=\"250 id=y\"";
        assert_eq!(value(line, "id").as_deref(), Some(&b"abc"[..]));
        let to = "a \"b\\ id=x\u{f6}";
        assert_eq!(value(line, "to").as_deref(), Some(to.as_bytes()));
        assert_eq!(value(line, "host").as_deref(), Some(&b"h"[..]));
        assert_eq!(value(line, "size"), None);
        assert_eq!(value("no key here", "id"), None);
        assert_eq!(
            value("id=\"cut off\\", "id").as_deref(),
            Some(&b"cut off\\"[..])
        );
    }

    #[test]
    fn the_latest_are_kept() {
        let mut latest = Latest::default();
        for number in (0..250).rev() {
            latest.insert(&format!("{:04}", number / 2), &format!("m{}", number / 2));
        }
        let (ids, more) = latest.into_ids();
        assert_eq!(
            (ids.len(), ids[0].as_str(), ids[99].as_str()),
            (100, "m25", "m124")
        );
        assert!(more >= 25);
    }
}
