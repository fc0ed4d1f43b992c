//! Power cuts after every operation of a scripted day; an oracle compares what recovery finds.

use std::collections::{BTreeMap, HashMap, HashSet};

use spool::op::Token;
use spool::sim::{Fault, Persistence, Rng, SimDisk};
use spool::*;

/// The day's script, its disk and what the oracle knows.
struct Day {
    disk: SimDisk,
    log: Log,
    now: u64,
    /// Staged messages by batch.
    staged: Vec<(u64, MessageKey, SpoolId, Vec<u8>, Envelope)>,
    acknowledged: BTreeMap<SpoolId, (Vec<u8>, Envelope)>,
    keys: HashMap<SpoolId, MessageKey>,
    /// Everything ever offered, for "wholly there or absent".
    offered: BTreeMap<SpoolId, (Vec<u8>, Envelope)>,
    /// Done records that have been handed over and those known to be on disk.
    done_staged: Vec<SpoolId>,
    done_synced: HashSet<SpoolId>,
    failed: HashSet<SpoolId>,
}

fn settings(epoch: u64) -> Settings {
    Settings {
        segment_bytes: 64 << 10,
        segments_max: 12,
        reserve_segments: 1,
        epoch,
        ..Settings::default()
    }
}

fn recover(disk: &mut SimDisk, epoch: u64) -> Result<(Log, Recovered), RecoverError> {
    let mut recovery = Recovery::new(settings(epoch));
    while let Some(request) = recovery.poll_op() {
        disk.submit(request);
        while let Some(done) = disk.complete_one() {
            recovery.complete(done);
        }
    }
    assert!(recovery.is_finished());
    recovery.finish()
}

fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

impl Day {
    fn start(seed: u64) -> Self {
        let mut disk = SimDisk::new(seed);
        let (log, _) = recover(&mut disk, 7).expect("an empty directory is a start");
        Self {
            disk,
            log,
            now: 1,
            staged: Vec::new(),
            acknowledged: BTreeMap::new(),
            keys: HashMap::new(),
            offered: BTreeMap::new(),
            done_staged: Vec::new(),
            done_synced: HashSet::new(),
            failed: HashSet::new(),
        }
    }

    /// One operation of the disk; says whether there was one.
    fn step(&mut self) -> bool {
        self.now += 1_000;
        while let Some(request) = self.log.poll_op(self.now) {
            self.disk.submit(request);
        }
        let done = self.disk.complete_one();
        let some = done.is_some();
        if let Some(done) = done {
            self.log.complete(self.now, done);
        }
        while let Some(event) = self.log.poll_event() {
            self.event(event);
        }
        some
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Committed { batch } => {
                for (of, key, id, content, envelope) in std::mem::take(&mut self.staged) {
                    if of <= batch {
                        self.keys.insert(id, key);
                        self.acknowledged.insert(id, (content, envelope));
                    } else {
                        self.staged.push((of, key, id, content, envelope));
                    }
                }
            }
            Event::Failed { batch } => {
                for (of, key, id, content, envelope) in std::mem::take(&mut self.staged) {
                    if of <= batch {
                        self.failed.insert(id);
                    } else {
                        self.staged.push((of, key, id, content, envelope));
                    }
                }
            }
            Event::Content { key, content, .. } => {
                let id = self.log.id(key);
                if let (Some(id), Ok(content)) = (id, content) {
                    assert_eq!(content, self.acknowledged[&id].0, "read back");
                }
            }
            Event::Accepting(_) | Event::Trouble(_) => {}
        }
        if self.log.idle() {
            self.done_synced.extend(self.done_staged.drain(..));
        }
    }

    fn accept(&mut self, number: u64, len: usize) {
        let id = self.log.reserve_id();
        let content = content(number + 1, len);
        let envelope = Envelope {
            sender: format!("s{number}@a.example").into_bytes(),
            recipients: vec![
                Recipient {
                    address: format!("r{number}@b.example").into_bytes(),
                    ..Recipient::default()
                };
                1 + number as usize % 3
            ],
            arrival_ms: number,
            ..Envelope::default()
        };
        if let Ok(accepted) = self.log.accept(self.now, id, &envelope, &content) {
            self.offered.insert(id, (content.clone(), envelope.clone()));
            self.staged
                .push((accepted.batch, accepted.key, id, content, envelope));
        }
    }

    fn finish(&mut self, nth: usize) {
        let alive: Vec<SpoolId> = self
            .keys
            .keys()
            .copied()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        if alive.is_empty() {
            return;
        }
        let id = alive[nth % alive.len()];
        let Some(key) = self.keys.remove(&id) else {
            return;
        };
        self.log.outcome(
            self.now,
            key,
            Outcome {
                recipient: 0,
                attempt: 1,
                status: Status::Delivered,
                next_ms: 0,
                reply: b"250 ok".to_vec(),
            },
        );
        self.log.done(self.now, key);
        self.done_staged.push(id);
    }

    /// What a start after a cut must find.
    fn check(&self, disk: &mut SimDisk, what: &str) {
        let (mut log, recovered) =
            recover(disk, 8).unwrap_or_else(|error| panic!("{what}: {error}"));
        let found: HashMap<SpoolId, &RecoveredMessage> = recovered
            .messages
            .iter()
            .map(|message| (message.id, message))
            .collect();
        let finishing: HashSet<SpoolId> = self.done_staged.iter().copied().collect();
        for (id, (_, envelope)) in &self.acknowledged {
            match found.get(id) {
                Some(message) => {
                    assert!(
                        !self.done_synced.contains(id),
                        "{what}: {id} was done and is back"
                    );
                    assert_eq!(&message.envelope, envelope, "{what}: envelope of {id}");
                }
                None => assert!(
                    self.done_synced.contains(id) || finishing.contains(id),
                    "{what}: {id} is lost; {:?}",
                    recovered.report
                ),
            }
        }
        for message in &recovered.messages {
            assert!(
                self.offered.contains_key(&message.id),
                "{what}: a message nobody sent"
            );
        }
        self.read_all(disk, &mut log, &recovered, what);
    }

    fn read_all(&self, disk: &mut SimDisk, log: &mut Log, recovered: &Recovered, what: &str) {
        for message in &recovered.messages {
            log.read(message.key)
                .expect("a recovered message is on disk");
        }
        let mut seen = 0;
        for _ in 0..100_000 {
            while let Some(request) = log.poll_op(1) {
                disk.submit(request);
            }
            let Some(done) = disk.complete_one() else {
                break;
            };
            let _: Token = done.token;
            log.complete(1, done);
            while let Some(event) = log.poll_event() {
                if let Event::Content { key, content, .. } = event {
                    let id = log.id(key).expect("live");
                    assert_eq!(
                        content.as_ref().ok(),
                        Some(&self.offered[&id].0),
                        "{what}: content of {id}"
                    );
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, recovered.messages.len(), "{what}");
    }
}

/// What happens around one message of the day.
fn happenings(day: &mut Day, rng: &mut Rng, number: u64, faults: bool) {
    let len = [0, 10, 700, 4096, 9000, 20_000][rng.index(6)];
    day.accept(number, len);
    if rng.below(3) == 0 {
        day.log.set_receiving(rng.below(2) as u32);
    }
    for _ in 0..rng.below(3) {
        let nth = rng.index(1000);
        day.finish(nth);
    }
    if number == 20 {
        let (channel, host) = (b"smtp".to_vec(), b"h".to_vec());
        let state = ThreadState {
            channel,
            host,
            attempt: 3,
            next_ms: 5,
            reply: b"x".to_vec(),
        };
        day.log.thread_state(day.now, state);
    }
    if faults && rng.below(25) == 0 {
        day.disk.fail_next(Fault::Error { errno: 5 });
    }
    if rng.below(4) == 0 {
        day.now += if faults { 2_000_000_000 } else { 200_000_000 };
    }
}

/// Cuts the power three ways and checks each image that is new.
fn cut(day: &Day, rng: &mut Rng, states: &mut HashSet<u64>, what: &str) {
    let seed = rng.next_u64();
    let choices = [
        Persistence::drop_all(),
        Persistence::keep_all(),
        Persistence::seeded(seed),
    ];
    for mut persistence in choices {
        let mut disk = day.disk.power_cut(&mut persistence);
        if states.insert(disk.image_hash()) {
            day.check(&mut disk, what);
        }
    }
}

/// One day; gives back the distinct crash states and the segments at its end.
fn run(seed: u64, faults: bool) -> (usize, u64) {
    let mut day = Day::start(seed);
    let mut states = HashSet::new();
    let mut rng = Rng::new(seed ^ 99);
    for number in 0..120u64 {
        happenings(&mut day, &mut rng, number, faults);
        for _ in 0..rng.below(6) {
            if !day.step() {
                break;
            }
            let what = format!("seed {seed} message {number} op {}", day.disk.operations());
            cut(&day, &mut rng, &mut states, &what);
        }
    }
    day.now += 10_000_000_000;
    for _ in 0..10_000 {
        day.now += 10_000_000;
        if !day.step() && day.log.idle() {
            break;
        }
    }
    let segments = day.log.stats().segments;
    let mut disk = day.disk.power_cut(&mut Persistence::drop_all());
    day.check(&mut disk, "at the end");
    let enough = if faults { 3 } else { 40 };
    assert!(
        day.acknowledged.len() > enough,
        "{}",
        day.acknowledged.len()
    );
    (states.len(), segments)
}

#[test]
fn nothing_acknowledged_is_lost_at_any_cut() {
    for seed in 1..6 {
        let (states, segments) = run(seed, false);
        println!("seed {seed}: {states} distinct crash states, {segments} segments");
    }
}

#[test]
fn nor_with_write_errors() {
    for seed in 1..6 {
        let (states, segments) = run(seed, true);
        println!("seed {seed}: {states} distinct crash states with errors, {segments} segments");
    }
}
