//! One map from its sources.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::exit;
use crate::router::relation::source::{Again, Parsed, Syntax};
use crate::router::relation::with_extension;
use crate::sys::process;
use crate::sys::replace::{self, Rights};

/// Largest source; a map has less than 4 GiB.
const SOURCE_BYTES_MAX: u64 = 4 << 30;

/// Where the text comes from.
pub(super) enum Input {
    /// Standard input.
    Standard,
    /// Files, one behind the other.
    Files(Vec<PathBuf>),
}

/// What is to be done.
pub(super) struct Job {
    pub(super) input: Input,
    pub(super) target: PathBuf,
    pub(super) syntax: Syntax,
    pub(super) lower: bool,
    pub(super) upper: bool,
    pub(super) again: Again,
    /// Whose the map will be; none: as the source's.
    pub(super) rights: Option<Rights>,
    pub(super) verbose: bool,
}

/// What was done.
#[derive(Debug)]
pub(super) struct Summary {
    what: &'static str,
    entries: usize,
    longest_bytes: usize,
    bytes: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            entries,
            longest_bytes,
            bytes,
        } = self;
        write!(
            f,
            "{entries} {what}, longest {longest_bytes} bytes, {bytes} bytes total"
        )
    }
}

/// Why nothing was done; the old map is as it was.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: u8,
    pub(super) text: String,
}

impl Failure {
    pub(super) fn io(path: &Path, error: &io::Error, otherwise: u8) -> Self {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => exit::PERMISSION,
            io::ErrorKind::WouldBlock => exit::TEMPORARY,
            io::ErrorKind::NotFound => otherwise,
            _ if otherwise == exit::NO_INPUT => exit::NO_INPUT,
            _ => exit::IO,
        };
        let text = format!("{}: {error}", path.display());
        Self { code, text }
    }
}

/// The file of a map.
pub(super) fn target(base: &Path, extension: &str) -> PathBuf {
    let named = with_extension(base.as_os_str().as_bytes(), extension);
    OsString::from_vec(named).into()
}

/// A source in memory.
struct Text {
    name: String,
    text: Vec<u8>,
    owner: Option<(u32, u32)>,
    mode: u32,
}

impl Job {
    /// Does it. Problems are printed with file, line and column.
    pub(super) fn run(&self) -> Result<Summary, Failure> {
        let sources = self.read()?;
        let rights = match self.rights {
            Some(rights) => rights,
            None => rights_of(&sources)?,
        };
        let mut all = Parsed::default();
        for (origin, source) in sources.iter().enumerate() {
            let mut parsed = Parsed::read(&source.text, self.syntax);
            for problem in &parsed.problems {
                eprintln!("{}:{problem}", source.name);
            }
            if !parsed.is_good() {
                return Err(Failure {
                    code: exit::DATA,
                    text: format!("{}: nothing was compiled", source.name),
                });
            }
            for entry in &mut parsed.entries {
                entry.origin = origin;
            }
            all.entries.append(&mut parsed.entries);
        }
        self.fold(&mut all);
        all.unify(self.again);
        for problem in &all.problems {
            let source = sources.get(problem.origin);
            eprintln!("{}:{problem}", source.map_or("", |source| &source.name));
        }
        if self.verbose {
            for entry in &all.entries {
                let show = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
                println!("{}: {}", show(&entry.key), show(&entry.value));
            }
        }
        self.write(&all, rights)
    }

    fn fold(&self, all: &mut Parsed<'_>) {
        for entry in &mut all.entries {
            if self.lower && entry.key.iter().any(u8::is_ascii_uppercase) {
                entry.key.to_mut().make_ascii_lowercase();
            }
            if self.upper && entry.key.iter().any(u8::is_ascii_lowercase) {
                entry.key.to_mut().make_ascii_uppercase();
            }
        }
    }

    fn write(&self, all: &Parsed<'_>, rights: Rights) -> Result<Summary, Failure> {
        let bytes = all.compile().map_err(|error| Failure {
            code: exit::DATA,
            text: error.to_string(),
        })?;
        replace::replace(&self.target, &bytes, rights)
            .map_err(|error| Failure::io(&self.target, &error, exit::CANNOT_CREATE))?;
        let lengths = all.entries.iter().map(|entry| entry.value.len());
        Ok(Summary {
            what: match self.syntax {
                Syntax::Aliases => "aliases",
                Syntax::Keyed => "entries",
            },
            entries: all.entries.len(),
            longest_bytes: lengths.clone().max().unwrap_or(0),
            bytes: lengths.sum(),
        })
    }

    fn read(&self) -> Result<Vec<Text>, Failure> {
        match &self.input {
            Input::Standard => {
                let mut text = Vec::new();
                let path = Path::new("standard input");
                let mut input = io::stdin().lock().take(SOURCE_BYTES_MAX);
                let read = input.read_to_end(&mut text);
                read.map_err(|error| Failure::io(path, &error, exit::NO_INPUT))?;
                Ok(vec![Text {
                    name: path.display().to_string(),
                    text,
                    owner: None,
                    mode: 0o644,
                }])
            }
            Input::Files(files) => files.iter().map(|path| read_file(path)).collect(),
        }
    }
}

fn read_file(path: &Path) -> Result<Text, Failure> {
    let failed = |error: io::Error| Failure::io(path, &error, exit::NO_INPUT);
    let mut file = File::open(path).map_err(failed)?;
    let is = file.metadata().map_err(failed)?;
    if is.len() >= SOURCE_BYTES_MAX || is.is_dir() {
        return Err(Failure {
            code: exit::DATA,
            text: format!("{}: a source is a file below 4 GiB", path.display()),
        });
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(failed)?;
    // A line without its end would join with the first one of the next file.
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    Ok(Text {
        name: path.display().to_string(),
        text,
        owner: Some((is.uid(), is.gid())),
        mode: is.mode() & 0o666,
    })
}

/// The map gets the owner and mode of its source, since what it says acts with the rights of its owner.
fn rights_of(sources: &[Text]) -> Result<Rights, Failure> {
    let owner = sources.first().and_then(|source| source.owner);
    if let Some(other) = sources
        .iter()
        .find(|source| source.owner.map(|(uid, _)| uid) != owner.map(|(uid, _)| uid))
    {
        return Err(Failure {
            code: exit::PERMISSION,
            text: format!(
                "{}: belongs to somebody else than the source before it",
                other.name
            ),
        });
    }
    let mode = sources
        .iter()
        .fold(0o666, |mode, source| mode & source.mode);
    Ok(Rights {
        // Only root can give a file away; the map of anybody else is his own.
        owner: owner.filter(|_| process::is_root()),
        mode,
    })
}

/// Whether there is something at a path.
pub(super) fn exists(path: &Path) -> bool {
    fs::metadata(path).is_ok()
}
