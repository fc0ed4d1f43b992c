//! `makedb`, `newaliases` and `zmailer newdb`: compile the sources of databases. A new map replaces the old
//! one as a whole, and only when the source has no error; a running daemon takes it within a second.

mod build;
mod help;
mod newdb;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use build::{Input, Job};

use super::{ConfigArgument, exit, fail};
use crate::router::relation::Kind;
use crate::router::relation::source::{Again, Syntax};

pub(super) use help::{MAKEDB, NEWALIASES, NEWDB};

/// Where files of the administrator are when nothing says otherwise.
const MAILVAR: &str = "/etc/zmailer";

/// The type that is compiled when nothing says otherwise.
const DBTYPE: &str = "cdb";

/// `makedb`.
#[derive(clap::Args)]
pub(super) struct Makedb {
    /// Of a key that comes again, append the value to the first one, behind a comma.
    #[arg(short = 'A')]
    append: bool,
    /// The source is written like aliases: `name: value, value`.
    #[arg(short = 'a')]
    aliases: bool,
    /// Keys to lower case.
    #[arg(short = 'l', conflicts_with = "upper")]
    lower: bool,
    /// Keys to upper case.
    #[arg(short = 'u')]
    upper: bool,
    /// Say nothing unless something is wrong.
    #[arg(short = 's', conflicts_with = "verbose")]
    silent: bool,
    /// Say every entry.
    #[arg(short = 'v')]
    verbose: bool,
    /// cdb; the names of older libraries (ndbm gdbm dbm btree bhash) stand for the same with another extension.
    #[arg(value_name = "TYPE")]
    kind: String,
    /// The map, without its extension.
    base: PathBuf,
    /// The source; without, or `-`: standard input.
    source: Option<PathBuf>,
}

/// `newaliases`.
#[derive(clap::Args, Default)]
pub(super) struct Newaliases {
    #[command(flatten)]
    pub(super) config: ConfigArgument,
    /// Say nothing unless something is wrong.
    #[arg(short = 's')]
    silent: bool,
    /// The source [default: db/aliases, else aliases, in the directory of the router's files].
    file: Option<PathBuf>,
}

impl Newaliases {
    /// As `sendmail -bi` calls it.
    pub(super) fn of(config: Option<PathBuf>) -> Self {
        let config = ConfigArgument { config };
        Self {
            config,
            ..Self::default()
        }
    }
}

/// `zmailer newdb`.
#[derive(clap::Args)]
pub(super) struct Newdb {
    #[command(flatten)]
    config: ConfigArgument,
    /// Say nothing unless something is wrong.
    #[arg(short = 's')]
    silent: bool,
    /// The relation [default: all].
    name: Option<String>,
}

pub(super) fn makedb(arguments: &Makedb) -> ExitCode {
    let Some(Kind::Compiled(extension)) = Kind::parse(arguments.kind.as_bytes()) else {
        let text = format!(
            "type {} cannot be compiled; allowed: cdb ndbm gdbm dbm btree bhash",
            arguments.kind
        );
        return fail(exit::USAGE, text);
    };
    let input = match &arguments.source {
        Some(path) if path != Path::new("-") => Input::Files(vec![path.clone()]),
        _ => Input::Standard,
    };
    let job = Job {
        input,
        target: build::target(&arguments.base, extension),
        syntax: if arguments.aliases {
            Syntax::Aliases
        } else {
            Syntax::Keyed
        },
        lower: arguments.lower,
        upper: arguments.upper,
        again: if arguments.append {
            Again::Append
        } else {
            Again::Report
        },
        rights: None,
        verbose: arguments.verbose,
    };
    done(job.run(), arguments.silent)
}

pub(super) fn newaliases(arguments: &Newaliases) -> ExitCode {
    let file = match &arguments.file {
        Some(file) => file.clone(),
        None => {
            let mailvar = match mailvar(&arguments.config) {
                Ok(mailvar) => mailvar,
                Err(code) => return code,
            };
            let places = [mailvar.join("db/aliases"), mailvar.join("aliases")];
            let found = places.iter().find(|place| place.exists());
            found.unwrap_or(&places[0]).clone()
        }
    };
    let Some(extension) = extension_of(&dbtype()) else {
        return fail(
            exit::CONFIG,
            format!("$DBTYPE {} cannot be compiled", dbtype()),
        );
    };
    let mut files = vec![file.clone()];
    let mut private = file.clone().into_os_string();
    private.push(".private");
    let private = PathBuf::from(private);
    if private.exists() {
        files.push(private);
    }
    let job = Job {
        input: Input::Files(files),
        target: build::target(&file, extension),
        syntax: Syntax::Aliases,
        lower: true,
        upper: false,
        again: Again::Report,
        rights: None,
        verbose: false,
    };
    done(job.run(), arguments.silent)
}

pub(super) fn newdb(arguments: &Newdb) -> ExitCode {
    match mailvar(&arguments.config) {
        Ok(mailvar) => newdb::run(&mailvar, arguments.name.as_deref(), arguments.silent),
        Err(code) => code,
    }
}

fn done(result: Result<build::Summary, build::Failure>, silent: bool) -> ExitCode {
    match result {
        Ok(summary) => {
            if !silent {
                println!("{summary}");
            }
            ExitCode::SUCCESS
        }
        Err(failure) => fail(failure.code, failure.text),
    }
}

/// The directory of the administrator's files: that of `--config`, else `$MAILVAR`, else that of the
/// configuration which the daemon reads.
///
/// # Errors
/// The exit code, after everything that is wrong with the configuration has been printed.
fn mailvar(config: &ConfigArgument) -> Result<PathBuf, ExitCode> {
    let said = std::env::var_os("MAILVAR").filter(|dir| !dir.is_empty());
    match said {
        Some(dir) if config.path().is_none() => Ok(dir.into()),
        _ => {
            let directory = config.load()?.router.directory;
            let is_said = !directory.as_os_str().is_empty();
            Ok(if is_said { directory } else { MAILVAR.into() })
        }
    }
}

fn dbtype() -> String {
    let set = std::env::var("DBTYPE").ok().filter(|text| !text.is_empty());
    set.unwrap_or_else(|| DBTYPE.to_owned())
}

fn extension_of(kind: &str) -> Option<&'static str> {
    match Kind::parse(kind.as_bytes()) {
        Some(Kind::Compiled(extension)) => Some(extension),
        _ => None,
    }
}
