//! A spool that has been in use for a while, and what is known of it.

use std::collections::{BTreeMap, BTreeSet};

use spool::buffer::AlignedBuf;
use spool::op::{FileId, Op, Request, Token};
use spool::sim::{Fault, Rng, SimDisk};
use spool::survey::{Survey, Surveyed};
use spool::*;

use crate::harness::{Rig, SECOND, settings};

/// What was accepted.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) envelope: Envelope,
    pub(crate) content: Vec<u8>,
    /// Recipients that are finished; all: so is the message.
    pub(crate) finished: BTreeSet<u32>,
}

/// Bytes of each file.
pub(crate) type Files = BTreeMap<FileId, Vec<u8>>;

/// A spool and all that was ever sent through it.
pub(crate) struct World {
    pub(crate) files: Files,
    pub(crate) sent: BTreeMap<SpoolId, Sent>,
    /// Answered with an error; may be on the disk all the same.
    pub(crate) refused: BTreeMap<SpoolId, Sent>,
    /// What a start finds.
    pub(crate) recovered: BTreeSet<SpoolId>,
}

struct Maker {
    rng: Rng,
    rig: Rig,
    world: World,
    live: Vec<(MessageKey, SpoolId)>,
}

/// Makes a spool; the same seed gives the same.
pub(crate) fn make(seed: u64) -> World {
    let mut maker = Maker {
        rng: Rng::new(seed),
        rig: Rig::new(settings(seed + 1)),
        world: World {
            files: Files::new(),
            sent: BTreeMap::new(),
            refused: BTreeMap::new(),
            recovered: BTreeSet::new(),
        },
        live: Vec::new(),
    };
    // Some are of one run and little use, some of several and much.
    let runs = 1 + maker.rng.below(3);
    for run in 0..runs {
        for _ in 0..10 + maker.rng.below(50) {
            maker.turn();
        }
        if run + 1 < runs {
            // No two runs have the same number.
            maker = maker.again((seed + 1) * 1000 + run);
        }
    }
    maker.rig.run(SECOND);
    maker.end()
}

impl Maker {
    fn turn(&mut self) {
        if self.rng.below(25) == 0 {
            // Once the same bytes go elsewhere; twice they are given up and voided.
            for _ in 0..=self.rng.below(2) {
                self.rig.disk.fail_next(Fault::Error { errno: 5 });
            }
        }
        let mut batch = Vec::new();
        for _ in 0..self.rng.below(5) {
            batch.extend(self.accept());
        }
        if self.rng.below(12) == 0 {
            batch.extend(self.accept_large());
        }
        if self.rng.below(6) == 0 {
            let state = ThreadState {
                channel: b"smtp".to_vec(),
                host: vec![b'a' + self.rng.below(4) as u8],
                attempt: self.rng.below(3) as u32,
                next_ms: 7,
                reply: b"451 later".to_vec(),
            };
            self.rig.log.thread_state(self.rig.now, state);
        }
        self.rig.run(SECOND);
        for (accepted, sent) in batch {
            if self.rig.has_failed(accepted.batch) {
                self.world.refused.insert(accepted.id, sent);
            } else {
                self.live.push((accepted.key, accepted.id));
                self.world.sent.insert(accepted.id, sent);
            }
        }
        while self.live.len() > 12 || (!self.live.is_empty() && self.rng.below(3) == 0) {
            self.attempt();
        }
    }

    fn envelope(&mut self) -> Envelope {
        let count = 1 + self.rng.below(3);
        let recipients = (0..count).map(|number| Recipient {
            address: format!("r{number}@b.example").into_bytes(),
            notify: 4,
            orcpt: (number == 1).then(|| b"rfc822;o@b.example".to_vec()),
        });
        Envelope {
            sender: b"s@a.example".to_vec(),
            recipients: recipients.collect(),
            arrival_ms: self.rng.below(1 << 40),
            body: BodyKind::Binary,
            ..Envelope::default()
        }
    }

    fn content(&mut self, len: usize) -> Vec<u8> {
        let mut content: Vec<u8> = (0..len).map(|_| self.rng.next_u64() as u8).collect();
        if self.rng.below(4) == 0 {
            // An attack: content full of whole records that were never written.
            content = forged().repeat(1 + len / 400);
        }
        content
    }

    fn accept(&mut self) -> Option<(Accepted, Sent)> {
        let (id, envelope) = (self.rig.log.reserve_id(), self.envelope());
        let len = [40, 900, 5000, 20_000][self.rng.index(4)];
        let content = self.content(len);
        let accepted = self.rig.log.accept(self.rig.now, id, &envelope, &content);
        Some((accepted.ok()?, sent(envelope, content)))
    }

    fn accept_large(&mut self) -> Option<(Accepted, Sent)> {
        let (id, envelope) = (self.rig.log.reserve_id(), self.envelope());
        let len = 1000 + self.rng.index(200_000);
        let content = self.content(len);
        self.rig.log.content_begin(id);
        self.rig.log.content_end(id, &content);
        self.rig.run(SECOND);
        let now = self.rig.now;
        let accepted = self.rig.log.accept_content(now, id, &envelope, false);
        if accepted.is_err() {
            self.rig.log.content_drop(id);
        }
        Some((accepted.ok()?, sent(envelope, content)))
    }

    /// One recipient of a message, sometimes all.
    fn attempt(&mut self) {
        let at = self.rng.index(self.live.len());
        let (key, id) = self.live[at];
        let sent = self.world.sent.get_mut(&id).expect("it was accepted");
        let count = sent.envelope.recipients.len() as u32;
        let open: Vec<u32> = (0..count)
            .filter(|number| !sent.finished.contains(number))
            .collect();
        for recipient in open {
            let status = [Status::Delivered, Status::Failed, Status::Deferred][self.rng.index(3)];
            let outcome = Outcome {
                recipient,
                attempt: 1,
                status,
                next_ms: 9,
                reply: b"a reply".to_vec(),
            };
            self.rig.log.outcome(self.rig.now, key, outcome);
            if status != Status::Deferred {
                sent.finished.insert(recipient);
            }
        }
        if sent.finished.len() as u32 == count {
            self.rig.log.done(self.rig.now, key);
            self.live.swap_remove(at);
        }
        self.rig.run(SECOND);
    }

    /// A clean stop and a start.
    fn again(mut self, epoch: u64) -> Self {
        self.rig.run(SECOND);
        let recovered;
        (self.rig, recovered) = self.rig.restart(settings(epoch));
        assert_eq!(recovered.report.damaged, []);
        let keys = recovered.messages.iter();
        self.live = keys.map(|message| (message.key, message.id)).collect();
        self.rig.run(SECOND);
        self
    }

    fn end(mut self) -> World {
        for file in self.rig.disk.files() {
            let bytes = self.rig.disk.image(file).unwrap_or_default().to_vec();
            self.world.files.insert(file, bytes);
        }
        let (_, recovered) = self.rig.restart(settings(4711));
        self.world.recovered = recovered
            .messages
            .iter()
            .map(|message| message.id)
            .collect();
        self.world
    }
}

fn sent(envelope: Envelope, content: Vec<u8>) -> Sent {
    Sent {
        envelope,
        content,
        finished: BTreeSet::new(),
    }
}

/// The id in what an attacker sends.
pub(crate) fn forged_id() -> SpoolId {
    SpoolId {
        shard: 0,
        epoch: 0x6666,
        sequence: 0x66,
    }
}

/// A whole message record that no engine has written.
fn forged() -> Vec<u8> {
    let envelope = Envelope {
        recipients: vec![Recipient::default()],
        ..Envelope::default()
    };
    let payload = record::whole_payload(forged_id(), &envelope, &[], b"forged");
    let mut out = vec![7, 0, 0, 0];
    out.extend((payload.len() as u32).to_le_bytes());
    out.extend(crc32c::crc32c(&payload).to_le_bytes());
    out.extend(payload);
    out
}

/// Looks at files as a tool does.
pub(crate) fn survey(files: &Files) -> Surveyed {
    let mut survey = Survey::new(Some(0));
    let segments = || {
        files.iter().filter_map(|(file, bytes)| match file {
            FileId::Segment(number) => Some((*number, bytes)),
            _ => None,
        })
    };
    for (number, bytes) in segments() {
        survey.start(number, bytes.get(..3 * 4096).unwrap_or(bytes));
    }
    for (number, bytes) in segments() {
        survey.segment(number, bytes);
    }
    let contents = files.keys().filter_map(|file| match file {
        FileId::Content(id) => Some(*id),
        _ => None,
    });
    survey.finish(&contents.collect())
}

/// What a start finds in files, which are of whole blocks.
pub(crate) fn recovered(files: &Files) -> BTreeSet<SpoolId> {
    let mut disk = SimDisk::new(1);
    let mut perform = |op| {
        let token = Token(1);
        disk.submit(Request { token, op });
        let done = disk.complete_one().expect("it was submitted");
        done.result.expect("no fault was ordered");
    };
    for (file, bytes) in files {
        let file = *file;
        perform(Op::Create { file });
        if bytes.is_empty() {
            continue;
        }
        let mut buf = AlignedBuf::zeroed(bytes.len());
        buf.copy_from_slice(bytes);
        let (offset, durable) = (0, true);
        perform(Op::Write {
            file,
            offset,
            buf,
            durable,
        });
    }
    perform(Op::SyncDir);
    let (_, recovered) = crate::harness::start(&mut disk, settings(4711));
    recovered
        .messages
        .iter()
        .map(|message| message.id)
        .collect()
}
