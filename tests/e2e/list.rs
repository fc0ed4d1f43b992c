//! Messages with many recipients: one body, shared transactions, a fate for each recipient.

use std::collections::BTreeSet;

use crate::harness::client::Client;
use crate::harness::daemon::{Setup, free_address};
use crate::harness::hop::{Hop, Mail};
use crate::harness::wait_for;

const QUICK: &str = "[[scheduler.rule]]\nmatch = \"smtp/*\"\nretry = [\"1s\"]\n";

/// Offers one message to `count` recipients.
fn submit(address: std::net::SocketAddr, count: usize, letter: &str) {
    let to: Vec<String> = (0..count)
        .map(|number| format!("r{number}@b.example"))
        .collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    Client::submit(address, "list@a.example", &to, letter);
}

fn recipients(mails: &[Mail]) -> Vec<String> {
    mails
        .iter()
        .flat_map(|mail| mail.recipients.clone())
        .collect()
}

#[test]
fn a_thousand_recipients_share_one_body_and_transactions_up_to_the_limit() {
    const RECIPIENTS: usize = 1_000;
    let address = free_address();
    let mut setup = Setup::relay_to(address);
    setup.tail = format!("{QUICK}[transport.smtp]\nrecipients_max = 250\n");
    let daemon = setup.start();
    let letter = format!("Subject: list\r\n\r\n{}", "text\r\n".repeat(10_000));
    submit(daemon.address, RECIPIENTS, &letter);
    let live = wait_for("the message in the counters", || {
        daemon.status()["spool"]["live_bytes"]
            .as_u64()
            .filter(|live| *live > 0)
    });
    let most = letter.len() * 3 / 2 + 100 * RECIPIENTS;
    assert!(live <= most as u64, "{live} bytes");

    let hop = Hop::start_on(address);
    hop.script.lock().unwrap().extensions = vec!["PIPELINING"];
    hop.wait_for_mails(4);
    daemon.wait_until_empty();
    let mails = hop.mails();
    assert_eq!(mails.len(), 4, "four transactions");
    assert!(mails.iter().all(|mail| mail.recipients.len() == 250));
    let all: BTreeSet<String> = recipients(&mails).into_iter().collect();
    assert_eq!(all.len(), RECIPIENTS);
}

#[test]
fn each_recipient_of_a_list_has_its_own_fate() {
    let hop = Hop::start();
    {
        let mut script = hop.script.lock().unwrap();
        for number in 0..100 {
            script.rcpt.push_back(match number % 10 {
                3 => "550 5.1.1 nobody".to_owned(),
                7 => "450 4.2.1 not now".to_owned(),
                _ => "250 ok".to_owned(),
            });
        }
    }
    let mut setup = Setup::relay_to(hop.address).shards(1);
    setup.tail = QUICK.to_owned();
    let daemon = setup.start();
    submit(daemon.address, 100, "Subject: list\r\n\r\ntext\r\n");
    // The first transaction, the report on ten, and the ten that were deferred.
    let mails = hop.wait_for_mails(3);
    daemon.wait_until_empty();
    let report = mails.iter().find(|mail| mail.sender.is_empty()).unwrap();
    let text = String::from_utf8_lossy(&report.content).into_owned();
    assert_eq!(
        text.matches("Final-Recipient: rfc822;").count(),
        10,
        "{text}"
    );
    let to: Vec<String> = mails
        .iter()
        .filter(|mail| !mail.sender.is_empty())
        .flat_map(|mail| mail.recipients.clone())
        .collect();
    assert_eq!(to.len(), 90, "each once");
    assert!(
        to.iter()
            .all(|address| !text.contains(&format!("rfc822;{address}\r\n")))
    );
}

/// The fate of each is kept over a restart in the middle.
#[test]
fn a_restart_repeats_nobody_of_a_list() {
    let address = free_address();
    let mut setup = Setup::relay_to(address).shards(1);
    setup.tail = "[[scheduler.rule]]\nmatch = \"smtp/*\"\nretry = [\"2s\"]\n[transport.smtp]\nrecipients_max = 50\n".to_owned();
    let mut daemon = setup.start();
    let hop = Hop::start_on(address);
    {
        // Every second recipient of the first two transactions has to wait.
        let mut script = hop.script.lock().unwrap();
        for number in 0..100 {
            let reply = if number % 2 == 0 {
                "250 ok"
            } else {
                "450 4.2.1 not now"
            };
            script.rcpt.push_back(reply.to_owned());
        }
    }
    submit(daemon.address, 100, "Subject: list\r\n\r\ntext\r\n");
    hop.wait_for_mails(2);
    wait_for("the log", || {
        (daemon.mail_log().matches("deferred").count() >= 50).then_some(())
    });
    assert_eq!(daemon.stop(), Some(0));
    daemon.restart();
    daemon.wait_until_empty();
    let mut all = recipients(&hop.mails());
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!((count, all.len()), (100, 100), "each once");
}
