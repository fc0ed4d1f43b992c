//! Reads files into maps and sees when they have changed.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Published;
use crate::router::relation::{Compiled, Kind, Source, Version, build, with_extension};

/// Largest file; a map has less than 4 GiB.
const FILE_BYTES_MAX: u64 = u32::MAX as u64;

/// A file that was written to so lately may change again without its times showing it: they are as coarse as
/// the kernel's tick.
const UNSURE: Duration = Duration::from_millis(50);

/// Maps by their sources.
#[derive(Debug, Default)]
pub struct Store {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    source: Arc<Source>,
    version: Option<Version>,
    /// What the version was read from, or what could not be read; none: unsure.
    stamp: Option<Stamp>,
    /// At the look before; a text is taken when it has not changed for one.
    seen: Option<Stamp>,
    /// The last problem, told once.
    problem: Option<String>,
}

/// What changes when a file does.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp(Vec<Facts>);

/// Device, inode, size, time of the content, time of the rest, owner, mode.
type Facts = (u64, u64, u64, i64, i64, u32, u32);

impl Store {
    /// The current version; reads the file when there is none yet.
    ///
    /// # Errors
    /// Why there is none, for the operator.
    pub fn get(&mut self, source: &Source) -> Result<Version, String> {
        let entry = self.entry(source);
        match &entry.version {
            Some(version) => Ok(version.clone()),
            None => entry.load(),
        }
    }

    /// The version of the file as it is now; reads it when it has changed. What cannot be read leaves the
    /// version that was there.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn freshen(&mut self, source: &Source) -> Result<Version, String> {
        let entry = self.entry(source);
        let stamp = Stamp::of(source);
        if let Some(version) = &entry.version
            && (stamp.is_none() || stamp == entry.stamp)
        {
            return Ok(version.clone());
        }
        match (entry.load(), &entry.version) {
            (Err(_), Some(version)) => Ok(version.clone()),
            (result, _) => result,
        }
    }

    /// Reads the file again, whether it has changed or not.
    ///
    /// # Errors
    /// Why it cannot be; the old version stays.
    pub fn reload(&mut self, source: &Source) -> Result<Version, String> {
        self.entry(source).load()
    }

    /// Appends a line to the file and reads it again.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn append(&mut self, source: &Source, line: &[u8]) -> Result<Version, String> {
        let path = Path::new(std::ffi::OsStr::from_bytes(&source.path));
        // One write: another process that appends comes before or behind it.
        let file = OpenOptions::new().append(true).open(path);
        let written = file.and_then(|mut file| {
            let written = file.write(line)?;
            if written == line.len() {
                Ok(())
            } else {
                Err(std::io::ErrorKind::WriteZero.into())
            }
        });
        written.map_err(|error| format!("{}: {error}", path.display()))?;
        self.reload(source)
    }

    /// Forgets what no script uses any more.
    pub fn retain(&mut self, used: &[Source]) {
        self.entries.retain(|entry| used.contains(&entry.source));
    }

    /// What is wrong with a map that was asked for, even when there is a version of it.
    #[must_use]
    pub fn problem(&self, source: &Source) -> Option<&str> {
        let mut entries = self.entries.iter();
        let entry = entries.find(|entry| *entry.source == *source)?;
        entry.problem.as_deref()
    }

    /// Looks at all files; the versions that are new. A map without a version is tried every time, a watched
    /// one when its file has changed.
    pub fn look(&mut self) -> Vec<Published> {
        let looked = self.entries.iter_mut();
        looked.filter_map(Entry::look).collect()
    }

    fn entry(&mut self, source: &Source) -> &mut Entry {
        let known = self
            .entries
            .iter()
            .position(|entry| *entry.source == *source);
        let at = known.unwrap_or_else(|| {
            self.entries.push(Entry {
                source: Arc::new(source.clone()),
                version: None,
                stamp: None,
                seen: None,
                problem: None,
            });
            self.entries.len() - 1
        });
        &mut self.entries[at]
    }
}

impl Entry {
    fn look(&mut self) -> Option<Published> {
        if !self.source.watched && self.version.is_some() {
            return None;
        }
        let Some(stamp) = Stamp::of(&self.source) else {
            let name = String::from_utf8_lossy(&self.source.path).into_owned();
            let what = match self.version {
                Some(_) => "is gone; what was read of it stays",
                None => "is not there; look-ups in it are deferred",
            };
            self.tell(format!("{name} {what}"));
            return None;
        };
        if Some(&stamp) == self.stamp.as_ref() {
            return None;
        }
        let whole = matches!(self.source.kind, Kind::Compiled(_));
        if !whole && self.version.is_some() && Some(&stamp) != self.seen.as_ref() {
            // It may be in the middle of being written.
            self.seen = Some(stamp);
            return None;
        }
        match self.load() {
            Ok(version) => Some(Published {
                source: Arc::clone(&self.source),
                version,
            }),
            Err(problem) => {
                self.tell(problem);
                None
            }
        }
    }

    fn tell(&mut self, problem: String) {
        if self.problem.as_ref() != Some(&problem) {
            tracing::error!("{problem}");
            self.problem = Some(problem);
        }
    }

    fn load(&mut self) -> Result<Version, String> {
        let mut stamps = Vec::new();
        let (bytes, owner) = read(&self.source.path, &mut stamps)?;
        let second = match &self.source.second {
            Some(path) => read(path, &mut stamps)?.0,
            None => Vec::new(),
        };
        let newest = stamps.iter().map(|stamp| stamp.3).max().unwrap_or(0);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = i64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX);
        let sure = now.saturating_sub(newest) > UNSURE.as_nanos() as i64;
        self.stamp = sure.then_some(Stamp(stamps));
        match build(&self.source, bytes, second) {
            Ok(map) => {
                let version = Version { map, owner };
                self.version = Some(version.clone());
                self.problem = None;
                Ok(version)
            }
            Err(problem) => self.make_do(&problem),
        }
    }

    /// What is used instead of a text with an error: what was read before it, else what was compiled of it.
    fn make_do(&mut self, problem: &str) -> Result<Version, String> {
        let name = String::from_utf8_lossy(&self.source.path).into_owned();
        if self.version.is_some() {
            return Err(format!(
                "{name}:{problem}; what was read of it before stays"
            ));
        }
        let Some((compiled, version)) = self.compiled_beside() else {
            return Err(format!(
                "{name}:{problem}; look-ups in it are deferred until it is corrected"
            ));
        };
        self.version = Some(version.clone());
        self.tell(format!("{name}:{problem}; {compiled} is used instead"));
        Ok(version)
    }

    /// The compiled form of a text, which belongs to the same account and is no easier to change: what it names
    /// acts with the rights that the text was judged by.
    fn compiled_beside(&self) -> Option<(String, Version)> {
        let Source { kind, path, .. } = &*self.source;
        if !matches!(kind, Kind::Aliases | Kind::Keyed) {
            return None;
        }
        let beside = with_extension(path, Kind::COMPILED);
        let text = std::fs::metadata(path_of(path)).ok()?;
        let is = std::fs::symlink_metadata(path_of(&beside)).ok()?;
        let others = |mode: u32| mode & 0o022;
        if !is.is_file() || is.uid() != text.uid() || others(is.mode()) & !others(text.mode()) != 0
        {
            return None;
        }
        let (bytes, owner) = read(&beside, &mut Vec::new()).ok()?;
        let map = Arc::new(Compiled::new(bytes).ok()?);
        let name = String::from_utf8_lossy(&beside).into_owned();
        Some((name, Version { map, owner }))
    }
}

fn path_of(path: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path))
}

/// A file's content and owner.
fn read(path: &[u8], stamps: &mut Vec<Facts>) -> Result<(Vec<u8>, u32), String> {
    let path = path_of(path);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut options = OpenOptions::new();
    // What is no file must not hold us up.
    let no_wait = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = options.read(true).custom_flags(no_wait).open(path);
    let file = file.map_err(failed)?;
    let is = file.metadata().map_err(failed)?;
    if is.is_dir() || is.len() > FILE_BYTES_MAX {
        return Err(format!("{}: is not a file below 4 GiB", path.display()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(is.len()).unwrap_or(0));
    let mut limited = (&file as &File).take(FILE_BYTES_MAX);
    limited.read_to_end(&mut bytes).map_err(failed)?;
    let then = file.metadata().map_err(failed)?;
    if stamp_of(&is) != stamp_of(&then) {
        return Err(format!("{}: changes while it is read", path.display()));
    }
    stamps.push(stamp_of(&is));
    Ok((bytes, is.uid()))
}

fn stamp_of(is: &Metadata) -> Facts {
    let ns = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
    let modified = ns(is.mtime(), is.mtime_nsec());
    let changed = ns(is.ctime(), is.ctime_nsec());
    let (dev, ino, size) = (is.dev(), is.ino(), is.size());
    (dev, ino, size, modified, changed, is.uid(), is.mode())
}

impl Stamp {
    /// Of the files of a source; none: one is not there.
    fn of(source: &Source) -> Option<Self> {
        let paths = [Some(&source.path), source.second.as_ref()];
        let stamps = paths.into_iter().flatten().map(|path| {
            let is = std::fs::metadata(path_of(path)).ok()?;
            Some(stamp_of(&is))
        });
        stamps.collect::<Option<Vec<_>>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn source(path: &Path, watched: bool) -> Source {
        Source {
            kind: Kind::Unordered,
            path: path.as_os_str().as_bytes().to_vec(),
            second: None,
            watched,
        }
    }

    fn value(version: &Version, key: &str) -> String {
        let value = version.map.get(key.as_bytes());
        value.map_or("-".into(), |value| {
            String::from_utf8_lossy(&value).into_owned()
        })
    }

    /// Puts the file's time back, so that it is sure.
    fn settle(path: &Path, seconds: u64) {
        let time = SystemTime::now() - Duration::from_secs(seconds);
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    }

    #[test]
    fn a_tool_sees_every_change_of_a_watched_file_and_none_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table");
        let (watched, pinned) = (source(&path, true), source(&path, false));
        let mut store = Store::default();
        for round in 0..50 {
            // The same size within the same tick of the clock.
            fs::write(&path, format!("k v{:02}\n", round)).unwrap();
            let version = store.freshen(&watched).unwrap();
            assert_eq!(value(&version, "k"), format!("v{round:02}"));
            assert_eq!(value(&store.get(&pinned).unwrap(), "k"), "v00");
        }
        assert_eq!(value(&store.reload(&pinned).unwrap(), "k"), "v49");
        let appended = store.append(&pinned, b"l w\n").unwrap();
        assert_eq!(
            (value(&appended, "l"), appended.owner),
            ("w".into(), fs::metadata(&path).unwrap().uid())
        );
        fs::remove_file(&path).unwrap();
        assert_eq!(value(&store.freshen(&watched).unwrap(), "k"), "v49");
        assert!(store.reload(&pinned).is_err());
        assert_eq!(value(&store.get(&pinned).unwrap(), "k"), "v49");
        assert!(store.append(&pinned, b"x y\n").is_err());
    }

    #[test]
    fn a_text_is_taken_when_it_rests_and_a_bad_one_never() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("networks");
        let mut store = Store::default();
        let source = Source {
            kind: Kind::Cidr,
            ..source(&path, true)
        };
        assert!(store.get(&source).is_err());
        fs::write(&path, "10.0.0.0/8 one\n").unwrap();
        settle(&path, 100);
        let published = store.look();
        assert_eq!(value(&published[0].version, "10.1.1.1"), "one");
        assert!(store.look().is_empty());
        fs::write(&path, "10.0.0.0/8 two\n").unwrap();
        settle(&path, 50);
        assert!(store.look().is_empty(), "it has changed just now");
        let published = store.look();
        assert_eq!(value(&published[0].version, "10.1.1.1"), "two");
        fs::write(&path, "10.0.0.1/8 three\n").unwrap();
        settle(&path, 25);
        for _ in 0..3 {
            assert!(store.look().is_empty());
        }
        assert_eq!(value(&store.get(&source).unwrap(), "10.1.1.1"), "two");
        store.retain(&[]);
        assert!(store.get(&source).is_err());
    }

    /// Aliases that were compiled and then broken in an editor must not stop the mail of a daemon that starts.
    #[test]
    fn the_compiled_form_of_a_broken_text_is_used() {
        use std::os::unix::fs::PermissionsExt;

        use crate::router::relation::source::{Parsed, Syntax};

        let dir = tempfile::tempdir().unwrap();
        let (text, compiled) = (dir.path().join("aliases"), dir.path().join("aliases.cdb"));
        let source = Source {
            kind: Kind::Aliases,
            ..source(&text, true)
        };
        fs::write(&text, "joe: a\nbroken\nann: b\nbroken too\n").unwrap();
        let problem = Store::default().get(&source).unwrap_err();
        let told = format!(
            "{}:2:7: error: there is no colon behind the name",
            text.display()
        );
        assert!(problem.starts_with(&told), "{problem}");
        assert!(
            problem.ends_with("(and 1 more); look-ups in it are deferred until it is corrected")
        );
        let parsed = Parsed::read(b"joe: before\n", Syntax::Aliases);
        fs::write(&compiled, parsed.compile().unwrap()).unwrap();
        // Somebody else might have written it.
        fs::set_permissions(&compiled, PermissionsExt::from_mode(0o666)).unwrap();
        assert!(Store::default().get(&source).is_err());
        fs::set_permissions(&compiled, PermissionsExt::from_mode(0o644)).unwrap();
        let mut store = Store::default();
        assert_eq!(value(&store.get(&source).unwrap(), "joe"), "before");
        let problem = store.problem(&source).unwrap();
        assert!(
            problem.starts_with(&told) && problem.contains("aliases.cdb is used"),
            "{problem}"
        );
        fs::write(&text, "joe: after\n").unwrap();
        assert_eq!(value(&store.freshen(&source).unwrap(), "joe"), "after");
        assert_eq!(store.problem(&source), None);
        fs::write(&text, "broken again\n").unwrap();
        assert_eq!(value(&store.freshen(&source).unwrap(), "joe"), "after");
    }

    #[test]
    fn what_is_no_file_does_not_hold_us_up() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::default();
        assert!(store.get(&source(dir.path(), true)).is_err());
        let null = store.get(&source(Path::new("/dev/null"), true)).unwrap();
        assert_eq!(null.map.count(), 0);
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert_eq!(store.get(&source(&pipe, true)).unwrap().map.count(), 0);
    }
}
