//! A full disk and one that refuses writes: the reserve stays for outcomes, and nothing waits for ever.

use std::collections::BTreeMap;

use spool::sim::{Fault, Rng};
use spool::*;

use crate::harness::{Rig, SECOND, envelope, settings};

const SEGMENT: u64 = 64 << 10;
const EIO: i32 = 5;

/// Room for so many segments.
fn tight(segments: u64) -> Rig {
    let mut rig = Rig::new(settings(7));
    rig.disk.capacity_bytes(Some(segments * SEGMENT));
    rig
}

/// What was lost: after two failed writes an idle shard answered 451 for ever, since only staged mail
/// made it try again and none was accepted. Nothing is staged here after the failure.
#[test]
fn a_commit_that_failed_twice_is_made_void_without_new_mail() {
    let mut rig = Rig::new(settings(7));
    rig.accepted(10);
    rig.disk.fail_all(Some(EIO));
    let refused = rig.accept(10).expect("nothing has failed yet");
    rig.run(SECOND / 2);
    rig.disk.fail_all(None);
    assert!(rig.has_failed(refused.batch));
    assert_eq!(rig.accept(10), Err(Refusal::Failed));
    rig.run(10 * SECOND);
    assert_eq!(rig.is_accepting(), Some(true));
    rig.accepted(10);
    let (_, recovered) = rig.restart(settings(8));
    assert_eq!(recovered.messages.len(), 2);
    assert_eq!(recovered.report.damaged, []);
}

/// What was lost: each retry of a segment that cannot be made let a message in, which took a reserve
/// segment; in the end no done record could be written, and a restart delivered everything again.
#[test]
fn a_full_disk_keeps_the_reserve_for_outcomes() {
    for seed in 0..6 {
        let mut rig = tight(8);
        let mut rng = Rng::new(seed);
        let mut batches: BTreeMap<MessageKey, u64> = BTreeMap::new();
        let mut refused = 0;
        for _ in 0..4000 {
            match rig.accept(1000 + rng.below(14_000) as usize) {
                Ok(accepted) => {
                    batches.insert(accepted.key, accepted.batch);
                }
                Err(_) => refused += 1,
            }
            // Mail comes at any moment, also while a segment is tried.
            if !rig.step() {
                rig.now += rng.below(SECOND / 8);
            }
        }
        rig.run(20 * SECOND);
        assert!(rig.log.idle(), "seed {seed}: something hangs");
        batches.retain(|_, batch| rig.is_committed(*batch));
        assert!(
            batches.len() > 20 && refused > 100,
            "seed {seed}: {} of {refused}",
            batches.len()
        );
        assert!(
            rig.log.stats().free_segments >= 2,
            "seed {seed}: {:?}",
            rig.log.stats()
        );

        let keys: Vec<MessageKey> = batches.keys().copied().collect();
        for chunk in keys.chunks(5) {
            chunk.iter().for_each(|key| rig.deliver(*key));
            rig.run(SECOND / 2);
        }
        rig.run(20 * SECOND);
        assert!(rig.log.idle(), "seed {seed}: {:?}", rig.log.stats());
        assert_eq!(rig.log.stats().messages, 0);
        rig.accepted(1000);
        let (_, recovered) = rig.restart(settings(8));
        assert_eq!(
            recovered.messages.len(),
            1,
            "seed {seed}: delivered mail is back"
        );
    }
}

/// A batch of mail that was let in while a segment was being made, and then there was no room: its
/// clients are told, and what else is in the batch goes to the reserve.
#[test]
fn mail_without_a_place_fails_and_leaves_the_rest_of_its_batch() {
    let mut rig = tight(3);
    let first = rig.accept(30_000).expect("an empty disk");
    while !rig.is_committed(first.batch) {
        assert!(rig.step());
    }
    // The next segment is being made, and nobody knows yet that there is no room for it.
    let second = rig.accept(40_000).expect("a fourth segment is hoped for");
    rig.deliver(first.key);
    let report = rig.log.reserve_id();
    rig.log
        .accept_report(rig.now, report, &envelope(), b"a report")
        .expect("a report has room");
    rig.run(30 * SECOND);
    assert!(rig.has_failed(second.batch), "{:?}", rig.events);
    assert!(rig.log.idle());
    assert_eq!(rig.accept(40_000), Err(Refusal::Full));
    let (_, recovered) = rig.restart(settings(8));
    let ids: Vec<SpoolId> = recovered.messages.iter().map(|found| found.id).collect();
    assert_eq!(ids, [report]);
}

/// The first write of a commit with mail fails when only the reserve is left: it is not written again to
/// the reserve, its clients are told, and its other records are.
#[test]
fn a_failed_write_of_mail_does_not_take_the_reserve() {
    let mut rig = tight(3);
    let first = rig.accepted(1000);
    assert_eq!(rig.log.stats().free_segments, 2);
    rig.disk.fail_next(Fault::Error { errno: EIO });
    let second = rig.accept(1000).expect("the active segment has room");
    rig.deliver(first.key);
    rig.run(30 * SECOND);
    assert!(rig.has_failed(second.batch), "{:?}", rig.events);
    assert!(rig.log.idle());
    let (_, recovered) = rig.restart(settings(8));
    assert_eq!(recovered.messages.len(), 0);
}
