//! The oracle: what was said to clients and what the disk has confirmed, and whether a start after a
//! cut agrees with it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::rounds::Round;
use super::submissions::ROUTER;
use crate::id::SpoolId;
use crate::recover::{Recovered, RecoveredMessage};
use crate::sim::{Path, Tree};
use crate::types::{Envelope, Outcome, Status, ThreadState};

/// A message as it was offered.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) content: Vec<u8>,
    pub(super) envelope: Envelope,
}

/// A record on its way.
#[derive(Clone, Debug)]
pub(super) enum Note {
    Message(SpoolId),
    Report(SpoolId),
    Outcome(SpoolId, Outcome),
    Round(Round),
    Done(SpoolId),
    Thread(ThreadState),
}

/// A mail file that somebody submits.
#[derive(Clone, Debug)]
pub(super) struct Submitted {
    pub(super) content: Rc<Vec<u8>>,
    /// Messages made of it.
    pub(super) ids: Vec<SpoolId>,
    /// Whoever submits has been told that all is well.
    pub(super) promised: bool,
}

type ThreadName = (Vec<u8>, Vec<u8>);

/// Everything the oracle knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) offered: BTreeMap<SpoolId, Rc<Mail>>,
    /// Confirmed messages that are not done, with the confirmed outcome of each recipient.
    pub(super) alive: BTreeMap<SpoolId, Vec<Option<Outcome>>>,
    /// Envelopes with confirmed results of routing.
    pub(super) routed: BTreeMap<SpoolId, Envelope>,
    /// Messages whose done record is confirmed.
    pub(super) done: BTreeSet<SpoolId>,
    threads: BTreeMap<ThreadName, ThreadState>,
    /// Message and the report about it.
    pub(super) reports: BTreeMap<SpoolId, SpoolId>,
    /// Refused after two failed writes; a later commit has voided them when `voided` has them too.
    refused: BTreeSet<SpoolId>,
    voided: BTreeSet<SpoolId>,
    pending: Vec<(u64, Note)>,
    /// What was pending when earlier runs ended that nothing has been found out about, by run.
    unsettled: Vec<Vec<(u64, Note)>>,
    /// Counts what the disk has said: the same image may be right before an answer and wrong after it.
    pub(super) version: u64,
    /// Mail files, by number.
    pub(super) submitted: BTreeMap<u64, Submitted>,
    /// The directories with mail files.
    pub(super) tree: Tree,
    /// Both copies of a header were damaged: that may be noticed.
    pub(super) damaged: bool,
    /// A checkpoint has been damaged.
    pub(super) spoilt: Option<Spoilt>,
}

/// A checkpoint that has been damaged, and what the next start may do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spoilt {
    /// What it covers, when no other one does.
    pub(super) covered: Option<u64>,
    /// The start has to say so: it does not look like one that was never finished.
    pub(super) is_told: bool,
}

impl Facts {
    pub(super) fn staged(&mut self, batch: u64, note: Note) {
        self.pending.push((batch, note));
    }

    /// Messages that a caller may finish: confirmed, and no done record on its way.
    pub(super) fn open(&self) -> Vec<SpoolId> {
        let closing: BTreeSet<SpoolId> = self.closing();
        let alive = self.alive.keys().copied();
        alive.filter(|id| !closing.contains(id)).collect()
    }

    /// Messages that clients were told 250 for.
    pub(super) fn acknowledged(&self) -> u64 {
        (self.alive.len() + self.done.len()) as u64
    }

    /// Whether a message is staged or being written.
    pub(super) fn is_on_its_way(&self, id: SpoolId) -> bool {
        let mut notes = self.notes();
        notes.any(|note| matches!(note, Note::Message(other) if *other == id))
    }

    /// Whether its done record is on its way or on disk: it may go at any time.
    pub(super) fn is_ending(&self, id: SpoolId) -> bool {
        !self.alive.contains_key(&id) || self.closing().contains(&id)
    }

    fn closing(&self) -> BTreeSet<SpoolId> {
        self.notes()
            .filter_map(|note| match note {
                Note::Done(id) => Some(*id),
                _ => None,
            })
            .collect()
    }

    /// All that may be on disk and may not.
    pub(super) fn notes(&self) -> impl Iterator<Item = &Note> {
        let all = self.unsettled.iter().flatten().chain(&self.pending);
        all.map(|(_, note)| note)
    }

    /// A run has ended: what was on its way is as it is, and the next start finds it out.
    pub(super) fn unsettle(&mut self) {
        self.unsettled.push(std::mem::take(&mut self.pending));
        self.refused.clear();
    }

    pub(super) fn committed(&mut self, batch: u64) {
        self.version += 1;
        self.voided.append(&mut self.refused);
        for (of, note) in std::mem::take(&mut self.pending) {
            if of <= batch {
                self.confirm(note);
            } else {
                self.pending.push((of, note));
            }
        }
    }

    fn confirm(&mut self, note: Note) {
        match note {
            Note::Message(id) | Note::Report(id) => {
                let recipients = self.offered[&id].envelope.recipients.len();
                self.alive.insert(id, vec![None; recipients]);
            }
            Note::Outcome(id, outcome) => {
                let recipient = outcome.recipient as usize;
                let slots = self.alive.get_mut(&id);
                if let Some(slot) = slots.and_then(|slots| slots.get_mut(recipient)) {
                    *slot = Some(outcome);
                }
            }
            Note::Round(round) => self.confirm_round(&round),
            Note::Done(id) => {
                self.routed.remove(&id);
                self.alive.remove(&id);
                self.done.insert(id);
            }
            Note::Thread(state) => {
                let name = (state.channel.clone(), state.host.clone());
                self.threads.insert(name, state);
            }
        }
    }

    /// Clients' messages are gone, other records are in `staged` again.
    pub(super) fn failed(&mut self, batch: u64, staged: u64) {
        self.version += 1;
        for (of, note) in std::mem::take(&mut self.pending) {
            match note {
                Note::Message(id) if of <= batch => {
                    self.refused.insert(id);
                }
                note if of <= batch => self.pending.push((staged, note)),
                note => self.pending.push((of, note)),
            }
        }
    }

    /// Whether what a start found can be true.
    pub(super) fn check(&self, recovered: &Recovered) -> Result<(), String> {
        if let Some(id) = recovered.report.missing.first() {
            return Err(format!("the file with the content of {id} is gone"));
        }
        let messages = recovered.messages.iter();
        let found: BTreeMap<SpoolId, &RecoveredMessage> =
            messages.map(|message| (message.id, message)).collect();
        let closing = self.closing();
        for id in self.alive.keys() {
            if !found.contains_key(id) && !closing.contains(id) {
                return Err(format!("{id} is lost; {:?}", recovered.report));
            }
        }
        for (id, message) in &found {
            self.check_found(*id, message)?;
        }
        for run in self.unsettled.iter().chain([&self.pending]) {
            self.check_whole(run, &found, &closing)?;
        }
        self.check_reports(&found, &closing)?;
        self.check_threads(&recovered.threads)?;
        self.check_submitted(&found, &closing)?;
        if self.damaged || recovered.report.damaged.is_empty() {
            Ok(())
        } else {
            Err(format!("damage at {:?}", recovered.report.damaged))
        }
    }

    /// Of what was on its way, whole batches in their order are there, or nothing.
    fn check_whole(
        &self,
        run: &[(u64, Note)],
        found: &BTreeMap<SpoolId, &RecoveredMessage>,
        closing: &BTreeSet<SpoolId>,
    ) -> Result<(), String> {
        let mut first_missing = None;
        for (batch, note) in run {
            let (id, there) = match note {
                Note::Message(id) => (id, found.contains_key(id)),
                Note::Round(round) => {
                    let message = found.get(&round.id);
                    let there = message.is_some_and(|message| Self::has_round(message, round));
                    (&round.id, there)
                }
                Note::Outcome(id, outcome) if self.shows(found, *id, outcome) => (id, true),
                _ => continue,
            };
            if closing.contains(id) {
                continue;
            }
            match (there, first_missing) {
                (false, None) => first_missing = Some(*batch),
                (true, Some(missing)) if missing < *batch => {
                    return Err(format!("batch {batch} is there, {missing} is not"));
                }
                (true, Some(_)) => return Err(format!("half of batch {batch} is there")),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether an outcome that was on its way is there, and could not be there for another reason.
    fn shows(
        &self,
        found: &BTreeMap<SpoolId, &RecoveredMessage>,
        id: SpoolId,
        outcome: &Outcome,
    ) -> bool {
        let recipient = outcome.recipient as usize;
        let message = found.get(&id);
        let there = message.and_then(|message| message.outcomes.get(recipient)?.as_ref());
        let before = self.alive.get(&id);
        let before = before.and_then(|slots| slots.get(recipient)?.as_ref());
        let same = |note: &&Note| {
            matches!(note, Note::Outcome(other, told)
                if *other == id && told.recipient == outcome.recipient && is_told(there, Some(told)))
        };
        is_told(there, Some(outcome))
            && !is_told(there, before)
            && self.notes().filter(same).count() == 1
    }

    pub(super) fn check_found(
        &self,
        id: SpoolId,
        message: &RecoveredMessage,
    ) -> Result<(), String> {
        let Some(mail) = self.offered.get(&id) else {
            return Err(format!("{id} was never sent"));
        };
        if self.done.contains(&id) {
            return Err(format!("{id} was done and is back"));
        }
        if self.voided.contains(&id) {
            return Err(format!("{id} was refused and is back"));
        }
        debug_assert!(mail.envelope.routing.is_none());
        let replaced = self.check_envelope(id, message)?;
        for (recipient, outcome) in message.outcomes.iter().enumerate() {
            let durable = self
                .alive
                .get(&id)
                .and_then(|slots| slots.get(recipient)?.as_ref());
            let mut replaced = replaced.iter();
            let gone = replaced.find(|other| other.recipient as usize == recipient);
            if let Some(gone) = gone {
                if is_told(outcome.as_ref(), Some(gone)) {
                    continue;
                }
                return Err(format!("{recipient} of {id} was replaced: {outcome:?}"));
            }
            let mut staged = self.notes().filter_map(|note| match note {
                Note::Outcome(of, staged)
                    if *of == id && staged.recipient as usize == recipient =>
                {
                    Some(staged)
                }
                _ => None,
            });
            let known = is_told(outcome.as_ref(), durable)
                || staged.any(|one| is_told(outcome.as_ref(), Some(one)));
            if !known {
                return Err(format!("outcome {recipient} of {id}: {outcome:?}"));
            }
        }
        Ok(())
    }

    /// A failure that is on disk has its report on disk.
    fn check_reports(
        &self,
        found: &BTreeMap<SpoolId, &RecoveredMessage>,
        closing: &BTreeSet<SpoolId>,
    ) -> Result<(), String> {
        for (about, report) in &self.reports {
            let told = match found.get(about) {
                Some(message) => {
                    let mut outcomes = message.outcomes.iter().flatten();
                    outcomes.any(|outcome| outcome.status == Status::Failed)
                }
                None => self.done.contains(about) || closing.contains(about),
            };
            let there = found.contains_key(report)
                || self.done.contains(report)
                || closing.contains(report);
            if told && !there {
                return Err(format!(
                    "{about} has failed and its report {report} is lost"
                ));
            }
        }
        Ok(())
    }

    /// A mail file whose submission was acknowledged is there, or its message is, or was done; and no
    /// two of these.
    fn check_submitted(
        &self,
        found: &BTreeMap<SpoolId, &RecoveredMessage>,
        closing: &BTreeSet<SpoolId>,
    ) -> Result<(), String> {
        for (number, submitted) in &self.submitted {
            let path = Path {
                dir: ROUTER,
                name: *number,
            };
            let file = self.tree.read(path);
            if file.is_some_and(|(_, bytes)| bytes != *submitted.content) {
                return Err(format!("mail file {number} is not whole"));
            }
            let ended = |id: &&SpoolId| {
                self.done.contains(id) || (closing.contains(id) && !found.contains_key(id))
            };
            let finished = submitted.ids.iter().filter(ended).count();
            let ending = submitted.ids.iter().any(|id| closing.contains(id));
            let live = submitted.ids.iter().filter(|id| found.contains_key(id));
            let messages = finished + live.count();
            if messages > 1 || (file.is_some() && (finished > 0 || ending)) {
                return Err(format!("mail file {number} would be delivered twice"));
            }
            if submitted.promised && messages == 0 && file.is_none() {
                return Err(format!("mail file {number} is lost"));
            }
        }
        Ok(())
    }

    fn check_threads(&self, found: &[ThreadState]) -> Result<(), String> {
        let mut expected: BTreeMap<ThreadName, Vec<Option<&ThreadState>>> = BTreeMap::new();
        for (name, state) in &self.threads {
            let state = (state.attempt > 0).then_some(state);
            expected.entry(name.clone()).or_default().push(state);
        }
        for note in self.notes() {
            if let Note::Thread(state) = note {
                let name = (state.channel.clone(), state.host.clone());
                let choices = expected.entry(name).or_insert_with(|| vec![None]);
                choices.push((state.attempt > 0).then_some(state));
            }
        }
        for (name, choices) in &expected {
            let there = found
                .iter()
                .find(|state| state.channel == name.0 && state.host == name.1);
            if !choices.contains(&there) {
                return Err(format!(
                    "state of {name:?}: {there:?} instead of {choices:?}"
                ));
            }
        }
        Ok(())
    }

    /// What a start found is what is true from now on.
    pub(super) fn settle(&mut self, recovered: &Recovered) {
        let ids: BTreeSet<SpoolId> = recovered
            .messages
            .iter()
            .map(|message| message.id)
            .collect();
        for id in self.alive.keys().filter(|id| !ids.contains(id)) {
            self.done.insert(*id);
        }
        let found = recovered.messages.iter();
        self.alive = found
            .map(|message| (message.id, message.outcomes.clone()))
            .collect();
        self.threads = recovered
            .threads
            .iter()
            .map(|state| ((state.channel.clone(), state.host.clone()), state.clone()))
            .collect();
        let routed = recovered.messages.iter();
        let routed = routed.filter(|message| message.envelope.routing.is_some());
        self.routed = routed
            .map(|message| (message.id, message.envelope.clone()))
            .collect();
        self.unsettled.clear();
        // A report that the cut took along is made again with the failure it is about.
        let known = |id: &SpoolId| self.alive.contains_key(id) || self.done.contains(id);
        self.reports.retain(|_, report| known(report));
    }
}

/// Whether an outcome is the one that was told. A message that rests does not keep the replies to those
/// that are finished.
fn is_told(found: Option<&Outcome>, told: Option<&Outcome>) -> bool {
    match (found, told) {
        (Some(found), Some(told)) => {
            let open = matches!(told.status, Status::Deferred | Status::Held);
            let reply = found.reply == told.reply || (!open && found.reply.is_empty());
            let rest = Outcome {
                reply: told.reply.clone(),
                ..found.clone()
            };
            reply && rest == *told
        }
        (found, told) => found == told,
    }
}
