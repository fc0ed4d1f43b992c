//! The commands of this release, as a user meets them.

use std::time::{Duration, Instant};

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, Setup, binary, free_address};
use crate::harness::hop::Hop;
use crate::harness::sendmail::{said, zmailer};
use crate::harness::{PATIENCE, wait_for};

const LETTER: &str = "Subject: hello\r\n\r\ntext\r\n";

#[test]
fn sighup_opens_the_mail_log_again_and_loses_no_line() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).shards(1).start();
    let log = daemon.dir.path().join("log");
    let submit = || Client::submit(daemon.address, "a@a.example", &["b@b.example"], LETTER);
    let mut ids = vec![submit()];
    hop.wait_for_mails(1);
    wait_for("the first lines", || {
        daemon.mail_log().contains("event=delivered").then_some(())
    });
    let name = log.join("mail.0.log");
    let moved = log.join("mail.0.log.1");
    std::fs::rename(&name, &moved).unwrap();
    daemon.signal("HUP");
    wait_for("a new file", || name.exists().then_some(()));
    ids.push(submit());
    hop.wait_for_mails(2);
    wait_for("the second lines", || {
        let text = std::fs::read_to_string(&name).unwrap();
        text.contains("event=delivered").then_some(())
    });
    for (path, id) in [(&moved, &ids[0]), (&name, &ids[1])] {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text
            .lines()
            .filter(|line| line.contains(id.as_str()))
            .count();
        assert_eq!(lines, 2, "accepted and delivered in {}", path.display());
    }
}

#[test]
fn status_has_the_promised_keys() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    Client::submit(
        daemon.address,
        "a@a.example",
        &["b@b.example"],
        "Subject: x\r\n\r\n",
    );
    hop.wait_for_mails(1);
    let status = daemon.status();
    for key in [
        "version",
        "uptime_s",
        "subsystems",
        "queue",
        "spool",
        "sessions",
        "shards",
    ] {
        assert!(!status[key].is_null(), "{key} is missing in {status}");
    }
    for key in ["messages", "recipients", "bytes", "by_channel"] {
        assert!(
            !status["queue"][key].is_null(),
            "queue.{key} is missing in {status}"
        );
    }
    for key in [
        "segments",
        "bytes",
        "live_bytes",
        "commits",
        "commit_us",
        "flushes",
    ] {
        assert!(
            !status["spool"][key].is_null(),
            "spool.{key} is missing in {status}"
        );
    }
    assert!(status["spool"]["commits"].as_u64() >= Some(1));
}

/// Messages, recipients, and recipients of smtp, lmtp, local and hold.
fn queue_counts(daemon: &Daemon) -> [u64; 6] {
    let queue = &daemon.status()["queue"];
    let number = |path: &str| {
        queue
            .pointer(path)
            .and_then(|value| value.as_u64())
            .unwrap()
    };
    [
        "/messages",
        "/recipients",
        "/by_channel/smtp",
        "/by_channel/lmtp",
        "/by_channel/local",
        "/by_channel/hold",
    ]
    .map(number)
}

#[test]
fn status_counts_recipients_and_by_channel() {
    let (hop, down) = (Hop::start(), free_address());
    let setup = Setup::relay_to(hop.address).with(
        "router",
        format!("routes = {{ \"s.example\" = \"smtp!{down}\", \"l.example\" = \"lmtp!{down}\" }}"),
    );
    let mut daemon = setup.start();
    let expect = |daemon: &Daemon, what: &str, wanted: [u64; 6]| {
        let mut last = [0; 6];
        let deadline = Instant::now() + PATIENCE;
        while last != wanted {
            assert!(
                Instant::now() < deadline,
                "{what}: {last:?}, not {wanted:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
            last = queue_counts(daemon);
        }
    };
    let all = ["a@s.example", "b@s.example", "c@s.example", "a@l.example"];
    let mut to = all.to_vec();
    to.extend(["b@l.example", "gone@b.example"]);
    Client::submit(daemon.address, "x@x.example", &to, LETTER);
    Client::submit(daemon.address, "x@x.example", &all[..1], LETTER);
    expect(&daemon, "one of six is delivered", [2, 6, 4, 2, 0, 0]);
    let output = zmailer(
        &daemon,
        &["queue", "hold", "--where", "recipient = b@s.example"],
    );
    assert!(output.status.success(), "{}", said(&output));
    expect(&daemon, "one is held", [2, 6, 3, 2, 0, 1]);
    assert_eq!(daemon.stop(), Some(0));
    daemon.restart();
    expect(&daemon, "the same after a restart", [2, 6, 3, 2, 0, 1]);
    for (act, query, wanted) in [
        ("release", "recipient = b@s.example", [2, 6, 4, 2, 0, 0]),
        ("delete", "channel = smtp", [1, 2, 0, 2, 0, 0]),
        ("delete", "channel = lmtp", [0; 6]),
    ] {
        let output = zmailer(&daemon, &["queue", act, "--where", query]);
        assert!(output.status.success(), "{}", said(&output));
        expect(&daemon, act, wanted);
    }
}

#[test]
fn kill_stops_the_daemon_and_status_says_that_none_runs() {
    let hop = Hop::start();
    let mut daemon = Setup::relay_to(hop.address).start();
    let killed = binary()
        .args(["kill", "--config"])
        .arg(daemon.config())
        .output()
        .unwrap();
    assert!(
        killed.status.success(),
        "{}",
        String::from_utf8_lossy(&killed.stderr)
    );
    assert_eq!(daemon.wait_exit(), Some(0));
    let status = binary()
        .args(["status", "--config"])
        .arg(daemon.config())
        .output()
        .unwrap();
    assert_eq!(status.status.code(), Some(69));
}

#[test]
fn check_accepts_a_good_configuration() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let checked = binary()
        .args(["check", "--config"])
        .arg(daemon.config())
        .output()
        .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}

#[test]
fn an_unknown_command_is_a_usage_error() {
    let output = binary().arg("frobnicate").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn sigterm_finishes_what_is_under_way() {
    let mut daemon = Setup::relay_to(free_address()).start();
    let mut client = Client::connect(daemon.address);
    client.hello();
    client.expect("MAIL FROM:<a@a.example>", "250");
    daemon.signal("TERM");
    let reply = client.reply();
    assert!(reply.starts_with("421"), "{reply}");
    assert_eq!(daemon.wait_exit(), Some(0));
}

/// Rewrites a line of the daemon's configuration.
fn set(daemon: &Daemon, line: &str, new: &str) {
    let text = std::fs::read_to_string(daemon.config()).unwrap();
    let old = text.lines().find(|other| other.starts_with(line)).unwrap();
    std::fs::write(daemon.config(), text.replace(old, new)).unwrap();
}

#[test]
fn reload_takes_what_can_change_and_nothing_of_what_cannot() {
    let (first, second) = (Hop::start(), Hop::start());
    let daemon = Setup::relay_to(first.address)
        .with("router", "local_domains = [\"a.example\"]")
        .start();
    let submit = || Client::submit(daemon.address, "x@x.example", &["b@b.example"], "\r\nx\r\n");
    submit();
    first.wait_for_mails(1);
    let route = |to: &str| format!("default_route = \"{to}\"");
    set(
        &daemon,
        "default_route",
        &route(&format!("smtp!{}", second.address)),
    );
    let output = zmailer(&daemon, &["reload"]);
    assert!(output.status.success(), "{}", said(&output));
    // A session that began before keeps what it began with; this is a new one.
    wait_for("mail on the new way", || {
        submit();
        (!second.mails().is_empty()).then_some(())
    });
    for (line, new, words) in [
        ("default_route", route("smtp!"), "next hop"),
        (
            "shards",
            "shards = 1".to_owned(),
            "daemon can only change with a restart",
        ),
        (
            "listen",
            "listen = [\"127.0.0.1:1\"]".to_owned(),
            "smtpserver.listen",
        ),
    ] {
        let before = std::fs::read_to_string(daemon.config()).unwrap();
        set(&daemon, line, &new);
        let output = zmailer(&daemon, &["reload"]);
        assert_eq!(output.status.code(), Some(78), "{}", said(&output));
        let text = said(&output);
        assert!(text.contains(words), "{text}");
        std::fs::write(daemon.config(), before).unwrap();
    }
    submit();
    daemon.wait_until_empty();
}

#[test]
fn start_stop_freeze_and_thaw() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).prepare(crate::harness::daemon::scratch_dir());
    let run = |word: &str| {
        let output = zmailer(&daemon, &[word]);
        (output.status.code(), said(&output))
    };
    let (code, text) = run("start");
    assert!(code == Some(0) && text.contains("started, pid"), "{text}");
    Client::submit(daemon.address, "x@x.example", &["b@b.example"], "\r\nx\r\n");
    hop.wait_for_mails(1);
    let (code, text) = run("start");
    assert!(
        code == Some(69) && text.contains("runs on this postoffice"),
        "{text}"
    );
    assert_eq!(run("restart").0, Some(0));
    assert_eq!(run("freeze").0, Some(0));
    assert_eq!(run("stop").0, Some(0));
    for word in ["start", "restart", "run"] {
        let (code, text) = run(word);
        assert!(
            code == Some(69) && text.contains("frozen"),
            "{word}: {text}"
        );
    }
    assert_eq!(run("thaw").0, Some(0));
    assert_eq!(run("start").0, Some(0));
    assert_eq!(run("kill").0, Some(0));
    assert_eq!(run("stop").0, Some(69));
}
