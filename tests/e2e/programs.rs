//! Programs of other people that send by us, with the argument lists they really use.

use std::fs;
use std::process::Command;

use crate::harness::daemon::{Daemon, Setup};
use crate::harness::hop::{Hop, Mail};
use crate::harness::sendmail::{program, said, sendmail};
use crate::harness::{installed, skip};

fn pair() -> (Hop, Daemon) {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    (hop, daemon)
}

fn text(mail: &Mail) -> String {
    String::from_utf8_lossy(&mail.content).into_owned()
}

/// Who calls, with which arguments, what it writes; sender, recipients, and what the content holds.
type Row = (
    &'static str,
    &'static [&'static str],
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const ROOT: &str = "root@mx.test.example";

const PROGRAMS: &[Row] = &[
    (
        "cron of Debian",
        &["-i", "-FCronDaemon", "-B8BITMIME", "-oem", "root"],
        "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@host> ls\nMIME-Version: 1.0\n\
         Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n\
         X-Cron-Env: <SHELL=/bin/sh>\n\n.\n\u{fc}ber\n",
        ROOT,
        &[ROOT],
        &["From: root (Cron Daemon)\r\n", "\r\n\r\n.\r\n\u{fc}ber\r\n"],
    ),
    (
        "cronie",
        &[
            "-FCronDaemon",
            "-i",
            "-odi",
            "-oem",
            "-oi",
            "-t",
            "-f",
            "root",
        ],
        "From: \"(Cron Daemon)\" <root>\nTo: root\nSubject: Cron <root@host> ls\n\noutput\n",
        ROOT,
        &[ROOT],
        &["From: \"(Cron Daemon)\" <root>\r\n"],
    ),
    (
        "at",
        &["-i", "root"],
        "Subject: Output from your job        7\nTo: root\n\noutput\n",
        ROOT,
        &[ROOT],
        &["From: ", "Subject: Output from your job        7\r\n"],
    ),
    (
        "mutt",
        &[
            "-oem",
            "-oi",
            "-f",
            "me@a.example",
            "--",
            "bob@b.example",
            "eve@e.example",
        ],
        "Date: Thu, 26 Nov 2026 10:00:00 +0000\nFrom: Me <me@a.example>\nTo: bob@b.example\n\
         Cc: eve@e.example\nMessage-ID: <1@a.example>\nSubject: s\n\ntext\n.\nmore\n",
        "me@a.example",
        &["bob@b.example", "eve@e.example"],
        &["Message-ID: <1@a.example>\r\n", "\r\n.\r\nmore\r\n"],
    ),
    (
        "PHP mail()",
        &["-t", "-i"],
        "To: bob@b.example\r\nSubject: s\r\nX-PHP-Originating-Script: 0:x.php\r\n\
         From: www@a.example\r\nBcc: eve@e.example\r\n\r\ntext\r\n",
        ROOT,
        &["bob@b.example", "eve@e.example"],
        &["From: www@a.example\r\n", "\r\n\r\ntext\r\n"],
    ),
    (
        "PHP mail() with a fifth argument",
        &["-t", "-i", "-fbounce@a.example"],
        "To: bob@b.example\nSubject: s\n\ntext\n",
        "bounce@a.example",
        &["bob@b.example"],
        &["From: "],
    ),
    (
        "Python's and Perl's modules, sudo, mdadm, logwatch",
        &["-t", "-oi", "-oem"],
        "To: root, bob@b.example\nFrom: root\nAuto-Submitted: auto-generated\nSubject: s\n\ntext\n",
        ROOT,
        &[ROOT, "bob@b.example"],
        &["Auto-Submitted: auto-generated\r\n"],
    ),
    (
        "reportbug",
        &["-f", "me@a.example", "-oi", "-oem", "-t"],
        "To: submit@b.example\nX-Debbugs-Cc: eve@e.example\nFrom: me@a.example\nSubject: s\n\ntext\n",
        "me@a.example",
        &["submit@b.example"],
        &["X-Debbugs-Cc: eve@e.example\r\n"],
    ),
    (
        "procmail, forwarding",
        &["-oi", "-f", "<>", "eve@e.example"],
        "From ann@a.example  Thu Nov 26 10:00:00 2026\nReceived: from x by y\nFrom: ann@a.example\n\
         To: bob@b.example\nSubject: s\n\ntext\n",
        "",
        &["eve@e.example"],
        &["To: bob@b.example\r\n", "Received: from x by y\r\n"],
    ),
    (
        "smartmontools and others by mail(1)",
        &["-i", "-odb", "-om", "--", "bob@b.example"],
        "To: bob@b.example\nSubject: s\nMIME-Version: 1.0\n\ntext\n",
        ROOT,
        &["bob@b.example"],
        &["\r\n\r\ntext\r\n"],
    ),
];

#[test]
fn argument_lists_of_programs() {
    let (hop, daemon) = pair();
    let own = Command::new("id").arg("-un").output().unwrap().stdout;
    if own != b"root\n" {
        return skip("the names of the senders here are root's");
    }
    for (number, (name, arguments, input, sender, recipients, parts)) in PROGRAMS.iter().enumerate()
    {
        let output = sendmail(&daemon, arguments, input.as_bytes());
        assert_eq!(output.status.code(), Some(0), "{name}: {}", said(&output));
        assert!(said(&output).is_empty(), "{name}: {}", said(&output));
        let mail = &hop.wait_for_mails(number + 1)[number];
        assert_eq!(
            (mail.sender.as_str(), &mail.recipients[..]),
            (
                *sender,
                &recipients[..]
                    .iter()
                    .map(|to| (*to).to_owned())
                    .collect::<Vec<_>>()[..]
            ),
            "{name}"
        );
        let content = text(mail);
        let names = ["From: ", "To: ", "Date: ", "Message-Id: "];
        let lower = content.to_lowercase();
        for part in names {
            let count = lower
                .matches(&format!("\r\n{}", part.to_lowercase()))
                .count();
            assert_eq!(count, 1, "{name}: {part} in {content}");
        }
        for part in *parts {
            assert!(content.contains(part), "{name}: {part:?} in {content}");
        }
        assert!(!content.contains("Bcc:"), "{name}: {content}");
    }
}

const SMTPLIB: &str = r#"
import smtplib, sys
from email.message import EmailMessage
with smtplib.SMTP(sys.argv[1], int(sys.argv[2])) as smtp:
    message = EmailMessage()
    message["From"] = "ann@a.example"
    message["To"] = "bob@b.example, Eve <eve@e.example>"
    message["Bcc"] = "secret@s.example"
    message["Subject"] = "J\u00f6rg"
    message.set_content("text\n.\n..\n\u00fcber\n")
    assert smtp.send_message(message) == {}
    message.replace_header("To", "j\u00f6rg@b.example")
    del message["Bcc"]
    assert smtp.send_message(message) == {}
    refused = smtp.sendmail("ann@a.example", ["bad address", "bob@b.example"], "Subject: s\n\nx")
    assert refused["bad address"][0] in (501, 550, 553), refused
    try:
        smtp.sendmail("ann@a.example", ["bob@b.example"], "x" * (12 << 20))
        assert False
    except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
        assert error.smtp_code == 552, error
"#;

#[test]
fn smtplib_of_python_gets_its_mail_through() {
    if !installed("python3") {
        return;
    }
    let (hop, daemon) = pair();
    let mut command = Command::new("python3");
    command.args(["-c", SMTPLIB, &daemon.address.ip().to_string()]);
    command.arg(daemon.address.port().to_string());
    hop.script.lock().unwrap().extensions = vec!["8BITMIME", "SMTPUTF8"];
    let output = program(command, &daemon, b"");
    assert!(output.status.success(), "{}", said(&output));
    let mails = hop.wait_for_mails(3);
    let of = |count: usize| {
        mails
            .iter()
            .filter(|mail| mail.recipients.len() == count)
            .count()
    };
    assert_eq!((of(3), of(1)), (1, 2));
    let first = mails
        .iter()
        .find(|mail| mail.recipients.len() == 3)
        .unwrap();
    assert!(!text(first).contains("secret") && text(first).contains("\r\n.\r\n..\r\n"));
}

/// A repository with one commit, written as a mail.
fn patch(daemon: &Daemon) -> Option<String> {
    let dir = daemon.dir.path().join("repository");
    fs::create_dir(&dir).unwrap();
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(&dir).args([
            "-c",
            "user.name=J\u{f6}rg",
            "-c",
            "user.email=me@a.example",
        ]);
        command.args(words).output()
    };
    git(&["init", "-q"]).ok()?;
    git(&["commit", "-q", "--allow-empty", "-m", "first"]).ok()?;
    fs::write(dir.join("file"), ".\n..\nFrom me\n").unwrap();
    git(&["add", "file"]).ok()?;
    git(&["commit", "-q", "-m", "A file"]).ok()?;
    let made = git(&["format-patch", "-q", "-1", "-o", dir.to_str()?]).ok()?;
    assert!(made.status.success(), "{}", said(&made));
    Some(dir.join("0001-A-file.patch").display().to_string())
}

/// `git send-email` comes with the system's git, which may not be the first one in the path.
fn git_send_email() -> Option<Command> {
    for git in ["git", "/usr/bin/git"] {
        let help = Command::new(git).args(["send-email", "-h"]).output();
        let text = help.map_or_else(|_| String::new(), |output| said(&output));
        if text.contains("--smtp-server") {
            let mut command = Command::new(git);
            command.args([
                "-c",
                "user.name=me",
                "-c",
                "user.email=me@a.example",
                "send-email",
            ]);
            command.args([
                "--quiet",
                "--confirm=never",
                "--suppress-cc=all",
                "--no-thread",
            ]);
            return Some(command);
        }
    }
    skip("git send-email is not installed");
    None
}

#[test]
fn git_send_email_gets_its_patches_through() {
    let (hop, daemon) = pair();
    if git_send_email().is_none() {
        return;
    }
    let Some(patch) = patch(&daemon) else {
        return skip("git is not installed");
    };
    let bin = daemon.dir.path().join("bin/sendmail").display().to_string();
    let (host, port) = (
        daemon.address.ip().to_string(),
        daemon.address.port().to_string(),
    );
    let by_program = ["--smtp-server", bin.as_str()];
    let by_program_for_me = ["--smtp-server", bin.as_str(), "--envelope-sender=auto"];
    let by_smtp = [
        "--smtp-server",
        host.as_str(),
        "--smtp-server-port",
        port.as_str(),
    ];
    for (number, way) in [&by_program[..], &by_program_for_me, &by_smtp]
        .into_iter()
        .enumerate()
    {
        let mut command = git_send_email().unwrap();
        command
            .args(way)
            .args(["--to=list@b.example", "--cc=Eve <eve@e.example>"]);
        command.args([
            "--bcc=secret@s.example",
            "--from=J\u{f6}rg <me@a.example>",
            &patch,
        ]);
        let output = program(command, &daemon, b"");
        assert!(output.status.success(), "{way:?}: {}", said(&output));
        let mail = &hop.wait_for_mails(number + 1)[number];
        let mut to = mail.recipients.clone();
        to.sort();
        assert_eq!(
            to,
            ["eve@e.example", "list@b.example", "secret@s.example"],
            "{way:?}"
        );
        let content = text(mail);
        assert!(
            content.contains("\r\n+.\r\n+..\r\n+From me\r\n"),
            "{content}"
        );
        assert!(
            !content.contains("secret") && !content.contains("\r\nFrom 0"),
            "{content}"
        );
        if number > 0 {
            assert_eq!(mail.sender, "me@a.example", "{way:?}");
        }
    }
}

#[test]
fn swaks_by_a_pipe_gets_its_mail_through() {
    if !installed("swaks") {
        return;
    }
    let (hop, daemon) = pair();
    let mut command = Command::new("swaks");
    command.args([
        "--pipe",
        "sendmail -bs",
        "--from",
        "ann@a.example",
        "--to",
        "bob@b.example,eve@e.example",
    ]);
    command.args(["--body", ".", "--hide-all"]);
    let output = program(command, &daemon, b"");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(hop.wait_for_mails(1)[0].recipients.len(), 2);
    // A refusal is seen as one.
    let mut command = Command::new("swaks");
    command.args([
        "--pipe",
        "sendmail -bs",
        "--from",
        "ann@a.example",
        "--to",
        "bad address",
        "--hide-all",
    ]);
    let output = program(command, &daemon, b"");
    assert_eq!(output.status.code(), Some(24), "{}", said(&output));
}

#[test]
fn mail_of_bsd_gets_its_mail_through() {
    if !installed("bsd-mailx") {
        return;
    }
    let (hop, daemon) = pair();
    let settings = daemon.dir.path().join("mailrc");
    let bin = daemon.dir.path().join("bin/sendmail");
    fs::write(&settings, format!("set sendmail={}\n", bin.display())).unwrap();
    let mut command = Command::new("bsd-mailx");
    command
        .env("MAILRC", &settings)
        .args(["-s", "J\u{f6}rg's report", "-c", "eve@e.example"]);
    command.args(["-a", "X-Own: 1", "bob@b.example"]);
    let output = program(command, &daemon, b"text\n..\nmore\n");
    assert!(output.status.success(), "{}", said(&output));
    let mail = &hop.wait_for_mails(1)[0];
    assert_eq!(mail.recipients, ["bob@b.example", "eve@e.example"]);
    let content = text(mail);
    assert!(
        content.contains("X-Own: 1\r\n") && content.contains("\r\nmore\r\n"),
        "{content}"
    );
}
