//! A mail log that cannot be written: mail goes on, every lost line is counted, the operator hears it once.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, Setup, scratch_dir};
use crate::harness::hop::Hop;
use crate::harness::wait_for;

const LETTER: &str = "Subject: hello\r\n\r\ntext\r\n";
const MESSAGES: usize = 20;

/// A daemon of one shard whose mail log is made before it starts.
fn with_log(hop: &Hop, make: impl FnOnce(&PathBuf)) -> (Daemon, PathBuf) {
    let dir = scratch_dir();
    let log = dir.path().join("log/mail.0.log");
    fs::create_dir(dir.path().join("log")).unwrap();
    make(&log);
    let mut daemon = Setup::relay_to(hop.address).shards(1).prepare(dir);
    daemon.restart();
    (daemon, log)
}

fn submit(daemon: &Daemon) {
    Client::submit(daemon.address, "a@a.example", &["b@b.example"], LETTER);
}

/// Two lines a message: accepted, delivered.
fn wait_for_lost(daemon: &Daemon, lines: usize) {
    wait_for("all lost lines to be counted", || {
        let lost = &daemon.status()["shards"][0]["lost_lines"];
        (lost.as_u64() == Some(lines as u64)).then_some(())
    });
}

fn said_of_log(daemon: &Daemon) -> Vec<String> {
    let said = daemon.stderr();
    let lines = said.lines().filter(|line| line.contains("WARN mail log"));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_full_disk_costs_lines_and_each_is_counted() {
    let hop = Hop::start();
    let (mut daemon, log) = with_log(&hop, |log| symlink("/dev/full", log).unwrap());
    for round in 1..=MESSAGES {
        submit(&daemon);
        hop.wait_for_mails(round);
    }
    wait_for_lost(&daemon, 2 * MESSAGES);
    let said = said_of_log(&daemon);
    assert_eq!(said.len(), 1, "{said:?}");
    let name = log.display().to_string();
    assert!(
        said[0].contains(&name) && said[0].contains("No space left"),
        "{said:?}"
    );
    fs::remove_file(&log).unwrap();
    daemon.signal("HUP");
    wait_for("a new file", || log.exists().then_some(()));
    submit(&daemon);
    wait_for("the loss in the log", || {
        let text = fs::read_to_string(&log).unwrap();
        text.contains("event=lost lines=40").then_some(())
    });
    wait_for("word of the recovery", || {
        said_of_log(&daemon)
            .iter()
            .any(|line| line.ends_with("written again; 40 lines lost"))
            .then_some(())
    });
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(said_of_log(&daemon).len(), 2, "{}", daemon.stderr());
}

#[test]
fn a_log_that_cannot_be_opened_is_named_and_counted_at_the_end() {
    let hop = Hop::start();
    let (mut daemon, log) = with_log(&hop, |log| fs::create_dir(log).unwrap());
    for round in 1..=MESSAGES {
        submit(&daemon);
        hop.wait_for_mails(round);
    }
    wait_for_lost(&daemon, 2 * MESSAGES);
    assert_eq!(daemon.stop(), Some(0));
    let said = said_of_log(&daemon);
    assert_eq!(said.len(), 2, "{said:?}");
    let name = log.display().to_string();
    assert!(
        said[0].contains(&name) && said[0].contains("Is a directory"),
        "{said:?}"
    );
    assert!(said[1].ends_with("40 lines lost"), "{said:?}");
}

#[test]
fn a_log_that_can_be_opened_later_is_written_without_being_asked() {
    let hop = Hop::start();
    let (daemon, log) = with_log(&hop, |log| fs::create_dir(log).unwrap());
    submit(&daemon);
    wait_for_lost(&daemon, 2);
    fs::remove_dir(&log).unwrap();
    wait_for("lines in the log", || {
        submit(&daemon);
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.contains("event=accepted").then_some(())
    });
}
