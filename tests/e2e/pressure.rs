//! Disks that run out of space or inodes, become read only, refuse writes for a while, or are slow.

use std::fs;
use std::process::Command;

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, Setup, free_address, scratch_dir};
use crate::harness::hop::Hop;
use crate::harness::mount::Mount;
use crate::harness::sendmail::{said, sendmail, zmailer};
use crate::harness::{installed, skip, wait_for};
use zmailer::sys::filesystem;

const RETRY: &str = "[[scheduler.rule]]\nmatch = \"smtp/*\"\nretry = [\"1s\"]\n";

const MESSAGE: &str = "Subject: x\r\n\r\nx\r\n";

fn setup(hop: std::net::SocketAddr) -> Setup {
    let mut setup = Setup::relay_to(hop)
        .shards(1)
        .with("spool", "segment_size = \"4MiB\"");
    setup.tail = RETRY.to_owned();
    setup
}

fn space(daemon: &Daemon) -> serde_json::Value {
    daemon.status()["spool"]["space"].clone()
}

/// Waits until the daemon says that this is short.
fn wait_for_short(daemon: &Daemon, short: &[&str]) {
    let wanted = serde_json::json!(short);
    wait_for("the watermark", || {
        (space(daemon)["short_of"] == wanted).then_some(())
    });
}

fn count(daemon: &Daemon, words: &str) -> usize {
    daemon.stderr().matches(words).count()
}

fn submit(daemon: &Daemon) {
    Client::submit(daemon.address, "a@a.example", &["b@b.example"], MESSAGE);
}

/// What a client hears that begins a message.
fn mail(daemon: &Daemon) -> String {
    let mut client = Client::connect(daemon.address);
    client.hello();
    let reply = client.command("MAIL FROM:<a@a.example>");
    client.expect("NOOP", "250");
    client.expect("QUIT", "221");
    reply
}

#[test]
fn below_the_mark_new_mail_is_refused_and_delivery_goes_on() {
    let dir = scratch_dir();
    let Some(disk) = Mount::at_postoffice(dir.path(), 128 << 20) else {
        skip("no right to mount; the marks for space are not tested");
        return;
    };
    let hop = free_address();
    let mut daemon = setup(hop)
        .with("spool", "min_free = \"40MiB\"")
        .prepare(dir);
    daemon.restart();
    submit(&daemon);
    let mut begun = Client::connect(daemon.address);
    begun.hello();
    begun.expect("MAIL FROM:<a@a.example>", "250");

    let ready = |daemon: &Daemon| daemon.status()["spool"]["free_segments"] == 3;
    wait_for("the next segments", || ready(&daemon).then_some(()));
    let postoffice = daemon.dir.path().join("postoffice");
    let free = || filesystem::space(&postoffice).unwrap().free_bytes;
    let ballast = fs::File::create(postoffice.join("ballast")).unwrap();
    let length = (free() - (36 << 20)).to_string();
    let status = Command::new("fallocate")
        .args(["-l", &length])
        .arg(postoffice.join("ballast"))
        .status();
    assert!(status.unwrap().success());
    wait_for_short(&daemon, &["space"]);
    assert!(mail(&daemon).starts_with("452 4.3.1"), "{}", mail(&daemon));
    let text = said(&zmailer(&daemon, &["status"]));
    assert!(text.contains("NEW MAIL IS REFUSED: space"), "{text}");

    // What has begun is stored, what a user submits waits, and what is queued is delivered.
    begun.expect("RCPT TO:<c@b.example>", "250");
    begun.expect("DATA", "354");
    begun.send(MESSAGE.as_bytes());
    assert!(begun.command(".").starts_with("250"));
    let output = sendmail(&daemon, &["d@b.example"], b"Subject: y\n\ny\n");
    assert!(output.status.success(), "{}", said(&output));
    let hop = Hop::start_on(hop);
    hop.wait_for_mails(2);
    daemon.wait_until_empty();
    let router = postoffice.join("router");
    assert_eq!(fs::read_dir(&router).unwrap().count(), 1, "it stays there");

    // Above the mark, but not by a quarter.
    let shorter = ballast.metadata().unwrap().len() - (8 << 20);
    ballast.set_len(shorter).unwrap();
    wait_for("a new look", || {
        let seen = space(&daemon)["free_bytes"].as_u64()?;
        (seen > 40 << 20).then_some(())
    });
    assert!(free() < 50 << 20, "{}", free());
    wait_for_short(&daemon, &["space"]);
    ballast.set_len(0).unwrap();
    wait_for_short(&daemon, &[]);
    submit(&daemon);
    hop.wait_for_mails(4);
    daemon.wait_until_empty();
    assert_eq!(
        count(&daemon, "takes no new mail"),
        1,
        "{}",
        daemon.stderr()
    );
    assert_eq!(count(&daemon, "takes new mail again"), 1);
    assert_eq!(daemon.stop(), Some(0));
    drop(ballast);
    drop(disk);
}

/// Segments are never given back. A queue that has filled the disk up to the mark makes room again by being
/// delivered; what the spool has emptied counts as free.
#[test]
fn a_queue_that_reached_the_mark_makes_room_by_being_delivered() {
    let dir = scratch_dir();
    let Some(disk) = Mount::at_postoffice(dir.path(), 96 << 20) else {
        skip("no right to mount; a queue at the mark is not tested");
        return;
    };
    let hop = free_address();
    let mut daemon = setup(hop)
        .with("spool", "min_free = \"30MiB\"")
        .prepare(dir);
    daemon.restart();
    let content = format!(
        "Subject: x\r\n\r\n{}",
        format!("{}\r\n", "y".repeat(98)).repeat(2000)
    );
    let mut taken = 0;
    while !mail(&daemon).starts_with("452 4.3.1") {
        let mut client = Client::connect(daemon.address);
        client.hello();
        if client.command("MAIL FROM:<a@a.example>").starts_with("250") {
            client.expect("RCPT TO:<b@b.example>", "250");
            client.expect("DATA", "354");
            client.send(content.as_bytes());
            assert!(client.command(".").starts_with("250"));
            taken += 1;
        }
        assert!(taken < 1000, "it never gets short");
    }
    assert!(taken > 20, "{taken}");
    let hop = Hop::start_on(hop);
    hop.wait_for_mails(taken);
    daemon.wait_until_empty();
    wait_for_short(&daemon, &[]);
    submit(&daemon);
    hop.wait_for_mails(taken + 1);
    assert_eq!(daemon.stop(), Some(0));
    drop(disk);
}

#[test]
fn without_inodes_new_mail_is_refused() {
    let dir = scratch_dir();
    let Some(disk) = Mount::with_inodes(dir.path(), 64 << 20, 512) else {
        skip("no right to mount; the marks for inodes are not tested");
        return;
    };
    let hop = Hop::start();
    let mut daemon = setup(hop.address)
        .with("spool", "min_free_inodes = 100")
        .prepare(dir);
    daemon.restart();
    submit(&daemon);
    let ballast = daemon.dir.path().join("postoffice/ballast");
    fs::create_dir(&ballast).unwrap();
    let left = space(&daemon)["free_inodes"].as_u64().unwrap();
    assert!(left > 130, "{left}");
    for number in 0..left - 90 {
        fs::File::create(ballast.join(number.to_string())).unwrap();
    }
    wait_for_short(&daemon, &["inodes"]);
    assert!(mail(&daemon).starts_with("452 4.3.1"));
    fs::remove_dir_all(&ballast).unwrap();
    wait_for_short(&daemon, &[]);
    submit(&daemon);
    hop.wait_for_mails(2);
    assert_eq!(daemon.stop(), Some(0));
    drop(disk);
}

/// Offers messages until `until` says so; they are taken or refused for the time being. Gives back how
/// many were taken.
fn offer(daemon: &Daemon, mut until: impl FnMut(usize, &str) -> bool) -> usize {
    let mut taken = 0;
    for number in 1.. {
        let mut client = Client::connect(daemon.address);
        client.hello();
        let mut reply = client.command("MAIL FROM:<a@a.example>");
        if reply.starts_with("250") {
            client.expect("RCPT TO:<b@b.example>", "250");
            client.expect("DATA", "354");
            client.send(MESSAGE.as_bytes());
            reply = client.command(".");
        }
        assert!(
            reply.starts_with("250") || reply.starts_with("45"),
            "{reply}"
        );
        taken += usize::from(reply.starts_with("250"));
        client.expect("NOOP", "250");
        if until(number, &reply) {
            break;
        }
    }
    taken
}

/// An error of the file system, and it is read only until somebody repairs it: clients get 451 or 452, the
/// daemon does not grow, writes few lines, and stops when asked; nothing it has taken is lost.
#[test]
fn a_file_system_that_breaks_down_loses_nothing() {
    let dir = scratch_dir();
    let Some(disk) = Mount::at_postoffice(dir.path(), 64 << 20) else {
        skip("no right to mount; a file system that breaks down is not tested");
        return;
    };
    let hop = free_address();
    let mut daemon = setup(hop).prepare(dir);
    daemon.restart();
    let mut taken = offer(&daemon, |number, _| number == 20);
    assert_eq!(taken, 20);
    if !disk.break_down() {
        skip("this kernel makes no file system errors; a read-only spool is not tested");
        return;
    }
    let before = daemon.rss_kib();
    taken += offer(&daemon, |number, reply| {
        number >= 2000 && !reply.starts_with("250")
    });
    let grown = daemon.rss_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more");
    // Each try of a commit and of a segment says what was wrong; they are seconds apart.
    let lines = daemon.stderr().lines().count();
    assert!(lines < 100, "{lines} lines:\n{}", daemon.stderr());
    daemon.kill();
    disk.repair();
    daemon.restart();
    let hop = Hop::start_on(hop);
    hop.wait_for_mails(taken);
    daemon.wait_until_empty();
    assert_eq!(daemon.stop(), Some(0));
    drop(disk);
}

/// Sets the limit on the size of files of a running process: from now on the kernel refuses its writes.
fn limit_files(daemon: &Daemon, limit: &str) {
    let status = Command::new("prlimit")
        .args(["--pid", &daemon.pid().to_string()])
        .arg(format!("--fsize={limit}:unlimited"))
        .status();
    assert!(status.unwrap().success());
}

/// Every write fails for a while, then the disk is well: no restart is needed, deliveries go on meanwhile
/// where they can, and nothing that was taken is lost.
#[test]
fn a_disk_that_refuses_writes_for_a_while_is_used_again() {
    if !installed("prlimit") {
        return;
    }
    let hop = free_address();
    let mut setup = setup(hop);
    // The kernel would end a process that writes beyond the limit and does not ignore its signal.
    setup.prefix = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"]
        .map(str::to_owned)
        .to_vec();
    let mut daemon = setup.start();
    let mut taken = offer(&daemon, |number, _| number == 20);
    let before = daemon.rss_kib();
    for _ in 0..2 {
        limit_files(&daemon, "1");
        let mut refused = 0;
        taken += offer(&daemon, |_, reply| {
            refused += usize::from(!reply.starts_with("250"));
            refused >= 500
        });
        limit_files(&daemon, "unlimited");
        taken += offer(&daemon, |_, reply| reply.starts_with("250"));
    }
    let grown = daemon.rss_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more");
    let hop = Hop::start_on(hop);
    hop.wait_for_mails(taken);
    daemon.wait_until_empty();
    assert_eq!(daemon.stop(), Some(0));
}

/// A disk that does nothing for a while: clients wait for their reply, others are served, what waits is
/// bounded, and all of it is taken when the disk goes on.
#[test]
fn a_slow_disk_makes_clients_wait_and_nothing_else() {
    let dir = scratch_dir();
    let Some(disk) = Mount::at_postoffice(dir.path(), 256 << 20) else {
        skip("no right to mount; a slow disk is not tested");
        return;
    };
    let hop = Hop::start();
    let mut daemon = setup(hop.address)
        .with("spool", "memory = \"8MiB\"")
        .prepare(dir);
    daemon.restart();
    submit(&daemon);
    hop.wait_for_mails(1);
    daemon.wait_until_empty();
    let before = daemon.rss_kib();
    disk.freeze(true);
    let content = format!(
        "Subject: x\r\n\r\n{}",
        format!("{}\r\n", "y".repeat(98)).repeat(2000)
    );
    let address = daemon.address;
    let senders: Vec<_> = (0..100)
        .map(|_| {
            let content = content.clone();
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                client.hello();
                client.message("a@a.example", &["b@b.example"], &content)
            })
        })
        .collect();
    wait_for("the senders", || {
        (daemon.status()["sessions"].as_u64() >= Some(100)).then_some(())
    });
    for _ in 0..200 {
        assert!(mail(&daemon).starts_with("250"));
    }
    // 20 MB are offered; more than its budget and the buffers of receiving and staging it does not hold.
    let grown = daemon.rss_kib().saturating_sub(before);
    assert!(grown < 40 << 10, "{grown} KiB more");
    assert!(senders.iter().all(|sender| !sender.is_finished()));
    disk.freeze(false);
    for sender in senders {
        let reply = sender.join().unwrap();
        assert!(reply.starts_with("250"), "{reply}");
    }
    hop.wait_for_mails(101);
    daemon.wait_until_empty();
    assert_eq!(daemon.stop(), Some(0));
    drop(disk);
}
