//! The commit loop on the real disk, and what a message with many recipients takes.
//!
//! `cargo run --release -p zmailer-bench --bin commit-loop -- [SECONDS] [DIRECTORY]`
//!
//! With one log, then with two at a time, as shards are. Processor time is that of
//! the thread with the engines: accept, commit, outcome and done of every message, and handing requests over.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use spool::{MessageKey, Settings};
use zmailer_bench::disk::{Driven, delivered, empty_dir, envelope};

/// Bytes of content of a message.
const CONTENT_BYTES: usize = 4096;

/// Messages in a commit.
const BATCH: usize = 64;

/// Recipients of a message to many.
const RECIPIENTS: usize = 100;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let seconds: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(5);
    let dir = words
        .next()
        .map_or_else(|| PathBuf::from("target/bench/commit-loop"), PathBuf::from);
    let run = || {
        for logs in [1, 2] {
            commits(&dir, logs, seconds)?;
        }
        for content in [4096, 32 << 10, 200 << 10] {
            many(&dir, content)?;
        }
        empty_dir(&dir)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn settings() -> Settings {
    Settings {
        batch_messages: BATCH as u32,
        batch_bytes: 1 << 20,
        segments_max: 1 << 20,
        ..Settings::default()
    }
}

fn commits(dir: &Path, logs: u16, seconds: u64) -> io::Result<()> {
    let mut threads = Vec::new();
    for shard in 0..logs {
        let dir = dir.join(shard.to_string());
        threads.push(std::thread::spawn(move || one_log(&dir, shard, seconds)));
    }
    let (mut messages, mut cpu_ns) = (0, 0);
    for thread in threads {
        let (count, ns) = thread
            .join()
            .map_err(|_| io::Error::other("a thread failed"))??;
        messages += count;
        cpu_ns += ns;
    }
    println!(
        "{logs} logs, batches of {BATCH} x {CONTENT_BYTES}: {} messages/s, {} ns of the engine's thread each",
        messages / seconds,
        cpu_ns / messages
    );
    Ok(())
}

/// Messages, and nanoseconds of processor time.
fn one_log(dir: &Path, shard: u16, seconds: u64) -> io::Result<(u64, u64)> {
    empty_dir(dir)?;
    let mut driven = Driven::new(
        dir,
        Settings {
            shard,
            ..settings()
        },
    )?;
    let (mut live, mut messages) = (Vec::new(), 0);
    // So that segments are made and recycled before it counts.
    for _ in 0..1000 {
        turn(&mut driven, &mut live)?;
    }
    let (begun, cpu_before) = (Instant::now(), cpu_ns()?);
    while begun.elapsed().as_secs() < seconds {
        turn(&mut driven, &mut live)?;
        messages += BATCH as u64;
    }
    Ok((messages, cpu_ns()? - cpu_before))
}

/// A batch is committed; the one before is delivered and done in the same commit.
fn turn(driven: &mut Driven, live: &mut Vec<MessageKey>) -> io::Result<()> {
    let (envelope, content) = (envelope(1), [b'x'; CONTENT_BYTES]);
    for key in live.drain(..) {
        driven.deliver(key);
    }
    let now = driven.now();
    let mut batch = 0;
    for _ in 0..BATCH {
        let id = driven.log.reserve_id();
        let accepted = driven.log.accept(now, id, &envelope, &content);
        let accepted = accepted.map_err(|refusal| io::Error::other(format!("{refusal:?}")))?;
        live.push(accepted.key);
        batch = accepted.batch;
    }
    driven.commit(batch)
}

/// Processor time of this thread.
fn cpu_ns() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = text.split(' ').next().and_then(|word| word.parse().ok());
    first.ok_or_else(|| io::Error::other("no processor time"))
}

/// Bytes of the log that a message with many recipients takes.
fn many(dir: &Path, content_bytes: usize) -> io::Result<()> {
    empty_dir(dir)?;
    let mut driven = Driven::new(dir, settings())?;
    let (envelope, content) = (envelope(RECIPIENTS), vec![b'x'; content_bytes]);
    let now = driven.now();
    let id = driven.log.reserve_id();
    let accepted = driven.log.accept(now, id, &envelope, &content);
    let accepted = accepted.map_err(|refusal| io::Error::other(format!("{refusal:?}")))?;
    driven.commit(accepted.batch)?;
    let taken = driven.log.stats().bytes_written;
    let now = driven.now();
    for recipient in 0..RECIPIENTS as u32 {
        driven.log.outcome(now, accepted.key, delivered(recipient));
    }
    driven.log.done(now, accepted.key);
    let outcomes = driven.log.stats().staged_bytes;
    let allowed = content_bytes * 3 / 2 + 100 * RECIPIENTS;
    println!(
        "{content_bytes} bytes to {RECIPIENTS} recipients: {taken} bytes written (allowed {allowed}), \
         {outcomes} more for outcomes and done"
    );
    Ok(())
}
