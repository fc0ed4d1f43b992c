//! `sendmail`: from standard input to the next hop.

use std::fs;

use crate::harness::daemon::{Daemon, Setup, scratch_dir};
use crate::harness::hop::{Hop, Mail};
use crate::harness::sendmail::{said, sendmail};

fn text_of(mail: &Mail) -> String {
    String::from_utf8_lossy(&mail.content).into_owned()
}

fn names(dir: &str, daemon: &Daemon) -> Vec<String> {
    let dir = daemon.dir.path().join("postoffice").join(dir);
    let entries = fs::read_dir(dir).expect("a directory of the postoffice");
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn a_message_with_recipients_in_its_header() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let text = b"To: Bob <bob@b.example>\nBcc: eve@e.example\nSubject: s\n\n.dot\n\n.\nnot this\n";
    let output = sendmail(&daemon, &["-t", "-f", "ann@a.example"], text);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let mails = hop.wait_for_mails(1);
    assert_eq!(mails[0].sender, "ann@a.example");
    assert_eq!(mails[0].recipients, ["bob@b.example", "eve@e.example"]);
    let content = &text_of(&mails[0]);
    assert!(content.ends_with("\r\n\r\n.dot\r\n\r\n"), "{content}");
    assert!(
        !content.contains("Bcc") && !content.contains("eve"),
        "{content}"
    );
    for field in [
        "Received: from STDIN",
        "Date: ",
        "Message-Id: <",
        "From: ",
        "To: Bob",
    ] {
        let count = content
            .lines()
            .filter(|line| line.starts_with(field))
            .count();
        assert_eq!(count, 1, "{field} in {content}");
    }
    daemon.wait_until_empty();
    assert!(names("router", &daemon).is_empty() && names("public", &daemon).is_empty());
}

#[test]
fn command_lines_of_programs() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    // A lone dot is content with -i; no final newline; 8 bits; a From_ line; arguments behind --.
    let text = b"From me Mon Jan 1\nFrom: x@x.example\n\nh\xc3\xa9\n.\nend";
    let output = sendmail(
        &daemon,
        &["-oem", "-i", "-f", "<>", "--", "bob@b.example"],
        text,
    );
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let mail = &hop.wait_for_mails(1)[0];
    assert_eq!(mail.sender, "");
    let content = text_of(mail);
    assert!(
        content.ends_with("\r\n\r\nh\u{e9}\r\n.\r\nend\r\n"),
        "{content}"
    );
    assert!(!content.contains("From me"));
}

#[test]
fn a_message_for_a_daemon_that_is_down_is_delivered_when_it_is_up() {
    let hop = Hop::start();
    let mut daemon = Setup::relay_to(hop.address).start();
    daemon.stop();
    for number in 0..20 {
        let to = format!("u{number}@b.example");
        let output = sendmail(&daemon, &[&to], b"Subject: s\n\ntext\n");
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    assert_eq!(names("router", &daemon).len(), 20);
    daemon.restart();
    hop.wait_for_mails(20);
    daemon.wait_until_empty();
}

#[test]
fn what_cannot_be_submitted_is_refused_in_one_sentence() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let long_header = [b"X: ".to_vec(), vec![b'a'; 10 << 20], b"\n\n".to_vec()].concat();
    let cases: &[(&[&str], &[u8], i32, &str)] = &[
        (&[], b"Subject: s\n\ntext\n", 65, "no recipients"),
        (&["-t"], b"To: (nobody)\n\ntext\n", 65, "no recipients"),
        (&[","], b"text\n", 64, "no recipients"),
        (&["a@b.example"], &long_header, 65, "header is larger"),
        (&["-Z", "a@b.example"], b"", 64, "-Z"),
        (
            &["-f", "two words", "a@b.example"],
            b"",
            64,
            "-f takes one address",
        ),
    ];
    for (arguments, input, code, words) in cases {
        let output = sendmail(&daemon, arguments, input);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {text}");
        assert!(
            text.contains(words) && text.lines().count() == 1,
            "{arguments:?}: {text}"
        );
    }
    assert!(names("public", &daemon).is_empty() && names("router", &daemon).is_empty());
    assert!(hop.mails().is_empty());
}

#[test]
fn a_postoffice_that_is_not_there_or_not_ours() {
    let daemon = Setup::relay_to(([127, 0, 0, 1], 9).into()).prepare(scratch_dir());
    let output = sendmail(&daemon, &["a@b.example"], b"text\n");
    assert_eq!(output.status.code(), Some(69), "{}", said(&output));
    assert!(
        said(&output).contains("postoffice/public"),
        "{}",
        said(&output)
    );
}

#[test]
fn smtp_on_a_pipe() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let dialogue = b"EHLO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n\
        Subject: s\r\n\r\n..dot\r\n.\r\nQUIT\r\n";
    let output = sendmail(&daemon, &["-bs"], dialogue);
    assert!(said(&output).contains("\r\n221 "), "{}", said(&output));
    let mail = &hop.wait_for_mails(1)[0];
    assert_eq!(
        (mail.sender.as_str(), &mail.recipients[..]),
        ("a@x.example", &["b@y.example".to_owned()][..])
    );
    let content = text_of(mail);
    assert!(content.ends_with("\r\n\r\n.dot\r\n"), "{content}");
}
