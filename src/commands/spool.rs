//! `zmailer spool`: looks into the spool, running or stopped, and takes messages out of it and in.
//!
//! Looking reads the segments as recovery does and changes nothing. What a running daemon writes
//! meanwhile may be missing; nothing half-written is shown, since every commit is verified.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Subcommand;
use spool::blocking::BlockingDisk;
use spool::{Outcome, RecoveredMessage, Recovery, RecoveryReport, Status};

use super::driven::Driven;
use super::submit::{Submission, SubmitError};
use super::{ConfigArgument, exit, fail, help};
use crate::config::Config;
use crate::mail::line_ends::FromWire;
use crate::mail::message_file::{self, ENVELOPE_BYTES_MAX, FileEnvelope, FileRecipient};

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
    out.write_all(&envelope(message)).map_err(failed)?;
    if message.envelope.body == spool::BodyKind::Binary {
        return driven.read(message, |piece| out.write_all(piece));
    }
    let (mut ends, mut lines) = (FromWire::default(), Vec::new());
    driven.read(message, |piece| {
        lines.clear();
        ends.feed(piece, &mut lines);
        out.write_all(&lines)
    })?;
    lines.clear();
    ends.end(&mut lines);
    out.write_all(&lines).map_err(failed)
}

/// The envelope lines of a message, for the recipients that wait.
fn envelope(message: &RecoveredMessage) -> Vec<u8> {
    let envelope = &message.envelope;
    let client = String::from_utf8_lossy(&envelope.client);
    let helo = String::from_utf8_lossy(&envelope.helo);
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
    message_file::write(&FileEnvelope {
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
    })
}

fn export(config: &Config, id: &str, path: &Path) -> Result<(), ExitCode> {
    let failed =
        |error: io::Error| fail(exit::CANNOT_CREATE, format!("{}: {error}", path.display()));
    let file = File::create_new(path).map_err(failed)?;
    let mut out = BufWriter::with_capacity(64 << 10, file);
    let finished = message(config, id, &mut out).and_then(|arrival_ms| {
        let arrival = SystemTime::UNIX_EPOCH + Duration::from_millis(arrival_ms);
        let file = out
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file.set_modified(arrival).map_err(failed)?;
        file.sync_all().map_err(failed)
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
