//! Record encoding and the commit loop of the engine, each beside a plain baseline.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use spool::op::{Completion, Op, Request};
use spool::{Envelope, Log, MessageKey, Outcome, Recipient, Recovery, Settings, Status, record};

fn envelope() -> Envelope {
    Envelope {
        sender: b"someone@source.example".to_vec(),
        recipients: vec![Recipient {
            address: b"somebody@sink.example".to_vec(),
            ..Recipient::default()
        }],
        client: b"192.0.2.1".to_vec(),
        helo: b"client.example".to_vec(),
        protocol: b"ESMTP".to_vec(),
        source: None,
        ..Envelope::default()
    }
}

fn record_encode(c: &mut Criterion) {
    let (envelope, content) = (envelope(), vec![b'x'; 4096]);
    let id = spool::SpoolId {
        shard: 1,
        epoch: 2,
        sequence: 3,
    };
    let mut group = c.benchmark_group("record_encode_4KiB");
    group.throughput(Throughput::Elements(1));
    group.bench_function("whole payload", |b| {
        b.iter(|| record::whole_payload(id, black_box(&envelope), &[], &content));
    });
    group.bench_function("baseline: copy and one checksum", |b| {
        b.iter(|| {
            let mut out = Vec::with_capacity(4400);
            out.extend_from_slice(&black_box(&envelope).sender);
            out.extend_from_slice(&content);
            (crc32c::crc32c(&out), out)
        });
    });
    group.finish();
}

/// Answers what a perfect disk would, at once; reads give zeroes.
fn answer(request: Request) -> Completion {
    let (result, buf) = match request.op {
        Op::Write { buf, .. } | Op::Read { buf, .. } => (buf.len() as u64, Some(buf)),
        _ => (0, None),
    };
    Completion {
        token: request.token,
        result: Ok(result),
        buf,
        files: Vec::new(),
    }
}

fn turn(log: &mut Log, now: u64) {
    while let Some(request) = log.poll_op(now) {
        log.complete(now, answer(request));
    }
    while log.poll_event().is_some() {}
}

fn fresh() -> Log {
    let mut recovery = Recovery::new(Settings {
        segments_max: 64,
        ..Settings::default()
    });
    while let Some(request) = recovery.poll_op() {
        recovery.complete(answer(request));
    }
    let (mut log, _) = recovery.finish().expect("an empty directory is a start");
    for now in 0..10 {
        turn(&mut log, now);
    }
    log
}

const BATCH: usize = 64;

/// 64 messages in one commit, delivered and done in the next.
fn commit_loop(c: &mut Criterion) {
    let (envelope, content) = (envelope(), vec![b'x'; 4096]);
    let mut group = c.benchmark_group("commit_loop_64_x_4KiB");
    group.throughput(Throughput::Elements(BATCH as u64));
    let (mut log, mut now) = (fresh(), 1_000);
    let mut live: Vec<MessageKey> = Vec::new();
    group.bench_function("accept, commit, outcome, done", |b| {
        b.iter(|| {
            now += 1_000_000;
            for key in live.drain(..) {
                let reply = b"250 2.0.0 ok".to_vec();
                let outcome = Outcome {
                    recipient: 0,
                    attempt: 1,
                    status: Status::Delivered,
                    next_ms: 0,
                    reply,
                };
                log.outcome(now, key, outcome);
                log.done(now, key);
            }
            for _ in 0..BATCH {
                let id = log.reserve_id();
                let accepted = log.accept(now, id, &envelope, &content);
                live.push(accepted.expect("there is room").key);
            }
            turn(&mut log, now);
        });
    });
    group.bench_function("baseline: copy into one buffer, one checksum", |b| {
        b.iter_batched_ref(
            || Vec::with_capacity(BATCH * 4400),
            |out: &mut Vec<u8>| {
                for _ in 0..BATCH {
                    out.extend_from_slice(black_box(&content));
                }
                crc32c::crc32c(out)
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, record_encode, commit_loop);
criterion_main!(benches);
