//! Routing: what becomes of a message's recipients.
//!
//! The relay knows [`Router`] and [`Routing`] only. A router answers at once, or gives a [`Routing`] that
//! needs something from outside: the shard keeps it, asks, and resumes it with the answer. Nothing here does
//! I/O, reads a clock or starts a thread. What a routing has changed ends with it; a message that is routed
//! again after a crash may come out differently, and is recorded as it came out last.

pub mod builtin;
pub mod check;
pub mod code;
pub mod diagnostic;
pub mod loaded;
pub mod machine;
pub mod message;
pub mod next_hop;
pub mod pattern;
mod recipients;
pub mod relation;
mod remarks;
pub mod request;
pub mod runner;
pub mod stock;
pub mod syntax;
pub mod value;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::base::clock::Now;
use crate::mail::edit::Edit;

pub use recipients::Recipients;
pub use remarks::Remarks;

/// A message that is to be routed.
#[derive(Clone, Copy)]
pub struct Mail<'a> {
    /// Its id; nothing while a client names sender and recipients.
    pub id: &'a dyn fmt::Display,
    /// Envelope sender without brackets; empty: null.
    pub sender: &'a [u8],
    /// Who is to be routed; others of the message have been.
    pub recipients: &'a [Addressee<'a>],
    /// The RET parameter.
    pub ret: Option<&'static [u8]>,
    /// The ENVID parameter.
    pub envid: Option<&'a [u8]>,
    /// The client's address as text; for a submitted file what it says.
    pub client: &'a [u8],
    /// What the client called itself; for a submitted file its owner.
    pub helo: &'a [u8],
    /// How it came: `ESMTP`, `local`.
    pub protocol: &'a [u8],
    /// Who brought it.
    pub origin: &'a message::Origin,
    /// Wall time of arrival.
    pub arrival_ms: u64,
    /// Now: how old answers are that look-ups remember.
    pub now: Now,
    /// Bytes of the content; 0 at the front door.
    pub size_bytes: u64,
    /// The content, or the start of it; none: it is not in memory, and [`Need::Content`] asks for it.
    pub content: Option<&'a [u8]>,
}

/// A recipient that is to be routed.
#[derive(Clone, Copy, Debug)]
pub struct Addressee<'a> {
    /// Without brackets.
    pub address: &'a [u8],
    /// NOTIFY: 1 NEVER, 2 SUCCESS, 4 FAILURE, 8 DELAY; 0 not given.
    pub notify: u8,
    /// ORCPT as given.
    pub orcpt: Option<&'a [u8]>,
}

/// The result for a message: addressees without a result are dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// Sender and content.
    pub groups: Vec<Group>,
    /// What becomes of the addressees.
    pub recipients: Recipients,
    /// For the administrator.
    pub remarks: Remarks,
}

/// Recipients that get the same content from the same sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Envelope sender; none: that of the message.
    pub sender: Option<Vec<u8>>,
    /// Who is told of failures instead of the sender.
    pub errors_to: Option<Vec<u8>>,
    /// A list has taken the message over: its RET and ENVID are not for them.
    pub detached: bool,
    /// Changes of the stored content, by place.
    pub edits: Vec<Edit>,
}

/// One result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Which addressee it comes from.
    pub of: u32,
    /// Its group.
    pub group: u32,
    /// What is done.
    pub fate: Fate,
}

/// What becomes of a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes to a next hop.
    Deliver(Quad),
    /// Never deliverable: a report with this RFC 3463 code and text.
    Fail {
        /// `5.1.1`.
        status: Cow<'static, str>,
        /// Why.
        text: String,
    },
    /// Not decided for a reason that may pass: routed again later, reported when it expires.
    Hold {
        /// Why.
        reason: String,
    },
    /// Swallowed (`bitbucket`).
    Discard,
}

/// Where a recipient goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quad {
    /// Transport: `smtp`.
    pub channel: Arc<str>,
    /// Next hop.
    pub host: Arc<str>,
    /// Recipient for the next hop.
    pub user: Vec<u8>,
    /// With whose rights it is delivered; none where rights make no difference.
    pub privilege: Option<u32>,
    /// NOTIFY for the next hop.
    pub notify: u8,
    /// ORCPT for the next hop.
    pub orcpt: Option<Vec<u8>>,
}

/// What a routing needs before it can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// The start of the content, with the whole header.
    Content,
    /// Something that the control thread knows.
    Outside(Request),
}

/// A question to the control thread.
pub type Request = request::Request;

/// What the control thread says to it; the error says why nobody can: a temporary one.
pub type Reply = Result<request::Answer, String>;

/// The answer to a [`Need`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The start of the content; none: it cannot be read now.
    Content(Option<Arc<Vec<u8>>>),
    /// What the control thread said.
    Outside(Reply),
}

/// How far a routing has come.
pub enum Turn {
    /// To its end.
    Done(Routed),
    /// It waits.
    Need(Box<dyn Routing>, Need),
    /// It was stopped at a limit, which is named; the message goes to `deferred/`.
    Stopped(String),
}

/// A routing that waits for something. It keeps what it needs of its router, which may be replaced
/// meanwhile.
pub trait Routing {
    /// Goes on with the answer.
    fn resume(self: Box<Self>, answer: Answer) -> Turn;
}

/// What the front door wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Whether a sender can be.
    Sender,
    /// Whether a recipient would be delivered.
    Recipient,
}

/// Routes messages.
pub trait Router {
    /// Routes the recipients of a message.
    fn route(&mut self, mail: &Mail<'_>) -> Turn;

    /// Whether [`Self::verify`] has something to say; if not, nobody is asked at MAIL and RCPT.
    fn verifies(&self) -> bool {
        false
    }

    /// Whether [`Self::verify`] has something to say about this address.
    fn is_verified(&self, _check: Check, _address: &[u8]) -> bool {
        true
    }

    /// A map has a new version.
    fn publish(&mut self, _source: &Arc<relation::Source>, _version: &relation::Version) {}

    /// Judges an address at the front door, the only addressee: what it would become. A [`Fate::Fail`] is refused for
    /// good, a [`Fate::Hold`] for now.
    fn verify(&mut self, _check: Check, mail: &Mail<'_>) -> Turn {
        self.route(mail)
    }
}
