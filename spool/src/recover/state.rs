//! What recovery has found, and the state that follows from it.

use std::collections::{BTreeMap, HashMap};

use crate::checkpoint::load::Change;
use crate::id::SpoolId;
use crate::layout::CommitHeader;
use crate::log::{Location, ThreadName};
use crate::record::{self, DecodeError, Frame, Kind};
use crate::types::{Envelope, Outcome, ThreadState};

#[derive(Debug)]
pub(super) struct FoundCommit {
    pub(super) header: CommitHeader,
    pub(super) offset: u64,
    pub(super) records: Vec<FoundRecord>,
}

#[derive(Debug)]
pub(super) enum FoundRecord {
    Message {
        id: SpoolId,
        envelope: Envelope,
        outcomes: Vec<Outcome>,
        content_len: u64,
        has_file: bool,
        payload: u64,
        payload_len: u64,
    },
    Outcome {
        id: SpoolId,
        outcome: Outcome,
    },
    Thread(ThreadState),
    Done(SpoolId),
    Void(u64),
}

#[derive(Debug)]
pub(super) struct StateMessage {
    pub(super) location: Location,
    pub(super) envelope: Envelope,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) content_len: u64,
    pub(super) has_file: bool,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) messages: BTreeMap<SpoolId, StateMessage>,
    pub(super) threads: HashMap<ThreadName, (ThreadState, u32)>,
    /// What is said of messages that may be in a checkpoint; none: there is none.
    pub(super) changes: Option<HashMap<SpoolId, Change>>,
}

impl State {
    pub(super) fn apply(&mut self, commit: FoundCommit) {
        let segment = commit.header.segment;
        for record in commit.records {
            match record {
                FoundRecord::Message {
                    id,
                    envelope,
                    outcomes,
                    content_len,
                    has_file,
                    payload,
                    payload_len,
                } => {
                    let location = Location {
                        segment,
                        payload,
                        payload_len,
                    };
                    let message = StateMessage {
                        location,
                        envelope,
                        outcomes,
                        content_len,
                        has_file,
                    };
                    self.messages.insert(id, message);
                    self.is_gone(id);
                }
                FoundRecord::Outcome { id, outcome } => self.outcome(id, outcome),
                FoundRecord::Thread(thread) => {
                    let key = (thread.channel.clone(), thread.host.clone());
                    if thread.attempt == 0 {
                        self.threads.remove(&key);
                    } else {
                        self.threads.insert(key, (thread, segment));
                    }
                }
                FoundRecord::Done(id) => {
                    self.messages.remove(&id);
                    self.is_gone(id);
                }
                FoundRecord::Void(_) => {}
            }
        }
    }

    fn outcome(&mut self, id: SpoolId, outcome: Outcome) {
        let outcomes = match self.messages.get_mut(&id) {
            Some(message) => &mut message.outcomes,
            None => match self.later(id) {
                Some(outcomes) => outcomes,
                None => return,
            },
        };
        outcomes.retain(|other| other.recipient != outcome.recipient);
        outcomes.push(outcome);
    }

    /// The outcomes of a message that may be in a checkpoint.
    fn later(&mut self, id: SpoolId) -> Option<&mut Vec<Outcome>> {
        let change = self.changes.as_mut()?.entry(id);
        match change.or_insert_with(|| Change::Outcomes(Vec::new())) {
            Change::Outcomes(outcomes) => Some(outcomes),
            Change::Gone => None,
        }
    }

    /// What a checkpoint says of a message does not count any more.
    fn is_gone(&mut self, id: SpoolId) {
        if let Some(changes) = &mut self.changes {
            changes.insert(id, Change::Gone);
        }
    }
}

pub(super) fn found_record(frame: &Frame<'_>, payload: u64) -> Result<FoundRecord, DecodeError> {
    let payload_len = frame.payload.len() as u64;
    Ok(match frame.kind {
        Kind::Message | Kind::CopyForward => {
            let parts = record::message(frame.payload)?;
            FoundRecord::Message {
                id: parts.head.id,
                envelope: record::envelope(parts.envelope)?,
                outcomes: parts.outcomes,
                content_len: parts.head.content_len,
                has_file: false,
                payload,
                payload_len,
            }
        }
        Kind::Large => {
            let parts = record::large(frame.payload)?;
            FoundRecord::Message {
                id: parts.head.id,
                envelope: record::envelope(parts.envelope)?,
                outcomes: parts.outcomes,
                content_len: parts.head.content_len,
                has_file: true,
                payload,
                payload_len,
            }
        }
        Kind::Outcome => {
            let (id, mut reader) = record::id_and_rest(frame.payload)?;
            FoundRecord::Outcome {
                id,
                outcome: record::outcome(&mut reader)?,
            }
        }
        Kind::Thread => FoundRecord::Thread(record::thread(frame.payload)?),
        Kind::Done => FoundRecord::Done(record::id_and_rest(frame.payload)?.0),
        Kind::Void => FoundRecord::Void(record::Reader(frame.payload).u64()?),
        kind @ (Kind::Routing | Kind::Action | Kind::Checkpoint) => {
            return Err(DecodeError::UnknownKind(kind as u8));
        }
    })
}
