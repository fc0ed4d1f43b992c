//! Permanent failures: the sender gets a report; without a sender the postmaster gets the message.

use crate::harness::client::Client;
use crate::harness::daemon::Setup;
use crate::harness::hop::Hop;
use crate::harness::wait_for;

const LETTER: &str = "Subject: original subject\r\n\r\nsecret body\r\n";

fn refuse_one(hop: &Hop) {
    hop.script
        .lock()
        .unwrap()
        .rcpt
        .push_back("550 5.1.1 no such user".to_owned());
}

#[test]
fn a_5xx_is_reported_to_the_sender() {
    let hop = Hop::start();
    refuse_one(&hop);
    let daemon = Setup::relay_to(hop.address).start();
    let id = Client::submit(daemon.address, "ann@a.example", &["bob@b.example"], LETTER);
    let report = hop.wait_for_mails(1).remove(0);
    assert_eq!(report.sender, "", "a report has the null sender");
    assert_eq!(report.recipients, ["ann@a.example"]);
    let text = String::from_utf8_lossy(&report.content).into_owned();
    for part in [
        "multipart/report",
        "message/delivery-status",
        "Final-Recipient: rfc822;",
        "bob@b.example",
        "Action: failed",
        "Status: 5.1.1",
        "no such user",
        "Subject: original subject",
        "Auto-Submitted: auto-replied",
        &id,
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    daemon.wait_until_empty();
}

#[test]
fn a_failed_report_goes_to_the_postmaster() {
    let hop = Hop::start();
    refuse_one(&hop);
    let daemon = Setup::relay_to(hop.address).start();
    let id = Client::submit(daemon.address, "", &["bob@b.example"], LETTER);
    let folder = daemon.dir.path().join("postoffice/postman");
    let file = wait_for("a file in postman/", || {
        let entry = std::fs::read_dir(&folder).ok()?.flatten().next()?;
        std::fs::read_to_string(entry.path())
            .ok()
            .filter(|text| !text.is_empty())
    });
    assert!(
        file.contains("secret body") && file.contains("bob@b.example"),
        "{file}"
    );
    assert!(
        file.contains(&id) || file.contains("no such user"),
        "{file}"
    );
    daemon.wait_until_empty();
    assert!(hop.mails().is_empty(), "no report about a report");
}

#[test]
fn notify_never_gets_no_report() {
    let hop = Hop::start();
    refuse_one(&hop);
    let daemon = Setup::relay_to(hop.address).start();
    let mut client = Client::connect(daemon.address);
    client.hello();
    client.expect("MAIL FROM:<ann@a.example>", "250");
    client.expect("RCPT TO:<bob@b.example> NOTIFY=NEVER", "250");
    client.expect("DATA", "354");
    client.send(LETTER.as_bytes());
    client.expect(".", "250");
    daemon.wait_until_empty();
    assert!(hop.mails().is_empty());
}

#[test]
fn expired_mail_is_reported() {
    let hop = Hop::start();
    hop.script
        .lock()
        .unwrap()
        .rcpt
        .extend(vec!["450 4.2.1 not now".to_owned(); 4]);
    let mut setup = Setup::relay_to(hop.address);
    setup.tail =
        "[[scheduler.rule]]\nmatch = \"smtp/*\"\nretry = [\"1s\"]\nexpiry = \"2s\"\n".to_owned();
    let daemon = setup.start();
    Client::submit(daemon.address, "ann@a.example", &["bob@b.example"], LETTER);
    let report = wait_for("the report", || {
        hop.mails()
            .into_iter()
            .find(|mail| mail.recipients == ["ann@a.example"])
    });
    let text = String::from_utf8_lossy(&report.content).into_owned();
    assert!(text.contains("4.4.7") && text.contains("not now"), "{text}");
    daemon.wait_until_empty();
}
