//! The driver seam: clock, sockets, disk and wake-up of one shard, behind one trait.
//!
//! `src/shard` is generic over [`Driver`]. Two implementations: `ring_driver` on io_uring for the
//! daemon, `sim` seeded and simulated for tests. A driver executes; it never decides about mail.

#![expect(missing_docs, reason = "fields are named for what they hold")]

pub mod doorbell;
pub mod ring_driver;
pub mod sim;

use std::net::SocketAddr;
use std::path::Path;

use spool::op::{Completion, Request};

use crate::base::clock::Now;

/// Names a socket of one shard. Never reused within a run of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Socket(pub u64);

/// Bytes that arrived; valid until given back with [`Driver::recycle`].
#[derive(Debug)]
pub enum Chunk {
    /// In buffer `id` of the provided-buffer ring.
    Provided {
        /// Buffer number.
        id: u16,
        /// Bytes used in it.
        len: u32,
    },
    /// In memory of its own.
    Owned(Vec<u8>),
}

/// What happened. At most one `Sent` per [`Driver::send`], one `Connected` per
/// [`Driver::connect`], one `Closed` per [`Driver::close`]; nothing about a socket after `Closed`.
#[derive(Debug)]
pub enum Event {
    /// A client connected to listener number `listener`. The peer is known (no address, no
    /// session) and IPv4-mapped addresses are already normalised. Receiving is off.
    Accepted {
        socket: Socket,
        listener: usize,
        peer: SocketAddr,
        local: SocketAddr,
    },
    /// The answer to [`Driver::connect`]; `Err` carries the errno and the socket is already closed.
    Connected {
        socket: Socket,
        result: Result<(), i32>,
    },
    /// Bytes in order.
    Received { socket: Socket, chunk: Chunk },
    /// The peer closed its direction (`Ok`), or receiving failed with this errno. Comes once.
    Ended {
        socket: Socket,
        result: Result<(), i32>,
    },
    /// The whole buffer has been handed to the kernel, or sending failed with this errno. The
    /// buffer comes back, cleared, for reuse.
    Sent {
        socket: Socket,
        result: Result<(), i32>,
        buf: Vec<u8>,
    },
    /// All operations on the socket have ended and its descriptor is closed.
    Closed { socket: Socket },
    /// A disk request completed.
    Disk(Completion),
    /// Somebody rang this shard's doorbell since the last poll (may be spurious, may be coalesced).
    Woken,
    /// A log append completed: bytes written, or the errno. The buffer comes back, cleared.
    LogWritten {
        result: Result<(), i32>,
        buf: Vec<u8>,
    },
}

/// Clock, sockets, disk and wake-up of one shard.
///
/// Calls never block; [`Driver::poll`] is the one wait point. Bounds: one send in flight a socket;
/// one log append in flight; any number of disk requests within what the engine asks for.
pub trait Driver {
    /// The time of the last poll.
    fn now(&self) -> Now;

    /// Start (or go on) connecting to `remote`; [`Event::Connected`] follows.
    fn connect(&mut self, remote: SocketAddr) -> Socket;

    /// Start connecting to a socket of this host by its path; [`Event::Connected`] follows.
    fn connect_local(&mut self, path: &Path) -> Socket;

    /// Switch receiving on or off. Off keeps what has already arrived in order: it is delivered
    /// after receiving is switched on again.
    fn receive(&mut self, socket: Socket, on: bool);

    /// Memory is short (`true`): from now on one buffer at a time is received from each socket, and the
    /// next one only when this one has been looked at. Otherwise a client that sends much at once has all
    /// of it in memory before anybody can stop it.
    fn receive_sparingly(&mut self, on: bool);

    /// Send all of `buf` (not empty). One in flight a socket.
    fn send(&mut self, socket: Socket, buf: Vec<u8>);

    /// Cancel what is in flight, close; [`Event::Closed`] follows.
    fn close(&mut self, socket: Socket);

    /// Execute a disk request against this shard's spool directory.
    fn disk(&mut self, request: Request);

    /// Append to this shard's mail log; [`Event::LogWritten`] follows. One in flight.
    fn log(&mut self, buf: Vec<u8>);

    /// Open the mail log again under its name. Not while an append is in flight.
    fn reopen_log(&mut self);

    /// Ring the doorbell of another shard. Coalesced; loss is harmless.
    fn wake(&mut self, shard: usize);

    /// Stop accepting on all listeners (shutdown), for good.
    fn stop_accepting(&mut self);

    /// The bytes of a chunk.
    fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8];

    /// Give a chunk's memory back.
    fn recycle(&mut self, chunk: Chunk);

    /// Submit what was asked, wait for events until `deadline_mono_ns` at most (`None`: for ever;
    /// a past deadline: do not wait), and append them to `events`.
    fn poll(&mut self, deadline_mono_ns: Option<u64>, events: &mut Vec<Event>);
}
