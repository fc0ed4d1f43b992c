//! The driver on io_uring: sockets, disk, mail log and doorbells of one shard.
//!
//! Rules it keeps: peer addresses by getpeername; one send in flight a socket; a paused socket's
//! receive is cancelled once something arrives; an operation that ended for want of something is
//! started again when that something is there, never in a loop; a socket is closed after its last
//! completion.

mod disk;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spool::op::Request;

use super::doorbell::Doorbells;
use super::{Chunk, Driver, Event, Socket};
use crate::base::clock::Now;
use crate::ring::{self, Buffers, Completion, DOORBELL, Flight, Memory, Ring, SetupError};

use disk::Disk;

const ACCEPT: u64 = 1 << 56;
const RECEIVE: u64 = 2 << 56;
const SEND: u64 = 3 << 56;
const CONNECT: u64 = 4 << 56;
const DISK: u64 = 5 << 56;
const LOG: u64 = 6 << 56;
const BELL: u64 = 7 << 56;
const KIND: u64 = 0xff << 56;

/// Held chunks beyond which a paused receive is cancelled.
const HELD_CHUNKS_MAX: usize = 4;

/// After running out of descriptors accepting starts again when one is closed, or after this.
const ACCEPT_PAUSE_NS: u64 = 1_000_000_000;

/// A mail log that cannot be opened is tried again after this.
const LOG_RETRY_NS: u64 = 1_000_000_000;

/// How writes become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A durable write is on disk when it completes.
    Sync,
    /// Nothing is synced: a power cut loses mail.
    None,
}

/// What a driver is made from.
pub struct RingConfig {
    /// Number of this shard.
    pub shard: usize,
    /// Its spool directory.
    pub spool_dir: PathBuf,
    /// Its mail log; none: lines are dropped.
    pub log_file: Option<PathBuf>,
    /// Its listening sockets.
    pub listeners: Vec<TcpListener>,
    /// The doorbells of all shards.
    pub doorbells: Arc<Doorbells>,
    /// Submissions the ring holds.
    pub ring_entries: u32,
    /// Completions the ring holds.
    pub completion_entries: u32,
    /// Receive buffers, a power of two.
    pub receive_buffers: u16,
    /// Size of each.
    pub receive_buffer_bytes: u32,
    /// Accepted sockets at a time.
    pub sessions_max: usize,
    /// Whether to sync.
    pub durability: Durability,
}

struct Entry {
    descriptor: Option<OwnedFd>,
    accepted: bool,
    receive: Option<Flight>,
    receive_wanted: bool,
    cancelling: bool,
    /// In the driver's list of those that try again at the next poll.
    starved: bool,
    held: VecDeque<Vec<u8>>,
    ended: Option<Result<(), i32>>,
    send: Option<Flight>,
    send_offset: usize,
    connect: Option<Flight>,
    closing: bool,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    entry: Option<Entry>,
}

struct Listening {
    listener: TcpListener,
    flight: Option<Flight>,
    retry_at: Option<u64>,
}

/// See the module.
pub struct RingDriver {
    // The ring is dropped before the buffers it writes to.
    ring: Ring,
    buffers: Buffers,
    config: RingConfig,
    now: Now,
    origin: std::time::Instant,
    slots: Vec<Slot>,
    free: Vec<u32>,
    accepted_count: usize,
    listening: Vec<Listening>,
    accepting: bool,
    /// Sockets whose receiving is tried again at the next poll.
    starved: Vec<u32>,
    /// See [`Driver::receive_sparingly`].
    sparing: bool,
    pending: Vec<Event>,
    disk: Disk,
    /// The mail log, or why it could not be opened.
    log: Result<File, i32>,
    log_retry_at: u64,
}

impl RingDriver {
    /// Creates the ring on the calling thread and starts accepting.
    ///
    /// # Errors
    /// When the kernel refuses the ring; disk errors come later, with the operation.
    pub fn new(mut config: RingConfig) -> Result<Self, SetupError> {
        let mut ring = ring::setup(config.ring_entries, config.completion_entries)?;
        let size = config.receive_buffer_bytes as usize;
        let mut buffers = Buffers::register(&ring, config.receive_buffers, size)?;
        buffers.hand_over(&mut ring);
        config.doorbells.register(config.shard, ring.descriptor());
        ring.watch(config.doorbells.eventfd(config.shard), BELL);
        let listening = std::mem::take(&mut config.listeners)
            .into_iter()
            .map(|listener| Listening {
                listener,
                flight: None,
                retry_at: None,
            })
            .collect();
        let log = open_log(config.log_file.as_deref());
        let disk = Disk::new(&config.spool_dir, config.durability);
        let mut driver = Self {
            ring,
            buffers,
            config,
            now: Now::default(),
            origin: std::time::Instant::now(),
            slots: Vec::new(),
            free: Vec::new(),
            accepted_count: 0,
            listening,
            accepting: true,
            starved: Vec::new(),
            sparing: false,
            pending: Vec::new(),
            disk,
            log,
            log_retry_at: 0,
        };
        driver.read_clock();
        driver.start_accepting();
        Ok(driver)
    }

    /// RLIMIT_MEMLOCK allows less than was asked for: a smaller ring, or no registered buffers.
    #[must_use]
    pub fn is_reduced(&self) -> bool {
        self.ring.is_reduced() || self.buffers.is_reduced()
    }

    fn read_clock(&mut self) {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        self.now = Now {
            mono_ns: self.origin.elapsed().as_nanos() as u64 + 1,
            wall_ms: wall.map_or(0, |since| since.as_millis() as u64),
        };
    }

    fn start_accepting(&mut self) {
        if !self.accepting || self.accepted_count >= self.config.sessions_max {
            return;
        }
        for (number, listening) in self.listening.iter_mut().enumerate() {
            let waits = listening.retry_at.is_some_and(|at| at > self.now.mono_ns);
            if listening.flight.is_none() && !waits {
                listening.retry_at = None;
                let descriptor = listening.listener.as_raw_fd();
                listening.flight = Some(self.ring.accept(descriptor, ACCEPT | number as u64));
            }
        }
    }

    fn insert(&mut self, descriptor: OwnedFd, accepted: bool) -> Socket {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let place = &mut self.slots[slot as usize];
        place.entry = Some(Entry {
            descriptor: Some(descriptor),
            accepted,
            receive: None,
            receive_wanted: false,
            cancelling: false,
            starved: false,
            held: VecDeque::new(),
            ended: None,
            send: None,
            send_offset: 0,
            connect: None,
            closing: false,
        });
        Socket((u64::from(place.generation) << 32) | u64::from(slot))
    }

    fn entry(&mut self, socket: Socket) -> Option<&mut Entry> {
        let slot = self.slots.get_mut((socket.0 & 0xffff_ffff) as usize)?;
        if u64::from(slot.generation) == socket.0 >> 32 {
            slot.entry.as_mut()
        } else {
            None
        }
    }

    fn socket_of(&self, slot: u64) -> Socket {
        Socket((u64::from(self.slots[slot as usize].generation) << 32) | slot)
    }

    fn complete(&mut self, completion: Completion, events: &mut Vec<Event>) {
        let slot = completion.tag & !KIND;
        match completion.tag & KIND {
            ACCEPT => self.accepted(slot as usize, &completion, events),
            RECEIVE => self.received(slot, &completion, events),
            SEND => self.sent(slot, completion, events),
            CONNECT => self.connect_done(slot, &completion, events),
            DISK => {
                if let Some(done) = self.disk.complete(slot, completion) {
                    events.push(Event::Disk(done));
                }
            }
            LOG => {
                let Memory::Bytes(mut buf) = completion.memory else {
                    return;
                };
                let result = match completion.result {
                    Ok(written) if written as usize == buf.len() => Ok(()),
                    Ok(_) => Err(libc::ENOSPC),
                    Err(errno) => Err(errno),
                };
                buf.clear();
                events.push(Event::LogWritten { result, buf });
            }
            BELL => {
                self.config.doorbells.clear_eventfd(self.config.shard);
                if !completion.more {
                    self.ring
                        .watch(self.config.doorbells.eventfd(self.config.shard), BELL);
                }
            }
            _ => debug_assert_eq!(completion.tag, DOORBELL, "a kind that was started"),
        }
    }

    fn accepted(&mut self, number: usize, completion: &Completion, events: &mut Vec<Event>) {
        if !completion.more {
            self.listening[number].flight = None;
        }
        match completion.result {
            Ok(descriptor) => {
                let descriptor = ring::adopt(descriptor);
                self.adopt(number, descriptor, events);
            }
            Err(errno) if errno == libc::ECANCELED => {}
            // ENFILE, EMFILE, ENOMEM, ENOBUFS: wait until something is closed, or a second.
            Err(_) => {
                self.listening[number].retry_at = Some(self.now.after_ns(ACCEPT_PAUSE_NS));
            }
        }
        if self.accepted_count >= self.config.sessions_max {
            for listening in &self.listening {
                if let Some(flight) = listening.flight {
                    self.ring.cancel(flight);
                }
            }
        }
        self.start_accepting();
    }

    /// A descriptor that arrived: no address, no session.
    fn adopt(&mut self, listener: usize, descriptor: OwnedFd, events: &mut Vec<Event>) {
        let stream = socket2::Socket::from(descriptor);
        let addresses = stream
            .peer_addr()
            .and_then(|peer| Ok((peer, stream.local_addr()?)));
        let Ok((peer, local)) = addresses else { return };
        if !self.accepting {
            return;
        }
        let (Some(peer), Some(local)) = (peer.as_socket(), local.as_socket()) else {
            return;
        };
        // Without it a reply would wait for the client's delayed acknowledgement.
        let _ = stream.set_tcp_nodelay(true);
        let (peer, local) = (normalised(peer), normalised(local));
        let socket = self.insert(stream.into(), true);
        self.accepted_count += 1;
        events.push(Event::Accepted {
            socket,
            listener,
            peer,
            local,
        });
    }

    fn received(&mut self, slot: u64, completion: &Completion, events: &mut Vec<Event>) {
        let socket = self.socket_of(slot);
        let Some(entry) = &mut self.slots[slot as usize].entry else {
            return;
        };
        if !completion.more {
            entry.receive = None;
            entry.cancelling = false;
        }
        let again = !completion.more && self.sparing;
        if again || completion.result == Err(libc::ENOBUFS) {
            entry.starved = true;
            self.starved.push(slot as u32);
        }
        match (completion.result, completion.buffer) {
            (Ok(0), _) => entry.ended = Some(Ok(())),
            (Ok(len), Some(id)) => {
                if entry.closing {
                    self.buffers.give(id);
                } else if entry.receive_wanted && entry.held.is_empty() {
                    events.push(Event::Received {
                        socket,
                        chunk: Chunk::Provided { id, len },
                    });
                } else {
                    entry
                        .held
                        .push_back(self.buffers.bytes(id, len as usize).to_vec());
                    self.buffers.give(id);
                }
            }
            (Err(errno), _) if errno == libc::ENOBUFS || errno == libc::ECANCELED => {}
            (Err(errno), _) => entry.ended = Some(Err(errno)),
            (Ok(_), None) => {}
        }
        self.tend(socket, events);
    }

    /// Starts, cancels or ends the receiving of a socket, as its state asks for.
    fn tend(&mut self, socket: Socket, events: &mut Vec<Event>) {
        let slot = (socket.0 & 0xffff_ffff) as u32;
        let Some(entry) = self.entry(socket) else {
            return;
        };
        if entry.closing {
            self.finish_close(socket, events);
            return;
        }
        if entry.receive_wanted {
            while let Some(bytes) = entry.held.pop_front() {
                events.push(Event::Received {
                    socket,
                    chunk: Chunk::Owned(bytes),
                });
            }
            if let Some(result) = entry.ended {
                entry.receive_wanted = false;
                events.push(Event::Ended { socket, result });
            } else if entry.receive.is_none() && !entry.starved {
                let Some(descriptor) = &entry.descriptor else {
                    return;
                };
                let descriptor = descriptor.as_raw_fd();
                let tag = RECEIVE | u64::from(slot);
                let flight = if self.sparing {
                    self.ring.receive_once(descriptor, tag)
                } else {
                    self.ring.receive(descriptor, tag)
                };
                if let Some(entry) = self.entry(socket) {
                    entry.receive = Some(flight);
                }
            }
        } else if entry.held.len() > HELD_CHUNKS_MAX
            && !entry.cancelling
            && let Some(flight) = entry.receive
        {
            entry.cancelling = true;
            self.ring.cancel(flight);
        }
    }

    /// Ends receiving that goes on by itself; it is started again one buffer at a time.
    fn begin_sparing(&mut self) {
        for slot in &mut self.slots {
            if let Some(entry) = &mut slot.entry
                && let Some(flight) = entry.receive
                && !entry.cancelling
            {
                entry.cancelling = true;
                self.ring.cancel(flight);
            }
        }
    }

    fn sent(&mut self, slot: u64, completion: Completion, events: &mut Vec<Event>) {
        let socket = self.socket_of(slot);
        let Memory::Bytes(mut buf) = completion.memory else {
            return;
        };
        let Some(entry) = &mut self.slots[slot as usize].entry else {
            return;
        };
        entry.send = None;
        let result = match completion.result {
            Ok(sent) => {
                entry.send_offset += sent as usize;
                if entry.send_offset < buf.len() && !entry.closing && sent > 0 {
                    let Some(descriptor) = &entry.descriptor else {
                        return;
                    };
                    let (descriptor, offset) = (descriptor.as_raw_fd(), entry.send_offset);
                    entry.send = Some(self.ring.send(descriptor, buf, offset, SEND | slot));
                    return;
                }
                Ok(())
            }
            Err(errno) => Err(errno),
        };
        if entry.closing {
            self.finish_close(socket, events);
        } else {
            buf.clear();
            events.push(Event::Sent {
                socket,
                result,
                buf,
            });
        }
    }

    fn connect_done(&mut self, slot: u64, completion: &Completion, events: &mut Vec<Event>) {
        let socket = self.socket_of(slot);
        let Some(entry) = &mut self.slots[slot as usize].entry else {
            return;
        };
        entry.connect = None;
        if entry.closing {
            self.finish_close(socket, events);
            return;
        }
        match completion.result {
            Ok(_) => {
                events.push(Event::Connected {
                    socket,
                    result: Ok(()),
                });
            }
            Err(errno) => {
                self.remove(socket);
                events.push(Event::Connected {
                    socket,
                    result: Err(errno),
                });
            }
        }
    }

    fn finish_close(&mut self, socket: Socket, events: &mut Vec<Event>) {
        let Some(entry) = self.entry(socket) else {
            return;
        };
        if entry.receive.is_none() && entry.send.is_none() && entry.connect.is_none() {
            self.remove(socket);
            events.push(Event::Closed { socket });
        }
    }

    fn remove(&mut self, socket: Socket) {
        let slot = (socket.0 & 0xffff_ffff) as usize;
        let Some(entry) = self.slots[slot].entry.take() else {
            return;
        };
        self.slots[slot].generation = self.slots[slot].generation.wrapping_add(1);
        self.free.push(slot as u32);
        if entry.accepted {
            self.accepted_count -= 1;
        }
        drop(entry);
        for listening in &mut self.listening {
            listening.retry_at = None;
        }
        self.start_accepting();
    }

    fn wait_ns(&self, deadline: Option<u64>) -> Option<u64> {
        if !self.pending.is_empty() {
            return Some(0);
        }
        let retry = self
            .listening
            .iter()
            .filter_map(|listening| listening.retry_at)
            .min();
        let deadline = [deadline, retry].into_iter().flatten().min()?;
        Some(deadline.saturating_sub(self.origin.elapsed().as_nanos() as u64 + 1))
    }
}

fn open_log(path: Option<&Path>) -> Result<File, i32> {
    let path = path.ok_or(libc::EBADF)?;
    let opened = File::options().create(true).append(true).open(path);
    opened.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
}

/// An IPv4 client of an IPv6 socket is an IPv4 client.
fn normalised(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Driver for RingDriver {
    fn now(&self) -> Now {
        self.now
    }

    fn connect(&mut self, remote: SocketAddr) -> Socket {
        self.connect_to(remote.into())
    }

    fn connect_local(&mut self, path: &Path) -> Socket {
        match socket2::SockAddr::unix(path) {
            Ok(remote) => self.connect_to(remote),
            Err(error) => self.refuse(error.raw_os_error().unwrap_or(libc::EINVAL)),
        }
    }

    fn receive(&mut self, socket: Socket, on: bool) {
        let Some(entry) = self.entry(socket) else {
            return;
        };
        entry.receive_wanted = on;
        let mut events = std::mem::take(&mut self.pending);
        self.tend(socket, &mut events);
        self.pending = events;
    }

    fn receive_sparingly(&mut self, on: bool) {
        self.sparing = on;
        if on {
            self.begin_sparing();
        }
    }

    fn send(&mut self, socket: Socket, buf: Vec<u8>) {
        let slot = socket.0 & 0xffff_ffff;
        let Some(entry) = self.entry(socket) else {
            return;
        };
        assert!(entry.send.is_none(), "one send in flight a socket");
        let Some(descriptor) = &entry.descriptor else {
            return;
        };
        let descriptor = descriptor.as_raw_fd();
        let flight = self.ring.send(descriptor, buf, 0, SEND | slot);
        if let Some(entry) = self.entry(socket) {
            entry.send = Some(flight);
            entry.send_offset = 0;
        }
    }

    fn close(&mut self, socket: Socket) {
        let Some(entry) = self.entry(socket) else {
            return;
        };
        entry.closing = true;
        entry.held.clear();
        let flights = [entry.receive, entry.send, entry.connect];
        for flight in flights.into_iter().flatten() {
            self.ring.cancel(flight);
        }
        let mut events = std::mem::take(&mut self.pending);
        self.finish_close(socket, &mut events);
        self.pending = events;
    }

    fn disk(&mut self, request: Request) {
        if let Some(done) = self.disk.start(&mut self.ring, request, DISK) {
            self.pending.push(Event::Disk(done));
        }
    }

    fn log(&mut self, mut buf: Vec<u8>) {
        if self.log.is_err() && self.now.mono_ns >= self.log_retry_at {
            self.reopen_log();
        }
        match &self.log {
            Ok(file) => {
                self.ring.append(file.as_raw_fd(), buf, LOG);
            }
            Err(errno) => {
                buf.clear();
                let result = Err(*errno);
                self.pending.push(Event::LogWritten { result, buf });
            }
        }
    }

    fn reopen_log(&mut self) {
        self.log = open_log(self.config.log_file.as_deref());
        self.log_retry_at = self.now.after_ns(LOG_RETRY_NS);
    }

    fn wake(&mut self, shard: usize) {
        if let Some(ring) = self.config.doorbells.ring_from_shard(shard) {
            self.ring.message(ring);
        }
    }

    fn stop_accepting(&mut self) {
        self.accepting = false;
        for listening in &self.listening {
            if let Some(flight) = listening.flight {
                self.ring.cancel(flight);
            }
        }
    }

    fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8] {
        match chunk {
            Chunk::Provided { id, len } => self.buffers.bytes(*id, *len as usize),
            Chunk::Owned(bytes) => bytes,
        }
    }

    fn recycle(&mut self, chunk: Chunk) {
        if let Chunk::Provided { id, .. } = chunk {
            self.buffers.give(id);
        }
    }

    fn poll(&mut self, deadline_mono_ns: Option<u64>, events: &mut Vec<Event>) {
        // Buffers have been given back since the last poll: those that starved try again.
        self.buffers.hand_over(&mut self.ring);
        for slot in std::mem::take(&mut self.starved) {
            let socket = self.socket_of(u64::from(slot));
            if let Some(entry) = self.entry(socket) {
                entry.starved = false;
            }
            let mut pending = std::mem::take(&mut self.pending);
            self.tend(socket, &mut pending);
            self.pending = pending;
        }
        let wait_ns = self.wait_ns(deadline_mono_ns);
        let asleep = wait_ns != Some(0) && self.config.doorbells.announce_sleep(self.config.shard);
        self.ring.wait(if asleep { wait_ns } else { Some(0) });
        let woken = self.config.doorbells.wake(self.config.shard);
        self.read_clock();
        events.append(&mut self.pending);
        while let Some(completion) = self.ring.reap() {
            self.complete(completion, events);
        }
        if woken {
            events.push(Event::Woken);
        }
        self.start_accepting();
    }
}

impl RingDriver {
    fn connect_to(&mut self, remote: socket2::SockAddr) -> Socket {
        let made = socket2::Socket::new(remote.domain(), socket2::Type::STREAM, None);
        let stream = match made {
            Ok(stream) => stream,
            Err(error) => return self.refuse(error.raw_os_error().unwrap_or(libc::EIO)),
        };
        if !remote.is_unix() {
            let _ = stream.set_tcp_nodelay(true);
        }
        let socket = self.insert(stream.into(), false);
        let slot = socket.0 & 0xffff_ffff;
        let Some(entry) = self.slots[slot as usize].entry.as_mut() else {
            return socket;
        };
        if let Some(descriptor) = &entry.descriptor {
            let flight = self
                .ring
                .connect(descriptor.as_raw_fd(), remote, CONNECT | slot);
            entry.connect = Some(flight);
        }
        socket
    }

    /// A connect that failed before it began.
    fn refuse(&mut self, errno: i32) -> Socket {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let socket = self.socket_of(u64::from(slot));
        let place = &mut self.slots[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        self.free.push(slot);
        self.pending.push(Event::Connected {
            socket,
            result: Err(errno),
        });
        socket
    }
}
