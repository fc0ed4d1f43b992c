//! Line scan, command parse and dot codec, each beside a plain baseline.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zmailer::base::clock::Now;
use zmailer::protocol::client::{Content, Job, JobRecipient, Session, Settings};
use zmailer::protocol::command;
use zmailer::protocol::content::DotDecoder;
use zmailer::protocol::judge::line_fault;

/// 4 KiB of text in lines of 78 bytes, with a dot at the start of some.
fn text() -> Vec<u8> {
    let mut text = Vec::new();
    for number in 0..51 {
        let first = if number % 17 == 0 { b'.' } else { b'x' };
        text.push(first);
        text.extend_from_slice(&[b'y'; 77]);
        text.extend_from_slice(b"\r\n");
    }
    text
}

fn stuffed(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b".\r\n");
    out
}

fn line_scan(c: &mut Criterion) {
    let text = text();
    let mut group = c.benchmark_group("line_scan_4KiB");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("line_fault", |b| {
        b.iter(|| line_fault(black_box(&text), 998))
    });
    group.bench_function("baseline: byte by byte", |b| {
        b.iter(|| {
            let (mut bad, mut before, mut length) = (false, 0u8, 0);
            for byte in black_box(&text) {
                length = if *byte == b'\n' { 0 } else { length + 1 };
                bad |= *byte == 0 || (*byte == b'\n') != (before == b'\r') || length > 999;
                before = *byte;
            }
            bad
        });
    });
    group.finish();
}

fn command_parse(c: &mut Criterion) {
    let lines: [&[u8]; 4] = [
        b"EHLO client.example.net",
        b"MAIL FROM:<someone@source.example> SIZE=4096 BODY=8BITMIME RET=HDRS",
        b"RCPT TO:<somebody@sink.example> NOTIFY=SUCCESS,FAILURE",
        b"DATA",
    ];
    let mut group = c.benchmark_group("command_parse_4_lines");
    group.bench_function("parse", |b| {
        b.iter(|| {
            lines
                .iter()
                .filter(|line| command::parse(black_box(line)).is_ok())
                .count()
        });
    });
    group.bench_function("baseline: split at blanks, upper-case the verb", |b| {
        b.iter(|| {
            lines
                .iter()
                .map(|line| {
                    let mut words = black_box(line).split(|byte| *byte == b' ');
                    words
                        .next()
                        .map(<[u8]>::to_ascii_uppercase)
                        .map_or(0, |verb| verb.len())
                        + words.count()
                })
                .sum::<usize>()
        });
    });
    group.finish();
}

fn dot_decode(c: &mut Criterion) {
    let input = stuffed(&text());
    let mut group = c.benchmark_group("dot_decode_4KiB");
    group.throughput(Throughput::Bytes(input.len() as u64));
    let mut out = Vec::with_capacity(input.len());
    group.bench_function("DotDecoder", |b| {
        b.iter(|| {
            out.clear();
            DotDecoder::new(998, 1 << 20).feed(black_box(&input), &mut out)
        });
    });
    let mut out = Vec::with_capacity(input.len());
    group.bench_function("baseline: line by line", |b| {
        b.iter(|| {
            out.clear();
            for line in black_box(&input).split_inclusive(|byte| *byte == b'\n') {
                if line == b".\r\n" {
                    break;
                }
                out.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            }
            out.len()
        });
    });
    group.bench_function("baseline: copy only", |b| {
        b.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(&input));
        });
    });
    group.finish();
}

/// A session with a peer that offers PIPELINING and nothing else, so that content goes out behind DATA.
fn open_session() -> Session {
    let mut session = Session::new(Arc::new(Settings::default()), Now::default());
    let mut commands = Vec::new();
    let opening = b"220 sink\r\n250-sink\r\n250 PIPELINING\r\n";
    session.receive(opening, Now::default(), &mut commands);
    assert!(session.can_take(), "the peer has said hello");
    session
}

fn job(content: &Arc<Vec<u8>>) -> Job {
    Job {
        token: 1,
        sender: b"someone@source.example".to_vec(),
        recipients: vec![JobRecipient {
            address: b"somebody@sink.example".to_vec(),
            notify: 0,
            orcpt: None,
            privilege: None,
        }],
        content: Content::Memory(Arc::clone(content)),
        eight_bit: false,
        binary: false,
        smtputf8: false,
        ret: None,
        envid: None,
        identity: None,
    }
}

/// Delivers one message; gives back the bytes written behind DATA, which `output` holds piece by piece.
fn deliver(session: &mut Session, content: &Arc<Vec<u8>>, output: &mut Vec<u8>) -> usize {
    let now = Now::default();
    output.clear();
    session.submit(job(content), now, output);
    output.clear();
    session.receive(b"250 ok\r\n250 ok\r\n354 go on\r\n", now, output);
    let mut written = 0;
    while !output.is_empty() {
        written += black_box(&*output).len();
        output.clear();
        session.sent(now, output);
    }
    session.receive(b"250 taken\r\n", now, output);
    while session.poll_event().is_some() {}
    written
}

fn dot_encode(c: &mut Criterion) {
    for (name, copies) in [("dot_encode_4KiB", 1), ("dot_encode_1MiB", 256)] {
        let content = Arc::new(text().repeat(copies));
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(content.len() as u64));
        let mut session = open_session();
        let mut out = Vec::new();
        let expected = stuffed(&content).len();
        assert_eq!(deliver(&mut session, &content, &mut out), expected);
        // The commands and replies of a transaction included, as a message cannot be sent without.
        group.bench_function("client session", |b| {
            b.iter(|| deliver(&mut session, black_box(&content), &mut out));
        });
        group.bench_function("baseline: line by line", |b| {
            b.iter(|| stuffed(black_box(&content)).len());
        });
        let mut out = Vec::with_capacity(content.len());
        group.bench_function("baseline: copy only", |b| {
            b.iter(|| {
                out.clear();
                out.extend_from_slice(black_box(&content));
            });
        });
        group.finish();
    }
}

criterion_group!(benches, line_scan, command_parse, dot_decode, dot_encode);
criterion_main!(benches);
