//! A relay as a child process in a directory of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The relay has to greet within this.
const START: Duration = Duration::from_secs(20);

/// And be gone within this after SIGTERM.
const STOP: Duration = Duration::from_secs(20);

/// Ends with this value, at the latest.
pub(crate) struct Relay {
    child: Child,
    errors: PathBuf,
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended already; that is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Relay {
    /// Starts `command` with these settings and waits until it greets on `address`.
    ///
    /// # Errors
    /// With what it wrote to its standard error.
    pub(crate) fn start(
        command: &Path,
        dir: &Path,
        address: SocketAddr,
        settings: &str,
    ) -> Result<Self, String> {
        let at = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
        fs::create_dir_all(dir).map_err(|error| at(dir, error))?;
        let (config, errors) = (dir.join("zmailer.toml"), dir.join("stderr"));
        fs::write(&config, settings).map_err(|error| at(&config, error))?;
        let log = fs::File::create(&errors).map_err(|error| at(&errors, error))?;
        let child = Command::new(command)
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| at(command, error))?;
        let mut relay = Self { child, errors };
        let deadline = Instant::now() + START;
        while !greets(address) {
            if let Ok(Some(status)) = relay.child.try_wait() {
                return Err(relay.with_errors(&format!("the relay ended with {status}")));
            }
            if Instant::now() > deadline {
                return Err(relay.with_errors("the relay does not greet"));
            }
            sleep(Duration::from_millis(5));
        }
        Ok(relay)
    }

    /// Ends it with SIGTERM; the most memory it had, in MiB.
    ///
    /// # Errors
    /// When it had ended before, does not end, or ends with a bad code.
    pub(crate) fn stop(mut self) -> Result<u64, String> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(self.with_errors(&format!("the relay has ended with {status}")));
        }
        let rss_mib = self.rss_mib()?;
        kill_process(Pid::from_child(&self.child), Signal::TERM)
            .map_err(|error| format!("the relay cannot be told to end: {error}"))?;
        let deadline = Instant::now() + STOP;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(rss_mib),
                Ok(Some(status)) => {
                    return Err(self.with_errors(&format!("the relay ended with {status}")));
                }
                Ok(None) if Instant::now() < deadline => sleep(Duration::from_millis(5)),
                Ok(None) => return Err(self.with_errors("the relay does not end")),
                Err(error) => return Err(format!("the relay: {error}")),
            }
        }
    }

    /// The largest resident set so far (proc(5), `VmHWM`).
    fn rss_mib(&self) -> Result<u64, String> {
        let path = format!("/proc/{}/status", self.child.id());
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        match kib {
            Some(kib) => Ok(kib.div_ceil(1024)),
            None => Err(format!("{path}: no VmHWM")),
        }
    }

    fn with_errors(&self, what: &str) -> String {
        let said = fs::read_to_string(&self.errors).unwrap_or_default();
        if said.is_empty() {
            what.to_owned()
        } else {
            format!("{what}:\n{}", said.trim_end())
        }
    }
}

fn greets(address: SocketAddr) -> bool {
    let greeting = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(START))?;
        let mut start = [0; 3];
        stream.read_exact(&mut start)?;
        stream.write_all(b"QUIT\r\n")?;
        Ok(start == *b"220")
    };
    greeting().unwrap_or(false)
}

/// An address of 127.0.0.1 that nobody uses, below the ports that the system gives to sockets
/// without a wish: a relay that tries a next hop that is down must not connect to itself.
///
/// # Errors
/// When there is none.
pub(crate) fn free_address() -> Result<SocketAddr, String> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    for _ in 0..20_000 {
        let turn = std::process::id()
            .wrapping_mul(997)
            .wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + (turn % 20_000) as u16;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener
                .local_addr()
                .map_err(|error| format!("loopback: {error}"));
        }
    }
    Err("loopback: no port is free".to_owned())
}
