//! One sync of a file system for all messages that are on their way into its Maildirs.
//!
//! Each file system has a committer, a thread that works in rounds. A round makes durable, by one `syncfs` and a flush
//! of the device, what was there when it began: the contents that have been written without their names (`draft`), and the
//! names that were given behind the round before. Then the former get their names, and the latter their replies. So a
//! message takes part in two rounds, whoever else comes along: a name never stands on disk without its content, and
//! no message counts as delivered before its name does.
//!
//! The flush is for file systems without a journal, which write directories and inodes behind the flush that `syncfs`
//! makes itself (ext4).
//!
//! `syncfs` also writes what other programs have left in memory. A round that takes long therefore makes messages be
//! synced one by one for a while, and so are few at a time, and those on file systems of which it is not known that
//! `syncfs` makes names durable.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::draft::Draft;
use crate::sys::filesystem;
use crate::sys::process::{Acting, User};

/// File systems with a committer; messages on others are synced one by one.
const SYSTEMS_MAX: usize = 64;

/// Fewer messages at a time are synced one by one: that is done sooner.
const COMPANY_MIN: usize = 4;

/// Messages in groups at a time on one file system, each with an open file; more are synced one by one.
const COMPANY_MAX: usize = 512;

/// When two rounds in a row take longer...
const ROUND_TIME_MAX: Duration = Duration::from_millis(100);

/// ... there are none for so many times the length of the second, ...
const REST_FACTOR: u32 = 20;

/// ... but no more than this.
const REST_MAX: Duration = Duration::from_mins(1);

/// Makes all of a file system durable, given a file on it.
type SyncWhole = Box<dyn Fn(&File) -> io::Result<()> + Send + Sync>;

/// The file systems of all mailboxes.
#[derive(Default)]
pub(super) struct Groups {
    systems: Mutex<HashMap<u64, Arc<System>>>,
}

impl Groups {
    /// Says that a message is going to be written into a directory. None: it has to be synced by itself.
    ///
    /// # Errors
    /// Those of looking at the directory.
    pub(super) fn enter(&self, dir: &Path) -> io::Result<Option<Presence>> {
        let device = fs::metadata(dir)?.dev();
        let mut systems = locked(&self.systems);
        if let Some(system) = systems.get(&device) {
            return Ok(Some(Presence::of(system)));
        }
        if systems.len() >= SYSTEMS_MAX || !filesystem::syncs_whole(dir) {
            return Ok(None);
        }
        let system = System::start(Box::new(filesystem::sync_whole))?;
        let presence = Presence::of(&system);
        systems.insert(device, system);
        Ok(Some(presence))
    }
}

/// A message that is being delivered on a file system with a committer.
pub(super) struct Presence {
    system: Arc<System>,
    /// Rounds that had ended before its content was written.
    since: u64,
}

impl Presence {
    fn of(system: &Arc<System>) -> Self {
        system.present.fetch_add(1, Ordering::AcqRel);
        Self {
            system: Arc::clone(system),
            since: system.ended.load(Ordering::Acquire),
        }
    }

    /// Whether a round is worth while, when so many messages of the same transaction follow.
    pub(super) fn has_company(&self, following: usize) -> bool {
        let present = self.system.present.load(Ordering::Acquire);
        let enough = present + following >= COMPANY_MIN && present <= COMPANY_MAX;
        enough && locked(&self.system.queue).rest_until <= Some(Instant::now())
    }

    /// Leaves the rest to the committer. All of the content has been written.
    pub(super) fn commit(self, draft: Draft, owner: Option<User>) -> Ticket {
        let outcome = Arc::<Outcome>::default();
        let ticket = Ticket(Arc::clone(&outcome));
        let system = Arc::clone(&self.system);
        let mut queue = locked(&system.queue);
        queue.written.push(Job {
            presence: self,
            draft,
            owner,
            outcome,
        });
        if std::mem::take(&mut queue.is_awaited) {
            system.changed.notify_one();
        }
        ticket
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.system.present.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What became of a message, once it is known.
#[derive(Debug, Default)]
struct Outcome {
    result: Mutex<Option<io::Result<()>>>,
    known: Condvar,
}

/// A message in the hands of a committer.
#[derive(Debug)]
pub(super) struct Ticket(Arc<Outcome>);

impl Ticket {
    /// Returns when the message is on disk under its final name.
    ///
    /// # Errors
    /// Those of the files. The name may stand there when it is the second sync that failed.
    pub(super) fn wait(self) -> io::Result<()> {
        let mut result = locked(&self.0.result);
        loop {
            if let Some(result) = result.take() {
                return result;
            }
            let waited = self.0.known.wait(result);
            result = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

struct System {
    sync: SyncWhole,
    /// Messages being delivered.
    present: AtomicUsize,
    /// Rounds that have ended.
    ended: AtomicU64,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    /// At most [`COMPANY_MAX`] and the connections that saw less at the same time.
    written: Vec<Job>,
    /// The committer has nothing to do.
    is_awaited: bool,
    /// No new message joins before.
    rest_until: Option<Instant>,
}

struct Job {
    presence: Presence,
    draft: Draft,
    owner: Option<User>,
    outcome: Arc<Outcome>,
}

impl System {
    fn start(sync: SyncWhole) -> io::Result<Arc<Self>> {
        let system = Arc::new(Self {
            sync,
            present: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
            queue: Mutex::default(),
            changed: Condvar::new(),
        });
        let committer = Arc::clone(&system);
        let thread = thread::Builder::new().name("committer".to_owned());
        thread.spawn(move || committer.run())?;
        Ok(system)
    }

    fn run(&self) {
        let mut named = Vec::new();
        let (mut failure, mut was_slow) = (None, false);
        loop {
            let written = self.take(named.is_empty());
            let Some(any) = written.first().or(named.first()) else {
                continue;
            };
            let begun = Instant::now();
            let result = (self.sync)(&any.draft.file);
            let number = self.ended.fetch_add(1, Ordering::AcqRel) + 1;
            let length = begun.elapsed();
            let is_slow = length > ROUND_TIME_MAX;
            if is_slow && was_slow {
                let rest = (length * REST_FACTOR).min(REST_MAX);
                locked(&self.queue).rest_until = Some(Instant::now() + rest);
            }
            was_slow = is_slow;
            if let Err(error) = result {
                failure = Some((number, error.raw_os_error().unwrap_or(libc::EIO)));
            }
            for job in named.drain(..) {
                let result = job.checked(failure);
                job.end(result);
            }
            let mut role = Role::default();
            let jobs = written.into_iter();
            named.extend(jobs.filter_map(|job| job.named(&mut role, failure)));
        }
    }

    /// What has been written meanwhile; waits for something when there is nothing else to do.
    fn take(&self, idle: bool) -> Vec<Job> {
        let mut queue = locked(&self.queue);
        while idle && queue.written.is_empty() {
            queue.is_awaited = true;
            let waited = self.changed.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut queue.written)
    }
}

impl Job {
    /// Gives it its name; none when it has had its reply.
    fn named(self, role: &mut Role, failure: Option<(u64, i32)>) -> Option<Self> {
        match self.try_name(role, failure) {
            Ok(()) => Some(self),
            Err(error) => {
                self.end(Err(error));
                None
            }
        }
    }

    fn try_name(&self, role: &mut Role, failure: Option<(u64, i32)>) -> io::Result<()> {
        role.take(self.owner)?;
        let checked = self.checked(failure);
        let named = checked.and_then(|()| self.draft.give_name());
        named.inspect_err(|_| self.draft.discard())
    }

    /// Whether all its bytes have been taken by the disk. A round that failed is a failure of everything that was
    /// written before it ended: the kernel tells of an error once, and not whose it was.
    fn checked(&self, failure: Option<(u64, i32)>) -> io::Result<()> {
        match failure {
            Some((number, errno)) if number > self.presence.since => {
                Err(io::Error::from_raw_os_error(errno))
            }
            // Somebody else's syncfs may have been told of an error instead of ours; the file itself remembers it.
            _ => filesystem::was_written(&self.draft.file),
        }
    }

    fn end(self, result: io::Result<()>) {
        let outcome = Arc::clone(&self.outcome);
        drop(self);
        *locked(&outcome.result) = Some(result);
        outcome.known.notify_one();
    }
}

/// Whose rights this thread has; kept from message to message, since mailboxes of many users often have one owner.
#[derive(Debug, Default)]
struct Role(Option<(User, Acting)>);

impl Role {
    fn take(&mut self, owner: Option<User>) -> io::Result<()> {
        if self.0.as_ref().map(|(user, _)| *user) != owner {
            // Root's rights come back before they go to another.
            self.0 = None;
            self.0 = match owner {
                Some(user) => Some((user, Acting::begin(user)?)),
                None => None,
            };
        }
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::mpsc::channel;

    use super::*;

    fn maildir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for part in ["tmp", "new", "cur"] {
            fs::create_dir(dir.path().join(part)).unwrap();
        }
        dir
    }

    /// What stands in a part, up to the dot that the messages here have in no name.
    fn names(maildir: &Path, part: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(maildir.join(part)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .map(|name| name.split('.').next().unwrap().to_owned())
            .collect()
    }

    fn commit(system: &Arc<System>, maildir: &Path, name: &str) -> Ticket {
        let draft = Draft::hidden(maildir, name).unwrap();
        Presence::of(system).commit(draft, None)
    }

    #[test]
    fn a_sync_stands_between_content_and_name_and_between_name_and_reply() {
        type Seen = (BTreeSet<String>, BTreeSet<String>);
        let dir = maildir();
        let ended: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let system = {
            let (dir, ended) = (dir.path().to_owned(), Arc::clone(&ended));
            let sync = move |file: &File| {
                let seen = (names(&dir, "tmp"), names(&dir, "new"));
                filesystem::sync_whole(file)?;
                locked(&ended).push(seen);
                Ok(())
            };
            System::start(Box::new(sync)).unwrap()
        };
        thread::scope(|scope| {
            for number in 0..16 {
                let (system, dir, ended) = (&system, dir.path(), &ended);
                scope.spawn(move || {
                    for round in 0..10 {
                        let name = format!("n{number}r{round}");
                        commit(system, dir, &name).wait().unwrap();
                        let ended = locked(ended);
                        let name_synced = ended.iter().position(|(_, new)| new.contains(&name));
                        let before = ended.get(..name_synced.expect("a sync of the name"));
                        let content = before.unwrap().iter().any(|(tmp, _)| tmp.contains(&name));
                        assert!(content, "{name}: no sync of the content before");
                    }
                });
            }
        });
        assert_eq!(names(dir.path(), "new").len(), 160);
        assert_eq!(names(dir.path(), "tmp").len(), 0);
    }

    #[test]
    fn what_comes_during_a_round_shares_the_next_ones() {
        let dir = maildir();
        let (begun, begins) = channel();
        let (go, goes) = channel::<()>();
        let goes = Mutex::new(goes);
        let sync = move |_: &File| {
            begun.send(()).unwrap();
            locked(&goes).recv().unwrap();
            Ok(())
        };
        let system = System::start(Box::new(sync)).unwrap();
        let mut tickets = vec![commit(&system, dir.path(), "first")];
        begins.recv().unwrap();
        let more = (0..20).map(|number| commit(&system, dir.path(), &format!("n{number}")));
        tickets.extend(more);
        for _ in 0..3 {
            go.send(()).unwrap();
        }
        for ticket in tickets {
            ticket.wait().unwrap();
        }
        assert_eq!(begins.try_iter().count(), 2, "two rounds behind the first");
        assert_eq!(names(dir.path(), "new").len(), 21);
        assert_eq!(system.present.load(Ordering::Acquire), 0);
    }

    #[test]
    fn a_sync_that_fails_leaves_no_message_and_says_so() {
        let dir = maildir();
        for good_rounds in [0, 1] {
            let count = AtomicUsize::new(0);
            let sync = move |_: &File| {
                if count.fetch_add(1, Ordering::AcqRel) < good_rounds {
                    return Ok(());
                }
                Err(io::Error::from_raw_os_error(libc::EIO))
            };
            let system = System::start(Box::new(sync)).unwrap();
            let result = commit(&system, dir.path(), "a").wait();
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EIO));
            assert_eq!(names(dir.path(), "tmp").len(), 0);
            // The second sync is one of the name, which stands there already.
            assert_eq!(names(dir.path(), "new").len(), good_rounds);
        }
    }

    #[test]
    fn a_failure_concerns_what_was_written_before_it_ended() {
        let dir = maildir();
        let (begun, begins) = channel();
        let (go, goes) = channel::<io::Result<()>>();
        let goes = Mutex::new(goes);
        let sync = move |_: &File| {
            begun.send(()).unwrap();
            locked(&goes).recv().unwrap()
        };
        let system = System::start(Box::new(sync)).unwrap();
        let first = commit(&system, dir.path(), "first");
        begins.recv().unwrap();
        // Written meanwhile: the error may be its own, although the round was not its.
        let second = commit(&system, dir.path(), "second");
        go.send(Err(io::Error::from_raw_os_error(libc::EIO)))
            .unwrap();
        go.send(Ok(())).unwrap();
        assert!(first.wait().is_err() && second.wait().is_err());
        let third = commit(&system, dir.path(), "third");
        for _ in 0..2 {
            go.send(Ok(())).unwrap();
        }
        third.wait().unwrap();
        assert_eq!(
            names(dir.path(), "new"),
            BTreeSet::from(["third".to_owned()])
        );
    }

    #[test]
    fn messages_go_by_themselves_when_they_are_few_and_while_the_disk_is_slow() {
        let dir = maildir();
        let sync = |_: &File| {
            thread::sleep(ROUND_TIME_MAX + Duration::from_millis(1));
            Ok(())
        };
        let system = System::start(Box::new(sync)).unwrap();
        let present: Vec<Presence> = (1..COMPANY_MIN).map(|_| Presence::of(&system)).collect();
        assert!(!present[0].has_company(0));
        assert!(present[0].has_company(1));
        commit(&system, dir.path(), "a").wait().unwrap();
        let rest_until = locked(&system.queue).rest_until;
        let rest_until = rest_until.expect("two rounds were slow");
        assert!(rest_until <= Instant::now() + REST_MAX);
        for (seconds, expected) in [(REST_MAX.as_secs(), false), (0, true)] {
            let until = Instant::now() + Duration::from_secs(seconds);
            locked(&system.queue).rest_until = Some(until);
            assert_eq!(present[0].has_company(1), expected);
        }
    }
}
