//! The relay as a process: its shards, started on disks, stopped, killed, or cut from the power.

use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use spool::sim::{Persistence, Rng, SimDisk};
use spool::{CheckpointUse, Log, Recovered, Recovery};

use zmailer::control::pickup;
use zmailer::control::postman::{Kept, Undeliverable};
use zmailer::control::queue::{Inquiry, Page};
use zmailer::control::resolver::{Answer, Lookup, Question};
use zmailer::io::sim::{SimDriver, SimNet};
use zmailer::observe::mail_log::MailLog;
use zmailer::policy::Policy;
use zmailer::protocol::{client, server};
use zmailer::scheduler::{self, Rule, Scheduler};
use zmailer::shard::{Neighbours, Outside, Parts, Settings, Shard, Shared, neighbours};

/// What the process is made of.
#[derive(Clone, Debug)]
pub struct Make {
    pub seed: u64,
    pub shards: usize,
    pub memory_bytes: usize,
    pub sessions_max: usize,
    pub segments_max: u32,
    pub rules: Vec<Rule>,
    /// Domain and next hop.
    pub routes: Vec<(String, String)>,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The power is cut.
    Power,
    /// Killed; what it gave to the kernel is kept.
    Killed,
}

/// Queues between the shards and the control thread, which the test plays.
#[derive(Debug)]
struct Control {
    inquiries: Vec<Arc<ArrayQueue<Inquiry>>>,
    pages: Arc<ArrayQueue<Page>>,
    keep: Arc<ArrayQueue<Undeliverable>>,
    kept: Vec<Arc<ArrayQueue<Kept>>>,
    questions: Arc<ArrayQueue<Question>>,
    answers: Vec<Arc<ArrayQueue<Answer>>>,
}

impl Control {
    fn new(shards: usize) -> Self {
        Self {
            inquiries: (0..shards).map(|_| Arc::new(ArrayQueue::new(8))).collect(),
            pages: Arc::new(ArrayQueue::new(64)),
            keep: Arc::new(ArrayQueue::new(64)),
            kept: (0..shards).map(|_| Arc::new(ArrayQueue::new(64))).collect(),
            questions: Arc::new(ArrayQueue::new(256)),
            answers: (0..shards)
                .map(|_| Arc::new(ArrayQueue::new(256)))
                .collect(),
        }
    }

    fn outside(&self, shard: usize) -> Outside {
        let (keep, questions) = (Arc::clone(&self.keep), Arc::clone(&self.questions));
        let pages = Arc::clone(&self.pages);
        Outside {
            ask: Box::new(move |question| questions.push(question)),
            keep: Box::new(move |message| keep.push(message)),
            answers: Arc::clone(&self.answers[shard]),
            kept: Arc::clone(&self.kept[shard]),
            pickup: pickup::Ends::new(),
            imported: Arc::new(pickup::Answers::new()),
            ask_user: Box::new(Err),
            users: Arc::new(ArrayQueue::new(8)),
            ask_route: Box::new(Err),
            routes: Arc::new(ArrayQueue::new(8)),
            maps: Arc::new(ArrayQueue::new(8)),
            reloads: Arc::new(ArrayQueue::new(1)),
            inquiries: Arc::clone(&self.inquiries[shard]),
            page: Box::new(move |page| {
                assert!(pages.push(page).is_ok(), "the test takes every page");
            }),
        }
    }
}

/// See the module.
pub struct Process {
    net: SimNet,
    make: Make,
    shards: Vec<Shard<SimDriver>>,
    /// Shards that have finished their shutdown.
    finished: Vec<bool>,
    /// While it is down.
    disks: Vec<SimDisk>,
    pub shared: Arc<Shared>,
    control: Control,
    epoch: u64,
    /// Mail logs of processes that have ended.
    logs: String,
    /// Logs that began from a checkpoint, and messages that were in those.
    pub spared: usize,
    pub spared_messages: u64,
    /// Something was put into a queue of a shard since its last turn.
    pub told: bool,
}

impl Process {
    pub fn new(net: SimNet, make: Make) -> Self {
        let disks = (0..make.shards).map(|shard| SimDisk::new(make.seed + shard as u64));
        let disks = disks.collect();
        Self {
            net,
            shards: Vec::new(),
            finished: Vec::new(),
            disks,
            shared: Arc::new(Shared::new(make.shards)),
            control: Control::new(make.shards),
            epoch: make.seed << 20,
            logs: String::new(),
            make,
            spared: 0,
            spared_messages: 0,
            told: false,
        }
    }

    pub fn is_up(&self) -> bool {
        !self.shards.is_empty()
    }

    /// Starts on the disks there are. With some luck the power fails once more while it recovers: then
    /// the disks are as that has left them, and it is not up.
    pub fn start(&mut self, cut_after: Option<u64>) -> bool {
        self.epoch += 1;
        self.shared = Arc::new(Shared::new(self.make.shards));
        self.control = Control::new(self.make.shards);
        let mut logs = Vec::new();
        for shard in 0..self.make.shards {
            let recovered = self.recover(shard, cut_after);
            let Some(log) = recovered else {
                self.cut_disks(End::Power);
                return false;
            };
            logs.push(log);
        }
        let disks = std::mem::take(&mut self.disks);
        let ends = neighbours(self.make.shards);
        let all = disks.into_iter().zip(logs).zip(ends).enumerate();
        for (shard, ((disk, (log, recovered)), neighbours)) in all {
            let driver = self.net.driver(shard, disk);
            let parts = self.parts(shard, neighbours);
            self.shards.push(Shard::new(driver, parts, log, recovered));
            self.finished.push(false);
        }
        true
    }

    fn recover(&mut self, shard: usize, cut_after: Option<u64>) -> Option<(Log, Recovered)> {
        let disk = &mut self.disks[shard];
        let mut recovery = Recovery::from_checkpoint(spool::Settings {
            shard: shard as u16,
            segment_bytes: 1 << 20,
            checkpoint_bytes: CHECKPOINT_BYTES,
            chunk_entries: 3,
            envelopes_max: 20,
            segments_max: self.make.segments_max,
            epoch: self.epoch,
            secret: !self.epoch,
            ..spool::Settings::default()
        });
        let mut count = 0;
        while let Some(request) = recovery.poll_op() {
            disk.submit(request);
            count += 1;
            if cut_after.is_some_and(|after| count > after) {
                return None;
            }
            while let Some(done) = disk.complete_one() {
                recovery.complete(done);
            }
        }
        let (log, recovered) = recovery.finish().expect("the disk is good");
        if let CheckpointUse::From { messages, .. } = recovered.report.checkpoint {
            self.spared += 1;
            self.spared_messages += messages;
        }
        Some((log, recovered))
    }

    fn parts(&self, shard: usize, neighbours: Neighbours) -> Parts {
        let make = &self.make;
        let scheduler = Scheduler::new(scheduler::Settings {
            rules: make.rules.clone(),
            shard: shard as u16,
            shards: make.shards as u16,
            seed: self.epoch,
        });
        let lmtp = client::Settings {
            lmtp: true,
            ..client::Settings::default()
        };
        let trusted = vec!["192.0.2.0/24".parse().unwrap()];
        Parts {
            settings: Settings {
                shard: shard as u16,
                hostname: "relay.example".to_owned(),
                services: vec![Arc::new(server::Settings::default())],
                client: Arc::new(client::Settings::default()),
                lmtp: Arc::new(lmtp),
                mailbox_socket: "/none".into(),
                memory_bytes: make.memory_bytes,
                sessions_max: make.sessions_max,
                connections_max: 1000,
                transaction_recipients_max: 3,
                routings_max: 8,
            },
            shared: Arc::clone(&self.shared),
            outside: self.control.outside(shard),
            scheduler,
            router: super::scripts::router("error!nobody", &make.routes),
            generation: 1,
            policies: vec![Policy::new(trusted, &[])],
            mail_log: MailLog::new(String::new(), 1 << 20),
            neighbours,
        }
    }

    /// All shards have a turn; says whether a requested stop is complete.
    pub fn turn(&mut self) -> bool {
        self.told = false;
        for (shard, finished) in self.shards.iter_mut().zip(&mut self.finished) {
            *finished = *finished || shard.turn();
        }
        self.finished.iter().all(|finished| *finished)
    }

    /// When one of the shards has something to do.
    pub fn due_ns(&self) -> Option<u64> {
        let running = self.shards.iter().zip(&self.finished);
        let running = running.filter(|(_, finished)| !**finished);
        running.filter_map(|(shard, _)| shard.due_ns()).min()
    }

    /// Ends it, without a word of warning or after its shutdown. Says what it had open.
    pub fn end(&mut self, end: End) {
        for shard in 0..self.make.shards {
            let empty = SimDisk::new(0);
            let disk = self
                .net
                .with_disk(shard, |disk| std::mem::replace(disk, empty));
            self.disks.push(disk);
            self.logs.push_str(&self.net.log(shard));
        }
        self.shards.clear();
        self.finished.clear();
        self.cut_disks(end);
    }

    fn cut_disks(&mut self, end: End) {
        for (shard, disk) in self.disks.iter_mut().enumerate() {
            let seed = self.epoch ^ (shard as u64) << 40;
            let mut choice = match end {
                End::Power => Persistence::seeded(seed),
                End::Killed => Persistence::keep_all(),
            };
            *disk = disk.power_cut(&mut choice);
        }
        self.epoch += 1;
    }

    /// The last lines of the mail logs that speak of a name, with their time.
    pub fn log_of(&self, name: &str) -> String {
        let mut logs = self.logs.clone();
        for shard in 0..self.shards.len() {
            logs.push_str(&self.net.log(shard));
        }
        let address = format!("{name}@");
        let lines: Vec<&str> = logs
            .lines()
            .filter(|line| line.contains(&address))
            .collect();
        lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n")
    }

    /// The disks as they are now.
    pub fn disks(&self) -> Vec<SimDisk> {
        let all = 0..self.make.shards;
        all.map(|shard| self.net.with_disk(shard, |disk| disk.clone()))
            .collect()
    }

    /// Puts other disks in while it is down.
    pub fn replace_disks(&mut self, disks: Vec<SimDisk>) {
        assert!(!self.is_up(), "only while it is down");
        self.disks = disks;
        self.cut_disks(End::Killed);
    }

    /// Recipients queued in all shards.
    pub fn queued(&self) -> u64 {
        let all = self.shared.all_metrics().iter();
        all.map(|shard| shard.read().queue_recipients).sum()
    }

    /// Asks every shard for the next page of its queue.
    pub fn inquire(&mut self, shard: usize, inquiry: Inquiry) {
        assert!(self.control.inquiries[shard].push(inquiry).is_ok());
        self.told = true;
    }

    pub fn page(&self) -> Option<Page> {
        self.control.pages.pop()
    }

    /// The next message for the postmaster.
    pub fn undeliverable(&self) -> Option<Undeliverable> {
        self.control.keep.pop()
    }

    /// Answers for the postmaster.
    pub fn kept(&mut self, shard: u16, kept: Kept) {
        assert!(self.control.kept[usize::from(shard)].push(kept).is_ok());
        self.told = true;
    }

    /// Answers name look-ups: every name has these addresses.
    pub fn resolve(&mut self, addresses: &[(String, Vec<SocketAddr>)]) {
        while let Some(question) = self.control.questions.pop() {
            let name = match &question.lookup {
                Lookup::Host { name, .. } | Lookup::Mx(name) => name,
            };
            let found = addresses.iter().find(|(known, _)| known == name);
            let (_, addresses) = found.expect("only names that are routed to are looked up");
            let answer = Answer {
                token: question.token,
                result: Ok(addresses.clone()),
            };
            let queue = &self.control.answers[usize::from(question.shard)];
            assert!(queue.push(answer).is_ok());
            self.told = true;
        }
    }
}

/// Small: restarts go through checkpoints.
const CHECKPOINT_BYTES: u64 = 128 << 10;

/// Of a story.
const LOG_LINES_MAX: usize = 12;

/// A number for this purpose out of a seed.
pub fn derived(seed: u64, purpose: u64) -> Rng {
    Rng::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose)
}
