//! `zmailer resubmit`: messages of `deferred/` go back to `router/`, where the pick-up takes them.
//!
//! Each file is moved, never copied: at any time it is in one of the two directories, and its owner, by whom the pick-up
//! judges what it says, stays.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::{CWD, RenameFlags};

use super::{exit, fail};
use crate::config::Config;

/// Moves the files of these messages, or all. What cannot be moved is named, and does not stop the others.
pub(super) fn run(config: &Config, ids: &[String]) -> Result<ExitCode, ExitCode> {
    let [from, to] = ["deferred", "router"].map(|name| config.paths.postoffice.join(name));
    let failed = |dir: &Path, error: &io::Error| {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => exit::PERMISSION,
            io::ErrorKind::NotFound => exit::UNAVAILABLE,
            _ => exit::IO,
        };
        fail(code, format!("{}: {error}", dir.display()))
    };
    let names = names(&from).map_err(|error| failed(&from, &error))?;
    let mut missing: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    let mut worst = None;
    for name in names {
        let shown = name.to_string_lossy();
        let of = |id: &&str| *id == shown || shown.split('.').next() == Some(*id);
        if !ids.is_empty() && !ids.iter().any(|id| of(&id.as_str())) {
            continue;
        }
        missing.retain(|id| !of(id));
        let target = to.join(&name);
        let moved =
            rustix::fs::renameat_with(CWD, from.join(&name), CWD, &target, RenameFlags::NOREPLACE);
        match moved {
            Ok(()) => println!("{shown}"),
            // The daemon or another `resubmit` was faster.
            Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => worst = Some(failed(&target, &errno.into())),
        }
    }
    for id in missing {
        worst = Some(fail(
            exit::NO_INPUT,
            format!("there is no message {id} in {}", from.display()),
        ));
    }
    // The new names first: a crash in between leaves both, never none.
    for dir in [&to, &from] {
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| failed(dir, &error))?;
    }
    Ok(worst.unwrap_or(ExitCode::SUCCESS))
}

/// Files that are whole: those that are being written are hidden.
fn names(dir: &Path) -> io::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_file() && !name.as_encoded_bytes().starts_with(b".") {
            names.insert(name);
        }
    }
    Ok(names)
}
