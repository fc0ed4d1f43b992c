//! Background jobs, one at a time: making a segment, recycling an empty one, copying live messages out
//! of the oldest one.
//!
//! A job that fails is tried again after a while; it keeps no other kind of job from running.

use std::collections::VecDeque;

use crate::buffer::{ALIGN_BYTES, AlignedBuf};
use crate::faults::Fault;
use crate::layout::{DATA_START, SegmentHeader};
use crate::log::{Location, Log};
use crate::op::{Completion, FileId, Op, Request, Token};
use crate::segments::Segment;
use crate::types::{Event, MessageKey, ThreadState};

/// Bytes of zeroes written at a time.
const ZEROES_BYTES: u64 = 1 << 20;

/// A job that failed is tried again after this.
const JOB_RETRY_NS: u64 = 5_000_000_000;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// The background job.
#[derive(Debug)]
pub(crate) enum Job {
    /// A new file is being made; its header is in the requests.
    Make { segment: u32 },
    /// The file of a failed [`Self::Make`] is being removed.
    Remove,
    /// The header of an empty segment is being written.
    Recycle { segment: u32 },
    /// The header of a damaged segment is being written, in which nothing is needed.
    SetAside { segment: u32 },
    /// Records of messages are being read, from this offset on, to be copied.
    Copy { keys: Vec<MessageKey>, from: u64 },
    /// Likewise one message, with the pieces of what routing made of it: buffers in their order.
    CopyRouted {
        key: MessageKey,
        rounds: Vec<Location>,
        read: Vec<AlignedBuf>,
    },
}

/// Times before which a kind of job that failed is not tried again; 0: at once.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    make_until: u64,
    pub(crate) recycle_until: u64,
    /// For the messages that could not be read.
    pub(crate) copy_until: u64,
}

impl Pauses {
    fn all(&mut self) -> [&mut u64; 3] {
        [
            &mut self.make_until,
            &mut self.recycle_until,
            &mut self.copy_until,
        ]
    }

    fn end(&mut self, now: u64) {
        for until in self.all() {
            if *until <= now {
                *until = 0;
            }
        }
    }
}

/// A request of a job that has not begun.
#[derive(Debug)]
pub(crate) struct Planned {
    token: Token,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Op(Op),
    /// Zeroes are made when it is their turn: those of a whole segment would be as much memory.
    Zeroes {
        file: FileId,
        offset: u64,
        len: u64,
    },
}

impl Planned {
    fn request(self) -> Request {
        let op = match self.step {
            Step::Op(op) => op,
            Step::Zeroes { file, offset, len } => Op::Write {
                file,
                offset,
                buf: AlignedBuf::zeroed(len as usize),
                durable: false,
            },
        };
        Request {
            token: self.token,
            op,
        }
    }
}

impl Log {
    pub(crate) fn job_deadline(&self) -> Option<u64> {
        let Pauses {
            make_until,
            recycle_until,
            copy_until,
        } = self.pauses;
        [make_until, recycle_until, copy_until]
            .into_iter()
            .filter(|until| *until > 0)
            .min()
    }

    pub(crate) fn poll_job(&mut self, now: u64) -> Option<Request> {
        self.pauses.end(now);
        if self.job.is_none() {
            self.start_job(now);
        }
        // The requests of a job run one after the other.
        if self.job_flying.is_some() {
            return None;
        }
        let request = self.job_requests.pop_front()?.request();
        self.job_flying = Some(request.token);
        self.job_names = matches!(request.op, Op::SyncDir);
        self.job_bytes = match &request.op {
            Op::Write { buf, .. } => buf.len() as u64,
            _ => 0,
        };
        Some(request)
    }

    /// What gives a place for the next commit comes first.
    fn start_job(&mut self, now: u64) {
        if self.pauses.recycle_until == 0 && self.recycle_oldest(now) {
            return;
        }
        if self.pauses.make_until == 0 && self.needs_segment() {
            self.make_segment();
            return;
        }
        self.copy_oldest();
    }

    fn needs_segment(&self) -> bool {
        let mut limit = self.settings.segments_max as usize;
        if self.free.is_empty() {
            // Write errors have used up the reserve, and new mail is refused: without a place for
            // done records and copies nothing would ever be freed.
            limit *= 2;
        }
        self.free.len() <= self.reserve() && self.segments.len() < limit
    }

    fn make_segment(&mut self) {
        let segment = self.segment_next;
        self.segment_next += 1;
        let file = FileId::Segment(segment);
        let mut ops = VecDeque::from([Step::Op(Op::Create { file })]);
        let mut offset = DATA_START;
        while offset < self.settings.segment_bytes {
            let len = ZEROES_BYTES.min(self.settings.segment_bytes - offset);
            ops.push_back(Step::Zeroes { file, offset, len });
            offset += len;
        }
        let header = self.header(segment, 1).encode();
        ops.push_back(Step::Op(header_write(segment, 1, &header, false)));
        if !self.settings.faulty(Fault::OneHeader) {
            ops.push_back(Step::Op(header_write(segment, 0, &header, false)));
        }
        ops.push_back(Step::Op(Op::SyncFile { file }));
        if !self.settings.faulty(Fault::SkipDirSync) {
            ops.push_back(Step::Op(Op::SyncDir));
        }
        self.start_steps(Job::Make { segment }, ops);
    }

    fn header(&self, segment: u32, generation: u64) -> SegmentHeader {
        SegmentHeader {
            shard: self.settings.shard,
            segment,
            generation,
            secret: self.settings.secret,
        }
    }

    pub(crate) fn start_requests(&mut self, job: Job, ops: VecDeque<Op>) {
        self.start_steps(job, ops.into_iter().map(Step::Op).collect());
    }

    fn start_steps(&mut self, job: Job, steps: VecDeque<Step>) {
        for step in steps {
            let token = self.token();
            self.job_requests.push_back(Planned { token, step });
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
        let writing = self.in_flight.as_ref();
        if Some(oldest) == self.active || writing.is_some_and(|commit| commit.writes_to(oldest)) {
            return false;
        }
        let Some(segment) = self.segments.get(&oldest) else {
            return false;
        };
        if self.loading.is_some() && segment.commits > 0 {
            // What is live in it is not known yet.
            return false;
        }
        let (damaged, generation) = (segment.damaged, self.next_generation(oldest));
        // What is stuck does not count at the next start, whether its segment is set aside or not.
        let stuck = damaged && segment.live_count == segment.stuck_count;
        let dead = segment.live_count == 0
            || self.settings.faulty(Fault::FreeLive)
            || (stuck && self.wants_to_empty(oldest));
        if !dead || self.reads_from(oldest) {
            return false;
        }
        if !self.settings.faulty(Fault::ForgetThreads) && self.keep_threads(now, oldest) {
            return false;
        }
        if damaged {
            self.set_aside(oldest, generation);
        } else {
            self.recycle(oldest, generation);
        }
        true
    }

    fn next_generation(&self, segment: u32) -> u64 {
        let reused = self.settings.faulty(Fault::ReuseGeneration);
        self.generation(segment) + u64::from(!reused)
    }

    /// The new header goes to one block, then to the other: at any time one of them is whole. Then the
    /// first commit of the generation before is cleared: it tells whose commits count when both headers
    /// are damaged. Each is on disk before the next is begun.
    fn recycle(&mut self, segment: u32, generation: u64) {
        let durable = !self.settings.faulty(Fault::RecycleUnsynced);
        let header = self.header(segment, generation).encode();
        let mut ops = VecDeque::from([header_write(segment, generation, &header, durable)]);
        if !self.settings.faulty(Fault::OneHeader) {
            ops.push_back(header_write(segment, generation + 1, &header, durable));
        }
        if !self.settings.faulty(Fault::KeepFirstCommit) {
            ops.push_back(Op::Write {
                file: FileId::Segment(segment),
                offset: DATA_START,
                buf: AlignedBuf::zeroed(ALIGN_BYTES),
                durable,
            });
        }
        self.start_requests(Job::Recycle { segment }, ops);
    }

    /// The header says from now on that nothing in the segment counts; the rest stays as it is.
    fn set_aside(&mut self, segment: u32, generation: u64) {
        let header = self.header(segment, generation).encode_aside();
        let ops =
            [generation, generation + 1].map(|slot| header_write(segment, slot, &header, true));
        self.start_requests(Job::SetAside { segment }, VecDeque::from(ops));
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
            empty(number) && segment.is_some_and(|segment| segment.commits == 0 && !segment.damaged)
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

    pub(crate) fn job_done(&mut self, now: u64, mut completion: Completion) {
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
        // What a full disk leaves out of a header or of zeroes may be what is needed.
        if completion.result.is_ok_and(|bytes| bytes < self.job_bytes) {
            self.job_failed(now, ENOSPC);
            return;
        }
        if self.job_spoilt && matches!(self.job, Some(Job::Make { .. })) {
            self.job_failed(now, EIO);
            return;
        }
        if let Some(Job::CopyRouted { read, .. }) = &mut self.job {
            read.extend(completion.buf.take());
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
                let generation = self.next_generation(segment);
                self.order.retain(|number| *number != segment);
                self.stats.flushes += 3;
                self.made(segment, generation);
            }
            Some(Job::SetAside { segment }) => self.is_aside(segment),
            Some(Job::Copy { keys, from }) => self.copied(now, &completion, keys, from),
            Some(Job::CopyRouted { key, rounds, read }) => {
                self.copied_routed(now, key, &rounds, &read);
            }
            Some(Job::Remove) | None => {}
        }
    }

    /// Messages that are stuck in it stay in memory: they may be reported or expire.
    fn is_aside(&mut self, number: u32) {
        self.stats.flushes += 2;
        self.order.retain(|other| *other != number);
        if let Some(segment) = self.segments.remove(&number) {
            self.stats.live_bytes -= segment.live_bytes;
        }
        self.events.push_back(Event::Trouble(format!(
            "segment {number} is damaged and was set aside; nothing is written to it any more"
        )));
    }

    fn made(&mut self, number: u32, generation: u64) {
        let segment = Segment {
            generation,
            secret: self.settings.secret,
            end: DATA_START,
            ..Segment::default()
        };
        self.segments.insert(number, segment);
        self.free.push_back(number);
    }

    fn job_failed(&mut self, now: u64, errno: i32) {
        let failed = self.job.take();
        self.job_requests.clear();
        match failed {
            Some(Job::Make { segment }) => {
                self.events.push_back(Event::Trouble(format!(
                    "segment {segment} cannot be made, errno {errno}; tried again in 5 s"
                )));
                self.making_fails = true;
                if self.free.is_empty() {
                    self.drop_checkpoints(now);
                }
                self.pauses.make_until = now + JOB_RETRY_NS;
                // What there is of it must not keep space on a full disk; a start removes it otherwise.
                let file = FileId::Segment(segment);
                self.start_requests(Job::Remove, VecDeque::from([Op::Remove { file }]));
            }
            Some(Job::Recycle { .. } | Job::SetAside { .. }) => {
                self.pauses.recycle_until = now + JOB_RETRY_NS
            }
            Some(Job::Copy { keys, .. }) => self.uncopied(now, keys, errno),
            Some(Job::CopyRouted { key, .. }) => self.uncopied(now, vec![key], errno),
            Some(Job::Remove) | None => {}
        }
    }
}

/// Writes a header to the block of even or odd generations.
fn header_write(segment: u32, slot: u64, header: &[u8], durable: bool) -> Op {
    let mut buf = AlignedBuf::zeroed(ALIGN_BYTES);
    buf.copy_from_slice(header);
    Op::Write {
        file: FileId::Segment(segment),
        offset: SegmentHeader::offset(slot),
        buf,
        durable,
    }
}
