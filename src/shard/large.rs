//! Large content: to its own file while it arrives, from there in pieces when it goes out.
//!
//! A session's content goes to a file when it passes [`LARGE_BYTES`], or earlier when memory is short. From
//! then on the session holds two pieces at most: one being written, one being filled. A connection to a
//! next hop holds three: one being sent, one waiting, one being read.

use std::sync::Arc;

use spool::{ContentFile, Envelope, PIECE_BYTES, ReadError, ReadTicket, SpoolId};

use super::Shard;
use super::bounce::Failure;
use super::inbound::Phase;
use super::intake::{Content, Message, Origin, Stalled};
use crate::base::slab::Key;
use crate::io::Driver;
use crate::mail::edit::{self, Edit};
use crate::protocol::client;
use crate::protocol::server::Stored;
use crate::router::Answer;

/// Content above this is in a file of its own.
pub(super) const LARGE_BYTES: usize = 256 << 10;

/// Content is written in blocks of this.
const BLOCK_BYTES: usize = spool::buffer::ALIGN_BYTES;

/// Committed content on its way out.
#[derive(Clone, Debug)]
pub(super) enum Outgoing {
    Memory(Arc<Vec<u8>>),
    File(Arc<ContentFile>),
}

impl Outgoing {
    /// As a client's session is told of it: what is in memory is changed here, what comes in pieces by the session.
    pub(super) fn for_client(&self, edits: &[spool::Edit]) -> client::Content {
        let edits = self::edits(edits);
        match self {
            Self::Memory(content) if edits.is_empty() => {
                client::Content::Memory(Arc::clone(content))
            }
            Self::Memory(content) => {
                client::Content::Memory(Arc::new(edit::apply(content, &edits)))
            }
            Self::File(file) => client::Content::Pieces {
                len: file.len,
                eight_bit: file.eight_bit,
                edits: edits.into(),
            },
        }
    }

    pub(super) fn file(&self) -> Option<Arc<ContentFile>> {
        match self {
            Self::Memory(_) => None,
            Self::File(file) => Some(Arc::clone(file)),
        }
    }
}

/// Changes of content as they are applied.
pub(super) fn edits(edits: &[spool::Edit]) -> Vec<Edit> {
    let edits = edits.iter().map(|edit| Edit {
        at: edit.at,
        remove: edit.remove,
        insert: edit.insert.clone(),
    });
    edits.collect()
}

/// Complete content on its way to the disk.
#[derive(Debug)]
pub(super) struct Storing {
    origin: Origin,
    envelope: Envelope,
    /// Bytes of it that count in the memory budget.
    counted_bytes: usize,
}

/// Who wants a piece of content.
#[derive(Debug)]
pub(super) enum PieceFor {
    /// A connection, for the job of this token.
    Delivery { outbound: Key, token: u64 },
    /// The routing that waits under this token, and what has been read of the header.
    Routing {
        token: u64,
        file: Arc<ContentFile>,
        start: Vec<u8>,
    },
    /// The report on these failures, which returns the header.
    Report {
        message: spool::MessageKey,
        failures: Vec<Failure>,
        file: Arc<ContentFile>,
    },
}

impl<D: Driver> Shard<D> {
    /// Moves content that has grown large to its file; forgets a file whose content was refused.
    pub(super) fn spill_turn(&mut self, key: Key) {
        let Some(inbound) = self.inbound.get_mut(key) else {
            return;
        };
        if inbound.phase != Phase::Open || !inbound.session.has_content() {
            if inbound.phase != Phase::Storing {
                self.drop_spill(key);
            }
            return;
        }
        let limit = if inbound.spill.is_some() {
            PIECE_BYTES
        } else {
            LARGE_BYTES
        };
        if inbound.session.held_bytes() >= limit {
            self.spill(key);
        }
    }

    /// Writes what a session holds to its file, unless something is being written there already.
    pub(super) fn spill(&mut self, key: Key) {
        let Some(inbound) = self.inbound.get_mut(key) else {
            return;
        };
        let Some(id) = inbound.id.filter(|_| inbound.phase == Phase::Open) else {
            return;
        };
        if self.log.content_backlog(id) > 0 {
            inbound.spill_waits = inbound.session.held_bytes() >= PIECE_BYTES;
            return;
        }
        let content = inbound.session.take_content(BLOCK_BYTES);
        if content.is_empty() {
            return;
        }
        if inbound.spill.is_none() {
            inbound.spill = Some(id);
            self.spills.insert(id, key);
            self.log.content_begin(id);
        }
        self.log.content_write(id, &content);
    }

    /// Forgets a session's file, whose content nobody will have.
    pub(super) fn drop_spill(&mut self, key: Key) {
        if let Some(inbound) = self.inbound.get_mut(key)
            && let Some(id) = inbound.spill.take()
        {
            inbound.spill_waits = false;
            self.spills.remove(&id);
            self.log.content_drop(id);
        }
    }

    /// Bytes of content were written: their session may go on.
    pub(super) fn spill_written(&mut self, id: SpoolId) {
        if let Some(key) = self.spills.get(&id).copied() {
            if let Some(inbound) = self.inbound.get_mut(key) {
                inbound.spill_waits = false;
                inbound.session.resumed(self.now);
            }
            self.pump(key, None);
        }
        self.feed_starved();
    }

    /// Content whose end has come goes to its file whole; its record follows when it is there.
    pub(super) fn store_large(
        &mut self,
        origin: Origin,
        id: SpoolId,
        envelope: Envelope,
        rest: &[u8],
    ) {
        self.spills.remove(&id);
        self.log.content_end(id, rest);
        let mut counted_bytes = 0;
        let backlog = self.log.content_backlog(id);
        self.memory.staged(&mut counted_bytes, backlog);
        let storing = Storing {
            origin,
            envelope,
            counted_bytes,
        };
        self.storing.insert(id, storing);
    }

    /// Content that is large and in memory already.
    pub(super) fn store_whole(&mut self, origin: Origin, message: Message) {
        let Message {
            id,
            envelope,
            content: Content::Memory(content),
            ..
        } = message
        else {
            return;
        };
        self.log.content_begin(id);
        let blocks = content.len() / BLOCK_BYTES * BLOCK_BYTES;
        let (blocks, rest) = content.split_at(blocks);
        for piece in blocks.chunks(PIECE_BYTES) {
            self.log.content_write(id, piece);
        }
        self.store_large(origin, id, envelope, rest);
    }

    pub(super) fn content_stored(&mut self, id: SpoolId, result: Result<(), i32>) {
        let Some(Storing {
            origin,
            envelope,
            mut counted_bytes,
        }) = self.storing.remove(&id)
        else {
            // Its client has gone.
            self.log.content_drop(id);
            return;
        };
        self.memory.staged(&mut counted_bytes, 0);
        match result {
            Ok(()) => self.stage(Stalled {
                origin,
                message: Message::new(id, envelope, Content::File),
            }),
            Err(errno) => {
                let shard = self.settings.shard;
                tracing::error!(shard, "content of {id} cannot be stored, errno {errno}");
                let stored = match errno {
                    libc::ENOSPC | libc::EDQUOT => Stored::Full,
                    _ => Stored::Failed,
                };
                self.answer(origin, stored);
            }
        }
    }

    /// Starts reading the piece that a connection will send next.
    pub(super) fn read_ahead(&mut self, key: Key) {
        let Some((token, offset, file)) = self.outbound.get(key).and_then(|outbound| {
            let (token, offset) = outbound.wants_piece()?;
            Some((token, offset, outbound.file_of(token)?))
        }) else {
            return;
        };
        let piece = (offset / PIECE_BYTES as u64) as u32;
        let ticket = self.log.content_read(&file, piece);
        let outbound = key;
        self.pieces
            .insert(ticket, PieceFor::Delivery { outbound, token });
        if let Some(outbound) = self.outbound.get_mut(key) {
            outbound.reading = true;
        }
    }

    pub(super) fn piece_loaded(&mut self, ticket: ReadTicket, content: Result<Vec<u8>, ReadError>) {
        match self.pieces.remove(&ticket) {
            Some(PieceFor::Delivery { outbound, token }) => {
                self.piece_for_delivery(outbound, token, content);
            }
            Some(PieceFor::Report {
                message,
                failures,
                file,
            }) => {
                self.log.content_close(&file);
                let start = content.ok().map(Arc::new);
                self.fail_with_start(message, failures, start);
            }
            Some(PieceFor::Routing { token, file, start }) => {
                self.piece_for_routing(token, file, start, content.ok());
            }
            None => {}
        }
    }

    /// Content that a routing asked for has been found; of a large one it gets the start, with the whole header.
    pub(super) fn content_for_routing(&mut self, token: u64, content: Outgoing) {
        match content {
            Outgoing::Memory(content) => self.resume(token, Answer::Content(Some(content))),
            Outgoing::File(file) => {
                self.log.content_open(&file);
                self.read_header(token, file, Vec::new());
            }
        }
    }

    /// Reads the piece behind `start`.
    fn read_header(&mut self, token: u64, file: Arc<ContentFile>, start: Vec<u8>) {
        let piece = (start.len() / PIECE_BYTES) as u32;
        let ticket = self.log.content_read(&file, piece);
        self.pieces
            .insert(ticket, PieceFor::Routing { token, file, start });
    }

    fn piece_for_routing(
        &mut self,
        token: u64,
        file: Arc<ContentFile>,
        mut start: Vec<u8>,
        content: Option<Vec<u8>>,
    ) {
        let Some(piece) = content else {
            self.log.content_close(&file);
            return self.resume(token, Answer::Content(None));
        };
        if start.is_empty() {
            start = piece;
        } else {
            start.extend_from_slice(&piece);
        }
        // No header that was accepted is longer.
        let services = self.settings.services.iter();
        let longest = services.map(|service| service.header_bytes_max).max();
        let is_all = start.len() as u64 >= file.len || start.len() > longest.unwrap_or(0);
        let has_end =
            start.starts_with(b"\r\n") || memchr::memmem::find(&start, b"\n\r\n").is_some();
        if is_all || has_end {
            self.log.content_close(&file);
            return self.resume(token, Answer::Content(Some(Arc::new(start))));
        }
        self.read_header(token, file, start);
    }

    fn piece_for_delivery(&mut self, key: Key, token: u64, content: Result<Vec<u8>, ReadError>) {
        let shard = self.settings.shard;
        let Some(outbound) = self.outbound.get_mut(key) else {
            return;
        };
        outbound.reading = false;
        match content {
            Ok(bytes) => outbound.give_piece(token, bytes, self.now),
            Err(error) => {
                tracing::error!(shard, "content cannot be read: {error}; it stays queued");
                outbound.abort(token, b"451 4.3.0 content cannot be read");
            }
        }
        self.outbound_turn(key);
    }

    /// Reads the start of a large content for a report.
    pub(super) fn read_start(
        &mut self,
        message: spool::MessageKey,
        failures: Vec<Failure>,
        file: Arc<ContentFile>,
    ) {
        self.log.content_open(&file);
        let ticket = self.log.content_read(&file, 0);
        let report = PieceFor::Report {
            message,
            failures,
            file,
        };
        self.pieces.insert(ticket, report);
    }
}
