//! `zmailer run`: the daemon in the foreground.
//!
//! Order: settings, limits, lock, listeners, identity, then threads and rings; whatever is wrong is
//! found before the first client is greeted.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use super::daemon::{Daemon, Plan};
use super::routing::{self, RoutePlan};
use super::{agent, exit, fail, listen, worker};
use crate::config::{Config, Durability};
use crate::control;
use crate::control::script::rights::Rights;
use crate::observe::log;
use crate::ring;
use crate::sys::process::User;
use crate::sys::{accounts, filesystem, limits, lock, process};

/// Directories of the postoffice.
const DIRECTORIES: [&str; 7] = [
    "spool", "public", "router", "input", "freezer", "postman", "deferred",
];

/// Descriptors a shard needs besides its sessions.
const OTHER_DESCRIPTORS: u64 = 512;

/// Runs until it is stopped.
pub(super) fn run(config_path: Option<&Path>, config: &Config) -> ExitCode {
    log::start();
    match start(config_path, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}

/// What a start checks about the settings beyond their form.
pub(super) fn validate(config: &Config) -> Result<Option<User>, ExitCode> {
    match (&config.daemon.user, process::is_root()) {
        (None, true) => Err(fail(
            exit::CONFIG,
            "started as root: set daemon.user in [daemon] to the user to run as",
        )),
        (Some(name), true) => {
            let user = process::user(name)
                .map_err(|error| fail(exit::CONFIG, format!("daemon.user: {error}")))?;
            check_program_user(&config.program.user)?;
            Ok(Some(user))
        }
        (_, false) => Ok(None),
    }
}

const USUAL_PROGRAM_USER: &str = "nobody";

/// Programs and files of root's get this account: it must be there, and not be root. Without the usual one a relay that
/// has no programs goes on; programs wait then.
fn check_program_user(name: &str) -> Result<(), ExitCode> {
    let wrong = |text: String| fail(exit::CONFIG, format!("transport.program.user: {text}"));
    match accounts::by_name(name) {
        Err(error) => Err(wrong(format!("{name:?} cannot be looked up: {error}"))),
        Ok(None) if name == USUAL_PROGRAM_USER => Ok(()),
        Ok(None) => Err(wrong(format!("there is no user {name:?}"))),
        Ok(Some(account)) if account.uid == 0 => Err(wrong(format!("{name} is root"))),
        Ok(Some(_)) => Ok(()),
    }
}

fn start(config_path: Option<&Path>, config: &Config) -> Result<(), ExitCode> {
    let user = validate(config)?;
    super::start::check_thawed(config)?;
    let files = limits::raise_open_files();
    limits::raise_locked_memory();
    // Before there is a thread that needs one: a thread that fails can only abort.
    ring::probe().map_err(|error| fail(exit::UNAVAILABLE, error))?;
    prepare(config, user).map_err(|error| fail(exit::UNAVAILABLE, error))?;
    let postoffice = &config.paths.postoffice;
    let _lock = lock::take(postoffice).map_err(|error| fail(exit::UNAVAILABLE, error))?;
    let shards = if config.daemon.shards == 0 {
        limits::cores()
    } else {
        config.daemon.shards
    };
    let addresses: Vec<_> = config
        .smtpserver
        .services
        .iter()
        .flat_map(|service| &service.listen)
        .copied()
        .collect();
    let listeners =
        listen::bind(&addresses, shards).map_err(|error| fail(exit::UNAVAILABLE, error))?;
    // The agent keeps the rights that the daemon gives up.
    let agent = agent::start(config, config_path, user)?;
    if let Some(user) = user {
        process::become_user(user).map_err(|error| fail(exit::UNAVAILABLE, error))?;
    }
    report_file_system(config);
    let sessions_max = sessions_max(config, files, shards as u64);
    tracing::info!(
        shards,
        open_files = files,
        sessions_max,
        "zmailer {} starts",
        env!("CARGO_PKG_VERSION")
    );
    let routing = RoutePlan::load(config).map_err(|error| fail(exit::CONFIG, error))?;
    let plan = Plan::new(config, routing, shards, sessions_max)
        .map_err(|error| fail(exit::UNAVAILABLE, error))?;
    agent::watch(agent, Arc::clone(&plan.shared));
    // Whoever was not root has no more rights than we.
    let rights = user.map(|_| Rights::at(&agent::socket(config)));
    serve(config_path, config, plan, listeners, rights)
}

fn serve(
    config_path: Option<&Path>,
    config: &Config,
    plan: Plan,
    listeners: Vec<Vec<std::net::TcpListener>>,
    rights: Option<Rights>,
) -> Result<(), ExitCode> {
    let postoffice = &config.paths.postoffice;
    let daemon = Arc::new(Daemon::new(&plan, config_path));
    let setup = control::Setup {
        socket: postoffice.join("control.sock"),
        postman: postoffice.join("postman"),
        deferred: postoffice.join("deferred"),
        oracle: routing::oracle(config, Arc::clone(&plan.watched), rights),
        dns_servers: config.dns_servers.clone(),
        hostname: worker::hostname(config),
        mailboxes: config.mailboxes.clone(),
        space: plan.watch_space(),
        answers: Arc::clone(&daemon) as _,
        daemon: Arc::clone(&daemon) as _,
    };
    let socket = setup.socket.clone();
    control::start(setup, Arc::clone(&plan.requests))
        .map_err(|error| fail(exit::UNAVAILABLE, error))?;
    let result = worker::run_all(plan, listeners);
    // Left behind it would look like a daemon that does not answer.
    let _ = fs::remove_file(socket);
    result.map_err(|(code, error)| fail(code, error))
}

/// Makes the directories and gives them to the daemon's user.
pub(super) fn prepare(config: &Config, user: Option<User>) -> Result<(), String> {
    let postoffice = &config.paths.postoffice;
    let mut made: Vec<PathBuf> = DIRECTORIES
        .iter()
        .map(|name| postoffice.join(name))
        .collect();
    made.insert(0, postoffice.clone());
    made.push(config.paths.log_dir.clone());
    for dir in &made {
        make_dir(dir, user).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    Ok(())
}

fn make_dir(dir: &Path, user: Option<User>) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    // Submission needs to enter public/ and router/ without reading them (design, part 3).
    let open = dir.ends_with("public") || dir.ends_with("router");
    fs::set_permissions(
        dir,
        fs::Permissions::from_mode(if open { 0o3773 } else { 0o755 }),
    )?;
    match user {
        Some(user) => chown(dir, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    }
}

fn report_file_system(config: &Config) {
    let dir = &config.paths.postoffice;
    match filesystem::of(dir) {
        Ok(found) => match found.warning {
            Some(warning) => tracing::warn!("the spool is on {}: {warning}", found.name),
            None => tracing::info!("the spool is on {}", found.name),
        },
        Err(error) => tracing::warn!("the spool's file system is not known: {error}"),
    }
    if config.spool.durability == Durability::None {
        tracing::warn!("durability = \"none\": a 250 is not on disk; a power cut loses mail");
    }
}

/// Clients a shard can serve with the descriptors there are.
fn sessions_max(config: &Config, files: u64, shards: u64) -> usize {
    let share = files.saturating_sub(OTHER_DESCRIPTORS) / shards.max(1) / 2;
    let wanted = config.smtpserver.sessions_max;
    if share < wanted {
        tracing::info!("{files} open files allow {share} sessions a shard, not {wanted}");
    }
    share.min(wanted).max(1) as usize
}

/// Domains everybody may send to: with mailboxes here, this host's own names belong to them.
pub(super) fn local_domains(config: &Config) -> Vec<String> {
    let mut domains = config.router.local_domains.clone();
    domains.extend(mailbox_domains(config));
    domains
}

/// Domains whose recipients are users of this host: all local ones without a route of their own.
pub(super) fn mailbox_domains(config: &Config) -> Vec<String> {
    if config.mailboxes.is_empty() {
        return Vec::new();
    }
    let routed = |domain: &String| {
        let mut routes = config.router.routes.iter();
        routes.any(|(of, _)| of.eq_ignore_ascii_case(domain))
    };
    let own = [worker::hostname(config), "localhost".to_owned()];
    let mut domains = config.router.local_domains.clone();
    domains.extend(own);
    domains.retain(|domain| !routed(domain));
    domains
}
