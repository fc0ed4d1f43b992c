//! The end of a start: what was found is judged, and becomes the state of a log.

use std::collections::BTreeSet;

use crate::faults::Fault;
use crate::id::SpoolId;
use crate::log::{Live, Log, Place, ThreadPlace};
use crate::segments::Segment;
use crate::types::MessageKey;

use super::state::{FoundCommit, FoundRecord, State, StateMessage};
use super::{RecoverError, Recovered, RecoveredMessage, Recovery};

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
        let mut state = State::default();
        for commit in &commits {
            if !voided.contains(&commit.header.sequence) {
                self.report.commits += 1;
                state.apply(commit);
            }
        }
        let used = self.in_order(&commits);
        Ok(self.build(state, &used, commits.last()))
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
        let mut counted: Option<&FoundCommit> = None;
        for commit in commits {
            if voided.contains(&commit.header.sequence) {
                continue;
            }
            if let Some(before) = counted {
                let header = &before.header;
                let mut between = header.sequence + 1..commit.header.sequence;
                let missing = between.any(|sequence| !voided.contains(&sequence));
                let all_named = (header.sequence + 1..commit.header.sequence)
                    .all(|sequence| voided.contains(&sequence) || named.contains(&sequence));
                let unlinked = !missing && commit.header.previous != header.link();
                if (missing && !all_named) || unlinked {
                    let place = (header.segment, before.offset + u64::from(header.length));
                    self.report.damaged.push(place);
                    self.tainted.insert(header.segment);
                    self.tainted.insert(commit.header.segment);
                }
            }
            counted = Some(commit);
        }
    }

    /// Segments with commits, good or damaged, oldest first.
    fn in_order(&self, commits: &[FoundCommit]) -> Vec<u32> {
        let good = commits
            .iter()
            .map(|commit| (commit.header.sequence, commit.header.segment));
        let damaged = self.bad.iter().map(|bad| (bad.sequence, bad.segment));
        let mut places: Vec<(u64, u32)> = good.chain(damaged).collect();
        places.sort_unstable();
        let mut seen = BTreeSet::new();
        places.retain(|(_, segment)| seen.insert(*segment));
        places.into_iter().map(|(_, segment)| segment).collect()
    }

    fn build(mut self, state: State, used: &[u32], last: Option<&FoundCommit>) -> (Log, Recovered) {
        let mut log = Log::empty(self.settings.clone());
        if let Some(last) = last {
            log.sequence_next = last.header.sequence + 1;
            log.link = last.header.link();
        }
        log.segment_next = self.segment_next;
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
                end,
                commits: u64::from(in_use.contains(number)),
                ..Segment::default()
            };
            log.segments.insert(*number, segment);
        }
        if log.settings.faulty(Fault::AcceptRemains)
            && let Some(last) = last
            && let Some(segment) = log.segments.get_mut(&last.header.segment)
        {
            segment.end = last.offset + u64::from(last.header.length);
            log.active = Some(last.header.segment);
        }
        self.report.aside.sort_unstable();
        log.stats.damaged = self.report.aside.len() as u64;
        for number in &self.tainted {
            log.mark_damaged(*number);
        }
        let mut messages = Vec::new();
        for (id, message) in state.messages {
            if message.has_file && !self.contents.remove(&id.bits()) {
                self.report.missing.push(id);
            }
            messages.push(enter(&mut log, id, message));
        }
        if log.stats.damaged > 0 {
            // What named them may be in what is damaged.
            self.report.unclaimed = self.contents.len() as u64;
        } else {
            // Every record that could speak of them has been read, and what was read is on disk.
            for id in self.contents {
                log.content_remove(SpoolId::from_bits(id));
            }
        }
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
}

/// Enters a live message that has been found.
fn enter(log: &mut Log, id: SpoolId, message: StateMessage) -> RecoveredMessage {
    let StateMessage {
        location,
        envelope,
        mut outcomes,
        content_len,
        has_file,
    } = message;
    // Records come in any order of recipients; the log keeps them by number.
    outcomes.sort_by_key(|outcome| outcome.recipient);
    let key = MessageKey(log.key_next);
    log.key_next += 1;
    log.record_arrives(key, location);
    let mut latest = vec![None; envelope.recipients.len()];
    for outcome in &outcomes {
        if let Some(slot) = latest.get_mut(outcome.recipient as usize) {
            *slot = Some(outcome.clone());
        }
    }
    let place = Place::Disk(location);
    log.live.insert(
        key,
        Live {
            has_file,
            outcomes,
            ..Live::new(id, place, content_len)
        },
    );
    RecoveredMessage {
        key,
        id,
        envelope,
        content_len,
        has_file,
        outcomes: latest,
    }
}
