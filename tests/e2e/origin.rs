//! Who brought a message: what is done to its header, who is told, and what the administrator gets to see.

use std::fs;
use std::path::PathBuf;

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, Setup, free_address, scratch_dir};
use crate::harness::hop::{Hop, Mail};
use crate::harness::person;
use crate::harness::sendmail::{said, sendmail, sendmail_by, zmailer};
use crate::harness::wait_for;

const OFTEN: &str = "[[scheduler.rule]]\nmatch = \"*\"\nretry = [\"1s\"]\n";

fn text_of(mail: &Mail) -> String {
    String::from_utf8_lossy(&mail.content).into_owned()
}

/// How often a field stands in the header.
fn count(text: &str, field: &str) -> usize {
    let end = text.find("\r\n\r\n").unwrap_or(text.len());
    let lines = text[..end].lines();
    let field = field.to_ascii_lowercase();
    lines
        .filter(|line| line.to_ascii_lowercase().starts_with(&field))
        .count()
}

/// A daemon that routes by this script.
fn with_script(hop: std::net::SocketAddr, script: &str) -> Daemon {
    let dir = scratch_dir();
    let script = script
        .replace("HOP", &hop.to_string())
        .replace("DIR", &dir.path().display().to_string());
    fs::write(dir.path().join("router.cf"), script).unwrap();
    let mut setup = Setup::relay_to(hop).with("router", "config = \"router.cf\"");
    setup.tail = OFTEN.to_owned();
    let mut daemon = setup.prepare(dir);
    daemon.restart();
    daemon
}

fn postman(daemon: &Daemon) -> Vec<PathBuf> {
    let folder = daemon.dir.path().join("postoffice/postman");
    let entries = fs::read_dir(folder).expect("a directory of the postoffice");
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| {
        !path
            .file_name()
            .unwrap()
            .as_encoded_bytes()
            .starts_with(b".")
    });
    found.sort();
    found
}

const TO_ALL: &str = "router (address, attributes) {\n\
    \treturns (((smtp \"HOP\" \"$address\" $attributes)))\n}\n";

#[test]
fn a_user_does_not_pass_for_somebody_else() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    if person::as_nobody(&daemon).is_none() {
        return;
    }
    let send = |text: &str, number: usize| {
        let nobody = person::as_nobody(&daemon).expect("as before");
        let output = sendmail_by(nobody, &daemon, &["bob@b.example"], text.as_bytes());
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        text_of(&hop.wait_for_mails(number)[number - 1])
    };
    let mine = send("From: nobody\nSubject: s\n\nx\n", 1);
    assert_eq!(count(&mine, "Sender:"), 0, "{mine}");
    let other = send("From: boss@a.example\nSubject: s\n\nx\n", 2);
    assert_eq!(count(&other, "Sender:"), 1, "{other}");
    assert!(other.contains("nobody@mx.test.example>\r\n"), "{other}");
    assert!(other.contains("From: boss@a.example\r\n"), "{other}");
    let forged = send("From: boss@a.example\nSender: boss@a.example\n\nx\n", 3);
    assert!(
        forged.contains("\r\nFake-Sender: boss@a.example\r\n"),
        "{forged}"
    );
    assert_eq!(count(&forged, "Sender:"), 1, "{forged}");
    let resent = send("Resent-From: boss@a.example\nFrom: x@y.example\n\nx\n", 4);
    assert_eq!(count(&resent, "Resent-Sender:"), 1, "{resent}");
    assert_eq!(count(&resent, "Resent-Message-Id:"), 1, "{resent}");
    assert_eq!(count(&resent, "Message-Id:"), 0, "{resent}");
}

#[test]
fn the_word_of_users_whom_the_administrator_trusts_is_taken() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address)
        .with("router", "trusted_users = [\"nobody\"]")
        .start();
    let Some(nobody) = person::as_nobody(&daemon) else {
        return;
    };
    let text = b"From: boss@a.example\nSender: boss@a.example\n\nx\n";
    let output = sendmail_by(nobody, &daemon, &["bob@b.example"], text);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = text_of(&hop.wait_for_mails(1)[0]);
    assert!(text.contains("\r\nSender: boss@a.example\r\n"), "{text}");
    assert_eq!(count(&text, "Fake-Sender:"), 0, "{text}");
}

/// The header of large content is looked at whole: what stands behind its first 128 KiB was added again, and Bcc
/// there would have gone out.
#[test]
fn a_large_message_with_a_long_header_is_completed_once() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let list: Vec<String> = (0..7000).map(|n| format!("user{n}@b.example")).collect();
    let body = "0123456789abcdef\n".repeat(40_000);
    let text = format!(
        "To: {}\nBcc: secret@e.example\nMessage-Id: <mine@a.example>\nFrom: a@a.example\n\n{body}",
        list.join(",\n ")
    );
    let output = sendmail(
        &daemon,
        &["-f", "a@a.example", "bob@b.example"],
        text.as_bytes(),
    );
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = text_of(&hop.wait_for_mails(1)[0]);
    for (field, expected) in [
        ("To:", 1),
        ("Message-Id:", 1),
        ("From:", 1),
        ("Date:", 1),
        ("Received:", 1),
        ("Bcc:", 0),
    ] {
        assert_eq!(count(&text, field), expected, "{field}");
    }
    let expected = body.replace('\n', "\r\n");
    assert!(text.ends_with(&format!("\r\n\r\n{expected}")));
    daemon.wait_until_empty();
}

/// RFC 6409 8: only where the administrator says that clients submit.
#[test]
fn what_clients_submit_is_completed_and_what_they_relay_is_not() {
    let hop = Hop::start();
    let (relay, submit) = (free_address(), free_address());
    let mut setup = Setup::relay_to(hop.address);
    setup.address = relay;
    setup.tail = format!(
        "[[smtpserver.service]]\nlisten = [\"{relay}\"]\n\
         [[smtpserver.service]]\nlisten = [\"{submit}\"]\nsubmission = true\n"
    );
    let daemon = setup.start();
    let letter = "Subject: s\r\nBcc: eve@e.example\r\n\r\nx\r\n";
    Client::submit(relay, "ann@a.example", &["bob@b.example"], letter);
    let passed = text_of(&hop.wait_for_mails(1)[0]);
    assert!(passed.ends_with(&format!("\r\n{letter}")), "{passed}");
    Client::submit(submit, "ann@a.example", &["bob@b.example"], letter);
    let text = text_of(&hop.wait_for_mails(2)[1]);
    assert!(text.contains("\r\nFrom: <ann@a.example>\r\n"), "{text}");
    for (field, expected) in [("Message-Id:", 1), ("Date:", 1), ("To:", 1), ("Bcc:", 0)] {
        assert_eq!(count(&text, field), expected, "{field} in {text}");
    }
    daemon.wait_until_empty();
}

/// A trusted owner hands on what others have written: nothing is added but the trace.
#[test]
fn a_file_that_came_from_elsewhere_passes_as_it_is() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let postoffice = daemon.dir.path().join("postoffice");
    fs::write(
        postoffice.join("public/1"),
        "external\nfrom <a@a.example>\nto <b@b.example>\nenv-end\nSubject: s\nBcc: c@c.example\n\nx\n",
    )
    .unwrap();
    fs::rename(postoffice.join("public/1"), postoffice.join("router/1")).unwrap();
    let text = text_of(&hop.wait_for_mails(1)[0]);
    let (trace, rest) = text.split_at(text.find("Subject:").unwrap());
    assert!(
        trace.starts_with("Received: ") && trace.matches("\r\n").count() == 3,
        "{text}"
    );
    assert_eq!(rest, "Subject: s\r\nBcc: c@c.example\r\n\r\nx\r\n");
}

/// What was lost: who had brought a message was known to the pick-up only. Here it is routed by another run of the
/// daemon than that which picked it up.
#[test]
fn a_start_knows_who_brought_what_waits() {
    let hop = Hop::start();
    let script = "router (address, attributes) {\n\
        \t[ -f DIR/go ] || returns (((hold notyet \"$address\" $attributes)))\n\
        \treturns (((smtp \"HOP\" \"$address\" $attributes)))\n}\n";
    let mut daemon = with_script(hop.address, script);
    let Some(nobody) = person::as_nobody(&daemon) else {
        return;
    };
    let output = sendmail_by(
        nobody,
        &daemon,
        &["bob@b.example"],
        b"From: boss@a.example\nBcc: eve@e.example\nSubject: s\n\nx\n",
    );
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    wait_for("its being on hold", || {
        let output = zmailer(&daemon, &["queue", "list"]);
        said(&output).contains("notyet").then_some(())
    });
    daemon.kill();
    fs::write(daemon.dir.path().join("go"), "").unwrap();
    daemon.restart();
    let text = text_of(&hop.wait_for_mails(1)[0]);
    assert_eq!(count(&text, "Sender:"), 1, "{text}");
    assert_eq!(count(&text, "Message-Id:"), 1, "{text}");
    assert_eq!(count(&text, "Bcc:"), 0, "{text}");
    daemon.wait_until_empty();
}

/// `ERR`: reports go where the script says, and a report is never reported about.
#[test]
fn reports_go_to_whom_the_script_names() {
    let hop = Hop::start();
    let script = "router (address, attributes) {\n\
        \tlreplace $attributes ERR owner@lists.example\n\
        \treturns (((smtp \"HOP\" \"$address\" $attributes)))\n}\n";
    let daemon = with_script(hop.address, script);
    let refuse = || {
        let no = "550 5.1.1 no such user".to_owned();
        hop.script.lock().unwrap().rcpt.push_back(no);
    };
    refuse();
    let letter = "Subject: s\r\n\r\nx\r\n";
    Client::submit(daemon.address, "ann@a.example", &["bob@b.example"], letter);
    let report = &hop.wait_for_mails(1)[0];
    assert_eq!(
        (report.sender.as_str(), &report.recipients[..]),
        ("", &["owner@lists.example".to_owned()][..])
    );
    daemon.wait_until_empty();
    // From nobody: whatever the script names, nobody is told, and it is kept.
    refuse();
    Client::submit(daemon.address, "", &["bob@b.example"], letter);
    wait_for("a file in postman/", || {
        (postman(&daemon).len() == 1).then_some(())
    });
    daemon.wait_until_empty();
    assert_eq!(hop.mails().len(), 1);
}

/// The owner of a list learns of a failure, and not who else had a copy.
#[test]
fn a_report_returns_what_the_recipients_would_have_got() {
    let hop = Hop::start();
    hop.script
        .lock()
        .unwrap()
        .rcpt
        .push_back("550 5.1.1 no".to_owned());
    let script = "router (address, attributes) {\n\
        \tlreplace $attributes ERR owner@lists.example\n\
        \treturns (((smtp \"HOP\" \"$address\" $attributes)))\n}\n";
    let daemon = with_script(hop.address, script);
    let text = b"From: ann@a.example\nBcc: secret@e.example\nSubject: s\n\nx\n";
    let output = sendmail(&daemon, &["-f", "ann@a.example", "bob@b.example"], text);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let report = text_of(&hop.wait_for_mails(1)[0]);
    assert!(
        report.contains("Subject: s") && report.contains("\r\nMessage-Id: "),
        "{report}"
    );
    assert!(!report.contains("secret"), "{report}");
}

#[test]
fn broken_headers_are_kept_and_written_down_where_the_script_says() {
    let hop = Hop::start();
    let script = format!("squirrel badheader\nerraddron DIR/bad-addresses\n{TO_ALL}");
    let daemon = with_script(hop.address, &script);
    let text = b"From: ann@a.example\nTo: <<a b>>\nDate: yesterday\n\ntext\n";
    for _ in 0..2 {
        let output = sendmail(&daemon, &["bob@b.example"], text);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    // It goes on its way all the same.
    hop.wait_for_mails(2);
    let copies = wait_for("two copies", || {
        let found = postman(&daemon);
        (found.len() == 2).then_some(found)
    });
    for copy in copies {
        assert!(
            copy.display().to_string().ends_with("._badheader"),
            "{copy:?}"
        );
        let text = fs::read_to_string(copy).unwrap();
        assert!(text.contains("Date: yesterday\n"), "{text}");
        assert!(text.contains("to <bob@b.example>\n"), "{text}");
    }
    let lines = wait_for("two lines", || {
        let text = fs::read_to_string(daemon.dir.path().join("bad-addresses")).ok()?;
        (text.lines().count() >= 2).then_some(text)
    });
    assert!(lines.contains(" <a b\n"), "{lines}");
    // Of relayed mail nobody looks at the header: who it says it is from may be anybody.
    let letter = "Date: yesterday\r\n\r\nx\r\n";
    Client::submit(daemon.address, "a@a.example", &["bob@b.example"], letter);
    assert_eq!(hop.wait_for_mails(3).len(), 3, "nobody is sent a complaint");
    daemon.wait_until_empty();
    assert_eq!(postman(&daemon).len(), 2);
}

/// A site's own `process` decides which messages are processed.
#[test]
fn a_script_may_take_messages_one_by_one() {
    let hop = Hop::start();
    let script = "process (file) {\n\
         \tcase \"$file\" in\n\
         \t[0-9]*)\t[ -f DIR/go ] || return 3\n\
         \t\tTAKEN=\"$file\"\n\
         \t\trfc822 \"$file\" ;;\n\
         \tesac\n\
         \treturn 0\n}\n\
         router (address, attributes) {\n\
         \treturns (((smtp \"HOP\" \"$TAKEN.$address\" $attributes)))\n}\n";
    let daemon = with_script(hop.address, script);
    let id = Client::submit(
        daemon.address,
        "a@a.example",
        &["bob@b.example"],
        "Subject: s\r\n\r\nx\r\n",
    );
    wait_for("its being on hold", || {
        let output = zmailer(&daemon, &["queue", "list"]);
        let text = said(&output);
        text.contains("status 3 and has not called rfc822")
            .then_some(())
    });
    assert!(hop.mails().is_empty());
    fs::write(daemon.dir.path().join("go"), "").unwrap();
    // What it has set, the other functions see.
    let mail = &hop.wait_for_mails(1)[0];
    assert_eq!(mail.recipients, [format!("{id}.bob@b.example")]);
    daemon.wait_until_empty();
}
