//! A survey of a directory with segments, as it is on disk.
//!
//! A daemon may be writing there. Segments are read one after the other, so what a look sees need not have
//! been true at one moment: the tail grows, and segments are recycled under it. What moves is elsewhere in a
//! second look that begins when the first has ended, and damage is where it was; so under a running daemon
//! only what both have seen counts.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use spool::blocking::{file_name, parse_file_name, read_content};
use spool::op::FileId;
use spool::survey::{Finding, Found, Opened, Place, Survey, Surveyed};

/// What stands in front of the commits of a segment, and the first of them.
const START_BYTES: usize = 3 * 4096;

/// What a look has seen.
pub(super) struct Look {
    pub(super) dir: PathBuf,
    pub(super) shard: u16,
    pub(super) surveyed: Surveyed,
    pub(super) segments: usize,
    /// Files that could not be read, and why.
    pub(super) unreadable: Vec<String>,
}

impl Look {
    /// Looks at a directory; `settled` is false while a daemon may be writing to it.
    pub(super) fn at(dir: &Path, settled: bool) -> io::Result<Self> {
        let mut look = Self::once(dir)?;
        let quiet = look.surveyed.messages.iter().all(|found| found.counts);
        if settled || (quiet && look.surveyed.findings.is_empty()) {
            return Ok(look);
        }
        let again = Self::once(dir)?;
        let before = std::mem::replace(&mut look, again).surveyed;
        let seen: BTreeSet<Finding> = before.findings.into_iter().collect();
        let findings = &mut look.surveyed.findings;
        findings.retain(|finding| seen.contains(finding));
        // One that a start does not find may be in a commit that is being written.
        let apart = before.messages.iter().filter(|found| !found.counts);
        let apart: BTreeSet<Place> = apart.map(|found| found.place).collect();
        let messages = &mut look.surveyed.messages;
        messages.retain(|found| found.counts || apart.contains(&found.place));
        Ok(look)
    }

    fn once(dir: &Path) -> io::Result<Self> {
        let (segments, contents) = list(dir)?;
        let mut survey = Survey::new(super::number(dir));
        let mut unreadable = Vec::new();
        let mut failed = |segment: u32, error: io::Error| {
            // A file that has gone meanwhile leaves a gap, which is found.
            let name = file_name(FileId::Segment(segment));
            unreadable.push(format!("{}: {error}", dir.join(name).display()));
        };
        for segment in &segments {
            match start(dir, *segment) {
                Ok(bytes) => survey.start(*segment, &bytes),
                Err(error) => failed(*segment, error),
            }
        }
        for segment in &segments {
            match fs::read(dir.join(file_name(FileId::Segment(*segment)))) {
                Ok(bytes) => {
                    // It may have been recycled since.
                    survey.start(*segment, bytes.get(..START_BYTES).unwrap_or(&bytes));
                    survey.segment(*segment, &bytes);
                }
                Err(error) => failed(*segment, error),
            }
        }
        unreadable.dedup();
        let mut look = Self {
            dir: dir.to_owned(),
            shard: super::number(dir).unwrap_or(0),
            surveyed: survey.finish(&contents),
            segments: segments.len(),
            unreadable,
        };
        look.judge_messages();
        Ok(look)
    }

    /// Reads every message that a start would find.
    fn judge_messages(&mut self) {
        let counted = self.surveyed.messages.iter().filter(|found| found.counts);
        let mut findings = Vec::new();
        for found in counted {
            let read = self.open(found);
            let read = read.and_then(|opened| self.content(&opened, |_| Ok(())));
            if let Err(error) = read {
                let what = format!("message {}: {error}", found.id);
                let place = Some(found.place);
                findings.push(Finding { place, what });
            }
        }
        self.surveyed.findings.append(&mut findings);
        self.surveyed.findings.sort();
        self.surveyed.findings.dedup();
    }

    /// A message without content that is in a file.
    pub(super) fn open(&self, found: &Found) -> io::Result<Opened> {
        let name = file_name(FileId::Segment(found.place.segment));
        let mut payload = vec![0; usize::try_from(found.payload_len).unwrap_or(0)];
        let file = File::open(self.dir.join(name))?;
        file.read_exact_at(&mut payload, found.place.offset)?;
        let opened = found.open(&payload, self.shard);
        opened.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its record has changed"))
    }

    /// Gives the content of a message in verified pieces.
    pub(super) fn content(
        &self,
        opened: &Opened,
        mut each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        match (&opened.content, &opened.file) {
            (Some(content), _) => each(content),
            (None, Some(file)) => read_content(&self.dir, file, each),
            (None, None) => Ok(()),
        }
    }
}

fn start(dir: &Path, segment: u32) -> io::Result<Vec<u8>> {
    let file = File::open(dir.join(file_name(FileId::Segment(segment))))?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, START_BYTES as u64), &mut bytes)?;
    Ok(bytes)
}

/// Segments, and ids of content files.
fn list(dir: &Path) -> io::Result<(BTreeSet<u32>, BTreeSet<u128>)> {
    let (mut segments, mut contents) = (BTreeSet::new(), BTreeSet::new());
    for entry in fs::read_dir(dir)? {
        match entry?.file_name().to_str().and_then(parse_file_name) {
            Some(FileId::Segment(number)) => {
                segments.insert(number);
            }
            Some(FileId::Content(id)) => {
                contents.insert(id);
            }
            _ => {}
        }
    }
    Ok((segments, contents))
}
