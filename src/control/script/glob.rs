//! Paths that fit a pattern.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::router::pattern::glob_matches;

/// Paths of one pattern; further ones are left out.
const PATHS_MAX: usize = 100_000;

/// Deepest directory that `**` looks into.
const DEPTH_MAX: usize = 32;

/// Sorted paths; none when nothing fits. `**` is any number of directories.
pub(super) fn paths(pattern: &[u8]) -> Vec<Vec<u8>> {
    let mut found = BTreeSet::new();
    let start = if pattern.starts_with(b"/") {
        PathBuf::from("/")
    } else {
        PathBuf::new()
    };
    let parts: Vec<&[u8]> = pattern
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty())
        .collect();
    walk(&start, &parts, 0, &mut found);
    found.into_iter().collect()
}

fn walk(directory: &Path, parts: &[&[u8]], depth: usize, found: &mut BTreeSet<Vec<u8>>) {
    let Some((part, rest)) = parts.split_first() else {
        if !directory.as_os_str().is_empty() {
            found.insert(directory.as_os_str().as_bytes().to_vec());
        }
        return;
    };
    if found.len() >= PATHS_MAX || depth > DEPTH_MAX {
        return;
    }
    if *part == b"**" {
        walk(directory, rest, depth, found);
        for name in names(directory) {
            let below = directory.join(OsStr::from_bytes(&name));
            if below.is_dir() && !below.is_symlink() {
                walk(&below, parts, depth + 1, found);
            }
        }
        return;
    }
    if !part.iter().any(|byte| b"*?[".contains(byte)) {
        let below = directory.join(OsStr::from_bytes(part));
        if below.symlink_metadata().is_ok() {
            walk(&below, rest, depth, found);
        }
        return;
    }
    let quoted = vec![false; part.len()];
    for name in names(directory) {
        let hidden = name.starts_with(b".") && part[0] != b'.';
        if !hidden && glob_matches(part, &quoted, &name) {
            walk(
                &directory.join(OsStr::from_bytes(&name)),
                rest,
                depth,
                found,
            );
        }
    }
}

fn names(directory: &Path) -> Vec<Vec<u8>> {
    let directory = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_vec()).collect()
}
