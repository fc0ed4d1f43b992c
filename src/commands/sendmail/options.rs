//! The command line of `sendmail`, as the programs that call it know it from other sendmails
//! (zmailer.md 6.1). What has a meaning here is kept, what has none is taken in silence, and what
//! would change where a message goes is refused.

use std::path::PathBuf;

use crate::mail::header;
use crate::mail::message_file;

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) mode: Mode,
    pub(super) from_header: bool,
    pub(super) ignore_dots: bool,
    pub(super) keep_from_line: bool,
    pub(super) external: bool,
    pub(super) verbose: bool,
    pub(super) sender: Option<Vec<u8>>,
    pub(super) full_name: Option<Vec<u8>>,
    pub(super) body_type: Option<Vec<u8>>,
    pub(super) notify: Option<u8>,
    pub(super) ret: Option<Vec<u8>>,
    pub(super) envid: Option<Vec<u8>>,
    pub(super) with: Option<Vec<u8>>,
    pub(super) config: Option<PathBuf>,
    pub(super) recipients: Vec<Vec<u8>>,
    pub(super) ignored: Vec<String>,
}

/// What is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Submit,
    Smtp,
    Queue,
    /// What waits is tried now, as far as this expression means it.
    Retry(String),
    Daemon,
    Aliases,
    Help,
}

/// Flags that take an argument, attached or as the next word.
const WITH_ARGUMENT: &[u8] = b"ABCDFfhLMNOoPpQRrVX";
/// Flags whose argument, if any, is attached.
const ATTACHED: &[u8] = b"bdeJq";

/// Takes the command line apart in getopt's way: flags end at the first word that is none.
pub(super) fn parse(arguments: &[Vec<u8>]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut flags = arguments.iter().take_while(|word| *word != b"--");
    if flags.any(|word| word == b"--help") {
        options.mode = Mode::Help;
        return Ok(options);
    }
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == b"--" {
            options.recipients.extend(words.cloned());
            break;
        }
        if word == b"--config" {
            let path = words.next().ok_or("--config needs a file")?;
            options.config = Some(PathBuf::from(String::from_utf8_lossy(path).into_owned()));
            continue;
        }
        let Some(flags) = word.strip_prefix(b"-").filter(|flags| !flags.is_empty()) else {
            options.recipients.push(word.clone());
            continue;
        };
        let shown = || String::from_utf8_lossy(word).into_owned();
        // A program that puts an address of somebody else here must not have it taken for a flag.
        if !options.recipients.is_empty() {
            return Err(format!(
                "{} stands behind a recipient; flags come first, and an address like this behind --",
                shown()
            ));
        }
        if flags.starts_with(b"-") {
            return Err(format!("{}: no such option", shown()));
        }
        options.word(flags, &mut words)?;
    }
    match &options.mode {
        Mode::Retry(_) if !options.recipients.is_empty() => {
            Err("-q takes no recipients".to_owned())
        }
        _ => Ok(options),
    }
}

impl Options {
    /// One word of flags.
    fn word<'a>(
        &mut self,
        flags: &[u8],
        words: &mut impl Iterator<Item = &'a Vec<u8>>,
    ) -> Result<(), String> {
        let mut at = 0;
        while let Some(flag) = flags.get(at).copied() {
            at += 1;
            let rest = flags.get(at..).unwrap_or_default();
            let argument = if WITH_ARGUMENT.contains(&flag) {
                at = flags.len();
                let next = || words.next().cloned();
                let given = Some(rest.to_vec()).filter(|rest| !rest.is_empty());
                let given = given.or_else(next);
                given.ok_or_else(|| format!("-{} needs an argument", char::from(flag)))?
            } else if ATTACHED.contains(&flag) {
                at = flags.len();
                rest.to_vec()
            } else {
                Vec::new()
            };
            self.flag(flag, argument)?;
        }
        Ok(())
    }

    fn flag(&mut self, flag: u8, argument: Vec<u8>) -> Result<(), String> {
        let text = String::from_utf8_lossy(&argument).into_owned();
        let shown = format!("-{}{text}", char::from(flag));
        match (flag, argument.as_slice()) {
            (b'b', _) => self.mode = mode(&argument).ok_or_else(|| no_mode(&shown))?,
            (b'q', _) => self.retry(&text)?,
            (b'I', _) => self.mode = Mode::Aliases,
            (b't', _) => self.from_header = true,
            (b'i', _) | (b'o', b"i") => self.ignore_dots = true,
            (b's', _) => self.keep_from_line = true,
            (b'E', _) => self.external = true,
            (b'v', _) | (b'o', b"v") => self.verbose = true,
            (b'f' | b'r', address) => self.sender = Some(sender(address)?),
            (b'F', _) => self.full_name = Some(argument),
            (b'B', kind) => self.body_type = Some(body_type(kind)?),
            (b'N', words) => self.notify = Some(notify(words)?),
            (b'R', ret) => self.ret = Some(return_of(ret)?),
            (b'V', id) => self.envid = Some(message_file::envid(id)?),
            (b'p', _) => self.with = Some(protocol(&argument)?),
            (b'C', _) => self.config = Some(PathBuf::from(text)),
            (b'o', _) if argument.starts_with(b"Q") => {
                return Err(format!(
                    "{shown}: another postoffice is named by --config FILE"
                ));
            }
            // Known from other sendmails, without meaning here.
            (
                b'm' | b'e' | b'O' | b'o' | b'J' | b'x' | b'U' | b'P' | b'L' | b'X' | b'A' | b'G'
                | b'D' | b'c' | b'T',
                _,
            ) => {}
            (b'h' | b'n' | b'd' | b'M', _) => self.ignored.push(shown),
            _ => return Err(format!("{shown}: no such option")),
        }
        Ok(())
    }

    /// `-q` alone, or for some of what waits. With a time it is how a daemon is started: this one
    /// keeps time by itself.
    fn retry(&mut self, what: &str) -> Result<(), String> {
        if what.starts_with(|c: char| c.is_ascii_digit()) {
            self.ignored.push(format!("-q{what}"));
            if self.mode == Mode::Submit && !self.from_header {
                self.mode = Mode::Daemon;
            }
            return Ok(());
        }
        let (key, text) = match what.split_at_checked(1) {
            None => return self.set_retry(String::new()),
            Some(("f", "")) => return self.set_retry(String::new()),
            Some(("I", text)) => ("id", text),
            Some(("R", text)) => ("recipient", text),
            Some(("S", text)) => ("sender", text),
            Some(_) => ("", ""),
        };
        if key.is_empty() || text.is_empty() || text.contains('"') {
            return Err(format!(
                "-q{what}: there are -q, -qIid, -qRrecipient and -qSsender"
            ));
        }
        self.set_retry(format!("{key} ~ \"*{text}*\""))
    }

    fn set_retry(&mut self, filter: String) -> Result<(), String> {
        // -bd -q is a daemon that also looks at its queue, as this one always does.
        if self.mode != Mode::Daemon {
            self.mode = Mode::Retry(filter);
        }
        Ok(())
    }
}

fn mode(word: &[u8]) -> Option<Mode> {
    match word {
        b"m" => Some(Mode::Submit),
        b"s" => Some(Mode::Smtp),
        b"p" => Some(Mode::Queue),
        b"d" | b"D" => Some(Mode::Daemon),
        b"i" => Some(Mode::Aliases),
        _ => None,
    }
}

fn no_mode(shown: &str) -> String {
    format!("{shown}: no such mode; there are -bm -bs -bp -bd -bi")
}

fn sender(argument: &[u8]) -> Result<Vec<u8>, String> {
    if argument.is_empty() || argument == b"<>" {
        return Ok(Vec::new());
    }
    let single = header::addresses(argument).single();
    single
        .filter(|address| super::recipients::is_address(address))
        .ok_or_else(|| {
            let shown = String::from_utf8_lossy(argument);
            format!("-f takes one address, not {shown:?}")
        })
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

/// The words of `-N`, with spaces as other sendmails allow them.
fn notify(words: &[u8]) -> Result<u8, String> {
    let mut plain = words.to_vec();
    plain.retain(|byte| !byte.is_ascii_whitespace());
    message_file::notify(&plain)
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

/// The protocol of `-p`; a host may follow it.
fn protocol(argument: &[u8]) -> Result<Vec<u8>, String> {
    let mut parts = argument.split(|byte| *byte == b':');
    let word = parts.next().unwrap_or_default();
    if !word.is_empty() && word.iter().all(u8::is_ascii_alphanumeric) {
        return Ok(word.to_vec());
    }
    Err(format!(
        "-p is a word of letters and digits, not {:?}",
        String::from_utf8_lossy(argument)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        let words: Vec<Vec<u8>> = line
            .split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect();
        parse(&words)
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

    /// Each of these is documented by sendmail, Postfix or Exim; the recipient must stay one.
    #[test]
    fn flags_of_other_sendmails_are_taken() {
        for flags in [
            "-oem",
            "-oee",
            "-oep -oeq -oew",
            "-odb",
            "-odi -odq",
            "-om",
            "-o7 -o8",
            "-em",
            "-m",
            "-B8BITMIME",
            "-B 7bit",
            "-N delay,failure",
            "-Nnever",
            "-R hdrs",
            "-V id+2Btext",
            "-O DeliveryMode=b",
            "-OTimeout.queuereturn=1d",
            "-G",
            "-U",
            "-n",
            "-x",
            "-c",
            "-X /tmp/log",
            "-L tag",
            "-A m",
            "-Ac",
            "-h 5",
            "-d0.1",
            "-D /tmp/debug",
            "-J",
            "-T",
            "-pESMTP:host",
            "-q30m -bm",
            "-bm -v",
        ] {
            let options = parsed(&format!("{flags} a@x.test")).unwrap();
            assert_eq!(options.recipients, [b"a@x.test"], "{flags}");
            assert_eq!(options.mode, Mode::Submit, "{flags}");
        }
    }

    #[test]
    fn modes() {
        for (line, mode) in [
            ("-bd -q30m", Mode::Daemon),
            ("-q30m -bd", Mode::Daemon),
            ("-bd -q", Mode::Daemon),
            ("-q15m", Mode::Daemon),
            ("-q", Mode::Retry(String::new())),
            ("-qf -v", Mode::Retry(String::new())),
            (
                "-qRx.test",
                Mode::Retry("recipient ~ \"*x.test*\"".to_owned()),
            ),
            ("-bi", Mode::Aliases),
            ("-I", Mode::Aliases),
            ("-bs -oi", Mode::Smtp),
        ] {
            assert_eq!(parsed(line).unwrap().mode, mode, "{line}");
        }
    }

    #[test]
    fn bad_command_lines_are_named() {
        for (line, word) in [
            ("-bz", "-bz"),
            ("-bv a@x.test", "-bv"),
            ("-f", "needs"),
            ("-Z", "-Z"),
            ("--version", "--version"),
            ("-N SOON", "SOON"),
            ("-R SOME", "SOME"),
            ("-V a=b", "a=b"),
            ("-p a/b", "a/b"),
            ("-f a\x01@x.test", "-f takes"),
            ("-Q reason", "-Q"),
            ("-oQ/elsewhere", "--config"),
            ("-q a@x.test", "-q takes no"),
            ("-qX", "-qRrecipient"),
            ("a@x.test -X/tmp/log", "behind a recipient"),
            ("a@x.test -f b@x.test", "behind a recipient"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
