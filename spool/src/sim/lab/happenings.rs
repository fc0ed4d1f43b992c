//! What happens in a day: mail of all sizes, content that looks like a commit, attempts and their outcomes,
//! reports, holds, submissions, states of next hops, reads, errors of the disk.

use super::Careless;
use super::day::{Day, Owed};
use super::facts::{Mail, Note};
use crate::buffer::ALIGN_BYTES;
use crate::content::PIECE_BYTES;
use crate::id::SpoolId;
use crate::layout::{COMMIT_HEADER_BYTES, CommitHeader};
use crate::record::{self, HEADER_BYTES, MESSAGE_HEAD_BYTES, put_envelope};
use crate::sim::Fault;
use crate::sim::rng::Rng;
use crate::types::{Envelope, Outcome, Status, ThreadState};

/// Something that may happen; the number says which round of the day it is.
type Happening = fn(&mut Day, &mut Rng, u64);

/// What may happen beside mail and attempts in each round, and in one of how many it does.
const HAPPENINGS: &[(u64, Happening)] = &[
    (3, Day::receiving),
    (8, Day::thread),
    (4, Day::read_one),
    (8, Day::hold),
    (8, Day::release),
    (6, Day::submit),
    (12, Day::disk_fails),
    (24, Day::read_fails),
    (24, Day::memory_is_short),
    (4, Day::time_passes),
    (2, Day::rest),
    (3, Day::wake),
];

/// A message is routed in one of so many rounds of a day.
const ROUTED_ONE_IN: u64 = 3;

const EIO: i32 = 5;

impl Day {
    /// What happens in one round.
    pub(super) fn happenings(&mut self, rng: &mut Rng, number: u64) {
        if rng.below(self.kind.large_one_in) == 0 {
            self.accept_large(rng, number);
        } else {
            self.accept(rng, number);
        }
        for _ in 0..rng.below(4) {
            self.attempt(rng);
        }
        for (one_in, happening) in HAPPENINGS {
            if rng.below(*one_in) == 0 {
                happening(self, rng, number);
            }
        }
        // Beside the others: days without routing stay what they are.
        if self.kind.routes && rng.below(ROUTED_ONE_IN) == 0 {
            self.route(rng);
        }
    }

    /// What happens before all of a checkpoint is in: mail comes.
    pub(super) fn early(&mut self, rng: &mut Rng, number: u64) {
        if rng.below(self.kind.large_one_in) == 0 {
            self.accept_large(rng, number);
        } else {
            self.accept(rng, number);
        }
        self.time_passes(rng, number);
    }

    /// Messages that are known, not on their way out, and do not rest.
    pub(super) fn awake_ones(&self) -> Vec<SpoolId> {
        let mut open = self.facts.open();
        open.retain(|id| !self.is_resting(*id) && !self.routing.contains_key(&self.keys[id]));
        open
    }

    /// Some messages wait for next hops.
    fn rest(&mut self, rng: &mut Rng, _: u64) {
        for _ in 0..=rng.below(4) {
            let awake = self.awake_ones();
            if awake.is_empty() {
                return;
            }
            let id = awake[rng.index(awake.len())];
            let key = self.keys[&id];
            let envelope = self.facts.latest(id);
            let arrival_ms = envelope.arrival_ms;
            let recipients = envelope.recipients_count() as u32;
            let finished = |number: &u32| {
                let mut outcomes = self.log.outcomes(key).iter();
                outcomes.any(|outcome| outcome.recipient == *number && is_final(outcome.status))
            };
            let open: Vec<u32> = (0..recipients).filter(|number| !finished(number)).collect();
            let hops = open.into_iter().map(|number| {
                let host = format!("h{}", rng.below(3));
                (number, self.log.hop(b"smtp", host.as_bytes()))
            });
            let hops: Vec<_> = hops.collect();
            if self.log.rest(key, arrival_ms, 1 + key.0 % 3, &hops) {
                self.say(|| format!("{id} rests"));
                self.happened("rested");
            }
        }
    }

    fn wake(&mut self, rng: &mut Rng, _: u64) {
        for _ in 0..=rng.below(3) {
            let resting: Vec<_> = self.log.resting_keys(..).collect();
            if !resting.is_empty() {
                self.log.wake(resting[rng.index(resting.len())]);
            }
        }
    }

    fn receiving(&mut self, rng: &mut Rng, _: u64) {
        self.log.set_receiving(rng.below(2) as u32);
    }

    fn read_one(&mut self, rng: &mut Rng, _: u64) {
        let open = self.awake_ones();
        if !open.is_empty() {
            let key = self.keys[&open[rng.index(open.len())]];
            self.log.read(key);
        }
    }

    /// One or two writes or syncs fail, at once or somewhat later.
    fn disk_fails(&mut self, rng: &mut Rng, _: u64) {
        if !self.kind.errors {
            return;
        }
        // Two errors in a row: a commit that fails twice.
        let in_a_row = rng.below(2) == 0;
        for _ in 0..1 + rng.below(2) {
            let fault = match rng.below(6) {
                _ if in_a_row => Fault::Error { errno: EIO },
                0 => Fault::Full,
                1 | 2 => Fault::Short {
                    bytes: ALIGN_BYTES * rng.index(3),
                },
                _ => Fault::Error { errno: EIO },
            };
            self.say(|| format!("the disk will fail: {fault:?}"));
            match rng.below(3) {
                0 if !in_a_row => self.disk.fail_nth(1 + rng.below(12), fault),
                _ => self.disk.fail_next(fault),
            }
        }
    }

    fn read_fails(&mut self, _: &mut Rng, _: u64) {
        if self.kind.errors {
            self.disk.fail_read(EIO);
        }
    }

    fn memory_is_short(&mut self, _: &mut Rng, _: u64) {
        self.say(|| "memory is short".to_owned());
        self.disk.forget_failed();
    }

    fn time_passes(&mut self, _: &mut Rng, _: u64) {
        let errors = self.kind.errors;
        self.now += if errors { 2_000_000_000 } else { 200_000_000 };
    }

    /// An operator has a message not tried for the time being.
    fn hold(&mut self, rng: &mut Rng, _: u64) {
        self.operator(rng, Status::Held, b"held by an operator");
    }

    /// And tried again.
    fn release(&mut self, rng: &mut Rng, _: u64) {
        self.operator(rng, Status::Deferred, b"released");
    }

    fn operator(&mut self, rng: &mut Rng, status: Status, reply: &[u8]) {
        let open = self.awake_ones();
        if open.is_empty() {
            return;
        }
        let id = open[rng.index(open.len())];
        for recipient in self.open_numbers(id) {
            let outcome = Outcome {
                recipient,
                attempt: 1,
                status,
                next_ms: 0,
                reply: reply.to_vec(),
            };
            self.outcome(id, outcome);
        }
        self.happened("held or released");
    }

    fn outcome(&mut self, id: SpoolId, outcome: Outcome) {
        let batch = self.log.staged_batch();
        self.say(|| format!("outcome of {id} in batch {batch}: {outcome:?}"));
        self.log.outcome(self.now, self.keys[&id], outcome.clone());
        self.facts.staged(batch, Note::Outcome(id, outcome));
    }

    fn finish(&mut self, id: SpoolId) {
        let batch = self.log.staged_batch();
        self.log.done(self.now, self.keys[&id]);
        self.facts.staged(batch, Note::Done(id));
    }

    fn accept(&mut self, rng: &mut Rng, number: u64) {
        let id = self.log.reserve_id();
        let envelope = Self::envelope(number);
        let content = if self.log.idle() && rng.below(3) == 0 {
            self.forged(&envelope)
        } else {
            let len = [0, 10, 700, 4096, 9000, 20_000, 50_000][rng.index(7)];
            (0..len).map(|_| rng.next_u64() as u8).collect()
        };
        if let Ok(accepted) = self.log.accept(self.now, id, &envelope, &content) {
            if self.watch.refusing {
                self.watch.broken = Some("mail is taken while the disk refuses commits");
            }
            self.offer(id, accepted, Mail { content, envelope });
            self.facts.staged(accepted.batch, Note::Message(id));
        }
    }

    /// Large content arrives; some clients go away in the middle.
    fn accept_large(&mut self, rng: &mut Rng, number: u64) {
        let id = self.log.reserve_id();
        let envelope = Self::envelope(number);
        let len = [1, 4096, 30_000, 70_000, PIECE_BYTES + 5000][rng.index(5)];
        let seed = rng.next_u64();
        let content: Vec<u8> = (0..len as u64)
            .map(|at| (seed >> (at % 57)) as u8)
            .collect();
        self.log.content_begin(id);
        let first = (content.len() / 2) / ALIGN_BYTES * ALIGN_BYTES;
        self.log.content_write(id, &content[..first]);
        match rng.below(6) {
            0 => self.log.content_drop(id),
            more => {
                self.log.content_end(id, &content[first..]);
                if more == 1 {
                    self.log.content_drop(id);
                } else {
                    self.arriving.insert(id, Mail { content, envelope });
                }
            }
        }
    }

    /// Content with a commit at each block of the segment, complete but for the secret.
    fn forged(&self, envelope: &Envelope) -> Vec<u8> {
        let mut head = Vec::new();
        put_envelope(&mut head, envelope);
        let before = COMMIT_HEADER_BYTES + HEADER_BYTES + MESSAGE_HEAD_BYTES + head.len();
        let mut content = vec![b'x'; ALIGN_BYTES - before % ALIGN_BYTES];
        let id = SpoolId {
            shard: 0,
            epoch: 666,
            sequence: 1,
        };
        let payload = record::whole_payload(id, envelope, &[], b"forged");
        let mut records = vec![record::Kind::Message as u8, 0, 0, 0];
        records.extend((payload.len() as u32).to_le_bytes());
        records.extend(crc32c::crc32c(&payload).to_le_bytes());
        records.extend(payload);
        for block in 1..5u64 {
            let header = CommitHeader {
                secret: 4711,
                sequence: 1_000_000 + block,
                generation: self
                    .watch
                    .generations
                    .get(&self.watch.segment)
                    .copied()
                    .unwrap_or(1),
                segment: self.watch.segment,
                length: ALIGN_BYTES as u32,
                records: records.len() as u32,
                previous: 0,
                sum: crc32c::crc32c(&records),
            };
            content.extend(header.encode());
            content.extend(&records);
            let end = content.len() + ALIGN_BYTES - (before + content.len()) % ALIGN_BYTES;
            content.resize(end, b'x');
        }
        content
    }

    /// An attempt for a recipient of the `nth` open message; mostly its last.
    fn attempt(&mut self, rng: &mut Rng) {
        let open = self.awake_ones();
        if open.is_empty() {
            return;
        }
        let id = open[rng.index(open.len())];
        let recipients = self.open_numbers(id);
        if recipients.is_empty() {
            return;
        }
        let last = rng.below(3) > 0 && self.open().contains(&id);
        let status = match rng.below(5) {
            _ if !last => Status::Deferred,
            0 if !self.facts.reports.contains_key(&id) => Status::Failed,
            _ => Status::Delivered,
        };
        let outcome = Outcome {
            recipient: recipients[rng.index(recipients.len())],
            attempt: 1 + rng.below(9) as u32,
            status,
            next_ms: rng.below(1000),
            reply: b"250 ok".to_vec(),
        };
        if status == Status::Failed && !self.tell_sender(id) {
            return;
        }
        self.outcome(id, outcome);
        if last {
            self.finish(id);
        }
    }

    /// A report goes out with a failure; says whether the log took it.
    fn tell_sender(&mut self, about: SpoolId) -> bool {
        let report = self.log.reserve_id();
        if !self.is_careless(Careless::OutcomeBeforeReport) {
            return self.report(about, report);
        }
        let batch = self.log.staged_batch();
        self.facts.reports.insert(about, report);
        self.owed.push(Owed {
            about,
            report,
            batch,
        });
        true
    }

    /// A report about `about`; says whether the log took it.
    pub(super) fn report(&mut self, about: SpoolId, id: SpoolId) -> bool {
        let envelope = Self::envelope(id.sequence);
        let content = format!("{about} could not be delivered").into_bytes();
        let Ok(accepted) = self.log.accept_report(self.now, id, &envelope, &content) else {
            return false;
        };
        self.offer(id, accepted, Mail { content, envelope });
        self.facts.staged(accepted.batch, Note::Report(id));
        self.facts.reports.insert(about, id);
        self.happened("report");
        true
    }

    fn thread(&mut self, rng: &mut Rng, _: u64) {
        let state = ThreadState {
            channel: b"smtp".to_vec(),
            host: format!("h{}", rng.below(3)).into_bytes(),
            attempt: rng.below(3) as u32,
            next_ms: rng.below(1000),
            reply: b"refused".to_vec(),
        };
        let batch = self.log.staged_batch();
        self.log.thread_state(self.now, state.clone());
        self.facts.staged(batch, Note::Thread(state));
    }

    /// A start on a full disk that finds no segment free cannot write until there is room: an operator
    /// makes some.
    pub(super) fn room_for_a_start(&mut self) {
        if self.kind.tight && self.log.stats().commits == 0 {
            self.disk.capacity_bytes(None);
            self.happened("no room behind a start");
        }
    }

    /// A few messages are delivered.
    pub(super) fn finish_some(&mut self) {
        let resting: Vec<_> = self.log.resting_keys(..).take(5).collect();
        for key in resting {
            self.log.wake(key);
        }
        for id in self.open().into_iter().take(5) {
            self.finish(id);
        }
    }
}

fn is_final(status: Status) -> bool {
    !matches!(status, Status::Deferred | Status::Held)
}
