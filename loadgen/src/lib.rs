//! Load generator for SMTP: a source, a sink, and a ledger between them.
//!
//! Shares no code with the server under test: it has its own small client and server. Every message
//! carries its number and the sum of its body in a header, and every recipient its number in the
//! address, so the ledger can prove that each acknowledged message arrived once for each recipient
//! and unaltered.

#![forbid(unsafe_code)]

mod connection;
mod distribution;
mod html;
mod idle;
mod latency;
mod ledger;
mod message;
mod options;
mod pace;
mod receive;
mod report;
mod run;
mod scenario;
mod sink;
mod source;
mod timeline;
mod wire;

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use options::{Cli, Command};

/// The program; `arguments` without its name. Exit code 1: a message was lost, duplicated or
/// altered, an idle connection was dropped, or a scenario was not green; 64: wrong arguments; 69:
/// something that has to be there is not; 78: a scenario file is wrong.
#[must_use]
pub fn main(arguments: Vec<String>) -> ExitCode {
    let words = std::iter::once("loadgen".to_owned()).chain(arguments);
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => {
            // A failure to print leaves nobody to tell.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    raise_descriptor_limit();
    match cli.command {
        Command::Source(arguments) => run::source_alone(&arguments),
        Command::Sink(arguments) => run::sink_alone(&arguments),
        Command::Run(arguments) => run::around(&arguments),
        Command::SpoolFill(arguments) => run::spool_fill(&arguments),
        Command::Scenario(arguments) => scenario::main(&arguments),
    }
}

/// Many connections need many descriptors; the usual limit is lower than what is allowed.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Without it there are fewer connections, and opening one more says so.
    let _ = setrlimit(Resource::Nofile, raised);
}
