//! One accepted connection: bytes to the session, the session's wishes to policy and spool.
//!
//! Input that the session cannot take yet waits in `held`, in order; when it is more than
//! [`HELD_BYTES_MAX`] receiving is switched off. Replies wait in `output`; a client that does not
//! read them is not read from either.

use std::net::SocketAddr;

use spool::SpoolId;

use super::memory::BULKY_BYTES;
use super::{Role, Shard};
use crate::base::slab::Key;
use crate::base::timers::Armed;
use crate::io::{Chunk, Driver, Socket};
use crate::policy::Decision;
use crate::protocol::Input;
use crate::protocol::server::{Peer, Question, Session, Verdict, Want};
use crate::router::Check;

/// Input kept for a session that cannot take it; four receive buffers of the usual size.
const HELD_BYTES_MAX: usize = 16 * 1024;

/// Replies kept for a client that does not read; beyond it no more commands are taken.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// The reply while too much waits to be routed.
const UNROUTED: &str = "451 4.3.2 too many messages wait to be routed";

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Commands or content are taken.
    Open,
    /// An address is being verified; nothing is taken.
    Judging,
    /// A complete message waits for its commit; nothing is taken.
    Storing,
    /// Output is flushed, then the socket is closed.
    Flushing,
    /// The driver was asked to close.
    Closing,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) socket: Socket,
    pub(super) peer: SocketAddr,
    /// Its address as text.
    pub(super) peer_text: Vec<u8>,
    pub(super) listener: usize,
    pub(super) session: Session,
    pub(super) phase: Phase,
    /// The id that stands in the Received: line of the content under way.
    pub(super) id: Option<SpoolId>,
    /// The sender of the transaction under way.
    sender: Vec<u8>,
    held: Vec<u8>,
    pub(super) output: Vec<u8>,
    spare: Vec<u8>,
    sending: bool,
    receive_on: bool,
    /// Counted in the shard's `receiving_count`.
    counted: bool,
    /// Bytes of content counted in the shard's memory budget.
    pub(super) staged_bytes: usize,
    /// Of them, bytes on their way to a file.
    pub(super) leaving_bytes: usize,
    /// Its place among those that hold much.
    pub(super) bulky: Option<u64>,
    /// Waits until the memory budget has room.
    pub(super) starved: bool,
    /// Content under way goes to the file of this message.
    pub(super) spill: Option<SpoolId>,
    /// Waits until the last piece for that file is written.
    pub(super) spill_waits: bool,
    /// The client has closed its side.
    ended: bool,
    armed: Armed,
}

impl Inbound {
    /// Paused by us in the middle of content: the client's time does not count.
    fn waits_for_us(&self) -> bool {
        self.starved || self.spill_waits
    }

    fn is_blocked(&self) -> bool {
        self.phase != Phase::Open
            || self.starved
            || self.spill_waits
            || (self.sending && self.output.len() > OUTPUT_BYTES_MAX)
    }
}

impl<D: Driver> Shard<D> {
    pub(super) fn accepted(
        &mut self,
        socket: Socket,
        listener: usize,
        peer: SocketAddr,
        _local: SocketAddr,
    ) {
        let settings = self.settings.services[listener].clone();
        let who = Peer {
            address: peer.ip(),
            port: peer.port(),
        };
        let mut inbound = Inbound {
            socket,
            peer,
            peer_text: peer.ip().to_string().into_bytes(),
            listener,
            session: Session::new(settings, who, self.now),
            phase: Phase::Open,
            id: None,
            sender: Vec::new(),
            held: Vec::new(),
            output: Vec::new(),
            spare: Vec::new(),
            sending: false,
            receive_on: true,
            counted: false,
            staged_bytes: 0,
            leaving_bytes: 0,
            bulky: None,
            starved: false,
            spill: None,
            spill_waits: false,
            ended: false,
            armed: Armed::default(),
        };
        inbound.session.greet(&mut inbound.output);
        match self.inbound.insert(inbound) {
            Ok(key) => {
                self.roles.insert(socket, Role::Inbound(key));
                self.driver.receive(socket, true);
                self.settle(key);
            }
            // The driver stops accepting at the same bound; this is the race at its edge.
            Err(_) => self.driver.close(socket),
        }
    }

    /// Feeds a session what has arrived until it needs something or the input is used up.
    pub(super) fn pump(&mut self, key: Key, chunk: Option<Chunk>) {
        let chunk = self.hold_behind(key, chunk);
        let mut used = 0;
        while let Some(inbound) = self.inbound.get_mut(key) {
            if inbound.is_blocked() {
                break;
            }
            let bytes = match &chunk {
                Some(chunk) => self.driver.bytes(chunk),
                None => &inbound.held[..],
            };
            let Some(bytes) = bytes.get(used..) else {
                break;
            };
            let mut input = Input::new(bytes);
            let want = inbound
                .session
                .receive(&mut input, self.now, &mut inbound.output);
            used += input.consumed();
            if !self.grant(key, want) {
                break;
            }
        }
        self.keep_rest(key, chunk, used);
        self.settle(key);
    }

    /// A chunk that arrives behind held input joins it; else it is handed back to be used in place.
    fn hold_behind(&mut self, key: Key, chunk: Option<Chunk>) -> Option<Chunk> {
        let chunk = chunk?;
        match self.inbound.get_mut(key) {
            Some(inbound) if inbound.held.is_empty() && !inbound.is_blocked() => Some(chunk),
            Some(inbound) => {
                inbound.held.extend_from_slice(self.driver.bytes(&chunk));
                self.driver.recycle(chunk);
                None
            }
            None => {
                self.driver.recycle(chunk);
                None
            }
        }
    }

    fn keep_rest(&mut self, key: Key, chunk: Option<Chunk>, used: usize) {
        let inbound = self.inbound.get_mut(key);
        match chunk {
            Some(chunk) => {
                if let Some(inbound) = inbound {
                    inbound
                        .held
                        .extend_from_slice(&self.driver.bytes(&chunk)[used..]);
                }
                self.driver.recycle(chunk);
            }
            None => {
                if let Some(inbound) = inbound {
                    inbound.held.drain(..used);
                    if inbound.held.is_empty() && inbound.held.capacity() > HELD_BYTES_MAX {
                        inbound.held = Vec::new();
                    }
                }
            }
        }
    }

    /// Gives the session what it wants. Says whether it can go on at once.
    fn grant(&mut self, key: Key, want: Want) -> bool {
        let Some(inbound) = self.inbound.get_mut(key) else {
            return false;
        };
        match want {
            Want::Input => return false,
            Want::Policy(question) => {
                return self.judge(key, &question);
            }
            Want::Begin => {
                self.drop_spill(key);
                let Some(inbound) = self.inbound.get_mut(key) else {
                    return false;
                };
                let id = self.log.reserve_id();
                inbound.id = Some(id);
                inbound
                    .session
                    .begin(&id.to_string(), self.now, &mut inbound.output);
            }
            Want::Store(transaction) => {
                inbound.phase = Phase::Storing;
                self.store(key, *transaction);
            }
            Want::Close => inbound.phase = Phase::Flushing,
        }
        true
    }

    /// Judges a sender or a recipient. Says whether the session can go on at once.
    fn judge(&mut self, key: Key, question: &Question) -> bool {
        let full = self.routes_are_full();
        let Some(inbound) = self.inbound.get_mut(key) else {
            return false;
        };
        let decision = match question {
            // Before the client sends its content; what has begun is stored while there is a place.
            Question::Sender { address } => {
                inbound.sender.clone_from(address);
                match self.shared.space().refusal() {
                    Some(reply) => Decision::Reject(reply),
                    None if full => Decision::Reject(UNROUTED),
                    None => Decision::Accept,
                }
            }
            Question::Recipient { address } => {
                self.policies[inbound.listener].recipient(inbound.peer.ip(), address)
            }
        };
        let verdict = match (decision, question) {
            (Decision::Reject(reply), _) => Some(Verdict::Reject(reply.into())),
            // A router that verifies knows aliases and lists besides users.
            (Decision::IfKnown, Question::Recipient { address }) if !self.router.verifies() => {
                self.judge_user(key, address)
            }
            (_, Question::Sender { address }) => self.verify(key, Check::Sender, b"", address),
            (_, Question::Recipient { address }) => {
                let inbound = self.inbound.get_mut(key);
                let sender = inbound.map(|inbound| std::mem::take(&mut inbound.sender));
                let sender = sender.unwrap_or_default();
                let verdict = self.verify(key, Check::Recipient, &sender, address);
                if let Some(inbound) = self.inbound.get_mut(key) {
                    inbound.sender = sender;
                }
                verdict
            }
        };
        let Some(inbound) = self.inbound.get_mut(key) else {
            return false;
        };
        match verdict {
            Some(verdict) => {
                let now = self.now;
                inbound.session.verdict(verdict, now, &mut inbound.output);
                true
            }
            // It waits, or has been told already.
            None if self.router.verifies() => false,
            None => {
                inbound.phase = Phase::Judging;
                false
            }
        }
    }

    /// Brings sending, receiving, accounts and timer of a connection up to date with its session.
    pub(super) fn settle(&mut self, key: Key) {
        self.spill_turn(key);
        self.account(key);
        self.relieve();
        let Some(inbound) = self.inbound.get_mut(key) else {
            return;
        };
        if !inbound.sending && !inbound.output.is_empty() && inbound.phase != Phase::Closing {
            inbound.sending = true;
            let next = std::mem::take(&mut inbound.spare);
            let output = std::mem::replace(&mut inbound.output, next);
            self.driver.send(inbound.socket, output);
        }
        if inbound.ended && !inbound.is_blocked() {
            // All it sent has been answered; what is left is half a line.
            inbound.phase = Phase::Flushing;
        }
        if inbound.phase == Phase::Flushing && !inbound.sending {
            self.close_inbound(key);
            return;
        }
        let full = inbound.is_blocked() && inbound.held.len() > HELD_BYTES_MAX;
        let over = inbound.phase == Phase::Closing || inbound.ended;
        let receive = !(over || full || inbound.starved);
        if receive != inbound.receive_on {
            inbound.receive_on = receive;
            self.driver.receive(inbound.socket, receive);
        }
        let deadline = inbound.session.deadline();
        self.timers.arm(key.0, &mut inbound.armed, deadline);
    }

    /// Keeps the count of sessions inside content and the memory budget true.
    fn account(&mut self, key: Key) {
        let Some(inbound) = self.inbound.get_mut(key) else {
            return;
        };
        let receiving = inbound.phase == Phase::Open && inbound.session.is_receiving_content();
        if receiving != inbound.counted {
            inbound.counted = receiving;
            if receiving {
                self.receiving_count += 1;
            } else {
                self.receiving_count -= 1;
                // Refused or complete: others that wait may go on; see `Shard::turn`.
                self.memory.forget(key);
            }
            self.log.set_receiving(self.receiving_count);
        }
        if inbound.phase == Phase::Open {
            let held = self.count_held(key);
            let Some(inbound) = self.inbound.get_mut(key) else {
                return;
            };
            if held >= BULKY_BYTES {
                self.memory.bulky(key, &mut inbound.bulky);
            } else {
                self.memory.not_bulky(&mut inbound.bulky);
            }
            // From one that has ended nothing more comes.
            let may_starve = receiving && !inbound.ended;
            inbound.starved = may_starve && self.memory.is_starved(key, held);
        }
    }

    /// Enters what a session holds into the memory budget; gives back what it holds itself.
    fn count_held(&mut self, key: Key) -> usize {
        let Some(inbound) = self.inbound.get_mut(key) else {
            return 0;
        };
        let held = inbound.session.held_capacity();
        let leaving = inbound.spill.map_or(0, |id| self.log.content_backlog(id));
        self.memory
            .staged(&mut inbound.staged_bytes, held + leaving);
        self.memory.leaving(&mut inbound.leaving_bytes, leaving);
        held
    }

    /// Writes content of others to files while memory is short. One session's bytes are counted again
    /// at its next turn, those that leave at once.
    fn relieve(&mut self) {
        while let Some(key) = self.memory.next_bulky() {
            if let Some(inbound) = self.inbound.get_mut(key) {
                inbound.bulky = None;
            }
            self.spill(key);
            // One that is being written already is marked again at its next turn.
            self.count_held(key);
        }
    }

    pub(super) fn inbound_sent(&mut self, key: Key, result: Result<(), i32>, buf: Vec<u8>) {
        let Some(inbound) = self.inbound.get_mut(key) else {
            return;
        };
        inbound.sending = false;
        inbound.spare = buf;
        if result.is_err() {
            self.close_inbound(key);
            return;
        }
        self.pump(key, None);
    }

    /// The client closed its side or the connection failed. RFC 5321 4.1.1.10: an unfinished
    /// transaction is dropped; a message that waits for its commit is still ours to deliver. A client that
    /// only closed its side gets the replies to what it has sent.
    pub(super) fn inbound_ended(&mut self, key: Key, error: Option<i32>) {
        let Some(inbound) = self.inbound.get_mut(key) else {
            return;
        };
        if error.is_some() {
            self.close_inbound(key);
            return;
        }
        inbound.ended = true;
        self.pump(key, None);
    }

    pub(super) fn close_inbound(&mut self, key: Key) {
        let Some(inbound) = self.inbound.get_mut(key) else {
            return;
        };
        if inbound.phase != Phase::Closing {
            inbound.phase = Phase::Closing;
            self.driver.close(inbound.socket);
            self.account(key);
        }
    }

    pub(super) fn inbound_closed(&mut self, key: Key) {
        self.drop_spill(key);
        let Some(mut inbound) = self.inbound.remove(key) else {
            return;
        };
        self.memory.staged(&mut inbound.staged_bytes, 0);
        self.memory.leaving(&mut inbound.leaving_bytes, 0);
        self.memory.not_bulky(&mut inbound.bulky);
        self.memory.forget(key);
        self.feed_starved();
    }

    pub(super) fn inbound_timer(&mut self, key: Key) {
        let Some(inbound) = self.inbound.get_mut(key) else {
            return;
        };
        inbound.armed = Armed::default();
        let due = inbound.session.deadline() <= self.now.mono_ns;
        match (inbound.phase, due) {
            (Phase::Open, true) if inbound.waits_for_us() => {
                let later = self.now.after_ns(1_000_000_000);
                self.timers.arm(key.0, &mut inbound.armed, later);
                return;
            }
            (Phase::Open, true) => {
                inbound.session.timeout(self.now, &mut inbound.output);
                // The 421 follows what is being sent; a client that reads neither has one more idle time.
                inbound.phase = Phase::Flushing;
            }
            (Phase::Flushing, true) => self.close_inbound(key),
            // The client waits for us: its idle time does not count.
            (Phase::Judging | Phase::Storing, true) => {
                let later = self.now.after_ns(1_000_000_000);
                self.timers.arm(key.0, &mut inbound.armed, later);
                return;
            }
            (Phase::Closing, _) => return,
            (_, false) => {}
        }
        self.settle(key);
    }

    /// Lets sessions go on that waited for memory, as many as now fit.
    pub(super) fn feed_starved(&mut self) {
        while let Some(key) = self.memory.next_starved() {
            if let Some(inbound) = self.inbound.get_mut(key) {
                inbound.starved = false;
                inbound.session.resumed(self.now);
                self.pump(key, None);
            }
        }
    }
}
