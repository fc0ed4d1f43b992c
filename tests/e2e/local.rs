//! Mailboxes of this host: who has one, what stands in it, once and only once.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, Setup, binary, free_address, scratch_dir};
use crate::harness::sendmail::sendmail;
use crate::harness::wait_for;

/// A daemon whose users have Maildirs; `zmjoe` and `zmmary` exist.
fn with_mailboxes(more: &str) -> Daemon {
    let more = format!("local_domains = [\"home.example\"]\n{more}");
    with_mailboxes_at("{user}", &["zmjoe", "zmmary"], &more)
}

/// A daemon with Maildirs below `mail`: the template of their paths there, and those that exist.
fn with_mailboxes_at(template: &str, exist: &[&str], more: &str) -> Daemon {
    let dir = scratch_dir();
    let mail = dir.path().join("mail");
    for mailbox in exist {
        for part in ["tmp", "new", "cur"] {
            fs::create_dir_all(mail.join(mailbox).join(part)).unwrap();
        }
    }
    let mut setup = Setup::relay_to(free_address()).with("router", more);
    setup.tail = format!(
        "[transport.mailbox]\npath = \"{}/{template}\"\n",
        mail.display()
    );
    let mut daemon = setup.prepare(dir);
    daemon.restart();
    daemon
}

fn maildir(daemon: &Daemon, user: &str) -> PathBuf {
    daemon.dir.path().join("mail").join(user)
}

/// The messages in `new/` and `cur/` of a user.
fn mails(daemon: &Daemon, user: &str) -> Vec<String> {
    let folders = ["new", "cur"].map(|name| maildir(daemon, user).join(name));
    let entries = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    let all = entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    all.collect()
}

#[test]
fn users_are_known_at_rcpt() {
    let daemon = with_mailboxes("");
    let mut client = Client::connect(daemon.address);
    client.command("EHLO c.example");
    client.command("MAIL FROM:<ann@a.example>");
    for (to, reply) in [
        ("zmjoe@home.example", "250 2.1.5"),
        ("ZMJOE@Home.Example", "250 2.1.5"),
        ("zmjoe+list@home.example", "250 2.1.5"),
        ("zmmary@mx.test.example", "250 2.1.5"),
        ("Postmaster", "250 2.1.5"),
        ("postmaster@home.example", "250 2.1.5"),
        ("no.such.user@home.example", "550 5.1.1"),
        (".zmjoe@home.example", "501 5.1.3"),
        ("zmjoe/x@home.example", "550 5.1.1"),
        ("-zmjoe@home.example", "550 5.1.1"),
    ] {
        let said = client.command(&format!("RCPT TO:<{to}>"));
        assert!(said.starts_with(reply), "{to}: {said}");
    }
}

#[test]
fn a_message_stands_in_each_mailbox_with_unix_line_ends() {
    let daemon = with_mailboxes("");
    let letter = "Subject: s\r\n\r\n.dot\r\nFrom here\r\n";
    let to = ["zmjoe@home.example", "zmmary@home.example"];
    Client::submit(daemon.address, "ann@a.example", &to, letter);
    daemon.wait_until_empty();
    for user in ["zmjoe", "zmmary"] {
        let found = mails(&daemon, user);
        assert_eq!(found.len(), 1, "{user}");
        let start =
            format!("Return-Path: <ann@a.example>\nDelivered-To: {user}@home.example\nReceived: ");
        assert!(found[0].starts_with(&start), "{}", found[0]);
        assert!(
            found[0].ends_with("\nSubject: s\n\n.dot\nFrom here\n") && !found[0].contains('\r')
        );
        assert_eq!(
            fs::read_dir(maildir(&daemon, user).join("tmp"))
                .unwrap()
                .count(),
            0
        );
    }
    sendmail(&daemon, &["zmjoe"], b"Subject: by name\n\ntext\n");
    wait_for("mail by the bare name", || {
        (mails(&daemon, "zmjoe").len() == 2).then_some(())
    });
}

#[test]
fn the_same_name_is_another_user_in_another_domain() {
    let daemon = with_mailboxes_at(
        "{domain}/{user}",
        &["one.example/zmjoe", "two.example/zmmary"],
        "local_domains = [\"one.example\", \"two.example\"]",
    );
    let mut client = Client::connect(daemon.address);
    client.command("EHLO c.example");
    client.command("MAIL FROM:<ann@a.example>");
    for (to, reply) in [
        ("zmjoe@one.example", "250 2.1.5"),
        ("zmjoe@two.example", "550 5.1.1"),
        ("zmmary@one.example", "550 5.1.1"),
        ("zmmary+tag@two.example", "250 2.1.5"),
    ] {
        let said = client.command(&format!("RCPT TO:<{to}>"));
        assert!(said.starts_with(reply), "{to}: {said}");
    }
    let to = ["zmjoe@one.example", "zmmary+tag@two.example"];
    Client::submit(daemon.address, "ann@a.example", &to, "\r\nx\r\n");
    daemon.wait_until_empty();
    assert_eq!(mails(&daemon, "one.example/zmjoe").len(), 1);
    assert_eq!(mails(&daemon, "two.example/zmmary").len(), 1);
}

#[test]
fn the_tool_knows_the_users_that_the_daemon_knows() {
    let daemon = with_mailboxes("");
    let mut tool = binary();
    let tool = tool.args(["route", "--tsv", "--config"]);
    let tool = tool.arg(daemon.config()).args([
        "zmjoe@home.example",
        "zmjoe+tag@home.example",
        "no.such.user@home.example",
    ]);
    let said = String::from_utf8(tool.output().unwrap().stdout).unwrap();
    let lines: Vec<Vec<&str>> = said
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    let expected = [
        [
            "zmjoe@home.example",
            "local",
            "zmjoe@home.example",
            "zmjoe@home.example",
        ],
        [
            "zmjoe+tag@home.example",
            "local",
            "zmjoe+tag@home.example",
            "zmjoe+tag@home.example",
        ],
        [
            "no.such.user@home.example",
            "error",
            "nosuchuser",
            "no.such.user@home.example",
        ],
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_domain_with_a_route_goes_there_although_it_is_local() {
    let hop = crate::harness::hop::Hop::start();
    let route = format!("routes = {{ \"home.example\" = \"smtp!{}\" }}", hop.address);
    let daemon = with_mailboxes(&route);
    Client::submit(
        daemon.address,
        "ann@a.example",
        &["no.such.user@home.example"],
        "\r\nx\r\n",
    );
    hop.wait_for_mails(1);
}

#[test]
fn a_mailbox_that_cannot_be_written_is_tried_again() {
    let daemon = with_mailboxes("");
    let new = maildir(&daemon, "zmjoe").join("new");
    fs::remove_dir(&new).unwrap();
    fs::write(&new, "not a directory").unwrap();
    Client::submit(
        daemon.address,
        "ann@a.example",
        &["zmjoe@home.example"],
        "\r\nx\r\n",
    );
    wait_for("the failed attempt", || {
        daemon.mail_log().contains("event=deferred").then_some(())
    });
    let log = daemon.mail_log();
    assert!(log.contains("mailbox of zmjoe"), "{log}");
    fs::remove_file(&new).unwrap();
    let output = crate::harness::sendmail::zmailer(&daemon, &["queue", "retry", "--where", ""]);
    assert!(output.status.success());
    daemon.wait_until_empty();
    assert_eq!(mails(&daemon, "zmjoe").len(), 1);
}

/// A delivery whose outcome was not yet on disk when the power failed is made again. It must not put
/// a second copy beside the first, whether that is still in `new/` or has been read.
#[test]
fn what_is_delivered_again_after_a_crash_is_there_once() {
    let mut daemon = with_mailboxes("");
    let mut sent = BTreeSet::new();
    for round in 0..5 {
        for number in 0..40 {
            let subject = format!("message {round}.{number}");
            let letter = format!("Subject: {subject}\r\n\r\ntext\r\n");
            Client::submit(
                daemon.address,
                "ann@a.example",
                &["zmjoe@home.example"],
                &letter,
            );
            sent.insert(subject);
        }
        std::thread::sleep(Duration::from_millis(7 * round));
        daemon.kill();
        // A reader looks at the mail meanwhile.
        let (new, cur) = (
            maildir(&daemon, "zmjoe").join("new"),
            maildir(&daemon, "zmjoe").join("cur"),
        );
        for entry in fs::read_dir(&new).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            fs::rename(entry.path(), cur.join(format!("{name}:2,S"))).unwrap();
        }
        daemon.restart();
    }
    daemon.wait_until_empty();
    let subjects = mails(&daemon, "zmjoe").into_iter().map(|mail| {
        let line = mail
            .lines()
            .find(|line| line.starts_with("Subject: "))
            .unwrap()
            .to_owned();
        line["Subject: ".len()..].to_owned()
    });
    let found: Vec<String> = subjects.collect();
    assert_eq!(found.len(), sent.len(), "none twice, none missing");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), sent);
}

#[test]
fn lmtp_to_a_socket_gives_each_recipient_its_reply() {
    let mut daemon = with_mailboxes("");
    daemon.stop();
    let socket = daemon.dir.path().join("postoffice/mailbox.sock");
    let config = fs::read_to_string(daemon.config()).unwrap();
    let routes = format!(
        "routes = {{ \"lmtp.example\" = \"lmtp!unix:{}\" }}\n[transport.mailbox]",
        socket.display()
    );
    fs::write(
        daemon.config(),
        config.replace("[transport.mailbox]", &routes),
    )
    .unwrap();
    daemon.restart();
    // The agent knows users by their names alone; the daemon does not ask for a routed domain.
    let to = [
        "zmjoe@lmtp.example",
        "no.such.user@lmtp.example",
        "zmmary@lmtp.example",
    ];
    Client::submit(
        daemon.address,
        "ann@a.example",
        &to,
        "Subject: s\r\n\r\nx\r\n",
    );
    wait_for("two deliveries and a failure", || {
        let log = daemon.mail_log();
        let count = |word: &str| log.matches(word).count();
        (count("event=delivered") == 2 && count("event=failed") == 1).then_some(())
    });
    let log = daemon.mail_log();
    let failed = log
        .lines()
        .find(|line| line.contains("event=failed"))
        .unwrap();
    assert!(
        failed.contains("to=no.such.user@lmtp.example") && failed.contains("550 5.1.1"),
        "{failed}"
    );
    assert_eq!(
        (
            mails(&daemon, "zmjoe").len(),
            mails(&daemon, "zmmary").len()
        ),
        (1, 1)
    );
}

/// Content above what the agent holds in memory, to several mailboxes.
#[test]
fn large_mail_stands_in_each_mailbox() {
    let daemon = with_mailboxes("");
    let text = "Subject: large\r\n\r\n".to_owned() + &"..\r\n.line\r\n".repeat(300_000);
    let to = ["zmjoe@home.example", "zmmary@home.example"];
    Client::submit(daemon.address, "ann@a.example", &to, &text);
    daemon.wait_until_empty();
    for user in ["zmjoe", "zmmary"] {
        let found = mails(&daemon, user);
        assert_eq!(found.len(), 1, "{user}");
        assert!(found[0].ends_with(&text.replace("\r\n", "\n")), "{user}");
    }
    let left = fs::read_dir(daemon.dir.path().join("postoffice")).unwrap();
    let left = left.filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .starts_with(".mailbox")
    });
    assert_eq!(left.count(), 0);
}

/// The agent may have rights that the daemon has given up, and ends with it all the same.
#[test]
fn the_agent_ends_with_the_daemon() {
    for ends in [Daemon::kill, |daemon: &mut Daemon| {
        daemon.stop();
    }] {
        let mut daemon = with_mailboxes("");
        let children = format!("/proc/{0}/task/{0}/children", daemon.pid());
        let agent = fs::read_to_string(children).unwrap().trim().to_owned();
        let process = PathBuf::from("/proc").join(&agent);
        assert!(!agent.is_empty() && process.exists(), "{agent:?}");
        ends(&mut daemon);
        wait_for("the agent's end", || {
            let gone = !process.exists();
            let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
            (gone || stat.contains(") Z ")).then_some(())
        });
    }
}

/// SIGHUP, SIGINT and SIGTERM are 1, 2 and 15.
fn ignores_stop_signals(process: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 0x4003 == 0x4003)
}

/// Transactions of one message that mean the same mailbox do not spoil each other, and a signal to all
/// processes of the service does not end the agent before its work.
#[test]
fn one_mailbox_by_many_ways_holds_one_good_message() {
    let mut daemon = with_mailboxes("");
    let children = format!("/proc/{0}/task/{0}/children", daemon.pid());
    let agent = fs::read_to_string(children).unwrap().trim().to_owned();
    wait_for("the agent to be there", || {
        ignores_stop_signals(&agent).then_some(())
    });
    for signal in ["TERM", "INT", "HUP"] {
        let sent = std::process::Command::new("kill")
            .args(["-s", signal, &agent])
            .status();
        assert!(sent.unwrap().success());
    }
    let text = "Subject: many\r\n\r\n".to_owned() + &"0123456789\r\n".repeat(100_000);
    let to: Vec<String> = (0..400)
        .map(|number| format!("zmjoe+{number}@home.example"))
        .collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    Client::submit(daemon.address, "ann@a.example", &to, &text);
    daemon.wait_until_empty();
    let found = mails(&daemon, "zmjoe");
    assert_eq!(found.len(), 1);
    assert!(
        found[0].ends_with(&text.replace("\r\n", "\n")),
        "{} bytes",
        found[0].len()
    );
    assert_eq!(daemon.stop(), Some(0));
}
