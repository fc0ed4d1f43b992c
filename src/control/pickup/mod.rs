//! Pick-up: message files in `router/` become messages of the spool (zmailer.md 1.2, 1.4).
//!
//! One thread with a ring of its own: inotify says when to look, a slow scan finds what it missed. It
//! reads files and hands them to the shards. When the commit that carries them is on disk a second
//! thread removes them in batches, with one sync of the directory for all: removing makes the file
//! system work for its journal, and reading need not wait for that.
//!
//! *No message twice.* The spool records what tells a message's file from every other ([`Source`]). A
//! message is not done before the removal of its file is on disk ([`Ends::released`]), so after a crash
//! every file that has been taken is known to recovery, and is only removed.
//!
//! Bounds: [`OUTSTANDING_MAX`] files and [`OUTSTANDING_BYTES_MAX`] bytes (or one larger file alone) are
//! with the shards, [`BUSY_MAX`] files are not yet removed, [`NAMES_MAX`] names are known; the rest
//! waits on disk.
//!
//! *Odd files* go to `postman/` with a word that says why. A file that makes no sense but changed a
//! moment ago may be under way and is left for the next scan; one that cannot be moved away is
//! complained about once and left alone.

mod file;
mod remover;
mod submission;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_queue::ArrayQueue;
use rustix::fs::inotify;
use spool::{Envelope, MessageKey, Source};
use tokio::sync::Notify;

use super::thread::StartError;
use file::{Identity, Odd, Opened};
use remover::Remover;

use crate::mail::trace::Received;
use crate::protocol::server::Stored;

/// Files handed to shards at a time.
pub const OUTSTANDING_MAX: usize = 1024;

/// Bytes of files handed to shards at a time. A shard holds them about three times while it stores them.
const OUTSTANDING_BYTES_MAX: u64 = 16 << 20;

/// Names that one scan remembers.
const NAMES_MAX: usize = 100_000;

/// Pause before an odd file that could not be moved away is complained about again.
const STUCK: Duration = Duration::from_secs(3600);

/// Odd files that could not be moved away and are remembered; of more nothing is said.
const STUCK_MAX: usize = 10_000;

/// Files handed to shards or waiting for their removal.
const BUSY_MAX: usize = 64 * OUTSTANDING_MAX;

/// Files given to a shard before its doorbell is rung.
const RING_AFTER: usize = 64;

/// Pause between scans that nothing asked for.
const SCAN: Duration = Duration::from_secs(10);

/// Least pause between scans: while many submit, what comes meanwhile is found, committed and removed
/// together. The first after a rest is found at once.
const GATHER: Duration = Duration::from_millis(10);

/// Pause between looks for abandoned files.
const SWEEP: Duration = Duration::from_secs(600);

/// Pause after the spool refused a message, or files could not be removed.
const REFUSED: Duration = Duration::from_secs(2);

/// Pause before a file that was being written is looked at again.
const CHANGING: Duration = Duration::from_secs(1);

/// Age at which a file in `public/` is the rest of a submission that broke off.
const ABANDONED: Duration = Duration::from_secs(2 * 86_400);

/// A message file on its way to a shard.
#[derive(Debug)]
pub struct Submission {
    /// Comes back in [`Imported`].
    pub token: u64,
    /// Everything but the recipients' results.
    pub envelope: Envelope,
    /// What the Received field of this host says of where it came from.
    pub received: Received,
    /// Complete but for that field.
    pub content: Vec<u8>,
}

/// The answer to a [`Submission`].
#[derive(Debug)]
pub struct Imported {
    /// Of the submission.
    pub token: u64,
    /// The shard and the message; or why the spool did not take it.
    pub result: Result<(u16, MessageKey), &'static str>,
}

/// The queues of one shard.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Files for it.
    pub submissions: Arc<ArrayQueue<Submission>>,
    /// Messages whose files are gone for good.
    pub released: Arc<ArrayQueue<MessageKey>>,
}

impl Ends {
    /// Empty queues.
    #[must_use]
    pub fn new() -> Self {
        Self {
            submissions: Arc::new(ArrayQueue::new(OUTSTANDING_MAX)),
            released: Arc::new(ArrayQueue::new(4 * OUTSTANDING_MAX)),
        }
    }
}

impl Default for Ends {
    fn default() -> Self {
        Self::new()
    }
}

/// Answers of all shards. It holds all that can be outstanding, so a shard never waits.
#[derive(Debug)]
pub struct Answers {
    queue: ArrayQueue<Imported>,
    notify: Notify,
}

impl Answers {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self {
            queue: ArrayQueue::new(OUTSTANDING_MAX),
            notify: Notify::new(),
        }
    }

    /// Something else has happened that the pick-up should look at.
    fn nudge(&self) {
        self.notify.notify_one();
    }

    /// Puts an answer in.
    pub fn push(&self, imported: Imported) {
        let full = self.queue.push(imported).is_err();
        debug_assert!(!full, "there are not more answers than submissions");
        self.notify.notify_one();
    }
}

impl Default for Answers {
    fn default() -> Self {
        Self::new()
    }
}

/// What the pick-up is made from.
pub struct Setup {
    /// The directory above `router/`.
    pub postoffice: PathBuf,
    /// This host's name.
    pub hostname: String,
    /// Users whose word is taken for who the sender is.
    pub trusted_users: Vec<String>,
    /// Limits for messages of users: bytes of content, bytes of header, Received fields.
    pub limits: Limits,
    /// The shards' queues.
    pub ends: Vec<Ends>,
    /// Their answers.
    pub answers: Arc<Answers>,
    /// Files that recovery knows.
    pub known: HashMap<Source, (u16, MessageKey)>,
    /// Rings a shard's doorbell.
    pub wake: Wake,
}

/// Rings a shard's doorbell.
pub type Wake = Arc<dyn Fn(usize) + Send + Sync>;

/// Limits for a message file; those of SMTP.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of content.
    pub message_bytes_max: u64,
    /// Bytes of header.
    pub header_bytes_max: usize,
    /// Received fields.
    pub received_max: usize,
}

/// Starts the thread. It ends with the process.
///
/// # Errors
/// When the thread or its ring cannot be made.
pub fn start(setup: Setup) -> Result<(), StartError> {
    super::thread::start("pickup", move || serve(setup))
}

async fn serve(setup: Setup) {
    let answers = Arc::clone(&setup.answers);
    let changed = Arc::new(Notify::new());
    tokio_uring::spawn(watch(setup.postoffice.join("router"), Arc::clone(&changed)));
    let remover = match Remover::start(&setup) {
        Ok(remover) => remover,
        Err(error) => {
            tracing::error!("nothing is picked up from router/: {error}");
            return;
        }
    };
    let mut pickup = Pickup::new(setup, remover);
    let mut look = true;
    loop {
        let pause = pickup.turn(look);
        look = tokio::select! {
            () = changed.notified() => true,
            () = answers.notify.notified() => false,
            () = tokio::time::sleep(pause) => true,
        };
    }
}

/// Tells of new names. Without inotify the slow scan has to do.
async fn watch(dir: PathBuf, changed: Arc<Notify>) {
    let watched = inotify::init(inotify::CreateFlags::CLOEXEC).and_then(|fd| {
        inotify::add_watch(
            &fd,
            &dir,
            inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CREATE,
        )?;
        Ok(fd)
    });
    let fd = match watched {
        Ok(fd) => fd,
        Err(error) => {
            tracing::warn!(
                "inotify on {}: {error}; it is scanned every {SCAN:?}",
                dir.display()
            );
            return;
        }
    };
    let events = tokio_uring::fs::File::from_std(File::from(fd));
    let mut buf = vec![0; 16 << 10];
    loop {
        let (result, back) = events.read_at(buf, 0).await;
        buf = back;
        match result {
            Ok(0) | Err(_) => {
                tracing::warn!(
                    "inotify on {} ended; it is scanned every {SCAN:?}",
                    dir.display()
                );
                return;
            }
            Ok(_) => changed.notify_one(),
        }
    }
}

/// A file that a shard has.
#[derive(Debug)]
struct Under {
    path: PathBuf,
    identity: Identity,
    bytes: u64,
}

struct Pickup {
    setup: Setup,
    router: PathBuf,
    /// Names seen and not yet taken.
    names: Vec<PathBuf>,
    /// Handed to shards.
    under: HashMap<u64, Under>,
    under_bytes: u64,
    /// Paths in `under` and those that are being removed.
    busy: HashSet<PathBuf>,
    /// Odd, and not to be moved away: left alone until then.
    stuck: HashMap<PathBuf, Instant>,
    /// Read, but the shard's queue was full.
    next: Option<(usize, Submission)>,
    /// Takes what is committed.
    remover: Remover,
    token: u64,
    refused_until: Option<Instant>,
    scan_at: Instant,
    /// Something new may be there that no scan has seen.
    look: bool,
    /// Not before this.
    gathered_at: Instant,
    sweep_at: Instant,
    users: submission::Users,
    /// The first whole scan is over: what recovery knew and no file was found for is released.
    settled: bool,
    /// The last scan found more names than it may remember.
    cut: bool,
}

impl Pickup {
    fn new(setup: Setup, remover: Remover) -> Self {
        Self {
            router: setup.postoffice.join("router"),
            setup,
            names: Vec::new(),
            under: HashMap::new(),
            under_bytes: 0,
            busy: HashSet::new(),
            stuck: HashMap::new(),
            next: None,
            remover,
            token: 0,
            refused_until: None,
            scan_at: Instant::now(),
            look: true,
            gathered_at: Instant::now(),
            sweep_at: Instant::now(),
            users: submission::Users::default(),
            settled: false,
            cut: false,
        }
    }

    /// Does what can be done; says after what pause to look again without a reason.
    fn turn(&mut self, look: bool) -> Duration {
        // It is kept until there is a scan: one that has to wait for earlier names must not be forgotten.
        self.look |= look;
        self.take_answers();
        while let Some(path) = self.remover.removed() {
            self.busy.remove(&path);
            // Another file under the same name: while the name was busy, scans passed it over.
            if path.symlink_metadata().is_ok() {
                self.names.push(path);
            }
        }
        let now = Instant::now();
        if self.refused_until.is_some_and(|until| until > now) {
            return REFUSED;
        }
        self.refused_until = None;
        if std::mem::take(&mut self.look) {
            self.scan_at = self.scan_at.min(self.gathered_at);
        }
        if self.names.is_empty() && now >= self.scan_at.max(self.gathered_at) {
            self.scan(now);
        }
        self.hand_out();
        self.settle();
        if self.names.is_empty() {
            let scan_at = self.scan_at.max(self.gathered_at);
            scan_at.saturating_duration_since(now).min(SCAN)
        } else {
            Duration::from_millis(20)
        }
    }

    fn take_answers(&mut self) {
        while let Some(Imported { token, result }) = self.setup.answers.queue.pop() {
            let Some(under) = self.under.remove(&token) else {
                continue;
            };
            let Under {
                path,
                identity,
                bytes,
            } = under;
            self.under_bytes -= bytes;
            match result {
                Ok((shard, key)) => self.remover.remove(path, identity, shard, key),
                Err(why) if why == Stored::TooLarge.reason() => {
                    // It will never be taken, and must not keep the others waiting.
                    self.busy.remove(&path);
                    let limit = self.setup.limits.message_bytes_max;
                    self.set_aside(path, &Odd::TooLarge(limit));
                }
                Err(why) => {
                    tracing::warn!("{}: the spool does not take it now: {why}", path.display());
                    self.busy.remove(&path);
                    self.refused_until = Some(Instant::now() + REFUSED);
                    self.scan_at = Instant::now();
                }
            }
        }
    }

    /// Lists `router/` and its subdirectories `A` to `Z`.
    fn scan(&mut self, now: Instant) {
        self.scan_at = now + SCAN;
        self.gathered_at = now + GATHER;
        self.stuck.retain(|_, until| *until > now);
        let router = self.router.clone();
        let mut found = Vec::new();
        if let Err(error) = self.list(&router, true, &mut found) {
            tracing::error!("{}: {error}", router.display());
        }
        self.cut = found.len() >= NAMES_MAX;
        if self.cut {
            self.scan_at = now;
        }
        // Taken from the back: oldest names first, as far as inodes tell.
        found.sort_unstable_by(|one: &PathBuf, other| other.as_os_str().cmp(one.as_os_str()));
        self.names = found;
        if now >= self.sweep_at {
            self.sweep_at = now + SWEEP;
            sweep(&self.setup.postoffice.join("public"));
        }
    }

    fn list(&self, dir: &Path, above: bool, found: &mut Vec<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let (name, path) = (entry.file_name(), entry.path());
            let known = self.busy.contains(&path) || self.stuck.contains_key(&path);
            if is_hidden(&name) || known {
                continue;
            }
            if found.len() >= NAMES_MAX {
                break;
            }
            let kind = entry.file_type();
            if above && is_hash(&name) && kind.is_ok_and(|kind| kind.is_dir()) {
                self.list(&path, false, found)?;
            } else {
                found.push(path);
            }
        }
        Ok(())
    }

    /// Reads files and gives them to the shards while there is room.
    fn hand_out(&mut self) {
        let mut given = vec![0_usize; self.setup.ends.len()];
        while let Some(shard) = self.hand_out_one() {
            given[shard] += 1;
            if given[shard].is_multiple_of(RING_AFTER) {
                (self.setup.wake)(shard);
            }
        }
        for (shard, _) in given.iter().enumerate().filter(|(_, count)| **count > 0) {
            (self.setup.wake)(shard);
        }
    }

    /// Gives one file to a shard, and says to which.
    fn hand_out_one(&mut self) -> Option<usize> {
        while self.next.is_none() {
            if self.under.len() >= OUTSTANDING_MAX || self.busy.len() >= BUSY_MAX {
                return None;
            }
            let path = self.names.pop()?;
            if let Some(path) = self.take(path) {
                self.names.push(path);
                return None;
            }
        }
        let (shard, submission) = self.next.take()?;
        match self.setup.ends[shard].submissions.push(submission) {
            Ok(()) => Some(shard),
            Err(submission) => {
                self.next = Some((shard, submission));
                None
            }
        }
    }

    /// Reads a file; gives its path back when there is no room for it yet.
    fn take(&mut self, path: PathBuf) -> Option<PathBuf> {
        let mut opened = match self.open(&path) {
            Ok(opened) => opened,
            Err(odd) => {
                self.set_aside(path, &odd);
                return None;
            }
        };
        let source = opened.source;
        if let Some((shard, key)) = self.setup.known.remove(&source) {
            // Taken before a crash: only the file is left.
            self.busy.insert(path.clone());
            self.remover.remove(path, opened.identity, shard, key);
            return None;
        }
        if !self.under.is_empty() && self.under_bytes + source.size > OUTSTANDING_BYTES_MAX {
            return Some(path);
        }
        match submission::make(&mut opened, &self.setup, &mut self.users) {
            Ok((envelope, received, content)) => {
                let bytes = content.len() as u64;
                self.token += 1;
                let token = self.token;
                self.busy.insert(path.clone());
                let under = Under {
                    path,
                    identity: opened.identity,
                    bytes,
                };
                self.under.insert(token, under);
                self.under_bytes += bytes;
                let shard = (source.inode % self.setup.ends.len() as u64) as usize;
                let submission = Submission {
                    token,
                    envelope,
                    received,
                    content,
                };
                self.next = Some((shard, submission));
            }
            Err(Odd::BadEnvelope(_)) if opened.is_young() => self.set_aside(path, &Odd::Changing),
            Err(odd) => self.set_aside(path, &odd),
        }
        None
    }

    /// A power cut can bring back the name in `public/` that a file had before it was renamed into `router/`, when only
    /// the latter was synced (btrfs).
    fn open(&self, path: &Path) -> Result<Opened, Odd> {
        match Opened::open(path) {
            Err(Odd::Linked(2))
                if remove_other_name(&self.setup.postoffice.join("public"), path) =>
            {
                Opened::open(path)
            }
            result => result,
        }
    }

    /// What is no message of ours goes to `postman/` as it is.
    fn set_aside(&mut self, path: PathBuf, odd: &Odd) {
        match odd {
            Odd::Gone => return,
            Odd::Changing => {
                self.scan_at = self.scan_at.min(Instant::now() + CHANGING);
                return;
            }
            _ => {}
        }
        let postman = self.setup.postoffice.join("postman");
        match file::move_to_postman(&path, &postman, odd) {
            Ok(target) => tracing::warn!("{path:?}: {odd}; it is now {target:?}"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                // A directory of somebody else can be moved by root alone.
                if self.stuck.len() < STUCK_MAX {
                    tracing::error!(
                        "{path:?}: {odd}; it cannot be moved to {postman:?}: {error}; it is left alone"
                    );
                    self.stuck.insert(path, Instant::now() + STUCK);
                }
            }
        }
    }

    /// After the first whole scan, what recovery knew has no file any more.
    fn settle(&mut self) {
        if self.settled || self.cut || !self.names.is_empty() || self.next.is_some() {
            return;
        }
        self.settled = true;
        for (shard, key) in std::mem::take(&mut self.setup.known).into_values() {
            remover::release(&self.setup.ends, &self.setup.wake, shard, key);
            (self.setup.wake)(shard.into());
        }
    }
}

fn is_hidden(name: &OsString) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn is_hash(name: &OsString) -> bool {
    matches!(name.as_encoded_bytes(), [b'A'..=b'Z'])
}

/// Whether a file has another name in `public/`, which is removed.
fn remove_other_name(public: &Path, path: &Path) -> bool {
    let identity = |path: &Path| path.symlink_metadata().map(|found| Identity::of(&found));
    let (Ok(wanted), Ok(entries)) = (identity(path), fs::read_dir(public)) else {
        return false;
    };
    let mut names = entries.flatten().map(|entry| entry.path());
    let other = names.find(|name| identity(name).is_ok_and(|found| found == wanted));
    other.is_some_and(|name| fs::remove_file(name).is_ok())
}

/// Removes what broken-off submissions have left in `public/`.
fn sweep(public: &Path) {
    let Ok(entries) = fs::read_dir(public) else {
        return;
    };
    for entry in entries.flatten() {
        let old = entry
            .metadata()
            // What is in a directory is not ours, so it cannot be removed.
            .and_then(|metadata| match metadata.is_dir() {
                true => Err(io::ErrorKind::IsADirectory.into()),
                false => metadata.modified(),
            })
            .is_ok_and(|time| {
                SystemTime::now()
                    .duration_since(time)
                    .is_ok_and(|age| age > ABANDONED)
            });
        if old && let Err(error) = fs::remove_file(entry.path()) {
            tracing::warn!("{}: {error}", entry.path().display());
        }
    }
}
