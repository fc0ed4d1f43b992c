//! `zmailer newdb`: what `dbases.conf` says.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::build::{self, Failure, Input, Job};
use super::{dbtype, extension_of};
use crate::commands::{exit, fail};
use crate::router::relation::dbases::{self, Compile, Source};
use crate::router::relation::source::{Again, Parsed, Syntax};
use crate::router::relation::{Kind, build as build_map};
use crate::sys::replace::{self, Rights};
use crate::sys::{accounts, process};

/// Compiles and defines one relation or all of them.
pub(super) fn run(mailvar: &Path, wanted: Option<&str>, silent: bool) -> ExitCode {
    let places = [mailvar.join("db/dbases.conf"), mailvar.join("dbases.conf")];
    let conf = places
        .iter()
        .find(|place| build::exists(place))
        .unwrap_or(&places[0]);
    let text = match fs::read_to_string(conf) {
        Ok(text) => text,
        Err(error) => {
            let failure = Failure::io(conf, &error, exit::NO_INPUT);
            return fail(failure.code, failure.text);
        }
    };
    let sources = match dbases::parse(&text, &dbtype()) {
        Ok(sources) => sources,
        Err(problems) => {
            for problem in problems {
                eprintln!("{}:{problem}", conf.display());
            }
            return fail(
                exit::CONFIG,
                format!("{}: nothing was changed", conf.display()),
            );
        }
    };
    let mut names: Vec<&str> = sources
        .iter()
        .map(|source| source.relation.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    if let Some(wanted) = wanted {
        names.retain(|name| *name == wanted);
        if names.is_empty() {
            return fail(
                exit::USAGE,
                format!("{}: there is no relation {wanted}", conf.display()),
            );
        }
    }
    let newdb = NewDb {
        dir: mailvar.join("db"),
        mailvar,
        silent,
    };
    let mut worst = None;
    let mut changed = false;
    for name in names {
        match newdb.relation(name, &sources) {
            Ok(new) => changed |= new,
            Err(failure) => {
                fail(
                    failure.code,
                    format!("relation {name} stays as it was: {}", failure.text),
                );
                worst = worst.or(Some(failure.code));
            }
        }
    }
    if changed && !silent {
        println!("definitions have changed: a running daemon takes them with `zmailer reload`");
    }
    worst.map_or(ExitCode::SUCCESS, ExitCode::from)
}

/// A key and its value.
type Pair = (Vec<u8>, Vec<u8>);

struct NewDb<'a> {
    mailvar: &'a Path,
    dir: PathBuf,
    silent: bool,
}

impl NewDb<'_> {
    /// Compiles the sources of a relation and then writes its script; whether that has changed.
    fn relation(&self, name: &str, sources: &[Source]) -> Result<bool, Failure> {
        let own = || sources.iter().filter(|source| source.relation == name);
        for source in own().filter(|source| !source.is_none()) {
            match (source.compile, source.resolved(&dbtype())) {
                (Some(compile), Some(Kind::Compiled(_))) => self.compile(source, compile)?,
                _ => self.try_text(source)?,
            }
        }
        let mut incore = Vec::new();
        for source in own().filter(|source| source.kind == "incore" && !source.file.is_empty()) {
            incore.push((source.line, self.entries(source)?));
        }
        let entries = |source: &Source| {
            let found = incore.iter().find(|(line, _)| *line == source.line);
            found
                .map(|(_, entries)| entries.clone())
                .unwrap_or_default()
        };
        let script = dbases::script(name, sources, entries);
        let path = self.dir.join(format!("{name}.zmsh"));
        if fs::read(&path).is_ok_and(|old| old == script) {
            return Ok(false);
        }
        let rights = Rights {
            owner: None,
            mode: 0o644,
        };
        replace::replace(&path, &script, rights)
            .map_err(|error| Failure::io(&path, &error, exit::CANNOT_CREATE))?;
        Ok(true)
    }

    fn compile(&self, source: &Source, compile: Compile) -> Result<(), Failure> {
        let kind = source.kind.replace("$DBTYPE", &dbtype());
        let extension = extension_of(&kind).unwrap_or(super::DBTYPE);
        let file = self.path(&source.file)?;
        let job = Job {
            target: build::target(&file, extension),
            input: Input::Files(vec![file]),
            syntax: if compile.aliases {
                Syntax::Aliases
            } else {
                Syntax::Keyed
            },
            lower: compile.lower,
            upper: compile.upper,
            again: Again::Report,
            rights: source.rights.as_ref().map(rights).transpose()?,
            verbose: false,
        };
        let summary = job.run()?;
        if !self.silent {
            println!("{}: {summary}", job.target.display());
        }
        Ok(())
    }

    /// A text that is read as it stands should be one that can be read.
    fn try_text(&self, source: &Source) -> Result<(), Failure> {
        let file = self.path(&source.file)?;
        let kind = source.resolved(&dbtype());
        let Some(kind @ (Kind::Aliases | Kind::Regex | Kind::Cidr)) = kind else {
            return Ok(());
        };
        let text = fs::read(&file).map_err(|error| Failure::io(&file, &error, exit::NO_INPUT))?;
        let map = crate::router::relation::Source {
            kind,
            path: Vec::new(),
            second: None,
            watched: false,
        };
        let built = build_map(&map, text, Vec::new());
        let failed = |problem| Failure {
            code: exit::DATA,
            text: format!("{}:{problem}", file.display()),
        };
        built.map(drop).map_err(failed)
    }

    fn entries(&self, source: &Source) -> Result<Vec<Pair>, Failure> {
        let file = self.path(&source.file)?;
        let text = fs::read(&file).map_err(|error| Failure::io(&file, &error, exit::NO_INPUT))?;
        let parsed = Parsed::read(&text, Syntax::Keyed);
        if let Some(problem) = parsed.problems.first() {
            return Err(Failure {
                code: exit::DATA,
                text: format!("{}:{problem}", file.display()),
            });
        }
        let entries = parsed.entries.into_iter();
        Ok(entries
            .map(|entry| (entry.key.into_owned(), entry.value.into_owned()))
            .collect())
    }

    /// A file's name with its variables: `$MAILVAR`, and others of the environment.
    fn path(&self, file: &str) -> Result<PathBuf, Failure> {
        let mut parts = file.split('$');
        let mut path = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let (name, rest) = part.split_at(end.unwrap_or(part.len()));
            let set = match std::env::var(name) {
                Ok(value) => value,
                Err(_) if name == "MAILVAR" => self.mailvar.to_string_lossy().into_owned(),
                Err(_) => {
                    return Err(Failure {
                        code: exit::CONFIG,
                        text: format!("{file}: ${name} is not set"),
                    });
                }
            };
            path.push_str(&set);
            path.push_str(rest);
        }
        Ok(path.into())
    }
}

fn rights(rights: &dbases::Rights) -> Result<Rights, Failure> {
    let uid = accounts::by_name(&rights.user).map(|found| found.map(|account| account.uid));
    let gid = accounts::group(&rights.group).map(|found| found.map(|group| group.gid));
    let owner = (number(&rights.user, uid)?, number(&rights.group, gid)?);
    Ok(Rights {
        // Only root can give a file away.
        owner: process::is_root().then_some(owner),
        mode: rights.mode,
    })
}

/// A name that is a number, or what was found for it.
fn number(name: &str, found: io::Result<Option<u32>>) -> Result<u32, Failure> {
    let fail = |code, text| Failure { code, text };
    match (name.parse(), found) {
        (Ok(number), _) | (_, Ok(Some(number))) => Ok(number),
        (_, Ok(None)) => Err(fail(
            exit::CONFIG,
            format!("there is no account or group {name}"),
        )),
        (_, Err(error)) => Err(fail(exit::TEMPORARY, format!("{name}: {error}"))),
    }
}
