//! What the simulated drivers share: time, what is going to happen, and who is connected to whom.
//!
//! All maps are ordered, all chance comes from one generator: a seed decides the run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;

use spool::sim::{Rng, SimDisk};

use crate::base::clock::Now;
use crate::io::{Chunk, Event, Socket};

use super::happen::Happening;
use super::link::{Incoming, Link, State};
use super::{ClientId, MONO_START_NS, WALL_START_MS};

/// One shard's part of the world.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) disk: SimDisk,
    /// Happened, to be reported by the next poll.
    pub(super) ready: VecDeque<Event>,
    /// Links that may have something to deliver.
    pub(super) readable: BTreeSet<u64>,
    /// Until when it wants to wait, as of its last poll.
    pub(super) deadline: Option<u64>,
    /// The number of its last poll among those of all shards.
    polled: u64,
    pub(super) accepting: bool,
    pub(super) rung: bool,
    pub(super) logging: bool,
    pub(super) log: Vec<u8>,
    pub(super) log_errno: Option<i32>,
    /// Longest time that a request to the disk takes; none: that of the network.
    pub(super) disk_ns_max: Option<u64>,
}

impl Node {
    fn new(disk: SimDisk, polled: u64) -> Self {
        Self {
            disk,
            polled,
            ready: VecDeque::new(),
            readable: BTreeSet::new(),
            deadline: Some(0),
            accepting: true,
            rung: false,
            logging: false,
            log: Vec::new(),
            log_errno: None,
            disk_ns_max: None,
        }
    }
}

/// Who answers at a remote address.
#[derive(Debug)]
pub(super) enum Remote {
    /// A server; connections not yet taken by the test.
    Listening(VecDeque<ClientId>),
    /// Nobody, not even with a refusal.
    Mute,
    /// Fails with this errno.
    Failing(i32),
}

/// Sockets to one address that are not closed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Calls {
    pub(super) now: usize,
    /// Since this was last asked for.
    pub(super) most: usize,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) mono_ns: u64,
    /// By time, then by order of planning.
    plan: BTreeMap<(u64, u64), Happening>,
    planned_count: u64,
    pub(super) nodes: BTreeMap<usize, Node>,
    pub(super) links: BTreeMap<u64, Link>,
    link_next: u64,
    pub(super) remotes: BTreeMap<SocketAddr, Remote>,
    /// Sockets of all drivers to each address, and the most there were.
    pub(super) calls: BTreeMap<SocketAddr, Calls>,
    polls: u64,
    /// Of all latencies, the disks' apart.
    pub(super) latency_ns_max: u64,
    pub(super) digest: Digest,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let latency_ns_max = [50_000, 2_000_000, 40_000_000][rng.index(3)];
        Self {
            rng,
            mono_ns: MONO_START_NS,
            plan: BTreeMap::new(),
            planned_count: 0,
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            link_next: 1,
            remotes: BTreeMap::new(),
            calls: BTreeMap::new(),
            polls: 0,
            latency_ns_max,
            digest: Digest(0),
        }
    }

    pub(super) fn now(&self) -> Now {
        let wall_ms = WALL_START_MS + (self.mono_ns - MONO_START_NS) / 1_000_000;
        Now {
            mono_ns: self.mono_ns,
            wall_ms,
        }
    }

    pub(super) fn add_link(&mut self, shard: usize, state: State, address: SocketAddr) -> u64 {
        let id = self.link_next;
        self.link_next += 1;
        self.links.insert(id, Link::new(shard, state, address));
        id
    }

    /// A driver calls an address.
    pub(super) fn call(&mut self, link: u64, remote: SocketAddr) {
        if let Some(entry) = self.links.get_mut(&link) {
            entry.remote = Some(remote);
        }
        let calls = self.calls.entry(remote).or_default();
        calls.now += 1;
        calls.most = calls.most.max(calls.now);
    }

    /// A call has ended: the driver has no socket for it any more.
    pub(super) fn hang_up(&mut self, remote: SocketAddr) {
        if let Some(calls) = self.calls.get_mut(&remote) {
            calls.now -= 1;
        }
    }

    /// When something happens of itself; now if a driver has something to be told.
    pub(super) fn quiet_until(&self) -> Option<u64> {
        if self.nodes.keys().any(|shard| self.is_busy(*shard)) {
            return Some(self.mono_ns);
        }
        self.plan.first_key_value().map(|((at_ns, _), _)| *at_ns)
    }

    /// A time in the near future.
    pub(super) fn soon(&mut self) -> u64 {
        self.mono_ns + 1 + self.rng.below(self.latency_ns_max)
    }

    pub(super) fn plan(&mut self, at_ns: u64, happening: Happening) {
        self.planned_count += 1;
        self.plan.insert((at_ns, self.planned_count), happening);
    }

    pub(super) fn plan_soon(&mut self, happening: Happening) {
        let at_ns = self.soon();
        self.plan(at_ns, happening);
    }

    /// Plans an arrival at the driver's end, behind all earlier ones.
    pub(super) fn plan_to_driver(&mut self, link: u64, incoming: Incoming) {
        let soon = self.soon();
        let Some(entry) = self.links.get_mut(&link) else {
            return;
        };
        entry.to_driver_ns = entry.to_driver_ns.max(soon);
        let at_ns = entry.to_driver_ns;
        self.plan(at_ns, Happening::ToDriver { link, incoming });
    }

    /// Plans an arrival at the test's end, behind all earlier ones.
    pub(super) fn plan_to_far(&mut self, link: u64, happening: Happening) {
        let soon = self.soon();
        let Some(entry) = self.links.get_mut(&link) else {
            return;
        };
        entry.to_far_ns = entry.to_far_ns.max(soon);
        let at_ns = entry.to_far_ns;
        self.plan(at_ns, happening);
    }

    /// Cuts bytes as the network does: in few large or many small pieces.
    pub(super) fn fragments(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let largest = match self.rng.below(4) {
            0 => bytes.len(),
            1 => 1460,
            2 => 16,
            _ => 1 + self.rng.index(bytes.len().max(1)),
        };
        let largest = largest.max(bytes.len() / FRAGMENTS_TYPICAL).max(1);
        let mut rest = bytes;
        let mut fragments = Vec::new();
        while !rest.is_empty() {
            let (fragment, behind) = rest.split_at(1 + self.rng.index(largest.min(rest.len())));
            fragments.push(fragment.to_vec());
            rest = behind;
        }
        fragments
    }

    /// Lets the driver's pending send go on its way, unless the other end does not read.
    pub(super) fn start_send(&mut self, link: u64) {
        let Some(entry) = self.links.get_mut(&link) else {
            return;
        };
        let Some(sending) = &mut entry.sending else {
            return;
        };
        let number = sending.number;
        if entry.broken.is_none() {
            if entry.far.stalled || std::mem::replace(&mut sending.started, true) {
                return;
            }
            let bytes = sending.buf.clone();
            for bytes in self.fragments(&bytes) {
                self.plan_to_far(
                    link,
                    Happening::ToFar {
                        link,
                        number,
                        bytes,
                    },
                );
            }
        }
        self.plan_soon(Happening::SendDone { link, number });
    }

    /// Closes the driver's end.
    pub(super) fn close(&mut self, link: u64) {
        let Some(entry) = self.links.get_mut(&link) else {
            return;
        };
        let was_open = entry.state == State::Open;
        entry.state = State::Closing;
        entry.cut_send = entry.sending.as_ref().map(|sending| sending.number);
        // A kernel answers with a reset when it throws away what was not read.
        let unread = entry
            .inbox
            .iter()
            .any(|incoming| matches!(incoming, Incoming::Bytes(_)));
        entry.inbox.clear();
        if was_open {
            let result = if unread { Err(ECONNRESET) } else { Ok(()) };
            self.plan_to_far(link, Happening::FarEnd { link, result });
        }
        self.plan_soon(Happening::CloseDone { link });
    }

    /// A process for a shard begins.
    pub(super) fn plug(&mut self, shard: usize, disk: SimDisk) {
        self.polls += 1;
        let before = self.nodes.insert(shard, Node::new(disk, self.polls));
        assert!(before.is_none(), "shard {shard} has a driver already");
    }

    /// The process behind a shard is gone: its connections are reset, what it waited for is not.
    pub(super) fn unplug(&mut self, shard: usize) {
        self.nodes.remove(&shard);
        let mut reset = Vec::new();
        let mut ended = Vec::new();
        for (id, link) in &mut self.links {
            // A connection not yet reported finds nobody, or the next process.
            if link.shard == shard && link.state != State::Arriving {
                if link.state == State::Open {
                    reset.push(*id);
                }
                if link.state != State::Gone {
                    ended.extend(link.remote);
                }
                link.state = State::Gone;
            }
        }
        for remote in ended {
            self.hang_up(remote);
        }
        self.links
            .retain(|_, link| !(link.far.forgotten && link.state == State::Gone));
        for link in reset {
            self.plan_to_far(
                link,
                Happening::FarEnd {
                    link,
                    result: Err(ECONNRESET),
                },
            );
        }
        self.plan.retain(|_, happening| match happening {
            Happening::Disk { shard: of }
            | Happening::Foreign { shard: of, .. }
            | Happening::Wake { shard: of } => *of != shard,
            Happening::LogDone { shard: of, .. } => *of != shard,
            _ => true,
        });
    }

    /// Waits for `shard`: time goes on to the next thing that concerns anybody, at most to its
    /// deadline.
    pub(super) fn poll(&mut self, shard: usize, deadline: Option<u64>, events: &mut Vec<Event>) {
        self.mono_ns += POLL_NS;
        self.polls += 1;
        let mut polled_before = 0;
        if let Some(node) = self.nodes.get_mut(&shard) {
            node.deadline = deadline;
            polled_before = std::mem::replace(&mut node.polled, self.polls);
        }
        self.run_due();
        if !self.is_busy(shard) {
            let next = self.plan.first_key_value().map(|((at_ns, _), _)| *at_ns);
            // Nobody waits for a shard that took no turn since this one's last: it does not run.
            let others = self
                .nodes
                .iter()
                .filter(|(other, node)| **other != shard && node.polled > polled_before);
            let others = others.filter_map(|(other, node)| {
                if self.is_busy(*other) {
                    Some(self.mono_ns)
                } else {
                    node.deadline
                }
            });
            let until = others.chain(deadline).chain(next).min();
            self.mono_ns = self.mono_ns.max(until.unwrap_or(self.mono_ns));
            self.run_due();
        }
        let before = events.len();
        self.deliver(shard, events);
        for event in &events[before..] {
            self.digest.add(self.mono_ns, shard, event);
        }
    }

    /// Lets everything happen whose time has come.
    pub(super) fn run_due(&mut self) {
        while let Some(entry) = self.plan.first_entry() {
            if entry.key().0 > self.mono_ns {
                break;
            }
            let happening = entry.remove();
            self.happen(happening);
        }
    }

    fn is_busy(&self, shard: usize) -> bool {
        self.nodes.get(&shard).is_some_and(|node| {
            let readable = |link| self.links.get(link).is_some_and(Link::is_readable);
            !node.ready.is_empty() || node.readable.iter().any(readable)
        })
    }

    fn deliver(&mut self, shard: usize, events: &mut Vec<Event>) {
        let Some(node) = self.nodes.get_mut(&shard) else {
            return;
        };
        for event in node.ready.drain(..) {
            // The driver has no socket after this; the far end never had one.
            if let Event::Connected {
                socket,
                result: Err(_),
            } = event
            {
                self.links.remove(&socket.0);
            }
            events.push(event);
        }
        for id in std::mem::take(&mut node.readable) {
            let Some(link) = self.links.get_mut(&id).filter(|link| link.is_readable()) else {
                continue;
            };
            let socket = Socket(id);
            events.extend(link.inbox.drain(..).map(|incoming| match incoming {
                Incoming::Bytes(bytes) => Event::Received {
                    socket,
                    chunk: Chunk::Owned(bytes),
                },
                Incoming::End(result) => Event::Ended { socket, result },
            }));
        }
    }
}

/// A running hash of everything that was reported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Digest(pub(super) u64);

impl Digest {
    fn add(&mut self, mono_ns: u64, shard: usize, event: &Event) {
        let written = match event {
            // The buffer shows its memory address, which differs between runs.
            Event::Disk(done) => {
                write!(self, "{mono_ns} {shard} {:?} {:?}", done.token, done.result)
            }
            event => write!(self, "{mono_ns} {shard} {event:?}"),
        };
        written.expect("this writer never fails");
    }
}

impl std::fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte))
                .wrapping_mul(0x0100_0000_01b3)
                .rotate_left(5);
        }
        Ok(())
    }
}

/// Passes with every poll, so that a busy loop does not stop the clock.
const POLL_NS: u64 = 1_000;

/// Bounds the fragments of one large write, roughly.
const FRAGMENTS_TYPICAL: usize = 64;

pub(super) const ECONNRESET: i32 = 104;
