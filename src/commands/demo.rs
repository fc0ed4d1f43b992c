//! `zmailer demo`: the whole relay on loopback, in a directory of its own.

use std::process::ExitCode;

/// Arguments.
#[derive(clap::Args)]
pub(super) struct Arguments {}

/// Runs it.
pub(super) fn run(_arguments: &Arguments) -> ExitCode {
    ExitCode::SUCCESS
}
