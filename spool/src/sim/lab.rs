//! The laboratory: scripted days of a log on a simulated disk, with the power cut after every operation.
//!
//! A day is decided by its seed and its [`Kind`]. After each operation the power is cut in several ways;
//! each image that is new is started from, now and then with cuts, kills and read errors on the way, and
//! an oracle compares what the start finds with what clients were told. A [`Breach`] breaks a rule on
//! purpose, to show that the oracle would notice.
//!
//! To add something that happens in a day: a function and a row in `happenings`.

mod cuts;
mod day;
mod facts;
mod happenings;
mod rounds;
mod submissions;
mod watch;

use core::fmt;
use std::collections::{BTreeMap, HashSet};

use super::Matrix;
use super::persistence::Persistence;
use super::rng::Rng;
use crate::faults::Fault;

use cuts::Cuts;
use day::Day;

/// Messages of a day, about.
const ROUNDS: u64 = 120;

/// What kind of day it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Writes, syncs and reads fail now and then.
    pub errors: bool,
    /// The disk has room for a few segments only.
    pub tight: bool,
    /// One message in so many is large.
    pub large_one_in: u64,
    /// The log grows by so many bytes before a checkpoint is made.
    pub checkpoint_bytes: u64,
    /// Routing replaces recipients.
    pub routes: bool,
    /// The rule that is broken.
    pub breach: Option<Breach>,
}

/// Of a usual day.
const CHECKPOINT_BYTES: u64 = 24 << 10;

impl Kind {
    /// The kinds of days and their names.
    pub const ALL: [(&'static str, Self); 5] = [
        ("calm", Self::new(false, false)),
        ("errors", Self::new(true, false)),
        ("tight", Self::new(false, true)),
        ("routed", Self::routed(true, false)),
        ("routed-tight", Self::routed(false, true)),
    ];

    const fn new(errors: bool, tight: bool) -> Self {
        Self {
            errors,
            tight,
            large_one_in: 6,
            checkpoint_bytes: CHECKPOINT_BYTES,
            routes: false,
            breach: None,
        }
    }

    const fn routed(errors: bool, tight: bool) -> Self {
        let mut kind = Self::new(errors, tight);
        kind.routes = true;
        kind
    }

    /// The kind with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|(other, _)| *other == name).map(|(_, kind)| kind)
    }

    /// The kind of day on which a breach shows.
    #[must_use]
    pub fn breaking(breach: Breach) -> Self {
        use Fault::{
            AcceptShortWrite, AcceptWhileFailed, ContentUnnamed, ContentUnsynced, DropOnFailure,
            KeepFailedSegment, MailTakesReserve, NoVoid, TrustSecondSync, UnlinkEarly,
            UnlinkUnvoided,
        };
        let large_one_in = match breach {
            Breach::Engine(ContentUnsynced | ContentUnnamed | TrustSecondSync) => 6,
            Breach::Engine(UnlinkEarly | UnlinkUnvoided) => 4,
            _ => 40,
        };
        // Checkpoints spare a start most of the commits that could be torn.
        let checkpoint_bytes = match breach {
            Breach::Engine(Fault::AcceptTorn) => 0,
            _ => CHECKPOINT_BYTES,
        };
        let errors = matches!(
            breach,
            Breach::Engine(
                NoVoid
                    | UnlinkUnvoided
                    | AcceptShortWrite
                    | AcceptWhileFailed
                    | KeepFailedSegment
                    | DropOnFailure
                    | TrustSecondSync
            )
        );
        Self {
            errors,
            tight: breach == Breach::Engine(MailTakesReserve),
            large_one_in,
            checkpoint_bytes,
            routes: matches!(
                breach,
                Breach::Engine(
                    Fault::RoundHalfCounts | Fault::CopyForgetsRounds | Fault::RoundsAhead
                )
            ),
            breach: Some(breach),
        }
    }

    /// The rule that the engine breaks.
    #[cfg(feature = "faults")]
    fn fault(&self) -> Option<Fault> {
        match self.breach {
            Some(Breach::Engine(fault)) => Some(fault),
            _ => None,
        }
    }

    fn careless(&self, how: Careless) -> bool {
        self.breach == Some(Breach::Caller(how))
    }
}

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// By the engine; it needs the feature `faults`.
    Engine(Fault),
    /// By those who use it.
    Caller(Careless),
}

impl Breach {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let engine = Fault::ALL.iter().copied().map(Self::Engine);
        engine.chain(Careless::ALL.into_iter().map(Self::Caller))
    }

    /// The breach with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|breach| breach.to_string() == name)
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(fault) => write!(f, "{fault:?}"),
            Self::Caller(how) => write!(f, "{how:?}"),
        }
    }
}

/// Rules of those who use the engine: the shard, the pick-up, and whoever submits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Careless {
    /// The outcome is written before the report about it.
    OutcomeBeforeReport,
    /// A mail file gets its name in `router/` before its content is synced.
    SubmitUnsynced,
    /// Whoever submits ends before the name in `router/` is synced.
    SubmitUnnamed,
    /// A mail file goes before the commit that carries its message.
    UnlinkBeforeCommit,
    /// A message is done before the removal of its mail file is synced.
    DoneBeforeUnlink,
    /// A start takes mail files again whose messages are in the log.
    SourceIgnored,
}

impl Careless {
    const ALL: [Self; 6] = [
        Self::OutcomeBeforeReport,
        Self::SubmitUnsynced,
        Self::SubmitUnnamed,
        Self::UnlinkBeforeCommit,
        Self::DoneBeforeUnlink,
        Self::SourceIgnored,
    ];
}

/// What a day came to.
#[derive(Debug, Default)]
pub struct Total {
    /// Hashes of the images of the log's directory that cuts left.
    pub images: HashSet<u64>,
    /// Starts from such images that were judged.
    pub starts: u64,
    /// Messages that were acknowledged.
    pub acknowledged: u64,
    /// What the cuts did to which operation.
    pub matrix: Matrix,
    /// What happened how often.
    pub happened: BTreeMap<&'static str, u64>,
}

impl Total {
    /// Takes the counts of another day.
    pub fn merge(&mut self, other: Self) {
        self.images.extend(other.images);
        self.starts += other.starts;
        self.acknowledged += other.acknowledged;
        self.matrix.merge(&other.matrix);
        for (what, count) in other.happened {
            *self.happened.entry(what).or_default() += count;
        }
    }
}

/// A day; the error says what the oracle saw. With a `trace` every operation has a line in it.
///
/// # Errors
/// When a rule does not hold.
pub fn run(seed: u64, kind: Kind, trace: Option<&mut Vec<String>>) -> Result<Total, String> {
    let mut cuts = Cuts::new(seed, trace.is_some());
    let mut day = Day::start(seed, kind, trace.is_some());
    let result = whole_day(&mut day, &mut cuts).and_then(|()| at_the_end(&mut day, &mut cuts));
    if let Some(trace) = trace {
        trace.append(&mut day.lines);
        trace.append(&mut cuts.lines);
    }
    result.map(|()| cuts.total)
}

fn whole_day(day: &mut Day, cuts: &mut Cuts) -> Result<(), String> {
    let mut rng = Rng::new(day.seed ^ 99);
    // With an error every few operations the first segments would take all day.
    while day.kind.errors && day.step()? {}
    for number in 0..ROUNDS {
        if number == ROUNDS / 2 && rng.below(2) == 0 {
            cuts.restart(day)?;
        }
        day.happenings(&mut rng, number);
        for _ in 0..rng.below(6) {
            if !day.step()? {
                break;
            }
            cuts.after_operation(day)?;
        }
    }
    drain(day, cuts)?;
    while day.kind.tight && !day.facts.alive.is_empty() {
        day.finish_some();
        drain(day, cuts)?;
    }
    Ok(())
}

fn at_the_end(day: &mut Day, cuts: &mut Cuts) -> Result<(), String> {
    if !day.garbage().is_empty() {
        return Err(format!("left over: {:?}", day.garbage()));
    }
    cuts.total.acknowledged = day.facts.acknowledged();
    day.count_into(&mut cuts.total);
    cuts.restart_with(day, &mut Persistence::drop_all())
        .map_err(|error| format!("at the end: {error}"))
}

/// Faults end, and everything staged gets to the disk.
fn drain(day: &mut Day, cuts: &mut Cuts) -> Result<(), String> {
    let mut rests = 0;
    while rests < 100 {
        day.now += 2_000_000;
        if day.step()? {
            cuts.after_operation(day)?;
            continue;
        }
        if day.log.idle() && day.log.stats().accepting {
            return Ok(());
        }
        day.now += 1_000_000_000;
        rests += 1;
        if rests == 50 {
            day.room_for_a_start();
        }
    }
    Err("the log does not come to rest".to_owned())
}
