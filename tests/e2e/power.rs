//! The power is cut, on real file systems: every message that was acknowledged, by SMTP or by `sendmail`, stands in its
//! mailboxes afterwards, once and whole, or reaches its next hop. `ZMAILER_POWER_CUTS=500` cuts so often on each file
//! system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use spool::sim::Rng;

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, Setup, free_address, scratch_dir};
use crate::harness::hop::Hop;
use crate::harness::power::{Cut, PowerDisk};
use crate::harness::sendmail::{said, sendmail};
use crate::harness::{installed, skip, wait_for};

const USERS: usize = 12;
const CLIENTS: usize = 24;
const EACH: usize = 8;
const CUTS: usize = 12;

/// Each so many messages one goes by `sendmail`.
const SENDMAIL_EVERY: usize = 4;

/// ... and each so many to somebody elsewhere as well, whose host is down.
const FAR_EVERY: usize = 3;

/// Lines of a message; the longest has a file of its own in the spool.
const LINES: [usize; 6] = [10, 100, 100, 400, 1000, 10_000];

/// What a mailbox is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Maildir,
    /// A file of many messages.
    Mbox,
}

/// Spool and mailboxes stand on the disk; everybody elsewhere is served by `hop`.
fn prepare(hop: SocketAddr, format: Format) -> Daemon {
    let dir = scratch_dir();
    let place = dir.path().join("postoffice/mail");
    let mut setup = Setup::relay_to(hop)
        .with("router", "local_domains = [\"home.example\"]")
        .with("spool", "segment_size = \"4MiB\"\nmin_free = \"1B\"");
    setup.tail = format!(
        "[transport.mailbox]\npath = \"{}/{{user}}\"\nformat = \"{}\"\n\
         [[scheduler.rule]]\nmatch = \"smtp/*\"\nretry = [\"1s\"]\n",
        place.display(),
        match format {
            Format::Maildir => "maildir",
            Format::Mbox => "mbox",
        }
    );
    setup.prepare(dir)
}

/// A message by its name, with a last line by which it is known to be whole.
fn letter(name: &str, lines: usize) -> String {
    let text = format!("{name} 0123456789 abcdefghij\r\n").repeat(lines);
    format!("Subject: {name}\r\n\r\n{text}end of {name}\r\n")
}

/// Messages to one to six users each from many clients; what the disk is told are name and recipients.
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
                    let users = first..first + count;
                    let to = users.map(|user| format!("u{}@home.example", user % USERS));
                    let mut to: Vec<String> = to.collect();
                    if (client + number) % FAR_EVERY == 0 {
                        to.push("far@far.example".to_owned());
                    }
                    let text = letter(&name, LINES[rng.index(LINES.len())]);
                    let by_sendmail = (client + number) % SENDMAIL_EVERY == 0;
                    send_one(daemon, &mut connection, &to, &text, by_sendmail);
                    disk.tell(format!("{name} {}", to.join(" ")));
                }
            });
        }
    });
}

fn send_one(
    daemon: &Daemon,
    connection: &mut Client,
    to: &[String],
    text: &str,
    by_sendmail: bool,
) {
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    if by_sendmail {
        let output = sendmail(daemon, &to, text.replace("\r\n", "\n").as_bytes());
        assert!(output.status.success(), "{}", said(&output));
    } else {
        let reply = connection.message("ann@a.example", &to, text);
        assert!(reply.starts_with("250"), "{reply}");
    }
}

/// The name of a message, when that is whole: its last line names it.
fn whole(text: &str) -> Option<String> {
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("Subject: "))?;
    let end = format!("\nend of {name}\n");
    text.replace('\r', "")
        .contains(&end)
        .then(|| name.to_owned())
}

/// The messages of a user.
fn messages(mailbox: &Path) -> Vec<String> {
    if mailbox.is_file() {
        let all = "\n".to_owned() + &fs::read_to_string(mailbox).unwrap();
        // No line of the messages here begins so.
        let messages = all.split("\nFrom ").skip(1);
        return messages.map(str::to_owned).collect();
    }
    let entries = fs::read_dir(mailbox.join("new")).unwrap();
    let texts = entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    texts.collect()
}

/// What stands in everybody's mailbox: by recipient and name of the message, how often.
fn mailboxes(daemon: &Daemon, when: &str) -> BTreeMap<(String, String), usize> {
    let mut found = BTreeMap::new();
    for user in 0..USERS {
        let mail = daemon.dir.path().join("postoffice/mail");
        let mailbox = mail.join(format!("u{user}"));
        for text in messages(&mailbox) {
            match whole(&text) {
                Some(name) => {
                    *found
                        .entry((format!("u{user}@home.example"), name))
                        .or_default() += 1
                }
                // A file of many keeps what was cut off, when others have come behind it.
                None if mailbox.is_file() => {}
                None => panic!("{when}: half a message: {text:.200}"),
            }
        }
    }
    found
}

fn check(daemon: &mut Daemon, format: Format, hop: &Hop, cut: &Cut) {
    if format == Format::Maildir {
        // Before anything is made good: readers of mail see what the cut left.
        mailboxes(daemon, &cut.name);
    }
    // Those from before a start of the host count for nothing; this one has not been started anew.
    for user in 0..USERS {
        let mail = daemon.dir.path().join("postoffice/mail");
        let _ = fs::remove_file(mail.join(format!("u{user}.lock")));
    }
    let earlier = hop.mails().len();
    daemon.restart();
    let router = daemon.dir.path().join("postoffice/router");
    wait_for("an empty router/", || {
        (fs::read_dir(&router).ok()?.count() == 0).then_some(())
    });
    daemon.wait_until_empty();
    let found = mailboxes(daemon, &cut.name);
    let mails = hop.mails().into_iter().skip(earlier);
    let arrived = mails.map(|mail| whole(&String::from_utf8_lossy(&mail.content)));
    let arrived: Option<BTreeSet<String>> = arrived.collect();
    let arrived = arrived.expect("whole messages");
    for told in &cut.told {
        let mut words = told.split(' ').map(str::to_owned);
        let name = words.next().unwrap();
        for to in words {
            let is_there = if to.ends_with("@far.example") {
                arrived.contains(&name)
            } else {
                found.contains_key(&(to.clone(), name.clone()))
            };
            assert!(is_there, "{}: {name} for {to} is lost", cut.name);
        }
    }
    let doubled = found.iter().find(|(_, times)| **times > 1);
    assert_eq!(doubled, None, "{}", cut.name);
    daemon.kill();
}

fn cut_the_power(format: Format, bytes: u64, mkfs: &[&str]) {
    if !installed(mkfs[0]) {
        return;
    }
    let hop = free_address();
    let mut daemon = prepare(hop, format);
    let dir = daemon.dir.path().to_owned();
    let mut disk = match PowerDisk::mount(&dir, &dir.join("postoffice"), bytes, mkfs) {
        Err(error) => return skip(&format!("no disk to cut the power of: {error}")),
        Ok(disk) => disk,
    };
    for user in 0..USERS {
        let mailbox = dir.join(format!("postoffice/mail/u{user}"));
        match format {
            Format::Maildir => ["tmp", "new", "cur"]
                .iter()
                .for_each(|part| fs::create_dir_all(mailbox.join(part)).unwrap()),
            Format::Mbox => {
                fs::create_dir_all(mailbox.parent().unwrap()).unwrap();
                fs::write(mailbox, "").unwrap();
            }
        }
    }
    daemon.restart();
    rustix::fs::sync();
    let begun = disk.events();
    send(&daemon, &disk);
    daemon.kill();
    let hop = Hop::start_on(hop);
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
        check(&mut daemon, format, &hop, &cut);
        disk.uncut();
    }
}

#[test]
fn a_power_cut_on_ext4_loses_nothing() {
    cut_the_power(
        Format::Maildir,
        160 << 20,
        &["mkfs.ext4", "-q", "-F", "-J", "size=8"],
    );
}

#[test]
fn a_power_cut_on_xfs_loses_nothing() {
    cut_the_power(Format::Maildir, 320 << 20, &["mkfs.xfs", "-q", "-f"]);
}

#[test]
fn a_power_cut_on_btrfs_loses_nothing() {
    cut_the_power(Format::Maildir, 256 << 20, &["mkfs.btrfs", "-q", "-f"]);
}

#[test]
fn a_power_cut_under_files_of_many_messages_loses_nothing() {
    let mkfs = ["mkfs.ext4", "-q", "-F", "-J", "size=8"];
    cut_the_power(Format::Mbox, 160 << 20, &mkfs);
}
