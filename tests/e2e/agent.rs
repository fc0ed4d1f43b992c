//! The mailbox agent, spoken to by LMTP as the daemon does.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::harness::PATIENCE;
use crate::harness::daemon::{Daemon, Setup, free_address, scratch_dir};

const USERS: [&str; 3] = ["zmann", "zmjoe", "zmmary"];

fn with_mailboxes() -> Daemon {
    let dir = scratch_dir();
    let mail = dir.path().join("mail");
    for user in USERS {
        for part in ["tmp", "new", "cur"] {
            fs::create_dir_all(mail.join(user).join(part)).unwrap();
        }
    }
    let mut setup =
        Setup::relay_to(free_address()).with("router", "local_domains = [\"home.example\"]");
    setup.tail = format!(
        "[transport.mailbox]\npath = \"{}/{{user}}\"\n",
        mail.display()
    );
    let mut daemon = setup.prepare(dir);
    daemon.restart();
    daemon
}

fn files(daemon: &Daemon, user: &str, part: &str) -> Vec<PathBuf> {
    let folder = daemon.dir.path().join("mail").join(user).join(part);
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

struct Lmtp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Lmtp {
    fn connect(socket: &Path) -> Self {
        let writer = UnixStream::connect(socket).expect("the agent listens");
        writer.set_read_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::new(writer.try_clone().unwrap());
        let mut client = Self { reader, writer };
        client.expect("220");
        client.say("LHLO c.example\r\n", "250");
        client
    }

    fn expect(&mut self, code: &str) {
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).unwrap();
            assert!(line.starts_with(code), "{line:?} instead of {code}");
            if line.as_bytes().get(3) == Some(&b' ') {
                return;
            }
        }
    }

    fn say(&mut self, text: &str, code: &str) {
        self.writer.write_all(text.as_bytes()).unwrap();
        self.expect(code);
    }

    /// One message, known to the spool by `id` and arrived at `arrival_ms`.
    fn deliver(&mut self, id: &str, arrival_ms: u64, user: &str, letter: &str) {
        let mail = format!("MAIL FROM:<ann@a.example> XSPOOLID={id}.{arrival_ms}\r\n");
        self.say(&mail, "250");
        self.say(&format!("RCPT TO:<{user}@home.example>\r\n"), "250");
        self.say("DATA\r\n", "354");
        self.say(&format!("{letter}.\r\n"), "250 2.1.5");
    }
}

fn connect(daemon: &Daemon) -> Lmtp {
    Lmtp::connect(&daemon.dir.path().join("postoffice/mailbox.sock"))
}

fn stored(user: &str, letter: &str) -> String {
    let start = format!("Return-Path: <ann@a.example>\nDelivered-To: {user}@home.example\n");
    start + &letter.replace("\r\n", "\n")
}

/// What may stand under the name of a message that comes again, and whether that stays.
#[test]
fn a_repeat_makes_good_what_is_incomplete_and_doubles_nothing() {
    type Left = fn(&str) -> String;
    let cases: [(&str, Left, bool); 7] = [
        ("all of it", str::to_owned, true),
        (
            "by another address",
            |mail| mail.replace("zmjoe@", "zmjoe+list@"),
            true,
        ),
        (
            "with a field of a filter",
            |mail| format!("X-Label: a\n{mail}"),
            true,
        ),
        ("nothing", |_| String::new(), false),
        (
            "half of it",
            |mail| mail[..mail.len() / 2].to_owned(),
            false,
        ),
        (
            "all but a byte",
            |mail| mail[..mail.len() - 1].to_owned(),
            false,
        ),
        (
            "a hole at the end",
            |mail| mail[..4096].to_owned() + &"\0".repeat(mail.len() - 4096),
            false,
        ),
    ];
    let daemon = with_mailboxes();
    let mut agent = connect(&daemon);
    let letter = "Subject: s\r\n\r\n".to_owned() + &"0123456789abcde\r\n".repeat(10_000);
    let good = stored("zmjoe", &letter);
    for (number, (what, left, stays)) in cases.iter().enumerate() {
        let id = format!("ID{number}");
        // Long before the agent's start.
        agent.deliver(&id, 1_000, "zmjoe", &letter);
        let [path] = &files(&daemon, "zmjoe", "new")[..] else {
            panic!("{what}: not one file");
        };
        assert_eq!(fs::read_to_string(path).unwrap(), good, "{what}");
        let before = left(&good);
        fs::write(path, &before).unwrap();
        let inode = fs::metadata(path).unwrap().ino();
        agent.deliver(&id, 1_000, "zmjoe", &letter);
        assert_eq!(
            files(&daemon, "zmjoe", "new"),
            std::slice::from_ref(path),
            "{what}"
        );
        let expected = if *stays { &before } else { &good };
        let found = fs::read_to_string(path).unwrap();
        assert!(found == *expected, "{what}: {} bytes", found.len());
        assert_eq!(fs::metadata(path).unwrap().ino() == inode, *stays, "{what}");
        assert_eq!(files(&daemon, "zmjoe", "tmp").len(), 0, "{what}");
        fs::remove_file(path).unwrap();
    }
}

/// Many connections at a time, small and large messages: syncs of directories shared in all ways.
#[test]
fn messages_at_the_same_time_stand_whole_in_their_mailboxes() {
    const CONNECTIONS: usize = 48;
    const EACH: usize = 6;
    let daemon = with_mailboxes();
    let letter = |number: usize| {
        let lines = [1, 60, 500, 20_000][number % 4];
        format!("Subject: number {number}\r\n\r\n") + &"0123456789abcde\r\n".repeat(lines)
    };
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let mut agent = connect(&daemon);
            scope.spawn(move || {
                for round in 0..EACH {
                    let number = connection * EACH + round;
                    let user = USERS[number % USERS.len()];
                    agent.deliver(&format!("N{number}"), u64::MAX / 2, user, &letter(number));
                }
            });
        }
    });
    for (remainder, user) in USERS.iter().enumerate() {
        let all = files(&daemon, user, "new");
        let mut found: Vec<_> = all
            .iter()
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        let numbers = (0..CONNECTIONS * EACH).filter(|number| number % USERS.len() == remainder);
        let mut expected: Vec<_> = numbers
            .map(|number| stored(user, &letter(number)))
            .collect();
        found.sort();
        expected.sort();
        assert!(found == expected, "{user}: {} files", found.len());
        assert_eq!(files(&daemon, user, "tmp").len(), 0, "{user}");
    }
}

/// The recipients of one transaction are delivered to together; each reply is the recipient's own.
#[test]
fn each_of_many_recipients_has_his_own_reply() {
    const MANY: usize = 100;
    let daemon = with_mailboxes();
    let mail = daemon.dir.path().join("mail");
    for number in 0..MANY {
        // What is missing is made, whatever is missing; a file in its place is in the way.
        let parts: &[&str] = match number % 10 {
            0 => &[],
            1 => &["tmp"],
            2 => &["new", "cur"],
            _ => &["tmp", "new", "cur"],
        };
        let maildir = mail.join(format!("many{number}"));
        fs::create_dir(&maildir).unwrap();
        for part in parts {
            fs::create_dir(maildir.join(part)).unwrap();
        }
        if number % 10 == 3 {
            fs::remove_dir(maildir.join("new")).unwrap();
            fs::write(maildir.join("new"), "not a directory").unwrap();
        }
    }
    let mut agent = connect(&daemon);
    let arrival_ms = u64::MAX / 2;
    agent.say(
        &format!("MAIL FROM:<ann@a.example> XSPOOLID=MANY.{arrival_ms}\r\n"),
        "250",
    );
    for number in 0..MANY {
        agent.say(&format!("RCPT TO:<many{number}@home.example>\r\n"), "250");
    }
    agent.say("DATA\r\n", "354");
    let letter = "Subject: s\r\n\r\ntext\r\n";
    agent
        .writer
        .write_all(format!("{letter}.\r\n").as_bytes())
        .unwrap();
    for number in 0..MANY {
        agent.expect(if number % 10 == 3 {
            "451 4.2.0"
        } else {
            "250 2.1.5"
        });
    }
    for number in (0..MANY).filter(|number| number % 10 != 3) {
        let user = format!("many{number}");
        let [path] = &files(&daemon, &user, "new")[..] else {
            panic!("{user}: not one file");
        };
        assert_eq!(fs::read_to_string(path).unwrap(), stored(&user, letter));
        assert_eq!(files(&daemon, &user, "tmp").len(), 0, "{user}");
    }
}
