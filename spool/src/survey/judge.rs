//! What the records of all segments say together: order, links, references, and what is not finished.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::SpoolId;
use crate::layout::CommitHeader;
use crate::log::Location;
use crate::routing::{Gathered, Piece};

use super::{Commit, Fact, Finding, Found, From, Place, Says, Standing, Survey, Surveyed};

/// What is known of a message.
#[derive(Debug)]
struct Entry {
    found: Found,
    recipients: u32,
    done: bool,
    /// It stood in a segment that was set aside, where nothing live was left.
    settled: bool,
    gathered: Gathered,
    /// The bytes of the pieces that have come.
    partial: Vec<u8>,
}

/// Commits by sequence, and what is wrong with their order.
#[derive(Debug, Default)]
struct Order {
    /// Those that count and are good.
    good: BTreeMap<u64, Commit>,
    voided: BTreeSet<u64>,
    /// Segments behind whose last commit something may be missing.
    open: BTreeSet<u32>,
    /// No commit is missing, from the first on.
    complete: bool,
}

impl Survey {
    /// Judges it all. `contents` are the ids of the content files that are there.
    #[must_use]
    pub fn finish(mut self, contents: &BTreeSet<u128>) -> Surveyed {
        let mut order = self.order();
        let proved = self.prove(&mut order);
        self.judge_bad(&mut order);
        self.judge_chain(&mut order, &proved);
        let (facts, loose) = self.sorted(&order, &proved);
        let mut entries = BTreeMap::new();
        let mut dones = BTreeSet::new();
        for fact in &facts {
            self.apply(fact, &order, &mut entries, &mut dones);
        }
        self.found.commits = order.good.len() as u64;
        let mut messages = believed(entries, &loose);
        messages.extend(loose_messages(&loose, &messages, &dones));
        self.found.messages = messages.into_values().collect();
        self.judge_contents(contents);
        self.found.findings.sort();
        self.found.findings.dedup();
        self.found
    }

    fn order(&self) -> Order {
        let mut order = Order::default();
        let voids = self.facts.iter().filter_map(|fact| match fact.says {
            Says::Void(sequence) if matches!(fact.from, From::Commit(_)) => Some(sequence),
            _ => None,
        });
        order.voided = voids.collect();
        for commit in self
            .commits
            .iter()
            .filter(|commit| commit.good && !commit.apart)
        {
            if !order.voided.contains(&commit.sequence) {
                order.good.insert(commit.sequence, *commit);
            }
        }
        order
    }

    /// Commits without a header whose records the next commit's link proves: number of the run, sequence.
    fn prove(&self, order: &mut Order) -> BTreeMap<usize, u64> {
        let mut proved = BTreeMap::new();
        for next in order.good.values() {
            let sequence = next.sequence.saturating_sub(1);
            if order.good.contains_key(&sequence) || order.voided.contains(&sequence) {
                continue;
            }
            let links = |secret: &u64, sum: u32| link(*secret, sequence, sum) == next.previous;
            let run = self.runs.iter().position(|run| {
                let mut secrets = self.secrets.iter();
                secrets.any(|secret| links(secret, run.sum))
            });
            if let Some(run) = run {
                proved.insert(run, sequence);
            }
        }
        proved
    }

    /// Damaged, when something valid was written after it; else the unfinished end of a run.
    fn judge_bad(&mut self, order: &mut Order) {
        let last = order.good.keys().next_back().copied().unwrap_or(0);
        for commit in self.commits.clone() {
            if commit.good {
                continue;
            }
            order.open.extend([commit.place.segment, commit.segment]);
            let again = order.good.contains_key(&commit.sequence);
            if again || order.voided.contains(&commit.sequence) {
                continue;
            }
            let sequence = commit.sequence;
            if sequence < last || commit.apart {
                self.finding(commit.place, format!("commit {sequence} is damaged"));
                let lost = self.lost.iter().filter(|(of, _)| *of == sequence);
                let lost: Vec<Finding> = lost.map(|(_, finding)| finding.clone()).collect();
                self.found.findings.extend(lost);
            } else {
                let what = format!("commit {sequence} is the unfinished end, or a damaged one");
                self.note(commit.place, what);
            }
        }
        let end = order.good.values().next_back();
        order.open.extend(end.map(|commit| commit.place.segment));
    }

    /// Gaps in the sequence, and links that do not fit.
    fn judge_chain(&mut self, order: &mut Order, proved: &BTreeMap<usize, u64>) {
        let bad = self.commits.iter().filter(|commit| !commit.good);
        let named: BTreeSet<u64> = bad.map(|commit| commit.sequence).collect();
        let proved: BTreeSet<u64> = proved.values().copied().collect();
        let first = order.good.keys().next().copied();
        order.complete = first.is_none_or(|first| {
            (1..first).all(|sequence| first < 1000 && order.voided.contains(&sequence))
        });
        let commits: Vec<Commit> = order.good.values().copied().collect();
        for pair in commits.windows(2) {
            let [before, commit] = pair else { continue };
            let mut place = before.place;
            place.offset = before.end;
            let between = before.sequence + 1..commit.sequence;
            let missing = between.filter(|sequence| !order.voided.contains(sequence));
            let missing: Vec<u64> = missing.take(1000).collect();
            if missing.is_empty() && commit.previous != before.link {
                order.complete = false;
                let what = format!("commit {} does not follow this", commit.sequence);
                self.finding(place, what);
            }
            order.complete &= missing.is_empty();
            let unnamed = missing.iter().filter(|sequence| !named.contains(sequence));
            let unnamed: Vec<&u64> = unnamed.collect();
            let (Some(from), Some(to)) = (unnamed.first(), unnamed.last()) else {
                continue;
            };
            order
                .open
                .extend([before.place.segment, commit.place.segment]);
            order.open.extend(&self.bare);
            let what = if unnamed.iter().all(|sequence| proved.contains(sequence)) {
                format!("the header of commit {from} is damaged, its records are not")
            } else if from == to {
                format!("commit {from} is missing")
            } else {
                format!("commits {from} to {to} are missing")
            };
            self.finding(place, what);
        }
    }

    /// Facts that are vouched for, in their order; and the others.
    fn sorted(&mut self, order: &Order, proved: &BTreeMap<usize, u64>) -> (Vec<Fact>, Vec<Fact>) {
        let mut vouched: Vec<(u64, Fact)> = Vec::new();
        let mut loose = Vec::new();
        for mut fact in std::mem::take(&mut self.facts) {
            if let From::Run(run) = fact.from {
                let otherwise = self.runs.get(run).map_or(From::Loose, |run| run.otherwise);
                let sequence = proved.get(&run).copied();
                fact.from = sequence.map_or(otherwise, From::Commit);
            }
            match fact.from {
                From::Commit(sequence) | From::Aside(sequence) => {
                    if !order.voided.contains(&sequence) {
                        vouched.push((sequence, fact));
                    }
                }
                From::Tail if !order.open.contains(&fact.place.segment) => {}
                From::Loose | From::Tail | From::Run(_) => loose.push(fact),
            }
        }
        vouched.sort_by_key(|(sequence, fact)| (*sequence, fact.place));
        (vouched.into_iter().map(|(_, fact)| fact).collect(), loose)
    }

    /// One record, in its turn.
    fn apply(
        &mut self,
        fact: &Fact,
        order: &Order,
        entries: &mut BTreeMap<SpoolId, Entry>,
        dones: &mut BTreeSet<SpoolId>,
    ) {
        match &fact.says {
            Says::Message { id, .. } => {
                let settled = matches!(fact.from, From::Aside(_));
                let was_apart = self.is_apart(fact.place);
                let Some(mut entry) = Entry::new(fact, settled, was_apart) else {
                    return;
                };
                // A copy that does not count leaves the record before it in force.
                let before = entries.get(id).is_some_and(|entry| entry.found.counts);
                entry.found.counts = before || order.counts(fact);
                if dones.contains(id) {
                    self.finding(
                        fact.place,
                        format!("message {id} comes again behind its end"),
                    );
                    return;
                }
                entries.insert(*id, entry);
            }
            Says::Outcome {
                id,
                recipient,
                finished,
            } => match entries.get_mut(id) {
                Some(entry) if *recipient < entry.recipients => {
                    if *finished {
                        entry.found.finished.insert(*recipient);
                    } else {
                        entry.found.finished.remove(recipient);
                    }
                }
                Some(_) => {
                    let what =
                        format!("an outcome of recipient {recipient} of {id}, which has none");
                    self.finding(fact.place, what);
                }
                None => self.unknown(fact.place, *id, order),
            },
            Says::Round { id, piece } => match entries.get_mut(id) {
                Some(entry) => entry.take_piece(fact.place, piece),
                None => self.unknown(fact.place, *id, order),
            },
            Says::Done(id) => {
                let known = entries.get_mut(id).map(|entry| entry.done = true);
                if known.is_none() {
                    self.unknown(fact.place, *id, order);
                }
                dones.insert(*id);
            }
            Says::Void(_) | Says::Nothing => {}
        }
    }

    fn is_apart(&self, place: Place) -> bool {
        let owner = self.owners.get(&place.segment);
        owner.is_some_and(|owner| owner.is_apart())
    }

    /// A reference to a message that is not there: freed before, when anything was.
    fn unknown(&mut self, place: Place, id: SpoolId, order: &Order) {
        if order.complete && !self.is_apart(place) {
            self.finding(place, format!("it speaks of {id}, which was never there"));
        } else {
            self.found.freed += 1;
        }
    }

    fn judge_contents(&mut self, contents: &BTreeSet<u128>) {
        let mut unclaimed = contents.clone();
        let mut missing = Vec::new();
        for message in self.found.messages.iter() {
            if !message.kind.has_file() {
                continue;
            }
            let is_there = contents.contains(&message.id.bits());
            if !is_there && message.standing == Standing::Vouched {
                let what = format!(
                    "the file with the content of message {} is gone",
                    message.id
                );
                missing.push((message.place, what));
            }
            unclaimed.remove(&message.id.bits());
        }
        for (place, what) in missing {
            self.finding(place, what);
        }
        for id in &unclaimed {
            let what = format!("content.{id:032x} is named by no message");
            self.found.notes.push(Finding { place: None, what });
        }
        self.found.unclaimed = unclaimed.into_iter().collect();
    }
}

impl Order {
    /// Whether a record is in a commit that recovery takes.
    fn counts(&self, fact: &Fact) -> bool {
        let From::Commit(sequence) = fact.from else {
            return false;
        };
        self.good.get(&sequence).is_some_and(|commit| {
            let inside = commit.place.offset..commit.end;
            let here = commit.place.segment == fact.place.segment;
            here && commit.segment == commit.place.segment && inside.contains(&fact.place.offset)
        })
    }
}

impl Entry {
    fn new(fact: &Fact, settled: bool, was_apart: bool) -> Option<Self> {
        let Says::Message { recipients, .. } = &fact.says else {
            return None;
        };
        // Its done record may have been freed with the segments behind this one.
        let standing = if was_apart {
            Standing::PerhapsFinished
        } else {
            Standing::Vouched
        };
        Some(Self {
            found: found(fact, standing)?,
            recipients: *recipients,
            done: false,
            settled,
            gathered: Gathered::default(),
            partial: Vec::new(),
        })
    }

    /// A result of routing counts when all its pieces have come one after the other.
    fn take_piece(&mut self, place: Place, piece: &Piece) {
        let location = Location {
            segment: place.segment,
            payload: place.offset,
            payload_len: piece.bytes.len() as u64,
        };
        let (bytes, starts) = (piece.bytes.clone(), piece.piece == 0);
        if starts {
            self.partial.clear();
        }
        self.partial.extend(bytes);
        let taken = self.gathered.take(piece.clone(), location, false);
        let Ok(Some(round)) = taken else {
            return;
        };
        let bytes = std::mem::take(&mut self.partial);
        if round.first == self.recipients {
            self.recipients += round.routing.recipients.len() as u32;
            self.found.finished.extend(round.replaced);
            self.found.rounds.extend(bytes);
        }
    }
}

fn found(fact: &Fact, standing: Standing) -> Option<Found> {
    let Says::Message {
        id,
        kind,
        payload_len,
        sum,
        outcomes,
        ..
    } = &fact.says
    else {
        return None;
    };
    let finished = outcomes.iter().filter(|(_, finished)| *finished);
    Some(Found {
        id: *id,
        place: fact.place,
        payload_len: *payload_len,
        kind: *kind,
        sum: *sum,
        finished: finished.map(|(recipient, _)| *recipient).collect(),
        rounds: Vec::new(),
        standing,
        counts: false,
    })
}

/// Messages that are vouched for and not finished.
fn believed(entries: BTreeMap<SpoolId, Entry>, loose: &[Fact]) -> BTreeMap<SpoolId, Found> {
    let ends = loose_dones(loose);
    let open = entries
        .into_values()
        .filter(|entry| !entry.done && !entry.settled);
    open.map(|entry| {
        let mut found = entry.found;
        if ends.contains(&found.id) {
            found.standing = Standing::PerhapsFinished;
        }
        (found.id, found)
    })
    .collect()
}

fn loose_dones(loose: &[Fact]) -> BTreeSet<SpoolId> {
    let ends = loose.iter().filter_map(|fact| match fact.says {
        Says::Done(id) => Some(id),
        _ => None,
    });
    ends.collect()
}

/// Messages that only loose records speak of.
fn loose_messages(
    loose: &[Fact],
    believed: &BTreeMap<SpoolId, Found>,
    dones: &BTreeSet<SpoolId>,
) -> BTreeMap<SpoolId, Found> {
    let ends = loose_dones(loose);
    let all = loose.iter().filter_map(|fact| {
        let mut found = found(fact, Standing::Loose)?;
        if ends.contains(&found.id) {
            found.standing = Standing::PerhapsFinished;
        }
        Some((found.id, found))
    });
    all.filter(|(id, _)| !believed.contains_key(id) && !dones.contains(id))
        .collect()
}

fn link(secret: u64, sequence: u64, sum: u32) -> u32 {
    let header = CommitHeader {
        secret,
        sequence,
        generation: 0,
        segment: 0,
        length: 0,
        records: 0,
        previous: 0,
        sum,
    };
    header.link()
}
