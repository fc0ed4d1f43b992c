//! Message processing: what is done with a message around the calls of the routing script.
//!
//! [`Routing`] takes what is known of a message and gives its deliveries: for each group of recipients a
//! sender and the [`Edit`]s that make of the stored content what these recipients get. It calls the
//! script's `router` for the sender and each recipient, `crossbar` for each pair, and the rewriting
//! functions that `crossbar` names; where the script needs something from outside, so does it.
//!
//! A script that has a function `process` is asked first: a message is processed when that calls the built-in
//! `rfc822`, behind its end.
//!
//! Mail that is relayed passes as it is: nothing is added, and the header is not even looked at unless
//! `crossbar` names a function that rewrites it. Mail that is submitted here is completed.
//!
//! Nothing fails: a recipient that cannot be routed is a [`Problem`], with the address and the reason.

mod attributes;
mod complete;
mod error_form;
mod group;
mod head;
mod header_function;
mod probe;
mod quad;
mod recipient;
mod rewrite;
mod routing;
mod script;
#[cfg(test)]
mod tests;
pub mod vis;

use std::sync::Arc;

use crate::base::sequence::Sequence;

pub use crate::mail::edit::Edit;
pub use probe::{Asked, Probe, Probed, Way};
pub use recipient::Recipient;
pub(super) use recipient::orcpt;
pub use routing::{Basis, DELIVERIES_MAX, PROCESS, Progress, Routing};
pub use script::{Call, Reply, Script, Side, Tree, Turn, Value};

/// What is known of a message before it is routed.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its id in the spool, as text.
    pub id: String,
    /// The envelope's sender without brackets; empty: null.
    pub sender: Vec<u8>,
    /// The envelope's recipients; none: those of the header.
    pub recipients: Vec<EnvelopeRecipient>,
    /// RET, as given.
    pub ret: Option<Vec<u8>>,
    /// ENVID, as given.
    pub envid: Option<Vec<u8>>,
    /// Who brought it.
    pub origin: Origin,
    /// `errormsg`: a report made on this host.
    pub is_report: bool,
    /// When it arrived, in milliseconds since 1970.
    pub arrival_ms: u64,
    /// Now.
    pub now_ms: u64,
    /// Bytes of the stored content.
    pub content_len: u64,
    /// The name of the file it came in, if it did.
    pub file: Vec<u8>,
    /// Keywords of the envelope that are no addresses, with their values: `with`, `rcvdfrom`...
    pub keywords: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A recipient of the envelope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvelopeRecipient {
    /// Address without brackets.
    pub address: Vec<u8>,
    /// What is to be reported of it.
    pub notary: Notary,
}

/// What is to be reported of a recipient (RFC 3461).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notary {
    /// NOTIFY: 1 NEVER, 2 SUCCESS, 4 FAILURE, 8 DELAY; 0 not given.
    pub notify: u8,
    /// ORCPT, as given.
    pub orcpt: Option<Vec<u8>>,
    /// RET and ENVID of the message are not for it: a list has taken the message over (RFC 3461 5.2.7.3).
    pub detached: bool,
}

/// Who brought a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Another host: the message passes as it is.
    #[default]
    Relay,
    /// A client that may submit (RFC 6409): what is missing is added, what is secret is removed.
    Submission,
    /// A user of this host: the same, and he must not pass for somebody else.
    User(Owner),
}

impl Origin {
    /// Who brought a message file: its owner, unless a trusted one says that it came from elsewhere
    /// (`external`). Of others that word takes nothing, since they may do nothing anyway.
    #[must_use]
    pub fn of_file(owner: Owner, is_external: bool) -> Self {
        if owner.trusted && is_external {
            Self::Relay
        } else {
            Self::User(owner)
        }
    }
}

/// The user of this host who submitted a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// His number.
    pub uid: u32,
    /// His login name.
    pub login: Vec<u8>,
    /// The name beside his address, or beside the sender's if From has to be made of it; empty: none.
    pub full_name: Vec<u8>,
    /// Whether he may say who the sender is: root, the daemon, members of the trusted group.
    pub trusted: bool,
}

/// What the administrator says about messages.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This host's name, in what is added.
    pub hostname: String,
    /// The user whose rights addresses from outside have.
    pub nobody: u32,
    /// Received fields from which on a message loops; RFC 5321 6.3 wants 100 at least.
    pub received_max: usize,
    /// Names of fields that are removed from submitted mail.
    pub killed: Vec<String>,
    /// Whether they are removed from relayed mail too. Then its header is read.
    pub kill_in_relayed: bool,
    /// Whether a script may ask what the envelope says besides ([`Facts::keywords`]); who routes mail need not find it
    /// out otherwise.
    pub tells_keywords: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            nobody: 65_534,
            received_max: 100,
            killed: KILLED.map(str::to_owned).to_vec(),
            kill_in_relayed: false,
            tells_keywords: true,
        }
    }
}

/// What is for the sender alone, or only for the last host on the way (RFC 5322 3.6.3; RFC 5321 4.4).
pub const KILLED: [&str; 11] = [
    "Bcc",
    "Resent-Bcc",
    "Return-Path",
    "Resent-Return-Path",
    "X-Orcpt",
    "Resent-X-Orcpt",
    "X-Envid",
    "Resent-X-Envid",
    "X-Envelope-To",
    "Original-Recipient",
    "Envelope-Id",
];

/// What becomes of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// Deliveries, by what they have in common.
    pub groups: Vec<Group>,
    /// Recipients found in the header, when the envelope named none; [`Recipient::of`] counts in them.
    pub found: Vec<EnvelopeRecipient>,
    /// Envelope recipients to whom nothing is delivered and nobody is told: `crossbar` dropped them, or
    /// they went to channel `bitbucket`. One of whose members only some were dropped is not here.
    pub dropped: Vec<u32>,
    /// What could not be routed.
    pub problems: Vec<Problem>,
    /// What the administrator may want to see.
    pub events: Vec<Event>,
}

/// Recipients that get the same bytes from the same sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Sender without brackets; empty: null.
    pub sender: Vec<u8>,
    /// Where reports go instead of to the sender: attribute `ERR`.
    pub errors_to: Option<Vec<u8>>,
    /// What is different from the stored content: in order, not overlapping.
    pub edits: Arc<[Edit]>,
    /// Who gets it, by [`Recipient::of`].
    pub recipients: Sequence<Recipient>,
}

/// Why there is no delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which envelope recipient; none: all of them.
    pub of: Option<u32>,
    /// The address the problem is with, which may be one of a list. Empty: the message as a whole.
    pub address: Vec<u8>,
    /// Whether it may go away.
    pub is_temporary: bool,
    /// RFC 3463 code.
    pub status: &'static str,
    /// Why.
    pub text: Vec<u8>,
}

/// What `squirrel` may keep a copy for, and what `erraddron` writes down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `breakin`: a user named somebody else as Sender; what he said.
    BreakIn(Vec<u8>),
    /// `badheader`: a field does not obey RFC 5322; its name.
    BadHeader(Vec<u8>),
    /// `illheader`: a rewriting function gave no address, or a header function no list of fields; the
    /// function's name.
    IllHeader(Vec<u8>),
    /// `nosender`: no From could be added, since nobody knows whom to name.
    NoSender,
    /// An address of the header that cannot be understood.
    BadAddress(Vec<u8>),
}
