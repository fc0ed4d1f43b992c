//! Routing in a day: recipients are replaced by others, in one piece or several, and the oracle's view of it.

use super::day::Day;
use super::facts::{Facts, Note};
use crate::id::SpoolId;
use crate::recover::RecoveredMessage;
use crate::routed::Routed;
use crate::routing::{Edit, Group, Routing, keep, replacement};
use crate::sim::rng::Rng;
use crate::types::{Envelope, MessageKey, Outcome, Status};

/// Bytes of a piece: most results of routing have several.
pub(super) const PIECE_BYTES: u32 = 250;

/// What routing made of some recipients.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) id: SpoolId,
    replaced: Vec<u32>,
    routing: Routing,
}

impl Round {
    fn add_to(&self, envelope: &mut Envelope) {
        match &mut envelope.routing {
            Some(routing) => routing.extend(self.routing.clone()),
            None => envelope.routing = Some(Box::new(self.routing.clone())),
        }
    }
}

impl Day {
    /// Some recipients of a message are routed, perhaps not for the first time.
    pub(super) fn route(&mut self, rng: &mut Rng) {
        let awake = self.awake_ones();
        if awake.is_empty() {
            return;
        }
        let id = awake[rng.index(awake.len())];
        let mut replaced = self.open_numbers(id);
        replaced.retain(|_| rng.below(3) > 0);
        if replaced.is_empty() {
            return;
        }
        self.rounds_made += 1;
        let routing = routing(rng, self.rounds_made, &replaced);
        if routing.recipients.is_empty() {
            return;
        }
        let key = self.keys[&id];
        let batch = self.log.staged_batch();
        let Ok((_, whole)) = self.log.route(self.now, key, &replaced, &routing) else {
            return;
        };
        let round = Round {
            id,
            replaced,
            routing,
        };
        self.happened("routed");
        self.say(|| format!("{} is routed, {:?}", round.id, round.replaced));
        if whole {
            self.facts.staged(batch, Note::Round(round));
        } else {
            self.happened("routed in pieces");
            self.routing.insert(key, round);
        }
    }

    /// All pieces of a result are staged, the last one in this batch.
    pub(super) fn routed(&mut self, key: MessageKey, batch: u64) {
        if let Some(round) = self.routing.remove(&key) {
            self.say(|| format!("all of {} is routed in batch {batch}", round.id));
            self.facts.staged(batch, Note::Round(round));
        }
    }

    /// Recipients that nothing has come in place of.
    pub(super) fn open_numbers(&self, id: SpoolId) -> Vec<u32> {
        let outcomes = self.log.outcomes(self.keys[&id]);
        let gone = |number: &u32| {
            let mut outcomes = outcomes.iter();
            outcomes
                .any(|outcome| outcome.recipient == *number && outcome.status == Status::Replaced)
        };
        let count = self.facts.latest(id).recipients_count() as u32;
        (0..count).filter(|number| !gone(number)).collect()
    }
}

/// A result for these recipients: none, one or several for each, some with changes of the content.
fn routing(rng: &mut Rng, generation: u64, replaced: &[u32]) -> Routing {
    let host = format!("h{}", rng.below(3));
    let edits = (0..rng.below(3)).map(|at| Edit {
        at: at * 10,
        remove: rng.below(4) as u32,
        insert: vec![b'e'; rng.index(60)],
    });
    let group = Group {
        sender: format!("owner{generation}@a.example").into_bytes(),
        errors_to: generation
            .is_multiple_of(3)
            .then(|| b"errors@a.example".to_vec()),
        detached: generation.is_multiple_of(2),
        edits: edits.collect(),
    };
    let recipients = replaced.iter().flat_map(|of| {
        (0..rng.below(4)).map(move |nth| Routed {
            of: *of,
            group: 0,
            hop: 0,
            privilege: (nth == 1).then_some(65534),
            notify: nth as u8,
            orcpt: (nth == 2).then(|| b"rfc822;x@y.example".as_slice().into()),
            user: format!("u{generation}.{of}.{nth}@c.example")
                .into_bytes()
                .into(),
        })
    });
    let recipients = recipients.collect();
    Routing {
        generation,
        hops: vec![("smtp".into(), host.into())],
        groups: vec![group],
        recipients,
    }
}

impl Facts {
    fn rounds(&self) -> impl Iterator<Item = &Round> {
        self.notes().filter_map(|note| match note {
            Note::Round(round) => Some(round),
            _ => None,
        })
    }

    /// The envelope of a message with all that is on disk.
    fn durable(&self, id: SpoolId) -> Envelope {
        let routed = self.routed.get(&id);
        routed.unwrap_or(&self.offered[&id].envelope).clone()
    }

    /// And with all that is on its way to it.
    pub(super) fn latest(&self, id: SpoolId) -> Envelope {
        let mut envelope = self.durable(id);
        for round in self.rounds().filter(|round| round.id == id) {
            round.add_to(&mut envelope);
        }
        envelope
    }

    pub(super) fn confirm_round(&mut self, round: &Round) {
        let id = round.id;
        let Some(mut outcomes) = self.alive.remove(&id) else {
            return;
        };
        let mut envelope = self.durable(id);
        round.add_to(&mut envelope);
        outcomes.resize(envelope.recipients_count(), None);
        for number in &round.replaced {
            outcomes[*number as usize] = Some(replacement(*number));
        }
        self.routed.insert(id, envelope);
        self.alive.insert(id, outcomes);
    }

    /// Whether a start found this result of routing.
    pub(super) fn has_round(message: &RecoveredMessage, round: &Round) -> bool {
        let routing = message.envelope.routing.as_ref();
        routing.is_some_and(|routing| routing.generation >= round.routing.generation)
    }

    /// The envelope is what was offered, with what was routed, up to some result on its way; gives what is on
    /// disk or may be of outcomes then.
    pub(super) fn check_envelope(
        &self,
        id: SpoolId,
        message: &RecoveredMessage,
    ) -> Result<Vec<Outcome>, String> {
        let mut expected = self.durable(id);
        let mut replaced = Vec::new();
        let mut rounds = self.rounds().filter(|round| round.id == id);
        while expected != message.envelope {
            let round = rounds.next().ok_or_else(|| {
                format!(
                    "the envelope of {id} differs: {:?} instead of {expected:?}",
                    message.envelope
                )
            })?;
            round.add_to(&mut expected);
            for number in &round.replaced {
                keep(&mut replaced, replacement(*number));
            }
        }
        if message.outcomes.len() == expected.recipients_count() {
            Ok(replaced)
        } else {
            Err(format!("{} recipients of {id}", message.outcomes.len()))
        }
    }
}
