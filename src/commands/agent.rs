//! The mailbox agent as a process: started by the daemon before it gives up its rights.

use std::fs::{self, File};
use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{exit, fail, worker};
use crate::agents::mailbox;
use crate::config::Config;
use crate::observe::log;
use crate::shard::Shared;
use crate::sys::process::{self, User};

/// Where the agent listens.
pub(super) fn socket(config: &Config) -> PathBuf {
    config.paths.postoffice.join("mailbox.sock")
}

/// A running agent, and what keeps it alive.
pub(super) struct Agent {
    child: Child,
    life: PipeWriter,
}

/// Starts the agent. Its socket is bound here and handed over as its standard
/// input, so that it is there before anybody connects.
///
/// Its standard output is the end of a pipe on which nothing ever comes: when the daemon is gone, in
/// whatever way, the pipe ends, and so does the agent. A signal at the parent's death would not do: a
/// daemon that has given up its rights may not signal root.
pub(super) fn start(
    config: &Config,
    config_path: Option<&Path>,
    user: Option<User>,
) -> Result<Agent, ExitCode> {
    let path = socket(config);
    let failed = |error: io::Error| {
        let text = format!("mailbox agent, {}: {error}", path.display());
        fail(exit::UNAVAILABLE, text)
    };
    let listener = bind(&path, user).map_err(failed)?;
    let uid = user.map_or_else(|| rustix::process::geteuid().as_raw(), |user| user.uid);
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.arg("agent").arg("--uid").arg(uid.to_string());
    if let Some(path) = config_path {
        command.arg("--config").arg(path);
    }
    let (end, life) = io::pipe().map_err(failed)?;
    let child = command
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::from(OwnedFd::from(end)))
        .spawn()
        .map_err(failed)?;
    Ok(Agent { child, life })
}

fn bind(path: &Path, user: Option<User>) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    if let Some(user) = user {
        chown(path, Some(user.uid), Some(user.gid))?;
    }
    Ok(listener)
}

/// Without its agent the daemon stops: somebody with the rights to has to start both.
pub(super) fn watch(agent: Agent, shared: Arc<Shared>) {
    let Agent { mut child, life } = agent;
    let watching = thread::Builder::new().name("agent".to_owned());
    let spawned = watching.spawn(move || {
        let ended = child.wait();
        drop(life);
        tracing::error!("the mailbox agent has ended: {ended:?}; stopping");
        shared.request_drain();
    });
    if let Err(error) = spawned {
        tracing::error!("the mailbox agent is not watched: {error}");
    }
}

/// Ends this process when the pipe on standard output ends.
fn end_with_daemon() -> io::Result<()> {
    let life = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let waiting = thread::Builder::new().name("life".to_owned());
    waiting.spawn(move || {
        // An error is an end, too.
        let _ = io::copy(&mut &life, &mut io::sink());
        mailbox::end_all();
        std::process::exit(0);
    })?;
    Ok(())
}

/// The file of the settings by a path that is good in any directory.
fn settings_file(named: Option<&Path>) -> Option<PathBuf> {
    let named = named.map(Path::to_owned);
    let path = named.or_else(|| std::env::var_os("ZMAILER_CONFIG").map(PathBuf::from))?;
    Some(fs::canonicalize(&path).unwrap_or(path))
}

/// The agent itself.
pub(super) fn run(config: &Config, config_path: Option<&Path>, uid: u32) -> ExitCode {
    log::start();
    // A signal to all processes of the service must not end it before the daemon has: the pipe does.
    process::ignore_stop_signals();
    let prepared = end_with_daemon().and_then(|()| {
        if process::is_root() {
            process::drop_groups()?;
        }
        io::stdin().as_fd().try_clone_to_owned()
    });
    let served = prepared.and_then(|listener| {
        let settings = mailbox::Settings {
            path: config.mailboxes.clone(),
            is_mbox: config.mbox,
            program_user: config.program.user.clone(),
            program_time: Duration::from_nanos(config.program.timeout_ns),
            config: settings_file(config_path),
            hostname: worker::hostname(config),
            scratch: config.paths.postoffice.clone(),
            daemon_uid: uid,
        };
        mailbox::serve(&UnixListener::from(listener), settings)
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(exit::UNAVAILABLE, format!("mailbox agent: {error}")),
    }
}
