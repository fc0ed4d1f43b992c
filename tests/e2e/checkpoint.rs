//! Checkpoints: a start reads what follows the last one, and all of the log when there is something
//! wrong with it.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, Setup, free_address};
use crate::harness::hop::Hop;
use crate::harness::wait_for;

const MESSAGES: usize = 300;

/// Checkpoints every few dozen messages.
fn waiting(address: SocketAddr) -> Daemon {
    let mut setup = Setup::relay_to(address)
        .shards(2)
        .with("spool", "checkpoint = \"64KiB\"");
    setup.tail = "[[scheduler.rule]]\nmatch = \"smtp/*\"\nretry = [\"1s\"]\n".to_owned();
    let daemon = setup.start();
    let letter = format!("Subject: long\r\n\r\n{}", "waits\r\n".repeat(500));
    let clients = (0..8).map(|number| {
        let (address, letter) = (daemon.address, letter.clone());
        std::thread::spawn(move || {
            let mut client = Client::connect(address);
            client.hello();
            for round in (number..MESSAGES).step_by(8) {
                let to = format!("u{round}@b.example");
                let reply = client.message("ann@a.example", &[&to], &letter);
                assert!(reply.starts_with("250"), "{reply}");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.join().expect("a client that got its 250s");
    }
    daemon
}

/// Files of checkpoints whose header is written.
fn checkpoints(daemon: &Daemon) -> Vec<PathBuf> {
    let spool = daemon.dir.path().join("postoffice/spool");
    let files = (0..2).flat_map(|shard| {
        let dir = spool.join(format!("{shard:04}"));
        (0..2).map(move |number| dir.join(format!("checkpoint.{number}")))
    });
    let written = |path: &PathBuf| {
        let start = fs::read(path).unwrap_or_default();
        start.get(..8) == Some(b"\0ZMLCP01")
    };
    files.filter(written).collect()
}

fn wait_for_checkpoints(daemon: &Daemon) {
    wait_for("checkpoints of both shards", || {
        let files = checkpoints(daemon);
        let shards: BTreeSet<_> = files.iter().map(|file| file.parent()).collect();
        (shards.len() == 2).then_some(())
    });
}

fn delivers_all_once(daemon: &Daemon, address: SocketAddr) {
    let hop = Hop::start_on(address);
    let mails = hop.wait_for_mails(MESSAGES);
    daemon.wait_until_empty();
    let recipients: BTreeSet<&str> = mails
        .iter()
        .flat_map(|mail| mail.recipients.iter().map(String::as_str))
        .collect();
    assert_eq!(recipients.len(), MESSAGES, "all are delivered");
    assert_eq!(hop.mails().len(), MESSAGES, "none twice");
}

#[test]
fn a_start_goes_on_from_the_last_one() {
    let address = free_address();
    let mut daemon = waiting(address);
    wait_for_checkpoints(&daemon);
    daemon.kill();
    daemon.restart();
    let said = daemon.stderr();
    assert_eq!(
        said.matches("from the checkpoint of commit").count(),
        2,
        "{said}"
    );
    wait_for("all messages in the queue", || {
        let queued = daemon.status()["queue"]["messages"].as_u64();
        (queued == Some(MESSAGES as u64)).then_some(())
    });
    delivers_all_once(&daemon, address);
}

#[test]
fn one_that_is_damaged_is_not_used() {
    let address = free_address();
    let mut daemon = waiting(address);
    wait_for_checkpoints(&daemon);
    daemon.kill();
    for path in checkpoints(&daemon) {
        let mut bytes = fs::read(&path).unwrap();
        // In the first entry.
        bytes[4096 + 20] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    daemon.restart();
    let said = daemon.stderr();
    assert_eq!(
        said.matches("is damaged at offset 4096; the whole log was read instead")
            .count(),
        2,
        "{said}"
    );
    delivers_all_once(&daemon, address);
}
