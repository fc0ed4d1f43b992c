//! Between shards: handles to the shard that owns a next hop, results back, and the scheduler's
//! lease messages.
//!
//! A handle is sent only when a slot for its answer is reserved (`base::credit`), so giving an
//! answer back never waits. Lease messages that find their queue full wait in an outbox; the
//! scheduler bounds how many there can be.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use spool::ContentFile;

use super::dispatch::{Load, Work};
use super::large::{LARGE_BYTES, Outgoing};
use super::{Shard, dispatch};
use crate::base::credit::{LaneReceiver, LaneSender, lane};
use crate::base::slab::Key;
use crate::io::Driver;
use crate::protocol::client::{Job, RecipientResult, Status};
use crate::scheduler::{LeaseMessage, VertexKey};

/// Handles that one shard may have at another at a time.
const LANE_CAPACITY: usize = 256;

/// Bytes of content read back for handles that one shard has at another, before it waits for answers.
const LOADED_BYTES_MAX: usize = 8 << 20;

/// Lease messages under way between two shards before the outbox is used.
const LEASE_CAPACITY: usize = 256;

/// A vertex of one shard on its way to the shard that owns the next hop.
#[derive(Debug)]
pub(super) struct Handle {
    /// Names the vertex at home.
    pub(super) payload: u64,
    pub(super) channel: Arc<str>,
    pub(super) host: Arc<str>,
    pub(super) job: Job,
    /// Its content, when that is in a file.
    pub(super) file: Option<Arc<ContentFile>>,
    /// Bytes of content that were read back for it and are in memory until it is answered.
    pub(super) loaded_bytes: usize,
}

/// Where the content of a handle comes from.
enum Source {
    /// It was in memory anyway.
    Cache,
    /// So many bytes were read back for it.
    Loaded(usize),
    /// It stays on disk.
    File(Arc<ContentFile>),
}

/// The answer to a [`Handle`]; exactly one each.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) payload: u64,
    pub(super) results: Vec<RecipientResult>,
    pub(super) relay: Option<SocketAddr>,
    /// Of the handle.
    pub(super) loaded_bytes: usize,
}

/// This shard's ends of the queues to one other shard.
pub struct Neighbour {
    sender: LaneSender<Handle, Returned>,
    receiver: LaneReceiver<Handle, Returned>,
    lease_out: Arc<ArrayQueue<LeaseMessage>>,
    lease_in: Arc<ArrayQueue<LeaseMessage>>,
    outbox: VecDeque<LeaseMessage>,
    /// Handles whose content is being read; each of them will need a slot.
    loading: u32,
    /// Bytes of content that were read back for handles there.
    loaded_bytes: usize,
}

impl Neighbour {
    /// Slots for handles that nothing is on its way to.
    fn credits(&self) -> u32 {
        let bytes = self.loaded_bytes + self.loading as usize * LARGE_BYTES;
        if bytes >= LOADED_BYTES_MAX {
            return 0;
        }
        (self.sender.available() as u32).saturating_sub(self.loading)
    }
}

/// The ends of one shard, by number of the other; none for itself.
pub type Neighbours = Vec<Option<Neighbour>>;

/// The queues between `shards` shards, one set of ends a shard.
#[must_use]
pub fn neighbours(shards: usize) -> Vec<Neighbours> {
    let mut all: Vec<Neighbours> = (0..shards)
        .map(|_| (0..shards).map(|_| None).collect())
        .collect();
    let pairs = (0..shards).flat_map(|one| (one + 1..shards).map(move |other| (one, other)));
    for (one, other) in pairs {
        let (of_one, of_other) = pair();
        all[one][other] = Some(of_one);
        all[other][one] = Some(of_other);
    }
    all
}

/// Both ends between two shards.
fn pair() -> (Neighbour, Neighbour) {
    let (to_other, from_one) = lane(LANE_CAPACITY);
    let (to_one, from_other) = lane(LANE_CAPACITY);
    let forth = Arc::new(ArrayQueue::new(LEASE_CAPACITY));
    let back = Arc::new(ArrayQueue::new(LEASE_CAPACITY));
    let one = Neighbour {
        sender: to_other,
        receiver: from_other,
        lease_out: Arc::clone(&forth),
        lease_in: Arc::clone(&back),
        outbox: VecDeque::new(),
        loading: 0,
        loaded_bytes: 0,
    };
    let other = Neighbour {
        sender: to_one,
        receiver: from_one,
        lease_out: back,
        lease_in: forth,
        outbox: VecDeque::new(),
        loading: 0,
        loaded_bytes: 0,
    };
    (one, other)
}

impl<D: Driver> Shard<D> {
    /// Takes what other shards and the control thread have put into this shard's queues.
    pub(super) fn exchange(&mut self) {
        for other in 0..self.neighbours.len() {
            self.take_handles(other);
            self.take_returned(other);
            self.take_leases(other);
            self.flush_outbox(other);
        }
        while let Some(answer) = self.outside.answers.pop() {
            self.answered(answer);
        }
        while let Some(answer) = self.outside.users.pop() {
            self.user_known(&answer);
        }
        while let Some(answer) = self.outside.routes.pop() {
            self.route_answered(answer);
        }
        while let Some(kept) = self.outside.kept.pop() {
            self.kept(kept);
        }
        self.take_reload();
        self.take_submissions();
        self.take_inquiry();
    }

    fn take_handles(&mut self, other: usize) {
        for _ in 0..LANE_CAPACITY {
            let Some(neighbour) = &mut self.neighbours[other] else {
                return;
            };
            let Some(handle) = neighbour.receiver.receive() else {
                return;
            };
            if self.stopping.is_some() {
                self.give_back(other as u16, unattempted(&handle));
                continue;
            }
            let thread = self.scheduler.thread(&handle.channel, &handle.host);
            let work = Work::Guest {
                from: other as u16,
                handle: Box::new(handle),
            };
            match self.work.insert(work) {
                Ok(payload) => {
                    self.scheduler
                        .insert_guest(self.now, thread, payload.0, other as u16);
                    self.make_eager(thread);
                }
                Err(Work::Guest { from, handle }) => self.give_back(from, unattempted(&handle)),
                Err(Work::Home(_)) => unreachable!("a guest was offered"),
            }
        }
    }

    /// Whether other shards have handles of this one.
    pub(super) fn awaits_results(&self) -> bool {
        let neighbours = self.neighbours.iter().flatten();
        neighbours
            .into_iter()
            .any(|neighbour| neighbour.sender.available() < LANE_CAPACITY)
    }

    fn take_returned(&mut self, other: usize) {
        for _ in 0..LANE_CAPACITY {
            let Some(neighbour) = &mut self.neighbours[other] else {
                return;
            };
            let Some(returned) = neighbour.sender.poll_return() else {
                break;
            };
            let Returned {
                payload,
                results,
                relay,
                loaded_bytes,
            } = returned;
            neighbour.loaded_bytes = neighbour.loaded_bytes.saturating_sub(loaded_bytes);
            self.finish_home(payload, results, relay);
        }
        if let Some(neighbour) = &self.neighbours[other] {
            self.scheduler.credits(other as u16, neighbour.credits());
        }
    }

    fn take_leases(&mut self, other: usize) {
        for _ in 0..LEASE_CAPACITY {
            let Some(neighbour) = &self.neighbours[other] else {
                return;
            };
            let Some(message) = neighbour.lease_in.pop() else {
                return;
            };
            let thread = self.scheduler.thread(&message.channel, &message.host);
            self.scheduler.lease(self.now, other as u16, message);
            self.make_eager(thread);
        }
    }

    pub(super) fn send_lease(&mut self, to: u16, message: LeaseMessage) {
        if let Some(neighbour) = &mut self.neighbours[to as usize] {
            neighbour.outbox.push_back(message);
        }
        self.flush_outbox(to as usize);
    }

    fn flush_outbox(&mut self, other: usize) {
        let Some(neighbour) = &mut self.neighbours[other] else {
            return;
        };
        if neighbour.outbox.is_empty() {
            return;
        }
        while let Some(message) = neighbour.outbox.pop_front() {
            if let Err(message) = neighbour.lease_out.push(message) {
                neighbour.outbox.push_front(message);
                break;
            }
        }
        self.driver.wake(other);
    }

    /// Passes a vertex on to the shard that owns its next hop.
    pub(super) fn forward(&mut self, owner: u16, vertex: VertexKey, payload: u64) {
        if let Some(job) = self.job(payload, vertex) {
            self.send_handle(owner, vertex, payload, job, Source::Cache);
        } else if let Some(Work::Home(home)) = self.work.get(Key(payload)) {
            let message = home.message;
            if let Some(neighbour) = &mut self.neighbours[owner as usize] {
                neighbour.loading += 1;
            }
            self.load(
                message,
                Load::Forward {
                    owner,
                    vertex,
                    payload,
                },
            );
        }
    }

    pub(super) fn forward_with(
        &mut self,
        owner: u16,
        vertex: VertexKey,
        payload: u64,
        content: &Outgoing,
    ) {
        self.forward_loaded(owner);
        let Some(Work::Home(home)) = self.work.get(Key(payload)) else {
            return;
        };
        let Some(live) = self.live.get(&home.message) else {
            return;
        };
        let job = dispatch::job_of(
            self.identity(home, live),
            &live.envelope,
            &home.recipients,
            vertex,
            content,
        );
        let source = match content {
            Outgoing::Memory(content) => Source::Loaded(content.len()),
            Outgoing::File(file) => Source::File(Arc::clone(file)),
        };
        self.send_handle(owner, vertex, payload, job, source);
    }

    /// Reading the content of a handle has ended.
    pub(super) fn forward_loaded(&mut self, owner: u16) {
        if let Some(neighbour) = &mut self.neighbours[owner as usize] {
            neighbour.loading = neighbour.loading.saturating_sub(1);
        }
    }

    fn send_handle(
        &mut self,
        owner: u16,
        vertex: VertexKey,
        payload: u64,
        job: Job,
        source: Source,
    ) {
        let Some(Work::Home(home)) = self.work.get(Key(payload)) else {
            return;
        };
        let (file, loaded_bytes) = match source {
            Source::Cache => (None, 0),
            Source::Loaded(bytes) => (None, bytes),
            Source::File(file) => (Some(file), 0),
        };
        let entry = &self.threads[home.thread.0 as usize];
        let handle = Handle {
            payload,
            channel: Arc::clone(&entry.channel),
            host: Arc::clone(&entry.host),
            job,
            file,
            loaded_bytes,
        };
        let Some(neighbour) = &mut self.neighbours[owner as usize] else {
            return;
        };
        if neighbour.sender.try_send(handle).is_err() {
            self.not_attempted(vertex);
            return;
        }
        neighbour.loaded_bytes += loaded_bytes;
        self.scheduler.credits(owner, neighbour.credits());
        self.driver.wake(owner as usize);
    }

    /// Answers a handle.
    pub(super) fn give_back(&mut self, from: u16, returned: Returned) {
        if let Some(neighbour) = &mut self.neighbours[from as usize] {
            neighbour.receiver.give_back(returned);
            self.driver.wake(from as usize);
        }
    }

    /// A guest that the scheduler does not want to keep waiting here goes home untried.
    pub(super) fn give_back_guest(&mut self, payload: u64) {
        if let Some(Work::Guest { from, handle }) = self.work.remove(Key(payload)) {
            self.give_back(from, unattempted(&handle));
        }
    }
}

fn unattempted(handle: &Handle) -> Returned {
    let results = (0..handle.job.recipients.len())
        .map(|recipient| RecipientResult {
            recipient,
            status: Status::Deferred,
            reply: Vec::new(),
            not_attempted: true,
        })
        .collect();
    Returned {
        payload: handle.payload,
        results,
        relay: None,
        loaded_bytes: handle.loaded_bytes,
    }
}
