//! Segments: prepared ahead, filled once, freed oldest first, recycled.
//!
//! One background job runs at a time: making a new segment, recycling an empty one, or copying a
//! live message out of the oldest one.

use std::collections::VecDeque;

use crate::buffer::{ALIGN_BYTES, AlignedBuf};
use crate::faults::Fault;
use crate::layout::COMMIT_HEADER_BYTES;
use crate::layout::{DATA_START, SegmentHeader, aligned};
use crate::log::{Live, Log, Place};
use crate::op::{Completion, FileId, Op, Request};
use crate::record::{self, HEADER_BYTES, Kind};
use crate::types::{Event, MessageKey, ThreadState};

/// Bytes of zeroes written at a time.
const ZEROES_BYTES: u64 = 1 << 20;

/// After a job failed, the next is started after this.
const JOB_RETRY_NS: u64 = 5_000_000_000;

/// Copying forward begins when more segments than this are in use...
const COPY_SEGMENTS_MIN: usize = 6;

/// ... and the oldest is live to less than one part in this.
const COPY_LIVE_SHARE: u64 = 4;

/// When only the reserve is left: one part in this of the log has to be dead to compact it.
const DEAD_SHARE: u64 = 4;

const EIO: i32 = 5;

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
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) generation: u64,
    /// End of what has been written in this generation.
    pub(crate) end: u64,
    /// Commits in it that succeeded.
    pub(crate) commits: u64,
    pub(crate) live_count: u64,
    pub(crate) live_bytes: u64,
}

/// The background job.
#[derive(Debug)]
pub(crate) enum Job {
    /// A new file is being made; its header is in the requests.
    Make { segment: u32 },
    /// The file of a failed [`Self::Make`] is being removed.
    Remove,
    /// The header of an empty segment is being written.
    Recycle { segment: u32 },
    /// A message's record is being read to be copied.
    Copy { key: MessageKey },
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
    fn rest(&self) -> u64 {
        let active = self.active.and_then(|active| self.segments.get(&active));
        active.map_or(0, |segment| {
            self.settings.segment_bytes.saturating_sub(segment.end)
        })
    }

    /// Whether new mail of `staged` bytes will find a place that is not in the reserve.
    pub(crate) fn has_space(&self, staged: u64) -> bool {
        let length = aligned(staged as usize) as u64;
        // A write that fails goes to a fresh segment and takes the active one with it.
        let here = self.in_flight.is_none() && length <= self.rest() && self.reserve_is_whole();
        here || self.free.len() > self.reserve() || self.can_grow()
    }

    fn reserve(&self) -> usize {
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
        let fits = length <= self.rest();
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
                self.active = Some(fresh);
                self.order.push_back(fresh);
                fresh
            }
        };
        let segment = self.segments.get_mut(&number)?;
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

    pub(crate) fn count_live(&mut self, segment: u32, bytes: u64, more: bool) {
        let Some(segment) = self.segments.get_mut(&segment) else {
            return;
        };
        if more {
            segment.live_count += 1;
            segment.live_bytes += bytes;
            self.stats.live_bytes += bytes;
        } else {
            segment.live_count -= 1;
            segment.live_bytes -= bytes;
            self.stats.live_bytes -= bytes;
        }
    }

    pub(crate) fn job_deadline(&self) -> Option<u64> {
        (self.job_failed_until > 0).then_some(self.job_failed_until)
    }

    pub(crate) fn poll_job(&mut self, now: u64) -> Option<Request> {
        if self.job.is_none() {
            if self.job_failed_until > now {
                return None;
            }
            self.job_failed_until = 0;
            self.start_job(now);
        }
        // The requests of a job run one after the other.
        if self.job_flying.is_some() {
            return None;
        }
        let request = self.job_requests.pop_front()?;
        self.job_flying = Some(request.token);
        self.job_names = matches!(request.op, Op::SyncDir);
        Some(request)
    }

    fn start_job(&mut self, now: u64) {
        if self.recycle_oldest(now) {
            return;
        }
        let reserve = self.settings.reserve_segments as usize;
        let mut limit = self.settings.segments_max as usize;
        if self.free.is_empty() {
            // Write errors have used up the reserve, and new mail is refused: without a place for
            // done records and copies nothing would ever be freed.
            limit *= 2;
        }
        if self.free.len() <= reserve && self.segments.len() < limit {
            self.make_segment();
        }
    }

    fn make_segment(&mut self) {
        let segment = self.segment_next;
        self.segment_next += 1;
        let file = FileId::Segment(segment);
        let mut ops = VecDeque::from([Op::Create { file }]);
        let mut offset = DATA_START;
        while offset < self.settings.segment_bytes {
            let len = ZEROES_BYTES.min(self.settings.segment_bytes - offset);
            let buf = AlignedBuf::zeroed(len as usize);
            ops.push_back(Op::Write {
                file,
                offset,
                buf,
                durable: false,
            });
            offset += len;
        }
        ops.push_back(self.header_write(segment, 1, false));
        ops.push_back(Op::SyncFile { file });
        if !self.settings.faulty(Fault::SkipDirSync) {
            ops.push_back(Op::SyncDir);
        }
        self.start_requests(Job::Make { segment }, ops);
    }

    fn header_write(&self, segment: u32, generation: u64, durable: bool) -> Op {
        let header = SegmentHeader {
            shard: self.settings.shard,
            segment,
            generation,
            secret: self.settings.secret,
        };
        let mut buf = AlignedBuf::zeroed(ALIGN_BYTES);
        buf.copy_from_slice(&header.encode());
        let offset = SegmentHeader::offset(generation);
        Op::Write {
            file: FileId::Segment(segment),
            offset,
            buf,
            durable,
        }
    }

    fn start_requests(&mut self, job: Job, ops: VecDeque<Op>) {
        for op in ops {
            let token = self.token();
            self.job_requests.push_back(Request { token, op });
        }
        self.job = Some(job);
        self.job_spoilt = false;
    }

    /// The oldest segment goes back when nothing in it is needed. Oldest first is what makes that
    /// a local question: whatever its outcome and done records speak of was in it or in segments
    /// that have been freed durably before.
    fn recycle_oldest(&mut self, now: u64) -> bool {
        let Some(oldest) = self.next_to_free() else {
            return false;
        };
        if Some(oldest) == self.active {
            return false;
        }
        if self
            .in_flight
            .as_ref()
            .is_some_and(|commit| commit.writes_to(oldest))
        {
            return false;
        }
        let live = self
            .segments
            .get(&oldest)
            .map_or(0, |segment| segment.live_count);
        if live > 0 {
            return self.copy_oldest(oldest);
        }
        if self.reads_from(oldest) {
            return false;
        }
        if !self.settings.faulty(Fault::ForgetThreads) && self.keep_threads(now, oldest) {
            return false;
        }
        let generation = self.generation(oldest) + 1;
        let durable = !self.settings.faulty(Fault::RecycleUnsynced);
        let op = self.header_write(oldest, generation, durable);
        self.start_requests(Job::Recycle { segment: oldest }, VecDeque::from([op]));
        true
    }

    fn next_to_free(&self) -> Option<u32> {
        let empty = |number: &&u32| {
            let segment = self.segments.get(number);
            Some(**number) != self.active && segment.is_some_and(|segment| segment.live_count == 0)
        };
        let mut order = self.order.iter();
        if self.settings.faulty(Fault::FreeNeeded) {
            return order.find(empty).copied();
        }
        // Closed by a write error before anything got into it: nothing in it is needed, and when
        // there is no other place it is tried again.
        let wasted = |number: &&u32| {
            let segment = self.segments.get(number);
            empty(number) && segment.is_some_and(|segment| segment.commits == 0)
        };
        let again = self.free.is_empty().then(|| order.clone().find(wasted));
        again.flatten().or_else(|| order.next()).copied()
    }

    /// States of next hops that only this segment records are written again first.
    fn keep_threads(&mut self, now: u64, oldest: u32) -> bool {
        let stale: Vec<ThreadState> = self
            .threads
            .values()
            .filter(|thread| thread.segment == Some(oldest))
            .map(|thread| thread.state.clone())
            .collect();
        let waiting = self.threads.values().any(|thread| thread.segment.is_none());
        for state in &stale {
            self.thread_state(now, state.clone());
        }
        !stale.is_empty() || waiting
    }

    /// Starts copying one message out of the oldest segment when that is worth it.
    fn copy_oldest(&mut self, oldest: u32) -> bool {
        let Some(segment) = self.segments.get(&oldest) else {
            return false;
        };
        let sparse = segment.live_bytes < self.settings.segment_bytes / COPY_LIVE_SHARE;
        let wanted = (sparse && self.order.len() > COPY_SEGMENTS_MIN) || self.short();
        // Copies share commits: one commit each would make the copies as sparse as what they come
        // from, and copying would never end.
        let full = self.staging.len() as u64 >= self.settings.batch_bytes;
        if !wanted || full {
            return false;
        }
        let found = self.live.iter().find_map(|(key, live)| match live.place {
            Place::Disk(place) if place.segment == oldest && !live.copied && !live.done => {
                Some((*key, place))
            }
            _ => None,
        });
        let Some((key, place)) = found else {
            return false;
        };
        let from = place.payload / ALIGN_BYTES as u64 * ALIGN_BYTES as u64;
        let len = aligned((place.payload + place.payload_len - from) as usize);
        let file = FileId::Segment(oldest);
        let op = Op::Read {
            file,
            offset: from,
            buf: AlignedBuf::zeroed(len),
        };
        self.start_requests(Job::Copy { key }, VecDeque::from([op]));
        true
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

    pub(crate) fn job_done(&mut self, now: u64, completion: &Completion) {
        if self.job_flying != Some(completion.token) {
            return;
        }
        self.job_flying = None;
        if let Err(errno) = completion.result {
            if self.job_names {
                self.names_lost(errno);
            }
            self.job_failed(now, errno);
            return;
        }
        if self.job_spoilt && matches!(self.job, Some(Job::Make { .. })) {
            self.job_failed(now, EIO);
            return;
        }
        if !self.job_requests.is_empty() {
            return;
        }
        match self.job.take() {
            Some(Job::Make { segment }) => {
                self.making_fails = false;
                self.made(segment, 1);
            }
            Some(Job::Recycle { segment }) => {
                let generation = self.generation(segment) + 1;
                self.order.retain(|number| *number != segment);
                self.stats.flushes += 1;
                self.made(segment, generation);
            }
            Some(Job::Copy { key }) => self.copied(now, key, completion),
            Some(Job::Remove) | None => {}
        }
    }

    fn made(&mut self, number: u32, generation: u64) {
        let segment = Segment {
            generation,
            end: DATA_START,
            commits: 0,
            live_count: 0,
            live_bytes: 0,
        };
        self.segments.insert(number, segment);
        self.free.push_back(number);
    }

    fn copied(&mut self, now: u64, key: MessageKey, completion: &Completion) {
        let Some(Live {
            place: Place::Disk(place),
            done: false,
            ..
        }) = self.live.get(&key)
        else {
            return;
        };
        let Some(buf) = &completion.buf else { return };
        let at = (place.payload % ALIGN_BYTES as u64) as usize;
        let Some(payload) = buf.get(at..at + place.payload_len as usize) else {
            return;
        };
        let outcomes = self
            .live
            .get(&key)
            .map(|live| live.outcomes.clone())
            .unwrap_or_default();
        let has_file = self.live.get(&key).is_some_and(|live| live.has_file);
        let (kind, copy) = if has_file {
            (Kind::Large, record::copy_large_payload(payload, &outcomes))
        } else {
            (Kind::CopyForward, record::copy_payload(payload, &outcomes))
        };
        let Ok(copy) = copy else {
            let id = self.id(key).map(|id| id.to_string()).unwrap_or_default();
            self.events.push_back(Event::Trouble(format!(
                "message {id} is damaged on disk and cannot be copied; its segment stays"
            )));
            self.job_failed_until = now + JOB_RETRY_NS;
            return;
        };
        self.staging.copy(now, key, kind, &copy);
        if let Some(live) = self.live.get_mut(&key) {
            live.copied = true;
        }
    }

    fn job_failed(&mut self, now: u64, errno: i32) {
        if let Some(Job::Make { segment }) = &self.job {
            self.making_fails = true;
            self.events.push_back(Event::Trouble(format!(
                "segment {segment} cannot be made, errno {errno}; tried again in 5 s"
            )));
        }
        let failed = self.job.take();
        self.job_requests.clear();
        self.job_failed_until = now + JOB_RETRY_NS;
        if let Some(Job::Make { segment }) = failed {
            // What there is of it must not keep space on a full disk; a start removes it otherwise.
            let file = FileId::Segment(segment);
            self.start_requests(Job::Remove, VecDeque::from([Op::Remove { file }]));
        }
    }
}
