//! `zmailer start`, `stop`, `restart`, `freeze`, `thaw`: the daemon in the background.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{exit, fail, kill, run};
use crate::config::Config;
use crate::control::client;

/// How long a daemon may take to answer. A long queue is read before it does.
const PATIENCE: Duration = Duration::from_secs(120);

const PAUSE: Duration = Duration::from_millis(50);

/// A failed start shows this much of what the daemon said.
const SHOWN_BYTES: usize = 4096;

/// The flag that forbids starting.
pub(super) fn freeze_flag(config: &Config) -> PathBuf {
    config.paths.postoffice.join(".freeze")
}

/// Refuses when the postoffice is frozen.
pub(super) fn check_thawed(config: &Config) -> Result<(), ExitCode> {
    let flag = freeze_flag(config);
    if flag.exists() {
        let text = format!(
            "frozen: {} exists; `zmailer thaw` allows starting",
            flag.display()
        );
        return Err(fail(exit::UNAVAILABLE, text));
    }
    Ok(())
}

/// Starts the daemon and waits until it answers.
pub(super) fn start(config_path: Option<&Path>, config: &Config) -> ExitCode {
    match start_and_wait(config_path, config) {
        Ok(pid) => {
            println!("zmailer: started, pid {pid}");
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

fn start_and_wait(config_path: Option<&Path>, config: &Config) -> Result<u32, ExitCode> {
    check_thawed(config)?;
    let log = config.paths.log_dir.join("zmailer.log");
    let unusable =
        |error: io::Error| fail(exit::UNAVAILABLE, format!("{}: {error}", log.display()));
    let user = run::validate(config)?;
    run::prepare(config, user).map_err(|error| fail(exit::UNAVAILABLE, error))?;
    let before = fs::metadata(&log).map_or(0, |metadata| metadata.len());
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(unusable)?;
    let mut child = spawn(config_path, file).map_err(|error| {
        fail(
            exit::UNAVAILABLE,
            format!("the daemon cannot be started: {error}"),
        )
    })?;
    let socket = config.paths.postoffice.join("control.sock");
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Ok(Some(status)) = child.try_wait() {
            eprint!("{}", said_since(&log, before));
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Err(fail(
                code.unwrap_or(exit::UNAVAILABLE),
                "the daemon did not start",
            ));
        }
        let answers =
            client::request(&socket, "status").is_ok_and(|status| status["pid"] == child.id());
        if answers {
            return Ok(child.id());
        }
        thread::sleep(PAUSE);
    }
    let text = format!(
        "the daemon, pid {}, does not answer; see {}",
        child.id(),
        log.display()
    );
    Err(fail(75, text))
}

fn spawn(config_path: Option<&Path>, log: fs::File) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("run");
    if let Some(path) = config_path {
        command.arg("--config").arg(path);
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
}

fn said_since(log: &Path, from: u64) -> String {
    let all = fs::read(log).unwrap_or_default();
    let said = all.get(from as usize..).unwrap_or_default();
    let shown = said
        .get(said.len().saturating_sub(SHOWN_BYTES)..)
        .unwrap_or_default();
    String::from_utf8_lossy(shown).into_owned()
}

/// Stops the daemon if it runs, and starts it.
pub(super) fn restart(config_path: Option<&Path>, config: &Config) -> ExitCode {
    if let Err(code) = check_thawed(config) {
        return code;
    }
    let socket = config.paths.postoffice.join("control.sock");
    if client::request(&socket, "status").is_ok() {
        let stopped = kill::run(config);
        if stopped != ExitCode::SUCCESS {
            return stopped;
        }
    }
    start(config_path, config)
}

/// Forbids starting.
pub(super) fn freeze(config: &Config) -> ExitCode {
    let flag = freeze_flag(config);
    match OpenOptions::new().create(true).append(true).open(&flag) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => fail(exit::UNAVAILABLE, format!("{}: {error}", flag.display())),
    }
}

/// Allows starting.
pub(super) fn thaw(config: &Config) -> ExitCode {
    let flag = freeze_flag(config);
    match fs::remove_file(&flag) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            fail(exit::UNAVAILABLE, format!("{}: {error}", flag.display()))
        }
        _ => ExitCode::SUCCESS,
    }
}
