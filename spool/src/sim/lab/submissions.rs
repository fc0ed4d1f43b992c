//! Mail files: whoever submits writes one in `public/` and renames it into `router/`; the pick-up takes
//! it from there, and removes it when the commit with its message is on disk.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Careless;
use super::day::Day;
use super::facts::{Mail, Note, Submitted};
use crate::id::SpoolId;
use crate::recover::Recovered;
use crate::sim::Path;
use crate::sim::rng::Rng;
use crate::types::{Envelope, Origin, Source, Submitter};

const PUBLIC: u8 = 0;
pub(super) const ROUTER: u8 = 1;

/// Mail files on their way.
#[derive(Debug, Default)]
pub(super) struct Submissions {
    /// Whoever submits, by number of the file, and the step that comes next.
    writing: BTreeMap<u64, Step>,
    /// Messages made of files, and how far the files are.
    taken: BTreeMap<SpoolId, (Path, Stage)>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Create,
    Write,
    SyncFile,
    Rename,
    SyncDir,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Staged,
    Committed,
    Unlinked,
}

impl Submissions {
    /// What the pick-up makes of the files after a start.
    pub(super) fn start(day: &Day, found: &Recovered) -> Result<Self, String> {
        let mut all = Self::default();
        if day.kind.careless(Careless::SourceIgnored) {
            return Ok(all);
        }
        let tree = &day.facts.tree;
        let files: BTreeMap<u64, Path> = tree
            .list(ROUTER)
            .filter_map(|path| Some((tree.read(path)?.0, path)))
            .collect();
        for message in &found.messages {
            let source = message.envelope.source;
            let there = source.is_some_and(|source| files.contains_key(&source.inode));
            if there && !day.log.has_source(message.key) {
                return Err(format!("the log does not know the file of {}", message.id));
            }
        }
        for (key, source) in day.log.sources() {
            let id = day.id_of(key).ok_or("a file of a message that is gone")?;
            // A file that is gone may come back until the directory is synced.
            let gone = Path {
                dir: ROUTER,
                name: u64::MAX,
            };
            let taken = match files.get(&source.inode) {
                Some(path) => (*path, Stage::Committed),
                None => (gone, Stage::Unlinked),
            };
            all.taken.insert(id, taken);
        }
        Ok(all)
    }

    fn knows(&self, path: Path) -> bool {
        self.taken.values().any(|(other, _)| *other == path)
    }
}

impl Day {
    /// Messages that may be finished: those whose files are gone for good.
    pub(super) fn open(&self) -> Vec<SpoolId> {
        let mut open = self.awake_ones();
        if !self.kind.careless(Careless::DoneBeforeUnlink) {
            open.retain(|id| !self.submissions.taken.contains_key(id));
        }
        open
    }

    /// Somebody begins to submit.
    pub(super) fn submit(&mut self, rng: &mut Rng, _: u64) {
        let number = self.facts.submitted.len() as u64 + 1;
        let len = [10, 700, 3000, 9000][rng.index(4)];
        let content = (0..len).map(|_| rng.next_u64() as u8).collect();
        let submitted = Submitted {
            content: Rc::new(content),
            ids: Vec::new(),
            promised: false,
        };
        self.facts.submitted.insert(number, submitted);
        self.submissions.writing.insert(number, Step::Create);
    }

    /// One operation on the directories, of whoever submits or of the pick-up; says whether there was
    /// one.
    pub(super) fn submission_step(&mut self, rng: &mut Rng) -> Result<bool, String> {
        let writing: Vec<(u64, Step)> = self
            .submissions
            .writing
            .iter()
            .map(|(number, step)| (*number, *step))
            .collect();
        let pick_up = rng.below(2) == 0 && self.pick_up()?;
        if pick_up || writing.is_empty() {
            return Ok(pick_up);
        }
        let (number, step) = writing[rng.index(writing.len())];
        let done = self.write_step(number, step);
        self.say(|| format!("submission {number}: {step:?} {done:?}"));
        match done {
            Ok(Some(next)) => self.submissions.writing.insert(number, next),
            // Whoever submits gives up, and nothing was promised.
            Ok(None) | Err(_) => self.submissions.writing.remove(&number),
        };
        self.facts.version += 1;
        Ok(true)
    }

    /// One step of whoever submits; what comes next, if it is not the end.
    fn write_step(&mut self, number: u64, step: Step) -> Result<Option<Step>, i32> {
        let [public, router] = [PUBLIC, ROUTER].map(|dir| Path { dir, name: number });
        let unsynced = self.kind.careless(Careless::SubmitUnsynced);
        let unnamed = self.kind.careless(Careless::SubmitUnnamed);
        let tree = &mut self.facts.tree;
        let Some(submitted) = self.facts.submitted.get_mut(&number) else {
            return Ok(None);
        };
        match step {
            Step::Create => tree.create(public).map(|()| Some(Step::Write)),
            Step::Write => {
                tree.write(public, 0, &submitted.content)?;
                let next = if unsynced {
                    Step::Rename
                } else {
                    Step::SyncFile
                };
                Ok(Some(next))
            }
            Step::SyncFile => tree.sync_file(public).map(|()| Some(Step::Rename)),
            Step::Rename => {
                tree.rename(public, router)?;
                submitted.promised = unnamed;
                Ok((!unnamed).then_some(Step::SyncDir))
            }
            Step::SyncDir => {
                tree.sync_dir(ROUTER)?;
                submitted.promised = true;
                Ok(None)
            }
        }
    }

    /// What the pick-up does next: takes a file, removes those whose messages are on disk, or syncs.
    fn pick_up(&mut self) -> Result<bool, String> {
        self.follow_commits();
        let mut files = self.facts.tree.list(ROUTER);
        let new = files.find(|path| !self.submissions.knows(*path));
        drop(files);
        if let Some(path) = new
            && self.take(path)?
        {
            return Ok(true);
        }
        let mut taken = self.submissions.taken.iter_mut();
        if let Some((id, (path, stage))) = taken.find(|(_, (_, stage))| *stage == Stage::Committed)
        {
            let gone = self.facts.tree.unlink(*path);
            *stage = Stage::Unlinked;
            let id = *id;
            self.say(|| format!("pick-up: the file of {id} is removed: {gone:?}"));
            self.happened("mail file removed");
        } else if self.submissions.taken.values().any(is_unlinked) {
            if self.facts.tree.sync_dir(ROUTER).is_ok() {
                let taken = &mut self.submissions.taken;
                for (id, _) in taken.extract_if(.., |_, taken| is_unlinked(taken)) {
                    self.log.source_gone(self.keys[&id]);
                }
            }
            self.say(|| "pick-up: router/ is synced".to_owned());
        } else {
            return Ok(false);
        }
        self.facts.version += 1;
        Ok(true)
    }

    /// What was taken is on disk, or was refused and has to be taken again.
    fn follow_commits(&mut self) {
        let facts = &self.facts;
        self.submissions.taken.retain(|id, (_, stage)| {
            if *stage == Stage::Staged && facts.alive.contains_key(id) {
                *stage = Stage::Committed;
            }
            *stage != Stage::Staged || facts.is_on_its_way(*id)
        });
    }

    fn take(&mut self, path: Path) -> Result<bool, String> {
        let Some((inode, bytes)) = self.facts.tree.read(path) else {
            return Ok(false);
        };
        let content = bytes.to_vec();
        let envelope = Envelope {
            source: Some(Source {
                born_ns: 1,
                inode,
                modified_ns: inode,
                size: content.len() as u64,
            }),
            origin: Origin::User(Box::new(Submitter {
                uid: path.name as u32,
                trusted: path.name.is_multiple_of(2),
                login: b"joe".to_vec(),
                full_name: b"Joe User".to_vec(),
            })),
            ..Self::envelope(path.name)
        };
        let id = self.log.reserve_id();
        let Ok(accepted) = self.log.accept(self.now, id, &envelope, &content) else {
            return Ok(false);
        };
        self.say(|| format!("pick-up: file {} is {id}", path.name));
        self.happened("mail file taken");
        self.offer(id, accepted, Mail { content, envelope });
        self.facts.staged(accepted.batch, Note::Message(id));
        self.submissions.taken.insert(id, (path, Stage::Staged));
        let submitted = self.facts.submitted.get_mut(&path.name);
        submitted.ok_or("nobody has submitted this")?.ids.push(id);
        if self.kind.careless(Careless::UnlinkBeforeCommit) {
            let _ = self.facts.tree.unlink(path);
        }
        Ok(true)
    }
}

fn is_unlinked((_, stage): &(Path, Stage)) -> bool {
    *stage == Stage::Unlinked
}
