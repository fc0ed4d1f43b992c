//! Copying forward around records that are damaged or cannot be read.

use spool::op::FileId;
use spool::*;

use crate::harness::{Rig, SECOND, envelope, settings};

/// A rig with a message that nobody delivers, and where it is.
fn with_marker(segments_max: u32) -> (Rig, Accepted, (u32, usize)) {
    let mut rig = Rig::new(Settings {
        segments_max,
        ..settings(7)
    });
    let id = rig.log.reserve_id();
    let stays = rig
        .log
        .accept(rig.now, id, &envelope(), b"MARKER-MARKER")
        .expect("an empty disk");
    rig.run(SECOND);
    let place = rig.find(b"MARKER-MARKER").expect("it is on disk");
    (rig, stays, place)
}

/// Mail that is delivered at once; all of it has to be accepted.
fn flow(rig: &mut Rig, messages: u64) {
    for number in 0..messages {
        let accepted = match rig.accept(9000) {
            Ok(accepted) => accepted,
            Err(refusal) => panic!("message {number}: {refusal:?}, {:?}", rig.log.stats()),
        };
        rig.run(SECOND / 4);
        assert!(rig.is_committed(accepted.batch));
        rig.deliver(accepted.key);
        rig.run(SECOND / 4);
    }
}

/// What was lost: the copy of a damaged message was tried every five seconds and nothing else was done
/// meanwhile; no segment was made, and new mail got 452. Here the log goes round many times.
#[test]
fn a_damaged_message_does_not_stop_the_log() {
    let (mut rig, stays, (segment, at)) = with_marker(12);
    rig.disk.poke(FileId::Segment(segment), at as u64, b"m");
    flow(&mut rig, 200);
    let told = rig.troubles();
    let named = stays.id.to_string();
    assert_eq!(
        told.iter().filter(|text| text.contains(&named)).count(),
        1,
        "{told:?}"
    );
    assert_eq!(rig.log.stats().damaged, 1);
    assert_eq!(rig.log.stats().messages, 1);
    assert_eq!(
        rig.find(b"mARKER-MARKER"),
        Some((segment, at)),
        "its bytes stay"
    );
    // Whoever has it in memory can still report it, or let it expire.
    rig.deliver(stays.key);
    flow(&mut rig, 20);
    assert_eq!(rig.log.stats().live_bytes, 0);
    assert_eq!(rig.log.stats().messages, 0);
    let (rig, recovered) = rig.restart(settings(8));
    assert_eq!(recovered.report.aside, [segment]);
    assert_eq!(recovered.report.damaged, []);
    assert_eq!(rig.find(b"mARKER-MARKER"), Some((segment, at)));
}

/// A disk that cannot read a record for a while: the operator is told once, other jobs go on, and the
/// message is copied when it can be read.
#[test]
fn a_message_that_cannot_be_read_is_copied_later() {
    let (mut rig, stays, (segment, _)) = with_marker(40);
    for _ in 0..3 {
        rig.disk.fail_read(5);
    }
    flow(&mut rig, 400);
    let told = rig.troubles();
    let named = stays.id.to_string();
    assert_eq!(
        told.iter().filter(|text| text.contains(&named)).count(),
        1,
        "{told:?}"
    );
    assert!(
        told.iter().any(|text| text.contains("tried again")),
        "{told:?}"
    );
    assert_eq!(rig.log.stats().damaged, 0);
    assert_ne!(
        rig.find(b"MARKER-MARKER").map(|place| place.0),
        Some(segment),
        "it was copied"
    );
    let (_, recovered) = rig.restart(settings(8));
    let ids: Vec<SpoolId> = recovered.messages.iter().map(|found| found.id).collect();
    assert_eq!(ids, [stays.id]);
}

/// Live messages among many that are delivered: the log goes round, and none is left behind.
#[test]
fn every_live_message_is_copied() {
    let mut rig = Rig::new(settings(7));
    let mut few = Vec::new();
    for number in 0..40 {
        let accepted = rig.accepted(300);
        if number % 4 == 0 {
            few.push(accepted.id);
        } else {
            rig.deliver(accepted.key);
        }
    }
    flow(&mut rig, 60);
    assert_eq!(rig.log.stats().messages, few.len() as u64);
    let (_, recovered) = rig.restart(settings(8));
    let ids: Vec<SpoolId> = recovered.messages.iter().map(|found| found.id).collect();
    assert_eq!(ids, few);
}

/// Bytes of segments, live and copied bytes after a flow of mail of which `stays` in a hundred waits for the
/// next `waiting` messages, many times round the log.
fn flow_with_waiting(stays: u64, waiting: usize, messages: u64) -> Rig {
    let mut rig = Rig::new(Settings {
        segments_max: 10_000,
        ..settings(7)
    });
    let mut kept = std::collections::VecDeque::new();
    for number in 0..messages {
        let accepted = rig.accept(2000).expect("there is always room");
        if (number * 37) % 100 < stays {
            kept.push_back(accepted.key);
        } else {
            rig.deliver(accepted.key);
        }
        if kept.len() > waiting
            && let Some(key) = kept.pop_front()
        {
            rig.deliver(key);
        }
        if number % 4 == 3 {
            rig.run(SECOND / 4);
            let stats = rig.log.stats();
            // Six segments, the reserve and the next one; two more are on their way in or out.
            let bound = 2 * stats.live_bytes + 11 * (64 << 10);
            assert!(
                stats.bytes <= bound,
                "{stays} %, message {number}: {stats:?}"
            );
        }
    }
    rig
}

/// What was lost: a few messages that wait for days kept everything behind them from being recycled once a
/// quarter of a segment was live. Here the log is bounded by what is live, and copies by what is written.
#[test]
fn messages_that_wait_do_not_pin_the_log() {
    for stays in [1, 10, 30, 50, 90] {
        let rig = flow_with_waiting(stays, 300, 6000);
        let stats = rig.log.stats();
        assert!(stats.live_bytes >= 300 * 2000 || stays < 10, "{stats:?}");
        let others = stats.bytes_written - stats.bytes_copied;
        // Those of ninety in a hundred are gone when their segment is the oldest one.
        assert!(
            stats.bytes_copied > 0 || stays == 90,
            "{stays} %: {stats:?}"
        );
        assert!(stats.bytes_copied <= others, "{stays} %: {stats:?}");
        let (_, recovered) = rig.restart(settings(8));
        assert_eq!(recovered.messages.len() as u64, stats.messages);
    }
}

/// Half of a full batch is all that mail shares its commit with, while it comes slowly.
#[test]
fn copies_leave_room_for_mail() {
    let mut rig = Rig::new(Settings {
        segments_max: 10_000,
        ..settings(7)
    });
    let few: Vec<_> = (0..30).map(|_| rig.accepted(4000).key).collect();
    let mut others: Vec<_> = (0..60).map(|_| rig.accepted(4000).key).collect();
    others.drain(..).for_each(|key| rig.deliver(key));
    rig.asked.clear();
    for _ in 0..20_000 {
        if !rig.step() {
            rig.now = rig.log.deadline().unwrap_or(rig.now + SECOND);
        }
    }
    let copied = rig.log.stats().bytes_copied;
    assert!(copied >= few.len() as u64 * 4000, "{copied}");
    let writes = rig.asked.iter().filter(|words| words.ends_with(" true"));
    let lengths = writes.filter_map(|words| words.split(' ').rev().nth(1)?.parse::<u64>().ok());
    // Two records are less than half of the 16 KiB of a batch, and fill three blocks.
    assert_eq!(lengths.max(), Some(12 << 10));
}
