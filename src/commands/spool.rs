//! `zmailer spool`: looks into the spool, running or stopped, and takes messages out of it and in.
//!
//! Looking reads the segments as recovery does and changes nothing. What a running daemon writes
//! meanwhile may be missing; nothing half-written is shown, since every commit is verified.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Subcommand;
use spool::blocking::BlockingDisk;
use spool::{Outcome, RecoveredMessage, Recovery, RecoveryReport, Status};

use super::driven::Driven;
use super::submit::Submission;
use super::{ConfigArgument, exit, fail, help};
use crate::config::Config;
use crate::mail::message_file::{self, FileEnvelope, FileRecipient};

/// What `zmailer spool` does.
#[derive(Subcommand)]
pub(super) enum Act {
    /// All messages: id, size, arrival, sender, recipients that wait.
    #[command(after_long_help = help::SPOOL_LS)]
    Ls {
        #[command(flatten)]
        config: ConfigArgument,
    },
    /// A message as a message file: envelope lines, env-end, header, body.
    #[command(after_long_help = help::SPOOL_CAT)]
    Cat {
        #[command(flatten)]
        config: ConfigArgument,
        /// Message id.
        id: String,
    },
    /// Write a message file whose time is the arrival of the message. It stays in the spool.
    #[command(after_long_help = help::SPOOL_EXPORT)]
    Export {
        #[command(flatten)]
        config: ConfigArgument,
        /// Message id.
        id: String,
        /// File to write.
        file: PathBuf,
    },
    /// Submit a message file; its time is the age of the message when root or the daemon's user does it.
    #[command(after_long_help = help::SPOOL_IMPORT)]
    Import {
        #[command(flatten)]
        config: ConfigArgument,
        /// File to read.
        file: PathBuf,
    },
    /// Read and verify everything; exit 65 when something is damaged.
    #[command(after_long_help = help::SPOOL_CHECK)]
    Check {
        #[command(flatten)]
        config: ConfigArgument,
    },
}

/// Runs `zmailer spool`.
pub(super) fn run(act: &Act) -> Result<ExitCode, ExitCode> {
    match act {
        Act::Ls { config } => list(&config.load()?),
        Act::Cat { config, id } => {
            let file = message(&config.load()?, id)?.0;
            let written = io::stdout().lock().write_all(&file);
            written.map_err(|error| fail(exit::IO, error))?;
        }
        Act::Export { config, id, file } => export(&config.load()?, id, file)?,
        Act::Import { config, file } => import(&config.load()?, file)?,
        Act::Check { config } => return check(&config.load()?),
    }
    Ok(ExitCode::SUCCESS)
}

/// The spool of one shard as it is on disk.
struct Shard {
    dir: PathBuf,
    driven: Driven,
    messages: Vec<RecoveredMessage>,
    report: RecoveryReport,
}

/// Reads all shards; one that cannot be read is named and left out.
fn shards(config: &Config) -> Vec<Result<Shard, String>> {
    let dir = config.paths.postoffice.join("spool");
    let mut dirs: Vec<PathBuf> = match fs::read_dir(&dir) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) => return vec![Err(format!("{}: {error}", dir.display()))],
    };
    dirs.retain(|dir| number(dir).is_some());
    dirs.sort();
    dirs.into_iter().map(read).collect()
}

fn number(dir: &Path) -> Option<u16> {
    dir.file_name()?.to_str()?.parse().ok()
}

fn read(dir: PathBuf) -> Result<Shard, String> {
    let settings = spool::Settings {
        shard: number(&dir).unwrap_or(0),
        ..spool::Settings::default()
    };
    let named = |error: String| format!("{}: {error}", dir.display());
    let mut disk = BlockingDisk::open_read_only(&dir).map_err(|error| named(error.to_string()))?;
    let mut recovery = Recovery::new(settings);
    disk.drive(&mut recovery);
    let (log, recovered) = recovery
        .finish()
        .map_err(|error| named(error.to_string()))?;
    Ok(Shard {
        driven: Driven::new(&dir, disk, log),
        messages: recovered.messages,
        report: recovered.report,
        dir,
    })
}

/// The shards that can be read; the others are complained about.
fn readable(config: &Config) -> Vec<Shard> {
    let all = shards(config).into_iter();
    all.filter_map(|shard| {
        shard
            .inspect_err(|error| eprintln!("zmailer: {error}"))
            .ok()
    })
    .collect()
}

fn list(config: &Config) {
    let mut out = io::stdout().lock();
    for message in readable(config).iter().flat_map(|shard| &shard.messages) {
        let arrival = crate::mail::date::format(message.envelope.arrival_ms);
        let sender = String::from_utf8_lossy(&message.envelope.sender);
        let waiting: Vec<_> = waiting(message)
            .map(|recipient| String::from_utf8_lossy(&recipient.address).into_owned())
            .collect();
        // SIGPIPE has ended the process when nobody reads.
        let _ = writeln!(
            out,
            "{} {} {arrival} <{sender}> {}",
            message.id,
            message.content_len,
            waiting.join(" ")
        );
    }
}

/// Recipients without a final outcome.
fn waiting(message: &RecoveredMessage) -> impl Iterator<Item = &spool::Recipient> {
    let is_open = |outcome: &Option<Outcome>| match outcome {
        None => true,
        Some(outcome) => matches!(outcome.status, Status::Deferred | Status::Held),
    };
    let all = message.envelope.recipients.iter().enumerate();
    all.filter(move |(at, _)| message.outcomes.get(*at).is_none_or(is_open))
        .map(|(_, recipient)| recipient)
}

/// A message as a file, and its arrival in milliseconds.
fn message(config: &Config, id: &str) -> Result<(Vec<u8>, u64), ExitCode> {
    for mut shard in readable(config) {
        let found = shard
            .messages
            .iter()
            .find(|message| message.id.to_string() == id);
        if let Some(message) = found {
            let mut content = Vec::new();
            let read = shard.driven.read(message, |piece| {
                content.extend_from_slice(piece);
                Ok(())
            });
            read.map_err(|error| fail(exit::DATA, error))?;
            return Ok((as_file(message, &content), message.envelope.arrival_ms));
        }
    }
    let text =
        format!("no message {id} in the spool; `zmailer trace {id}` may know what became of it");
    Err(fail(exit::UNAVAILABLE, text))
}

fn as_file(message: &RecoveredMessage, content: &[u8]) -> Vec<u8> {
    let envelope = &message.envelope;
    let client = String::from_utf8_lossy(&envelope.client);
    let helo = String::from_utf8_lossy(&envelope.helo);
    let binary = envelope.body == spool::BodyKind::Binary;
    let body_type: &[u8] = match envelope.body {
        spool::BodyKind::SevenBit => b"7BIT",
        spool::BodyKind::EightBit => b"8BITMIME",
        spool::BodyKind::Binary => b"BINARYMIME",
    };
    let recipients = waiting(message).map(|recipient| FileRecipient {
        address: recipient.address.clone(),
        notify: recipient.notify,
        orcpt: recipient.orcpt.clone(),
    });
    let mut file = message_file::write(&FileEnvelope {
        received_from: Some(format!("{helo} ([{client}])").into_bytes()),
        with: Some(envelope.protocol.clone()),
        body_type: Some(body_type.to_vec()),
        sender: Some(envelope.sender.clone()),
        envid: envelope.envid.clone(),
        ret: envelope.ret.map(|ret| match ret {
            spool::Ret::Full => b"FULL".to_vec(),
            spool::Ret::Headers => b"HDRS".to_vec(),
        }),
        comments: vec![format!("spool id {}", message.id).into_bytes()],
        recipients: recipients.collect(),
        ..FileEnvelope::default()
    });
    if binary {
        file.extend_from_slice(content);
    } else {
        file.extend_from_slice(&message_file::from_wire(content));
    }
    file
}

fn export(config: &Config, id: &str, path: &Path) -> Result<(), ExitCode> {
    let (bytes, arrival_ms) = message(config, id)?;
    let written = File::create_new(path).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_millis(arrival_ms))?;
        file.sync_all()
    });
    written.map_err(|error| fail(exit::CANNOT_CREATE, format!("{}: {error}", path.display())))
}

fn import(config: &Config, path: &Path) -> Result<(), ExitCode> {
    let unreadable =
        |error: io::Error| fail(exit::NO_INPUT, format!("{}: {error}", path.display()));
    let bytes = fs::read(path).map_err(unreadable)?;
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let modified = modified.map_err(unreadable)?;
    if let Err(error) = message_file::parse(&bytes) {
        return Err(fail(exit::DATA, format!("{}: {error}", path.display())));
    }
    let submitted = Submission::begin(&config.paths.postoffice).and_then(|mut submission| {
        submission.write(&bytes)?;
        submission.set_arrival(modified)?;
        submission.finish()
    });
    match submitted {
        Ok(_) => Ok(()),
        Err(error) => Err(fail(error.exit_code(), error)),
    }
}

/// Directories of shards that are gone, kept because something in them is damaged.
fn kept(config: &Config) -> Vec<PathBuf> {
    let entries = fs::read_dir(config.paths.postoffice.join("spool"));
    let paths = entries.into_iter().flatten().flatten();
    let paths = paths.map(|entry| entry.path());
    let is_kept = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy());
        name.is_some_and(|name| name.contains(super::absorb::DAMAGED))
    };
    paths.filter(is_kept).collect()
}

/// Verifies every commit and every content.
fn check(config: &Config) -> Result<ExitCode, ExitCode> {
    let mut damaged = false;
    for dir in kept(config) {
        println!("{}: kept, something in it is damaged", dir.display());
        damaged = true;
    }
    for shard in shards(config) {
        let mut shard = match shard {
            Ok(shard) => shard,
            Err(error) => {
                eprintln!("zmailer: {error}");
                damaged = true;
                continue;
            }
        };
        for (segment, offset) in &shard.report.damaged {
            println!(
                "{}: damaged commit in segment {segment} at {offset}",
                shard.dir.display()
            );
            damaged = true;
        }
        for segment in &shard.report.aside {
            println!(
                "{}: segment {segment} is damaged and set aside",
                shard.dir.display()
            );
            damaged = true;
        }
        for id in &shard.report.missing {
            println!(
                "{}: the file with the content of message {id} is gone",
                shard.dir.display()
            );
            damaged = true;
        }
        for message in &shard.messages {
            if let Err(error) = shard.driven.read(message, |_| Ok(())) {
                println!("{}: {error}", shard.dir.display());
                damaged = true;
            }
        }
        println!(
            "{}: {} messages, {} commits, {} bytes read",
            shard.dir.display(),
            shard.messages.len(),
            shard.report.commits,
            shard.report.bytes
        );
    }
    Ok(if damaged {
        ExitCode::from(exit::DATA)
    } else {
        ExitCode::SUCCESS
    })
}
