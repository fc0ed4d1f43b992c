//! A log on a simulated disk, driven until it comes to rest.

use spool::op::{FileId, Op};
use spool::sim::{Persistence, SimDisk};
use spool::*;

/// Everything that happened since the last look.
pub(crate) struct Rig {
    pub(crate) disk: SimDisk,
    pub(crate) log: Log,
    pub(crate) now: u64,
    pub(crate) events: Vec<Event>,
    /// Operations that were asked for, by the words of their debug form.
    pub(crate) asked: Vec<String>,
}

pub(crate) const SECOND: u64 = 1_000_000_000;

pub(crate) fn settings(epoch: u64) -> Settings {
    Settings {
        segment_bytes: 64 << 10,
        segments_max: 12,
        reserve_segments: 2,
        batch_bytes: 16 << 10,
        staging_bytes_max: 48 << 10,
        epoch,
        secret: epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        ..Settings::default()
    }
}

/// What a start on `disk` finds.
pub(crate) fn start(disk: &mut SimDisk, settings: Settings) -> (Log, Recovered) {
    let mut recovery = Recovery::new(settings);
    while let Some(request) = recovery.poll_op() {
        disk.submit(request);
        while let Some(done) = disk.complete_one() {
            recovery.complete(done);
        }
    }
    recovery.finish().expect("a start")
}

impl Rig {
    pub(crate) fn new(settings: Settings) -> Self {
        Self::on(SimDisk::new(1), settings).0
    }

    pub(crate) fn on(mut disk: SimDisk, settings: Settings) -> (Self, Recovered) {
        let (log, recovered) = start(&mut disk, settings);
        let rig = Self {
            disk,
            log,
            now: 1,
            events: Vec::new(),
            asked: Vec::new(),
        };
        (rig, recovered)
    }

    /// The power is cut, and a new run starts on what is on the disk.
    pub(crate) fn restart(self, settings: Settings) -> (Self, Recovered) {
        let disk = self.disk.power_cut(&mut Persistence::drop_all());
        Self::on(disk, settings)
    }

    /// One operation; says whether there was one.
    pub(crate) fn step(&mut self) -> bool {
        while let Some(request) = self.log.poll_op(self.now) {
            self.asked.push(shown(&request.op));
            self.disk.submit(request);
        }
        let done = self.disk.complete_one();
        let some = done.is_some();
        if let Some(done) = done {
            self.log.complete(self.now, done);
        }
        self.events
            .extend(std::iter::from_fn(|| self.log.poll_event()));
        some
    }

    /// All that is due within `ns` from now, as a caller would do it that knows [`Log::deadline`] only.
    pub(crate) fn run(&mut self, ns: u64) {
        let end = self.now + ns;
        for _ in 0..100_000 {
            if self.step() {
                continue;
            }
            match self.log.deadline() {
                Some(at) if at <= end => {
                    assert!(at > self.now, "due at {at}, but nothing is done");
                    self.now = at;
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("the log does not come to rest");
    }

    pub(crate) fn accept(&mut self, len: usize) -> Result<Accepted, Refusal> {
        let id = self.log.reserve_id();
        let content = vec![b'x'; len];
        self.log.accept(self.now, id, &envelope(), &content)
    }

    /// Accepts a message that gets to the disk.
    pub(crate) fn accepted(&mut self, len: usize) -> Accepted {
        let accepted = self.accept(len);
        let accepted = accepted.unwrap_or_else(|refusal| {
            panic!("{refusal:?}: {:?} {:?}", self.log.stats(), self.events)
        });
        self.run(SECOND);
        assert!(self.is_committed(accepted.batch), "{:?}", self.events);
        accepted
    }

    pub(crate) fn is_committed(&self, batch: u64) -> bool {
        let committed =
            |event: &Event| matches!(event, Event::Committed { batch: of } if *of >= batch);
        self.events.iter().any(committed) && !self.has_failed(batch)
    }

    pub(crate) fn has_failed(&self, batch: u64) -> bool {
        let failed = |event: &Event| matches!(event, Event::Failed { batch: of } if *of == batch);
        self.events.iter().any(failed)
    }

    /// What the operator was told.
    pub(crate) fn troubles(&self) -> Vec<&str> {
        let texts = self.events.iter().filter_map(|event| match event {
            Event::Trouble(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// The last word about new mail.
    pub(crate) fn is_accepting(&self) -> Option<bool> {
        let mut words = self.events.iter().filter_map(|event| match event {
            Event::Accepting(accepting) => Some(*accepting),
            _ => None,
        });
        words.next_back()
    }

    /// Delivers a message to its only recipient.
    pub(crate) fn deliver(&mut self, key: MessageKey) {
        self.log.outcome(self.now, key, outcome());
        self.log.done(self.now, key);
    }

    /// Numbers of the segment files.
    pub(crate) fn segments(&self) -> Vec<u32> {
        let files = self.disk.files();
        let numbers = files.filter_map(|file| match file {
            FileId::Segment(number) => Some(number),
            _ => None,
        });
        numbers.collect()
    }

    /// The segment that holds `marker`, and where.
    pub(crate) fn find(&self, marker: &[u8]) -> Option<(u32, usize)> {
        self.segments().into_iter().find_map(|number| {
            let image = self.disk.image(FileId::Segment(number))?;
            let at = image
                .windows(marker.len())
                .position(|window| window == marker)?;
            Some((number, at))
        })
    }
}

pub(crate) fn envelope() -> Envelope {
    let recipient = Recipient {
        address: b"r@b.example".to_vec(),
        ..Recipient::default()
    };
    Envelope {
        sender: b"s@a.example".to_vec(),
        recipients: vec![recipient],
        ..Envelope::default()
    }
}

pub(crate) fn outcome() -> Outcome {
    Outcome {
        recipient: 0,
        attempt: 1,
        status: Status::Delivered,
        next_ms: 0,
        reply: b"250 ok".to_vec(),
    }
}

fn shown(op: &Op) -> String {
    match op {
        Op::Write {
            file,
            offset,
            buf,
            durable,
        } => format!("write {file:?} {offset} {} {durable}", buf.len()),
        Op::Read { file, offset, buf } => format!("read {file:?} {offset} {}", buf.len()),
        other => format!("{other:?}"),
    }
}
