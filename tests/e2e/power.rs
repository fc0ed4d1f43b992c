//! The power is cut, on real file systems: every message that was acknowledged, by SMTP or by `sendmail`, stands in its
//! mailboxes afterwards, once and whole. `ZMAILER_POWER_CUTS=500` cuts so often on each file system.

use std::collections::BTreeMap;
use std::fs;

use spool::sim::Rng;

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, Setup, free_address, scratch_dir};
use crate::harness::power::{Cut, PowerDisk};
use crate::harness::sendmail::{said, sendmail};
use crate::harness::{installed, skip, wait_for};

const USERS: usize = 12;
const CLIENTS: usize = 24;
const EACH: usize = 12;
const CUTS: usize = 12;

/// Each so many messages one goes by `sendmail`.
const SENDMAIL_EVERY: usize = 4;

/// Spool and mailboxes stand on the disk; `new/` of everybody is empty.
fn prepare(shards: usize) -> Daemon {
    let dir = scratch_dir();
    let place = dir.path().join("postoffice/mail");
    let mut setup = Setup::relay_to(free_address())
        .shards(shards)
        .with("router", "local_domains = [\"home.example\"]")
        .with("spool", "segment_size = \"4MiB\"\nmin_free = \"1B\"");
    setup.tail = format!(
        "[transport.mailbox]\npath = \"{}/{{user}}\"\n",
        place.display()
    );
    setup.prepare(dir)
}

/// A message by its name, with a last line by which it is known to be whole.
fn letter(name: &str, lines: usize) -> String {
    let text = format!("{name} 0123456789 abcdefghij\r\n").repeat(lines);
    format!("Subject: {name}\r\n\r\n{text}end of {name}\r\n")
}

/// Messages to one to six users each from many clients; what the disk is told are name and users.
fn send(daemon: &Daemon, disk: &PowerDisk) {
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut rng = Rng::new(client as u64);
                let mut connection = Client::connect(daemon.address);
                connection.hello();
                for number in 0..EACH {
                    let name = format!("c{client}n{number}");
                    let (first, count) = (rng.index(USERS), 1 + rng.index(6));
                    let users = (first..first + count).map(|user| format!("u{}", user % USERS));
                    let users: Vec<String> = users.collect();
                    let to = users.iter().map(|user| format!("{user}@home.example"));
                    let to: Vec<String> = to.collect();
                    let to: Vec<&str> = to.iter().map(String::as_str).collect();
                    let text = letter(&name, [10, 100, 400, 3000][rng.index(4)]);
                    if (client + number) % SENDMAIL_EVERY == 0 {
                        let output = sendmail(daemon, &to, text.replace("\r\n", "\n").as_bytes());
                        assert!(output.status.success(), "{}", said(&output));
                    } else {
                        let reply = connection.message("ann@a.example", &to, &text);
                        assert!(reply.starts_with("250"), "{reply}");
                    }
                    disk.tell(format!("{name} {}", users.join(" ")));
                }
            });
        }
    });
}

/// What stands in everybody's mailbox: by user and name of the message, how often. A file that is not whole is a failure.
fn mailboxes(daemon: &Daemon, when: &str) -> BTreeMap<(String, String), usize> {
    let mut found = BTreeMap::new();
    for user in (0..USERS).map(|user| format!("u{user}")) {
        let new = daemon
            .dir
            .path()
            .join(format!("postoffice/mail/{user}/new"));
        for entry in fs::read_dir(&new).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            let end = text.lines().last().unwrap_or_default();
            let name = end.strip_prefix("end of ");
            let name =
                name.unwrap_or_else(|| panic!("{when}, {user}: half a message: {text:.200}"));
            assert!(text.contains(&format!("\nSubject: {name}\n")), "{when}");
            *found.entry((user.clone(), name.to_owned())).or_default() += 1;
        }
    }
    found
}

fn check(daemon: &mut Daemon, cut: &Cut) {
    // Before anything is made good: readers of mail see what the cut left.
    mailboxes(daemon, &cut.name);
    daemon.restart();
    let router = daemon.dir.path().join("postoffice/router");
    wait_for("an empty router/", || {
        (fs::read_dir(&router).ok()?.count() == 0).then_some(())
    });
    daemon.wait_until_empty();
    let found = mailboxes(daemon, &cut.name);
    for told in &cut.told {
        let mut words = told.split(' ').map(str::to_owned);
        let name = words.next().unwrap();
        for user in words {
            let times = found.get(&(user.clone(), name.clone()));
            assert_eq!(times, Some(&1), "{}: {name} for {user}", cut.name);
        }
    }
    let doubled = found.iter().find(|(_, times)| **times > 1);
    assert_eq!(doubled, None, "{}", cut.name);
    daemon.kill();
}

fn cut_the_power(bytes: u64, mkfs: &[&str]) {
    if !installed(mkfs[0]) {
        return;
    }
    let mut daemon = prepare(2);
    let dir = daemon.dir.path().to_owned();
    let mut disk = match PowerDisk::mount(&dir, &dir.join("postoffice"), bytes, mkfs) {
        Err(error) => return skip(&format!("no disk to cut the power of: {error}")),
        Ok(disk) => disk,
    };
    for user in 0..USERS {
        for part in ["tmp", "new", "cur"] {
            fs::create_dir_all(dir.join(format!("postoffice/mail/u{user}/{part}"))).unwrap();
        }
    }
    daemon.restart();
    rustix::fs::sync();
    let begun = disk.events();
    send(&daemon, &disk);
    daemon.wait_until_empty();
    daemon.kill();
    let ended = disk.events();
    disk.unmount();
    let mut rng = Rng::new(bytes);
    let cuts = std::env::var("ZMAILER_POWER_CUTS").ok();
    for number in 0..cuts.map_or(CUTS, |cuts| cuts.parse().expect("a number")) {
        // The first one is behind everything.
        let moment = match number {
            0 => ended,
            _ => begun + rng.index(ended - begun),
        };
        let cut = disk.cut(moment, &mut rng).expect("a file system");
        check(&mut daemon, &cut);
        disk.uncut();
    }
}

#[test]
fn a_power_cut_on_ext4_loses_nothing() {
    cut_the_power(96 << 20, &["mkfs.ext4", "-q", "-F", "-J", "size=8"]);
}

#[test]
fn a_power_cut_on_xfs_loses_nothing() {
    cut_the_power(320 << 20, &["mkfs.xfs", "-q", "-f"]);
}

#[test]
fn a_power_cut_on_btrfs_loses_nothing() {
    cut_the_power(256 << 20, &["mkfs.btrfs", "-q", "-f"]);
}
