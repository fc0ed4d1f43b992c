//! Messages that wait rest in the index: they are seen, acted upon and delivered as if they did not.

use std::collections::BTreeSet;

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, Setup, free_address};
use crate::harness::hop::Hop;
use crate::harness::sendmail::{said, zmailer};
use crate::harness::wait_for;

const HOUR: &str = "[[scheduler.rule]]\nmatch = \"*\"\nretry = [\"1h\"]\n";

fn queue(daemon: &Daemon, key: &str) -> u64 {
    daemon.status()["queue"][key].as_u64().expect("a number")
}

fn channel(daemon: &Daemon, name: &str) -> u64 {
    let count = &daemon.status()["queue"]["by_channel"][name];
    count.as_u64().expect("a number")
}

fn wait_for_resting(daemon: &Daemon, count: u64) {
    wait_for("all to rest", || {
        (queue(daemon, "resting") == count).then_some(())
    });
}

fn submit(daemon: &Daemon, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers
        .map(|number| {
            let to = format!("u{number}@b.example");
            let letter = format!("Subject: {number}\r\n\r\ntext {number}\r\n");
            Client::submit(daemon.address, "ann@a.example", &[&to], &letter)
        })
        .collect()
}

fn count(daemon: &Daemon, filter: &str) -> String {
    said(&zmailer(daemon, &["queue", "count", "--where", filter]))
}

fn act(daemon: &Daemon, verb: &str, filter: &str) -> String {
    let output = zmailer(daemon, &["queue", verb, "--where", filter]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    said(&output)
}

/// Every mail that came has its own text, and each recipient got one.
fn assert_each_once(hop: &Hop, count: usize) {
    let mails = hop.mails();
    let recipients: BTreeSet<String> = mails
        .iter()
        .flat_map(|mail| mail.recipients.clone())
        .collect();
    assert_eq!((mails.len(), recipients.len()), (count, count));
    for mail in &mails {
        let number = mail.recipients[0].trim_start_matches('u');
        let number = number.split('@').next().unwrap_or_default();
        let text = format!("text {number}\r\n");
        let content = String::from_utf8_lossy(&mail.content).into_owned();
        assert!(content.ends_with(&text), "{number}: {content}");
    }
}

#[test]
fn what_rests_is_seen_and_acted_upon() {
    let address = free_address();
    let mut setup = Setup::relay_to(address).shards(2);
    setup.tail = HOUR.to_owned();
    let mut daemon = setup.start();
    let ids = submit(&daemon, 0..100);
    wait_for_resting(&daemon, 100);
    assert!(count(&daemon, "state = deferred").starts_with("100 recipients of 100 messages"));
    assert!(count(&daemon, "recipient ~ \"u1?@*\"").starts_with("10 recipients"));
    assert!(count(&daemon, "attempts > 5").starts_with("0 "));
    let life = said(&zmailer(&daemon, &["trace", &ids[42]]));
    assert!(
        life.contains("still here") && life.contains("u42@b.example"),
        "{life}"
    );
    let held = act(
        &daemon,
        "hold",
        "recipient = u5@b.example or recipient = u6@b.example",
    );
    assert!(
        held.starts_with("hold: 2 of 2 recipients of 2 messages"),
        "{held}"
    );
    let gone = act(&daemon, "delete", "recipient = u7@b.example");
    assert!(
        gone.starts_with("delete: 1 of 1 recipients of 1 messages"),
        "{gone}"
    );
    wait_for_resting(&daemon, 99);
    assert!(count(&daemon, "state = held").starts_with("2 recipients"));
    assert_eq!(channel(&daemon, "hold"), 2);
    assert_eq!(channel(&daemon, "smtp"), 97);
    daemon.stop();
    daemon.restart();
    wait_for_resting(&daemon, 99);
    assert_eq!(
        (channel(&daemon, "hold"), channel(&daemon, "smtp")),
        (2, 97)
    );
    let hop = Hop::start_on(address);
    act(&daemon, "retry", "not state = held");
    hop.wait_for_mails(97);
    let freed = act(&daemon, "release", "state = held");
    assert!(freed.starts_with("release: 2 of 2 recipients"), "{freed}");
    hop.wait_for_mails(99);
    daemon.wait_until_empty();
    assert_each_once(&hop, 99);
}

/// Deferred by answers, not by a lost connection; what waits for its time goes when it has come, also
/// when the daemon was killed meanwhile.
#[test]
fn what_rests_goes_when_its_time_has_come() {
    let hop = Hop::start();
    let not_now = vec!["450 4.2.1 not now".to_owned(); 200];
    hop.script.lock().unwrap().rcpt.extend(not_now);
    let mut setup = Setup::relay_to(hop.address).shards(2);
    setup.tail = HOUR.replace("1h", "4s");
    let mut daemon = setup.start();
    submit(&daemon, 0..200);
    wait_for("some to rest", || {
        (queue(&daemon, "resting") > 0).then_some(())
    });
    daemon.kill();
    daemon.restart();
    wait_for("all to be tried again", || {
        (hop.mails().len() >= 200).then_some(())
    });
    daemon.wait_until_empty();
    let recipients: BTreeSet<String> = hop
        .mails()
        .iter()
        .flat_map(|mail| mail.recipients.clone())
        .collect();
    assert_eq!(recipients.len(), 200);
}

/// A next hop that is down for longer than mail is kept: what rests is woken to be returned.
#[test]
fn what_rests_is_given_up_in_the_end() {
    let mut setup = Setup::relay_to(free_address());
    setup.tail =
        "[[scheduler.rule]]\nmatch = \"*\"\nretry = [\"1s\"]\nexpiry = \"3s\"\n".to_owned();
    let daemon = setup.start();
    let id = Client::submit(
        daemon.address,
        "",
        &["bob@b.example"],
        "Subject: x\r\n\r\nx\r\n",
    );
    wait_for("the end", || {
        let log = daemon.mail_log();
        let mut lines = log.lines();
        lines
            .any(|line| line.contains(&id) && line.contains("expired"))
            .then_some(())
    });
    daemon.wait_until_empty();
}
