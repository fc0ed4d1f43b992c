//! The mailbox agent as a process: started by the daemon before it gives up its rights.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;

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

/// Starts the agent, if there are mailboxes. Its socket is bound here and handed over as its standard
/// input, so that it is there before anybody connects.
pub(super) fn start(
    config: &Config,
    config_path: Option<&Path>,
    user: Option<User>,
) -> Result<Option<Child>, ExitCode> {
    if config.mailboxes.is_empty() {
        return Ok(None);
    }
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
    let child = command
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .spawn()
        .map_err(failed)?;
    Ok(Some(child))
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
pub(super) fn watch(mut child: Child, shared: Arc<Shared>) {
    let watching = thread::Builder::new().name("agent".to_owned());
    let spawned = watching.spawn(move || {
        let ended = child.wait();
        tracing::error!("the mailbox agent has ended: {ended:?}; stopping");
        shared.request_stop();
    });
    if let Err(error) = spawned {
        tracing::error!("the mailbox agent is not watched: {error}");
    }
}

/// The agent itself.
pub(super) fn run(config: &Config, uid: u32) -> ExitCode {
    log::start();
    let prepared = process::end_with_parent().and_then(|()| {
        if process::is_root() {
            process::drop_groups()?;
        }
        io::stdin().as_fd().try_clone_to_owned()
    });
    let served = prepared.and_then(|listener| {
        let settings = mailbox::Settings {
            path: config.mailboxes.clone(),
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
