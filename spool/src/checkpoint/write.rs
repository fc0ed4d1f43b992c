//! Writing a checkpoint, a chunk at a time beside everything else the log does.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use crate::buffer::{ALIGN_BYTES, AlignedBuf};
use crate::faults::Fault;
use crate::log::{Live, Log, Place};
use crate::op::{Completion, FileId, Op, Request, Token};
use crate::rest::{NO_GENERATION, Rest, RestRecipient, Standing};
use crate::routing::Rounds;
use crate::types::{Event, MessageKey};

use super::{Chunk, Directory, Entry, Extent, Header, KnownSegment, KnownThread};

/// A chunk is not made longer than about this.
const CHUNK_BYTES: usize = 256 << 10;

/// The log grows by so many times a checkpoint's size before the next one is made...
const GROWTH: u64 = 4;

/// ... but by no more than this: it is what a start has to read.
const TAIL_BYTES_MAX: u64 = 512 << 20;

/// A checkpoint that failed is tried again after this.
const RETRY_NS: u64 = 60_000_000_000;

const ENOENT: i32 = 2;

/// What is remembered between checkpoints.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    /// Of the last one.
    pub(crate) number: u64,
    /// The file that holds it.
    pub(crate) file: Option<u8>,
    /// Bytes of commits since the last one was begun.
    pub(crate) grown: u64,
    /// Bytes of the last one.
    pub(crate) size: u64,
    /// None is begun before this time.
    until: u64,
    writing: Option<Box<Writing>>,
}

impl Checkpoints {
    /// A message has come to rest. Behind the cursor of a checkpoint it would be neither among the
    /// resting ones, which have been written there, nor among those that are awake at the end.
    pub(crate) fn rests(&mut self, key: MessageKey) {
        if let Some(writing) = &mut self.writing
            && key.0 < writing.cursor
        {
            writing.moved.push(key);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Close,
    Remove,
    Create,
    /// Entries of resting messages, then of all others.
    Entries,
    Directory,
    SyncFile,
    SyncDir,
    /// For the commits with what has been said.
    Wait,
    Header,
}

/// A checkpoint on its way.
#[derive(Debug)]
struct Writing {
    step: Step,
    flying: Option<Token>,
    file: u8,
    header: Header,
    /// Segments with commits at the beginning, with their generations; and whether they are sealed.
    before: HashMap<u32, (u64, bool)>,
    /// Resting messages below this key have been written.
    cursor: u64,
    /// Messages that came to rest behind the cursor.
    moved: Vec<MessageKey>,
    /// The others, when the resting ones are done.
    awake: Option<Vec<MessageKey>>,
    offset: u64,
    directory: Directory,
    origins: HashMap<(u16, u64), u16>,
    generations: HashMap<u64, u16>,
    replies: HashMap<Arc<[u8]>, u32>,
    /// The batch that has to be on disk before the header is written.
    batch: u64,
    /// The next entry waits for what routing made of its message to be on disk.
    waits: bool,
}

impl Log {
    /// The next request of a checkpoint.
    pub(crate) fn poll_checkpoint(&mut self, now: u64) -> Option<Request> {
        if self.checkpoints.writing.is_none() {
            if !self.wants_checkpoint(now) {
                return None;
            }
            self.begin_checkpoint();
        }
        let mut writing = self.checkpoints.writing.take()?;
        let op = if writing.flying.is_none() {
            self.next_of_checkpoint(&mut writing)
        } else {
            None
        };
        let request = op.map(|op| {
            let token = self.token();
            writing.flying = Some(token);
            Request { token, op }
        });
        self.checkpoints.writing = Some(writing);
        request
    }

    fn wants_checkpoint(&self, now: u64) -> bool {
        let least = self.settings.checkpoint_bytes;
        let wanted = (self.checkpoints.size * GROWTH).clamp(least, TAIL_BYTES_MAX.max(least));
        least > 0
            && self.checkpoints.grown >= wanted
            && self.checkpoints.until <= now
            && self.loading.is_none()
            // Entries name places by 32 bits.
            && self.settings.segment_bytes <= u64::from(u32::MAX)
    }

    fn begin_checkpoint(&mut self) {
        let file = self.checkpoints.file.map_or(0, |file| 1 - file);
        let writing = |number: u32| {
            let commit = self.in_flight.as_ref();
            commit.is_some_and(|commit| commit.writes_to(number))
        };
        // Nothing is needed of a segment without a commit: found in the middle of being made or recycled, it
        // may have one good header only.
        let holds = |number: &&u32| {
            let segment = self.segments.get(number);
            segment.is_some_and(|segment| segment.commits > 0)
        };
        let before = self.order.iter().filter(holds).map(|number| {
            let sealed = Some(*number) != self.active && !writing(*number);
            let sealed = sealed || self.settings.faulty(Fault::CheckpointSealsAll);
            (*number, (self.generation(*number), sealed))
        });
        let writing = Writing {
            step: Step::Close,
            flying: None,
            file,
            header: Header {
                shard: self.settings.shard,
                number: self.checkpoints.number + 1,
                covered: self.committed,
                link: self.link,
                key_next: 0,
                messages: 0,
                directory: Extent {
                    offset: 0,
                    len: 0,
                    sum: 0,
                },
            },
            before: before.collect(),
            cursor: 0,
            moved: Vec::new(),
            awake: None,
            offset: ALIGN_BYTES as u64,
            directory: Directory::default(),
            origins: HashMap::new(),
            generations: HashMap::new(),
            replies: HashMap::new(),
            batch: 0,
            waits: false,
        };
        self.checkpoints.grown = 0;
        self.checkpoints.writing = Some(Box::new(writing));
    }

    fn next_of_checkpoint(&mut self, writing: &mut Writing) -> Option<Op> {
        let file = FileId::Checkpoint(writing.file);
        Some(match writing.step {
            Step::Close => Op::Close { file },
            Step::Remove => Op::Remove { file },
            Step::Create => Op::Create { file },
            Step::Entries => match self.next_entries(writing) {
                Some(op) => op,
                None if writing.waits => return None,
                None => {
                    writing.step = Step::Directory;
                    return self.next_of_checkpoint(writing);
                }
            },
            Step::Directory => self.directory(writing),
            Step::SyncFile => Op::SyncFile { file },
            Step::SyncDir => Op::SyncDir,
            Step::Wait => {
                let early = self.settings.faulty(Fault::CheckpointAhead);
                if self.committed_batch < writing.batch && !early {
                    return None;
                }
                writing.step = Step::Header;
                return self.next_of_checkpoint(writing);
            }
            Step::Header => Op::Write {
                file,
                offset: 0,
                buf: writing.header.encode(),
                durable: true,
            },
        })
    }

    /// The write of the next chunk; none: there are no more messages, or one has to be waited for.
    fn next_entries(&mut self, writing: &mut Writing) -> Option<Op> {
        let mut bytes = Vec::new();
        let (mut entries, mut due_ms) = (0, u64::MAX);
        writing.waits = false;
        while entries < self.settings.chunk_entries && bytes.len() < CHUNK_BYTES {
            let Some(key) = self.next_to_write(writing) else {
                break;
            };
            // An entry says where all is that routing made.
            let live = self.live.get(&key);
            let early = self.settings.faulty(Fault::RoundsAhead);
            if live.is_some_and(|live| live.rounds.staged > 0) && !early {
                writing.waits = true;
                writing.awake.get_or_insert_default().push(key);
                break;
            }
            let Some(entry) = self.entry(key, writing) else {
                continue;
            };
            entry.put(&mut bytes);
            entries += 1;
            due_ms = due_ms.min(entry.due_ms());
        }
        if entries == 0 {
            return None;
        }
        let extent = writing.extent(&bytes);
        writing.header.messages += u64::from(entries);
        writing.directory.chunks.push(Chunk {
            extent,
            entries,
            due_ms,
        });
        Some(self.checkpoint_write(writing, extent, &bytes))
    }

    /// Resting messages in order of their keys, then what is awake when they are done.
    fn next_to_write(&mut self, writing: &mut Writing) -> Option<MessageKey> {
        if writing.awake.is_none() {
            if let Some(key) = self.resting.first_from(writing.cursor) {
                writing.cursor = key.0 + 1;
                return Some(key);
            }
            writing.cursor = u64::MAX;
            let mut awake: BTreeSet<MessageKey> = self.live.keys().copied().collect();
            if !self.settings.faulty(Fault::CheckpointForgetsMoved) {
                awake.extend(writing.moved.drain(..));
            }
            writing.awake = Some(awake.into_iter().rev().collect());
        }
        writing.awake.as_mut()?.pop()
    }

    fn entry(&self, key: MessageKey, writing: &mut Writing) -> Option<Entry> {
        if let Some(rest) = self.resting.get(key) {
            let id = self.resting.id(rest)?;
            let recipients = rest.recipients.as_slice().iter();
            let recipients = recipients.map(|recipient| {
                let text = self.resting.reply(recipient.reply);
                RestRecipient {
                    reply: writing.reply(text),
                    ..*recipient
                }
            });
            let recipients = recipients.collect();
            let origin = writing.origin((id.shard, id.epoch))?;
            let rounds = self.resting.rounds(key).cloned().unwrap_or_default();
            let id = (origin, id.sequence);
            let rest = &Rest {
                generation: writing.generation(self.resting.generation(rest)),
                recipients: crate::rest::RestRecipients::Many(Box::default()),
                ..*rest
            };
            return Some(self.entry_of(key, id, rest, rounds, recipients));
        }
        let live = self.live.get(&key)?;
        let Place::Disk(place) = live.place else {
            return None;
        };
        let rest = Rest {
            id: 0,
            segment: place.segment,
            payload: place.payload as u32,
            payload_len: place.payload_len as u32,
            content_len: u32::try_from(live.content_len).unwrap_or(u32::MAX),
            arrival_s: live.arrival_s,
            has_file: live.has_file,
            // It is routed when it has come in.
            generation: NO_GENERATION,
            recipients: crate::rest::RestRecipients::Many(Box::default()),
        };
        let recipients = recipients_of(live, writing);
        let origin = writing.origin((live.id.shard, live.id.epoch))?;
        let id = (origin, live.id.sequence);
        Some(self.entry_of(key, id, &rest, live.rounds.clone(), recipients))
    }

    fn entry_of(
        &self,
        key: MessageKey,
        (origin, sequence): (u16, u64),
        rest: &Rest,
        rounds: Rounds,
        recipients: Vec<RestRecipient>,
    ) -> Entry {
        Entry {
            key: key.0,
            origin,
            sequence,
            segment: rest.segment,
            tag: self.tag(rest.segment),
            payload: rest.payload,
            payload_len: rest.payload_len,
            content_len: rest.content_len.into(),
            arrival_s: rest.arrival_s,
            has_file: rest.has_file,
            generation: rest.generation,
            rounds: Rounds {
                copied: 0,
                ..rounds
            },
            recipients,
        }
    }

    /// The write of the directory. What it says of segments and next hops is of this moment.
    fn directory(&mut self, writing: &mut Writing) -> Op {
        let segments = self.order.iter().filter_map(|number| {
            let segment = self.segments.get(number)?;
            let before = writing.before.get(number);
            let before = before.filter(|(generation, _)| *generation == segment.generation);
            Some(KnownSegment {
                number: *number,
                generation: segment.generation,
                tag: self.tag(*number),
                before: before.is_some(),
                sealed: before.is_some_and(|(_, sealed)| *sealed),
                damaged: segment.damaged,
            })
        });
        writing.directory.segments = segments.collect();
        // A state that is on its way to the disk comes after the covered commit.
        let threads = self.threads.values().filter_map(|thread| {
            let segment = thread.segment?;
            Some(KnownThread {
                state: thread.state.clone(),
                segment,
                tag: self.tag(segment),
            })
        });
        writing.directory.threads = threads.collect();
        let placed = self.sources().filter(|(key, _)| {
            let live = self.live.get(key);
            live.is_none_or(|live| live.place != Place::Staged)
        });
        writing.directory.sources = placed.map(|(key, source)| (key.0, source)).collect();
        writing.directory.hops = self.resting.hops().to_vec();
        let bytes = writing.directory.encode();
        writing.header.directory = writing.extent(&bytes);
        writing.header.key_next = self.key_next;
        writing.batch = self.staging.batch() - u64::from(self.staging.is_empty());
        self.checkpoint_write(writing, writing.header.directory, &bytes)
    }

    fn checkpoint_write(&mut self, writing: &Writing, extent: Extent, bytes: &[u8]) -> Op {
        let buf: AlignedBuf = super::padded(bytes);
        self.stats.bytes_written += buf.len() as u64;
        Op::Write {
            file: FileId::Checkpoint(writing.file),
            offset: extent.offset,
            buf,
            durable: false,
        }
    }

    /// Gives the completion back when it is not of a checkpoint.
    pub(crate) fn checkpoint_done(
        &mut self,
        now: u64,
        completion: Completion,
    ) -> Option<Completion> {
        let Some(writing) = &mut self.checkpoints.writing else {
            return Some(completion);
        };
        if writing.flying != Some(completion.token) {
            return Some(completion);
        }
        writing.flying = None;
        let names = writing.step == Step::SyncDir;
        let expected = completion.buf.as_ref().map(|buf| buf.len() as u64);
        let failed = match completion.result {
            Err(ENOENT) if writing.step == Step::Remove => None,
            Err(errno) => Some(format!("errno {errno}")),
            Ok(len) => expected
                .filter(|expected| *expected != len)
                .map(|expected| format!("short write of {len} of {expected} bytes")),
        };
        if names && let Err(errno) = completion.result {
            // It may have taken other names along than this one.
            self.names_lost(errno);
            self.job_spoilt = true;
        }
        match failed {
            Some(why) => self.checkpoint_failed(now, &why),
            None => self.checkpoint_goes_on(),
        }
        None
    }

    fn checkpoint_goes_on(&mut self) {
        let unsynced = self.settings.faulty(Fault::CheckpointUnsynced);
        let Some(writing) = &mut self.checkpoints.writing else {
            return;
        };
        writing.step = match writing.step {
            Step::Close => Step::Remove,
            Step::Remove => Step::Create,
            Step::Create | Step::Entries => Step::Entries,
            Step::Directory if unsynced => Step::Wait,
            Step::Directory => Step::SyncFile,
            Step::SyncFile => Step::SyncDir,
            Step::SyncDir | Step::Wait => Step::Wait,
            Step::Header => {
                self.stats.flushes += 3;
                self.stats.checkpoints += 1;
                self.checkpoints.number = writing.header.number;
                self.checkpoints.file = Some(writing.file);
                self.checkpoints.size = writing.offset;
                self.checkpoints.writing = None;
                return;
            }
        };
    }

    /// On a full disk a place for commits is worth more than a quick start: checkpoints go, and none is made
    /// for a while. One that is being made fails there by itself.
    pub(crate) fn drop_checkpoints(&mut self, now: u64) {
        if self.checkpoints.writing.is_some() || self.loading.is_some() {
            return;
        }
        self.checkpoints.until = now + RETRY_NS;
        self.checkpoints.grown = u64::MAX / 2;
        self.checkpoints.file = None;
        for number in [0, 1] {
            self.remove_at_once(FileId::Checkpoint(number));
        }
    }

    /// The other file still holds the one before.
    fn checkpoint_failed(&mut self, now: u64, why: &str) {
        self.checkpoints.writing = None;
        self.checkpoints.until = now + RETRY_NS;
        self.checkpoints.grown = u64::MAX / 2;
        self.events.push_back(Event::Trouble(format!(
            "no checkpoint could be written: {why}; tried again in 60 s, a start takes longer meanwhile"
        )));
    }
}

impl Writing {
    /// The place of the next bytes of the file.
    fn extent(&mut self, bytes: &[u8]) -> Extent {
        let extent = Extent {
            offset: self.offset,
            len: bytes.len() as u64,
            sum: crc32c::crc32c(bytes),
        };
        self.offset += crate::layout::aligned(bytes.len()) as u64;
        extent
    }

    /// The number of an origin; none: there are too many.
    fn origin(&mut self, origin: (u16, u64)) -> Option<u16> {
        let list = &mut self.directory.origins;
        number_of(&mut self.origins, list, &origin)
    }

    /// The number of a configuration; of too many, and of what is not known, there is none.
    fn generation(&mut self, generation: u64) -> u16 {
        if generation == 0 || self.directory.generations.len() >= usize::from(NO_GENERATION) {
            return NO_GENERATION;
        }
        let list = &mut self.directory.generations;
        number_of(&mut self.generations, list, &generation).unwrap_or(NO_GENERATION)
    }

    fn reply(&mut self, text: &[u8]) -> u32 {
        if text.is_empty() {
            return u32::MAX;
        }
        if let Some(number) = self.replies.get(text) {
            return *number;
        }
        let list = &mut self.directory.replies;
        number_of(&mut self.replies, list, &Arc::from(text)).unwrap_or(u32::MAX)
    }
}

fn number_of<T, N>(numbers: &mut HashMap<T, N>, list: &mut Vec<T>, value: &T) -> Option<N>
where
    T: Clone + Eq + Hash,
    N: Copy + TryFrom<usize>,
{
    if let Some(number) = numbers.get(value) {
        return Some(*number);
    }
    let number = N::try_from(list.len()).ok()?;
    list.push(value.clone());
    numbers.insert(value.clone(), number);
    Some(number)
}

/// The recipients of a message that is awake; where they wait is found out when it is needed.
fn recipients_of(live: &Live, writing: &mut Writing) -> Vec<RestRecipient> {
    let mut outcomes = live.outcomes.iter().peekable();
    (0..live.recipients_count)
        .map(|number| {
            let outcome = outcomes.next_if(|outcome| outcome.recipient == number);
            let reply = outcome.map_or(&[][..], |outcome| &outcome.reply);
            RestRecipient {
                next_ms: outcome.map_or(0, |outcome| outcome.next_ms),
                number,
                hop: u32::MAX,
                reply: writing.reply(reply),
                attempt: outcome.map_or(0, |outcome| {
                    u16::try_from(outcome.attempt).unwrap_or(u16::MAX)
                }),
                standing: outcome.map_or(Standing::Untried, |outcome| Standing::of(outcome.status)),
            }
        })
        .collect()
}
