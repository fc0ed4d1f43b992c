//! How the daemon ends when a next hop does not answer: after a while by itself, at once when asked twice.

use std::time::Duration;

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, Setup};
use crate::harness::hop::Hop;
use crate::harness::wait_for;

const LETTER: &str = "Subject: hello\r\n\r\ntext\r\n";

/// A daemon that has sent a final dot and waits for the reply, and the hop that does not give it.
fn waiting_for_a_reply() -> (Daemon, Hop) {
    let hop = Hop::start();
    hop.script.lock().unwrap().delay = Duration::from_secs(600);
    let daemon = Setup::relay_to(hop.address).shards(1).start();
    Client::submit(daemon.address, "ann@a.example", &["bob@b.example"], LETTER);
    wait_for("the final dot", || {
        (hop.script.lock().unwrap().contents == 1).then_some(())
    });
    (daemon, hop)
}

#[test]
fn what_was_unanswered_is_possibly_delivered_and_repeated() {
    let (mut daemon, hop) = waiting_for_a_reply();
    assert_eq!(daemon.stop(), Some(0));
    let said = daemon.stderr();
    assert!(said.contains("jobs=1"), "{said}");
    assert!(said.contains("possibly delivered"), "{said}");
    hop.script.lock().unwrap().delay = Duration::ZERO;
    daemon.restart();
    assert_eq!(hop.wait_for_mails(1)[0].recipients, ["bob@b.example"]);
    daemon.wait_until_empty();
}

#[test]
fn a_second_sigterm_ends_without_waiting() {
    let (mut daemon, hop) = waiting_for_a_reply();
    daemon.signal("TERM");
    wait_for("the beginning of the end", || {
        daemon.stderr().contains("stopping").then_some(())
    });
    daemon.signal("TERM");
    assert_eq!(daemon.wait_exit(), Some(0));
    // It would have been said after the wait for the reply, which did not take place.
    let said = daemon.stderr();
    assert!(!said.contains("stopped before the reply"), "{said}");
    hop.script.lock().unwrap().delay = Duration::ZERO;
    daemon.restart();
    assert_eq!(hop.wait_for_mails(1)[0].recipients, ["bob@b.example"]);
    daemon.wait_until_empty();
}
