//! The programs: one file a command. Exit codes follow sysexits.

mod absorb;
mod check;
mod daemon;
mod demo;
mod kill;
mod listen;
mod run;
mod status;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Config};

/// Exit codes, by their names in sysexits.
pub(crate) mod exit {
    /// Wrong arguments.
    pub(crate) const USAGE: u8 = 64;
    /// Data in a format this version cannot read.
    pub(crate) const DATA: u8 = 65;
    /// Something needed is not there.
    pub(crate) const UNAVAILABLE: u8 = 69;
    /// The settings are wrong.
    pub(crate) const CONFIG: u8 = 78;
}

/// A mail transfer agent on io_uring: every 250 is on disk.
#[derive(Parser)]
#[command(name = "zmailer", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon in the foreground, operator log on stderr. SIGTERM drains and stops.
    Run(ConfigArgument),
    /// Stop the running daemon: it drains, commits and ends.
    Kill(ConfigArgument),
    /// Show what the running daemon does.
    Status {
        #[command(flatten)]
        config: ConfigArgument,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Check the configuration: all errors at once, with file, line, key and allowed values.
    Check {
        #[command(flatten)]
        config: ConfigArgument,
        /// Print every setting with its default and meaning instead.
        #[arg(long)]
        reference: bool,
    },
    /// The whole relay on loopback in a temporary directory: source, zmailer, sink, ledger.
    Demo(demo::Arguments),
    /// The load generator, as the demo runs it.
    #[command(hide = true, disable_help_flag = true)]
    Loadgen {
        /// As for the program `loadgen`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(clap::Args)]
struct ConfigArgument {
    /// The configuration file [default: $ZMAILER_CONFIG, /etc/zmailer/zmailer.toml, built-in].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgument {
    /// The settings, or the exit code after every error has been printed.
    fn load(&self) -> Result<Config, ExitCode> {
        config::load(self.config.as_deref()).map_err(|errors| {
            for error in &errors {
                eprintln!("zmailer: {error}");
            }
            ExitCode::from(exit::CONFIG)
        })
    }
}

/// The program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A failure to print leaves nobody to tell.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(exit::USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match dispatch(cli.command) {
        Ok(code) | Err(code) => code,
    }
}

fn dispatch(command: Command) -> Result<ExitCode, ExitCode> {
    Ok(match command {
        Command::Run(argument) => run::run(&argument.load()?),
        Command::Kill(argument) => kill::run(&argument.load()?),
        Command::Status { config, json } => status::run(&config.load()?, json),
        Command::Check { config, reference } => {
            if reference {
                check::reference()
            } else {
                check::run(&config.load()?)
            }
        }
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Loadgen { arguments } => loadgen::main(arguments),
    })
}

/// Prints an error as every command does and gives back its exit code.
fn fail(code: u8, what: impl std::fmt::Display) -> ExitCode {
    eprintln!("zmailer: {what}");
    ExitCode::from(code)
}
