//! `sendmail`: takes a message from standard input and submits it (zmailer.md 6.1).
//!
//! It needs no privilege and no daemon. Exit 0 means that the message is on disk; any other code, named
//! by sysexits, that nothing was submitted. One message a run.
//!
//! The end of input is the end of the message. A program that dies half-way cannot be told from one
//! that is done, as with every sendmail; one that must not have half of its message sent speaks SMTP
//! to `-bs`, where a message without its final dot is forgotten.

mod input;
mod options;
mod recipients;
mod smtp;

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use super::submit::{Submission, SubmitError};
use super::{exit, fail, help};
use crate::config::{self, Config};
use crate::control::client::{self, ControlError};
use crate::mail::message_file::{self, FileEnvelope, FileRecipient};
use input::{Input, Limits, Waiting};
use options::{Mode, Options};

/// How long `-v` waits for the daemon to take the message.
const TAKEN_PATIENCE: Duration = Duration::from_secs(10);

/// Runs with the arguments behind the program's name.
pub(super) fn run(arguments: &[Vec<u8>]) -> ExitCode {
    let done = options(arguments).and_then(|options| match options.mode {
        Mode::Submit => submit_one(&options),
        _ => other(&options),
    });
    done.unwrap_or_else(|code| code)
}

/// Submits a message, or says what is wrong with the arguments; None when they ask for something else.
pub(super) fn submit_only(arguments: &[Vec<u8>]) -> Option<ExitCode> {
    let done = match options(arguments) {
        Ok(options) if options.mode != Mode::Submit => return None,
        Ok(options) => submit_one(&options),
        Err(code) => Err(code),
    };
    Some(done.unwrap_or_else(|code| code))
}

fn options(arguments: &[Vec<u8>]) -> Result<Options, ExitCode> {
    options::parse(arguments).map_err(|what| fail(exit::USAGE, format!("sendmail: {what}")))
}

fn settings(options: &Options) -> Result<Config, ExitCode> {
    for flag in &options.ignored {
        eprintln!("sendmail: {flag} is ignored");
    }
    config::load(options.config.as_deref()).map_err(|errors| {
        for error in &errors {
            eprintln!("sendmail: {error}");
        }
        ExitCode::from(exit::CONFIG)
    })
}

fn submit_one(options: &Options) -> Result<ExitCode, ExitCode> {
    let config = settings(options)?;
    submit(&config, options, Waiting(io::stdin().lock()))
        .map_err(|refusal| fail(refusal.code, format!("sendmail: {}", refusal.text)))?;
    Ok(ExitCode::SUCCESS)
}

/// What is no submission of one message.
fn other(options: &Options) -> Result<ExitCode, ExitCode> {
    if options.mode == Mode::Help {
        // A reader that has left needs no help.
        let _ = writeln!(io::stdout(), "{}\n{}", help::SENDMAIL_USAGE, help::SENDMAIL);
        return Ok(ExitCode::SUCCESS);
    }
    let config = settings(options)?;
    match &options.mode {
        Mode::Submit | Mode::Help => Ok(ExitCode::SUCCESS),
        Mode::Smtp => Ok(smtp::run(&config)),
        Mode::Queue => super::queue::mailq(&super::queue::Mailq::default()),
        Mode::Retry(filter) => Ok(retry(&config, filter, options.verbose)),
        Mode::Daemon => Ok(super::start::start(options.config.as_deref(), &config)),
        Mode::Aliases => Ok(super::database::newaliases(
            &super::database::Newaliases::of(options.config.clone()),
        )),
    }
}

/// Why nothing was submitted.
#[derive(Debug)]
struct Refusal {
    code: u8,
    text: String,
}

fn refusal(code: u8, text: impl Into<String>) -> Refusal {
    let text = text.into();
    Refusal { code, text }
}

impl From<SubmitError> for Refusal {
    fn from(error: SubmitError) -> Self {
        refusal(error.exit_code(), error.to_string())
    }
}

/// Reads the message and hands it over.
fn submit(config: &Config, options: &Options, input: impl Read) -> Result<(), Refusal> {
    let session = &config.smtpserver.services[0].session;
    let limits = Limits {
        header_bytes: session.header_bytes_max,
        received: session.received_max,
        message_bytes: session.message_bytes_max,
    };
    let mut input = Input::new(input, !options.ignore_dots);
    let head = input.head(options.keep_from_line, limits)?;
    let recipients = recipients::of(options, &head)?;
    let count = recipients.len();
    let mut submission = Submission::begin(&config.paths.postoffice)?;
    submission.write(&message_file::write(&envelope(options, recipients)))?;
    submission.write(&head)?;
    let mut line = Vec::with_capacity(input::PIECE_BYTES);
    while input.piece(&mut line)? {
        if input.wire_bytes() > limits.message_bytes {
            let text = format!(
                "the message is larger than {} bytes; it was not submitted",
                limits.message_bytes
            );
            return Err(refusal(exit::DATA, text));
        }
        submission.write(&line)?;
    }
    let name = submission.finish()?;
    if options.verbose {
        let bytes = input.wire_bytes();
        println!("{name}: {bytes} bytes for {count} recipients are on disk");
        println!("{name}: {}", fate(&config.paths.postoffice, &name));
    }
    Ok(())
}

/// What becomes of a submitted file, as far as its user may see.
fn fate(postoffice: &Path, name: &str) -> String {
    let file = postoffice.join("router").join(name);
    let until = Instant::now() + TAKEN_PATIENCE;
    while file.symlink_metadata().is_ok() {
        if Instant::now() >= until {
            return "no daemon takes it now; it waits in router/".to_owned();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let prefix = format!("rtr.{name}.");
    let odd = postoffice.join("postman").read_dir().ok();
    let odd = odd.and_then(|mut entries| {
        entries.find_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.starts_with(&prefix).then_some(name)
        })
    });
    match odd {
        Some(name) => format!("the daemon does not understand it and has put it to postman/{name}"),
        None => "the daemon has taken it".to_owned(),
    }
}

fn envelope(options: &Options, recipients: Vec<FileRecipient>) -> FileEnvelope {
    FileEnvelope {
        external: options.external,
        with: options.with.clone(),
        body_type: options.body_type.clone(),
        full_name: options
            .full_name
            .clone()
            .or_else(|| std::env::var("NAME").ok().map(String::into_bytes)),
        sender: options.sender.clone(),
        envid: options.envid.clone(),
        ret: options.ret.clone(),
        recipients,
        ..FileEnvelope::default()
    }
}

/// `-q`: what waits is tried now.
fn retry(config: &Config, filter: &str, verbose: bool) -> ExitCode {
    let socket = config.paths.postoffice.join("control.sock");
    let request = json!({ "command": "queue", "act": "retry", "where": filter });
    match client::request_entries(&socket, &request, |_| Ok(())) {
        Ok(total) => {
            if verbose {
                println!("{} recipients are tried now", total["acted"]);
            }
            ExitCode::SUCCESS
        }
        Err(ControlError::Refused(text)) => fail(exit::PERMISSION, format!("sendmail: -q: {text}")),
        Err(ControlError::Io(_, error)) if error.kind() == io::ErrorKind::PermissionDenied => fail(
            exit::PERMISSION,
            "sendmail: -q: only root and the daemon's user may ask for it",
        ),
        Err(error) => fail(exit::UNAVAILABLE, format!("sendmail: -q: {error}")),
    }
}
