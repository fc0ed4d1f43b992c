//! The SMTP client as a value: replies and jobs in, bytes and events out.
//!
//! A [`Session`] is told what the peer sent and what there is to deliver; it appends what to send
//! to the caller's buffer and reports [`Event`]s. It does no I/O and reads no clock. Every job that
//! was submitted ends in exactly one [`Event::Finished`] with one result for each recipient, before
//! the session ends in exactly one [`Event::Broken`] or [`Event::Closed`].
//!
//! Round trips: with CHUNKING a small message is one write and one round trip; otherwise the
//! commands of the next message travel right behind the final dot of the current one (RFC 2920
//! 3.1), so that in the steady state a message costs one round trip too. Peers without PIPELINING
//! are served one command at a time.

#![warn(clippy::indexing_slicing)]

use std::sync::Arc;

use crate::mail::edit::Edit;
use crate::mail::target;

mod content;
mod pipeline;
mod reply;
mod state;
#[cfg(test)]
mod tests;

pub use content::PIECE_BYTES_MAX;
pub use reply::REPLY_TEXT_BYTES_MAX;
pub use state::Session;

const SECOND_NS: u64 = 1_000_000_000;
const MINUTE_NS: u64 = 60 * SECOND_NS;

/// How a session behaves. The defaults of the timeouts are those of RFC 5321 4.5.3.2.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This host's name, for EHLO.
    pub hostname: String,
    /// Waiting for a connection; kept by the caller.
    pub connect_ns: u64,
    /// Waiting for the greeting.
    pub greeting_ns: u64,
    /// Waiting for the reply to EHLO, HELO, MAIL or RSET.
    pub mail_ns: u64,
    /// Waiting for the reply to RCPT.
    pub rcpt_ns: u64,
    /// Waiting for the reply to DATA.
    pub data_ns: u64,
    /// Waiting until a piece of content is sent.
    pub block_ns: u64,
    /// Waiting for the reply to the content.
    pub final_ns: u64,
    /// Waiting for the reply to QUIT.
    pub quit_ns: u64,
    /// Bytes in one line of a reply, at most.
    pub reply_line_bytes_max: usize,
    /// Lines in one reply, at most.
    pub reply_lines_max: usize,
    /// Sends 8-bit content also to peers that do not offer 8BITMIME.
    pub eight_bit_anyway: bool,
    /// Uses CHUNKING when offered.
    pub chunking: bool,
    /// Uses PIPELINING when offered.
    pub pipelining: bool,
    /// Speaks LMTP (RFC 2033): LHLO, and a reply for each recipient behind the content.
    pub lmtp: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            connect_ns: 30 * SECOND_NS,
            greeting_ns: 5 * MINUTE_NS,
            mail_ns: 5 * MINUTE_NS,
            rcpt_ns: 5 * MINUTE_NS,
            data_ns: 2 * MINUTE_NS,
            block_ns: 3 * MINUTE_NS,
            final_ns: 10 * MINUTE_NS,
            quit_ns: 10 * SECOND_NS,
            reply_line_bytes_max: 2048,
            reply_lines_max: 100,
            eight_bit_anyway: true,
            chunking: true,
            pipelining: true,
            lmtp: false,
        }
    }
}

/// What a report shall return of the message (RFC 3461 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// All of it.
    Full,
    /// The header only.
    Headers,
}

/// One message for one or more recipients.
#[derive(Clone, Debug)]
pub struct Job {
    /// The caller's name for the job, returned with the results.
    pub token: u64,
    /// The reverse-path without brackets; empty for reports.
    pub sender: Vec<u8>,
    /// Who shall receive it.
    pub recipients: Vec<JobRecipient>,
    /// The message.
    pub content: Content,
    /// It was declared `BODY=8BITMIME`.
    pub eight_bit: bool,
    /// It was declared `BODY=BINARYMIME`.
    pub binary: bool,
    /// It was declared `SMTPUTF8`.
    pub smtputf8: bool,
    /// The RET parameter.
    pub ret: Option<Ret>,
    /// The ENVID parameter, as given (xtext).
    pub envid: Option<Vec<u8>>,
    /// Which message this is: its id and its arrival in milliseconds since 1970. For the mailbox
    /// agent, which offers XSPOOLID.
    pub identity: Option<(String, u64)>,
}

/// A message: CRLF lines, not dot-stuffed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    Memory(Arc<Vec<u8>>),
    /// It is handed over piece by piece: see [`Session::wants_piece`]. Unless it is binary, it has CR and
    /// LF in pairs only, and ends with one.
    Pieces {
        /// Bytes of it as stored.
        len: u64,
        /// A byte of it is above 127.
        eight_bit: bool,
        /// Changes on the way out; the pieces are as stored.
        edits: Arc<[Edit]>,
    },
}

/// A recipient of a job.
#[derive(Clone, Debug)]
pub struct JobRecipient {
    /// The forward-path without brackets.
    pub address: Vec<u8>,
    /// NOTIFY: 1 NEVER, 2 SUCCESS, 4 FAILURE, 8 DELAY; 0 not given.
    pub notify: u8,
    /// The ORCPT parameter, as given (xtext).
    pub orcpt: Option<Vec<u8>>,
    /// With whose rights it is delivered; told to nobody but agents of this host.
    pub privilege: Option<Privilege>,
}

/// What only the agent of this host has to know of a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privilege {
    /// The number of the account.
    pub user: u32,
    /// The recipient of the envelope that it comes from.
    pub original: Vec<u8>,
}

impl JobRecipient {
    /// Whether it is a program or a file of this host.
    fn is_target(&self) -> bool {
        self.privilege.is_some() && target::is_named(&self.address)
    }
}

/// What became of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The peer took responsibility.
    Delivered,
    /// May work later.
    Deferred,
    /// Will not work.
    Failed,
}

/// The result for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientResult {
    /// Index in [`Job::recipients`].
    pub recipient: usize,
    /// What became of it.
    pub status: Status,
    /// The deciding reply, one printable line of at most [`REPLY_TEXT_BYTES_MAX`] bytes.
    pub reply: Vec<u8>,
    /// The peer never decided about the job, through no fault of the job: only with
    /// [`Status::Deferred`]. It should not count as an attempt.
    pub not_attempted: bool,
}

/// Where in the dialogue something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for the greeting.
    Greeting,
    /// EHLO or HELO.
    Hello,
    /// MAIL.
    Mail,
    /// RCPT.
    Recipient,
    /// DATA.
    Data,
    /// While content was being sent.
    Content,
    /// After the content, before its reply.
    Final,
    /// RSET.
    Reset,
    /// Nothing was outstanding.
    Idle,
    /// QUIT.
    Quit,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Greeting => "connect",
            Self::Hello => "EHLO",
            Self::Mail => "MAIL",
            Self::Recipient => "RCPT",
            Self::Data => "DATA",
            Self::Content => "part of the content",
            Self::Final => "end of content",
            Self::Reset => "RSET",
            Self::Idle => "the last message",
            Self::Quit => "QUIT",
        }
    }
}

/// Why a session is of no further use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The host says it never accepts mail (521 or 556, RFC 7504). Any other refusal, a 554
    /// greeting included, is temporary: another host or another day may do.
    pub permanent: bool,
    /// The deciding reply, or one of our own making.
    pub reply: Vec<u8>,
    /// Where it happened.
    pub stage: Stage,
}

/// What the caller has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Jobs can be submitted.
    Ready,
    /// A job is over.
    Finished {
        /// [`Job::token`].
        token: u64,
        /// One result for each recipient, in their order.
        results: Vec<RecipientResult>,
    },
    /// The session did not get ready, was refused or was lost. Jobs were reported before. The
    /// caller closes the socket.
    Broken {
        /// Why.
        failure: Failure,
    },
    /// The orderly end after QUIT. The caller closes the socket.
    Closed,
}
