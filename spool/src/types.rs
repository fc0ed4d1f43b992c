//! What goes into the spool and what comes out.

use core::fmt;
use std::sync::Arc;

use crate::content::ContentFile;
use crate::id::SpoolId;
use crate::routing::Routing;

/// Settings of one log.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The shard it belongs to.
    pub shard: u16,
    /// Size of a segment file.
    pub segment_bytes: u64,
    /// Segments at most, the reserve included.
    pub segments_max: u32,
    /// Free segments that only outcomes, reports and reclaim may use.
    pub reserve_segments: u32,
    /// A batch of this many messages is written without waiting for more.
    pub batch_messages: u32,
    /// A batch of this many bytes is written without waiting for more.
    pub batch_bytes: u64,
    /// Longest wait of a message for others; none: twice the median commit latency.
    pub commit_delay_ns: Option<u64>,
    /// Longest wait of an outcome for a commit to ride on.
    pub outcome_delay_ns: u64,
    /// Bytes staged at most, one larger message excepted.
    pub staging_bytes_max: u64,
    /// The log grows by at least this much before a checkpoint is made; 0: none is.
    pub checkpoint_bytes: u64,
    /// Messages beyond so many come in resting behind a start that asked for a checkpoint.
    pub envelopes_max: u64,
    /// Messages that are entered into a checkpoint at a time, at most.
    pub chunk_entries: u32,
    /// Bytes of a result of routing in one record.
    pub round_piece_bytes: u32,
    /// Random number of this run in the ids of its messages; everybody may know it.
    pub epoch: u64,
    /// Random number of this run in its commits. It must never leave the segments: it is what makes
    /// a commit that a client sends as content worthless.
    pub secret: u64,
    /// A deliberate fault.
    #[cfg(feature = "faults")]
    pub fault: Option<crate::faults::Fault>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shard: 0,
            segment_bytes: 16 << 20,
            segments_max: 1024,
            reserve_segments: 2,
            batch_messages: 24,
            batch_bytes: 256 << 10,
            commit_delay_ns: None,
            outcome_delay_ns: 100_000_000,
            staging_bytes_max: 4 << 20,
            checkpoint_bytes: 64 << 20,
            envelopes_max: 1 << 16,
            chunk_entries: 1024,
            round_piece_bytes: 256 << 10,
            epoch: 1,
            secret: 1,
            #[cfg(feature = "faults")]
            fault: None,
        }
    }
}

/// In-memory name of a live message; not used again within a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageKey(pub u64);

/// How the content is declared (RFC 6152, RFC 3030).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BodyKind {
    /// 7BIT.
    #[default]
    SevenBit,
    /// 8BITMIME.
    EightBit,
    /// BINARYMIME.
    Binary,
}

/// The RET parameter (RFC 3461 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// The whole message.
    Full,
    /// Its header.
    Headers,
}

/// One recipient.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Recipient {
    /// Address without angle brackets.
    pub address: Vec<u8>,
    /// NOTIFY: 1 NEVER, 2 SUCCESS, 4 FAILURE, 8 DELAY; 0 not given.
    pub notify: u8,
    /// ORCPT as given.
    pub orcpt: Option<Vec<u8>>,
}

/// The file a message was taken from: what tells it from every other file of its file system, and is the same after a
/// power cut. That excludes the number of the device, which can be another after each mount, and the change time, which
/// a renaming sets without having to reach the disk with the new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// Time of birth, in nanoseconds since 1970; 0 where the file system has none.
    pub born_ns: u64,
    /// Inode.
    pub inode: u64,
    /// Modification time, in nanoseconds since 1970.
    pub modified_ns: u64,
    /// Size in bytes.
    pub size: u64,
}

/// Who brought a message. What is done to its header depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Origin {
    /// Another host, or this one.
    #[default]
    Relay,
    /// A client that submits (RFC 6409).
    Submission,
    /// A user of this host.
    User(Box<Submitter>),
}

/// The user of this host who submitted a message.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Submitter {
    /// His number.
    pub uid: u32,
    /// Whether he may say who the sender is.
    pub trusted: bool,
    /// His login name.
    pub login: Vec<u8>,
    /// The name that stands beside his address; empty: none.
    pub full_name: Vec<u8>,
}

/// Envelope and arrival facts of a message.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Envelope {
    /// Reverse path without angle brackets; empty: null.
    pub sender: Vec<u8>,
    /// All recipients.
    pub recipients: Vec<Recipient>,
    /// Wall time of arrival.
    pub arrival_ms: u64,
    /// Declared body.
    pub body: BodyKind,
    /// SMTPUTF8 was given.
    pub smtputf8: bool,
    /// RET.
    pub ret: Option<Ret>,
    /// ENVID.
    pub envid: Option<Vec<u8>>,
    /// The client's address as text.
    pub client: Vec<u8>,
    /// What it called itself.
    pub helo: Vec<u8>,
    /// How it came: "ESMTP".
    pub protocol: Vec<u8>,
    /// The file it was taken from, if it was.
    pub source: Option<Source>,
    /// Who brought it.
    pub origin: Origin,
    /// What has become of its recipients, once some have been replaced.
    pub routing: Option<Box<Routing>>,
}

impl Envelope {
    /// Recipients, those that routing has made included.
    #[must_use]
    pub fn recipients_count(&self) -> usize {
        let routed = self.routing.as_ref();
        self.recipients.len() + routed.map_or(0, |routing| routing.recipients.len())
    }

    /// The recipient of this number, of the envelope or made by routing.
    #[must_use]
    pub fn recipient(&self, number: usize) -> Option<Recipient> {
        if let Some(recipient) = self.recipients.get(number) {
            return Some(recipient.clone());
        }
        let routing = self.routing.as_ref()?;
        let routed = routing.recipients.get(number - self.recipients.len())?;
        Some(Recipient {
            address: routed.user.to_vec(),
            notify: routed.notify,
            orcpt: routed.orcpt.map(<[u8]>::to_vec),
        })
    }

    /// The sender that the mail of this recipient has.
    #[must_use]
    pub fn sender_for(&self, number: usize) -> &[u8] {
        let routing = self.routing.as_ref();
        let routed = routing.and_then(|routing| {
            let at = number.checked_sub(self.recipients.len())?;
            let group = routing.recipients.get(at)?.group;
            routing.groups.get(group as usize)
        });
        routed.map_or(&self.sender, |group| &group.sender)
    }
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The next hop took it.
    Delivered,
    /// To be tried again.
    Deferred,
    /// Refused for good.
    Failed,
    /// Tried long enough.
    Expired,
    /// Not tried until an operator releases it.
    Held,
    /// Others have come in its place when it was routed.
    Replaced,
}

/// The result of an attempt for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Number of the recipient: those of the envelope first, then those that routing made.
    pub recipient: u32,
    /// Attempts so far.
    pub attempt: u32,
    /// What happened.
    pub status: Status,
    /// Wall time before which a deferred one is not tried.
    pub next_ms: u64,
    /// The reply, one line.
    pub reply: Vec<u8>,
}

/// State of a (channel, host); attempt 0: healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadState {
    /// Channel.
    pub channel: Vec<u8>,
    /// Next hop.
    pub host: Vec<u8>,
    /// Failed attempts in a row.
    pub attempt: u32,
    /// Wall time of the next attempt.
    pub next_ms: u64,
    /// What the last attempt got.
    pub reply: Vec<u8>,
}

/// A message that has been staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its key.
    pub key: MessageKey,
    /// Its id.
    pub id: SpoolId,
    /// The batch whose commit makes it durable.
    pub batch: u64,
}

/// Why a message was not staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Staging is full: try again after the next commit.
    Busy,
    /// Only the reserve is left.
    Full,
    /// The disk refuses commits.
    Failed,
    /// Larger than a segment holds.
    TooLarge {
        /// Bytes that fit.
        limit: u64,
    },
}

/// Where the content of a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Here.
    Whole(Vec<u8>),
    /// In a file of its own.
    File(Arc<ContentFile>),
}

/// A message that was woken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awake {
    /// Its envelope.
    pub envelope: Envelope,
    /// Its content.
    pub content: Content,
    /// Bytes of the content.
    pub content_len: u64,
    /// The latest outcome of each recipient, by its number. The replies to those that are finished are
    /// not kept.
    pub outcomes: Vec<Option<Outcome>>,
}

/// Names a read under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadTicket(pub u64);

/// Why content could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The disk answered with this errno.
    Disk(i32),
    /// What was read is not what was written.
    Damaged,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(errno) => write!(f, "read error, errno {errno}"),
            Self::Damaged => f.write_str("checksum or id do not match"),
        }
    }
}

/// What the engine has to say.
#[derive(Debug)]
pub enum Event {
    /// A batch is on disk.
    Committed {
        /// Its number; all earlier ones are on disk or have failed.
        batch: u64,
    },
    /// A batch could not be written: its messages are gone, its other records are staged again.
    Failed {
        /// Its number.
        batch: u64,
    },
    /// The answer to a read.
    Content {
        /// Which read.
        ticket: ReadTicket,
        /// Which message.
        key: MessageKey,
        /// Verified content.
        content: Result<Content, ReadError>,
    },
    /// The answer to [`Log::wake`](crate::Log::wake): the message is live again, or it rests on.
    Awake {
        /// Which read.
        ticket: ReadTicket,
        /// Which message.
        key: MessageKey,
        /// All there is of it, verified.
        result: Result<Awake, ReadError>,
    },
    /// The answer to [`Log::inspect`](crate::Log::inspect).
    Inspected {
        /// Which read.
        ticket: ReadTicket,
        /// Which message.
        key: MessageKey,
        /// Its envelope.
        result: Result<Envelope, ReadError>,
    },
    /// All that routing has made of a message is staged.
    Routed {
        /// Which message.
        key: MessageKey,
        /// The batch with the last of it.
        batch: u64,
    },
    /// Messages that were found behind the start; they rest.
    Loaded {
        /// Which.
        keys: Vec<MessageKey>,
    },
    /// The answer to a read of a piece.
    Piece {
        /// Which read.
        ticket: ReadTicket,
        /// Verified bytes.
        content: Result<Vec<u8>, ReadError>,
    },
    /// Bytes of a large content have been written, or its file has failed.
    ContentWritten {
        /// Of the message.
        id: SpoolId,
    },
    /// All of a large content is on disk, or its file is gone for this errno.
    ContentStored {
        /// Of the message.
        id: SpoolId,
        /// Whether it is.
        result: Result<(), i32>,
    },
    /// New mail is accepted again, or not any more.
    Accepting(bool),
    /// For the operator.
    Trouble(String),
}

/// Counters of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Segment files.
    pub segments: u64,
    /// Their size together.
    pub bytes: u64,
    /// Bytes of live messages.
    pub live_bytes: u64,
    /// Live messages, resting ones among them.
    pub messages: u64,
    /// Those of them that the checkpoint of the start has still to tell.
    pub loading: u64,
    /// Commits.
    pub commits: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Writes and syncs that waited for the disk.
    pub flushes: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Of them, bytes of messages copied out of old segments.
    pub bytes_copied: u64,
    /// Median commit latency of the last ones.
    pub commit_ns_median: u64,
    /// Segments that hold nothing.
    pub free_segments: u64,
    /// Whether new mail is taken.
    pub accepting: bool,
    /// Bytes staged.
    pub staged_bytes: u64,
    /// Segments in which something is damaged: set aside, or to be. An operator has to look at them.
    pub damaged: u64,
}
