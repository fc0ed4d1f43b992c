//! Large content: through a file of its own, never in memory whole, nothing left over.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, Setup, free_address, scratch_dir};
use crate::harness::hop::{Hop, Mail};
use crate::harness::mount::Mount;
use crate::harness::wait_for;

const RETRY: &str = "[[scheduler.rule]]\nmatch = \"smtp/*\"\nretry = [\"1s\"]\n";

/// Text of about `bytes` bytes that differs from line to line and has dots at line starts.
fn letter(seed: u64, bytes: usize) -> Vec<u8> {
    let mut text = format!("Subject: large {seed}\r\n\r\n").into_bytes();
    let mut state = seed | 1;
    while text.len() < bytes {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let dots = if state >> 62 == 0 { ".." } else { "" };
        text.extend_from_slice(
            format!("{dots}{state:016x} {seed}\r\n")
                .repeat(3)
                .as_bytes(),
        );
    }
    text
}

/// Sends one message by DATA; gives back the reply to its end.
fn send(client: &mut Client, number: usize, content: &[u8]) -> String {
    client.expect(&format!("MAIL FROM:<s{number}@a.example>"), "250");
    client.expect(&format!("RCPT TO:<r{number}@b.example>"), "250");
    client.expect("DATA", "354");
    let text = String::from_utf8_lossy(content).replace("\r\n.", "\r\n..");
    client.send(text.as_bytes());
    client.command(".")
}

/// The content as it was sent, without our Received field.
fn body(mail: &Mail) -> &[u8] {
    let at = mail
        .content
        .windows(9)
        .position(|window| window == b"Subject: ")
        .expect("it has a subject");
    &mail.content[at..]
}

/// Files with content in the spool.
fn content_files(daemon: &Daemon) -> Vec<PathBuf> {
    let spool = daemon.dir.path().join("postoffice/spool");
    let shards = fs::read_dir(spool).unwrap().flatten();
    let files = shards.flat_map(|shard| fs::read_dir(shard.path()).unwrap().flatten());
    let is_content = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("content.")
    };
    files.map(|file| file.path()).filter(is_content).collect()
}

/// The most memory the daemon ever had, in MiB.
fn peak_mib(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let mut words = line.unwrap().split_ascii_whitespace();
    words.nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn large_mail_of_many_clients_is_never_in_memory_whole() {
    const CLIENTS: usize = 12;
    const BYTES: usize = 25 << 20;
    /// Less than the mail: what the daemon needs anyway, its budget for two shards, and buffers.
    const PEAK_MIB: u64 = 230;
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address)
        .with("smtpserver", "message_size_max = \"64MiB\"")
        .start();
    let address = daemon.address;
    let senders: Vec<_> = (0..CLIENTS)
        .map(|number| {
            thread::spawn(move || {
                let content = letter(number as u64, BYTES);
                let mut client = Client::connect(address);
                client.hello();
                let reply = send(&mut client, number, &content);
                assert!(reply.starts_with("250 2.0.0 "), "{reply}");
                let small = send(&mut client, 100 + number, b"Subject: small\r\n\r\nx\r\n");
                assert!(small.starts_with("250 2.0.0 "), "{small}");
            })
        })
        .collect();
    for sender in senders {
        sender.join().unwrap();
    }
    let mails = hop.wait_for_mails(2 * CLIENTS);
    for mail in &mails {
        let number: u64 = mail.sender[1..mail.sender.find('@').unwrap()]
            .parse()
            .unwrap();
        let expected = match number {
            0..100 => letter(number, BYTES),
            _ => b"Subject: small\r\n\r\nx\r\n".to_vec(),
        };
        assert!(body(mail) == expected, "message {number} differs");
    }
    daemon.wait_until_empty();
    wait_for("the files to go", || {
        content_files(&daemon).is_empty().then_some(())
    });
    let peak = peak_mib(&daemon);
    assert!(peak < PEAK_MIB, "{peak} MiB");
}

#[test]
fn chunks_in_and_chunks_out() {
    let hop = Hop::start();
    hop.script.lock().unwrap().extensions = vec!["CHUNKING", "PIPELINING"];
    let daemon = Setup::relay_to(hop.address).shards(1).start();
    let content = letter(7, 900_000);
    let mut client = Client::connect(daemon.address);
    client.hello();
    client.expect("MAIL FROM:<s7@a.example>", "250");
    client.expect("RCPT TO:<r@b.example>", "250");
    for piece in content.chunks(70_001) {
        client.send(format!("BDAT {}\r\n", piece.len()).as_bytes());
        client.send(piece);
        let reply = client.reply();
        assert!(reply.starts_with("250"), "{reply}");
    }
    client.expect("BDAT 0 LAST", "250 2.0.0 ");
    assert!(body(&hop.wait_for_mails(1)[0]) == content);
}

#[test]
fn refused_content_and_clients_that_go_leave_nothing_behind() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).shards(1).start();
    let mut client = Client::connect(daemon.address);
    client.hello();
    let mut bad = letter(1, 700_000);
    bad.extend_from_slice(b"a lone\nline feed\r\n");
    let reply = send(&mut client, 1, &bad);
    assert!(reply.starts_with("550 5.6.11"), "{reply}");
    let reply = send(&mut client, 2, &letter(2, 12 << 20));
    assert!(reply.starts_with("552 5.3.4"), "{reply}");

    client.expect("MAIL FROM:<s3@a.example>", "250");
    client.expect("RCPT TO:<r@b.example>", "250");
    client.send(b"BDAT 600000\r\n");
    client.send(&letter(3, 600_000)[..600_000]);
    assert!(client.reply().starts_with("250"));
    client.expect("RSET", "250");

    client.expect("MAIL FROM:<s4@a.example>", "250");
    client.expect("RCPT TO:<r@b.example>", "250");
    client.expect("DATA", "354");
    client.send(&letter(4, 600_000));
    wait_for("a file", || {
        (!content_files(&daemon).is_empty()).then_some(())
    });
    drop(client);
    wait_for("it to go", || {
        content_files(&daemon).is_empty().then_some(())
    });
    let mut client = Client::connect(daemon.address);
    client.hello();
    let reply = send(&mut client, 5, &letter(5, 700_000));
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(hop.wait_for_mails(1)[0].sender, "s5@a.example");
}

#[test]
fn large_mail_survives_a_kill_and_a_change_of_shards() {
    let address = free_address();
    let mut setup = Setup::relay_to(address).shards(3);
    setup.tail = RETRY.to_owned();
    let mut daemon = setup.start();
    let contents: Vec<Vec<u8>> = (0..6).map(|seed| letter(seed, 500_000)).collect();
    for (number, content) in contents.iter().enumerate() {
        let mut client = Client::connect(daemon.address);
        client.hello();
        let reply = send(&mut client, number, content);
        assert!(reply.starts_with("250"), "{reply}");
    }
    // One more that nobody was told 250 for.
    let mut client = Client::connect(daemon.address);
    client.hello();
    client.expect("MAIL FROM:<s99@a.example>", "250");
    client.expect("RCPT TO:<r@b.example>", "250");
    client.expect("DATA", "354");
    client.send(&letter(99, 500_000));
    wait_for("its file", || {
        (content_files(&daemon).len() == 7).then_some(())
    });
    daemon.kill();
    let config = fs::read_to_string(daemon.config()).unwrap();
    fs::write(daemon.config(), config.replace("shards = 3", "shards = 1")).unwrap();
    daemon.restart();
    wait_for("its file to go", || {
        (content_files(&daemon).len() == 6).then_some(())
    });
    let hop = Hop::start_on(address);
    let mails = hop.wait_for_mails(6);
    for (number, content) in contents.iter().enumerate() {
        let sender = format!("s{number}@a.example");
        let mail = mails.iter().find(|mail| mail.sender == sender).unwrap();
        assert!(body(mail) == *content, "message {number} differs");
    }
    daemon.wait_until_empty();
    wait_for("the files to go", || {
        content_files(&daemon).is_empty().then_some(())
    });
}

#[test]
fn damaged_content_is_never_sent_to_its_end() {
    let address = free_address();
    let mut setup = Setup::relay_to(address).shards(1);
    setup.tail = RETRY.to_owned();
    let mut daemon = setup.start();
    let mut client = Client::connect(daemon.address);
    client.hello();
    send(&mut client, 1, &letter(1, 500_000));
    send(&mut client, 2, &letter(2, 500_000));
    daemon.kill();
    let files = content_files(&daemon);
    let damaged = files.iter().min().unwrap();
    let mut bytes = fs::read(damaged).unwrap();
    bytes[300_000] ^= 1;
    fs::write(damaged, bytes).unwrap();
    daemon.restart();
    let hop = Hop::start_on(address);
    wait_for("the good one", || (!hop.mails().is_empty()).then_some(()));
    wait_for("the complaint", || {
        daemon
            .stderr()
            .contains("content cannot be read")
            .then_some(())
    });
    wait_for("the log", || {
        daemon
            .mail_log()
            .contains("451 4.3.0 content cannot be read")
            .then_some(())
    });
    assert_eq!(hop.mails().len(), 1, "half a message is no message");
    assert_eq!(hop.mails()[0].sender, "s2@a.example");
}

#[test]
fn a_report_returns_the_header_and_the_postmaster_gets_all() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).shards(1).start();
    let refuse_one = || {
        let reply = "550 5.1.1 nobody".to_owned();
        hop.script.lock().unwrap().rcpt.push_back(reply);
    };
    refuse_one();
    let content = letter(1, 600_000);
    let mut client = Client::connect(daemon.address);
    client.hello();
    let reply = send(&mut client, 1, &content);
    assert!(reply.starts_with("250"), "{reply}");
    let report = hop.wait_for_mails(1).remove(0);
    let text = String::from_utf8_lossy(&report.content).into_owned();
    assert!(text.contains("Subject: large 1\r\n"), "{text}");
    assert!(text.len() < 10_000, "{} bytes", text.len());

    refuse_one();
    client.expect("MAIL FROM:<>", "250");
    client.expect("RCPT TO:<r@b.example>", "250");
    client.expect("DATA", "354");
    client.send(
        String::from_utf8_lossy(&content)
            .replace("\r\n.", "\r\n..")
            .as_bytes(),
    );
    client.expect(".", "250");
    let postman = daemon.dir.path().join("postoffice/postman");
    let file = wait_for("the file", || {
        let mut entries = fs::read_dir(&postman).ok()?.flatten();
        entries.find(|entry| !entry.file_name().to_str().unwrap().starts_with('.'))
    });
    let kept = fs::read_to_string(file.path()).unwrap();
    let lines = String::from_utf8_lossy(&content).replace("\r\n", "\n");
    assert!(
        kept.starts_with("channel error\n") && kept.ends_with(&lines),
        "{} bytes",
        kept.len()
    );
}

#[test]
fn a_disk_that_fills_in_the_middle_refuses_at_the_end() {
    let dir = scratch_dir();
    let Some(disk) = Mount::at_postoffice(dir.path(), 64 << 20) else {
        crate::harness::skip("no right to mount; a full file system is not tested");
        return;
    };
    let hop = Arc::new(Hop::start());
    let setup = Setup::relay_to(hop.address)
        .shards(1)
        .with("spool", "segment_size = \"4MiB\"")
        .with("smtpserver", "message_size_max = \"100MiB\"");
    let mut daemon = setup.prepare(dir);
    daemon.restart();
    let mut client = Client::connect(daemon.address);
    client.hello();
    let reply = send(&mut client, 1, &letter(1, 80 << 20));
    assert!(reply.starts_with("452 4.3.1"), "{reply}");
    wait_for("the file to go", || {
        content_files(&daemon).is_empty().then_some(())
    });
    wait_for("room for new mail", || {
        let mut client = Client::connect(daemon.address);
        client.hello();
        let reply = client.command("MAIL FROM:<room@a.example>");
        reply.starts_with("250").then_some(())
    });
    let reply = send(&mut client, 2, &letter(2, 1 << 20));
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!(hop.wait_for_mails(1)[0].sender, "s2@a.example");
    daemon.stop();
    drop(disk);
}
