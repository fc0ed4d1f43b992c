//! What operators see of the queue and do to it.

use std::fs;

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, Setup, free_address};
use crate::harness::hop::Hop;
use crate::harness::sendmail::{said, zmailer};
use crate::harness::wait_for;

const LETTER: &str = "Subject: hello\r\n\r\ntext\r\n";

/// A daemon with a next hop that is down, and three messages.
fn waiting() -> Daemon {
    let mut setup = Setup::relay_to(free_address());
    setup.tail = "[[scheduler.rule]]\nmatch = \"*\"\nretry = [\"1h\"]\n".to_owned();
    let daemon = setup.start();
    for (from, to) in [
        ("ann@a.example", &["bob@b.example", "carl@c.example"][..]),
        ("dora@d.example", &["bob@b.example"]),
        ("eve@e.example", &["frank@f.example"]),
    ] {
        Client::submit(daemon.address, from, to, LETTER);
    }
    // Waits until the failed attempt is known: before it, recipients are in delivery.
    wait_for("the failed attempt", || {
        count(&daemon, "state = deferred")
            .starts_with("4 ")
            .then_some(())
    });
    daemon
}

fn count(daemon: &Daemon, filter: &str) -> String {
    said(&zmailer(daemon, &["queue", "count", "--where", filter]))
}

fn act(daemon: &Daemon, verb: &str, filter: &str) -> String {
    let output = zmailer(daemon, &["queue", verb, "--where", filter]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    said(&output)
}

#[test]
fn the_queue_is_shown_with_reason_and_time() {
    let daemon = waiting();
    let text = said(&zmailer(&daemon, &["mailq"]));
    for words in [
        "<ann@a.example>",
        "<carl@c.example> smtp/127.0.0.1:",
        "deferred, 1 attempt, next in ",
        "Connection refused",
        "4 recipients of 3 messages",
    ] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
    let text = said(&zmailer(&daemon, &["mailq", "-Q"]));
    assert!(text.contains("R=4 A=1 W="), "{text}");
    let text = said(&zmailer(&daemon, &["mailq", "-ss"]));
    assert!(
        text.contains("0 entries in ") && text.contains("3 messages in "),
        "{text}"
    );
    let output = zmailer(
        &daemon,
        &[
            "queue",
            "list",
            "--json",
            "--where",
            "sender = eve@e.example",
        ],
    );
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(object["messages"], 1);
    let recipient = &object["entries"][0]["recipients"][0];
    assert_eq!(recipient["recipient"], "frank@f.example");
    assert_eq!(recipient["state"], "deferred");
}

#[test]
fn what_is_held_survives_a_restart_and_goes_when_it_is_released() {
    let mut daemon = waiting();
    let said = act(&daemon, "hold", "recipient = bob@b.example");
    assert!(
        said.starts_with("hold: 2 of 2 recipients of 2 messages"),
        "{said}"
    );
    daemon.stop();
    let hop = Hop::start();
    let config = fs::read_to_string(daemon.config()).unwrap();
    let old = config
        .lines()
        .find(|line| line.starts_with("default_route"))
        .unwrap();
    let new = config.replace(old, &format!("default_route = \"smtp!{}\"", hop.address));
    fs::write(daemon.config(), new).unwrap();
    daemon.restart();
    assert!(count(&daemon, "state = held").starts_with("2 recipients of 2 messages"));
    act(&daemon, "retry", "not state = held");
    assert_eq!(hop.wait_for_mails(2).len(), 2);
    act(&daemon, "release", "state = held");
    let mails = hop.wait_for_mails(4);
    let bobs = mails
        .iter()
        .filter(|mail| mail.recipients == ["bob@b.example"]);
    assert_eq!(bobs.count(), 2);
    daemon.wait_until_empty();
}

#[test]
fn deleted_means_gone_and_bounced_means_told() {
    let daemon = waiting();
    act(&daemon, "delete", "sender = dora@d.example");
    assert!(count(&daemon, "sender = dora@d.example").starts_with("0 "));
    let said = act(&daemon, "bounce", "recipient = carl@c.example");
    assert!(said.starts_with("bounce: 1 of 1"), "{said}");
    wait_for("a report to ann", || {
        count(&daemon, "sender = <> and recipient = ann@a.example")
            .starts_with("1 ")
            .then_some(())
    });
    // The other recipient of the message waits on.
    assert!(count(&daemon, "sender = ann@a.example").starts_with("1 recipients of 1 messages"));
}

/// Somebody looks with a dry run, mail arrives, he acts: what he has not seen is not touched.
#[test]
fn an_action_concerns_what_the_dry_run_named() {
    let daemon = waiting();
    let output = zmailer(
        &daemon,
        &[
            "queue",
            "delete",
            "--dry-run",
            "--where",
            "domain = b.example",
        ],
    );
    assert!(
        said(&output).contains("would concern 2 recipients of 2 messages"),
        "{}",
        said(&output)
    );
    Client::submit(daemon.address, "late@a.example", &["bob@b.example"], LETTER);
    let text = act(&daemon, "delete", "domain = b.example");
    assert!(
        text.contains("2 of 2") && text.contains("1 more came after the dry run"),
        "{text}"
    );
    assert!(count(&daemon, "domain = b.example").starts_with("1 "));
}

#[test]
fn wrong_commands_are_refused() {
    let daemon = waiting();
    for (arguments, words) in [
        (&["queue", "delete"][..], "--where"),
        (
            &["queue", "list", "--where", "sendr = x"],
            "allowed: id, sender",
        ),
        (&["queue", "list", "--where", "age > 5"], "units"),
    ] {
        let output = zmailer(&daemon, arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(said(&output).contains(words), "{}", said(&output));
    }
    assert!(count(&daemon, "").starts_with("4 "));
}

#[test]
fn a_life_is_told_from_log_and_queue() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    Client::submit(daemon.address, "ann@a.example", &["bob@b.example"], LETTER);
    hop.wait_for_mails(1);
    let text = wait_for("both lines", || {
        let text = said(&zmailer(&daemon, &["trace", "bob@b.example"]));
        text.contains("event=delivered").then_some(text)
    });
    assert!(
        text.contains("event=accepted") && !text.contains("still here"),
        "{text}"
    );
    let output = zmailer(&daemon, &["trace", "nobody@x.example"]);
    assert_eq!(output.status.code(), Some(69));
}
