//! The spool as tools see it: while a daemon writes to it, and without one.

use std::fs;

use crate::harness::client::Client;
use crate::harness::daemon::{Setup, free_address};
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
    let segment = daemon.dir.path().join("postoffice/spool/0000/log.00000000");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[8192 + 100] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let check = zmailer(&daemon, &["spool", "check"]);
    assert_eq!(check.status.code(), Some(65), "{}", said(&check));
    assert!(
        said(&check).contains("damaged commit in segment 0 at 8192"),
        "{}",
        said(&check)
    );
}
