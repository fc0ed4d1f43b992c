//! Behind a start from a checkpoint: its entries come in, those that are due first.
//!
//! Until the last one is there, nothing of what was before the start is recycled, copied or removed.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::buffer::AlignedBuf;
use crate::id::SpoolId;
use crate::layout::aligned;
use crate::log::{Location, Log};
use crate::op::{Completion, FileId, Op, Request, Token};
use crate::rest::{Hop, Rest, RestRecipient, RestRecipients};
use crate::routing::{Gathered, Round};
use crate::types::{Event, MessageKey, Outcome};

use super::{Chunk, Directory, Entry};

/// A chunk that cannot be read is tried again after this.
const RETRY_NS: u64 = 5_000_000_000;

/// What commits behind the checkpoint say of a message that is in it.
#[derive(Debug)]
pub(crate) enum Change {
    /// It is finished, or entered already.
    Gone,
    /// It goes on.
    Later(Box<Later>),
}

/// What became of a message behind the checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Later {
    /// The latest of each recipient, by number.
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) gathered: Gathered,
    /// Results of routing; the checkpoint may have some of them already.
    pub(crate) rounds: Vec<LaterRound>,
}

/// What is needed of a result of routing while its message rests.
#[derive(Debug)]
pub(crate) struct LaterRound {
    first: u32,
    added: u32,
    places: Vec<Location>,
}

impl From<Round> for LaterRound {
    fn from(round: Round) -> Self {
        Self {
            first: round.first,
            added: round.routing.recipients.len() as u32,
            places: round.places,
        }
    }
}

impl Later {
    fn outcome(&self, number: u32) -> Option<&Outcome> {
        let at = (self.outcomes).binary_search_by_key(&number, |outcome| outcome.recipient);
        self.outcomes.get(at.ok()?)
    }
}

/// A checkpoint that is being read.
#[derive(Debug)]
pub(crate) struct Loading {
    file: FileId,
    opened: bool,
    flying: Option<(Token, Option<Chunk>)>,
    chunks: VecDeque<Chunk>,
    /// By the numbers of the entries.
    hops: Vec<Hop>,
    origins: Vec<(u16, u64)>,
    generations: Vec<u64>,
    replies: Vec<Arc<[u8]>>,
    changes: HashMap<SpoolId, Change>,
    /// Files with content that no message has named so far.
    unclaimed: BTreeSet<u128>,
    /// Keys below this one are of the checkpoint.
    key_next: u64,
    /// Messages that have no place in memory: their files are still theirs.
    homeless: BTreeSet<MessageKey>,
    /// Entries that are not in.
    left: u64,
    until: u64,
}

impl Loading {
    pub(crate) fn new(
        file: u8,
        directory: Directory,
        hops: Vec<Hop>,
        changes: HashMap<SpoolId, Change>,
        unclaimed: BTreeSet<u128>,
        key_next: u64,
    ) -> Self {
        let mut chunks = directory.chunks;
        chunks.sort_by_key(|chunk| chunk.due_ms);
        Self {
            file: FileId::Checkpoint(file),
            opened: false,
            flying: None,
            left: chunks.iter().map(|chunk| u64::from(chunk.entries)).sum(),
            chunks: chunks.into(),
            hops,
            origins: directory.origins,
            generations: directory.generations,
            replies: directory.replies,
            changes,
            unclaimed,
            key_next,
            homeless: BTreeSet::new(),
            until: 0,
        }
    }
}

impl Log {
    /// Entries of the checkpoint that are not in yet.
    #[must_use]
    pub fn loading_count(&self) -> u64 {
        self.loading.as_ref().map_or(0, |loading| loading.left)
    }

    pub(crate) fn poll_loading(&mut self, now: u64) -> Option<Request> {
        let token = Token(self.token_next + 1);
        let loading = self.loading.as_mut()?;
        if loading.flying.is_some() || loading.until > now {
            return None;
        }
        let file = loading.file;
        let (op, chunk) = if !loading.opened {
            (Op::Open { file }, None)
        } else if let Some(chunk) = loading.chunks.pop_front() {
            let buf = AlignedBuf::zeroed(aligned(chunk.extent.len as usize));
            let offset = chunk.extent.offset;
            (Op::Read { file, offset, buf }, Some(chunk))
        } else {
            (Op::Close { file }, None)
        };
        loading.flying = Some((token, chunk));
        self.token_next += 1;
        Some(Request { token, op })
    }

    /// Gives the completion back when it is not of a checkpoint that is being read.
    pub(crate) fn loading_done(&mut self, now: u64, completion: Completion) -> Option<Completion> {
        let Some(loading) = &mut self.loading else {
            return Some(completion);
        };
        let ours = |(token, _): &mut (Token, Option<Chunk>)| *token == completion.token;
        let Some((_, chunk)) = loading.flying.take_if(ours) else {
            return Some(completion);
        };
        let Some(chunk) = chunk else {
            if loading.opened {
                self.loaded();
            } else if let Err(errno) = completion.result {
                self.cannot_load(now, None, &format!("errno {errno}"));
            } else {
                loading.opened = true;
            }
            return None;
        };
        let read = match (completion.result, &completion.buf) {
            (Ok(_), Some(buf)) => buf.get(..chunk.extent.len as usize),
            _ => None,
        };
        match read.map(|bytes| super::entries(bytes, &chunk)) {
            Some(Ok(entries)) => self.enter_chunk(&chunk, entries),
            Some(Err(_)) => self.cannot_load(now, Some(chunk), "checksum does not match"),
            None => self.cannot_load(now, Some(chunk), &format!("{:?}", completion.result)),
        }
        None
    }

    /// It was whole at the start: the disk is asked until it is again.
    fn cannot_load(&mut self, now: u64, chunk: Option<Chunk>, why: &str) {
        let Some(loading) = &mut self.loading else {
            return;
        };
        loading.until = now + RETRY_NS;
        let offset = chunk.map_or(0, |chunk| chunk.extent.offset);
        loading.chunks.extend(chunk);
        self.events.push_back(Event::Trouble(format!(
            "the checkpoint cannot be read at offset {offset}: {why}; {} messages wait for it, it is tried again every 5 s, and a restart without the file reads the whole log instead",
            self.loading_count()
        )));
    }

    fn enter_chunk(&mut self, chunk: &Chunk, entries: Vec<Entry>) {
        let Some(mut loading) = self.loading.take() else {
            return;
        };
        loading.left -= u64::from(chunk.entries);
        let mut keys = Vec::with_capacity(entries.len());
        for entry in entries {
            keys.extend(self.enter_entry(&mut loading, entry));
        }
        self.loading = Some(loading);
        self.events.push_back(Event::Loaded { keys });
    }

    /// Enters a message unless it is finished, was copied since, or came in already.
    fn enter_entry(&mut self, loading: &mut Loading, entry: Entry) -> Option<MessageKey> {
        let id = super::id_of(&entry, &loading.origins)?;
        let change = loading.changes.get(&id);
        let key = MessageKey(entry.key);
        let same = self.tag(entry.segment) == entry.tag
            || self.settings.faulty(crate::faults::Fault::CheckpointAnyTag);
        let known = self.resting.get(key).is_some() || self.live.contains_key(&key);
        if !same || known || matches!(change, Some(Change::Gone)) {
            return None;
        }
        if entry.has_file && !loading.unclaimed.remove(&id.bits()) {
            self.events.push_back(Event::Trouble(format!(
                "message {id}: the file with its content is not there"
            )));
        }
        let mut recipients: Vec<RestRecipient> = Vec::with_capacity(entry.recipients.len());
        let later = match change {
            Some(Change::Later(later)) => Some(&**later),
            _ => None,
        };
        let outcome_of = |number: u32| later.and_then(|later| later.outcome(number));
        for recipient in &entry.recipients {
            let hop = loading.hops.get(recipient.hop as usize);
            let hop = hop.copied().unwrap_or(Hop::NONE);
            let number = recipient.number;
            let outcome = outcome_of(number).cloned();
            let outcome = outcome.or_else(|| loading.outcome(recipient));
            let resting = &mut self.resting;
            recipients.push(resting.take_recipient(number, hop, outcome.as_ref()));
        }
        let mut rounds = entry.rounds.clone();
        let known = entry.recipients.len() as u32;
        for round in later.iter().flat_map(|later| &later.rounds) {
            // The others were there when the entry was made.
            let numbers = if rounds.numbers > 0 {
                rounds.numbers
            } else {
                known
            };
            if round.first != numbers {
                continue;
            }
            for number in numbers..numbers + round.added {
                let resting = &mut self.resting;
                recipients.push(resting.take_recipient(number, Hop::NONE, outcome_of(number)));
            }
            rounds.places.extend(&round.places);
            rounds.numbers = numbers + round.added;
        }
        for place in &rounds.places {
            self.bytes_arrive(*place);
        }
        self.resting.insert_rounds(key, rounds);
        let generation = loading.generations.get(usize::from(entry.generation));
        let generation = generation.copied().unwrap_or(0);
        let rest = Rest {
            id: 0,
            segment: entry.segment,
            payload: entry.payload,
            payload_len: entry.payload_len,
            content_len: u32::try_from(entry.content_len).unwrap_or(u32::MAX),
            arrival_s: entry.arrival_s,
            has_file: entry.has_file,
            generation: self.resting.take_generation(generation),
            recipients: RestRecipients::of(recipients),
        };
        let entered = self.enter_rest(key, id, rest);
        if entered.is_none() {
            self.resting.take_rounds(key);
            loading.homeless.insert(key);
        }
        entered
    }

    /// Enters a message that rests from the start on; gives its key back.
    pub(crate) fn enter_rest(
        &mut self,
        key: MessageKey,
        id: SpoolId,
        mut rest: Rest,
    ) -> Option<MessageKey> {
        // Its segment holds it, even if it has no place here.
        self.record_arrives(key, rest.location());
        let Some(short) = self.resting.take_id(id) else {
            self.events.push_back(Event::Trouble(format!(
                "message {id} stays on disk until the next start: messages of too many runs rest"
            )));
            return None;
        };
        rest.id = short;
        self.resting.insert(key, rest);
        Some(key)
    }

    /// All entries are in: what was kept for them can go.
    fn loaded(&mut self) {
        let Some(loading) = self.loading.take() else {
            return;
        };
        // A message that was finished or copied behind the checkpoint left its file under the old key.
        let (live, resting) = (&self.live, &self.resting);
        self.sources.retain(|key, _| {
            key.0 >= loading.key_next
                || live.contains_key(key)
                || resting.get(*key).is_some()
                || loading.homeless.contains(key)
        });
        if self.stats.damaged > 0 {
            // What named them may be in what is damaged.
            let count = loading.unclaimed.len();
            if count > 0 {
                self.events.push_back(Event::Trouble(format!(
                    "{count} files with content that no message names are kept, because something is damaged"
                )));
            }
            return;
        }
        for id in loading.unclaimed {
            self.content_remove(SpoolId::from_bits(id));
        }
    }
}

impl Loading {
    fn outcome(&self, recipient: &RestRecipient) -> Option<Outcome> {
        let reply = self.replies.get(recipient.reply as usize);
        let reply = reply.map_or(&[][..], |reply| reply);
        crate::rest::outcome(recipient, reply)
    }
}
