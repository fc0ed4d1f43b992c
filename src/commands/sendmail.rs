//! `sendmail`: takes a message from standard input and submits it (zmailer.md 6.1).
//!
//! It needs no privilege and no daemon. Exit 0 means that the message is on disk. One message a run.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::ExitCode;

use super::submit::{Submission, SubmitError};
use super::{exit, fail, help};
use crate::config::{self, Config};
use crate::mail::header;
use crate::mail::message_file::{self, FileEnvelope, FileRecipient, notify};
use crate::sys::process;

/// Piece in which the body is copied.
const PIECE_BYTES: usize = 64 << 10;

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    mode: Mode,
    from_header: bool,
    ignore_dots: bool,
    keep_from_line: bool,
    external: bool,
    verbose: bool,
    sender: Option<Vec<u8>>,
    full_name: Option<Vec<u8>>,
    body_type: Option<Vec<u8>>,
    notify: Option<u8>,
    ret: Option<Vec<u8>>,
    envid: Option<Vec<u8>>,
    with: Option<Vec<u8>>,
    config: Option<std::path::PathBuf>,
    recipients: Vec<Vec<u8>>,
    ignored: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Submit,
    Smtp,
    Queue,
    Daemon,
    Aliases,
}

/// Runs with the arguments behind the program's name.
pub(super) fn run(arguments: &[Vec<u8>]) -> ExitCode {
    let mut flags = arguments.iter().take_while(|word| *word != b"--");
    if flags.any(|word| word == b"--help") {
        // A reader that has left needs no help.
        let _ = writeln!(io::stdout(), "{}\n{}", help::SENDMAIL_USAGE, help::SENDMAIL);
        return ExitCode::SUCCESS;
    }
    let options = match options(arguments) {
        Ok(options) => options,
        Err(what) => return fail(exit::USAGE, format!("sendmail: {what}")),
    };
    for flag in &options.ignored {
        eprintln!("sendmail: {flag} is ignored");
    }
    let config = match config::load(options.config.as_deref()) {
        Ok(config) => config,
        Err(errors) => {
            for error in &errors {
                eprintln!("sendmail: {error}");
            }
            return ExitCode::from(exit::CONFIG);
        }
    };
    match options.mode {
        Mode::Submit => match submit(&config, &options, io::stdin().lock()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(refusal) => fail(refusal.code, format!("sendmail: {}", refusal.text)),
        },
        Mode::Smtp => super::sendmail_smtp::run(&config),
        Mode::Queue => match super::queue::mailq(&super::queue::Mailq::default()) {
            Ok(code) | Err(code) => code,
        },
        Mode::Daemon => super::start::start(options.config.as_deref(), &config),
        Mode::Aliases => fail(
            exit::UNAVAILABLE,
            "sendmail: -bi: this version has no alias database",
        ),
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

fn unreadable(error: io::Error) -> Refusal {
    let text = format!("standard input: {error}; the message was not submitted");
    refusal(74, text)
}

/// Reads the message and hands it over.
fn submit(config: &Config, options: &Options, input: impl Read) -> Result<(), Refusal> {
    let header_bytes_max = config.smtpserver.services[0].session.header_bytes_max;
    let bytes_max = config.smtpserver.services[0].session.message_bytes_max;
    let mut input = Input {
        reader: BufReader::with_capacity(PIECE_BYTES, input),
        dot_ends: !options.ignore_dots,
        ended: false,
    };
    let head = head(&mut input, options.keep_from_line, header_bytes_max)?;
    let recipients = recipients(options, &head)?;
    let mut submission = Submission::begin(&config.paths.postoffice)?;
    submission.write(&message_file::write(&envelope(options, recipients)))?;
    submission.write(&head)?;
    let mut size = head.len() as u64;
    let mut line = Vec::with_capacity(PIECE_BYTES);
    while input.piece(&mut line).map_err(unreadable)? {
        size += line.len() as u64;
        if size > bytes_max {
            let text =
                format!("the message is larger than {bytes_max} bytes; it was not submitted");
            return Err(refusal(65, text));
        }
        submission.write(&line)?;
    }
    submission.finish()?;
    Ok(())
}

/// The header and the empty line behind it. A message without a header gets that line.
fn head(
    input: &mut Input<impl Read>,
    keep_from: bool,
    bytes_max: usize,
) -> Result<Vec<u8>, Refusal> {
    let mut head = Vec::with_capacity(4096);
    let mut line = Vec::new();
    let mut first = true;
    while input.piece(&mut line).map_err(unreadable)? {
        if std::mem::take(&mut first) && line.starts_with(b"From ") && !keep_from {
            continue;
        }
        let continues = !head.is_empty() && matches!(line.first(), Some(b' ' | b'\t'));
        let whole = line.ends_with(b"\n") || input.ended;
        if !continues && header::fields(&line).next().is_none() && whole {
            if line != b"\n" && line != b"\r\n" {
                head.push(b'\n');
            }
            head.extend_from_slice(&line);
            return Ok(head);
        }
        head.extend_from_slice(&line);
        if head.len() > bytes_max {
            let text = format!(
                "the header is larger than {bytes_max} bytes; the message was not submitted"
            );
            return Err(refusal(65, text));
        }
    }
    if !head.is_empty() && !head.ends_with(b"\n") {
        head.push(b'\n');
    }
    head.push(b'\n');
    Ok(head)
}

/// Standard input by lines or pieces of lines.
struct Input<R> {
    reader: BufReader<R>,
    dot_ends: bool,
    ended: bool,
}

impl<R: Read> Input<R> {
    /// The next line, or a piece of a long one; false at the end.
    fn piece(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        let inside = !line.is_empty() && !line.ends_with(b"\n");
        line.clear();
        if self.ended {
            return Ok(false);
        }
        let mut limited = (&mut self.reader).take(PIECE_BYTES as u64);
        limited.read_until(b'\n', line)?;
        let dot = self.dot_ends && !inside && (line == b".\n" || line == b".\r\n" || line == b".");
        if line.is_empty() || dot {
            self.ended = true;
            line.clear();
            return Ok(false);
        }
        Ok(true)
    }
}

fn recipients(options: &Options, head: &[u8]) -> Result<Vec<FileRecipient>, Refusal> {
    let mut addresses: Vec<Vec<u8>> = options
        .recipients
        .iter()
        .flat_map(|argument| header::addresses(argument))
        .collect();
    // ZMailer and every sendmail: -t, or nobody named, means the header.
    let from_header = options.from_header || options.recipients.is_empty();
    if from_header {
        addresses.extend(header::recipients(head));
    }
    let mut unique: Vec<Vec<u8>> = Vec::with_capacity(addresses.len());
    let mut seen = std::collections::HashSet::new();
    for address in addresses {
        if seen.insert(address.clone()) {
            unique.push(address);
        }
    }
    if unique.is_empty() {
        let (code, text) = if from_header {
            (
                65,
                "no recipients: the header has no To, Cc or Bcc with an address, and none is named on the command line",
            )
        } else {
            (64, "no recipients: the arguments name no address")
        };
        return Err(refusal(
            code,
            format!("{text}; the message was not submitted"),
        ));
    }
    let notify = options.notify.unwrap_or(0);
    let all = unique.into_iter().map(|address| FileRecipient {
        address,
        notify,
        orcpt: None,
    });
    Ok(all.collect())
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
        login_name: process::own_name().map(String::into_bytes),
        sender: options.sender.clone(),
        envid: options.envid.clone(),
        ret: options.ret.clone(),
        recipients,
        ..FileEnvelope::default()
    }
}

/// Flags that take an argument, attached or as the next word.
const WITH_ARGUMENT: &[u8] = b"BCFfhLMNOoPpRrVXxA";
/// Flags whose argument, if any, is attached.
const ATTACHED: &[u8] = b"bdeqn";

/// Takes the command line apart in getopt's way.
fn options(arguments: &[Vec<u8>]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == b"--" {
            options.recipients.extend(words.cloned());
            break;
        }
        if word == b"--config" {
            let path = words.next().ok_or("--config needs a file")?;
            options.config = Some(String::from_utf8_lossy(path).into_owned().into());
            continue;
        }
        let Some(flags) = word.strip_prefix(b"-").filter(|flags| !flags.is_empty()) else {
            options.recipients.push(word.clone());
            continue;
        };
        let mut at = 0;
        while let Some(flag) = flags.get(at).copied() {
            at += 1;
            let rest = flags.get(at..).unwrap_or_default();
            let argument = if WITH_ARGUMENT.contains(&flag) {
                at = flags.len();
                let given = if rest.is_empty() {
                    words.next().cloned()
                } else {
                    Some(rest.to_vec())
                };
                given.ok_or_else(|| format!("-{} needs an argument", char::from(flag)))?
            } else if ATTACHED.contains(&flag) {
                at = flags.len();
                rest.to_vec()
            } else {
                Vec::new()
            };
            options.flag(flag, argument)?;
        }
    }
    Ok(options)
}

impl Options {
    fn flag(&mut self, flag: u8, argument: Vec<u8>) -> Result<(), String> {
        let shown = format!(
            "-{}{}",
            char::from(flag),
            String::from_utf8_lossy(&argument)
        );
        match (flag, argument.as_slice()) {
            (b'b', b"m") => self.mode = Mode::Submit,
            (b'b', b"s") => self.mode = Mode::Smtp,
            (b'b', b"p") => self.mode = Mode::Queue,
            (b'b', b"d" | b"D") => self.mode = Mode::Daemon,
            (b'b', b"i") => self.mode = Mode::Aliases,
            (b'b', _) => {
                return Err(format!(
                    "{shown}: no such mode; there are -bm -bs -bp -bd -bi"
                ));
            }
            (b't', _) => self.from_header = true,
            (b'i', _) | (b'o', b"i") => self.ignore_dots = true,
            (b's', _) => self.keep_from_line = true,
            (b'E', _) => self.external = true,
            (b'v', _) => self.verbose = true,
            (b'f' | b'r', address) => self.sender = Some(sender(address)?),
            (b'F', _) => self.full_name = Some(argument),
            (b'B', kind) => self.body_type = Some(body_type(kind)?),
            (b'N', words) => self.notify = Some(notify(words)?),
            (b'R', ret) => self.ret = Some(return_of(ret)?),
            (b'V', _) => self.envid = Some(argument),
            (b'p', _) => {
                self.with = Some(
                    argument
                        .split(|byte| *byte == b':')
                        .next()
                        .unwrap_or_default()
                        .to_vec(),
                )
            }
            (b'C', _) => self.config = Some(String::from_utf8_lossy(&argument).into_owned().into()),
            // Known from other sendmails, without meaning here.
            (
                b'm' | b'e' | b'q' | b'O' | b'o' | b'J' | b'x' | b'U' | b'P' | b'L' | b'X' | b'A'
                | b'G',
                _,
            ) => {}
            (b'h' | b'n' | b'd' | b'M', _) => self.ignored.push(shown),
            _ => return Err(format!("{shown}: no such option")),
        }
        Ok(())
    }
}

fn sender(argument: &[u8]) -> Result<Vec<u8>, String> {
    if argument.is_empty() || argument == b"<>" {
        return Ok(Vec::new());
    }
    match header::addresses(argument).as_slice() {
        [address] => Ok(address.clone()),
        _ => Err(format!(
            "-f takes one address, not {:?}",
            String::from_utf8_lossy(argument)
        )),
    }
}

fn body_type(kind: &[u8]) -> Result<Vec<u8>, String> {
    let upper = kind.to_ascii_uppercase();
    match upper.as_slice() {
        b"7BIT" | b"8BITMIME" => Ok(upper),
        _ => Err(format!(
            "-B is 7BIT or 8BITMIME, not {:?}",
            String::from_utf8_lossy(kind)
        )),
    }
}

fn return_of(ret: &[u8]) -> Result<Vec<u8>, String> {
    let upper = ret.to_ascii_uppercase();
    match upper.as_slice() {
        b"FULL" | b"HDRS" => Ok(upper),
        _ => Err(format!(
            "-R is FULL or HDRS, not {:?}",
            String::from_utf8_lossy(ret)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        let words: Vec<Vec<u8>> = line
            .split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect();
        options(&words)
    }

    #[test]
    fn command_lines_of_real_programs() {
        // cron
        let options = parsed("-FCronDaemon -i -odi -oem -oi -t -f root").unwrap();
        assert!(options.from_header && options.ignore_dots);
        assert_eq!(options.sender.as_deref(), Some(&b"root"[..]));
        assert_eq!(options.full_name.as_deref(), Some(&b"CronDaemon"[..]));
        // mutt
        let options = parsed("-oem -oi -f me@x.test -- -odd@x.test").unwrap();
        assert_eq!(options.recipients, [b"-odd@x.test"]);
        // git send-email
        let options = parsed("-i -f <me@x.test> a@x.test b@x.test").unwrap();
        assert_eq!(options.sender.as_deref(), Some(&b"me@x.test"[..]));
        assert_eq!(options.recipients.len(), 2);
        // PHP
        assert!(parsed("-ti").unwrap().from_header);
        assert_eq!(parsed("-bp").unwrap().mode, Mode::Queue);
    }

    #[test]
    fn bad_command_lines_are_named() {
        for (line, word) in [
            ("-bz", "-bz"),
            ("-f", "needs"),
            ("-Z", "-Z"),
            ("-N SOON", "SOON"),
            ("-R SOME", "SOME"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }

    fn head_of(text: &str) -> Result<String, String> {
        let mut input = Input {
            reader: BufReader::new(text.as_bytes()),
            dot_ends: true,
            ended: false,
        };
        head(&mut input, false, 1000)
            .map(|head| String::from_utf8(head).unwrap())
            .map_err(|refusal| refusal.text)
    }

    #[test]
    fn where_a_header_ends() {
        for (text, head) in [
            ("To: a\n b\n\nbody\n", "To: a\n b\n\n"),
            ("From me Mon\nTo: a\n\n", "To: a\n\n"),
            ("no header\nTo: a\n", "\nno header\n"),
            ("To: a\nno header\n", "To: a\n\nno header\n"),
            ("To: a", "To: a\n\n"),
            ("", "\n"),
            ("To: a\r\n\r\nbody", "To: a\r\n\r\n"),
            (".\n", "\n"),
        ] {
            assert_eq!(head_of(text).as_deref(), Ok(head), "{text:?}");
        }
        let long = format!("To: {}\n\n", "a".repeat(2000));
        assert!(head_of(&long).unwrap_err().contains("1000 bytes"));
    }
}
