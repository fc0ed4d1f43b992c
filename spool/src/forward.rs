//! Copying forward: live messages leave the oldest segment, so that it can be recycled.
//!
//! A message that cannot be read stays where it is and is tried again after a while; one whose record is
//! damaged is not. The operator is told once about each. Neither keeps others from being copied.

use std::collections::VecDeque;

use crate::buffer::{ALIGN_BYTES, AlignedBuf};
use crate::jobs::Job;
use crate::layout::aligned;
use crate::log::{Live, Location, Log, Place};
use crate::op::{Completion, FileId, Op};
use crate::record::{self, Kind};
use crate::rest::Rest;
use crate::types::{Event, MessageKey};

/// Copying forward begins when more segments than this are in use...
const COPY_SEGMENTS_MIN: usize = 6;

/// ... and the oldest is live to less than one part in this.
const COPY_LIVE_SHARE: u64 = 4;

/// When only the reserve is left: one part in this of the log has to be dead to compact it.
const DEAD_SHARE: u64 = 4;

/// A message that could not be read is tried again after this.
const COPY_RETRY_NS: u64 = 5_000_000_000;

impl Log {
    /// Starts copying one message out of the oldest segment when that is worth it.
    pub(crate) fn copy_oldest(&mut self) {
        // Copies share commits: one commit each would make the copies as sparse as what they come
        // from, and copying would never end.
        let full = self.staging.len() as u64 >= self.settings.batch_bytes;
        let oldest = self.order.front().copied();
        let Some(oldest) = oldest.filter(|oldest| !full && self.wants_to_empty(*oldest)) else {
            return;
        };
        let Some((key, place)) = self.next_to_copy(oldest) else {
            return;
        };
        let from = place.payload / ALIGN_BYTES as u64 * ALIGN_BYTES as u64;
        let len = aligned((place.payload + place.payload_len - from) as usize);
        let op = Op::Read {
            file: FileId::Segment(oldest),
            offset: from,
            buf: AlignedBuf::zeroed(len),
        };
        self.start_requests(Job::Copy { key }, VecDeque::from([op]));
    }

    /// Whether it is worth it to copy what is live in the oldest segment.
    pub(crate) fn wants_to_empty(&self, oldest: u32) -> bool {
        let Some(segment) = self.segments.get(&oldest) else {
            return false;
        };
        if Some(oldest) == self.active || segment.live_count == 0 || self.loading.is_some() {
            return false;
        }
        let sparse = segment.live_bytes < self.settings.segment_bytes / COPY_LIVE_SHARE;
        (sparse && self.order.len() > COPY_SEGMENTS_MIN) || self.short()
    }

    /// Takes the next message out of the list of what came to a segment.
    fn next_to_copy(&mut self, oldest: u32) -> Option<(MessageKey, Location)> {
        let segment = self.segments.get_mut(&oldest)?;
        if segment.keys.is_empty() && self.pauses.copy_until == 0 {
            segment.keys.extend(segment.unread.drain(..));
        }
        while let Some(key) = self.segments.get_mut(&oldest)?.keys.pop_front() {
            let place = self.place_to_copy(key);
            if let Some(place) = place.filter(|place| place.segment == oldest) {
                return Some((key, place));
            }
        }
        None
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
        let in_use = self.order.len() as u64;
        let dead = (in_use * self.settings.segment_bytes).saturating_sub(self.stats.live_bytes);
        let enough = if self.free.len() <= 1 {
            2
        } else {
            in_use / DEAD_SHARE + 1
        };
        dead >= enough * self.settings.segment_bytes
    }

    pub(crate) fn copied(&mut self, now: u64, completion: &Completion, key: MessageKey) {
        let Some(place) = self.place_to_copy(key) else {
            return;
        };
        let at = (place.payload % ALIGN_BYTES as u64) as usize;
        let read = completion
            .buf
            .as_ref()
            .filter(|_| completion.result.is_ok());
        let payload = read.and_then(|buf| buf.get(at..at + place.payload_len as usize));
        let copy = payload.and_then(|payload| self.copy_of(key, payload));
        match copy {
            Some((kind, payload)) => self.staging.copy(now, key, kind, &payload),
            None => self.damaged(key),
        }
    }

    /// The record that a message has in a later segment.
    fn copy_of(&self, key: MessageKey, payload: &[u8]) -> Option<(Kind, Vec<u8>)> {
        let kept;
        let (has_file, outcomes) = match self.live.get(&key) {
            Some(live) => (live.has_file, &live.outcomes),
            None => {
                let rest = self.resting.get(key)?;
                kept = self.resting.outcomes(rest);
                (rest.has_file, &kept)
            }
        };
        let (kind, copy) = if has_file {
            let copy = record::copy_large_payload(payload, outcomes);
            (Kind::Large, copy)
        } else {
            let copy = record::copy_payload(payload, outcomes);
            (Kind::CopyForward, copy)
        };
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

    /// The record of a message cannot be read.
    pub(crate) fn unreadable(&mut self, now: u64, key: MessageKey, errno: i32) {
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
