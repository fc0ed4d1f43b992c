//! Large content: a file of its own, written while it arrives and read in pieces.
//!
//! Order: content on disk, its name on disk, then the record that speaks of it; the file goes when the
//! message's done record is on disk. A file without a record is the rest of something that nobody was
//! told 250 for: a start removes it. Operations on one file run one after the other.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::buffer::{ALIGN_BYTES, AlignedBuf};
use crate::faults::Fault;
use crate::id::SpoolId;
use crate::layout::aligned;
use crate::log::{FastMap, Live, Log, Place};
use crate::op::{Completion, FileId, Op, Request, Token};
use crate::record::{self, MessageHead};
use crate::types::{Accepted, Envelope, Event, MessageKey, ReadError, ReadTicket, Refusal};

/// Bytes of a piece of content: what has one checksum and is read at a time.
pub const PIECE_BYTES: usize = 128 << 10;

const ENOSPC: i32 = 28;

/// What is known of a file with content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentFile {
    /// The message it belongs to.
    pub id: SpoolId,
    /// The shard in whose directory it is.
    pub shard: u16,
    /// Bytes of the content; the file is padded to whole blocks.
    pub len: u64,
    /// A byte of it is above 127.
    pub eight_bit: bool,
    /// Checksum of each piece.
    pub sums: Vec<u32>,
}

impl ContentFile {
    /// Pieces it has.
    #[must_use]
    pub fn pieces(&self) -> u32 {
        self.sums.len() as u32
    }

    /// Whether `bytes` are what was written as this piece.
    #[must_use]
    pub fn is_piece(&self, piece: u32, bytes: &[u8]) -> bool {
        let sum = crc32c::crc32c_append(piece_sum(self.id, piece as usize), bytes);
        self.sums.get(piece as usize) == Some(&sum)
    }

    pub(crate) fn piece_len(&self, piece: u32) -> usize {
        let from = u64::from(piece) * PIECE_BYTES as u64;
        self.len.saturating_sub(from).min(PIECE_BYTES as u64) as usize
    }
}

/// The checksum of a piece; it names the message and the piece, so that no other can pass for it.
fn piece_sum(id: SpoolId, piece: usize) -> u32 {
    let sum = crc32c::crc32c(&id.bits().to_le_bytes());
    crc32c::crc32c_append(sum, &(piece as u32).to_le_bytes())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Content arrives.
    Open,
    /// All of it was given; it is being written and synced.
    Ending,
    /// It waits for its name to be synced.
    Naming,
    /// All is on disk but the record.
    Stored,
    /// Nobody wants it; it is removed when what is under way has ended.
    Dropped,
}

/// Content on its way in.
#[derive(Debug)]
struct Incoming {
    stage: Stage,
    len: u64,
    sums: Vec<u32>,
    /// Checksum of the piece under way, once it has begun.
    sum: Option<u32>,
    eight_bit: bool,
    queue: VecDeque<Op>,
    flying: bool,
    /// Bytes given and not written.
    backlog: usize,
    failed: Option<i32>,
}

impl Incoming {
    /// Takes bytes into the checksums.
    fn add(&mut self, id: SpoolId, mut bytes: &[u8]) {
        self.eight_bit |= !bytes.is_ascii();
        while !bytes.is_empty() {
            let room = PIECE_BYTES - (self.len % PIECE_BYTES as u64) as usize;
            let (head, rest) = bytes.split_at(bytes.len().min(room));
            let begun = self.sum.unwrap_or_else(|| piece_sum(id, self.sums.len()));
            let sum = crc32c::crc32c_append(begun, head);
            self.len += head.len() as u64;
            if head.len() == room {
                self.sums.push(sum);
                self.sum = None;
            } else {
                self.sum = Some(sum);
            }
            bytes = rest;
        }
    }
}

/// A file that is open for reading, or on its way there and back. It is not closed under a read that is
/// under way: its descriptor could be another file's by then. It is not removed while somebody reads.
#[derive(Debug)]
struct Opened {
    readers: u32,
    /// Pieces being read.
    flying: u32,
    access: Access,
    waiting: Vec<Piece>,
    /// Its message is gone: the file goes with its last reader.
    remove: bool,
}

impl Opened {
    fn new(readers: u32, access: Access) -> Self {
        Self {
            readers,
            flying: 0,
            access,
            waiting: Vec::new(),
            remove: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Opening,
    Ready,
    /// Opened again behind it, when somebody wants to read.
    Closing,
}

/// A piece that is being read.
#[derive(Debug)]
struct Piece {
    ticket: ReadTicket,
    file: Arc<ContentFile>,
    piece: u32,
}

/// What a request of this module is about.
#[derive(Debug)]
enum About {
    Incoming {
        id: SpoolId,
        bytes: usize,
    },
    Names(Vec<SpoolId>),
    Open(FileId),
    Close(FileId),
    Piece(Piece),
    /// Its answer makes no difference: a file that stays is removed by the next start.
    Nothing,
}

/// Files with content of one log.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    incoming: FastMap<SpoolId, Incoming>,
    opened: FastMap<FileId, Opened>,
    naming: Vec<SpoolId>,
    naming_flies: bool,
    requests: VecDeque<Request>,
    flying: FastMap<Token, About>,
    /// Files of messages that were given up; they go when the void record is on disk.
    given_up: Vec<SpoolId>,
}

impl Log {
    /// Begins a file for the content of message `id`.
    pub fn content_begin(&mut self, id: SpoolId) {
        let file = FileId::Content(id.bits());
        let incoming = Incoming {
            stage: Stage::Open,
            len: 0,
            sums: Vec::new(),
            sum: None,
            eight_bit: false,
            queue: VecDeque::from([Op::Create { file }]),
            flying: false,
            backlog: 0,
            failed: None,
        };
        self.contents.incoming.insert(id, incoming);
        self.content_advance(id);
    }

    /// Writes the next bytes, a multiple of [`ALIGN_BYTES`]; [`Event::ContentWritten`] follows.
    pub fn content_write(&mut self, id: SpoolId, bytes: &[u8]) {
        debug_assert!(bytes.len().is_multiple_of(ALIGN_BYTES));
        self.content_put(id, bytes);
        self.content_advance(id);
    }

    /// Writes the last bytes and makes all of it durable; [`Event::ContentStored`] follows.
    pub fn content_end(&mut self, id: SpoolId, rest: &[u8]) {
        self.content_put(id, rest);
        let synced = !self.settings.faulty(Fault::ContentUnsynced);
        let incoming = self.contents.incoming.get_mut(&id);
        // One that was dropped stays dropped.
        let Some(incoming) = incoming.filter(|incoming| incoming.stage == Stage::Open) else {
            return;
        };
        incoming.stage = Stage::Ending;
        if let Some(sum) = incoming.sum.take() {
            incoming.sums.push(sum);
        }
        if synced && incoming.failed.is_none() {
            let file = FileId::Content(id.bits());
            incoming.queue.push_back(Op::SyncFile { file });
        }
        self.content_advance(id);
    }

    fn content_put(&mut self, id: SpoolId, bytes: &[u8]) {
        let Some(incoming) = self.contents.incoming.get_mut(&id) else {
            return;
        };
        if incoming.stage != Stage::Open || incoming.failed.is_some() || bytes.is_empty() {
            return;
        }
        let offset = incoming.len;
        incoming.add(id, bytes);
        let mut buf = AlignedBuf::zeroed(aligned(bytes.len()));
        let (content, _) = buf.split_at_mut(bytes.len());
        content.copy_from_slice(bytes);
        incoming.backlog += buf.len();
        incoming.queue.push_back(Op::Write {
            file: FileId::Content(id.bits()),
            offset,
            buf,
            durable: false,
        });
    }

    /// Bytes of a content that were given and are not written yet.
    #[must_use]
    pub fn content_backlog(&self, id: SpoolId) -> usize {
        let incoming = self.contents.incoming.get(&id);
        incoming.map_or(0, |incoming| incoming.backlog)
    }

    /// Gives a content up that has no record.
    pub fn content_drop(&mut self, id: SpoolId) {
        let Some(incoming) = self.contents.incoming.get_mut(&id) else {
            return;
        };
        incoming.queue.clear();
        incoming.stage = Stage::Dropped;
        if !incoming.flying {
            self.contents.incoming.remove(&id);
            self.content_remove(id);
        }
    }

    /// Stages the record of a message whose content is stored.
    ///
    /// # Errors
    /// As [`Self::accept`]; the content stays until it is staged or dropped.
    pub fn accept_content(
        &mut self,
        now: u64,
        id: SpoolId,
        envelope: &Envelope,
        report: bool,
    ) -> Result<Accepted, Refusal> {
        if !self.accepting && !report {
            return Err(Refusal::Failed);
        }
        let stored = self.contents.incoming.get(&id);
        let Some(incoming) = stored.filter(|incoming| incoming.stage == Stage::Stored) else {
            return Err(Refusal::Failed);
        };
        let content = ContentFile {
            id,
            shard: self.settings.shard,
            len: incoming.len,
            eight_bit: incoming.eight_bit,
            sums: incoming.sums.clone(),
        };
        let payload = record::large_payload(envelope, &[], &content);
        self.room_for(record::HEADER_BYTES + payload.len(), report)?;
        let key = self.next_key();
        let batch = self.staging.large(now, key, report, &payload);
        self.enter(key, envelope, Live::large(id, envelope, content.len));
        self.contents.incoming.remove(&id);
        let file = FileId::Content(id.bits());
        let opened = Opened::new(0, Access::Ready);
        self.contents.opened.insert(file, opened);
        self.close_unread(file);
        Ok(Accepted { key, id, batch })
    }

    /// Opens a content for reading; every call needs its [`Self::content_close`].
    pub fn content_open(&mut self, content: &ContentFile) {
        let file = self.content_id(content);
        if let Some(opened) = self.contents.opened.get_mut(&file) {
            opened.readers += 1;
            return;
        }
        let opened = Opened::new(1, Access::Opening);
        self.contents.opened.insert(file, opened);
        self.content_request(Op::Open { file }, About::Open(file));
    }

    /// Reads a piece of an open content; [`Event::Piece`] answers.
    pub fn content_read(&mut self, content: &Arc<ContentFile>, piece: u32) -> ReadTicket {
        self.ticket_next += 1;
        let ticket = ReadTicket(self.ticket_next);
        let read = Piece {
            ticket,
            file: Arc::clone(content),
            piece,
        };
        let file = self.content_id(content);
        match self.contents.opened.get_mut(&file) {
            Some(opened) if opened.access != Access::Ready => opened.waiting.push(read),
            _ => self.piece_request(read),
        }
        ticket
    }

    /// Ends the reading of a content.
    pub fn content_close(&mut self, content: &ContentFile) {
        let file = self.content_id(content);
        if let Some(opened) = self.contents.opened.get_mut(&file) {
            debug_assert!(opened.readers > 0, "closed more often than opened");
            opened.readers = opened.readers.saturating_sub(1);
            self.close_unread(file);
        }
    }

    fn close_unread(&mut self, file: FileId) {
        if let Some(opened) = self.contents.opened.get_mut(&file)
            && opened.readers == 0
            && opened.flying == 0
            && opened.access == Access::Ready
        {
            opened.access = Access::Closing;
            self.content_request(Op::Close { file }, About::Close(file));
        }
    }

    fn content_id(&self, content: &ContentFile) -> FileId {
        let id = content.id.bits();
        if content.shard == self.settings.shard {
            FileId::Content(id)
        } else {
            let shard = content.shard;
            FileId::Foreign { shard, id }
        }
    }

    fn piece_request(&mut self, read: Piece) {
        let file = self.content_id(&read.file);
        if let Some(opened) = self.contents.opened.get_mut(&file) {
            opened.flying += 1;
        }
        let offset = u64::from(read.piece) * PIECE_BYTES as u64;
        let buf = AlignedBuf::zeroed(aligned(read.file.piece_len(read.piece)));
        self.content_request(Op::Read { file, offset, buf }, About::Piece(read));
    }

    fn content_request(&mut self, op: Op, about: About) {
        let token = self.token();
        self.contents.flying.insert(token, about);
        self.contents.requests.push_back(Request { token, op });
    }

    /// The file of a message that is not there any more.
    pub(crate) fn content_remove(&mut self, id: SpoolId) {
        let file = FileId::Content(id.bits());
        if let Some(opened) = self.contents.opened.get_mut(&file) {
            opened.remove = true;
            return;
        }
        self.content_request(Op::Remove { file }, About::Nothing);
    }

    /// A file that nobody needs; whether it was there is not asked.
    pub(crate) fn remove_at_once(&mut self, file: FileId) {
        self.content_request(Op::Close { file }, About::Nothing);
        self.content_request(Op::Remove { file }, About::Nothing);
    }

    /// The file of a message whose commit failed: its record may be on disk all the same.
    pub(crate) fn content_give_up(&mut self, id: SpoolId) {
        self.contents.given_up.push(id);
    }

    /// Failed commits are void: nothing speaks of the files of their messages.
    pub(crate) fn content_voided(&mut self) {
        for id in std::mem::take(&mut self.contents.given_up) {
            self.content_remove(id);
        }
    }

    /// Starts the next operation on an incoming file, or ends it.
    fn content_advance(&mut self, id: SpoolId) {
        let Some(incoming) = self.contents.incoming.get_mut(&id) else {
            return;
        };
        if incoming.flying {
            return;
        }
        if let Some(op) = incoming.queue.pop_front() {
            let bytes = match &op {
                Op::Write { buf, .. } => buf.len(),
                _ => 0,
            };
            incoming.flying = true;
            self.content_request(op, About::Incoming { id, bytes });
            return;
        }
        if incoming.stage != Stage::Ending {
            return;
        }
        if let Some(errno) = incoming.failed {
            self.content_failed(id, errno);
        } else if self.settings.faulty(Fault::ContentUnnamed) {
            self.content_stored(id);
        } else {
            incoming.stage = Stage::Naming;
            self.contents.naming.push(id);
        }
    }

    fn content_failed(&mut self, id: SpoolId, errno: i32) {
        self.contents.incoming.remove(&id);
        self.content_remove(id);
        let result = Err(errno);
        self.events.push_back(Event::ContentStored { id, result });
    }

    fn content_stored(&mut self, id: SpoolId) {
        let Some(incoming) = self.contents.incoming.get_mut(&id) else {
            return;
        };
        incoming.stage = Stage::Stored;
        let result = Ok(());
        self.events.push_back(Event::ContentStored { id, result });
    }

    pub(crate) fn poll_content(&mut self) -> Option<Request> {
        if !self.contents.naming_flies && !self.contents.naming.is_empty() {
            // One sync for all names that wait.
            self.contents.naming_flies = true;
            let ids = std::mem::take(&mut self.contents.naming);
            self.stats.flushes += 1;
            self.content_request(Op::SyncDir, About::Names(ids));
        }
        self.contents.requests.pop_front()
    }

    /// Takes the answer to a request of this module; gives others back.
    pub(crate) fn content_done(&mut self, completion: Completion) -> Option<Completion> {
        let Some(about) = self.contents.flying.remove(&completion.token) else {
            return Some(completion);
        };
        match about {
            About::Incoming { id, bytes } => self.incoming_done(id, bytes, &completion),
            About::Names(ids) => {
                self.contents.naming_flies = false;
                match completion.result {
                    Ok(_) => ids.into_iter().for_each(|id| self.named(id)),
                    Err(_) if self.settings.faulty(Fault::TrustSecondSync) => {
                        self.contents.naming.extend(ids);
                    }
                    Err(errno) => {
                        self.names_lost(errno);
                        self.job_spoilt = true;
                    }
                }
            }
            About::Open(file) => self.file_opened(file),
            About::Close(file) => self.file_closed(file),
            About::Piece(piece) => self.piece_done(&piece, completion),
            About::Nothing => {}
        }
        None
    }

    fn incoming_done(&mut self, id: SpoolId, bytes: usize, completion: &Completion) {
        let Some(incoming) = self.contents.incoming.get_mut(&id) else {
            return;
        };
        incoming.flying = false;
        if incoming.stage == Stage::Dropped {
            self.contents.incoming.remove(&id);
            self.content_remove(id);
            return;
        }
        let failed = match completion.result {
            Err(errno) => Some(errno),
            Ok(written) if written < bytes as u64 => Some(ENOSPC),
            Ok(_) => None,
        };
        if failed.is_some() {
            incoming.failed = failed;
            incoming.queue.clear();
            incoming.backlog = 0;
        }
        incoming.backlog = incoming.backlog.saturating_sub(bytes);
        self.stats.bytes_written += bytes as u64;
        // What waited behind a file that could not be made has come to its end as well.
        if bytes > 0 || failed.is_some() {
            self.events.push_back(Event::ContentWritten { id });
        }
        self.content_advance(id);
    }

    fn named(&mut self, id: SpoolId) {
        let incoming = self.contents.incoming.get(&id);
        if incoming.is_some_and(|incoming| incoming.stage == Stage::Naming) {
            self.content_stored(id);
        }
    }

    /// A sync of the directory failed: what it covered may never get to the disk, whatever later ones
    /// say. So no file that is not stored yet will be.
    pub(crate) fn names_lost(&mut self, errno: i32) {
        self.contents.naming.clear();
        let unfinished = |incoming: &Incoming| {
            !matches!(incoming.stage, Stage::Stored | Stage::Dropped) && incoming.failed.is_none()
        };
        let incoming = self.contents.incoming.iter();
        let mut ids: Vec<SpoolId> = incoming
            .filter(|(_, incoming)| unfinished(incoming))
            .map(|(id, _)| *id)
            .collect();
        ids.sort_unstable();
        for id in ids {
            let Some(incoming) = self.contents.incoming.get_mut(&id) else {
                continue;
            };
            incoming.failed = Some(errno);
            incoming.queue.clear();
            incoming.backlog = 0;
            match incoming.stage {
                Stage::Naming => self.content_failed(id, errno),
                Stage::Ending => self.content_advance(id),
                _ => self.events.push_back(Event::ContentWritten { id }),
            }
        }
    }

    /// A file that could not be opened is found out by the first read.
    fn file_opened(&mut self, file: FileId) {
        let Some(opened) = self.contents.opened.get_mut(&file) else {
            return;
        };
        opened.access = Access::Ready;
        for read in std::mem::take(&mut opened.waiting) {
            self.piece_request(read);
        }
        self.close_unread(file);
    }

    fn file_closed(&mut self, file: FileId) {
        let Some(opened) = self.contents.opened.get_mut(&file) else {
            return;
        };
        if opened.readers == 0 {
            let remove = opened.remove;
            self.contents.opened.remove(&file);
            if remove {
                self.content_request(Op::Remove { file }, About::Nothing);
            }
        } else {
            opened.access = Access::Opening;
            self.content_request(Op::Open { file }, About::Open(file));
        }
    }

    fn piece_done(&mut self, piece: &Piece, completion: Completion) {
        let file = self.content_id(&piece.file);
        if let Some(opened) = self.contents.opened.get_mut(&file) {
            opened.flying = opened.flying.saturating_sub(1);
            self.close_unread(file);
        }
        let content = match (completion.result, completion.buf) {
            (Ok(_), Some(buf)) => verified(piece, &buf),
            (Ok(_), None) => Err(ReadError::Damaged),
            (Err(errno), _) => Err(ReadError::Disk(errno)),
        };
        self.events.push_back(Event::Piece {
            ticket: piece.ticket,
            content,
        });
    }

    pub(crate) fn next_key(&mut self) -> MessageKey {
        let key = MessageKey(self.key_next);
        self.key_next += 1;
        key
    }
}

fn verified(piece: &Piece, bytes: &[u8]) -> Result<Vec<u8>, ReadError> {
    let len = piece.file.piece_len(piece.piece);
    let content = bytes.get(..len).ok_or(ReadError::Damaged)?;
    if piece.file.is_piece(piece.piece, content) {
        Ok(content.to_vec())
    } else {
        Err(ReadError::Damaged)
    }
}

impl Live {
    fn large(id: SpoolId, envelope: &Envelope, content_len: u64) -> Self {
        Self {
            has_file: true,
            ..Self::new(id, envelope, Place::Staged, content_len)
        }
    }
}

/// The head of a record whose content is in a file.
pub(crate) fn large_head(
    content: &ContentFile,
    envelope_len: usize,
    outcomes_count: usize,
) -> MessageHead {
    let sums: Vec<u8> = content
        .sums
        .iter()
        .flat_map(|sum| sum.to_le_bytes())
        .collect();
    MessageHead {
        id: content.id,
        envelope_len: envelope_len as u32,
        outcomes_count: outcomes_count as u32,
        content_len: content.len,
        content_sum: crc32c::crc32c(&sums),
    }
}
