//! Commands that are typed: line editing, history, continuation lines. Ctrl-C ends the command that runs.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tokio::signal::unix::{SignalKind, signal};

use super::super::{exit, fail};
use super::code;
use crate::control::script::Session;
use crate::router::diagnostic::Source;
use crate::router::machine::{Evaluation, Turn};
use crate::router::request::{Answer, Request};
use crate::router::syntax;

/// Reads and runs commands until the end of the input or `exit`.
pub(super) fn run(
    session: &mut Session,
    evaluation: &mut Evaluation,
) -> Result<ExitCode, ExitCode> {
    let interrupted = watch_interrupts().map_err(|error| fail(exit::UNAVAILABLE, error))?;
    let mut editor = DefaultEditor::new().map_err(|error| fail(exit::UNAVAILABLE, error))?;
    let history = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".zmsh_history"));
    if let Some(history) = &history {
        // There is none the first time.
        let _ = editor.load_history(history);
    }
    evaluation.surroundings().interactive = true;
    let mut typed = Typed {
        session,
        evaluation,
        interrupted,
        status: 0,
    };
    loop {
        match typed.read(&mut editor) {
            Read::Command(text) => typed.obey(&text),
            Read::Nothing => {}
            Read::End => {
                // As if it had been typed, so that a trap runs.
                typed.obey("exit");
                break;
            }
        }
        if typed.evaluation.has_exited() {
            break;
        }
    }
    if let Some(history) = &history
        && let Err(error) = editor.save_history(history)
    {
        eprintln!("{}: {error}", history.display());
    }
    Ok(code(typed.status))
}

/// Sets the flag at each Ctrl-C; without it the program would end.
fn watch_interrupts() -> io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut signals = {
        let _inside = runtime.enter();
        signal(SignalKind::interrupt())?
    };
    let set = Arc::clone(&flag);
    thread::Builder::new()
        .name("interrupts".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                while signals.recv().await.is_some() {
                    set.store(true, Ordering::Release);
                }
            });
        })?;
    Ok(flag)
}

/// What was read.
enum Read {
    Command(String),
    /// Ctrl-C: what was typed so far is forgotten.
    Nothing,
    End,
}

/// A session with what it runs.
struct Typed<'a> {
    session: &'a mut Session,
    evaluation: &'a mut Evaluation,
    interrupted: Arc<AtomicBool>,
    status: i32,
}

/// How often a script that sleeps looks for Ctrl-C.
const LOOK: Duration = Duration::from_millis(50);

impl Typed<'_> {
    /// Lines up to the end of a command.
    fn read(&mut self, editor: &mut DefaultEditor) -> Read {
        let mut text = String::new();
        let mut prompt = self.prompt("PS1", "$ ");
        loop {
            match editor.readline(&prompt) {
                Ok(line) => {
                    text.push_str(&line);
                    text.push('\n');
                }
                Err(ReadlineError::Interrupted) => return Read::Nothing,
                Err(_) if text.is_empty() => return Read::End,
                // The end inside a command: its errors are shown, then the end is met again.
                Err(_) => return Read::Command(text),
            }
            if !goes_on(&text) {
                break;
            }
            prompt = self.prompt("PS2", "> ");
        }
        if !text.trim().is_empty()
            && let Err(error) = editor.add_history_entry(text.trim_end())
        {
            eprintln!("history: {error}");
        }
        Read::Command(text)
    }

    /// What the function of this name prints, or the variable's value.
    fn prompt(&mut self, name: &str, default: &str) -> String {
        if self.evaluation.call(name.as_bytes(), Vec::new()) {
            return match self.run() {
                Some(_) => String::from_utf8_lossy(&self.evaluation.take_printed()).into_owned(),
                None => default.to_owned(),
            };
        }
        let value = self.evaluation.variable_named(name.as_bytes());
        let text = value.map(|value| String::from_utf8_lossy(value.bytes()).into_owned());
        text.unwrap_or_else(|| default.to_owned())
    }

    /// Runs a command; errors are shown.
    fn obey(&mut self, text: &str) {
        let source = Source::new("typed", text.as_bytes());
        match self.evaluation.load(&source, &[]) {
            Ok(()) => self.status = self.run().unwrap_or(STATUS_OF_INTERRUPTED),
            Err(errors) => {
                for error in errors {
                    eprintln!("{error}");
                }
            }
        }
    }

    /// Runs what the evaluation has before it; none: it was interrupted or stopped, which has been said.
    fn run(&mut self) -> Option<i32> {
        self.interrupted.store(false, Ordering::Release);
        loop {
            if self.interrupted.swap(false, Ordering::AcqRel) {
                eprintln!("interrupted");
                return None;
            }
            match self.evaluation.run(self.session.maps(), self.session.now()) {
                Turn::Done(status) => return Some(status),
                Turn::More => {}
                Turn::Stopped(limit) => {
                    eprintln!("stopped: {limit}");
                    return None;
                }
                Turn::Need(Request::Sleep { seconds }) => {
                    self.sleep(Duration::from_secs(seconds));
                    self.evaluation.answer(Answer::Done(Ok(())));
                }
                Turn::Need(request) => {
                    let answer = self.session.answer(request);
                    self.evaluation.answer(answer);
                }
            }
        }
    }

    fn sleep(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.interrupted.load(Ordering::Acquire) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(LOOK));
        }
    }
}

/// 128 and SIGINT, as of a shell.
const STATUS_OF_INTERRUPTED: i32 = 130;

/// Whether more lines belong to what was typed.
fn goes_on(text: &str) -> bool {
    let line = text.trim_end_matches('\n');
    let backslashes = line.bytes().rev().take_while(|byte| *byte == b'\\').count();
    backslashes % 2 == 1 || syntax::is_incomplete(&Source::new("typed", text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::goes_on;

    #[test]
    fn a_command_goes_on_until_it_is_complete() {
        for (text, wanted) in [
            ("echo a\n", false),
            ("echo a \\\n", true),
            ("echo a \\\\\n", false),
            ("if true; then\n", true),
            ("if true; then\necho a\nfi\n", false),
            ("fi\n", false),
            ("\n", false),
        ] {
            assert_eq!(goes_on(text), wanted, "{text}");
        }
    }
}
