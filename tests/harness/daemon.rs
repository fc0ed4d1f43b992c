//! Starts the real binary in a scratch directory and stops it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::client::Client;
use super::wait_for;

/// A daemon with its own directory, on a free port of 127.0.0.1.
pub struct Daemon {
    pub address: SocketAddr,
    pub dir: TempDir,
    /// A command that starts the one behind it.
    prefix: Vec<String>,
    child: Option<Child>,
}

/// The text of a `zmailer.toml` and what a test may want to add to it.
pub struct Setup {
    pub address: SocketAddr,
    pub route: String,
    pub shards: usize,
    /// More lines, by table: `("smtpserver", "recipients_max = 2")`.
    pub extra: Vec<(&'static str, String)>,
    /// Whole tables appended at the end.
    pub tail: String,
    /// See [`Daemon`].
    pub prefix: Vec<String>,
}

impl Setup {
    /// Everything goes to `hop`.
    pub fn relay_to(hop: SocketAddr) -> Self {
        Self {
            address: free_address(),
            route: format!("smtp!{hop}"),
            shards: 2,
            extra: Vec::new(),
            tail: String::new(),
            prefix: Vec::new(),
        }
    }

    /// Adds a line to a table.
    #[must_use]
    pub fn with(mut self, table: &'static str, line: impl Into<String>) -> Self {
        self.extra.push((table, line.into()));
        self
    }

    /// Sets the number of shards.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    fn text(&self, dir: &Path) -> String {
        let lines = |table: &str| -> String {
            let lines = self.extra.iter().filter(|(of, _)| *of == table);
            lines.map(|(_, line)| format!("{line}\n")).collect()
        };
        let listen = if lines("smtpserver").contains("listen =") {
            String::new()
        } else {
            format!("listen = [\"{}\"]\n", self.address)
        };
        format!(
            "[paths]\npostoffice = \"{dir}/postoffice\"\nlog_dir = \"{dir}/log\"\n\
             [daemon]\nshards = {shards}\nhostname = \"mx.test.example\"\nuser = \"{user}\"\n{daemon}\
             [spool]\n{spool}\
             [smtpserver]\n{listen}{smtpserver}\
             [router]\ndefault_route = \"{route}\"\n{router}{tail}",
            dir = dir.display(),
            shards = self.shards,
            user = current_user(),
            daemon = lines("daemon"),
            spool = lines("spool"),
            smtpserver = lines("smtpserver"),
            route = self.route,
            router = lines("router"),
            tail = self.tail,
        )
    }

    /// Writes the configuration into a new directory and starts the daemon.
    pub fn start(self) -> Daemon {
        let mut daemon = self.prepare(scratch_dir());
        daemon.restart();
        daemon
    }

    /// Writes the configuration into `dir`.
    pub fn prepare(self, dir: TempDir) -> Daemon {
        fs::write(dir.path().join("zmailer.toml"), self.text(dir.path())).expect("a scratch file");
        Daemon {
            address: self.address,
            dir,
            prefix: self.prefix,
            child: None,
        }
    }
}

/// A directory below the build directory, so that the spool is on a real file system.
pub fn scratch_dir() -> TempDir {
    let base = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    tempfile::tempdir_in(base).expect("the build directory is writable")
}

/// The daemon's binary.
pub fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_zmailer"))
}

/// An address of which nobody else makes use while this process runs: below the ports that the system
/// gives to sockets without a wish, and never given twice.
pub fn free_address() -> SocketAddr {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let turn = std::process::id().wrapping_mul(997) + GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (turn % 20_000) as u16;
        if let Ok(listener) = std::net::TcpListener::bind(("127.0.0.1", port)) {
            return listener
                .local_addr()
                .expect("a bound socket has an address");
        }
    }
}

fn current_user() -> String {
    let output = Command::new("id")
        .arg("-un")
        .output()
        .expect("id is part of every system");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Daemon {
    /// Starts (again) on the same directory and port and waits until it greets.
    pub fn restart(&mut self) {
        self.spawn();
        wait_for("the daemon's greeting", || {
            self.assert_running();
            let mut client = Client::try_connect(self.address).ok()?;
            client.reply().starts_with("220").then_some(())
        });
    }

    /// Starts without waiting.
    pub fn spawn(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("stderr"))
            .expect("a scratch file");
        let mut words = self.prefix.clone();
        words.push(env!("CARGO_BIN_EXE_zmailer").to_owned());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(["run", "--config"])
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        self.child = Some(child);
    }

    /// Path of the configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("zmailer.toml")
    }

    fn assert_running(&mut self) {
        let child = self.child.as_mut().expect("started");
        if let Ok(Some(status)) = child.try_wait() {
            panic!("the daemon ended with {status}:\n{}", self.stderr());
        }
    }

    /// Waits for the end of the process; gives back its exit code.
    pub fn wait_exit(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("started");
        wait_for("the daemon's end", || {
            child.try_wait().expect("a child can be waited for")
        })
        .code()
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("started").id()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("started");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// SIGTERM; gives back the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait_exit()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .expect("kill exists");
        assert!(sent.success());
    }

    /// What the daemon has written to its standard error.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default()
    }

    /// Its resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("running");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        number.expect("every process has a size")
    }

    /// All lines of the mail log.
    pub fn mail_log(&self) -> String {
        let Ok(entries) = fs::read_dir(self.dir.path().join("log")) else {
            return String::new();
        };
        let mut names: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        names.sort();
        names
            .iter()
            .filter_map(|name| fs::read_to_string(name).ok())
            .collect()
    }

    /// `zmailer status --json`.
    pub fn status(&self) -> serde_json::Value {
        let output = binary()
            .args(["status", "--json", "--config"])
            .arg(self.config())
            .output()
            .expect("the binary starts");
        assert!(
            output.status.success(),
            "status: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).expect("status prints one JSON object")
    }

    /// Waits until nothing is queued.
    pub fn wait_until_empty(&self) {
        wait_for("an empty queue", || {
            (self.status()["queue"]["messages"].as_u64() == Some(0)).then_some(())
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the daemon's stderr ---\n{}", self.stderr());
        }
    }
}
