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
        text.contains("2 of 2")
            && text.contains("the dry run has named 2")
            && text.contains("1 more came after the dry run"),
        "{text}"
    );
    assert!(count(&daemon, "domain = b.example").starts_with("1 "));
}

/// Mail that was there already and matches only since the dry run was acted on without a word.
#[test]
fn what_matches_only_since_the_dry_run_is_left_alone() {
    let daemon = waiting();
    act(&daemon, "hold", "recipient = frank@f.example");
    let selection = [
        "queue",
        "release",
        "--where",
        "state = held",
        "--dry-run",
        "--json",
    ];
    let output = zmailer(&daemon, &selection);
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(
        (&object["recipients"], &object["entries"][0]["sender"]),
        (&1.into(), &"eve@e.example".into())
    );
    act(&daemon, "hold", "sender = ann@a.example");
    let text = act(&daemon, "release", "state = held");
    assert!(
        text.starts_with("release: 1 of 1 recipients of 1 messages"),
        "{text}"
    );
    assert!(
        text.contains("named 1") && text.contains("2 more"),
        "{text}"
    );
    assert!(count(&daemon, "state = held").starts_with("2 recipients of 1 messages"));
    // A dry run holds once: now whatever matches is meant.
    let text = act(&daemon, "release", "state = held");
    assert!(
        text.starts_with("release: 2 of 2") && !text.contains("dry run"),
        "{text}"
    );
    // What a dry run has named and what does not match any more is not touched either.
    zmailer(
        &daemon,
        &[
            "queue",
            "delete",
            "--where",
            "state = deferred",
            "--dry-run",
        ],
    );
    act(&daemon, "hold", "recipient = bob@b.example");
    let text = act(&daemon, "delete", "state = deferred");
    assert!(
        text.contains("named ") && count(&daemon, "").starts_with("2 recipients of 2 messages"),
        "{text}"
    );
}

/// A listing is passed on as it comes: whoever has seen enough ends it, and it is one JSON object.
#[test]
fn long_listings_are_streamed() {
    let daemon = waiting();
    let mut client = Client::connect(daemon.address);
    client.hello();
    for number in 0..300 {
        client.message("many@m.example", &[&format!("u{number}@b.example")], LETTER);
    }
    let list = zmailer(&daemon, &["queue", "list", "--json"]);
    let object: serde_json::Value = serde_json::from_slice(&list.stdout).expect("one object");
    assert_eq!(object["entries"].as_array().unwrap().len(), 303);
    assert_eq!(object["messages"], 303);
    let none = zmailer(
        &daemon,
        &["queue", "list", "--json", "--where", "sender = nobody"],
    );
    let object: serde_json::Value = serde_json::from_slice(&none.stdout).expect("one object");
    assert_eq!(
        (
            object["entries"].as_array().unwrap().len(),
            &object["messages"]
        ),
        (0, &0.into())
    );
    for command in ["zmailer mailq", "zmailer queue list", "sendmail -bp"] {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("{{ {command}; echo $? >&2; }} | head -1")]);
        let output = crate::harness::sendmail::program(shell, &daemon, b"");
        let text = said(&output);
        assert!(text.contains(".example>"), "{command}: {text}");
        assert!(!text.contains("panicked"), "{command}: {text}");
    }
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
    let same = said(&zmailer(&daemon, &["trace", "<BOB@b.example>"]));
    assert_eq!(same, text);
    for (unknown, code) in [
        ("nobody@x.example", 69),
        ("\" or id ~ \"*", 64),
        ("x\"@x\" or id ~ \"*", 69),
    ] {
        let output = zmailer(&daemon, &["trace", unknown]);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    }
}

/// Log files may be moved away, hold anything, or not be there; an address is written in quotes when it
/// is not plain, and was not found then.
#[test]
fn lives_are_found_without_a_good_log() {
    let daemon = waiting();
    let to = "\"Joe \\\"Q\\\"\"@b.example";
    Client::submit(daemon.address, "ann@a.example", &[to], LETTER);
    for known in [to, "eve@e.example"] {
        wait_for("its line", || {
            let text = said(&zmailer(&daemon, &["trace", known]));
            let good = text.contains("event=accepted") && text.contains("still here:");
            good.then_some(())
        });
    }
    let log = daemon.dir.path().join("log");
    fs::write(log.join("mail.9.log"), b"\xff\xfe\nid=\n=\n\"\n").unwrap();
    let text = said(&zmailer(&daemon, &["trace", "eve@e.example"]));
    assert!(
        text.contains("event=accepted") && text.contains("still here:"),
        "{text}"
    );
    for entry in fs::read_dir(&log).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let text = said(&zmailer(&daemon, &["trace", "eve@e.example"]));
    assert!(
        text.contains("<frank@f.example>") && !text.contains("event="),
        "{text}"
    );
    fs::remove_dir(log).unwrap();
    let text = said(&zmailer(&daemon, &["trace", "eve@e.example"]));
    assert!(text.contains("<frank@f.example>"), "{text}");
}
