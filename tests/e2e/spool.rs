//! The spool as tools see it: while a daemon writes to it, and without one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, Setup, free_address};
use crate::harness::hop::Hop;
use crate::harness::sendmail::{program, said, zmailer};
use crate::harness::wait_for;

#[test]
fn messages_are_listed_shown_taken_out_and_taken_in() {
    let mut daemon = Setup::relay_to(free_address()).start();
    let letter = "Subject: s\r\n\r\n.dot\r\nlast\r\n";
    let mut client = Client::connect(daemon.address);
    client.hello();
    let reply = client.message("ann@a.example", &["bob@b.example", "eve@e.example"], letter);
    let id = reply.split(' ').nth(2).unwrap().to_owned();
    for running in [true, false] {
        if !running {
            daemon.stop();
        }
        let list = said(&zmailer(&daemon, &["spool", "ls"]));
        assert!(
            list.starts_with(&id) && list.contains("<ann@a.example> bob@b.example eve@e.example"),
            "{list}"
        );
        let shown = said(&zmailer(&daemon, &["spool", "cat", &id]));
        let envelope =
            "from <ann@a.example>\nto <bob@b.example>\nto <eve@e.example>\nenv-end\nReceived: ";
        assert!(
            shown.contains(envelope) && shown.ends_with("\nSubject: s\n\n.dot\nlast\n"),
            "{shown}"
        );
        let check = zmailer(&daemon, &["spool", "check"]);
        assert_eq!(check.status.code(), Some(0), "{}", said(&check));
    }
    let file = daemon.dir.path().join("message");
    let path = file.to_str().unwrap();
    let output = zmailer(&daemon, &["spool", "export", &id, path]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        zmailer(&daemon, &["spool", "export", &id, path])
            .status
            .code(),
        Some(73),
        "never overwritten"
    );
    assert_eq!(
        zmailer(&daemon, &["spool", "cat", "0AbCdEfGhIjK"])
            .status
            .code(),
        Some(69)
    );

    // Another host takes it in, three hours later: it is as old as it was.
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3 * 3600);
    fs::File::options()
        .append(true)
        .open(&file)
        .unwrap()
        .set_modified(old)
        .unwrap();
    let other = Setup::relay_to(free_address()).start();
    let output = zmailer(&other, &["spool", "import", path]);
    assert!(output.status.success(), "{}", said(&output));
    wait_for("the message over there", || {
        let count = said(&zmailer(
            &other,
            &["queue", "count", "--where", "age > 2h and age < 4h"],
        ));
        count
            .starts_with("2 recipients of 1 messages")
            .then_some(())
    });
    fs::write(&file, "nonsense\n").unwrap();
    assert_eq!(
        zmailer(&other, &["spool", "import", path]).status.code(),
        Some(65)
    );
}

/// A message of 54 MiB goes out and in again, the same to the last byte, in little memory.
#[test]
fn large_messages_are_copied_in_pieces() {
    let mut daemon = Setup::relay_to(free_address())
        .with("smtpserver", "message_size_max = \"64MiB\"")
        .start();
    let letter = format!(
        "Subject: s\r\n\r\n{}end\r\n",
        "0123456\r\n".repeat(48 << 17)
    );
    let id = Client::submit(daemon.address, "ann@a.example", &["bob@b.example"], &letter);
    daemon.stop();
    let path = daemon.dir.path().join("message");
    let limited = |command: &str, last: &str| {
        let mut shell = std::process::Command::new("sh");
        // Pages for the program itself, and less than the message.
        let script = format!("ulimit -d 48000; exec zmailer spool {command} {last}");
        shell.args(["-c", &script]);
        let output = program(shell, &daemon, b"");
        assert!(output.status.success(), "{command}: {}", said(&output));
    };
    limited("export", &format!("{id} {}", path.display()));
    let file = fs::read(&path).unwrap();
    let body = letter.replace("\r\n", "\n");
    assert!(file.ends_with(body.as_bytes()), "{} bytes", file.len());
    limited("import", &path.display().to_string());
    let names = fs::read_dir(daemon.dir.path().join("postoffice/router")).unwrap();
    let copies: Vec<_> = names
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert!(copies == [file]);
    // What cannot be exported leaves nothing that looks like a message.
    let other = daemon.dir.path().join("other");
    let output = zmailer(
        &daemon,
        &["spool", "export", "0AbCdEfGhIjK", other.to_str().unwrap()],
    );
    assert_eq!(output.status.code(), Some(69));
    assert!(!other.exists());
}

#[test]
fn damage_is_named() {
    let hop = Hop::start();
    let mut daemon = Setup::relay_to(hop.address).shards(1).start();
    for _ in 0..3 {
        Client::submit(
            daemon.address,
            "a@a.example",
            &["b@b.example"],
            "Subject: s\r\n\r\nx\r\n",
        );
    }
    daemon.wait_until_empty();
    daemon.stop();
    let segment = segment(&daemon);
    change(&segment, |bytes| bytes[8192 + 100] ^= 1);
    let check = zmailer(&daemon, &["spool", "check"]);
    assert_eq!(check.status.code(), Some(65), "{}", said(&check));
    assert!(
        said(&check).contains(": 0:8192: commit 1 is damaged\n"),
        "{}",
        said(&check)
    );
    let check = zmailer(&daemon, &["spool", "check", "--json"]);
    assert_eq!(check.status.code(), Some(65));
    let object: serde_json::Value = serde_json::from_slice(&check.stdout).expect("one object");
    let finding = &object["shards"][0]["findings"][0];
    assert_eq!(
        (&finding["segment"], &finding["offset"]),
        (&0.into(), &8192.into())
    );
    assert_eq!(
        (&object["running"], &object["findings"]),
        (&false.into(), &2.into())
    );
    // The file ends inside a header.
    change(&segment, |bytes| bytes.truncate(5000));
    let check = zmailer(&daemon, &["spool", "check"]);
    assert_eq!(check.status.code(), Some(65), "{}", said(&check));
    fs::remove_dir_all(daemon.dir.path().join("postoffice/spool")).unwrap();
    let check = zmailer(&daemon, &["spool", "check"]);
    assert_eq!(check.status.code(), Some(69), "{}", said(&check));
}

fn segment(daemon: &Daemon) -> PathBuf {
    daemon.dir.path().join("postoffice/spool/0000/log.00000000")
}

fn change(file: &Path, with: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).unwrap();
    with(&mut bytes);
    fs::write(file, bytes).unwrap();
}

/// The tail grows and messages end under the look: nothing of that is damage.
#[test]
fn a_running_daemon_has_no_damage() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let on = AtomicBool::new(true);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (on, address) = (&on, daemon.address);
            let size = [100, 3000, 30_000, 400_000][number];
            scope.spawn(move || {
                let letter = format!("Subject: s\r\n\r\n{}", "0123456\r\n".repeat(size / 9));
                while on.load(Ordering::Relaxed) {
                    Client::submit(address, "a@a.example", &["b@b.example"], &letter);
                }
            });
        }
        let checks: Vec<_> = (0..8)
            .map(|_| zmailer(&daemon, &["spool", "check"]))
            .collect();
        on.store(false, Ordering::Relaxed);
        for check in checks {
            assert_eq!(check.status.code(), Some(0), "{}", said(&check));
            assert!(
                said(&check).contains("; a daemon runs: "),
                "{}",
                said(&check)
            );
        }
    });
    daemon.wait_until_empty();
}

/// A segment with one damaged message and without its headers: the others come out, and in again.
#[test]
fn what_is_intact_is_salvaged() {
    let mut daemon = Setup::relay_to(free_address()).shards(1).start();
    let letter = |number: usize| format!("Subject: s{number}\r\n\r\n.text {number}\r\n");
    let ids: Vec<String> = (0..5)
        .map(|number| {
            let to = format!("b{number}@b.example");
            Client::submit(daemon.address, "a@a.example", &[&to], &letter(number))
        })
        .collect();
    let found = daemon.dir.path().join("found");
    let to = ["--to", found.to_str().unwrap()];
    let refused = zmailer(&daemon, &["spool", "salvage", to[0], to[1]]);
    assert_eq!(refused.status.code(), Some(69), "{}", said(&refused));
    assert!(!found.exists());
    daemon.stop();
    let whole = daemon.dir.path().join("whole");
    let all = zmailer(
        &daemon,
        &["spool", "salvage", "--to", whole.to_str().unwrap()],
    );
    assert_eq!(all.status.code(), Some(0), "{}", said(&all));
    assert_eq!(fs::read_dir(&whole).unwrap().count(), 5);
    change(&segment(&daemon), |bytes| {
        bytes[..8192].fill(0xff);
        let text = b"Subject: s2";
        let at = bytes.windows(text.len()).position(|window| window == text);
        bytes[at.unwrap()] ^= 1;
    });
    let output = zmailer(&daemon, &["spool", "salvage", to[0], to[1]]);
    assert_eq!(output.status.code(), Some(65), "{}", said(&output));
    let told = said(&output);
    assert!(told.contains("4 messages written to "), "{told}");
    assert!(
        told.contains(&format!("message {} is damaged\n", ids[2])),
        "{told}"
    );
    let again = zmailer(&daemon, &["spool", "salvage", to[0], to[1]]);
    assert_eq!(again.status.code(), Some(73), "never into what is there");

    // What the daemon does not have, while it runs: nothing but the damaged one is missing.
    daemon.restart();
    let missing = daemon.dir.path().join("missing");
    let output = zmailer(
        &daemon,
        &[
            "spool",
            "salvage",
            "--missing",
            "--to",
            missing.to_str().unwrap(),
        ],
    );
    assert_eq!(output.status.code(), Some(65), "{}", said(&output));
    assert!(
        said(&output).contains("0 messages written to "),
        "{}",
        said(&output)
    );

    let hop = Hop::start();
    let other = Setup::relay_to(hop.address).start();
    for (number, id) in ids.iter().enumerate().filter(|(number, _)| *number != 2) {
        let file = found.join(id);
        assert_eq!(fs::read(&file).unwrap(), fs::read(whole.join(id)).unwrap());
        let output = zmailer(&other, &["spool", "import", file.to_str().unwrap()]);
        assert!(output.status.success(), "{}", said(&output));
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
        let end = letter(number).replace("\r\n", "\n");
        assert!(text.contains(&format!("to <b{number}@b.example>\n")) && text.ends_with(&end));
    }
    assert!(!found.join(&ids[2]).exists());
    let mails = hop.wait_for_mails(4);
    assert!(mails.iter().all(|mail| mail.sender == "a@a.example"));
}
