//! `zmailer spool salvage`: every intact message out of a spool in any state, as message files.
//!
//! What nobody vouches for goes to `doubtful/`: a client may have sent content that looks like records, and
//! what is whole behind lost records may be old. Nothing in the spool is changed.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use spool::SpoolId;
use spool::survey::{Found, Standing};

use super::check::show_all;
use super::file::{self, Writer};
use super::look::Look;
use super::{directories, exit, fail, kept};
use crate::config::Config;
use crate::sys::lock;

/// Writes everything from `from`, or from all shards, into the new directory `to`; with `missing` only what
/// a start of the daemon does not find.
pub(super) fn salvage(
    config: &Config,
    from: Option<&Path>,
    to: &Path,
    missing: bool,
) -> Result<ExitCode, ExitCode> {
    let running = lock::is_held(&config.paths.postoffice);
    if running && !missing {
        let text = "a daemon runs and delivers what it has; stop it, or take only what it does not have \
             with --missing";
        return Err(fail(exit::UNAVAILABLE, text));
    }
    let dirs = match from {
        Some(dir) => vec![dir.to_owned()],
        None => {
            let shards = directories(config).map_err(|error| fail(exit::UNAVAILABLE, error))?;
            shards.into_iter().chain(kept(config)).collect()
        }
    };
    let failed = |error: io::Error| fail(exit::CANNOT_CREATE, format!("{}: {error}", to.display()));
    fs::create_dir(to).map_err(failed)?;
    let mut salvage = Salvage {
        to: to.to_owned(),
        seen: HashSet::new(),
        written: 0,
        doubtful: 0,
        lost: 0,
        findings: 0,
    };
    for dir in dirs {
        let look = Look::at(&dir, !running);
        let look = look.map_err(|error| fail(exit::IO, format!("{}: {error}", dir.display())))?;
        // Messages of a shard that is gone, as far as a start has found them, are in another one.
        let is_kept = from.is_none() && super::number(&dir).is_none();
        salvage
            .directory(&look, missing || is_kept)
            .map_err(failed)?;
    }
    File::open(to)
        .and_then(|dir| dir.sync_all())
        .map_err(failed)?;
    Ok(salvage.end())
}

struct Salvage {
    to: PathBuf,
    /// Messages that have had their turn.
    seen: HashSet<SpoolId>,
    written: usize,
    doubtful: usize,
    lost: usize,
    findings: usize,
}

impl Salvage {
    fn directory(&mut self, look: &Look, missing: bool) -> io::Result<()> {
        show_all(&look.dir, "", &look.surveyed.findings);
        self.findings += look.surveyed.findings.len() + look.unreadable.len();
        for error in &look.unreadable {
            println!("{error}");
        }
        for id in &look.surveyed.unclaimed {
            println!("{}: content.{id:032x} has no record", look.dir.display());
        }
        for found in &look.surveyed.messages {
            if self.seen.insert(found.id) && !(missing && found.counts) {
                self.message(look, found)?;
            }
        }
        Ok(())
    }

    fn message(&mut self, look: &Look, found: &Found) -> io::Result<()> {
        let dir = match found.standing {
            Standing::Vouched => self.to.clone(),
            Standing::Loose | Standing::PerhapsFinished => self.to.join("doubtful"),
        };
        if found.standing != Standing::Vouched {
            fs::create_dir_all(&dir)?;
        }
        let path = dir.join(found.id.to_string());
        let file = File::create_new(&path)?;
        if let Err(error) = write(look, found, &file) {
            fs::remove_file(&path)?;
            if error.kind() == io::ErrorKind::StorageFull {
                return Err(error);
            }
            println!("{}: lost: {error}", found.id);
            self.lost += 1;
            return Ok(());
        }
        match found.standing {
            Standing::Vouched => self.written += 1,
            Standing::Loose => {
                self.doubtful += 1;
                println!("doubtful/{}: no commit vouches for it", found.id);
            }
            Standing::PerhapsFinished => {
                self.doubtful += 1;
                println!("doubtful/{}: it may be finished", found.id);
            }
        }
        Ok(())
    }

    fn end(&self) -> ExitCode {
        println!(
            "{} messages written to {}, {} to its doubtful/, {} lost, {} findings",
            self.written,
            self.to.display(),
            self.doubtful,
            self.lost,
            self.findings
        );
        if self.lost + self.doubtful + self.findings == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(exit::DATA)
        }
    }
}

fn write(look: &Look, found: &Found, file: &File) -> io::Result<()> {
    let waits = |at: usize| !found.finished.contains(&(at as u32));
    let opened = look.open(found)?;
    let arrival_ms = opened.envelope.arrival_ms;
    let out = BufWriter::with_capacity(64 << 10, file);
    let mut writer = Writer::begin(out, found.id, &opened.envelope, waits)?;
    look.content(&opened, |piece| writer.feed(piece))?;
    let out = writer.end()?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file::settle(file, arrival_ms)
}
