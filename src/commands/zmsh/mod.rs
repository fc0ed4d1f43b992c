//! `zmailer zmsh`: runs a script in the routing language, or what is typed.

mod prompt;

use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Args;

use super::route::desk;
use super::{ConfigArgument, exit, fail, routing};
use crate::control::script::{Local, Permission, Session, load};
use crate::router::diagnostic::Source;
use crate::router::machine::{Evaluation, Limits};

/// Script and arguments.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Loads the routing configuration first; then its functions can be called: router joe@example.org.
    #[arg(long)]
    routing: bool,
    /// Script; without one, the standard input.
    file: Option<PathBuf>,
    /// `$1` and so on.
    arguments: Vec<String>,
}

/// Longest time that a program of a script may take when its output is caught.
const PROGRAM_TIME: Duration = Duration::from_secs(600);

/// Steps of a script: an administrator who waits can end it himself.
const STEPS_MAX: u64 = u64::MAX;

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, ExitCode> {
    let (mut session, mut evaluation) = if arguments.routing {
        with_routing(&arguments.config)?
    } else {
        let session = Session::for_tool(local()).map_err(|error| fail(exit::UNAVAILABLE, error))?;
        let limits = Limits::default().with_steps(STEPS_MAX);
        (session, Evaluation::new(limits))
    };
    for (name, value) in std::env::vars_os() {
        evaluation.set_environment(name.as_encoded_bytes(), value.as_encoded_bytes());
    }
    if is_typed(arguments) {
        return prompt::run(&mut session, &mut evaluation);
    }
    let source =
        source(arguments).map_err(|error| fail(exit::NO_INPUT, format!("zmsh: {error}")))?;
    let words: Vec<&[u8]> = arguments.arguments.iter().map(String::as_bytes).collect();
    if let Err(errors) = evaluation.load(&source, &words) {
        for error in errors {
            eprintln!("{error}");
        }
        return Ok(ExitCode::from(exit::DATA));
    }
    let result = session.run(&mut evaluation);
    for problem in session.maps().take_problems() {
        eprintln!("{problem}");
    }
    match result {
        Ok(status) => Ok(code(status)),
        Err(limit) => Err(fail(exit::TEMPORARY, format!("zmsh: stopped: {limit}"))),
    }
}

fn local() -> Local {
    Local::new(Permission::Everything, PROGRAM_TIME)
}

fn with_routing(config: &ConfigArgument) -> Result<(Session, Evaluation), ExitCode> {
    let config = config.load()?;
    let mut session =
        desk::session(&config, local()).map_err(|error| fail(exit::UNAVAILABLE, error))?;
    let mut configuration = routing::configuration(&config);
    configuration.limits = configuration.limits.with_steps(STEPS_MAX);
    match load(&configuration, &mut session) {
        Ok((_, evaluation)) => Ok((session, evaluation)),
        Err(error) => {
            eprintln!("{error}");
            Err(ExitCode::from(exit::CONFIG))
        }
    }
}

/// As of a shell: the low bits.
fn code(status: i32) -> ExitCode {
    ExitCode::from(status.rem_euclid(256) as u8)
}

fn is_typed(arguments: &Arguments) -> bool {
    let named = arguments
        .file
        .as_ref()
        .is_some_and(|path| path.as_os_str() != "-");
    !named && io::stdin().is_terminal()
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
            io::stdin().lock().read_to_end(&mut text)?;
            Ok(Source::new("stdin", &text))
        }
    }
}
