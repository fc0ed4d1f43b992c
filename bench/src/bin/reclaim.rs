//! Copying forward on the real disk: of every hundred messages some wait long, the others are delivered at
//! once. Prints bytes copied per byte accepted, disk use per live byte, and commit latencies.
//!
//! `cargo run --release -p zmailer-bench --bin reclaim -- [MIB] [DIRECTORY]`
//!
//! The first half of the accepted MIB fills the log and is not counted. Waiting messages leave in
//! random (seeded) order, so that no segment is ever dead as a whole. Bytes are the same in each run but for how
//! copies and mail meet in batches.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use spool::{MessageKey, Settings};
use zmailer_bench::disk::{Driven, empty_dir, envelope, quantile};

/// Bytes of content of a message.
const CONTENT_BYTES: usize = 4096;

/// Messages in a commit.
const BATCH: usize = 16;

/// Waiting messages make at most this part of what is accepted.
const WINDOW_SHARE: usize = 8;

struct Figures {
    accepted_bytes: u64,
    copied_bytes: u64,
    written_bytes: u64,
    live_bytes: u64,
    /// Bytes on disk above twice the live ones, at most.
    over_bytes_max: i64,
    disk_bytes: u64,
    latencies_ns: Vec<u64>,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let mib: usize = words
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(2048);
    let dir = words
        .next()
        .map_or_else(|| PathBuf::from("target/bench/reclaim"), PathBuf::from);
    println!(
        "| waiting | live MiB | copied per byte accepted | written per byte accepted | disk per live byte | MiB above twice live, at most | commit us: median | p99 |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for waiting in [0, 1, 10, 50, 90] {
        match run(&dir, waiting, mib) {
            Ok(figures) => print(waiting, figures),
            Err(error) => {
                eprintln!("{}: {error}", dir.display());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn print(waiting: u64, mut figures: Figures) {
    let ratio = |bytes: u64, of: u64| bytes as f64 / of as f64;
    let accepted = figures.accepted_bytes;
    println!(
        "| {waiting} % | {} | {:.2} | {:.2} | {:.2} | {} | {} | {} |",
        figures.live_bytes >> 20,
        ratio(figures.copied_bytes, accepted),
        ratio(figures.written_bytes, accepted),
        ratio(figures.disk_bytes, figures.live_bytes),
        figures.over_bytes_max >> 20,
        quantile(&mut figures.latencies_ns, 500) / 1000,
        quantile(&mut figures.latencies_ns, 990) / 1000,
    );
}

fn run(dir: &Path, waiting: u64, mib: usize) -> io::Result<Figures> {
    empty_dir(dir)?;
    let settings = Settings {
        segments_max: 1 << 20,
        ..Settings::default()
    };
    let mut driven = Driven::new(dir, settings)?;
    let messages = (mib << 20) / CONTENT_BYTES;
    let window = messages / WINDOW_SHARE * waiting as usize / 100;
    let mut kept: Vec<MessageKey> = Vec::new();
    let (mut random, mut latencies_ns) = (1, Vec::new());
    let (mut before, mut over_bytes_max) = (driven.log.stats(), i64::MIN);
    for number in 0..messages / BATCH {
        if number == messages / BATCH / 2 {
            before = driven.log.stats();
            latencies_ns.clear();
            over_bytes_max = i64::MIN;
        }
        let begun = driven.now();
        let keys = accept(&mut driven)?;
        latencies_ns.push(driven.now() - begun);
        for key in keys {
            if next(&mut random) % 100 < waiting {
                kept.push(key);
            } else {
                driven.deliver(key);
            }
        }
        while kept.len() > window {
            let leaves = next(&mut random) as usize % kept.len();
            driven.deliver(kept.swap_remove(leaves));
        }
        let stats = driven.log.stats();
        over_bytes_max = over_bytes_max.max(stats.bytes as i64 - 2 * stats.live_bytes as i64);
    }
    let after = driven.log.stats();
    drop(driven);
    empty_dir(dir)?;
    Ok(Figures {
        accepted_bytes: ((messages - messages / 2) * CONTENT_BYTES) as u64,
        copied_bytes: after.bytes_copied - before.bytes_copied,
        written_bytes: after.bytes_written - before.bytes_written,
        live_bytes: after.live_bytes,
        disk_bytes: after.bytes,
        over_bytes_max,
        latencies_ns,
    })
}

/// Messages in one commit that is on disk.
fn accept(driven: &mut Driven) -> io::Result<Vec<MessageKey>> {
    let (envelope, content) = (envelope(1), [b'x'; CONTENT_BYTES]);
    let now = driven.now();
    let mut keys = Vec::with_capacity(BATCH);
    let mut batch = 0;
    for _ in 0..BATCH {
        let id = driven.log.reserve_id();
        let accepted = driven.log.accept(now, id, &envelope, &content);
        let accepted = accepted.map_err(|refusal| io::Error::other(format!("{refusal:?}")))?;
        keys.push(accepted.key);
        batch = accepted.batch;
    }
    driven.commit(batch)?;
    Ok(keys)
}

/// A seeded sequence (xorshift).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
