//! What happens in the simulated world when its time has come.

use std::net::SocketAddr;

use spool::op::{Completion, FileId, Op, Request};

use crate::io::{Event, Socket};

use super::ClientId;
use super::link::{Incoming, Sending, State};
use super::world::{Remote, World};

/// Something that happens at a certain time.
#[derive(Debug)]
pub(super) enum Happening {
    /// A client's connection reaches the listener.
    Accepting {
        link: u64,
        listener: usize,
        local: SocketAddr,
    },
    /// A driver's connection reaches the remote address.
    Connecting {
        link: u64,
        remote: SocketAddr,
    },
    ToDriver {
        link: u64,
        incoming: Incoming,
    },
    ToFar {
        link: u64,
        number: u64,
        bytes: Vec<u8>,
    },
    FarEnd {
        link: u64,
        result: Result<(), i32>,
    },
    SendDone {
        link: u64,
        number: u64,
    },
    CloseDone {
        link: u64,
    },
    Disk {
        shard: usize,
    },
    /// A request of `shard` about a file of another shard.
    Foreign {
        shard: usize,
        request: Request,
    },
    Wake {
        shard: usize,
    },
    LogDone {
        shard: usize,
        result: Result<(), i32>,
        buf: Vec<u8>,
    },
}

impl World {
    /// Reads a file on the disk of another shard; nothing else is ever asked of one.
    fn foreign(&self, request: Request) -> Completion {
        let (file, read) = match request.op {
            Op::Read { file, offset, buf } => (file, Some((offset as usize, buf))),
            Op::Open { file } | Op::Close { file } => (file, None),
            op => unreachable!("{op:?} on a file of another shard"),
        };
        let FileId::Foreign { shard, id } = file else {
            unreachable!("{file:?} is not of another shard");
        };
        let node = self.nodes.get(&usize::from(shard));
        let image = node.and_then(|node| node.disk.image(FileId::Content(id)));
        let (result, buf) = match (image, read) {
            (None, read) => (Err(libc::ENOENT), read.map(|(_, buf)| buf)),
            (Some(_), None) => (Ok(0), None),
            (Some(image), Some((offset, mut buf))) => {
                let start = image.len().min(offset);
                let end = image.len().min(offset + buf.len());
                buf[..end - start].copy_from_slice(&image[start..end]);
                (Ok((end - start) as u64), Some(buf))
            }
        };
        Completion {
            token: request.token,
            result,
            buf,
            files: Vec::new(),
        }
    }

    fn report(&mut self, shard: usize, event: Event) {
        if let Some(node) = self.nodes.get_mut(&shard) {
            node.ready.push_back(event);
        }
    }

    pub(super) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Accepting {
                link,
                listener,
                local,
            } => self.accepting(link, listener, local),
            Happening::Connecting { link, remote } => self.connecting(link, remote),
            Happening::ToDriver { link, incoming } => self.reach_driver(link, incoming),
            Happening::ToFar {
                link,
                number,
                bytes,
            } => self.reach_far(link, number, &bytes),
            Happening::FarEnd { link, result } => {
                if let Some(entry) = self.links.get_mut(&link) {
                    entry.far.ended.get_or_insert(result);
                }
            }
            Happening::SendDone { link, number } => self.send_done(link, number),
            Happening::CloseDone { link } => self.close_done(link),
            Happening::Disk { shard } => {
                let node = self.nodes.get_mut(&shard);
                if let Some(completion) = node.and_then(|node| node.disk.complete_one()) {
                    self.report(shard, Event::Disk(completion));
                }
            }
            Happening::Foreign { shard, request } => {
                let completion = self.foreign(request);
                self.report(shard, Event::Disk(completion));
            }
            Happening::Wake { shard } => {
                if let Some(node) = self.nodes.get_mut(&shard) {
                    node.rung = false;
                    node.ready.push_back(Event::Woken);
                }
            }
            Happening::LogDone {
                shard,
                result,
                mut buf,
            } => {
                if let Some(node) = self.nodes.get_mut(&shard) {
                    node.logging = false;
                    if result.is_ok() {
                        node.log.extend_from_slice(&buf);
                    }
                    buf.clear();
                    node.ready.push_back(Event::LogWritten { result, buf });
                }
            }
        }
    }

    fn accepting(&mut self, link: u64, listener: usize, local: SocketAddr) {
        let Some(entry) = self.links.get_mut(&link) else {
            return;
        };
        let accepting = self
            .nodes
            .get(&entry.shard)
            .is_some_and(|node| node.accepting);
        if !accepting {
            entry.state = State::Gone;
            entry.far.ended = Some(Err(ECONNREFUSED));
            return;
        }
        entry.state = State::Open;
        let (shard, peer) = (entry.shard, entry.far.address);
        self.report(
            shard,
            Event::Accepted {
                socket: Socket(link),
                listener,
                peer,
                local,
            },
        );
    }

    fn connecting(&mut self, link: u64, remote: SocketAddr) {
        let Some(entry) = self.links.get_mut(&link) else {
            return;
        };
        if entry.state != State::Connecting {
            return;
        }
        let (result, state) = match self.remotes.get_mut(&remote) {
            Some(Remote::Mute) => return,
            Some(Remote::Listening(waiting)) => {
                waiting.push_back(ClientId(link));
                entry.far.forgotten = false;
                (Ok(()), State::Open)
            }
            Some(Remote::Failing(errno)) => (Err(*errno), State::Gone),
            None => (Err(ECONNREFUSED), State::Gone),
        };
        entry.state = state;
        let shard = entry.shard;
        if state == State::Gone {
            self.hang_up(remote);
        }
        self.report(
            shard,
            Event::Connected {
                socket: Socket(link),
                result,
            },
        );
    }

    fn reach_driver(&mut self, link: u64, incoming: Incoming) {
        let Some(entry) = self.links.get_mut(&link) else {
            return;
        };
        entry.arrive(incoming);
        if let Some(node) = self.nodes.get_mut(&entry.shard) {
            node.readable.insert(link);
        }
        if entry.broken.is_some() {
            // A send that waited for a window ends now; its number keeps this from counting twice.
            self.start_send(link);
        }
    }

    fn reach_far(&mut self, link: u64, number: u64, bytes: &[u8]) {
        let Some(entry) = self.links.get_mut(&link) else {
            return;
        };
        if entry.cut_send == Some(number) {
            return;
        }
        if entry.far.closed {
            // The far end answers with a reset; the send that met it had succeeded.
            entry.broken = Some(EPIPE);
            return;
        }
        entry.far.received.extend_from_slice(bytes);
    }

    fn send_done(&mut self, link: u64, number: u64) {
        let Some(entry) = self.links.get_mut(&link) else {
            return;
        };
        let is_this = |sending: &mut Sending| sending.number == number;
        if entry.state != State::Open {
            return; // The close reports it.
        }
        let Some(sending) = entry.sending.take_if(is_this) else {
            return;
        };
        let mut buf = sending.buf;
        buf.clear();
        let (shard, result) = (entry.shard, entry.broken.map_or(Ok(()), Err));
        self.report(
            shard,
            Event::Sent {
                socket: Socket(link),
                result,
                buf,
            },
        );
    }

    fn close_done(&mut self, link: u64) {
        // Whether a cancelled send is still reported depends on the race in the kernel.
        let reported = self.rng.below(2) == 0;
        let Some(entry) = self.links.get_mut(&link) else {
            return;
        };
        if entry.state == State::Gone {
            return; // Its process is.
        }
        entry.state = State::Gone;
        let (shard, sending, remote) = (entry.shard, entry.sending.take(), entry.remote);
        let forgotten = entry.far.forgotten;
        if let Some(remote) = remote {
            self.hang_up(remote);
        }
        if forgotten {
            self.links.remove(&link);
        }
        let socket = Socket(link);
        if let Some(mut sending) = sending.filter(|_| reported) {
            sending.buf.clear();
            let result = Err(ECANCELED);
            self.report(
                shard,
                Event::Sent {
                    socket,
                    result,
                    buf: sending.buf,
                },
            );
        }
        self.report(shard, Event::Closed { socket });
    }
}

const EPIPE: i32 = 32;
const ECONNREFUSED: i32 = 111;
const ECANCELED: i32 = 125;
