//! Redis, with a server of its own.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use zmailer::router::relation::Engine;

use super::tls::{Certificates, PASSWORD};
use super::{Asker, HOSTILE, Server, run, secret};
use crate::harness::daemon::{free_address, scratch_dir};
use crate::harness::installed;

fn here() -> bool {
    installed("redis-server") && installed("redis-cli")
}

/// On a plain port, with further words.
fn serve(dir: &Path, address: SocketAddr, words: &[String]) -> Server {
    let port = address.port().to_string();
    let mut command = Command::new("redis-server");
    let command = command
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", ""])
        .args(words);
    let server = Server::start(command.current_dir(dir), address);
    let values = [
        &["SET", "a:joe:x", "joe@host"][..],
        &["HSET", "users", "team", "a@x"],
    ];
    for words in values {
        let mut command = Command::new("redis-cli");
        run(command.args(["-e", "-p", &port]).args(words), "");
    }
    server
}

/// Words for an encrypted port too; `clients`: whether they have to show a certificate.
fn encrypts(certificates: &Certificates, port: u16, clients: &str) -> Vec<String> {
    let words = format!(
        "--tls-port {port} --tls-cert-file {} --tls-key-file {} --tls-ca-cert-file {} --tls-auth-clients {clients}",
        certificates.path("server.pem"),
        certificates.path("server.key"),
        certificates.path("ca.pem")
    );
    words.split(' ').map(str::to_owned).collect()
}

#[test]
fn redis() {
    if !here() {
        return;
    }
    let dir = scratch_dir();
    let address = free_address();
    let serve = || serve(dir.path(), address, &[]);
    let server = serve();
    let settings =
        format!("uri redis://{address}/0\nkey a:%s:x\nhash.users users\nkey.wrong users\n");
    let asker = Asker::new(Engine::Redis, &dir, &settings);
    asker.check(HOSTILE);
    asker.check(&[
        ("users", "team", "a@x"),
        ("users", "joe", "-"),
        ("wrong", "x", "later"),
    ]);
    assert_eq!(
        (asker.ask("", b"\xff\0"), asker.ask("nosuch", b"x")),
        ("-".into(), "later".into())
    );
    asker.check_outage(server, serve);
}

#[test]
fn redis_encrypted() {
    if !here() || !installed("openssl") {
        return;
    }
    let dir = scratch_dir();
    let certificates = Certificates::new(dir.path(), |program| Command::new(program));
    let (plain, port) = (free_address(), free_address().port());
    let words = encrypts(&certificates, port, "no");
    let serve = || serve(dir.path(), plain, &words);
    let server = serve();
    let settings = format!("uri rediss://localhost:{port}\nkey a:%s:x\n");
    let asker = Asker::new(Engine::Redis, &dir, &settings);
    certificates.check(&asker, &settings);
    asker.check_outage(server, serve);
}

/// A server that wants a certificate and a password from us.
#[test]
fn redis_wants_to_know_us() {
    if !here() || !installed("openssl") {
        return;
    }
    let dir = scratch_dir();
    let certificates = Certificates::new(dir.path(), |program| Command::new(program));
    let (plain, port) = (free_address(), free_address().port());
    let words = encrypts(&certificates, port, "yes");
    let _server = serve(dir.path(), plain, &words);
    let mut command = Command::new("redis-cli");
    let plain = plain.port().to_string();
    let set = ["-e", "-p", &plain, "CONFIG", "SET", "requirepass", PASSWORD];
    run(command.args(set), "");
    let tls_ca = certificates.path("ca.pem");
    let settings = format!("uri rediss://localhost:{port}\nkey a:%s:x\ntls_ca {tls_ca}\n");
    let file = secret(dir.path(), &format!("{PASSWORD}\n"));
    let password = format!("passwd_file {}\n", file.display());
    let ours = format!(
        "tls_cert {}\ntls_key {}\n",
        certificates.path("client.pem"),
        certificates.path("client.key")
    );
    let asker = Asker::new(Engine::Redis, &dir, "");
    let rows = [
        (format!("{settings}{password}"), "later"),
        (format!("{settings}{ours}"), "later"),
        (format!("{settings}{ours}{password}"), "joe@host"),
    ];
    for (settings, wanted) in rows {
        asker.set(&settings);
        asker.check(&[("", "joe", wanted)]);
    }
    fs::write(&file, "wrong\n").unwrap();
    let last = fs::read_to_string(&asker.config).unwrap();
    asker.set(&format!("{last}# a new connection\ntimeout 6\n"));
    asker.check(&[("", "joe", "later")]);
    assert!(!asker.log.text().contains(PASSWORD), "{}", asker.log.text());
}

/// Lets connections through until the first one freezes.
struct Proxy {
    address: SocketAddr,
    frozen: Arc<AtomicBool>,
    /// Both ends of the first connection: they must not close.
    _first: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            frozen: Arc::default(),
            _first: Arc::default(),
        };
        let (frozen, first) = (Arc::clone(&proxy.frozen), Arc::clone(&proxy._first));
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let ends = [client.unwrap(), TcpStream::connect(server).unwrap()];
                if number == 0 {
                    let kept = ends.iter().map(|end| end.try_clone().unwrap());
                    first.lock().unwrap().extend(kept);
                }
                for (from, to) in [(0, 1), (1, 0)] {
                    let (from, to) = (&ends[from], &ends[to]);
                    let ends = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let frozen = (number == 0).then(|| Arc::clone(&frozen));
                    thread::spawn(move || pass(ends.0, ends.1, frozen));
                }
            }
        });
        proxy
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, frozen: Option<Arc<AtomicBool>>) {
    use std::io::{Read, Write};
    let mut buffer = [0; 4096];
    while let Ok(1..) = from.peek(&mut buffer) {
        if frozen
            .as_ref()
            .is_some_and(|frozen| frozen.load(Ordering::SeqCst))
        {
            return;
        }
        let len = from.read(&mut buffer).unwrap_or(0);
        if to.write_all(&buffer[..len]).is_err() {
            return;
        }
    }
}

/// A connection that a firewall has forgotten was asked for ever, each time in vain.
#[test]
fn a_connection_that_is_silent_is_given_up() {
    if !here() {
        return;
    }
    let dir = scratch_dir();
    let address = free_address();
    let _server = serve(dir.path(), address, &[]);
    let proxy = Proxy::start(address);
    let settings = format!("timeout 1\nuri redis://{}\nkey a:%s:x\n", proxy.address);
    let asker = Asker::new(Engine::Redis, &dir, &settings);
    asker.check(&[("", "joe", "joe@host"), ("", "joe", "joe@host")]);
    proxy.frozen.store(true, Ordering::SeqCst);
    asker.check(&[("", "joe", "later"), ("", "joe", "joe@host")]);
}

/// A database that takes the connection and says nothing must not hold mail for longer than its limit.
#[test]
fn silence_ends() {
    let dir = scratch_dir();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let asker = Asker::new(
        Engine::Redis,
        &dir,
        &format!("timeout 1\nuri redis://{address}\nkey %s\n"),
    );
    assert_eq!(asker.ask("", b"joe"), "later");
}
