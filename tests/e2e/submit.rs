//! `sendmail` and the pick-up of `router/`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::daemon::{Daemon, Setup, scratch_dir};
use crate::harness::hop::{Hop, Mail};
use crate::harness::sendmail::{said, sendmail};
use crate::harness::wait_for;

fn router(daemon: &Daemon) -> PathBuf {
    daemon.dir.path().join("postoffice/router")
}

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

#[test]
fn hostile_files_go_to_postman_and_harm_nobody() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let (router, secret) = (router(&daemon), daemon.dir.path().join("secret"));
    fs::write(&secret, "to <thief@x.example>\nenv-end\n\nsecret\n").unwrap();
    symlink(&secret, router.join("1")).unwrap();
    fs::hard_link(&secret, router.join("2")).unwrap();
    fs::create_dir(router.join("dir")).unwrap();
    let made = Command::new("mkfifo").arg(router.join("fifo")).status();
    assert!(made.unwrap().success());
    fs::write(router.join("3"), "from <a@x.example>\nfrm <b@x>\nenv-end\n").unwrap();
    fs::write(router.join("4"), "from <a@x.example>\nto <b@").unwrap();
    fs::write(
        router.join("5"),
        "from <a@x.example>\nenv-end\nSubject: nobody\n\n",
    )
    .unwrap();
    fs::write(
        router.join("6"),
        "to <good@x.example>\nenv-end\nSubject: s\n\ntext\n",
    )
    .unwrap();
    // Not seen: a name that begins with a dot is being written.
    fs::write(
        router.join(".7"),
        "to <hidden@x.example>\nenv-end\n\ntext\n",
    )
    .unwrap();
    let found = wait_for("seven odd files", || {
        let mut found = names("postman", &daemon);
        found.sort();
        (found.len() == 7).then_some(found)
    });
    assert_eq!(
        found,
        [
            "rtr.1.notafile",
            "rtr.2.linked",
            "rtr.3.badenvelope",
            "rtr.4.badenvelope",
            "rtr.5.badenvelope",
            "rtr.dir.notafile",
            "rtr.fifo.notafile"
        ]
    );
    assert_eq!(hop.wait_for_mails(1)[0].recipients, ["good@x.example"]);
    daemon.wait_until_empty();
    assert_eq!(hop.mails().len(), 1);
    assert!(secret.exists());
    assert!(
        daemon.stderr().contains("frm"),
        "the reason is told: {}",
        daemon.stderr()
    );
}

/// A file that was committed and not yet removed when the power failed must not become a second
/// message. The crash is a kill -9 with the files put back, which is what an unsynced removal is.
#[test]
fn a_file_that_was_taken_before_a_crash_is_only_removed() {
    let mut daemon = Setup::relay_to(([127, 0, 0, 1], 9).into()).start();
    daemon.stop();
    let kept = daemon.dir.path().join("kept");
    fs::create_dir(&kept).unwrap();
    for number in 0..10 {
        sendmail(
            &daemon,
            &[&format!("u{number}@b.example")],
            b"Subject: s\n\ntext\n",
        );
    }
    let files: Vec<String> = names("router", &daemon);
    assert_eq!(files.len(), 10);
    // A directory in which nothing can be removed: what a cut before the removal leaves behind.
    let _mount = match crate::harness::mount::read_only(&router(&daemon)) {
        Some(mount) => mount,
        None => return crate::harness::skip("a read-only mount needs root"),
    };
    daemon.restart();
    wait_for("ten messages", || {
        (daemon.status()["queue"]["messages"] == 10).then_some(())
    });
    daemon.kill();
    drop(_mount);
    daemon.restart();
    wait_for("an empty router/", || {
        names("router", &daemon).is_empty().then_some(())
    });
    assert_eq!(daemon.status()["queue"]["messages"], 10);
    daemon.stop();
}
