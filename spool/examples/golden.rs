//! Writes a spool of this version of the format, as text, for `tests/golden/`: once a version, before the
//! version changes. Files that are there are never made again: they are what that version wrote.

#[path = "../tests/engine/harness.rs"]
#[allow(dead_code, reason = "the engine's tests use more of it")]
mod harness;
#[path = "../tests/golden/text.rs"]
mod text;

use spool::op::FileId;
use spool::sim::Fault;
use spool::*;

use harness::{Rig, SECOND, envelope, settings};

fn main() {
    let (whole, damaged) = (relay(), damaged());
    for (name, text) in [("relay", whole), ("damaged", damaged)] {
        std::fs::write(format!("{name}.txt"), text).expect("the directory can be written to");
    }
}

fn all(rig: &Rig) -> String {
    let files = rig.disk.files();
    let images = files.map(|file| (file, rig.disk.image(file).unwrap_or_default().to_vec()));
    text::write(&images.collect())
}

/// Mail that is delivered at once.
fn flow(rig: &mut Rig, messages: u64) {
    for _ in 0..messages {
        let accepted = rig.accepted(9000);
        rig.deliver(accepted.key);
        rig.run(SECOND);
    }
}

fn full_envelope() -> Envelope {
    let recipient = |address: &str, notify, orcpt: Option<&str>| Recipient {
        address: address.as_bytes().to_vec(),
        notify,
        orcpt: orcpt.map(|orcpt| orcpt.as_bytes().to_vec()),
    };
    Envelope {
        sender: "j\u{f6}rg@a.example".as_bytes().to_vec(),
        recipients: vec![
            recipient("one@b.example", 4 | 8, Some("rfc822;1@b.example")),
            recipient("two@b.example", 1, None),
            recipient("three@c.example", 0, None),
        ],
        arrival_ms: 1_700_000_000_123,
        body: BodyKind::EightBit,
        smtputf8: true,
        ret: Some(Ret::Headers),
        envid: Some(b"QQ314159".to_vec()),
        client: b"192.0.2.7".to_vec(),
        helo: b"client.example".to_vec(),
        protocol: b"ESMTPSA".to_vec(),
        source: Some(Source {
            born_ns: 11,
            inode: 12,
            modified_ns: 13,
            size: 14,
        }),
        origin: Origin::Relay,
        routing: None,
    }
}

fn tried(recipient: u32, status: Status, reply: &str) -> Outcome {
    Outcome {
        recipient,
        attempt: 3,
        status,
        next_ms: 1_700_000_600_000,
        reply: reply.as_bytes().to_vec(),
    }
}

/// All that version 1 writes: a message that is copied forward with its outcomes, large content, states of
/// next hops, a void record, segments of several generations.
fn relay() -> String {
    let mut rig = Rig::new(settings(7));
    let id = rig.log.reserve_id();
    let content = "Subject: gr\u{fc}n\r\n\r\nwaits\r\n".as_bytes();
    let waits = rig.log.accept(rig.now, id, &full_envelope(), content);
    let waits = waits.expect("an empty disk");
    rig.run(SECOND);
    for (recipient, status, reply) in [
        (0, Status::Deferred, "451 4.2.0 later"),
        (1, Status::Delivered, "250 2.0.0 ok"),
    ] {
        let outcome = tried(recipient, status, reply);
        rig.log.outcome(rig.now, waits.key, outcome);
    }
    rig.log.thread_state(rig.now, thread(3));
    let id = rig.log.reserve_id();
    rig.log.content_begin(id);
    rig.log
        .content_end(id, &b"0123456789abcdef0123456789abcd\r\n".repeat(4500));
    rig.run(SECOND);
    let large = rig.log.accept_content(rig.now, id, &envelope(), false);
    let large = large.expect("its content is stored");
    rig.run(SECOND);
    rig.log
        .outcome(rig.now, large.key, tried(0, Status::Held, "held by root"));
    flow(&mut rig, 60);
    for _ in 0..2 {
        rig.disk.fail_next(Fault::Error { errno: 5 });
    }
    let refused = rig.accept(400).expect("staged");
    rig.run(20 * SECOND);
    assert!(rig.has_failed(refused.batch));
    rig.accepted(700);
    let failed = rig.accepted(700);
    rig.log.outcome(
        rig.now,
        failed.key,
        tried(0, Status::Failed, "550 5.1.1 no"),
    );
    rig.run(SECOND);
    all(&rig)
}

fn thread(attempt: u32) -> ThreadState {
    ThreadState {
        channel: b"smtp".to_vec(),
        host: b"b.example".to_vec(),
        attempt,
        next_ms: 1_700_000_900_000,
        reply: b"connection refused".to_vec(),
    }
}

/// A segment set aside, a damaged commit that is not yet, and an unfinished end.
fn damaged() -> String {
    let mut rig = Rig::new(settings(7));
    let stays = rig.accepted(9000);
    let (segment, at) = rig.find(&stays.id.bits().to_le_bytes()).expect("on disk");
    rig.disk
        .poke(FileId::Segment(segment), at as u64 + 3000, b"!");
    rig.accepted(700);
    let (mut rig, recovered) = rig.restart(settings(8));
    for message in recovered.messages {
        rig.deliver(message.key);
    }
    flow(&mut rig, 60);
    let first = rig.accepted(9000);
    let (segment, at) = rig.find(&first.id.bits().to_le_bytes()).expect("on disk");
    rig.disk
        .poke(FileId::Segment(segment), at as u64 + 3000, b"!");
    rig.accepted(700);
    let last = rig.accepted(9000);
    let (segment, at) = rig.find(&last.id.bits().to_le_bytes()).expect("on disk");
    // What a cut in the middle of its write leaves.
    rig.disk.poke(
        FileId::Segment(segment),
        at as u64 / 4096 * 4096 + 4096,
        &[0; 8192],
    );
    all(&rig)
}
