//! The threads of the daemon, one a shard: recovery with plain file calls, then the ring.

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use spool::blocking::BlockingDisk;
use spool::{
    CheckpointUse, Log, MessageKey, RecoverError, Recovered, Recovery, RecoveryReport, Source,
};

use super::daemon::Plan;
use super::routing::RoutePlan;
use super::{absorb, agent, exit, run};
use crate::config::{Config, Durability};
use crate::control::pickup;
use crate::io::ring_driver::{self, RingConfig, RingDriver};
use crate::observe::mail_log::MailLog;
use crate::policy::Policy;
use crate::protocol::{client, server};
use crate::scheduler::{self, Scheduler};
use crate::shard::{Neighbours, Parts, Reload, Settings, Shard, neighbours};

/// Submissions and completions of a shard's ring.
const RING_ENTRIES: u32 = 1024;

/// Receive buffers of a shard: 4 MiB.
const RECEIVE_BUFFERS: u16 = 512;
const RECEIVE_BUFFER_BYTES: u32 = 8192;

/// Lines of mail log a shard keeps in memory.
const MAIL_LOG_BYTES: usize = 4 << 20;

/// Connections of a shard to next hops.
const CONNECTIONS_MAX: usize = 10_000;

type Failure = (u8, String);

/// Starts all shards and waits until they have ended.
pub(super) fn run_all(plan: Plan, listeners: Vec<Vec<TcpListener>>) -> Result<(), Failure> {
    let plan = Arc::new(plan);
    let logs = recover_all(&plan)?;
    pickup::start(plan.pickup(known_files(&logs)))
        .map_err(|error| (exit::UNAVAILABLE, error.to_string()))?;
    let lanes = neighbours(plan.shards);
    let mut threads = Vec::new();
    for (shard, ((listeners, log), lanes)) in listeners.into_iter().zip(logs).zip(lanes).enumerate()
    {
        let worker_plan = Arc::clone(&plan);
        let thread = thread::Builder::new()
            .name(format!("shard {shard}"))
            .spawn(move || work(&worker_plan, shard, listeners, log, lanes))
            .map_err(|error| (exit::UNAVAILABLE, format!("shard {shard}: {error}")))?;
        threads.push(thread);
    }
    let mut result = Ok(());
    for thread in threads {
        match thread.join() {
            Ok(ended) => {
                // One shard that cannot start takes the others with it.
                if ended.is_err() && result.is_ok() {
                    plan.shared.request_stop();
                    result = ended;
                }
            }
            Err(_) => result = Err((70, "a shard has failed".to_owned())),
        }
    }
    result
}

/// Files of `router/` whose messages have been recovered.
fn known_files(logs: &[(Log, Recovered)]) -> HashMap<Source, (u16, MessageKey)> {
    let all = logs.iter().zip(0_u16..).flat_map(|((log, _), shard)| {
        let sources = log.sources();
        sources.map(move |(key, source)| (source, (shard, key)))
    });
    all.collect()
}

fn work(
    plan: &Plan,
    shard: usize,
    listeners: Vec<TcpListener>,
    (log, recovered): (Log, Recovered),
    lanes: Neighbours,
) -> Result<(), Failure> {
    let config = &plan.config;
    let driver = RingDriver::new(RingConfig {
        shard,
        spool_dir: spool_dir(config, shard),
        log_file: Some(log_file(config, shard)),
        listeners,
        doorbells: Arc::clone(&plan.doorbells),
        ring_entries: RING_ENTRIES.min(config.daemon.completion_entries),
        completion_entries: config.daemon.completion_entries,
        receive_buffers: RECEIVE_BUFFERS,
        receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
        sessions_max: plan.sessions_max,
        durability: match config.spool.durability {
            Durability::Sync => ring_driver::Durability::Sync,
            Durability::None => ring_driver::Durability::None,
        },
    })
    .map_err(|error| {
        // Without this shard the daemon is not what was asked for.
        plan.shared.request_stop();
        (exit::UNAVAILABLE, error.to_string())
    })?;
    if driver.is_reduced() {
        plan.report_reduced();
    }
    let parts = parts(plan, shard, lanes)?;
    Shard::new(driver, parts, log, recovered).run();
    Ok(())
}

fn log_file(config: &Config, shard: usize) -> PathBuf {
    config.paths.log_dir.join(format!("mail.{shard}.log"))
}

fn parts(plan: &Plan, shard: usize, lanes: Neighbours) -> Result<Parts, Failure> {
    let config = &plan.config;
    let scheduler = Scheduler::new(scheduler::Settings {
        rules: config.rules.clone(),
        shard: shard as u16,
        shards: plan.shards as u16,
        seed: random(),
    });
    Ok(Parts {
        settings: settings(plan, shard),
        shared: Arc::clone(&plan.shared),
        outside: plan.outside(shard),
        scheduler,
        router: plan.routing.make()(),
        generation: plan.shared.generation(),
        policies: policies(config),
        mail_log: MailLog::new(
            log_file(config, shard).display().to_string(),
            MAIL_LOG_BYTES,
        ),
        neighbours: lanes,
    })
}

/// The policy of each listener.
fn policies(config: &Config) -> Vec<Policy> {
    let all = config.smtpserver.services.iter().flat_map(|service| {
        let trusted = service.trusted_networks.clone();
        let policy = Policy::new(trusted, &run::local_domains(config))
            .with_mailboxes(&run::mailbox_domains(config))
            .with_submission(service.submission);
        std::iter::repeat_n(policy, service.listen.len())
    });
    all.collect()
}

/// The session settings of each listener.
fn services(config: &Config) -> Vec<Arc<server::Settings>> {
    let all = config.smtpserver.services.iter().flat_map(|service| {
        let mut session = service.session.clone();
        session.hostname = hostname(config);
        std::iter::repeat_n(Arc::new(session), service.listen.len())
    });
    all.collect()
}

/// How long the agent's reply may take beyond the time of a program.
const REPLY_NS: u64 = 60_000_000_000;

/// Outgoing sessions: SMTP or LMTP.
fn client_settings(config: &Config, lmtp: bool) -> Arc<client::Settings> {
    let mut session = config.smtp.session.clone();
    if lmtp {
        // The agent's reply comes when a program has ended.
        session.final_ns = session.final_ns.max(config.program.timeout_ns + REPLY_NS);
    }
    Arc::new(client::Settings {
        hostname: hostname(config),
        lmtp,
        ..session
    })
}

/// What a running shard can take of new settings.
pub(super) fn reload(config: &Config, routing: &RoutePlan, generation: u64) -> Reload {
    Reload {
        router: routing.make(),
        generation,
        routings_max: config.router.waiting_max,
        policies: policies(config),
        services: services(config),
        client: client_settings(config, false),
        lmtp: client_settings(config, true),
        rules: config.rules.clone(),
        transaction_recipients_max: config.smtp.recipients_max,
    }
}

fn settings(plan: &Plan, shard: usize) -> Settings {
    let config = &plan.config;
    Settings {
        shard: shard as u16,
        services: services(config),
        hostname: hostname(config),
        client: client_settings(config, false),
        lmtp: client_settings(config, true),
        mailbox_socket: agent::socket(config),
        memory_bytes: config.spool.memory_bytes as usize,
        sessions_max: plan.sessions_max,
        connections_max: CONNECTIONS_MAX,
        transaction_recipients_max: config.smtp.recipients_max,
        routings_max: config.router.waiting_max,
    }
}

/// The name of this host, as configured or as the system says.
pub(super) fn hostname(config: &Config) -> String {
    config.daemon.hostname.clone().unwrap_or_else(|| {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    })
}

fn spool_dir(config: &Config, shard: usize) -> PathBuf {
    config
        .paths
        .postoffice
        .join("spool")
        .join(format!("{shard:04}"))
}

/// Recovers the logs of all shards, after moving into them what directories beyond their number hold.
fn recover_all(plan: &Plan) -> Result<Vec<(Log, Recovered)>, Failure> {
    let config = &plan.config;
    for shard in 0..plan.shards {
        let dir = spool_dir(config, shard);
        fs::create_dir_all(&dir).map_err(|error| unavailable(&dir, error))?;
    }
    let spool = config.paths.postoffice.join("spool");
    absorb::remove_leftovers(&spool).map_err(|error| unavailable(&spool, error))?;
    for surplus in surplus_dirs(config, plan.shards)? {
        absorb_surplus(config, surplus, surplus % plan.shards)?;
    }
    thread::scope(|scope| {
        let starts = (0..plan.shards).map(|shard| {
            let settings = log_settings(config, shard);
            scope.spawn(move || {
                let recovery = Recovery::from_checkpoint(settings);
                recover(&spool_dir(config, shard), recovery)
            })
        });
        // All begin before the first is waited for.
        let starts: Vec<_> = starts.collect();
        let ended = starts.into_iter().map(thread::ScopedJoinHandle::join);
        ended
            .map(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Numbers of the spool directories that no shard has.
fn surplus_dirs(config: &Config, shards: usize) -> Result<Vec<usize>, Failure> {
    let dir = config.paths.postoffice.join("spool");
    let entries = fs::read_dir(&dir).map_err(|error| unavailable(&dir, error))?;
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut numbers: Vec<usize> = names
        .filter_map(|name| name.to_str()?.parse().ok())
        .filter(|number| *number >= shards)
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn absorb_surplus(config: &Config, surplus: usize, shard: usize) -> Result<(), Failure> {
    let (from, into) = (spool_dir(config, surplus), spool_dir(config, shard));
    let (source, found) = recover(&from, Recovery::new(log_settings(config, surplus)))?;
    let (target, present) = recover(&into, Recovery::new(log_settings(config, shard)))?;
    let moved = absorb::absorb((&from, source, &found), (&into, target, &present))
        .map_err(|error| (exit::UNAVAILABLE, format!("{}: {error}", from.display())))?;
    tracing::info!("moved {moved} messages of shard {surplus} to shard {shard}");
    Ok(())
}

/// The log in `dir` and what it holds.
fn recover(dir: &Path, mut recovery: Recovery) -> Result<(Log, Recovered), Failure> {
    let mut disk = BlockingDisk::open(dir).map_err(|error| unavailable(dir, error))?;
    disk.drive(&mut recovery);
    let (log, recovered) = recovery.finish().map_err(|error| {
        let code = match error {
            RecoverError::NewerFormat { .. } => exit::DATA,
            RecoverError::Disk { .. } | RecoverError::Foreign { .. } => exit::UNAVAILABLE,
        };
        (code, format!("{}: {error}", dir.display()))
    })?;
    let report = &recovered.report;
    if log.stats().messages > 0 || report.commits > 0 || !report.damaged.is_empty() {
        tracing::info!(
            messages = log.stats().messages,
            commits = report.commits,
            unfinished = report.torn,
            "recovered {}{}",
            dir.display(),
            begun(&report.checkpoint)
        );
    }
    if let CheckpointUse::Unusable(why) = &report.checkpoint {
        tracing::error!("{}: {why}; the whole log was read instead", dir.display());
    }
    if let CheckpointUse::From {
        unusable: Some(why),
        ..
    } = &report.checkpoint
    {
        tracing::error!("{}: {why}; another one was used instead", dir.display());
    }
    complain(dir, report);
    Ok((log, recovered))
}

fn begun(checkpoint: &CheckpointUse) -> String {
    match checkpoint {
        CheckpointUse::From { covered, .. } => format!(" from the checkpoint of commit {covered}"),
        CheckpointUse::None | CheckpointUse::Unusable(_) => String::new(),
    }
}

/// Tells the operator what is damaged.
fn complain(dir: &Path, report: &RecoveryReport) {
    let dir = dir.display();
    for (segment, offset) in &report.damaged {
        tracing::error!(
            "{dir}: damaged commit in segment {segment} at {offset}; the segment will be set aside"
        );
    }
    for segment in &report.aside {
        tracing::error!(
            "{dir}: segment {segment} is damaged and set aside; its file stays until somebody removes it"
        );
    }
    if report.unclaimed > 0 {
        tracing::error!(
            "{dir}: {} files with content of no known message are kept, since something is damaged",
            report.unclaimed
        );
    }
    for id in &report.missing {
        tracing::error!("{dir}: the file with the content of message {id} is gone");
    }
}

fn log_settings(config: &Config, shard: usize) -> spool::Settings {
    spool::Settings {
        shard: shard as u16,
        segment_bytes: config.spool.segment_bytes,
        segments_max: config.spool.segments_max,
        reserve_segments: config.spool.reserve_segments,
        batch_messages: config.spool.batch_messages,
        batch_bytes: config.spool.batch_bytes,
        commit_delay_ns: config.spool.commit_delay_ns,
        checkpoint_bytes: config.spool.checkpoint_bytes,
        epoch: random(),
        secret: random(),
        ..spool::Settings::default()
    }
}

fn unavailable(dir: &Path, error: std::io::Error) -> Failure {
    (exit::UNAVAILABLE, format!("{}: {error}", dir.display()))
}

/// A number nobody can foresee.
fn random() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_le_bytes(bytes),
        // Cannot happen for eight bytes after boot; ids would repeat, so do not go on.
        _ => unreachable!("the kernel gives eight random bytes"),
    }
}
