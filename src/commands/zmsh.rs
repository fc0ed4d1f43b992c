//! `zmailer zmsh`: runs a script in the routing language.

use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Args;

use super::exit;
use crate::control::script::{Local, Permission, Session};
use crate::router::diagnostic::Source;
use crate::router::machine::{Evaluation, Limits};

/// Script and arguments.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Script; without one, the standard input.
    file: Option<PathBuf>,
    /// `$1` and so on.
    arguments: Vec<String>,
}

/// Longest time that a program of a script may take when its output is caught.
const PROGRAM_TIME: Duration = Duration::from_secs(600);

/// Steps of a script: an administrator who waits can end it himself.
const STEPS_MAX: u64 = u64::MAX;

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let source = match source(arguments) {
        Ok(source) => source,
        Err(error) => {
            eprintln!("zmailer zmsh: {error}");
            return ExitCode::from(exit::NO_INPUT);
        }
    };
    let local = Local::new(Permission::Everything, PROGRAM_TIME);
    let mut session = match Session::for_tool(local) {
        Ok(session) => session,
        Err(error) => {
            eprintln!("zmailer zmsh: {error}");
            return ExitCode::from(exit::UNAVAILABLE);
        }
    };
    let mut evaluation = Evaluation::new(Limits::default().with_steps(STEPS_MAX));
    for (name, value) in std::env::vars_os() {
        evaluation.set_environment(name.as_encoded_bytes(), value.as_encoded_bytes());
    }
    let words: Vec<&[u8]> = arguments.arguments.iter().map(String::as_bytes).collect();
    if let Err(errors) = evaluation.load(&source, &words) {
        for error in errors {
            eprintln!("{error}");
        }
        return ExitCode::from(exit::DATA);
    }
    match session.run(&mut evaluation) {
        // As of a shell: the low bits.
        Ok(status) => ExitCode::from(status.rem_euclid(256) as u8),
        Err(limit) => {
            eprintln!("zmailer zmsh: stopped: {limit}");
            ExitCode::from(exit::TEMPORARY)
        }
    }
}

fn source(arguments: &Arguments) -> io::Result<Rc<Source>> {
    match &arguments.file {
        Some(path) if path.as_os_str() != "-" => {
            let name = path.display().to_string();
            let text = std::fs::read(path)
                .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
            Ok(Source::new(&name, &text))
        }
        _ => {
            let mut text = Vec::new();
            let mut input = io::stdin().lock();
            if input.is_terminal() {
                eprintln!("the script ends with the end of the input");
            }
            input.read_to_end(&mut text)?;
            Ok(Source::new("stdin", &text))
        }
    }
}
