//! Whole weeks of a relay of several shards: every fault there is, the retry schedule and the expiry really
//! run through, and an oracle that knows what was promised.
//!
//! `cargo test` plays a few seeds. `ZMAILER_SIM_SEEDS=200` plays as many, `ZMAILER_SIM_HOURS=5000` makes each
//! run so long, `ZMAILER_SIM_SEED=17` plays that one only; the same seed and hours are the same run.

use std::collections::BTreeMap;

use super::ledger::Wrong;
use super::plan::{Plan, Trick};
use super::run::{Run, Tally};

const SEEDS: u64 = 9;
const HOURS: u64 = 500;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

fn plan(seed: u64, hours: u64) -> Plan {
    Plan {
        seed,
        shards: [1, 2, 4][seed as usize % 3],
        hours,
        clients: hours,
        faults: hours / 2,
        trick: Trick::None,
    }
}

#[test]
fn weeks_of_bad_weather_lose_nothing() {
    let hours = setting("ZMAILER_SIM_HOURS").unwrap_or(HOURS);
    let seeds = match setting("ZMAILER_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("ZMAILER_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let mut total = Tally::default();
    for seed in seeds {
        let tally = Run::new(plan(seed, hours)).run();
        assert!(
            tally.wrong.is_empty(),
            "seed {seed}: {}\nagain: ZMAILER_SIM_SEED={seed} ZMAILER_SIM_HOURS={hours} \
             cargo test --test integration -- sim::days::weeks",
            told(&tally.wrong)
        );
        add(&mut total, &tally);
    }
    print(&total);
    assert!(
        total.spared > total.starts / 4 && total.spared_messages > 0,
        "too few starts from a checkpoint"
    );
}

fn told(wrong: &[(Wrong, String)]) -> String {
    let lines = wrong
        .iter()
        .map(|(wrong, story)| format!("{wrong:?}: {story}"));
    lines.collect::<Vec<_>>().join("\n")
}

fn add(total: &mut Tally, tally: &Tally) {
    total.hours += tally.hours;
    total.letters += tally.letters;
    total.accepted += tally.accepted;
    total.delivered += tally.delivered;
    total.repeats += tally.repeats;
    total.reports += tally.reports;
    total.kept += tally.kept;
    total.starts += tally.starts;
    total.spared += tally.spared;
    total.spared_messages += tally.spared_messages;
    total.audits += tally.audits;
    total.waiters += tally.waiters;
    for (name, count) in &tally.faults {
        *total.faults.entry(name.clone()).or_default() += count;
    }
}

fn print(total: &Tally) {
    let Tally {
        hours,
        letters,
        accepted,
        delivered,
        repeats,
        reports,
        kept,
        starts,
        spared,
        spared_messages,
        audits,
        waiters,
        faults,
        ..
    } = total;
    println!(
        "{hours} virtual hours, {letters} messages sent, {accepted} acknowledged, {delivered} delivered, \
         {repeats} repeats, {reports} recipients reported, {kept} for the postmaster, {starts} starts, \
         {spared} logs from a checkpoint with {spared_messages} messages, \
         {audits} audits of {waiters} waiting"
    );
    let faults: &BTreeMap<String, usize> = faults;
    for (name, count) in faults {
        println!("{count:6} {name}");
    }
}

#[test]
fn the_same_seed_is_the_same_week() {
    for seed in 0..3 {
        let digest = || Run::new(plan(seed, 100)).run().digest;
        assert_eq!(digest(), digest(), "seed {seed}");
    }
}

/// A message without a sender whose content could not be read at the moment of its failure was kept for the
/// postmaster without content, and was gone. Here it stays queued until the disk answers.
#[test]
fn a_failed_message_without_sender_is_kept_with_its_content() {
    for seed in [0, 1] {
        let tally = Run::new(plan(seed, 1)).unreadable();
        assert!(tally.wrong.is_empty(), "{}", told(&tally.wrong));
        assert_eq!(
            (tally.accepted, tally.kept + tally.delivered),
            (1, 1),
            "seed {seed}"
        );
    }
}

/// A next hop with a long queue held all that one shard may have at another, and mail for every other
/// next hop of that shard waited behind it. Here each other next hop is prompt and has room.
#[test]
fn a_slow_next_hop_does_not_hold_up_others() {
    for seed in [1, 2, 5, 7] {
        let late = Run::new(plan(seed, 1)).rush();
        assert!(late.is_empty(), "seed {seed}: {late:?} wait");
    }
}

/// The oracle is not blind: each misbehaviour is seen, and called by its name.
#[test]
fn misbehaviour_is_seen() {
    const CASES: &[(Trick, Wrong)] = &[
        (Trick::PeerLoses, Wrong::Lost),
        (Trick::PeerRepeats, Wrong::Twice),
        (Trick::PeerAlters, Wrong::Altered),
        (Trick::DisksForget, Wrong::Lost),
        (Trick::LimitPlusOne, Wrong::Limit),
        (Trick::LimitOne, Wrong::Late),
        (Trick::ExpiresEarly, Wrong::ReportTooEarly),
        (Trick::NoPeace, Wrong::NotDrained),
    ];
    for (trick, wrong) in CASES {
        let found = (0..20).find_map(|seed| {
            let plan = Plan {
                trick: *trick,
                ..plan(seed, 300)
            };
            // What is noticed first differs: a disk that forgets makes mail come twice as well.
            let found = Run::new(plan).run().wrong.first().cloned();
            found.filter(|found| found.0 == *wrong)
        });
        assert!(found.is_some(), "{trick:?} is not seen as {wrong:?}");
    }
}
