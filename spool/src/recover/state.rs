//! What recovery has found, and the state that follows from it.

use std::collections::{BTreeMap, HashMap};

use crate::checkpoint::load::{Change, Later};
use crate::id::SpoolId;
use crate::layout::CommitHeader;
use crate::log::{Location, ThreadName};
use crate::record::{self, DecodeError, Frame, Kind, MessageHead};
use crate::routing::{Gathered, Piece, Round, keep, replacement};
use crate::types::{Envelope, Outcome, Source, ThreadState};

#[derive(Debug)]
pub(super) struct FoundCommit {
    pub(super) header: CommitHeader,
    pub(super) offset: u64,
    pub(super) records: Vec<FoundRecord>,
}

#[derive(Debug)]
pub(super) enum FoundRecord {
    Message(Box<FoundMessage>),
    Outcome {
        id: SpoolId,
        outcome: Outcome,
    },
    Round {
        id: SpoolId,
        piece: Piece,
        place: Location,
    },
    Thread(ThreadState),
    Done(SpoolId),
    Void(u64),
}

/// A message record.
#[derive(Debug)]
pub(super) struct FoundMessage {
    pub(super) id: SpoolId,
    /// None: there are too many to keep all; it can be read again.
    pub(super) envelope: Option<Envelope>,
    /// What is needed of an envelope that is not kept. Recipients that routing made are among them.
    pub(super) recipients_count: u32,
    pub(super) arrival_s: u32,
    pub(super) source: Option<Source>,
    /// The latest of each recipient.
    pub(super) outcomes: Vec<Outcome>,
    pub(super) content_len: u64,
    pub(super) has_file: bool,
    pub(super) location: Location,
    /// Routing has replaced some of its recipients.
    pub(super) is_routed: bool,
    /// Pieces of what routing made that its record does not have.
    pub(super) rounds: Vec<Location>,
    pub(super) gathered: Gathered,
}

impl FoundMessage {
    fn take_round(&mut self, round: Round) {
        // Of a state that does not count any more.
        if round.first != self.recipients_count {
            return;
        }
        self.recipients_count += round.routing.recipients.len() as u32;
        self.is_routed = true;
        self.rounds.extend(round.places);
        for number in round.replaced {
            keep(&mut self.outcomes, replacement(number));
        }
        if let Some(envelope) = &mut self.envelope {
            match &mut envelope.routing {
                Some(routing) => routing.extend(round.routing),
                None => envelope.routing = Some(Box::new(round.routing)),
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) messages: BTreeMap<SpoolId, Box<FoundMessage>>,
    pub(super) threads: HashMap<ThreadName, (ThreadState, u32)>,
    /// What is said of messages that may be in a checkpoint; none: there is none.
    pub(super) changes: Option<HashMap<SpoolId, Change>>,
    /// A result of routing counts before all of it is there.
    pub(super) half_counts: bool,
}

impl State {
    pub(super) fn apply(&mut self, commit: FoundCommit) {
        let segment = commit.header.segment;
        for record in commit.records {
            match record {
                FoundRecord::Message(message) => {
                    let id = message.id;
                    self.messages.insert(id, message);
                    self.is_gone(id);
                }
                FoundRecord::Outcome { id, outcome } => self.outcome(id, outcome),
                FoundRecord::Round { id, piece, place } => self.round(id, piece, place),
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
                Some(later) => &mut later.outcomes,
                None => return,
            },
        };
        keep(outcomes, outcome);
    }

    fn round(&mut self, id: SpoolId, piece: Piece, place: Location) {
        let half = self.half_counts;
        if let Some(message) = self.messages.get_mut(&id) {
            // What cannot be read was not written by this program, and does not count.
            if let Ok(Some(round)) = message.gathered.take(piece, place, half) {
                message.take_round(round);
            }
        } else if let Some(later) = self.later(id)
            && let Ok(Some(round)) = later.gathered.take(piece, place, half)
        {
            for number in &round.replaced {
                keep(&mut later.outcomes, replacement(*number));
            }
            later.rounds.push(round.into());
        }
    }

    /// What is said of a message that may be in a checkpoint.
    fn later(&mut self, id: SpoolId) -> Option<&mut Later> {
        let change = self.changes.as_mut()?.entry(id);
        match change.or_insert_with(|| Change::Later(Box::default())) {
            Change::Later(later) => Some(later),
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

/// What a record at `payload` of a segment says.
pub(super) fn found_record(
    frame: &Frame<'_>,
    segment: u32,
    payload: u64,
) -> Result<FoundRecord, DecodeError> {
    let location = Location {
        segment,
        payload,
        payload_len: frame.payload.len() as u64,
    };
    Ok(match frame.kind {
        Kind::Message | Kind::CopyForward | Kind::RoutedCopy => {
            let parts = record::message(frame.payload)?;
            let envelope = record::envelope(parts.envelope)?;
            found_message(&parts.head, envelope, parts.outcomes, false, location)
        }
        Kind::Large | Kind::RoutedLarge => {
            let parts = record::large(frame.payload)?;
            let envelope = record::envelope(parts.envelope)?;
            found_message(&parts.head, envelope, parts.outcomes, true, location)
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
        Kind::Routing => {
            let (id, mut reader) = record::id_and_rest(frame.payload)?;
            FoundRecord::Round {
                id,
                piece: Piece::take(&mut reader)?,
                place: location,
            }
        }
        kind @ (Kind::Action | Kind::Checkpoint) => {
            return Err(DecodeError::UnknownKind(kind as u8));
        }
    })
}

fn found_message(
    head: &MessageHead,
    envelope: Envelope,
    outcomes: Vec<Outcome>,
    has_file: bool,
    location: Location,
) -> FoundRecord {
    FoundRecord::Message(Box::new(FoundMessage {
        id: head.id,
        recipients_count: envelope.recipients_count() as u32,
        is_routed: envelope.routing.is_some(),
        rounds: Vec::new(),
        gathered: Gathered::default(),
        arrival_s: u32::try_from(envelope.arrival_ms / 1000).unwrap_or(u32::MAX),
        source: envelope.source,
        envelope: Some(envelope),
        outcomes,
        content_len: head.content_len,
        has_file,
        location,
    }))
}
