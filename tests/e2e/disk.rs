//! Disks that are full, damaged, or written by a newer version.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, Setup, free_address, scratch_dir};
use crate::harness::hop::Hop;
use crate::harness::mount::Mount;
use crate::harness::power::PowerDisk;
use crate::harness::sendmail::{said, zmailer};
use crate::harness::wait_for;

const RETRY: &str = "[[scheduler.rule]]\nmatch = \"smtp/*\"\nretry = [\"1s\"]\n";

/// Sends until the daemon has no room; gives back how many messages it took.
fn fill(daemon: &Daemon, size: usize) -> usize {
    let content = format!(
        "Subject: x\r\n\r\n{}",
        format!("{}\r\n", "y".repeat(998)).repeat(size / 1000)
    );
    let mut client = Client::connect(daemon.address);
    client.hello();
    for taken in 0..10_000 {
        let reply = client.message("a@a.example", &[&format!("r{taken}@b.example")], &content);
        if !reply.starts_with("250") {
            assert!(reply.starts_with("452 4.3.1"), "{reply}");
            client.expect("NOOP", "250");
            return taken;
        }
    }
    panic!("it never gets full");
}

fn takes_mail_again(daemon: &Daemon) {
    wait_for("room for new mail", || {
        let mut client = Client::connect(daemon.address);
        client.hello();
        let reply = client.message("a@a.example", &["new@b.example"], "Subject: x\r\n\r\n");
        reply.starts_with("250").then_some(())
    });
}

/// Full, then the next hop comes back: what was taken arrives, and there is room again.
fn full_and_empty_again(mut daemon: Daemon, hop: std::net::SocketAddr) {
    daemon.restart();
    let taken = fill(&daemon, 200_000);
    assert!(taken > 5, "{taken} messages");
    let hop = Hop::start_on(hop);
    let mails = hop.wait_for_mails(taken);
    assert_eq!(mails.len(), taken);
    assert!(mails.iter().all(|mail| mail.content.len() > 199_000));
    daemon.wait_until_empty();
    takes_mail_again(&daemon);
    hop.wait_for_mails(taken + 1);
    assert_eq!(daemon.stop(), Some(0));
}

/// What was lost: every 5 s, when a segment was tried again, a message was let in and ate a part of the
/// reserve; in the end no done record could be written, and a restart delivered everything again. Here mail
/// is offered over more than two such tries, then everything is delivered, and nothing comes back.
#[test]
fn a_full_disk_keeps_its_reserve_and_repeats_nothing() {
    let dir = scratch_dir();
    let Some(disk) = Mount::at_postoffice(dir.path(), 48 << 20) else {
        crate::harness::skip("no right to mount; a full file system is not tested");
        return;
    };
    let hop = free_address();
    let mut daemon = small(hop).prepare(dir);
    daemon.restart();
    let mut taken = fill(&daemon, 200_000);
    let full_at = Instant::now();
    let content = format!(
        "Subject: x\r\n\r\n{}",
        format!("{}\r\n", "y".repeat(998)).repeat(200)
    );
    let mut client = Client::connect(daemon.address);
    client.hello();
    while full_at.elapsed() < Duration::from_secs(12) {
        let reply = client.message("a@a.example", &["late@b.example"], &content);
        assert!(
            reply.starts_with("250") || reply.starts_with("45") || reply.starts_with("421 4.7.0"),
            "{reply}"
        );
        if reply.starts_with("421") {
            // So many refusals count as errors of the client.
            client = Client::connect(daemon.address);
            client.hello();
        }
        taken += usize::from(reply.starts_with("250"));
    }
    let hop = Hop::start_on(hop);
    hop.wait_for_mails(taken);
    daemon.wait_until_empty();
    assert_eq!(daemon.stop(), Some(0));
    daemon.restart();
    // What would come back is there at once; a new message shows that delivery runs.
    takes_mail_again(&daemon);
    hop.wait_for_mails(taken + 1);
    daemon.wait_until_empty();
    assert_eq!(hop.mails().len(), taken + 1, "delivered again");
    assert_eq!(daemon.stop(), Some(0));
    drop(disk);
}

fn small(hop: std::net::SocketAddr) -> Setup {
    let mut setup = Setup::relay_to(hop)
        .shards(1)
        .with("spool", "segment_size = \"4MiB\"")
        // What follows is about the reserve, not about the marks.
        .with("spool", "min_free = \"1B\"\nmin_free_inodes = 1");
    setup.tail = RETRY.to_owned();
    setup
}

#[test]
fn a_spool_at_its_limit_refuses_and_goes_on_delivering() {
    let hop = free_address();
    let setup = small(hop).with("spool", "segments_max = 8");
    full_and_empty_again(setup.prepare(scratch_dir()), hop);
}

#[test]
fn a_full_disk_refuses_and_goes_on_delivering() {
    let dir = scratch_dir();
    let Some(disk) = Mount::at_postoffice(dir.path(), 48 << 20) else {
        crate::harness::skip("no right to mount; a full file system is not tested");
        return;
    };
    let hop = free_address();
    let daemon = small(hop).prepare(dir);
    full_and_empty_again(daemon, hop);
    drop(disk);
}

/// The segment files of shard 0.
fn segments(daemon: &Daemon) -> Vec<PathBuf> {
    let dir = daemon.dir.path().join("postoffice/spool/0000");
    let entries = fs::read_dir(dir).unwrap().flatten();
    let names = entries.map(|entry| entry.path());
    names
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("log.")
        })
        .collect()
}

/// Changes a byte behind the first `marker` in one of the files.
fn damage(files: &[PathBuf], marker: &str) {
    let holds = |path: &&PathBuf| find(path, marker).is_some();
    let path = files.iter().find(holds).expect("the marker is on disk");
    let at = find(path, marker).unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn find(path: &Path, marker: &str) -> Option<usize> {
    let bytes = fs::read(path).unwrap();
    let marker = marker.as_bytes();
    bytes
        .windows(marker.len())
        .position(|window| window == marker)
}

#[test]
fn a_damaged_message_is_named_and_the_others_arrive() {
    let hop = free_address();
    let mut setup = Setup::relay_to(hop).shards(1);
    setup.tail = RETRY.to_owned();
    let mut daemon = setup.start();
    for number in 0..5 {
        let content = format!("Subject: x\r\n\r\nmarker-{number}\r\n");
        Client::submit(daemon.address, "a@a.example", &["b@b.example"], &content);
    }
    daemon.kill();
    damage(&segments(&daemon), "marker-2");
    daemon.restart();
    let said = daemon.stderr();
    assert!(said.contains("damaged commit in segment"), "{said}");
    let hop = Hop::start_on(hop);
    hop.wait_for_mails(4);
    daemon.wait_until_empty();
    let mut arrived: Vec<String> = hop
        .mails()
        .iter()
        .map(|mail| String::from_utf8_lossy(&mail.content).into_owned())
        .filter_map(|text| text.lines().last().map(str::to_owned))
        .collect();
    arrived.sort();
    assert_eq!(arrived, ["marker-0", "marker-1", "marker-3", "marker-4"]);
    assert_eq!(daemon.status()["spool"]["damaged_segments"], 1);
}

/// A segment has its header twice: one damaged block loses none of the mail in it.
#[test]
fn damaged_headers_lose_no_mail() {
    let hop = free_address();
    let mut setup = Setup::relay_to(hop).shards(1);
    setup.tail = RETRY.to_owned();
    let mut daemon = setup.start();
    for _ in 0..10 {
        let content = "Subject: x\r\n\r\nmarker\r\n";
        Client::submit(daemon.address, "a@a.example", &["b@b.example"], content);
    }
    // First one copy is bad, then the other as well, and at last both are as they were.
    for blocks in [&[4096][..], &[0], &[0, 4096]] {
        daemon.kill();
        for path in segments(&daemon) {
            let mut bytes = fs::read(&path).unwrap();
            // Segments without mail lose no more than one block: nobody could tell what they are.
            let used = find(&path, "marker").is_some();
            for block in blocks.iter().filter(|block| used || **block == 0) {
                bytes[block + 20] ^= 1;
            }
            fs::write(path, bytes).unwrap();
        }
        daemon.restart();
    }
    let hop = Hop::start_on(hop);
    hop.wait_for_mails(10);
    daemon.wait_until_empty();
    assert_eq!(hop.mails().len(), 10);
    let said = daemon.stderr();
    assert!(!said.contains("damaged"), "{said}");
}

/// CRC-32C by its definition (RFC 3720 12.1).
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0x82f6_3b78 * (sum & 1))
        })
    })
}

#[test]
fn a_spool_of_a_newer_version_is_refused() {
    let parts = ["segment", "offset", "version 9", "newer version"];
    refused(&parts, "0:0: format version 9; ", |bytes| {
        for block in [0, 4096] {
            // Version, and the checksum over the 32 bytes before it (spool/FORMAT.md).
            bytes[block + 8] = 9;
            let sum = crc(&bytes[block..block + 32]);
            bytes[block + 32..block + 36].copy_from_slice(&sum.to_le_bytes());
        }
    });
}

/// A kind that this version does not know, in a commit whose checksums are good: it is not skipped.
#[test]
fn a_record_of_a_newer_version_is_refused() {
    let parts = ["segment 0 offset 8192", "record kind 13", "newer version"];
    refused(&parts, "0:8192: record kind 13; ", |bytes| {
        let commit = &mut bytes[8192..];
        let records = u32::from_le_bytes(commit[36..40].try_into().unwrap()) as usize;
        commit[64] = 13;
        let sum = crc(&commit[64..64 + records]);
        commit[44..48].copy_from_slice(&sum.to_le_bytes());
        let sum = crc(&commit[..48]);
        commit[48..52].copy_from_slice(&sum.to_le_bytes());
    });
}

/// A spool with one message in its first commit is changed; the daemon and `spool check` say what is wrong.
fn refused(parts: &[&str], named: &str, change: impl FnOnce(&mut [u8])) {
    let mut daemon = Setup::relay_to(free_address()).shards(1).start();
    let content = "Subject: x\r\n\r\nmarker\r\n";
    Client::submit(daemon.address, "a@a.example", &["b@b.example"], content);
    daemon.stop();
    let segments = segments(&daemon);
    let mut used = segments
        .iter()
        .filter(|path| find(path, "marker").is_some());
    let path = used.next().expect("the message is on disk");
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
    let check = zmailer(&daemon, &["spool", "check"]);
    assert_eq!(check.status.code(), Some(65), "{}", said(&check));
    assert!(said(&check).contains(named), "{}", said(&check));
    daemon.spawn();
    assert_eq!(daemon.wait_exit(), Some(65));
    let told = daemon.stderr();
    for part in parts {
        assert!(told.contains(part), "{part} is missing in {told}");
    }
}

/// A refusal comes at once, while the session is fed what was held back: every command counts once, and
/// content is never taken for commands.
#[test]
fn a_refusal_in_the_middle_of_held_input_is_one_refusal() {
    let hop = free_address();
    let daemon = small(hop).with("spool", "segments_max = 8").start();
    fill(&daemon, 200_000);
    fill(&daemon, 0);
    for (first, second) in [
        (
            "MAI",
            "L FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nBDAT 7 LAST\r\nQUIT \r\nNOOP\r\n",
        ),
        (
            "MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nBDAT 7 LA",
            "ST\r\nRSET \r\nNOOP\r\n",
        ),
        (
            "MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\nQUIT\r\n.",
            "\r\nNOOP\r\n",
        ),
    ] {
        let mut client = Client::connect(daemon.address);
        client.hello();
        client.send(first.as_bytes());
        std::thread::sleep(Duration::from_millis(50));
        client.send(second.as_bytes());
        let mut replies = vec![client.reply(), client.reply()];
        if first.contains("DATA") {
            assert!(client.reply().starts_with("354"));
        }
        replies.push(client.reply());
        replies.push(client.reply());
        let codes: Vec<&str> = replies.iter().map(|reply| &reply[..3]).collect();
        assert_eq!(codes, ["250", "250", "452", "250"], "{first:?} {replies:?}");
        client.expect("QUIT", "221");
    }
}

#[test]
fn a_file_system_without_a_journal_is_warned_of() {
    for (option, expected) in [("^has_journal", true), ("has_journal", false)] {
        let dir = scratch_dir();
        let point = dir.path().join("postoffice");
        let mkfs = ["mkfs.ext4", "-q", "-F", "-O", option];
        let disk = match PowerDisk::mount(dir.path(), &point, 64 << 20, &mkfs) {
            Err(error) => return crate::harness::skip(&format!("no file system to make: {error}")),
            Ok(disk) => disk,
        };
        let mut daemon = small(free_address()).prepare(dir);
        daemon.restart();
        assert_eq!(daemon.stderr().contains("it has no journal"), expected);
        daemon.stop();
        drop(disk);
    }
}
