//! A relay of several shards with its clients and one next hop; everybody takes turns.

use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use spool::sim::{Rng, SimDisk};
use spool::{Log, Recovered, Recovery};

use zmailer::control::pickup;
use zmailer::io::sim::{SimDriver, SimNet};
use zmailer::observe::mail_log::MailLog;
use zmailer::policy::Policy;
use zmailer::protocol::{client, server};
use zmailer::scheduler::{self, Rule, Scheduler};
use zmailer::shard::{Neighbours, Outside, Parts, Settings, Shard, Shared, neighbours};

use super::client::Client;
use super::hop::{Hop, Manners};

const HOP: &str = "198.51.100.9:25";

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub shards: usize,
    /// Connections to the next hop.
    pub limit: u32,
    pub clients: usize,
    /// Messages of each client.
    pub messages: usize,
    /// One message in so many is large; 0: none.
    pub large_one_in: u64,
    /// Content in memory; the rest is read back from the disk.
    pub memory_bytes: usize,
    pub manners: Manners,
}

/// The relay.
pub struct World {
    pub net: SimNet,
    pub shards: Vec<Shard<SimDriver>>,
    pub shared: Arc<Shared>,
    pub clients: Vec<Client>,
    pub hop: Hop,
    pub rng: Rng,
    plan: Plan,
}

fn recover(disk: &mut SimDisk, shard: usize, seed: u64) -> (Log, Recovered) {
    let mut recovery = Recovery::from_checkpoint(spool::Settings {
        shard: shard as u16,
        segment_bytes: 1 << 20,
        checkpoint_bytes: 128 << 10,
        chunk_entries: 3,
        envelopes_max: 20,
        epoch: seed,
        secret: !seed,
        ..spool::Settings::default()
    });
    while let Some(request) = recovery.poll_op() {
        disk.submit(request);
        while let Some(done) = disk.complete_one() {
            recovery.complete(done);
        }
    }
    recovery.finish().expect("the disk is good")
}

fn parts(plan: &Plan, shard: usize, shared: &Arc<Shared>, neighbours: Neighbours) -> Parts {
    let rule = Rule {
        max_connections: plan.limit,
        retry_ms: vec![1_000, 5_000],
        ..Rule::default()
    };
    let scheduler = Scheduler::new(scheduler::Settings {
        rules: vec![rule],
        shard: shard as u16,
        shards: plan.shards as u16,
        seed: plan.seed,
    });
    let trusted = vec!["192.0.2.0/24".parse().unwrap()];
    Parts {
        settings: Settings {
            shard: shard as u16,
            hostname: "relay.example".to_owned(),
            services: vec![Arc::new(patient())],
            client: Arc::new(client::Settings::default()),
            lmtp: Arc::new(client::Settings::default()),
            mailbox_socket: "/none".into(),
            memory_bytes: plan.memory_bytes,
            sessions_max: 100,
            connections_max: 100,
            transaction_recipients_max: 50,
            routings_max: 8,
        },
        shared: Arc::clone(shared),
        outside: Outside {
            ask: Box::new(Err),
            keep: Box::new(Err),
            answers: Arc::new(ArrayQueue::new(8)),
            kept: Arc::new(ArrayQueue::new(8)),
            pickup: pickup::Ends::new(),
            imported: Arc::new(pickup::Answers::new()),
            ask_user: Box::new(Err),
            users: Arc::new(ArrayQueue::new(8)),
            ask_route: Box::new(Err),
            routes: Arc::new(ArrayQueue::new(8)),
            maps: Arc::new(ArrayQueue::new(8)),
            reloads: Arc::new(ArrayQueue::new(1)),
            inquiries: Arc::new(ArrayQueue::new(8)),
            page: Box::new(drop),
        },
        scheduler,
        router: super::scripts::router(&format!("smtp!{HOP}"), &[]),
        generation: 1,
        policies: vec![Policy::new(trusted, &[])],
        mail_log: MailLog::new(String::new(), 1 << 20),
        neighbours,
    }
}

/// Clients stay connected, so that every other connection is one to the next hop.
fn patient() -> server::Settings {
    server::Settings {
        idle_ns: u64::MAX / 4,
        total_ns: u64::MAX / 4,
        ..server::Settings::default()
    }
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let net = SimNet::new(plan.seed);
        let shared = Arc::new(Shared::new(plan.shards));
        let ends = neighbours(plan.shards).into_iter().enumerate();
        let shards = ends
            .map(|(shard, neighbours)| {
                let mut disk = SimDisk::new(plan.seed + shard as u64);
                let (log, recovered) = recover(&mut disk, shard, plan.seed);
                let driver = net.driver(shard, disk);
                let parts = parts(&plan, shard, &shared, neighbours);
                Shard::new(driver, parts, log, recovered)
            })
            .collect();
        let address: SocketAddr = HOP.parse().unwrap();
        net.listen(address);
        let clients = (0..plan.clients)
            .map(|number| {
                let peer = SocketAddr::new([192, 0, 2, 10 + number as u8].into(), 1000);
                let id = net.connect_client(number % plan.shards, 0, peer);
                Client::new(id, number, plan.messages, plan.large_one_in)
            })
            .collect();
        Self {
            hop: Hop::new(address, plan.manners.clone()),
            rng: Rng::new(plan.seed ^ 77),
            net,
            shards,
            shared,
            clients,
            plan,
        }
    }

    /// Everybody has a turn.
    pub fn turn(&mut self) {
        for shard in &mut self.shards {
            shard.turn();
        }
        for client in &mut self.clients {
            client.turn(&self.net, &mut self.rng);
        }
        self.hop.turn(&self.net, &mut self.rng);
    }

    /// Turns until `done` says so.
    pub fn run(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..400_000 {
            self.turn();
            if done(self) {
                return;
            }
        }
        panic!("seed {}: {what} does not come about", self.plan.seed);
    }

    /// Connections that the relay has open to the next hop, when all its clients are connected.
    pub fn outgoing(&self) -> usize {
        let all: usize = (0..self.plan.shards)
            .map(|shard| self.net.sockets_open(shard))
            .sum();
        all - self.plan.clients
    }

    pub fn all_connected(&self) -> bool {
        self.clients.iter().all(Client::is_ready)
    }

    pub fn all_answered(&self) -> bool {
        self.clients.iter().all(Client::is_finished)
    }

    /// Everything acknowledged has been delivered, and the relay knows it.
    pub fn drained(&self) -> bool {
        let metrics = self.shared.all_metrics().iter();
        let queued: u64 = metrics.map(|shard| shard.read().queue_messages).sum();
        self.all_answered() && queued == 0 && self.hop.idle()
    }
}
