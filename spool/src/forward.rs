//! Copying forward: live messages leave the oldest segment, so that it can be recycled.
//!
//! It begins when less than half of a long log is live, so what is copied is never more than what is
//! written besides (`FORMAT.md`, *Copying forward*). One read takes neighbouring records; copies share
//! commits with mail and take half of one at most.
//!
//! A message that cannot be read stays where it is and is tried again after a while; one whose record is
//! damaged is not. The operator is told once about each. Neither keeps others from being copied.

use std::collections::VecDeque;

use crate::buffer::{ALIGN_BYTES, AlignedBuf};
use crate::faults::Fault;
use crate::jobs::Job;
use crate::layout::aligned;
use crate::log::{Live, Location, Log, Place};
use crate::op::{Completion, FileId, Op};
use crate::read::{blocks, piece_payload};
use crate::record::{self, HEADER_BYTES, Kind};
use crate::rest::Rest;
use crate::routing;
use crate::types::{Event, MessageKey};

/// Copying forward begins when the log is longer than this many segments...
const COPY_SEGMENTS_MIN: u64 = 6;

/// ... and this many times its live bytes.
const LOG_LIVE_RATIO: u64 = 2;

/// Copies fill at most one part in this of a batch that is full, and of the memory for batches.
const COPY_BATCH_SHARE: u64 = 2;

/// One read takes so much, or one larger record.
const COPY_READ_BYTES_MAX: u64 = 512 << 10;

/// While one segment is free at most, only segments are copied that are live to less than one part in this.
const SMALL_SHARE: u64 = 4;

/// When only the reserve is left: one part in this of the log has to be dead to compact it.
const DEAD_SHARE: u64 = 4;

/// A message that could not be read is tried again after this.
const COPY_RETRY_NS: u64 = 5_000_000_000;

/// Neighbouring records that one read takes.
#[derive(Debug)]
struct Run {
    keys: Vec<MessageKey>,
    /// Where the read begins and ends, in whole blocks.
    from: u64,
    end: u64,
    /// Pieces of what routing made: their message is copied alone.
    rounds: Option<Vec<Location>>,
}

impl Run {
    fn of(key: MessageKey, place: Location, rounds: &[Location]) -> Self {
        let block = ALIGN_BYTES as u64;
        Self {
            rounds: (!rounds.is_empty()).then(|| rounds.to_vec()),
            keys: vec![key],
            from: place.payload / block * block,
            end: aligned((place.payload + place.payload_len) as usize) as u64,
        }
    }

    /// Takes a record that lies behind the others, and near enough.
    fn extend(&mut self, key: MessageKey, place: Location, bytes_max: u64) -> bool {
        let end = aligned((place.payload + place.payload_len) as usize) as u64;
        let near = place.payload >= self.from && end <= self.from + bytes_max;
        if near {
            self.keys.push(key);
            self.end = self.end.max(end);
        }
        near
    }
}

impl Log {
    /// Copies without mail are worth a commit.
    pub(crate) fn copies_are_full(&self) -> bool {
        self.staging.copied_bytes() >= self.settings.batch_bytes / COPY_BATCH_SHARE
    }

    /// Bytes of copies that the batch being filled may still take: as many as it has of other records, or
    /// half of a full batch. Mail waits for no more, and copies keep up with it.
    fn copy_room(&self) -> u64 {
        let (staged, copied) = (self.staging.len() as u64, self.staging.copied_bytes());
        let half = self.settings.staging_bytes_max / COPY_BATCH_SHARE;
        if staged >= half.max(self.settings.batch_bytes) {
            return 0;
        }
        let share = self.settings.batch_bytes / COPY_BATCH_SHARE;
        share
            .max(staged.saturating_sub(copied))
            .saturating_sub(copied)
    }

    /// Starts copying messages out of the oldest segment when that is worth it.
    pub(crate) fn copy_oldest(&mut self) {
        // Copies share commits: one commit each would make the copies as sparse as what they come
        // from, and copying would never end.
        let room = self.copy_room();
        let oldest = self.order.front().copied();
        let Some(oldest) = oldest.filter(|oldest| room > 0 && self.wants_to_empty(*oldest)) else {
            return;
        };
        let Some(run) = self.next_run(oldest, room) else {
            return;
        };
        let read = |segment: u32, from: u64, end: u64| Op::Read {
            file: FileId::Segment(segment),
            offset: from,
            buf: AlignedBuf::zeroed((end - from) as usize),
        };
        let mut ops = VecDeque::from([read(oldest, run.from, run.end)]);
        let job = match run.rounds {
            Some(rounds) => {
                ops.extend(rounds.iter().map(|place| {
                    let (from, end) = blocks(*place);
                    read(place.segment, from, end)
                }));
                Job::CopyRouted {
                    key: run.keys[0],
                    rounds,
                    read: Vec::new(),
                }
            }
            None => Job::Copy {
                keys: run.keys,
                from: run.from,
            },
        };
        self.start_requests(job, ops);
    }

    /// Pieces on disk of what routing made of a message; none: a piece is not on disk yet.
    fn rounds_to_copy(&self, key: MessageKey) -> Option<&[Location]> {
        let rounds = match self.live.get(&key) {
            Some(live) => Some(&live.rounds),
            None => self.resting.rounds(key),
        };
        match rounds {
            Some(rounds) if rounds.staged > 0 => None,
            Some(rounds) => Some(&rounds.places),
            None => Some(&[]),
        }
    }

    /// Whether it is worth it to copy what is live in the oldest segment.
    pub(crate) fn wants_to_empty(&self, oldest: u32) -> bool {
        let Some(segment) = self.segments.get(&oldest) else {
            return false;
        };
        if Some(oldest) == self.active || segment.live_count == 0 || self.loading.is_some() {
            return false;
        }
        // The last free segment is for outcomes: what is copied there has to free its segment soon.
        let is_small = segment.live_bytes < self.settings.segment_bytes / SMALL_SHARE;
        let sparse = self.is_sparse() && (self.free.len() > 1 || is_small);
        self.copy_credit > 0 && (sparse || self.short())
    }

    /// Whether the log is long and more than half of it dead.
    fn is_sparse(&self) -> bool {
        let allowed = LOG_LIVE_RATIO * self.stats.live_bytes
            + COPY_SEGMENTS_MIN * self.settings.segment_bytes;
        self.in_use() > allowed
    }

    /// What is written besides copies, and what dies, lets as much be copied, at most once round the log.
    /// So copying ends, however badly records fit into segments.
    pub(crate) fn earn_copies(&mut self, bytes: u64) {
        let credit = self.copy_credit.saturating_add(bytes);
        self.copy_credit = credit.min(self.in_use());
    }

    /// Bytes of the segments that hold something.
    fn in_use(&self) -> u64 {
        self.order.len() as u64 * self.settings.segment_bytes
    }

    /// The next messages that one read can take, out of the list of what came to a segment.
    fn next_run(&mut self, oldest: u32, room: u64) -> Option<Run> {
        let segment = self.segments.get_mut(&oldest)?;
        if segment.keys.is_empty() && self.pauses.copy_until == 0 {
            segment.keys.extend(segment.unread.drain(..));
        }
        let (mut run, mut later) = (None::<Run>, Vec::new());
        while let Some(key) = self.segments.get_mut(&oldest)?.keys.pop_front() {
            let place = self.place_to_copy(key);
            let Some(place) = place.filter(|place| place.segment == oldest) else {
                continue;
            };
            let Some(rounds) = self.rounds_to_copy(key) else {
                later.push(key);
                continue;
            };
            let Some(run) = &mut run else {
                run = Some(Run::of(key, place, rounds));
                continue;
            };
            let alone = self.copy_alone > 0 || run.rounds.is_some() || !rounds.is_empty();
            if alone || !run.extend(key, place, room.min(COPY_READ_BYTES_MAX)) {
                self.segments.get_mut(&oldest)?.keys.push_front(key);
                break;
            }
        }
        self.copy_alone = self.copy_alone.saturating_sub(1);
        self.segments.get_mut(&oldest)?.unread.extend(later);
        run
    }

    /// Where the record of a message is that may be copied.
    fn place_to_copy(&self, key: MessageKey) -> Option<Location> {
        match self.live.get(&key) {
            Some(Live {
                place: Place::Disk(place),
                done: false,
                ..
            }) => Some(*place),
            Some(_) => None,
            None => self.resting.get(key).map(Rest::location),
        }
    }

    /// Whether the log has to be compacted whatever the oldest segment holds: only the reserve is
    /// left, and enough of what is in use is dead that going round once ends that.
    fn short(&self) -> bool {
        let room = self.segments.len() < self.settings.segments_max as usize;
        if room || self.free.len() > self.settings.reserve_segments as usize {
            return false;
        }
        let dead = self.in_use().saturating_sub(self.stats.live_bytes);
        let enough = if self.free.len() <= 1 {
            2
        } else {
            self.order.len() as u64 / DEAD_SHARE + 1
        };
        dead >= enough * self.settings.segment_bytes
    }

    /// Records have been read: those that are still needed are staged.
    pub(crate) fn copied(
        &mut self,
        now: u64,
        completion: &Completion,
        keys: Vec<MessageKey>,
        from: u64,
    ) {
        for key in keys {
            let Some(place) = self.place_to_copy(key) else {
                continue;
            };
            // Routed meanwhile: all of it is copied another time.
            if self
                .rounds_to_copy(key)
                .is_none_or(|rounds| !rounds.is_empty())
            {
                if let Some(segment) = self.segments.get_mut(&place.segment) {
                    segment.unread.push(key);
                }
                continue;
            }
            let at = (place.payload - from) as usize;
            let bytes = completion.buf.as_ref();
            let payload = bytes.and_then(|buf| buf.get(at..at + place.payload_len as usize));
            match payload.and_then(|payload| self.copy_of(key, payload, &[])) {
                Some((kind, payload)) => self.stage_copy(now, key, place, kind, &payload),
                None => self.damaged(key),
            }
        }
    }

    /// A message and what routing made of it have been read.
    pub(crate) fn copied_routed(
        &mut self,
        now: u64,
        key: MessageKey,
        rounds: &[Location],
        read: &[AlignedBuf],
    ) {
        let (Some(place), Some(id)) = (self.place_to_copy(key), self.id(key)) else {
            return;
        };
        if self.rounds_to_copy(key) != Some(rounds) {
            if let Some(segment) = self.segments.get_mut(&place.segment) {
                segment.unread.push(key);
            }
            return;
        }
        let copy = read.split_first().and_then(|(record, pieces)| {
            let at = (place.payload - Run::of(key, place, &[]).from) as usize;
            let payload = record.get(at..at + place.payload_len as usize)?;
            let mut routed = Vec::new();
            for (piece, place) in pieces.iter().zip(rounds) {
                let payload = piece_payload(piece, blocks(*place).0, *place, id).ok()?;
                routed.extend_from_slice(routing::body(payload));
            }
            if self.settings.faulty(Fault::CopyForgetsRounds) {
                routed.clear();
            }
            self.copy_of(key, payload, &routed)
        });
        let Some((kind, payload)) = copy else {
            return self.damaged(key);
        };
        self.stage_copy(now, key, place, kind, &payload);
        let copied = rounds.len() as u32;
        match self.live.get_mut(&key) {
            Some(live) => live.rounds.copied = copied,
            None => {
                if let Some(rounds) = self.resting.rounds_mut(key) {
                    rounds.copied = copied;
                }
            }
        }
    }

    fn stage_copy(
        &mut self,
        now: u64,
        key: MessageKey,
        place: Location,
        kind: Kind,
        payload: &[u8],
    ) {
        let spent = (HEADER_BYTES + payload.len()) as u64;
        self.copy_credit = self.copy_credit.min(self.in_use()).saturating_sub(spent);
        self.stats.bytes_copied += spent;
        self.staging.copy(now, key, kind, payload);
        if self.settings.faulty(Fault::CopyUncommitted)
            && let Some(live) = self.live.get_mut(&key)
        {
            live.place = Place::Staged;
            self.record_leaves(place, false);
        }
    }

    /// The record that a message has in a later segment; `rounds` are those that it did not have.
    fn copy_of(&self, key: MessageKey, payload: &[u8], rounds: &[u8]) -> Option<(Kind, Vec<u8>)> {
        let kept;
        let (has_file, is_routed, outcomes) = match self.live.get(&key) {
            Some(live) => (live.has_file, live.rounds.numbers > 0, &live.outcomes),
            None => {
                let rest = self.resting.get(key)?;
                kept = self.resting.outcomes(rest);
                (rest.has_file, self.resting.rounds(key).is_some(), &kept)
            }
        };
        let copy = if has_file {
            record::copy_large_payload(payload, rounds, outcomes)
        } else {
            record::copy_payload(payload, rounds, outcomes)
        };
        let kind = routing::routed_kind(has_file, is_routed);
        copy.ok().map(|copy| (kind, copy))
    }

    /// The record of a message is damaged: it cannot be copied.
    fn damaged(&mut self, key: MessageKey) {
        let (Some(id), Some(place)) = (self.id(key), self.place_to_copy(key)) else {
            return;
        };
        match self.live.get_mut(&key) {
            Some(live) => live.is_stuck = true,
            None => self.resting.mark(key).is_stuck = true,
        }
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.stuck_count += 1;
            self.mark_damaged(place.segment);
        }
        self.events.push_back(Event::Trouble(format!(
            "message {id} is damaged on disk and cannot be copied; its segment stays"
        )));
    }

    /// Records could not be read: of several each is tried alone, to find out which.
    pub(crate) fn uncopied(&mut self, now: u64, keys: Vec<MessageKey>, errno: i32) {
        let several = keys.len() > 1;
        if several {
            self.copy_alone = keys.len();
        }
        for key in keys.into_iter().rev() {
            if !several {
                self.unreadable(now, key, errno);
            } else if let Some(place) = self.place_to_copy(key)
                && let Some(segment) = self.segments.get_mut(&place.segment)
            {
                segment.keys.push_front(key);
            }
        }
    }

    /// The record of a message cannot be read.
    fn unreadable(&mut self, now: u64, key: MessageKey, errno: i32) {
        let (Some(id), Some(place)) = (self.id(key), self.place_to_copy(key)) else {
            return;
        };
        let told = match self.live.get_mut(&key) {
            Some(live) => &mut live.is_reported,
            None => &mut self.resting.mark(key).is_reported,
        };
        let told = std::mem::replace(told, true);
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.unread.push(key);
        }
        self.pauses.copy_until = now + COPY_RETRY_NS;
        if !told {
            self.events.push_back(Event::Trouble(format!(
                "message {id} cannot be read to be copied, errno {errno}; its segment stays, and it is tried again every 5 s"
            )));
        }
    }
}
