//! A host with users of its own: the daemon is started as root, sees another list of accounts than the rest of the
//! system, and gives up root's rights as it does in service. Needs root, and a kernel that lets it mount.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::daemon::{Daemon, Setup, scratch_dir};
use super::hop::Hop;
use super::{skip, wait_for};

/// Users of the site, all with a group of the same number.
pub const JOE: u32 = 64_001;
pub const ROB: u32 = 64_002;
pub const ROBOT: u32 = 64_003;
pub const NOBODY: u32 = 65_534;

/// Programs in `bin/`. What they tell stands in `out/`.
const PROGRAMS: &[(&str, &str)] = &[
    (
        "take",
        "umask 022\n{ echo \"uid=$(id -u) gid=$(id -g) groups=$(id -G)\"; echo \"words=$#\"; for word; do echo \"word=$word\"; \
         done; echo \"dir=$(pwd)\"; env; echo; cat; } > OUT/.$1.$$ && mv OUT/.$1.$$ OUT/$1",
    ),
    ("with space", "exec BIN/take \"$@\""),
    ("say", "echo 'I do not \"want\"'; echo it >&2; exit $1"),
    ("leave", "exit 0"),
    ("crash", "kill -SEGV $$"),
    ("hang", "sleep 1000 & echo $! > OUT/hang; sleep 1000"),
];

/// A daemon with mailboxes in `mail/`, homes in `home/`, and a next hop for the rest.
pub struct Site {
    pub daemon: Daemon,
    pub hop: Hop,
}

/// A site that has not been started.
pub struct Plan {
    dir: TempDir,
    tail: String,
}

fn give(path: &Path, user: u32, mode: u32) {
    chown(path, Some(user), Some(user)).expect("we are root");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("we are root");
}

impl Plan {
    /// None where the tests cannot act as others, which is said.
    pub fn new() -> Option<Self> {
        let dir = scratch_dir();
        let path = dir.path();
        for (name, mode) in [
            ("", 0o755),
            ("bin", 0o755),
            ("out", 0o1777),
            ("mail", 0o755),
            ("home", 0o755),
            ("full", 0o755),
        ] {
            let path = path.join(name);
            fs::create_dir_all(&path).expect("a scratch directory");
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("our own");
        }
        let mut accounts = format!(
            "root:x:0:0:root:{0}/homes:/bin/sh\ndaemon:x:1:1::/:/bin/sh\nnobody:x:{NOBODY}:{NOBODY}::/nonexistent:/bin/sh\n",
            path.display()
        );
        for (name, user) in [("zmjoe", JOE), ("zmrob", ROB), ("zmrobot", ROBOT)] {
            let home = path.join("home").join(name);
            accounts += &format!("{name}:x:{user}:{user}::{}:/bin/sh\n", home.display());
        }
        fs::write(path.join("passwd"), accounts).expect("a scratch file");
        let plan = Self {
            dir,
            tail: String::new(),
        };
        if !plan.is_possible() {
            skip(
                "acting as other users needs root, setpriv, unshare, mount and a checkout that users can enter",
            );
            return None;
        }
        for (name, user) in [("zmjoe", JOE), ("zmrob", ROB), ("zmrobot", ROBOT)] {
            let home = plan.path("home").join(name);
            fs::create_dir(&home).expect("a scratch directory");
            give(&home, user, 0o700);
        }
        for (name, text) in PROGRAMS {
            plan.file(
                &format!("bin/{name}"),
                &format!("#!/bin/sh\n{text}\n"),
                0,
                0o755,
            );
        }
        Some(plan)
    }

    fn is_possible(&self) -> bool {
        let mut words = self.prefix();
        words.extend(
            [
                "setpriv",
                "--reuid=1",
                "--regid=1",
                "--clear-groups",
                "test",
                "-x",
            ]
            .map(str::to_owned),
        );
        let output = Command::new(&words[0])
            .args(&words[1..])
            .arg(env!("CARGO_BIN_EXE_zmailer"))
            .output();
        output.is_ok_and(|output| output.status.success())
    }

    /// Starts what is behind it where the accounts are ours and `full/` has little room.
    fn prefix(&self) -> Vec<String> {
        let script = "mount --bind \"$0/passwd\" /etc/passwd && mount -t tmpfs -o size=64k,mode=1777 tmpfs \"$0/full\" \
                      && exec \"$@\"";
        let dir = self.dir.path().display().to_string();
        ["unshare", "-m", "sh", "-c", script, &dir]
            .map(str::to_owned)
            .to_vec()
    }

    /// A path of the site.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a file of a user. In its text BIN and OUT are directories, and SITE is what they stand in.
    pub fn file(&self, name: &str, text: &str, user: u32, mode: u32) {
        let dir = self.dir.path().display().to_string();
        let text = text
            .replace("BIN/", &format!("{dir}/bin/"))
            .replace("OUT/", &format!("{dir}/out/"))
            .replace("SITE/", &format!("{dir}/"));
        let path = self.path(name);
        fs::write(&path, text).expect("a scratch file");
        give(&path, user, mode);
    }

    /// More settings.
    pub fn with(mut self, tail: &str) -> Self {
        self.tail += tail;
        self
    }

    /// Starts it.
    pub fn start(self) -> Site {
        let hop = Hop::start();
        let mut setup = Setup::relay_to(hop.address)
            .with("router", "local_domains = [\"home.example\"]")
            .with("daemon", "completion_entries = 4096");
        setup.prefix = self.prefix();
        let mailboxes = self.path("mail").join("{user}");
        setup.tail = format!(
            "[transport.mailbox]\npath = \"{}\"\n{}",
            mailboxes.display(),
            self.tail
        );
        let mut daemon = setup.prepare(self.dir);
        let config = fs::read_to_string(daemon.config()).expect("just written");
        let config = config.replace(
            "user = \"root\"\ncompletion",
            "user = \"daemon\"\ncompletion",
        );
        assert!(config.contains("user = \"daemon\""), "{config}");
        fs::write(daemon.config(), config).expect("a scratch file");
        daemon.restart();
        Site { daemon, hop }
    }
}

impl Site {
    /// A path of the site.
    pub fn path(&self, name: &str) -> PathBuf {
        self.daemon.dir.path().join(name)
    }

    /// Waits for what a program has told.
    pub fn told(&self, name: &str) -> String {
        wait_for(&format!("the program {name}"), || {
            fs::read_to_string(self.path("out").join(name)).ok()
        })
    }

    /// Waits for a line of the mail log that holds all of these.
    pub fn logged(&self, words: &[&str]) -> String {
        wait_for(&format!("{words:?} in the mail log"), || {
            let log = self.daemon.mail_log();
            let mut lines = log.lines();
            let found = lines.find(|line| words.iter().all(|word| line.contains(word)));
            found.map(str::to_owned)
        })
    }

    /// Sends a message to users of the site.
    pub fn send(&self, to: &[&str], letter: &str) {
        let to: Vec<String> = to
            .iter()
            .map(|user| format!("{user}@home.example"))
            .collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        super::client::Client::submit(self.daemon.address, "ann@a.example", &to, letter);
    }

    /// The messages in the Maildir of a user.
    pub fn mails(&self, user: &str) -> Vec<String> {
        let folder = self.path("mail").join(user).join("new");
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let texts = entries.map(|entry| fs::read_to_string(entry.path()).expect("a mail"));
        texts.collect()
    }
}
