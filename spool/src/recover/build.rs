//! The end of a start: what was found is judged, and becomes the state of a log.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::checkpoint::load::Change;
use crate::faults::Fault;
use crate::id::SpoolId;
use crate::log::{Live, Location, Log, Place, ThreadPlace};
use crate::rest::{Hop, NO_GENERATION, Rest, RestRecipients};
use crate::routing::Rounds;
use crate::segments::Segment;
use crate::types::{Envelope, Event, MessageKey};

use super::state::{FoundCommit, FoundMessage, FoundRecord, State};
use super::{RecoverError, Recovered, RecoveredMessage, Recovery};

/// Messages that the caller hears of in one event.
const KEYS_AT_A_TIME: usize = 1024;

impl Recovery {
    /// The log and what it holds.
    ///
    /// # Errors
    /// See [`RecoverError`].
    pub fn finish(mut self) -> Result<(Log, Recovered), RecoverError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut commits = std::mem::take(&mut self.commits);
        commits.sort_by_key(|commit| (commit.header.sequence, commit.header.segment));
        // A commit written twice (a failed first write that reached the disk) counts once.
        commits.dedup_by_key(|commit| commit.header.sequence);
        let places: Vec<(u64, u32)> = commits
            .iter()
            .map(|commit| (commit.header.sequence, commit.header.segment))
            .collect();
        let covered = self.covered();
        if let Some((covered, _)) = covered {
            commits.retain(|commit| commit.header.sequence > covered);
            self.bad.retain(|bad| bad.sequence > covered);
        }
        let voided: BTreeSet<u64> = commits
            .iter()
            .flat_map(|commit| &commit.records)
            .filter_map(|record| match record {
                FoundRecord::Void(sequence) => Some(*sequence),
                _ => None,
            })
            .collect();
        self.judge_bad(&commits, &voided);
        self.judge_chain(&commits, &voided);
        commits.retain(|commit| !voided.contains(&commit.header.sequence));
        let used = self.in_order(places);
        let last = commits.last().map(Link::of);
        let mut state = State {
            threads: self.known_threads(),
            changes: covered.map(|_| HashMap::new()),
            half_counts: self.settings.faulty(Fault::RoundHalfCounts),
            ..State::default()
        };
        for commit in commits {
            self.report.commits += 1;
            self.tail_bytes += u64::from(commit.header.length);
            state.apply(commit);
        }
        Ok(self.build(state, &used, last.as_ref()))
    }

    /// Damaged, when something valid was written after it; else the unfinished end of a run. One
    /// that was written again or voided has nothing to say.
    fn judge_bad(&mut self, commits: &[FoundCommit], voided: &BTreeSet<u64>) {
        let last = commits.last().map_or(0, |commit| commit.header.sequence);
        for bad in std::mem::take(&mut self.bad) {
            let again = commits
                .binary_search_by_key(&bad.sequence, |commit| commit.header.sequence)
                .is_ok();
            if again || voided.contains(&bad.sequence) {
                continue;
            }
            if bad.sequence < last {
                self.report.damaged.push((bad.segment, bad.offset));
                self.tainted.insert(bad.segment);
                self.bad.push(bad);
            } else {
                self.report.torn += 1;
            }
        }
    }

    /// Commits whose header is damaged leave a gap in the sequence or a link that does not fit; what
    /// is named is the place behind the last good one. What is missing may as well be at the start of
    /// the segment that the next one is in.
    fn judge_chain(&mut self, commits: &[FoundCommit], voided: &BTreeSet<u64>) {
        let named: BTreeSet<u64> = self.bad.iter().map(|bad| bad.sequence).collect();
        let mut before = self.link_before(commits);
        for commit in commits {
            let header = &commit.header;
            if voided.contains(&header.sequence) {
                continue;
            }
            if let Some(before) = &before {
                let mut between = before.sequence + 1..header.sequence;
                let missing = between.any(|sequence| !voided.contains(&sequence));
                let all_named = (before.sequence + 1..header.sequence)
                    .all(|sequence| voided.contains(&sequence) || named.contains(&sequence));
                let unlinked = !missing && header.previous != before.link;
                if (missing && !all_named) || unlinked {
                    self.report.damaged.push(before.end);
                    self.tainted.insert(before.end.0);
                    self.tainted.insert(header.segment);
                }
            }
            before = Some(Link::of(commit));
        }
    }

    /// What the first commit has to follow, where that is known: what a checkpoint covers.
    fn link_before(&self, commits: &[FoundCommit]) -> Option<Link> {
        let (sequence, link) = self.covered().filter(|_| self.is_continuous())?;
        let first = commits.first()?;
        Some(Link {
            sequence,
            link,
            end: (first.header.segment, first.offset),
        })
    }

    /// Segments with commits, good or damaged, oldest first.
    fn in_order(&self, mut places: Vec<(u64, u32)>) -> Vec<u32> {
        places.extend(self.bad.iter().map(|bad| (bad.sequence, bad.segment)));
        places.sort_unstable();
        let spared = self.spared();
        let read = places.into_iter().map(|(_, segment)| segment);
        let mut seen = BTreeSet::new();
        let all = spared.into_iter().chain(read);
        all.filter(|segment| seen.insert(*segment)).collect()
    }

    /// `last` is the last commit that counts.
    fn build(mut self, state: State, used: &[u32], last: Option<&Link>) -> (Log, Recovered) {
        let mut log = Log::empty(self.settings.clone());
        let end = last.map(|last| last.end);
        let covered = self.covered();
        let last = last.map(|last| (last.sequence, last.link)).or(covered);
        if let Some((sequence, link)) = last {
            log.sequence_next = sequence + 1;
            log.committed = sequence;
            log.link = link;
        }
        log.key_next = self.key_next();
        // What had to be read this time need not be the next.
        log.checkpoints.grown = self.tail_bytes;
        log.segment_next = self.segment_next;
        self.lay_out(&mut log, used, end);
        let changes = state.changes.unwrap_or_default();
        let messages = self.enter_all(&mut log, state.messages);
        self.claim_contents(&mut log, changes);
        let threads = state
            .threads
            .values()
            .map(|(thread, _)| thread.clone())
            .collect();
        let placed = state.threads.into_iter();
        log.threads = placed
            .map(|(key, (state, at))| (key, ThreadPlace::on_disk(state, at)))
            .collect();
        (
            log,
            Recovered {
                messages,
                threads,
                report: self.report,
            },
        )
    }

    /// Segments as they were found. `end` is the end of the last commit.
    fn lay_out(&mut self, log: &mut Log, used: &[u32], end: Option<(u32, u64)>) {
        // A commit that did not get to disk may have left anything in a segment that looks unused:
        // nothing is written before every segment without a commit has a new generation. They go
        // first, since nothing in them is needed.
        let in_use: BTreeSet<u32> = used.iter().copied().collect();
        log.order.extend(
            self.headers
                .keys()
                .copied()
                .filter(|number| !in_use.contains(number)),
        );
        log.order.extend(used);
        for (number, owner) in &self.headers {
            let end = log.settings.segment_bytes;
            let segment = Segment {
                generation: owner.generation,
                secret: owner.secret,
                end,
                commits: u64::from(in_use.contains(number)),
                ..Segment::default()
            };
            log.segments.insert(*number, segment);
        }
        if log.settings.faulty(Fault::AcceptRemains)
            && let Some((number, end)) = end
            && let Some(segment) = log.segments.get_mut(&number)
        {
            segment.end = end;
            log.active = Some(number);
        }
        self.report.aside.sort_unstable();
        log.stats.damaged = self.report.aside.len() as u64;
        for number in &self.tainted {
            log.mark_damaged(*number);
        }
    }

    /// Enters what is live; gives back what is awake.
    fn enter_all(
        &mut self,
        log: &mut Log,
        found: BTreeMap<SpoolId, Box<FoundMessage>>,
    ) -> Vec<RecoveredMessage> {
        let mut messages = Vec::new();
        let mut resting = Vec::new();
        for (id, message) in found {
            if message.has_file && !self.contents.remove(&id.bits()) {
                self.report.missing.push(id);
            }
            resting.extend(enter(log, *message, &mut messages));
        }
        let loaded = resting.chunks(KEYS_AT_A_TIME).map(|keys| Event::Loaded {
            keys: keys.to_vec(),
        });
        log.events.extend(loaded);
        messages
    }

    /// Removes files with content that nobody names, or leaves that to whoever reads the checkpoint.
    fn claim_contents(&mut self, log: &mut Log, changes: HashMap<SpoolId, Change>) {
        let unclaimed = std::mem::take(&mut self.contents);
        let unclaimed = self.begin_loading(log, changes, unclaimed);
        if log.stats.damaged > 0 {
            // What named them may be in what is damaged.
            self.report.unclaimed = unclaimed.map_or(0, |unclaimed| unclaimed.len() as u64);
        } else {
            // Every record that could speak of them has been read, and what was read is on disk.
            for id in unclaimed.into_iter().flatten() {
                log.content_remove(SpoolId::from_bits(id));
            }
        }
    }
}

/// A commit as the next one refers to it.
struct Link {
    sequence: u64,
    link: u32,
    /// Segment and offset behind it.
    end: (u32, u64),
}

impl Link {
    fn of(commit: &FoundCommit) -> Self {
        let header = &commit.header;
        Self {
            sequence: header.sequence,
            link: header.link(),
            end: (header.segment, commit.offset + u64::from(header.length)),
        }
    }
}

/// Enters a live message that has been found; gives its key back when it rests.
fn enter(
    log: &mut Log,
    message: FoundMessage,
    messages: &mut Vec<RecoveredMessage>,
) -> Option<MessageKey> {
    let key = log.next_key();
    match message.envelope {
        Some(envelope) => {
            let message = FoundMessage {
                envelope: None,
                ..message
            };
            messages.push(enter_awake(log, key, message, envelope));
            None
        }
        None => {
            if let Some(source) = message.source {
                log.sources.insert(key, source);
            }
            enter_resting(log, key, message)
        }
    }
}

fn enter_resting(log: &mut Log, key: MessageKey, message: FoundMessage) -> Option<MessageKey> {
    let FoundMessage {
        id,
        location,
        mut outcomes,
        ..
    } = message;
    enter_rounds(
        log,
        key,
        message.is_routed,
        message.recipients_count,
        &message.rounds,
    );
    outcomes.sort_by_key(|outcome| outcome.recipient);
    let mut outcomes = outcomes.iter().peekable();
    let recipients = (0..message.recipients_count).map(|number| {
        let outcome = outcomes.next_if(|outcome| outcome.recipient == number);
        log.resting.take_recipient(number, Hop::NONE, outcome)
    });
    let rest = Rest {
        id: 0,
        segment: location.segment,
        payload: location.payload as u32,
        payload_len: location.payload_len as u32,
        content_len: u32::try_from(message.content_len).unwrap_or(u32::MAX),
        arrival_s: message.arrival_s,
        has_file: message.has_file,
        generation: NO_GENERATION,
        recipients: RestRecipients::of(recipients.collect()),
    };
    log.enter_rest(key, id, rest)
}

/// Remembers where the results of routing a message that rests are.
fn enter_rounds(
    log: &mut Log,
    key: MessageKey,
    is_routed: bool,
    numbers: u32,
    places: &[Location],
) {
    if !is_routed {
        return;
    }
    for place in places {
        log.bytes_arrive(*place);
    }
    let rounds = Rounds {
        places: places.to_vec(),
        numbers,
        ..Rounds::default()
    };
    log.resting.insert_rounds(key, rounds);
}

fn enter_awake(
    log: &mut Log,
    key: MessageKey,
    message: FoundMessage,
    envelope: Envelope,
) -> RecoveredMessage {
    let FoundMessage {
        id,
        location,
        mut outcomes,
        content_len,
        has_file,
        rounds,
        ..
    } = message;
    // Records come in any order of recipients; the log keeps them by number.
    outcomes.sort_by_key(|outcome| outcome.recipient);
    log.record_arrives(key, location);
    let mut latest = vec![None; envelope.recipients_count()];
    for outcome in &outcomes {
        if let Some(slot) = latest.get_mut(outcome.recipient as usize) {
            *slot = Some(outcome.clone());
        }
    }
    let mut live = Live {
        has_file,
        outcomes,
        ..Live::new(id, &envelope, Place::Disk(location), content_len)
    };
    for place in &rounds {
        log.bytes_arrive(*place);
    }
    live.rounds.places = rounds;
    log.enter(key, &envelope, live);
    RecoveredMessage {
        key,
        id,
        envelope,
        content_len,
        has_file,
        outcomes: latest,
    }
}
