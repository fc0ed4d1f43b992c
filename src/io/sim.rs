//! The simulated world: several shards, their disks, clients and servers, one virtual clock.
//!
//! A test makes a [`SimNet`], takes a [`SimDriver`] for each shard, lets the shards take turns and
//! plays the other end of every connection. Everything takes a seeded time; bytes arrive in seeded
//! fragments, in order. The same seed and the same calls give the same run.
//!
//! Time stands still except inside [`Driver::poll`], which goes on to the next thing that happens
//! to anybody, to the deadline, or to the deadline of another shard, whatever is first; so it may
//! return without an event. Shards have to be polled in turn. Breaking the driver contract is a
//! panic: a second send in flight, a send or a second close on a closed socket.

mod happen;
mod link;
#[cfg(test)]
mod tests;
mod world;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use spool::op::{FileId, Op, Request};
use spool::sim::SimDisk;

use crate::base::clock::Now;
use crate::io::{Chunk, Driver, Event, Socket};

use happen::Happening;
use link::{Incoming, Link, Sending, State};
use world::{ECONNRESET, Node, Remote, World};

/// The monotonic clock at the start: one second.
pub const MONO_START_NS: u64 = 1_000_000_000;

/// The wall clock at the start: 2026-01-01 00:00 UTC.
pub const WALL_START_MS: u64 = 1_767_225_600_000;

/// The test's end of one connection: of a client of ours, or of a server we connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(u64);

/// The world. A clone is another handle of the same world.
#[derive(Clone, Debug)]
pub struct SimNet {
    world: Rc<RefCell<World>>,
}

/// One shard's driver. When it is dropped, its connections are reset and what was under way for
/// it is forgotten, as when a process dies.
#[derive(Debug)]
pub struct SimDriver {
    world: Rc<RefCell<World>>,
    shard: usize,
}

impl SimNet {
    /// A world without shards.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            world: Rc::new(RefCell::new(World::new(seed))),
        }
    }

    /// The driver of shard `shard` with its disk, which may be one that recovery has opened.
    ///
    /// # Panics
    /// When this shard has a driver already.
    #[must_use]
    pub fn driver(&self, shard: usize, disk: SimDisk) -> SimDriver {
        self.world.borrow_mut().plug(shard, disk);
        SimDriver {
            world: Rc::clone(&self.world),
            shard,
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Now {
        self.world.borrow().now()
    }

    /// Lets time pass at once, as if nobody had run meanwhile.
    pub fn advance(&self, ns: u64) {
        let mut world = self.world.borrow_mut();
        world.mono_ns += ns;
        world.run_due();
    }

    /// A number that depends on every event reported so far and its time.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.world.borrow().digest.0
    }

    /// Uses the disk of a shard: to damage it, to cut its power, to order faults.
    ///
    /// # Panics
    /// When the shard has no driver.
    pub fn with_disk<R>(&self, shard: usize, action: impl FnOnce(&mut SimDisk) -> R) -> R {
        self.node(shard, |node| action(&mut node.disk))
    }

    /// What a shard has written to its log, as text.
    ///
    /// # Panics
    /// When the shard has no driver.
    #[must_use]
    pub fn log(&self, shard: usize) -> String {
        self.node(shard, |node| {
            String::from_utf8_lossy(&node.log).into_owned()
        })
    }

    /// From now on log appends of a shard fail with this errno; `None` ends it.
    ///
    /// # Panics
    /// When the shard has no driver.
    pub fn fail_log(&self, shard: usize, errno: Option<i32>) {
        self.node(shard, |node| node.log_errno = errno);
    }

    /// When the world goes on without anybody's doing: something arrives or completes; now if a driver
    /// has something to be told already. None: it does not.
    #[must_use]
    pub fn quiet_until(&self) -> Option<u64> {
        self.world.borrow().quiet_until()
    }

    /// From now on everything on the network takes this long at most.
    pub fn set_latency(&self, ns_max: u64) {
        self.world.borrow_mut().latency_ns_max = ns_max.max(1);
    }

    /// From now on a request to the disk of a shard takes this long at most; none: as long as anything.
    ///
    /// # Panics
    /// When the shard has no driver.
    pub fn set_disk_latency(&self, shard: usize, ns_max: Option<u64>) {
        self.node(shard, |node| node.disk_ns_max = ns_max);
    }

    /// Sockets of all shards to this address: connecting, open, or being closed.
    #[must_use]
    pub fn calls(&self, address: SocketAddr) -> usize {
        let world = self.world.borrow();
        world.calls.get(&address).map_or(0, |calls| calls.now)
    }

    /// The most of them at any moment since this was last asked.
    #[must_use]
    pub fn calls_most(&self, address: SocketAddr) -> usize {
        let mut world = self.world.borrow_mut();
        let calls = world.calls.entry(address).or_default();
        std::mem::replace(&mut calls.most, calls.now)
    }

    /// Connections of clients that a shard has spoken to and not closed.
    #[must_use]
    pub fn clients_open(&self, shard: usize) -> usize {
        let world = self.world.borrow();
        let open = |link: &&Link| {
            let spoken_to = link.remote.is_none() && link.sends > 0;
            link.shard == shard && spoken_to && link.state == State::Open
        };
        world.links.values().filter(open).count()
    }

    /// The test will not ask for this connection again.
    pub fn forget(&self, id: ClientId) {
        let mut world = self.world.borrow_mut();
        if let Some(link) = world.links.get_mut(&id.0) {
            link.far.forgotten = true;
            if link.state == State::Gone {
                world.links.remove(&id.0);
            }
        }
    }

    /// The number of sockets a shard has not closed.
    #[must_use]
    pub fn sockets_open(&self, shard: usize) -> usize {
        let world = self.world.borrow();
        let open = |link: &&Link| {
            link.shard == shard && !matches!(link.state, State::Arriving | State::Gone)
        };
        world.links.values().filter(open).count()
    }

    /// A client at address `peer` connects to a listener of a shard. When nobody accepts,
    /// [`Self::client_ended`] will say so.
    pub fn connect_client(&self, shard: usize, listener: usize, peer: SocketAddr) -> ClientId {
        let mut world = self.world.borrow_mut();
        let link = world.add_link(shard, State::Arriving, peer);
        let at_ns = world.soon();
        if let Some(entry) = world.links.get_mut(&link) {
            entry.to_driver_ns = at_ns;
        }
        let local = local_address(peer, LISTEN_PORT_FIRST + listener as u16);
        world.plan(
            at_ns,
            Happening::Accepting {
                link,
                listener,
                local,
            },
        );
        ClientId(link)
    }

    /// Sends bytes; they arrive in fragments.
    ///
    /// # Panics
    /// When this end was closed.
    pub fn client_send(&self, id: ClientId, bytes: &[u8]) {
        assert!(
            !self.far(id, |link| link.far.finished),
            "{id:?} has closed its direction"
        );
        let mut world = self.world.borrow_mut();
        for fragment in world.fragments(bytes) {
            world.plan_to_driver(id.0, Incoming::Bytes(fragment));
        }
    }

    /// Takes the bytes that arrived since the last call.
    #[must_use]
    pub fn client_received(&self, id: ClientId) -> Vec<u8> {
        self.far(id, |link| std::mem::take(&mut link.far.received))
    }

    /// How the driver ended the connection: closed it (`Ok`), or reset or refused it (errno).
    #[must_use]
    pub fn client_ended(&self, id: ClientId) -> Option<Result<(), i32>> {
        self.far(id, |link| link.far.ended)
    }

    /// Closes the sending direction only.
    pub fn client_finish(&self, id: ClientId) {
        if !self.far(id, |link| std::mem::replace(&mut link.far.finished, true)) {
            self.world
                .borrow_mut()
                .plan_to_driver(id.0, Incoming::End(Ok(())));
        }
    }

    /// Closes; what the driver still sends is answered with a reset.
    pub fn client_close(&self, id: ClientId) {
        self.client_finish(id);
        self.far(id, |link| link.far.closed = true);
        self.client_stall(id, false);
    }

    /// Breaks the connection, behind what was sent.
    pub fn client_reset(&self, id: ClientId) {
        self.far(id, |link| {
            link.far.finished = true;
            link.far.closed = true;
        });
        self.world
            .borrow_mut()
            .plan_to_driver(id.0, Incoming::End(Err(ECONNRESET)));
    }

    /// Stops reading (`true`): the driver's next send does not end before this end reads again.
    pub fn client_stall(&self, id: ClientId, stalled: bool) {
        let was = self.far(id, |link| std::mem::replace(&mut link.far.stalled, stalled));
        if was && !stalled {
            self.world.borrow_mut().start_send(id.0);
        }
    }

    /// From now on a server listens at `address`.
    pub fn listen(&self, address: SocketAddr) {
        self.set_remote(address, Some(Remote::Listening(VecDeque::new())));
    }

    /// From now on nobody listens at `address`: connecting is refused.
    pub fn unlisten(&self, address: SocketAddr) {
        self.set_remote(address, None);
    }

    /// From now on nothing answers at `address`, not even with a refusal.
    pub fn mute(&self, address: SocketAddr) {
        self.set_remote(address, Some(Remote::Mute));
    }

    /// From now on connecting to `address` fails with this errno.
    pub fn fail_connect(&self, address: SocketAddr, errno: i32) {
        self.set_remote(address, Some(Remote::Failing(errno)));
    }

    /// The server's end of the oldest connection to `address` not yet taken.
    #[must_use]
    pub fn accept(&self, address: SocketAddr) -> Option<ClientId> {
        match self.world.borrow_mut().remotes.get_mut(&address)? {
            Remote::Listening(waiting) => waiting.pop_front(),
            Remote::Mute | Remote::Failing(_) => None,
        }
    }

    fn set_remote(&self, address: SocketAddr, remote: Option<Remote>) {
        let remotes = &mut self.world.borrow_mut().remotes;
        match remote {
            Some(remote) => remotes.insert(address, remote),
            None => remotes.remove(&address),
        };
    }

    fn node<R>(&self, shard: usize, action: impl FnOnce(&mut Node) -> R) -> R {
        let mut world = self.world.borrow_mut();
        action(
            world
                .nodes
                .get_mut(&shard)
                .expect("the test names a shard that has a driver"),
        )
    }

    fn far<R>(&self, id: ClientId, action: impl FnOnce(&mut Link) -> R) -> R {
        let mut world = self.world.borrow_mut();
        action(
            world
                .links
                .get_mut(&id.0)
                .expect("a link is kept until the test forgets it"),
        )
    }
}

impl SimDriver {
    /// The link of a socket this shard was told about.
    fn with_link<R>(&self, socket: Socket, action: impl FnOnce(&mut World, u64) -> R) -> R {
        let mut world = self.world.borrow_mut();
        let owner = world.links.get(&socket.0).map(|link| link.shard);
        assert_eq!(
            owner,
            Some(self.shard),
            "{socket:?} is not of shard {}",
            self.shard
        );
        action(&mut world, socket.0)
    }
}

impl Driver for SimDriver {
    fn now(&self) -> Now {
        self.world.borrow().now()
    }

    fn connect(&mut self, remote: SocketAddr) -> Socket {
        let mut world = self.world.borrow_mut();
        let port = LOCAL_PORT_FIRST + world.rng.below(10_000) as u16;
        let link = world.add_link(self.shard, State::Connecting, local_address(remote, port));
        world.call(link, remote);
        world.plan_soon(Happening::Connecting { link, remote });
        Socket(link)
    }

    /// Nobody listens on the paths of this world.
    fn connect_local(&mut self, _path: &std::path::Path) -> Socket {
        self.connect(([0, 0, 0, 0], 0).into())
    }

    fn receive(&mut self, socket: Socket, on: bool) {
        let shard = self.shard;
        self.with_link(socket, |world, id| {
            if let Some(link) = world.links.get_mut(&id) {
                link.receiving = on;
            }
            if let Some(node) = world.nodes.get_mut(&shard).filter(|_| on) {
                node.readable.insert(id);
            }
        });
    }

    // Fragments of this world are small, and come one at a time.
    fn receive_sparingly(&mut self, _on: bool) {}

    fn send(&mut self, socket: Socket, buf: Vec<u8>) {
        assert!(!buf.is_empty(), "an empty send on {socket:?}");
        self.with_link(socket, |world, id| {
            let Some(link) = world.links.get_mut(&id) else {
                return;
            };
            assert_eq!(link.state, State::Open, "a send on {socket:?}");
            assert!(
                link.sending.is_none(),
                "a second send in flight on {socket:?}"
            );
            link.sends += 1;
            link.sending = Some(Sending {
                number: link.sends,
                started: false,
                buf,
            });
            world.start_send(id);
        });
    }

    fn close(&mut self, socket: Socket) {
        if !self.world.borrow().links.contains_key(&socket.0) {
            return; // It could not be connected, and is closed.
        }
        self.with_link(socket, |world, id| {
            let Some(link) = world.links.get(&id) else {
                return;
            };
            assert_ne!(link.state, State::Closing, "a second close of {socket:?}");
            if link.state != State::Gone {
                world.close(id);
            }
        });
    }

    fn disk(&mut self, request: Request) {
        let mut world = self.world.borrow_mut();
        if is_foreign(&request.op) {
            let shard = self.shard;
            world.plan_soon(Happening::Foreign { shard, request });
        } else if let Some(node) = world.nodes.get_mut(&self.shard) {
            node.disk.submit(request);
            let disk_ns_max = node.disk_ns_max;
            let at_ns = match disk_ns_max {
                Some(most) => world.mono_ns + 1 + world.rng.below(most.max(1)),
                None => world.soon(),
            };
            world.plan(at_ns, Happening::Disk { shard: self.shard });
        }
    }

    fn log(&mut self, buf: Vec<u8>) {
        let mut world = self.world.borrow_mut();
        let Some(node) = world.nodes.get_mut(&self.shard) else {
            return;
        };
        assert!(
            !std::mem::replace(&mut node.logging, true),
            "a second log append in flight"
        );
        let result = node.log_errno.map_or(Ok(()), Err);
        world.plan_soon(Happening::LogDone {
            shard: self.shard,
            result,
            buf,
        });
    }

    // The simulated log has no name that could be moved away.
    fn reopen_log(&mut self) {}

    fn wake(&mut self, shard: usize) {
        let mut world = self.world.borrow_mut();
        let Some(node) = world.nodes.get_mut(&shard) else {
            return;
        };
        if !std::mem::replace(&mut node.rung, true) {
            world.plan_soon(Happening::Wake { shard });
        }
    }

    fn stop_accepting(&mut self) {
        if let Some(node) = self.world.borrow_mut().nodes.get_mut(&self.shard) {
            node.accepting = false;
        }
    }

    fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8] {
        match chunk {
            Chunk::Owned(bytes) => bytes,
            Chunk::Provided { .. } => &[], // This driver never gives one out.
        }
    }

    fn recycle(&mut self, chunk: Chunk) {
        drop(chunk);
    }

    fn poll(&mut self, deadline_mono_ns: Option<u64>, events: &mut Vec<Event>) {
        self.world
            .borrow_mut()
            .poll(self.shard, deadline_mono_ns, events);
    }
}

impl Drop for SimDriver {
    fn drop(&mut self) {
        // A test that failed inside the world unwinds through here.
        let Ok(mut world) = self.world.try_borrow_mut() else {
            return;
        };
        world.unplug(self.shard);
    }
}

fn is_foreign(op: &Op) -> bool {
    let (Op::Open { file } | Op::Close { file } | Op::Read { file, .. }) = op else {
        return false;
    };
    matches!(file, FileId::Foreign { .. })
}

/// Our own address in the family of `other`.
fn local_address(other: SocketAddr, port: u16) -> SocketAddr {
    let ip = match other {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    };
    SocketAddr::new(ip, port)
}

/// Of listener 0; the others follow.
const LISTEN_PORT_FIRST: u16 = 25;

/// Outgoing connections come from ports above this one.
const LOCAL_PORT_FIRST: u16 = 40_000;
