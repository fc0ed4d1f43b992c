//! One simulated connection: the driver's socket at one end, the test at the other.

use std::collections::VecDeque;
use std::net::SocketAddr;

/// What arrives at the driver's end, in order.
#[derive(Debug)]
pub(super) enum Incoming {
    Bytes(Vec<u8>),
    End(Result<(), i32>),
}

/// The driver's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// An incoming connection not yet reported.
    Arriving,
    /// An outgoing connection nobody answered yet.
    Connecting,
    Open,
    /// [`close`](crate::io::Driver::close) was called, its event has not been reported.
    Closing,
    /// Closed, or never opened.
    Gone,
}

/// A send that has not been reported.
#[derive(Debug)]
pub(super) struct Sending {
    /// Counts the sends of the socket.
    pub(super) number: u64,
    /// Its bytes are on their way.
    pub(super) started: bool,
    pub(super) buf: Vec<u8>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) shard: usize,
    /// Whom the driver called; none: it was called.
    pub(super) remote: Option<SocketAddr>,
    pub(super) state: State,
    pub(super) receiving: bool,
    /// Arrived and not delivered.
    pub(super) inbox: VecDeque<Incoming>,
    /// An end stands in the inbox or was delivered.
    pub(super) inbox_ended: bool,
    pub(super) sending: Option<Sending>,
    pub(super) sends: u64,
    /// The number of the send that a close cut off: what has not arrived of it never does.
    pub(super) cut_send: Option<u64>,
    /// The errno of every further send.
    pub(super) broken: Option<i32>,
    /// Nothing arrives at the driver before what was sent to it earlier.
    pub(super) to_driver_ns: u64,
    /// Likewise at the test's end.
    pub(super) to_far_ns: u64,
    pub(super) far: Far,
}

/// The test's end of a connection.
#[derive(Debug)]
pub(super) struct Far {
    /// The address the driver sees.
    pub(super) address: SocketAddr,
    pub(super) received: Vec<u8>,
    /// How the driver's direction ended.
    pub(super) ended: Option<Result<(), i32>>,
    /// Sends nothing any more.
    pub(super) finished: bool,
    /// Takes nothing any more.
    pub(super) closed: bool,
    /// Has stopped reading; its window is full.
    pub(super) stalled: bool,
    /// The test will not ask for it again, or has never heard of it.
    pub(super) forgotten: bool,
}

impl Link {
    pub(super) fn new(shard: usize, state: State, address: SocketAddr) -> Self {
        Self {
            shard,
            remote: None,
            state,
            receiving: false,
            inbox: VecDeque::new(),
            inbox_ended: false,
            sending: None,
            sends: 0,
            cut_send: None,
            broken: None,
            to_driver_ns: 0,
            to_far_ns: 0,
            far: Far {
                address,
                received: Vec::new(),
                ended: None,
                finished: false,
                closed: false,
                stalled: false,
                forgotten: state == State::Connecting,
            },
        }
    }

    /// Something arrives at the driver's end. Nothing follows an end.
    pub(super) fn arrive(&mut self, incoming: Incoming) {
        if let Incoming::End(Err(errno)) = incoming {
            self.broken = Some(errno);
        }
        if self.state == State::Open && !self.inbox_ended {
            self.inbox_ended = matches!(incoming, Incoming::End(_));
            self.inbox.push_back(incoming);
        }
    }

    /// Whether the next poll has something for the driver.
    pub(super) fn is_readable(&self) -> bool {
        self.state == State::Open && self.receiving && !self.inbox.is_empty()
    }
}
