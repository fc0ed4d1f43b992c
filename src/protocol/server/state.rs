//! The states. Each holds what is true in it; a handler consumes it and gives the next one.

use super::body::Body;
use super::transfer::{Beginning, Chunk, Content};
use super::{BodyKind, RecipientParams, Ret};

/// Where a session stands.
#[derive(Debug)]
pub(super) enum State {
    /// A command line comes next.
    Command(Command),
    /// A line that is too long is skipped up to its end.
    SkipLine(Command),
    /// Policy is asked.
    Judged(Judged),
    /// The caller is asked for an id.
    Beginning(Beginning),
    /// DATA content.
    Content(Content),
    /// A BDAT chunk.
    Chunk(Chunk),
    /// The message for so many recipients is being stored.
    Storing(usize),
    /// Over.
    Closed,
}

/// Between commands.
#[derive(Debug)]
pub(super) enum Command {
    /// The client has not introduced itself.
    Unknown,
    /// No transaction.
    Ready,
    /// A sender is known.
    Sender(Sender),
    /// Recipients are known.
    Recipients(Recipients),
    /// Chunks have arrived, more are to come.
    Chunks(Chunks),
}

/// A sender is known; recipients may follow.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) address: Vec<u8>,
    pub(super) size: Option<u64>,
    pub(super) body: BodyKind,
    pub(super) smtputf8: bool,
    pub(super) ret: Option<Ret>,
    pub(super) envid: Option<Vec<u8>>,
    pub(super) spool_id: Option<Vec<u8>>,
}

/// One recipient at least is known.
#[derive(Debug)]
pub(super) struct Recipients {
    pub(super) sender: Sender,
    pub(super) list: Vec<RecipientParams>,
}

/// A transaction inside its chunks.
#[derive(Debug)]
pub(super) struct Chunks {
    pub(super) envelope: Recipients,
    pub(super) body: Body,
    /// Chunks beyond the limit were taken and dropped.
    pub(super) too_large: bool,
}

/// Something that policy judges.
#[derive(Debug)]
pub(super) enum Judged {
    /// A sender.
    Sender(Sender),
    /// A recipient, with what is already known.
    Recipient {
        before: Before,
        recipient: RecipientParams,
    },
}

/// The transaction before the recipient under judgement.
#[derive(Debug)]
pub(super) enum Before {
    Sender(Sender),
    Recipients(Recipients),
}

impl Command {
    pub(super) fn body(&mut self) -> Option<&mut Body> {
        match self {
            Self::Chunks(chunks) => Some(&mut chunks.body),
            _ => None,
        }
    }
}
