//! One connection to a next hop: addresses, connecting, the client session, idling.
//!
//! A connection is opened because the scheduler counted it against a slot; whatever happens, its
//! end is reported with [`Scheduler::connection_closed`](crate::scheduler::Scheduler) exactly once,
//! after the descriptor is closed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use spool::ContentFile;

use super::{OUTBOUND_TIMER, Role, Shard};
use crate::base::clock::Now;
use crate::base::slab::Key;
use crate::base::timers::Armed;
use crate::control::resolver::{Answer, Lookup, Question};
use crate::io::{Chunk, Driver, Socket};
use crate::protocol::client::{self, Event, Failure, Job, RecipientResult, Session};
use crate::router::next_hop::NextHop;
use crate::scheduler::{ConnectionEnd, ThreadKey, VertexKey};

/// Addresses of one next hop that one connection tries, at most.
const CANDIDATES_MAX: usize = 8;

/// How long an answer from the resolver is waited for.
const RESOLVE_NS: u64 = 60_000_000_000;

/// What a shard knows of a (channel, host).
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) channel: Arc<str>,
    pub(super) host: Arc<str>,
    next_hop: Result<NextHop, String>,
    /// Its number in the log, once a message has rested.
    pub(super) hop: Option<spool::Hop>,
    /// Connections that are open and have nothing to do.
    idle: Vec<Key>,
    pub(super) eager: bool,
}

#[derive(Debug)]
enum Phase {
    /// The resolver was asked.
    Resolving { question: u64, deadline: u64 },
    /// Connecting to an address.
    Connecting { socket: Socket, deadline: u64 },
    /// Connected; the session decides.
    Open {
        socket: Socket,
        session: Box<Session>,
    },
    /// The driver was asked to close.
    Closing,
}

/// A job that a session has.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) vertex: VertexKey,
    pub(super) payload: u64,
    /// Its content, when that is in a file; open for reading.
    pub(super) file: Option<Arc<ContentFile>>,
}

/// A connection to a next hop.
#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) thread: ThreadKey,
    phase: Phase,
    /// Addresses still to be tried, the best one last.
    candidates: Vec<SocketAddr>,
    relay: Option<SocketAddr>,
    /// Jobs handed to the session.
    jobs: Vec<Given>,
    /// Content of the next job is being read.
    pub(super) loading: bool,
    /// A piece of the content under way is being read.
    pub(super) reading: bool,
    pub(super) served: u32,
    /// Ends when what is under way is finished: its slot is promised.
    pub(super) leaving: bool,
    ready: bool,
    idle_deadline: Option<u64>,
    output: Vec<u8>,
    spare: Vec<u8>,
    sending: bool,
    end: ConnectionEnd,
    armed: Armed,
}

impl Outbound {
    pub(super) fn session_can_take(&self) -> bool {
        match &self.phase {
            Phase::Open { session, .. } => self.ready && session.can_take(),
            _ => false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    pub(super) fn submit(&mut self, given: Given, job: Job, now: Now) {
        let Phase::Open { session, .. } = &mut self.phase else {
            return;
        };
        self.jobs.push(given);
        self.served += 1;
        self.idle_deadline = None;
        session.submit(job, now, &mut self.output);
    }

    /// The content of the next job is being read: not idle any more.
    pub(super) fn begin_loading(&mut self) {
        self.loading = true;
        self.idle_deadline = None;
    }

    /// The piece of content that should be read now: its job and offset.
    pub(super) fn wants_piece(&self) -> Option<(u64, u64)> {
        match &self.phase {
            Phase::Open { session, .. } if !self.reading => session.wants_piece(),
            _ => None,
        }
    }

    pub(super) fn file_of(&self, token: u64) -> Option<Arc<ContentFile>> {
        let mut jobs = self.jobs.iter();
        let given = jobs.find(|given| given.vertex.0 == token)?;
        given.file.clone()
    }

    /// Hands a piece of content to the session.
    pub(super) fn give_piece(&mut self, token: u64, bytes: Vec<u8>, now: Now) {
        if let Phase::Open { session, .. } = &mut self.phase {
            session.piece(token, bytes);
            if !self.sending && self.output.is_empty() {
                session.sent(now, &mut self.output);
            }
        }
    }

    /// The content of a job cannot be read on.
    pub(super) fn abort(&mut self, token: u64, reply: &[u8]) {
        if let Phase::Open { session, .. } = &mut self.phase {
            session.abort(token, reply);
        }
    }

    /// The payloads of jobs without a result.
    pub(super) fn payloads(&self) -> impl Iterator<Item = u64> + '_ {
        self.jobs.iter().map(|given| given.payload)
    }

    /// Jobs without a result.
    pub(super) fn jobs_count(&self) -> usize {
        self.jobs.len()
    }

    fn deadline(&self) -> Option<u64> {
        match &self.phase {
            Phase::Resolving { deadline, .. } | Phase::Connecting { deadline, .. } => {
                Some(*deadline)
            }
            Phase::Open { session, .. } => [session.deadline(), self.idle_deadline]
                .into_iter()
                .flatten()
                .min(),
            Phase::Closing => None,
        }
    }
}

impl<D: Driver> Shard<D> {
    pub(super) fn ensure_thread(&mut self, thread: ThreadKey) {
        while self.threads.len() <= thread.0 as usize {
            let (channel, host) = self.scheduler.names(ThreadKey(self.threads.len() as u32));
            let next_hop = match &*channel {
                "local" => Ok(NextHop::Local(self.settings.mailbox_socket.clone())),
                _ => NextHop::parse(&host).map_err(|error| error.to_string()),
            };
            self.threads.push(Thread {
                channel,
                host,
                next_hop,
                hop: None,
                idle: Vec::new(),
                eager: false,
            });
        }
    }

    /// Opens one connection for a thread; the scheduler has counted it.
    pub(super) fn open(&mut self, thread: ThreadKey) {
        self.ensure_thread(thread);
        let outbound = Outbound {
            thread,
            phase: Phase::Closing,
            candidates: Vec::new(),
            relay: None,
            jobs: Vec::new(),
            loading: false,
            reading: false,
            served: 0,
            leaving: false,
            ready: false,
            idle_deadline: None,
            output: Vec::new(),
            spare: Vec::new(),
            sending: false,
            end: ConnectionEnd::Clean,
            armed: Armed::default(),
        };
        let Ok(key) = self.outbound.insert(outbound) else {
            let reply = b"451 4.3.2 too many connections here".to_vec();
            self.scheduler.connection_closed(
                self.now,
                thread,
                false,
                ConnectionEnd::Failed { reply },
            );
            return;
        };
        match &self.threads[thread.0 as usize].next_hop {
            Ok(NextHop::Address(address)) => {
                let address = *address;
                self.connect_to(key, vec![address]);
            }
            Ok(NextHop::Local(path)) => {
                let path = path.clone();
                self.connect_local(key, &path);
            }
            Ok(NextHop::Mx(domain)) => {
                let lookup = Lookup::Mx(domain.to_string());
                self.ask(key, lookup);
            }
            Ok(NextHop::Host { name, port }) => {
                let lookup = Lookup::Host {
                    name: name.to_string(),
                    port: *port,
                };
                self.ask(key, lookup);
            }
            Err(error) => {
                let reply = format!("451 4.4.4 {error}").into_bytes();
                self.outbound_over(key, ConnectionEnd::Failed { reply });
            }
        }
    }

    fn ask(&mut self, key: Key, lookup: Lookup) {
        self.question_next += 1;
        let question = self.question_next;
        self.questions.insert(question, key);
        let asked = (self.outside.ask)(Question {
            shard: self.settings.shard,
            token: question,
            lookup,
        });
        if let Some(outbound) = self.outbound.get_mut(key) {
            let deadline = self.now.after_ns(RESOLVE_NS);
            outbound.phase = Phase::Resolving { question, deadline };
        }
        if asked.is_err() {
            self.resolve_failed(key, b"451 4.4.3 too many name look-ups under way");
        } else {
            self.arm_outbound(key);
        }
    }

    /// An answer of the resolver.
    pub(super) fn answered(&mut self, answer: Answer) {
        let Some(key) = self.questions.remove(&answer.token) else {
            return;
        };
        match answer.result {
            Ok(addresses) => self.connect_to(key, addresses),
            Err(failure) => {
                let Some(outbound) = self.outbound.get(key) else {
                    return;
                };
                let thread = outbound.thread;
                if failure.permanent {
                    self.refuse_thread(thread, &failure.reply());
                }
                self.resolve_failed(key, &failure.reply());
            }
        }
    }

    fn resolve_failed(&mut self, key: Key, reply: &[u8]) {
        self.outbound_over(
            key,
            ConnectionEnd::Failed {
                reply: reply.to_vec(),
            },
        );
    }

    fn connect_to(&mut self, key: Key, mut addresses: Vec<SocketAddr>) {
        let Some(outbound) = self.outbound.get_mut(key) else {
            return;
        };
        addresses.truncate(CANDIDATES_MAX);
        addresses.reverse();
        outbound.candidates = addresses;
        if !self.connect_next(key) {
            self.outbound_over(
                key,
                ConnectionEnd::Failed {
                    reply: b"451 4.4.4 no address to connect to".to_vec(),
                },
            );
        }
    }

    fn connect_local(&mut self, key: Key, path: &Path) {
        let Some(outbound) = self.outbound.get_mut(key) else {
            return;
        };
        let socket = self.driver.connect_local(path);
        let deadline = self.now.after_ns(self.settings.client.connect_ns);
        outbound.phase = Phase::Connecting { socket, deadline };
        self.roles.insert(socket, Role::Outbound(key));
        self.arm_outbound(key);
    }

    fn connect_next(&mut self, key: Key) -> bool {
        let Some(outbound) = self.outbound.get_mut(key) else {
            return false;
        };
        let Some(address) = outbound.candidates.pop() else {
            return false;
        };
        let socket = self.driver.connect(address);
        let deadline = self.now.after_ns(self.settings.client.connect_ns);
        outbound.relay = Some(address);
        outbound.phase = Phase::Connecting { socket, deadline };
        self.roles.insert(socket, Role::Outbound(key));
        self.arm_outbound(key);
        true
    }

    pub(super) fn connected(&mut self, socket: Socket, result: Result<(), i32>) {
        let Some(Role::Outbound(key)) = self.roles.get(&socket).copied() else {
            return;
        };
        match result {
            Ok(()) => {
                let session = Session::new(self.client_settings(key), self.now);
                if let Some(outbound) = self.outbound.get_mut(key) {
                    outbound.phase = Phase::Open {
                        socket,
                        session: Box::new(session),
                    };
                    self.driver.receive(socket, true);
                }
                self.arm_outbound(key);
            }
            Err(errno) => {
                self.roles.remove(&socket);
                let reply = self.connect_error(key, errno);
                self.next_address_or_over(key, reply);
            }
        }
    }

    /// How a connection speaks: LMTP or SMTP, by its channel.
    fn client_settings(&self, key: Key) -> Arc<client::Settings> {
        let thread = self.outbound.get(key).map(|outbound| outbound.thread);
        let channel = thread.map(|thread| &*self.threads[thread.0 as usize].channel);
        match channel {
            Some("lmtp" | "local") => Arc::clone(&self.settings.lmtp),
            _ => Arc::clone(&self.settings.client),
        }
    }

    fn connect_error(&self, key: Key, errno: i32) -> Vec<u8> {
        let relay = self.outbound.get(key).and_then(|outbound| outbound.relay);
        let why = std::io::Error::from_raw_os_error(errno);
        match relay {
            Some(relay) => format!("451 4.4.1 connect to {relay}: {why}").into_bytes(),
            None => format!("451 4.4.1 connect: {why}").into_bytes(),
        }
    }

    fn next_address_or_over(&mut self, key: Key, reply: Vec<u8>) {
        if !self.connect_next(key) {
            self.outbound_over(key, ConnectionEnd::Failed { reply });
        }
    }

    pub(super) fn outbound_received(&mut self, key: Key, chunk: Chunk) {
        if let Some(outbound) = self.outbound.get_mut(key)
            && let Phase::Open { session, .. } = &mut outbound.phase
        {
            session.receive(self.driver.bytes(&chunk), self.now, &mut outbound.output);
        }
        self.driver.recycle(chunk);
        self.outbound_turn(key);
    }

    pub(super) fn outbound_ended(&mut self, key: Key, error: Option<i32>) {
        if let Some(outbound) = self.outbound.get_mut(key)
            && let Phase::Open { session, .. } = &mut outbound.phase
        {
            session.ended(self.now, error);
        }
        self.outbound_turn(key);
    }

    pub(super) fn outbound_sent(&mut self, key: Key, result: Result<(), i32>, buf: Vec<u8>) {
        let Some(outbound) = self.outbound.get_mut(key) else {
            return;
        };
        outbound.sending = false;
        outbound.spare = buf;
        if let Phase::Open { session, .. } = &mut outbound.phase {
            match result {
                Ok(()) => session.sent(self.now, &mut outbound.output),
                // Replies already sent may still be waiting to be read; the end is seen there.
                Err(_) if outbound.jobs.is_empty() => session.ended(self.now, result.err()),
                Err(_) => {}
            }
        }
        self.outbound_turn(key);
    }

    /// Handles the session's events, then gives it more to do.
    pub(super) fn outbound_turn(&mut self, key: Key) {
        loop {
            let Some(outbound) = self.outbound.get_mut(key) else {
                return;
            };
            let Phase::Open { session, .. } = &mut outbound.phase else {
                return;
            };
            let Some(event) = session.poll_event() else {
                break;
            };
            match event {
                Event::Ready => {
                    outbound.ready = true;
                    let thread = outbound.thread;
                    self.scheduler.connection_ready(self.now, thread);
                }
                Event::Finished { token, results } => self.job_finished(key, token, results),
                Event::Broken { failure } => {
                    self.broken(key, failure);
                    return;
                }
                Event::Closed => {
                    self.close_outbound(key, ConnectionEnd::Clean);
                    return;
                }
            }
        }
        self.feed(key);
    }

    fn job_finished(&mut self, key: Key, token: u64, results: Vec<RecipientResult>) {
        let Some(outbound) = self.outbound.get_mut(key) else {
            return;
        };
        let relay = outbound.relay;
        let Some(at) = outbound
            .jobs
            .iter()
            .position(|given| given.vertex.0 == token)
        else {
            return;
        };
        let Given {
            vertex,
            payload,
            file,
        } = outbound.jobs.remove(at);
        if let Some(file) = file {
            self.log.content_close(&file);
        }
        self.finished(vertex, payload, results, relay);
    }

    fn broken(&mut self, key: Key, failure: Failure) {
        let Some(outbound) = self.outbound.get_mut(key) else {
            return;
        };
        if outbound.ready {
            self.close_outbound(key, ConnectionEnd::Clean);
        } else if outbound.candidates.is_empty() {
            // RFC 7504: the last address of this host, too, never takes mail.
            if failure.permanent {
                let thread = outbound.thread;
                self.refuse_thread(thread, &failure.reply);
            }
            self.close_outbound(
                key,
                ConnectionEnd::Failed {
                    reply: failure.reply,
                },
            );
        } else {
            self.leave_socket(key);
            self.next_address_or_over(key, failure.reply);
        }
    }

    /// Closes the socket of an address that does not serve; the connection goes on elsewhere.
    fn leave_socket(&mut self, key: Key) {
        let Some(outbound) = self.outbound.get_mut(key) else {
            return;
        };
        if let Phase::Open { socket, .. } | Phase::Connecting { socket, .. } = outbound.phase {
            self.roles.remove(&socket);
            self.driver.close(socket);
        }
        outbound.sending = false;
        outbound.output.clear();
    }

    /// At shutdown: idle connections say QUIT, those without a session are given up.
    pub(super) fn wind_down(&mut self, key: Key) {
        match self.outbound.get(key).map(Outbound::is_open) {
            Some(true) => self.settle_outbound(key),
            Some(false) => self.close_outbound(key, ConnectionEnd::Clean),
            None => {}
        }
    }

    /// At the end of shutdown.
    pub(super) fn cut_outbound(&mut self, key: Key) {
        self.close_outbound(key, ConnectionEnd::Clean);
    }

    fn close_outbound(&mut self, key: Key, end: ConnectionEnd) {
        let Some(outbound) = self.outbound.get_mut(key) else {
            return;
        };
        match std::mem::replace(&mut outbound.phase, Phase::Closing) {
            Phase::Open { socket, .. } | Phase::Connecting { socket, .. } => {
                outbound.end = end;
                self.driver.close(socket);
            }
            Phase::Resolving { question, .. } => {
                self.questions.remove(&question);
                self.outbound_over(key, end);
            }
            Phase::Closing => {}
        }
    }

    pub(super) fn outbound_closed(&mut self, key: Key) {
        let Some(outbound) = self.outbound.get_mut(key) else {
            return;
        };
        let end = std::mem::replace(&mut outbound.end, ConnectionEnd::Clean);
        self.outbound_over(key, end);
    }

    /// The last act of a connection: its slot goes back.
    fn outbound_over(&mut self, key: Key, end: ConnectionEnd) {
        let Some(outbound) = self.outbound.remove(key) else {
            return;
        };
        if let Phase::Resolving { question, .. } = outbound.phase {
            self.questions.remove(&question);
        }
        for given in &outbound.jobs {
            if let Some(file) = &given.file {
                self.log.content_close(file);
            }
            self.not_attempted(given.vertex);
        }
        let thread = outbound.thread;
        self.threads[thread.0 as usize]
            .idle
            .retain(|other| *other != key);
        if let ConnectionEnd::Failed { reply } = &end {
            self.log_thread_failure(thread, outbound.relay, reply);
        }
        self.scheduler
            .connection_closed(self.now, thread, outbound.ready, end);
    }

    /// Sends, idles, arms the timer.
    pub(super) fn settle_outbound(&mut self, key: Key) {
        let Some(outbound) = self.outbound.get_mut(key) else {
            return;
        };
        let thread = outbound.thread;
        let Phase::Open { socket, session } = &mut outbound.phase else {
            self.arm_outbound(key);
            return;
        };
        let rule = self.scheduler.rule(thread);
        let idle = outbound.ready && session.is_idle() && !outbound.loading;
        let done = outbound.leaving
            || outbound.served >= rule.messages_per_connection
            || self.stopping.is_some();
        if idle && done {
            session.quit(self.now, &mut outbound.output);
        } else if idle && outbound.idle_deadline.is_none() {
            outbound.idle_deadline = Some(self.now.after_ns(rule.idle_ns));
            self.threads[thread.0 as usize].idle.push(key);
        }
        if !outbound.sending && !outbound.output.is_empty() {
            outbound.sending = true;
            let next = std::mem::take(&mut outbound.spare);
            let output = std::mem::replace(&mut outbound.output, next);
            self.driver.send(*socket, output);
        }
        self.read_ahead(key);
        self.arm_outbound(key);
    }

    /// Wakes idle connections of a thread for which work has come.
    pub(super) fn feed_idle(&mut self, thread: ThreadKey) {
        while let Some(key) = self.threads[thread.0 as usize].idle.pop() {
            self.feed(key);
            let still_idle = self
                .outbound
                .get(key)
                .is_some_and(|outbound| outbound.idle_deadline.is_some());
            if still_idle {
                let idle = &mut self.threads[thread.0 as usize].idle;
                if !idle.contains(&key) {
                    idle.push(key);
                }
                break;
            }
        }
    }

    fn arm_outbound(&mut self, key: Key) {
        let Some(outbound) = self.outbound.get_mut(key) else {
            return;
        };
        if let Some(deadline) = outbound.deadline() {
            self.timers
                .arm(key.0 | OUTBOUND_TIMER, &mut outbound.armed, deadline);
        }
    }

    pub(super) fn outbound_timer(&mut self, key: Key) {
        let Some(outbound) = self.outbound.get_mut(key) else {
            return;
        };
        outbound.armed = Armed::default();
        let due = outbound
            .deadline()
            .is_some_and(|deadline| deadline <= self.now.mono_ns);
        if !due {
            self.arm_outbound(key);
            return;
        }
        match &mut outbound.phase {
            Phase::Resolving { .. } => {
                self.resolve_failed(key, b"451 4.4.3 name look-up timed out");
            }
            Phase::Connecting { .. } => {
                let reply = self.connect_error(key, rustix::io::Errno::TIMEDOUT.raw_os_error());
                self.leave_socket(key);
                self.next_address_or_over(key, reply);
            }
            Phase::Open { session, .. } => {
                if outbound
                    .idle_deadline
                    .is_some_and(|idle| idle <= self.now.mono_ns)
                {
                    outbound.idle_deadline = None;
                    let thread = outbound.thread;
                    session.quit(self.now, &mut outbound.output);
                    self.threads[thread.0 as usize]
                        .idle
                        .retain(|other| *other != key);
                } else {
                    session.timeout(self.now);
                }
                self.outbound_turn(key);
            }
            Phase::Closing => {}
        }
    }
}
