//! A program that takes a message: `|command`.
//!
//! It reads the message from its standard input, has the rights of one account and no others, an environment of its own,
//! `/` as its directory and a time limit, at which it is ended with all it has started. Its exit status decides
//! (sysexits.h). A program that stops reading and ends well has taken the message.
//!
//! The command is text of the file that names it. Where it holds nothing that a shell gives a meaning to, it is run
//! without one. Addresses of a message reach the program in its environment only.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufWriter, ErrorKind, PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::entry::Entry;
use super::maildir::Letter;
use super::rights::Rights;
use crate::mail::target;
use crate::sys::process;

/// Output that is kept for the report; the rest is read and dropped.
const OUTPUT_BYTES_MAX: usize = 300;

/// Reads of what a program that has ended has left in its pipe: more than a pipe holds.
const LAST_READS_MAX: usize = 64;

/// What is to be run.
pub(super) struct Program<'a> {
    pub(super) command: &'a [u8],
    pub(super) rights: &'a Rights,
    pub(super) time: Duration,
    /// ORCPT, ENVID and NOTIFY, as given.
    pub(super) orcpt: Option<&'a [u8]>,
    pub(super) envid: Option<&'a [u8]>,
    pub(super) notify: u8,
    /// The settings of this service, for programs that submit mail.
    pub(super) config: Option<&'a Path>,
}

/// The leaders of the groups that run now.
static RUNNING: Mutex<Option<HashSet<u32>>> = Mutex::new(None);

fn running() -> MutexGuard<'static, Option<HashSet<u32>>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends all programs: nobody is left to hear what becomes of them, and their mail is delivered again. None is started
/// any more.
pub fn end_all() {
    let running = running();
    for group in running.iter().flatten() {
        end_group(*group);
    }
    // Held for good: the process ends now.
    std::mem::forget(running);
}

fn end_group(group: u32) {
    let pid = i32::try_from(group).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // Who has ended meanwhile needs no end.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// Runs it; the reply for its recipient.
pub(super) fn run(program: &Program<'_>, letter: &Letter<'_>) -> String {
    let mut started = match start(program, letter) {
        Ok(started) => started,
        Err(error) => return format!("451 4.3.5 the program cannot be run: {error}"),
    };
    let result = started.converse(letter);
    let status = started.end(result.is_err());
    match (result, status) {
        (Err(error), _) if error.kind() == ErrorKind::TimedOut => {
            let seconds = program.time.as_secs();
            let text = started.said();
            format!("451 4.3.0 {text}[more than {seconds} s, ended]")
        }
        (Err(error), _) | (_, Err(error)) => format!("451 4.3.0 the program was ended: {error}"),
        (Ok(()), Ok(status)) => reply(status, &started.said()),
    }
}

/// What an exit status means, after sysexits.h. A status without a meaning is temporary: a program that is broken today
/// must not send everybody's mail back.
fn reply(status: ExitStatus, said: &str) -> String {
    let Some(code) = status.code() else {
        let signal = status.signal().unwrap_or(0);
        return format!("451 4.3.0 {said}[signal {signal}]");
    };
    let class = match code {
        0 => "250 2.0.0",
        65 => "554 5.6.0",
        67 => "550 5.1.1",
        68 => "550 5.1.2",
        69 => "554 5.3.0",
        77 => "550 5.7.1",
        _ => "451 4.3.0",
    };
    format!("{class} {said}[exit status {code}]")
}

fn start(program: &Program<'_>, letter: &Letter<'_>) -> io::Result<Started> {
    let mut command = command(program.command);
    command.env_clear();
    let environment = environment(program, letter).into_iter();
    command.envs(environment.map(|(name, value)| (name, OsString::from_vec(value))));
    command.current_dir("/");
    process::set_apart(&mut command, program.rights.user());
    let (output, end) = io::pipe()?;
    command.stdin(Stdio::piped());
    command.stdout(end.try_clone()?).stderr(end);
    // No program starts between being alive and being known.
    let mut running = running();
    let mut child = command.spawn()?;
    running.get_or_insert_default().insert(child.id());
    drop(running);
    let input = child.stdin.take();
    let mut started = Started {
        child,
        ended: None,
        input,
        output: Some(output),
        kept: Vec::new(),
        until: Instant::now() + program.time,
    };
    if let Err(error) = started.prepare() {
        // Its end is what counts, not how it came.
        let _ = started.end(true);
        return Err(error);
    }
    Ok(started)
}

fn command(text: &[u8]) -> Command {
    match target::words(text) {
        Some(words) => {
            let mut words = words.iter().map(|word| OsStr::from_bytes(word));
            let mut command = Command::new(words.next().unwrap_or_default());
            command.args(words);
            command
        }
        None => {
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(OsStr::from_bytes(text));
            command
        }
    }
}

fn environment(program: &Program<'_>, letter: &Letter<'_>) -> Vec<(&'static str, Vec<u8>)> {
    let account = &program.rights.account;
    let sender = match letter.sender {
        b"" => b"<>",
        sender => sender,
    };
    let mut all: Vec<(&'static str, Vec<u8>)> = vec![
        ("SHELL", b"/bin/sh".to_vec()),
        ("PATH", b"/usr/local/bin:/usr/bin:/bin".to_vec()),
        ("HOME", account.home.clone().into_bytes()),
        ("USER", account.name.clone().into_bytes()),
        ("LOGNAME", account.name.clone().into_bytes()),
        ("UID", account.uid.to_string().into_bytes()),
        ("SENDER", sender.to_vec()),
        ("INRCPT", letter.recipient.to_vec()),
        ("MSGSPOOLID", letter.id.as_bytes().to_vec()),
    ];
    let more = [
        ("ORCPT", program.orcpt.map(<[u8]>::to_vec)),
        ("ENVID", program.envid.map(<[u8]>::to_vec)),
        ("NOTIFY", notify(program.notify)),
        (
            "TZ",
            std::env::var_os("TZ").map(OsString::into_encoded_bytes),
        ),
        (
            "ZMAILER_CONFIG",
            program
                .config
                .map(|path| path.as_os_str().as_bytes().to_vec()),
        ),
    ];
    let more = more.into_iter();
    all.extend(more.filter_map(|(name, value)| Some((name, value?))));
    // A NUL ends a text; no address that was accepted holds one.
    all.retain(|(_, value)| !value.contains(&0));
    all
}

fn notify(bits: u8) -> Option<Vec<u8>> {
    let names = [(1, "NEVER"), (2, "SUCCESS"), (4, "FAILURE"), (8, "DELAY")];
    let named = names.iter().filter(|(bit, _)| bits & bit != 0);
    let names: Vec<&str> = named.map(|(_, name)| *name).collect();
    (!names.is_empty()).then(|| names.join(",").into_bytes())
}

/// A program that runs.
struct Started {
    child: Child,
    /// Readable when it has ended.
    ended: Option<OwnedFd>,
    /// None: it has ended, or does not want to read any more.
    input: Option<ChildStdin>,
    /// None: its output is closed.
    output: Option<PipeReader>,
    kept: Vec<u8>,
    until: Instant,
}

/// What a wait for a program has brought.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    Ended,
    Reads,
    Other,
}

impl Started {
    fn prepare(&mut self) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(ErrorKind::NotFound)?;
        self.ended = Some(pidfd_open(pid, PidfdFlags::empty())?);
        if let Some(input) = &self.input {
            rustix::io::ioctl_fionbio(input, true)?;
        }
        if let Some(output) = &self.output {
            rustix::io::ioctl_fionbio(output, true)?;
        }
        Ok(())
    }

    /// Writes the message, then waits for the end.
    fn converse(&mut self, letter: &Letter<'_>) -> io::Result<()> {
        let entry = Entry {
            letter,
            among_others: false,
        };
        let mut out = BufWriter::with_capacity(64 << 10, Feed(self));
        entry.write_to(&mut out)?;
        out.flush()?;
        drop(out);
        self.input = None;
        while self.wait(false)? != Event::Ended {}
        Ok(())
    }

    /// Waits until something happens, and reads output meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] at its time limit.
    fn wait(&mut self, to_write: bool) -> io::Result<Event> {
        let left = self.until.saturating_duration_since(Instant::now());
        let Some(ended) = &self.ended else {
            return Ok(Event::Ended);
        };
        let mut all = vec![PollFd::new(ended, PollFlags::IN)];
        let output = self.output.as_ref();
        all.extend(output.map(|output| PollFd::new(output, PollFlags::IN)));
        let input = self.input.as_ref().filter(|_| to_write);
        all.extend(input.map(|input| PollFd::new(input, PollFlags::OUT)));
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut all, Some(&timeout)) {
            Ok(0) => return Err(ErrorKind::TimedOut.into()),
            Err(rustix::io::Errno::INTR) => return Ok(Event::Other),
            result => result?,
        };
        let mut happened = all.iter().map(|of| !of.revents().is_empty());
        let is_ended = happened.next() == Some(true);
        let has_said = output.is_some() && happened.next() == Some(true);
        let reads = input.is_some() && happened.next() == Some(true);
        if has_said {
            self.listen();
        }
        Ok(match (is_ended, reads) {
            (true, _) => Event::Ended,
            (_, true) => Event::Reads,
            _ => Event::Other,
        })
    }

    /// Reads once; false: there is nothing more now.
    fn listen(&mut self) -> bool {
        let mut piece = [0; 4096];
        let Some(output) = &mut self.output else {
            return false;
        };
        match output.read(&mut piece) {
            Ok(count) if count > 0 => {
                let room = OUTPUT_BYTES_MAX.saturating_sub(self.kept.len());
                let kept = piece.get(..count.min(room)).unwrap_or_default();
                self.kept.extend_from_slice(kept);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            _ => {
                self.output = None;
                false
            }
        }
    }

    /// Its exit status; with `by_force` it is ended first, and all it has started.
    fn end(&mut self, by_force: bool) -> io::Result<ExitStatus> {
        self.input = None;
        // While it is not waited for, its number is nobody else's.
        let mut running = running();
        if by_force {
            end_group(self.child.id());
        }
        if let Some(known) = running.as_mut() {
            known.remove(&self.child.id());
        }
        drop(running);
        let status = self.child.wait()?;
        let mut reads = 0;
        while reads < LAST_READS_MAX && self.listen() {
            reads += 1;
        }
        Ok(status)
    }

    /// What it has said, in one line with quotes and a blank behind it; empty when it has said nothing.
    fn said(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        let words: Vec<&str> = text.split_whitespace().collect();
        let plain = |char: char| match char {
            ' '..='~' if char != '"' => char,
            '"' => '\'',
            _ => '?',
        };
        let line: String = words.join(" ").chars().map(plain).collect();
        if line.is_empty() {
            line
        } else {
            format!("\"{line}\" ")
        }
    }
}

/// The standard input of a program. What it does not want to read counts as written.
struct Feed<'a>(&'a mut Started);

impl Write for Feed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let Some(input) = &mut self.0.input else {
                return Ok(bytes.len());
            };
            match input.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    self.0.input = None;
                    continue;
                }
                result => return result,
            }
            if self.0.wait(true)? == Event::Ended {
                self.0.input = None;
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_statuses_mean_what_sysexits_says() {
        let cases = [
            (0, "250 2.0.0 [exit status 0]"),
            (1, "451 4.3.0 [exit status 1]"),
            (64, "451 4.3.0 [exit status 64]"),
            (65, "554 5.6.0 [exit status 65]"),
            (67, "550 5.1.1 [exit status 67]"),
            (68, "550 5.1.2 [exit status 68]"),
            (69, "554 5.3.0 [exit status 69]"),
            (75, "451 4.3.0 [exit status 75]"),
            (77, "550 5.7.1 [exit status 77]"),
            (127, "451 4.3.0 [exit status 127]"),
        ];
        for (code, expected) in cases {
            let status = ExitStatus::from_raw(code << 8);
            assert_eq!(reply(status, ""), expected);
        }
        assert_eq!(
            reply(ExitStatus::from_raw(11), "\"x\" "),
            "451 4.3.0 \"x\" [signal 11]"
        );
    }
}
