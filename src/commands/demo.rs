//! `zmailer demo`: the whole relay on loopback, in a directory of its own.
//!
//! The real binary runs as a child with a written configuration; the load generator is another
//! child. So what is measured is what would be installed.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{exit, fail};
use crate::control::client;
use crate::sys::{filesystem, process};

/// The daemon has to be ready within this.
const START: Duration = Duration::from_secs(10);

/// And gone within this.
const STOP: Duration = Duration::from_secs(10);

/// Writes that the flush time is the median of.
const FLUSH_ROUNDS: usize = 51;

/// Arguments.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Messages.
    #[arg(long, default_value_t = 20_000)]
    messages: u64,
    /// Bytes of a message.
    #[arg(long, default_value_t = 4096)]
    size: u64,
    /// Connections at a time.
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Where to work; a directory of its own is made below it and removed.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs it. Exit code 1: a message was lost, duplicated or altered.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let dir = arguments.dir.join(format!("demo.{}", std::process::id()));
    let outcome = play(arguments, &dir);
    let removed = fs::remove_dir_all(&dir);
    match (outcome, removed) {
        (Ok(result), Ok(())) => conclude(arguments, &result),
        (Err(error), _) => fail(exit::UNAVAILABLE, error),
        (Ok(_), Err(error)) => fail(exit::UNAVAILABLE, format!("{}: {error}", dir.display())),
    }
}

/// The daemon's process; ends with this value.
struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already; that is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn play(arguments: &Arguments, dir: &Path) -> Result<Value, String> {
    let at = |error: io::Error| format!("{}: {error}", dir.display());
    fs::create_dir_all(dir).map_err(at)?;
    let file_system = filesystem::of(dir).map_err(at)?;
    let flush_ns = filesystem::flush_ns(dir, FLUSH_ROUNDS).map_err(at)?;
    let (relay, sink) = (free_address()?, free_address()?);
    let config = dir.join("zmailer.toml");
    fs::write(&config, settings(dir, relay, sink)).map_err(at)?;
    let mut daemon = start(dir, &config)?;
    let mut result = load(arguments, relay, sink)?;
    let status = client::request(&daemon.socket, "status").map_err(|error| error.to_string())?;
    stop(&mut daemon)?;
    let count = |path: &str| status.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
    let acknowledged = result["acknowledged"].as_f64().unwrap_or(0.0).max(1.0);
    result["commits_per_message"] = json!(count("/spool/commits") / acknowledged);
    result["flushes_per_message"] = json!(count("/spool/flushes") / acknowledged);
    result["file_system"] = json!(file_system.name);
    result["flush_us"] = json!(flush_ns / 1000);
    Ok(result)
}

fn free_address() -> Result<SocketAddr, String> {
    let listener =
        TcpListener::bind("127.0.0.1:0").map_err(|error| format!("loopback: {error}"))?;
    listener
        .local_addr()
        .map_err(|error| format!("loopback: {error}"))
}

fn settings(dir: &Path, relay: SocketAddr, sink: SocketAddr) -> String {
    let user = process::own_name().map_or_else(String::new, |name| format!("user = {name:?}\n"));
    let postoffice = dir.join("postoffice");
    let logs = dir.join("log");
    format!(
        "[paths]\npostoffice = {postoffice:?}\nlog_dir = {logs:?}\n[daemon]\nhostname = \"demo.example\"\n{user}\
         [smtpserver]\nlisten = [\"{relay}\"]\n[router]\ndefault_route = \"smtp!{sink}\"\n"
    )
}

fn start(dir: &Path, config: &Path) -> Result<Daemon, String> {
    let binary = std::env::current_exe().map_err(|error| error.to_string())?;
    let errors = dir.join("stderr");
    let log =
        fs::File::create(&errors).map_err(|error| format!("{}: {error}", errors.display()))?;
    let child = Command::new(binary)
        .args(["run", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(|error| format!("the daemon: {error}"))?;
    let mut daemon = Daemon {
        child,
        socket: dir.join("postoffice/control.sock"),
    };
    let deadline = Instant::now() + START;
    while client::request(&daemon.socket, "status").is_err() {
        let ended = daemon.child.try_wait().map_err(|error| error.to_string())?;
        if ended.is_some() || Instant::now() > deadline {
            let said = fs::read_to_string(&errors).unwrap_or_default();
            return Err(format!("the daemon did not start:\n{said}"));
        }
        sleep(Duration::from_millis(5));
    }
    Ok(daemon)
}

fn stop(daemon: &mut Daemon) -> Result<(), String> {
    client::request(&daemon.socket, "stop").map_err(|error| error.to_string())?;
    let deadline = Instant::now() + STOP;
    loop {
        match daemon.child.try_wait().map_err(|error| error.to_string())? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("the daemon ended with {status}")),
            None if Instant::now() > deadline => return Err("the daemon does not stop".to_owned()),
            None => sleep(Duration::from_millis(5)),
        }
    }
}

/// Source and sink around the relay; their report.
fn load(arguments: &Arguments, relay: SocketAddr, sink: SocketAddr) -> Result<Value, String> {
    let binary = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(binary)
        .args(["loadgen", "run", "--json", "--progress"])
        .args(["--relay", &relay.to_string(), "--sink", &sink.to_string()])
        .args(["--messages", &arguments.messages.to_string()])
        .args(["--size", &arguments.size.to_string()])
        .args(["--connections", &arguments.connections.to_string()])
        .stdin(Stdio::null())
        .stderr(if arguments.json {
            Stdio::null()
        } else {
            Stdio::inherit()
        })
        .output()
        .map_err(|error| format!("the load generator: {error}"))?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("the load generator said {:?}: {error}", output.status))
}

fn conclude(arguments: &Arguments, result: &Value) -> ExitCode {
    if arguments.json {
        println!("{result}");
    } else {
        print_result(result);
    }
    let zero = |key: &str| result[key].as_u64() == Some(0);
    let all = result["acknowledged"] == result["messages"];
    if all && zero("lost") && zero("duplicated") && zero("altered") {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn print_result(result: &Value) {
    let number = |path: &str| result.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
    println!(
        "file system  {}, flush {} us",
        result["file_system"].as_str().unwrap_or("?"),
        number("/flush_us")
    );
    println!(
        "rate         {:.0} messages/s, each synced before its 250",
        number("/rate_per_second")
    );
    println!(
        "latency      p50 {} us, p99 {} us, p99.9 {} us",
        number("/latency_us/p50"),
        number("/latency_us/p99"),
        number("/latency_us/p999")
    );
    println!(
        "per message  {:.3} commits, {:.3} flushes",
        number("/commits_per_message"),
        number("/flushes_per_message")
    );
    println!(
        "ledger       {} acknowledged, {} delivered, {} lost, {} duplicated, {} altered",
        number("/acknowledged"),
        number("/delivered"),
        number("/lost"),
        number("/duplicated"),
        number("/altered")
    );
}
