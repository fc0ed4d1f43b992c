//! Databases of others, each with a real server: run with `--features databases`. What is not installed is
//! skipped, loudly.

#[cfg(feature = "ldap")]
mod ldap;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "tls")]
mod tls;

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use zmailer::router::relation::{Engine, Question, Reply};

use crate::harness::outside::Outside;
use crate::harness::wait_for;

/// A server of another package; killed with the value.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(command: &mut Command, address: SocketAddr) -> Self {
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let server = Self { child, address };
        wait_for("the server", || TcpStream::connect(address).ok());
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its good end, with this input.
fn run(command: &mut Command, input: &str) {
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// A file that only its owner reads.
fn secret(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("secret");
    fs::write(&path, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&path, mode).unwrap();
    path
}

/// One who asks, with connections that live as long.
struct Asker {
    outside: Outside,
    engine: Engine,
    config: PathBuf,
    log: Log,
}

impl Asker {
    fn new(engine: Engine, dir: &TempDir, settings: &str) -> Self {
        let nobody: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let asker = Self {
            outside: Outside::new(nobody),
            engine,
            config: dir.path().join("settings"),
            log: Log::default(),
        };
        asker.set(settings);
        asker
    }

    /// The settings from now on.
    fn set(&self, settings: &str) {
        fs::write(&self.config, settings).unwrap();
    }

    /// The value, `-` when missing, `later` when nobody can say.
    fn ask(&self, section: &str, key: &[u8]) -> String {
        let question = Question::Engine {
            engine: self.engine,
            config: self.config.as_os_str().as_bytes().to_vec(),
            section: section.into(),
            key: key.to_vec(),
        };
        let log = self.log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || log.clone());
        let reply = tracing::subscriber::with_default(subscriber.finish(), || {
            self.outside.answer(&question)
        });
        match reply {
            Reply::Text(value, _) => String::from_utf8(value).unwrap(),
            Reply::Missing(_) => "-".to_owned(),
            Reply::Later(reason) => {
                assert_eq!(reason, b"IO:error");
                "later".to_owned()
            }
            Reply::List(..) => panic!("a list"),
        }
    }

    /// Section, key, value.
    fn check(&self, rows: &[(&str, &str, &str)]) {
        for (section, key, value) in rows {
            let said = self.ask(section, key.as_bytes());
            assert_eq!(said, *value, "{section} {key}: {}", self.log.text());
        }
    }

    /// A server that goes is missed until it is back.
    fn check_outage(&self, server: Server, serve: impl Fn() -> Server) {
        self.check(&[("", "joe", "joe@host")]);
        let address = server.address;
        drop(server);
        wait_for("the port", || {
            TcpStream::connect(address).is_err().then_some(())
        });
        // An open connection may be answered a moment longer than the port is.
        wait_for("no answer", || {
            (self.ask("", b"joe") == "later").then_some(())
        });
        let _server = serve();
        wait_for("an answer", || {
            (self.ask("", b"joe") == "joe@host").then_some(())
        });
        assert!(self.log.text().contains("the database answers again"));
    }
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Rows that every database has to get right: what is asked is never part of the query.
const HOSTILE: &[(&str, &str, &str)] = &[
    ("", "x' OR '1'='1", "-"),
    ("", "*", "-"),
    ("", "jo%", "-"),
    ("", "joe)(uid=*", "-"),
    ("", "joe\r\nFLUSHALL\r\n", "-"),
    ("", "$(touch x)", "-"),
    ("", "joe", "joe@host"),
];

#[cfg(any(feature = "sqlite", feature = "postgres"))]
const TABLE: &str = "CREATE TABLE aliases (name text, value text);\n\
    INSERT INTO aliases VALUES ('joe', 'joe@host'), ('team', 'a@x'), ('team', 'b@y'), ('none', NULL);\n";
