//! Segments: where a commit goes, what is left of the reserve, what is live in each.
//!
//! They are prepared ahead, filled once, and freed oldest first; the work is in `jobs`.

use std::collections::VecDeque;

use crate::buffer::ALIGN_BYTES;
use crate::faults::Fault;
use crate::jobs::Job;
use crate::layout::{COMMIT_HEADER_BYTES, DATA_START, aligned};
use crate::log::{Location, Log};
use crate::record::HEADER_BYTES;
use crate::types::MessageKey;

/// Whether there is a place for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Now,
    /// When a job has ended.
    Soon,
    /// Not before something is delivered or the disk has more room.
    Nowhere,
}

/// A segment file.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    pub(crate) generation: u64,
    /// Of the run that wrote its header.
    pub(crate) secret: u64,
    /// End of what has been written in this generation.
    pub(crate) end: u64,
    /// Commits in it that succeeded.
    pub(crate) commits: u64,
    pub(crate) live_count: u64,
    pub(crate) live_bytes: u64,
    /// Messages whose records were put here and that have not been copied, dead ones among them: what is
    /// to be copied is found without looking at every live message.
    pub(crate) keys: VecDeque<MessageKey>,
    /// Messages whose record could not be read; tried again later.
    pub(crate) unread: Vec<MessageKey>,
    /// Live messages whose record is damaged: they cannot be copied.
    pub(crate) stuck_count: u64,
    /// Something in it is damaged: it is set aside when it would be recycled.
    pub(crate) damaged: bool,
}

impl Log {
    /// Bytes of the largest payload a segment holds.
    pub(crate) fn payload_max(&self) -> u64 {
        self.settings.segment_bytes
            - DATA_START
            - (COMMIT_HEADER_BYTES + HEADER_BYTES + ALIGN_BYTES) as u64
    }

    pub(crate) fn generation(&self, segment: u32) -> u64 {
        self.segments
            .get(&segment)
            .map_or(0, |segment| segment.generation)
    }

    /// Bytes left in the active segment.
    fn room_left(&self) -> u64 {
        let active = self.active.and_then(|active| self.segments.get(&active));
        active.map_or(0, |segment| {
            self.settings.segment_bytes.saturating_sub(segment.end)
        })
    }

    /// Whether new mail of `staged` bytes will find a place that is not in the reserve.
    pub(crate) fn has_space(&self, staged: u64) -> bool {
        let length = aligned(staged as usize) as u64;
        // A write that fails goes to a fresh segment and takes the active one with it.
        let here =
            self.in_flight.is_none() && length <= self.room_left() && self.reserve_is_whole();
        here || self.free.len() > self.reserve() || self.can_grow()
    }

    pub(crate) fn reserve(&self) -> usize {
        self.settings.reserve_segments as usize
    }

    fn reserve_is_whole(&self) -> bool {
        self.free.len() >= self.reserve() || self.settings.faulty(Fault::MailTakesReserve)
    }

    /// Whether the next segment can be expected to be made.
    fn can_grow(&self) -> bool {
        self.segments.len() < self.settings.segments_max as usize && !self.making_fails
    }

    /// Whether there is a place for a commit. One that carries clients' mail leaves the reserve whole,
    /// whatever else is in it.
    pub(crate) fn room(&self, length: u64, mail: bool) -> Room {
        let fits = length <= self.room_left();
        let now = if mail && !self.settings.faulty(Fault::MailTakesReserve) {
            (fits && self.reserve_is_whole()) || self.free.len() > self.reserve()
        } else {
            fits || !self.free.is_empty()
        };
        let under_way = matches!(self.job, Some(Job::Make { .. } | Job::Recycle { .. }));
        if now {
            Room::Now
        } else if under_way || self.can_grow() {
            Room::Soon
        } else {
            Room::Nowhere
        }
    }

    /// A place for a commit; switches to a fresh segment where the active one has no room.
    pub(crate) fn space_for(&mut self, length: u64) -> Option<(u32, u64)> {
        let fits = self.active.filter(|active| {
            self.segments
                .get(active)
                .is_some_and(|segment| segment.end + length <= self.settings.segment_bytes)
        });
        let number = match fits {
            Some(active) => active,
            None => {
                let fresh = self.free.pop_front()?;
                let full = self.active.replace(fresh);
                if let Some(full) = full.and_then(|full| self.segments.get_mut(&full)) {
                    full.keys.shrink_to_fit();
                }
                self.order.push_back(fresh);
                fresh
            }
        };
        let back = self.settings.faulty(Fault::OverwriteBlock);
        let segment = self.segments.get_mut(&number)?;
        if back && segment.end > DATA_START {
            segment.end -= ALIGN_BYTES as u64;
        }
        let offset = segment.end;
        segment.end += length;
        Some((number, offset))
    }

    /// No commit goes to this segment any more in this run.
    pub(crate) fn close_segment(&mut self, number: u32) {
        if self.active == Some(number) {
            self.active = None;
        }
    }

    /// Something in this segment is not what was written: its bytes stay.
    pub(crate) fn mark_damaged(&mut self, number: u32) {
        if let Some(segment) = self.segments.get_mut(&number)
            && !std::mem::replace(&mut segment.damaged, true)
        {
            self.stats.damaged += 1;
        }
    }

    /// A live message's record is at `place` from now on.
    pub(crate) fn record_arrives(&mut self, key: MessageKey, place: Location) {
        let Some(segment) = self.segments.get_mut(&place.segment) else {
            return;
        };
        segment.keys.push_back(key);
        segment.live_count += 1;
        segment.live_bytes += place.payload_len;
        self.stats.live_bytes += place.payload_len;
    }

    /// A record of a message that has another one is at `place`: its segment is not freed before that of the other.
    pub(crate) fn bytes_arrive(&mut self, place: Location) {
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.live_bytes += place.payload_len;
            self.stats.live_bytes += place.payload_len;
        }
    }

    /// It is not needed any more.
    pub(crate) fn bytes_leave(&mut self, place: Location) {
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            let bytes = place.payload_len.min(segment.live_bytes);
            segment.live_bytes -= bytes;
            self.stats.live_bytes -= bytes;
        }
    }

    /// The record at `place` is dead.
    pub(crate) fn record_leaves(&mut self, place: Location, stuck: bool) {
        let Some(segment) = self.segments.get_mut(&place.segment) else {
            return;
        };
        segment.live_count -= 1;
        segment.live_bytes -= place.payload_len;
        segment.stuck_count -= u64::from(stuck);
        self.stats.live_bytes -= place.payload_len;
    }
}
