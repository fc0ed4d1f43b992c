//! The programs: one file a command. Exit codes follow sysexits.

mod absorb;
mod agent;
mod check;
mod daemon;
mod database;
mod demo;
mod driven;
mod help;
mod kill;
mod listen;
mod queue;
mod resubmit;
mod route;
mod routing;
mod run;
mod sendmail;
mod spool;
mod start;
mod status;
mod submit;
mod trace;
mod worker;
mod zmsh;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};

use clap::{Parser, Subcommand};

use crate::config::{self, Config};
use crate::control::client;
use crate::sys;

/// Exit codes, by their names in sysexits.
pub(crate) mod exit {
    /// Wrong arguments.
    pub(crate) const USAGE: u8 = 64;
    /// Data in a format this version cannot read.
    pub(crate) const DATA: u8 = 65;
    /// Something needed is not there.
    pub(crate) const UNAVAILABLE: u8 = 69;
    /// An input file that cannot be read.
    pub(crate) const NO_INPUT: u8 = 66;
    /// There is no such recipient.
    pub(crate) const NO_USER: u8 = 67;
    /// A file that cannot be made.
    pub(crate) const CANNOT_CREATE: u8 = 73;
    /// Reading or writing failed.
    pub(crate) const IO: u8 = 74;
    /// It may work later.
    pub(crate) const TEMPORARY: u8 = 75;
    /// Not allowed to this user.
    pub(crate) const PERMISSION: u8 = 77;
    /// The settings are wrong.
    pub(crate) const CONFIG: u8 = 78;
}

/// A mail transfer agent on io_uring: every 250 is on disk.
#[derive(Parser)]
#[command(name = "zmailer", version, after_long_help = help::ZMAILER)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What the routing script decides about addresses, and why.
    #[command(after_long_help = help::ROUTE)]
    Route(route::Arguments),
    /// Run a script in the routing language, or what is typed.
    #[command(after_long_help = help::ZMSH)]
    Zmsh(zmsh::Arguments),
    /// Run the daemon in the foreground, operator log on stderr. SIGTERM drains and stops.
    #[command(after_long_help = help::RUN)]
    Run(ConfigArgument),
    /// Start the daemon in the background and wait until it answers.
    #[command(after_long_help = help::START)]
    Start(ConfigArgument),
    /// Stop the running daemon: it drains, commits and ends.
    #[command(visible_alias = "stop", after_long_help = help::KILL)]
    Kill(ConfigArgument),
    /// Stop the daemon if it runs, and start it.
    #[command(after_long_help = help::RESTART)]
    Restart(ConfigArgument),
    /// Forbid starting until `thaw`.
    #[command(after_long_help = help::FREEZE)]
    Freeze(ConfigArgument),
    /// Allow starting again.
    #[command(visible_alias = "unfreeze", after_long_help = help::THAW)]
    Thaw(ConfigArgument),
    /// Read the settings again and open the mail logs again.
    #[command(after_long_help = help::RELOAD)]
    Reload(ConfigArgument),
    /// What waits, and acting on it by any key.
    #[command(subcommand, after_long_help = help::QUEUE)]
    Queue(queue::Act),
    /// What waits, message by message or by destination.
    #[command(after_long_help = help::MAILQ)]
    Mailq(queue::Mailq),
    /// Look into the spool, take messages out of it and in; running or stopped.
    #[command(subcommand, after_long_help = help::SPOOL)]
    Spool(spool::Act),
    /// The life of a message, by its id or an address of it; why it is still here.
    #[command(after_long_help = help::TRACE)]
    Trace {
        #[command(flatten)]
        config: ConfigArgument,
        /// A message id, or an address.
        wanted: String,
    },
    /// Give messages whose routing was stopped to the router again.
    #[command(after_long_help = help::RESUBMIT)]
    Resubmit {
        #[command(flatten)]
        config: ConfigArgument,
        /// Ids of messages, or names of files in deferred/; none: all.
        #[arg(value_name = "ID")]
        ids: Vec<String>,
    },
    /// Compile a source of `key value` or `name: value` lines into a map.
    #[command(after_long_help = database::MAKEDB)]
    Makedb(database::Makedb),
    /// Compile the aliases.
    #[command(after_long_help = database::NEWALIASES)]
    Newaliases(database::Newaliases),
    /// Compile the databases of dbases.conf and write their definitions.
    #[command(after_long_help = database::NEWDB)]
    Newdb(database::Newdb),
    /// Submit a message from standard input, as `sendmail` does.
    #[command(disable_help_flag = true, after_long_help = help::SENDMAIL)]
    Sendmail {
        /// As for the program `sendmail`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Show what the running daemon does.
    #[command(after_long_help = help::STATUS)]
    Status {
        #[command(flatten)]
        config: ConfigArgument,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Check the configuration: all errors at once, with file, line, key and allowed values.
    #[command(after_long_help = help::CHECK)]
    Check {
        #[command(flatten)]
        config: ConfigArgument,
        /// Print every setting with its default and meaning instead.
        #[arg(long)]
        reference: bool,
    },
    /// The whole relay on loopback in a temporary directory: source, zmailer, sink, ledger.
    #[command(after_long_help = help::DEMO)]
    Demo(demo::Arguments),
    /// A transport agent, as the daemon starts it.
    #[command(hide = true)]
    Agent {
        #[command(flatten)]
        config: ConfigArgument,
        /// Who may connect, besides root.
        #[arg(long)]
        uid: u32,
    },
    /// The load generator, as the demo runs it.
    #[command(hide = true, disable_help_flag = true)]
    Loadgen {
        /// As for the program `loadgen`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(clap::Args, Default)]
struct ConfigArgument {
    /// The configuration file [default: $ZMAILER_CONFIG, /etc/zmailer/zmailer.toml, built-in].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgument {
    fn path(&self) -> Option<&Path> {
        self.config.as_deref()
    }

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
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let called = arguments.first().map(PathBuf::from).unwrap_or_default();
    match called.file_name().and_then(|name| name.to_str()) {
        // These take flags in sendmail's way, which no parser of today's kind does.
        Some("sendmail") => return sendmail(arguments.get(1..).unwrap_or_default()),
        Some(name) if PROGRAMS.contains(&name) => arguments.insert(1, name.into()),
        // Without a word: start everything, as ZMailer's script does.
        _ if arguments.len() == 1 => arguments.push("start".into()),
        _ => {}
    }
    let cli = match Cli::try_parse_from(arguments) {
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
    let shows = matches!(
        cli.command,
        Command::Status { .. }
            | Command::Check { .. }
            | Command::Route(_)
            | Command::Queue(_)
            | Command::Mailq(_)
            | Command::Spool(_)
            | Command::Resubmit { .. }
            | Command::Trace { .. }
    );
    if shows {
        sys::process::end_at_broken_pipe();
    }
    match dispatch(cli.command) {
        Ok(code) | Err(code) => code,
    }
}

/// Names under which the binary is a program of its own.
const PROGRAMS: &[&str] = &["mailq", "makedb", "newaliases"];

fn sendmail(arguments: &[OsString]) -> ExitCode {
    sendmail::run(&bytes_of(arguments))
}

fn bytes_of(arguments: &[OsString]) -> Vec<Vec<u8>> {
    let arguments = arguments.iter();
    arguments
        .map(|argument| argument.as_encoded_bytes().to_vec())
        .collect()
}

/// The program `sendmail`: it submits by itself, and becomes the whole program, which stands beside it,
/// for all else. Starting the whole one costs more than a submission does.
pub fn sendmail_main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    sendmail::submit_only(&bytes_of(&arguments)).unwrap_or_else(|| become_whole(&arguments))
}

fn become_whole(arguments: &[OsString]) -> ExitCode {
    let own = std::env::current_exe().unwrap_or_default();
    let whole = own.with_file_name("zmailer");
    let error = process::Command::new(&whole)
        .arg0("sendmail")
        .args(arguments)
        .exec();
    let what = format!("sendmail: {}, which this needs: {error}", whole.display());
    fail(exit::UNAVAILABLE, what)
}

fn reload(config: &Config) -> ExitCode {
    let socket = config.paths.postoffice.join("control.sock");
    match client::request(&socket, "reload") {
        Ok(_) => ExitCode::SUCCESS,
        Err(client::ControlError::Refused(text)) => fail(exit::CONFIG, text),
        Err(error) => fail(exit::UNAVAILABLE, error),
    }
}

fn dispatch(command: Command) -> Result<ExitCode, ExitCode> {
    Ok(match command {
        Command::Run(argument) => run::run(argument.path(), &argument.load()?),
        Command::Agent { config, uid } => agent::run(&config.load()?, config.path(), uid),
        Command::Start(argument) => start::start(argument.path(), &argument.load()?),
        Command::Restart(argument) => start::restart(argument.path(), &argument.load()?),
        Command::Freeze(argument) => start::freeze(&argument.load()?),
        Command::Thaw(argument) => start::thaw(&argument.load()?),
        Command::Reload(argument) => reload(&argument.load()?),
        Command::Queue(act) => queue::run(&act)?,
        Command::Mailq(arguments) => queue::mailq(&arguments)?,
        Command::Spool(act) => spool::run(&act)?,
        Command::Trace { config, wanted } => trace::run(&config.load()?, &wanted)?,
        Command::Resubmit { config, ids } => resubmit::run(&config.load()?, &ids)?,
        Command::Route(arguments) => route::run(&arguments)?,
        Command::Zmsh(arguments) => zmsh::run(&arguments)?,
        Command::Makedb(arguments) => database::makedb(&arguments),
        Command::Newaliases(arguments) => database::newaliases(&arguments),
        Command::Newdb(arguments) => database::newdb(&arguments),
        Command::Sendmail { arguments } => sendmail(&arguments),
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
