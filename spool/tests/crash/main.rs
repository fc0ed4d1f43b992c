//! Power cuts after every operation of scripted days: the laboratory of `spool::sim::lab` with a budget.
//! Deliberate faults show that its oracle would notice.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use spool::sim::lab::{self, Breach, Kind, Total};
use spool::sim::{Column, OpKind};

/// Days of each kind.
const DAYS: u64 = 30;

/// Days in which a deliberate fault must show twice. The rarest needs a commit that fails just before the last
/// outcome of a message with a file of its own.
const FAULT_DAYS: u64 = 90;

/// Images of disks, told apart by their hashes, that the days have to come to.
const STATES_MIN: usize = 200_000;

/// Operations that this version does not perform: their rows may be missing.
const NEVER: &[(OpKind, &str)] = &[(OpKind::Link, "nobody links; the disk is tested with it")];

/// Cells that cannot exist.
const IMPOSSIBLE: &[(OpKind, Column, &str)] = &[
    (OpKind::Create, Column::Torn, "a name is there or not"),
    (OpKind::Unlink, Column::Torn, "a name is there or not"),
    (
        OpKind::CheckpointCreate,
        Column::Torn,
        "a name is there or not",
    ),
    (
        OpKind::CheckpointRemove,
        Column::Torn,
        "a name is there or not",
    ),
    (OpKind::Link, Column::Torn, "a name is there or not"),
];

/// Work that several threads take from one list.
fn in_parallel<T: Sync, R: Send>(work: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicU64::new(0);
    let results = Mutex::new(Vec::new());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(one) = work.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let result = each(one);
                    results.lock().expect("no day panics here").push(result);
                }
            });
        }
    });
    results.into_inner().expect("no day panicked")
}

#[test]
fn nothing_acknowledged_is_lost_at_any_cut() {
    let days: Vec<(&str, Kind, u64)> = Kind::ALL
        .into_iter()
        .flat_map(|(name, kind)| (1..=DAYS).map(move |seed| (name, kind, seed)))
        .collect();
    let totals = in_parallel(&days, |(name, kind, seed)| {
        let total = lab::run(*seed, *kind, None)
            .unwrap_or_else(|error| panic!("--kind {name} --seed {seed}: {error}"));
        let enough = if kind.errors { 3 } else { 20 };
        assert!(
            total.acknowledged > enough,
            "{name} {seed}: too little mail"
        );
        total
    });
    let mut all = Total::default();
    totals.into_iter().for_each(|total| all.merge(total));
    println!(
        "{} distinct crash states, {} starts",
        all.images.len(),
        all.starts
    );
    println!("{}\n{:?}", all.matrix, all.happened);
    assert!(all.images.len() >= STATES_MIN, "{}", all.images.len());
    no_cell_is_empty(&all);
}

fn no_cell_is_empty(all: &Total) {
    for kind in OpKind::ALL {
        let counts = Column::ALL.map(|column| all.matrix.count(kind, column));
        if counts == [0; 4] && NEVER.iter().any(|(never, _)| *never == kind) {
            continue;
        }
        for (column, count) in Column::ALL.into_iter().zip(counts) {
            let mut impossible = IMPOSSIBLE.iter();
            let impossible = impossible.any(|(of, cell, _)| (*of, *cell) == (kind, column));
            assert_eq!(
                count == 0,
                impossible,
                "{} {column:?}: {count}",
                kind.name()
            );
        }
    }
}

/// Seeds among the first [`FAULT_DAYS`] whose day ends in an error, two at most. An assertion of the engine is
/// an answer as well.
fn caught(breach: Breach) -> usize {
    let kind = Kind::breaking(breach);
    let noticed = |seed: &u64| match std::panic::catch_unwind(|| lab::run(*seed, kind, None)) {
        Ok(Ok(_)) => false,
        Ok(Err(error)) => {
            println!("{breach}, seed {seed}: {error}");
            true
        }
        Err(_) => {
            println!("{breach}, seed {seed}: an assertion");
            true
        }
    };
    (1..=FAULT_DAYS).filter(noticed).take(2).count()
}

#[test]
fn each_deliberate_fault_is_caught() {
    let breaches: Vec<Breach> = Breach::all().collect();
    let counts = in_parallel(&breaches, |breach| (*breach, caught(*breach)));
    let missed = counts.into_iter().filter(|(_, seeds)| *seeds < 2);
    let missed: Vec<String> = missed.map(|(breach, _)| breach.to_string()).collect();
    assert!(
        missed.is_empty(),
        "not caught by two of {FAULT_DAYS} days: {missed:?}"
    );
}
