//! A start from a checkpoint finds what a start without one finds, wherever the power was cut.

use std::collections::BTreeMap;

use crate::faults::Fault;
use crate::id::SpoolId;
use crate::jobs::Job;
use crate::layout::{CommitHeader, SegmentHeader};
use crate::log::Log;
use crate::op::FileId;
use crate::recover::{CheckpointUse, Recovered, Recovery};
use crate::sim::{Persistence, Rng, SimDisk};
use crate::types::{
    Envelope, Event, MessageKey, Outcome, Recipient, Settings, Status, ThreadState,
};

/// What is known of a message: place of its record, outcomes without replies nobody needs.
type Facts = BTreeMap<SpoolId, ((u32, u64), Vec<Outcome>)>;

fn settings(epoch: u64, fault: Option<Fault>) -> Settings {
    Settings {
        fault,
        segment_bytes: 64 << 10,
        segments_max: 12,
        batch_bytes: 16 << 10,
        staging_bytes_max: 48 << 10,
        checkpoint_bytes: 24 << 10,
        chunk_entries: 3,
        envelopes_max: 20,
        epoch,
        secret: epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        ..Settings::default()
    }
}

fn start(disk: &mut SimDisk, mut recovery: Recovery) -> (Log, Recovered) {
    while let Some(request) = recovery.poll_op() {
        disk.submit(request);
        while let Some(done) = disk.complete_one() {
            recovery.complete(done);
        }
    }
    recovery.finish().expect("a start")
}

struct Run {
    disk: SimDisk,
    log: Log,
    now: u64,
    /// Awake, with the number of recipients.
    alive: Vec<(MessageKey, u32)>,
    resting: Vec<MessageKey>,
    /// How the start began.
    begun: CheckpointUse,
    fault: Option<Fault>,
    /// Of happenings; with fewer of them nothing rests, and segments are recycled sooner.
    kinds: u64,
}

impl Run {
    fn on(mut disk: SimDisk, epoch: u64, fault: Option<Fault>) -> Self {
        let recovery = Recovery::from_checkpoint(settings(epoch, fault));
        let (log, recovered) = start(&mut disk, recovery);
        Self {
            disk,
            log,
            now: 1,
            alive: recovered
                .messages
                .iter()
                .map(|found| (found.key, found.envelope.recipients.len() as u32))
                .collect(),
            resting: Vec::new(),
            begun: recovered.report.checkpoint,
            fault,
            kinds: 14,
        }
    }

    fn step(&mut self) -> bool {
        while let Some(request) = self.log.poll_op(self.now) {
            self.disk.submit(request);
        }
        let done = self.disk.complete_one();
        let some = done.is_some();
        if let Some(done) = done {
            self.log.complete(self.now, done);
        }
        while let Some(event) = self.log.poll_event() {
            match event {
                Event::Loaded { keys } => self.resting.extend(keys),
                Event::Awake { key, result, .. } => {
                    let awake = result.expect("nothing is damaged");
                    self.alive
                        .push((key, awake.envelope.recipients.len() as u32));
                }
                _ => {}
            }
        }
        some
    }

    fn happening(&mut self, rng: &mut Rng) {
        self.now += 20_000_000;
        let some = (!self.alive.is_empty()).then(|| rng.index(self.alive.len()));
        match (rng.below(self.kinds), some) {
            (0..4, _) | (_, None) => self.accept(rng),
            (4, Some(at)) => {
                let outcome = outcome(rng, 0, Status::Deferred);
                self.log.outcome(self.now, self.alive[at].0, outcome);
            }
            (5 | 6, Some(at)) => {
                let (key, _) = self.alive.swap_remove(at);
                let outcome = outcome(rng, 0, Status::Delivered);
                self.log.outcome(self.now, key, outcome);
                self.log.done(self.now, key);
            }
            (7..10, Some(at)) => self.rest(rng, at),
            (10..13, Some(_)) => self.wake(rng),
            (_, Some(_)) => {
                let state = ThreadState {
                    channel: b"smtp".to_vec(),
                    host: vec![b'a' + rng.below(3) as u8],
                    attempt: rng.below(2) as u32,
                    next_ms: rng.below(1000),
                    reply: b"451 later".to_vec(),
                };
                self.log.thread_state(self.now, state);
            }
        }
    }

    fn accept(&mut self, rng: &mut Rng) {
        let id = self.log.reserve_id();
        let envelope = Envelope {
            recipients: vec![Recipient::default(); 1 + rng.index(3)],
            ..Envelope::default()
        };
        let content = vec![b'x'; rng.index(6000)];
        if let Ok(accepted) = self.log.accept(self.now, id, &envelope, &content) {
            self.alive
                .push((accepted.key, envelope.recipients.len() as u32));
        }
    }

    fn rest(&mut self, rng: &mut Rng, at: usize) {
        let (key, recipients) = self.alive[at];
        let hop = self.log.hop(b"smtp", &[b'a' + rng.below(3) as u8]);
        let open: Vec<_> = (0..recipients).map(|number| (number, hop)).collect();
        if self.log.rest(key, 0, key.0 % 3, &open) {
            self.alive.swap_remove(at);
            self.resting.push(key);
        }
    }

    fn wake(&mut self, rng: &mut Rng) {
        if !self.resting.is_empty() {
            let at = rng.index(self.resting.len());
            let key = self.resting.swap_remove(at);
            assert!(self.log.wake(key).is_some());
        }
    }
}

fn outcome(rng: &mut Rng, recipient: u32, status: Status) -> Outcome {
    Outcome {
        recipient,
        attempt: 1 + rng.below(9) as u32,
        status,
        next_ms: rng.below(10_000),
        reply: format!("451 4.0.{} later", rng.below(4)).into_bytes(),
    }
}

fn essential(outcomes: &[Outcome]) -> Vec<Outcome> {
    let short = |outcome: &Outcome| {
        let mut outcome = outcome.clone();
        if !matches!(outcome.status, Status::Deferred | Status::Held) {
            outcome.reply.clear();
        }
        outcome
    };
    outcomes.iter().map(short).collect()
}

fn facts(log: &Log) -> Facts {
    let awake = log.live.values().map(|live| {
        let place = match live.place {
            crate::log::Place::Disk(place) => (place.segment, place.payload),
            crate::log::Place::Staged => (u32::MAX, 0),
        };
        (live.id, (place, essential(&live.outcomes)))
    });
    let resting = log.resting.keys(..).map(|key| {
        let rest = log.resting.get(key).expect("its key is there");
        let place = (rest.segment, rest.payload.into());
        let outcomes = essential(&log.resting.outcomes(rest));
        (log.resting.id(rest).expect("an id"), (place, outcomes))
    });
    awake.chain(resting).collect()
}

fn threads(log: &Log) -> Vec<ThreadState> {
    log.threads
        .values()
        .map(|thread| thread.state.clone())
        .collect()
}

/// Segments with what is live in them.
fn live(log: &Log) -> Vec<(u32, u64, u64)> {
    let segments = log.segments.iter();
    segments
        .filter(|(_, segment)| segment.live_count > 0)
        .map(|(number, segment)| (*number, segment.live_count, segment.live_bytes))
        .collect()
}

/// Both ways of a start on what a power cut leaves.
fn compare(run: &Run, rng: &mut Rng) -> Result<SimDisk, String> {
    let mut persistence = Persistence::seeded(rng.next_u64());
    let disk = run.disk.power_cut(&mut persistence);
    let mut whole_disk = disk.power_cut(&mut Persistence::keep_all());
    let whole = Recovery::new(settings(77, run.fault));
    let (whole, _) = start(&mut whole_disk, whole);
    let copy = disk.power_cut(&mut Persistence::keep_all());
    let mut run = Run::on(copy, 77, run.fault);
    if let CheckpointUse::Unusable(why) = &run.begun {
        return Err(why.clone());
    }
    while run.log.loading.is_some() && run.step() {}
    if facts(&run.log) != facts(&whole) {
        return Err("other messages".to_owned());
    }
    if threads(&run.log) != threads(&whole) || live(&run.log) != live(&whole) {
        return Err("other next hops or segments".to_owned());
    }
    if run.log.stats.damaged != whole.stats.damaged {
        return Err("other damage".to_owned());
    }
    Ok(disk)
}

/// Some runs one after the other; says how many began with a checkpoint.
fn days(seed: u64, fault: Option<Fault>) -> Result<usize, String> {
    let mut rng = Rng::new(seed);
    let mut run = Run::on(SimDisk::new(seed), 1, fault);
    let mut spared = 0;
    for epoch in 2..8 {
        run.kinds = if seed.is_multiple_of(2) { 8 } else { 14 };
        for _ in 0..100 + rng.below(300) {
            if rng.below(3) == 0 {
                run.happening(&mut rng);
            }
            for _ in 0..rng.below(4) {
                run.step();
            }
            if rng.below(40) == 0 {
                compare(&run, &mut rng)?;
            }
        }
        let disk = compare(&run, &mut rng)?;
        run = Run::on(disk, epoch, fault);
        spared += usize::from(matches!(run.begun, CheckpointUse::From { .. }));
    }
    Ok(spared)
}

#[test]
fn a_start_from_a_checkpoint_finds_what_a_whole_one_finds() {
    let spared: usize = (0..60)
        .map(|seed| days(seed, None).unwrap_or_else(|error| panic!("seed {seed}: {error}")))
        .sum();
    assert!(spared > 180, "{spared} of 360 from a checkpoint");
}

#[test]
fn faults_of_checkpoints_are_caught() {
    for fault in [
        Fault::CheckpointUnsynced,
        Fault::CheckpointAhead,
        Fault::CheckpointSealsAll,
        Fault::CheckpointAnyTag,
        Fault::CheckpointForgetsMoved,
    ] {
        let caught = (0..600).filter(|seed| days(*seed, Some(fault)).is_err());
        assert_eq!(caught.take(2).count(), 2, "{fault:?}: seeds that notice");
    }
}

/// What follows the checkpoint has to follow the commit that it covers: a gap there is damage, as it is
/// anywhere else.
#[test]
fn a_gap_right_behind_a_checkpoint_is_damage() {
    let mut rng = Rng::new(5);
    let mut run = Run::on(SimDisk::new(5), 1, None);
    let mut behind = 0;
    while behind < 10 {
        run.accept(&mut rng);
        run.now += 200_000_000;
        while run.step() {}
        behind += u32::from(run.log.stats.checkpoints > 0);
    }
    let disk = run.disk.power_cut(&mut Persistence::drop_all());
    let started = Run::on(disk.power_cut(&mut Persistence::keep_all()), 2, None);
    let CheckpointUse::From { covered, .. } = started.begun else {
        panic!("{:?}", started.begun);
    };
    assert_eq!(started.log.stats.damaged, 0);
    let mut damaged = disk.power_cut(&mut Persistence::keep_all());
    let files: Vec<FileId> = damaged.files().collect();
    for file in files {
        let image = damaged.image(file).unwrap_or_default().to_vec();
        for (at, block) in image.chunks(4096).enumerate().skip(2) {
            let header = CommitHeader::decode(block);
            if header.is_some_and(|header| header.sequence == covered + 1) {
                damaged.poke(file, at as u64 * 4096, &[0xff]);
            }
        }
    }
    let started = Run::on(damaged, 3, None);
    assert!(matches!(started.begun, CheckpointUse::From { .. }));
    assert!(started.log.stats.damaged > 0);
}

/// A checkpoint counted as lost although all of it was there: it spoke of a segment that had been found in the
/// middle of being recycled, with nothing in it, and of whose two headers the newer one was damaged later.
#[test]
fn a_checkpoint_does_not_need_segments_that_hold_nothing() {
    let mut rng = Rng::new(3);
    let mut run = Run::on(SimDisk::new(3), 1, None);
    let half = |log: &Log| match log.job {
        Some(Job::Recycle { segment }) if log.job_requests.len() == 2 => Some(segment),
        _ => None,
    };
    let segment = (0..10_000).find_map(|_| {
        run.now += 20_000_000;
        run.accept(&mut rng);
        for (key, _) in std::mem::take(&mut run.alive) {
            run.log.done(run.now, key);
        }
        run.step();
        half(&run.log).filter(|_| run.log.job_flying.is_none())
    });
    let segment = segment.expect("segments are recycled");
    let mut run = Run::on(run.disk.power_cut(&mut Persistence::drop_all()), 2, None);
    while run.log.loading.is_some() && run.step() {}
    // It stays as it is while a checkpoint is made.
    run.log.pauses.recycle_until = u64::MAX;
    for _ in 0..20 {
        run.now += 200_000_000;
        run.accept(&mut rng);
        while run.step() {}
    }
    assert!(run.log.stats.checkpoints > 0, "a checkpoint is made");
    let mut disk = run.disk.power_cut(&mut Persistence::drop_all());
    let newer = SegmentHeader::offset(run.log.generation(segment));
    disk.poke(FileId::Segment(segment), newer + 20, &[0xff]);
    let started = Run::on(disk, 3, None);
    let used = matches!(started.begun, CheckpointUse::From { .. });
    assert!(used, "{:?}", started.begun);
    assert_eq!(started.log.stats.damaged, 0);
}

#[test]
fn a_checkpoint_keeps_which_configuration_routed_a_message() {
    let mut rng = Rng::new(5);
    let mut run = Run::on(SimDisk::new(5), 1, None);
    for _ in 0..40 {
        run.accept(&mut rng);
        run.now += 200_000_000;
        while run.step() {}
        run.rest(&mut rng, 0);
    }
    assert!(run.log.stats.checkpoints > 0, "a checkpoint is made");
    let mut run = Run::on(run.disk.power_cut(&mut Persistence::drop_all()), 2, None);
    while run.log.loading.is_some() && run.step() {}
    let mut known = 0;
    for key in &run.resting {
        let view = run.log.resting(*key).expect("it rests");
        // Of what came to rest behind the checkpoint it is not known.
        let Some(generation) = view.generation() else {
            continue;
        };
        assert_eq!(generation, key.0 % 3);
        known += 1;
    }
    assert!(known > 5, "{known} in the checkpoint");
}
