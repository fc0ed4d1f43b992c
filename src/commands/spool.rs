//! `zmailer spool`: looks into the spool, running or stopped, and takes messages out of it and in.
//!
//! Looking reads the segments as recovery does and changes nothing. What a running daemon writes
//! meanwhile may be missing; nothing half-written is shown, since every commit is verified.

mod check;
mod file;
mod look;
mod salvage;

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use spool::blocking::BlockingDisk;
use spool::{Outcome, RecoveredMessage, Recovery, Status};

use super::driven::Driven;
use super::submit::{Submission, SubmitError};
use super::{ConfigArgument, exit, fail, help};
use crate::config::Config;
use crate::mail::message_file::{self, ENVELOPE_BYTES_MAX};

/// Bytes copied at a time.
const PIECE_BYTES: usize = 64 << 10;

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
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Write every intact message of a damaged spool as a message file; the spool stays as it is.
    #[command(after_long_help = help::SPOOL_SALVAGE)]
    Salvage {
        #[command(flatten)]
        config: ConfigArgument,
        /// A directory with segments [default: all of the postoffice].
        dir: Option<PathBuf>,
        /// The directory to make, for the message files.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// Only what a start of the daemon does not find; also while it runs.
        #[arg(long)]
        missing: bool,
    },
}

/// Runs `zmailer spool`.
pub(super) fn run(act: &Act) -> Result<ExitCode, ExitCode> {
    match act {
        Act::Ls { config } => list(&config.load()?),
        Act::Cat { config, id } => {
            let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
            message(&config.load()?, id, &mut out)?;
            out.flush().map_err(|error| fail(exit::IO, error))?;
        }
        Act::Export { config, id, file } => export(&config.load()?, id, file)?,
        Act::Import { config, file } => import(&config.load()?, file)?,
        Act::Check { config, json } => return check::check(&config.load()?, *json),
        Act::Salvage {
            config,
            dir,
            to,
            missing,
        } => return salvage::salvage(&config.load()?, dir.as_deref(), to, *missing),
    }
    Ok(ExitCode::SUCCESS)
}

/// The spool of one shard as it is on disk.
struct Shard {
    driven: Driven,
    messages: Vec<RecoveredMessage>,
}

/// The directories of shards.
fn directories(config: &Config) -> Result<Vec<PathBuf>, String> {
    let dir = config.paths.postoffice.join("spool");
    let entries = fs::read_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut dirs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    dirs.retain(|dir| number(dir).is_some());
    dirs.sort();
    Ok(dirs)
}

/// Reads all shards; one that cannot be read is named and left out.
fn shards(config: &Config) -> Vec<Result<Shard, String>> {
    match directories(config) {
        Ok(dirs) => dirs.into_iter().map(read).collect(),
        Err(error) => vec![Err(error)],
    }
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
fn waiting(message: &RecoveredMessage) -> impl Iterator<Item = spool::Recipient> {
    let all = 0..message.envelope.recipients_count();
    all.filter(|at| waits(message, *at))
        .filter_map(|at| message.envelope.recipient(at))
}

fn waits(message: &RecoveredMessage, recipient: usize) -> bool {
    let is_open = |outcome: &Option<Outcome>| match outcome {
        None => true,
        Some(outcome) => matches!(outcome.status, Status::Deferred | Status::Held),
    };
    message.outcomes.get(recipient).is_none_or(is_open)
}

/// Writes a message as a file, in pieces; gives back its arrival in milliseconds.
fn message(config: &Config, id: &str, out: &mut impl Write) -> Result<u64, ExitCode> {
    for mut shard in readable(config) {
        let found = shard
            .messages
            .iter()
            .find(|message| message.id.to_string() == id);
        if let Some(message) = found {
            let written = write_file(&mut shard.driven, message, out);
            written.map_err(|error| fail(exit::DATA, error))?;
            return Ok(message.envelope.arrival_ms);
        }
    }
    let text =
        format!("no message {id} in the spool; `zmailer trace {id}` may know what became of it");
    Err(fail(exit::UNAVAILABLE, text))
}

fn write_file(
    driven: &mut Driven,
    message: &RecoveredMessage,
    out: &mut impl Write,
) -> Result<(), String> {
    let failed = |error: io::Error| format!("message {}: {error}", message.id);
    let (id, envelope) = (message.id, &message.envelope);
    let writer = file::Writer::begin(out, id, envelope, |at| waits(message, at));
    let mut writer = writer.map_err(failed)?;
    driven.read(message, |piece| writer.feed(piece))?;
    writer.end().map_err(failed)?;
    Ok(())
}

fn export(config: &Config, id: &str, path: &Path) -> Result<(), ExitCode> {
    let failed =
        |error: io::Error| fail(exit::CANNOT_CREATE, format!("{}: {error}", path.display()));
    let file = File::create_new(path).map_err(failed)?;
    let mut out = BufWriter::with_capacity(64 << 10, file);
    let finished = message(config, id, &mut out).and_then(|arrival_ms| {
        let file = out
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file::settle(&file, arrival_ms).map_err(failed)
    });
    if finished.is_err() {
        // Half of a message looks like one. What cannot be removed has been complained about already.
        let _ = fs::remove_file(path);
    }
    finished
}

fn import(config: &Config, path: &Path) -> Result<(), ExitCode> {
    let unreadable =
        |error: io::Error| fail(exit::NO_INPUT, format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(unreadable)?;
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    let modified = modified.map_err(unreadable)?;
    let mut piece = start(&mut file, path)?;
    let refused = |error: SubmitError| fail(error.exit_code(), error);
    let mut submission = Submission::begin(&config.paths.postoffice).map_err(refused)?;
    while !piece.is_empty() {
        submission.write(&piece).map_err(refused)?;
        piece.clear();
        let mut next = (&mut file).take(PIECE_BYTES as u64);
        next.read_to_end(&mut piece).map_err(unreadable)?;
    }
    submission.set_arrival(modified).map_err(refused)?;
    submission.finish().map_err(refused)?;
    Ok(())
}

/// Reads a message file as far as its envelope goes, which must be good.
fn start(file: &mut File, path: &Path) -> Result<Vec<u8>, ExitCode> {
    let mut bytes = Vec::new();
    loop {
        // Twice as much each time, so reading again from the start costs little.
        let wanted = bytes.len().max(PIECE_BYTES) as u64;
        let read = file.take(wanted).read_to_end(&mut bytes);
        let read =
            read.map_err(|error| fail(exit::NO_INPUT, format!("{}: {error}", path.display())))?;
        match message_file::parse(&bytes) {
            Ok(_) => return Ok(bytes),
            Err(error) if error.is_short && read > 0 && bytes.len() <= 2 * ENVELOPE_BYTES_MAX => {}
            Err(error) => return Err(fail(exit::DATA, format!("{}: {error}", path.display()))),
        }
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
