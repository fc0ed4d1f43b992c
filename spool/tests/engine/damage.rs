//! Damaged headers and commits: nothing that can be told is lost, and what cannot be told is kept.

use spool::layout::{CommitHeader, DATA_START, HeaderBlock, SegmentHeader};
use spool::op::FileId;
use spool::sim::SimDisk;
use spool::*;

use crate::harness::{Rig, SECOND, envelope, settings, start};

const BLOCK: u64 = 4096;

/// A log whose segments are of many generations, with a few live messages.
fn worn() -> (Rig, Vec<SpoolId>) {
    let mut rig = Rig::new(settings(7));
    for _ in 0..60 {
        let accepted = rig.accepted(9000);
        rig.deliver(accepted.key);
    }
    let live = (0..12).map(|_| rig.accepted(9000).id).collect();
    rig.run(SECOND);
    (rig, live)
}

fn ids(recovered: &Recovered) -> Vec<SpoolId> {
    recovered.messages.iter().map(|found| found.id).collect()
}

fn damage(disk: &mut SimDisk, segment: u32, offset: u64) {
    let file = FileId::Segment(segment);
    let byte = disk.image(file).expect("the segment is there")[offset as usize + 20];
    disk.poke(file, offset + 20, &[!byte]);
}

/// The generation that a segment's commits have.
fn generation(disk: &SimDisk, segment: u32) -> u64 {
    let image = disk.image(FileId::Segment(segment)).expect("it is there");
    let copies = [&image[..4096], &image[4096..8192]].map(SegmentHeader::decode);
    let [HeaderBlock::Valid(one), HeaderBlock::Valid(other)] = copies else {
        panic!("both copies are there: {copies:?}");
    };
    assert_eq!(one, other, "segment {segment}");
    one.generation
}

/// What was lost: a segment with one damaged header block was removed with all acknowledged mail in it;
/// or, once recycled, only commits of the generation before counted.
#[test]
fn one_damaged_header_block_loses_nothing() {
    let (rig, live) = worn();
    let segments = rig.segments();
    let generations: Vec<u64> = segments
        .iter()
        .map(|number| generation(&rig.disk, *number))
        .collect();
    assert!(generations.contains(&1) || generations.contains(&2));
    assert!(generations.iter().max() > Some(&2), "{generations:?}");
    for segment in segments {
        for block in [0, BLOCK] {
            let mut disk = rig.disk.clone();
            damage(&mut disk, segment, block);
            let (log, recovered) = start(&mut disk, settings(8));
            assert_eq!(ids(&recovered), live, "segment {segment} block {block}");
            assert_eq!(recovered.report.damaged, []);
            assert_eq!(recovered.report.aside, []);
            assert_eq!(log.stats().damaged, 0);
        }
    }
}

/// Both copies are damaged: the first commit tells whose commits count. A free segment has none, since
/// recycling clears its place; nobody can tell that from one with mail, so it is kept, and nothing comes back.
#[test]
fn two_damaged_header_blocks_lose_nothing() {
    let (rig, live) = worn();
    let mut kept = 0;
    for segment in rig.segments() {
        let mut disk = rig.disk.clone();
        damage(&mut disk, segment, 0);
        damage(&mut disk, segment, BLOCK);
        let (log, recovered) = start(&mut disk, settings(8));
        assert_eq!(ids(&recovered), live, "segment {segment}");
        assert_eq!(recovered.report.damaged, []);
        assert_eq!(log.stats().damaged, recovered.report.aside.len() as u64);
        kept += recovered.report.aside.len();
    }
    assert!(kept > 0, "free segments have something in them");
}

/// No header and no first commit: the segment is not removed, not written to, and named at every start.
#[test]
fn a_segment_that_nobody_can_read_stays() {
    let (mut rig, live) = worn();
    let last = *live.last().expect("there are some");
    let (segment, _) = rig.find(&last.bits().to_le_bytes()).expect("on disk");
    for block in [0, BLOCK, DATA_START] {
        damage(&mut rig.disk, segment, block);
    }
    let before = rig.disk.image(FileId::Segment(segment)).map(<[u8]>::to_vec);
    for epoch in 8..10 {
        let recovered;
        (rig, recovered) = rig.restart(settings(epoch));
        assert_eq!(recovered.report.aside, [segment]);
        assert!(ids(&recovered).len() < live.len());
        assert_eq!(rig.log.stats().damaged, 1);
        rig.run(SECOND);
        for _ in 0..80 {
            let accepted = rig.accepted(9000);
            rig.deliver(accepted.key);
        }
    }
    let after = rig.disk.image(FileId::Segment(segment)).map(<[u8]>::to_vec);
    assert!(after == before, "not a byte has changed");
}

/// The rest of a creation that a crash cut off: zeroes, or nothing at all.
#[test]
fn a_segment_with_nothing_in_it_is_removed() {
    use spool::buffer::AlignedBuf;
    use spool::op::{Op, Request, Token};
    let mut disk = SimDisk::new(1);
    let mut perform = |op| {
        let token = Token(1);
        disk.submit(Request { token, op });
        disk.complete_one().expect("it was submitted").result
    };
    for (number, blocks) in [(0, 0), (1, 1), (2, 2), (3, 5), (4, 5)] {
        let file = FileId::Segment(number);
        perform(Op::Create { file }).expect("new");
        let mut buf = AlignedBuf::zeroed(blocks * 4096);
        if let Some(byte) = buf.last_mut().filter(|_| number == 4) {
            *byte = 1;
        }
        let (offset, durable) = (0, true);
        perform(Op::Write {
            file,
            offset,
            buf,
            durable,
        })
        .expect("room");
    }
    perform(Op::SyncDir).expect("no fault");
    let (rig, recovered) = Rig::on(disk, settings(8));
    assert_eq!(rig.segments(), [4]);
    assert_eq!(recovered.report.aside, [4]);
}

/// What was lost: a segment whose only commit is damaged looked unused, and was recycled at once.
#[test]
fn a_segment_with_damage_is_not_recycled() {
    let mut rig = Rig::new(settings(7));
    // One commit a segment.
    let all: Vec<SpoolId> = (0..4).map(|_| rig.accepted(40_000).id).collect();
    let (segment, at) = rig.find(&all[1].bits().to_le_bytes()).expect("on disk");
    rig.disk
        .poke(FileId::Segment(segment), at as u64 + 2000, b"!");
    let before = rig.disk.image(FileId::Segment(segment)).map(<[u8]>::to_vec);
    let data = |rig: &Rig| {
        let image = rig.disk.image(FileId::Segment(segment));
        image.map(|bytes| bytes[DATA_START as usize..].to_vec())
    };
    let data_before = data(&rig);
    let mut found;
    (rig, found) = rig.restart(settings(8));
    assert_eq!(ids(&found), [all[0], all[2], all[3]]);
    assert_eq!(found.report.damaged, [(segment, DATA_START)]);
    assert_eq!(rig.log.stats().damaged, 1);
    rig.run(10 * SECOND);
    let after = rig.disk.image(FileId::Segment(segment)).map(<[u8]>::to_vec);
    assert!(after == before, "nothing has been written to it");
    // It is named again at each start, and the log goes on around it for as long as it takes.
    for epoch in 9..12 {
        (rig, found) = rig.restart(settings(epoch));
        let named = found.report.damaged.len() + found.report.aside.len();
        assert_eq!(named, 1, "{:?}", found.report);
        for message in &found.messages {
            rig.deliver(message.key);
        }
        for _ in 0..60 {
            let accepted = rig.accepted(9000);
            rig.deliver(accepted.key);
        }
        rig.run(SECOND);
        assert_eq!(rig.log.stats().messages, 0);
        assert_eq!(rig.log.stats().damaged, 1);
    }
    (rig, found) = rig.restart(settings(12));
    assert_eq!(found.report.aside, [segment]);
    assert_eq!(found.report.damaged, []);
    assert!(
        data(&rig) == data_before,
        "the damaged commit can still be looked at"
    );
}

/// The commit header itself is damaged: what is missing is noticed by the gap, and the segments on both
/// sides of it are kept.
#[test]
fn a_damaged_commit_header_keeps_both_sides_of_the_gap() {
    let mut rig = Rig::new(settings(7));
    let all: Vec<SpoolId> = (0..4).map(|_| rig.accepted(40_000).id).collect();
    let (segment, _) = rig.find(&all[1].bits().to_le_bytes()).expect("on disk");
    damage(&mut rig.disk, segment, DATA_START);
    let (rig, recovered) = rig.restart(settings(8));
    assert_eq!(ids(&recovered), [all[0], all[2], all[3]]);
    assert_eq!(recovered.report.damaged.len(), 1);
    assert_eq!(rig.log.stats().damaged, 2);
}

/// Large content whose record may be among what is damaged is not garbage.
#[test]
fn content_is_not_removed_while_something_is_damaged() {
    let mut rig = Rig::new(settings(7));
    let id = rig.log.reserve_id();
    rig.log.content_begin(id);
    rig.log.content_end(id, &[b'y'; 5000]);
    rig.run(SECOND);
    let accepted = rig
        .log
        .accept_content(rig.now, id, &envelope(), false)
        .expect("it is stored");
    rig.run(SECOND);
    assert!(rig.is_committed(accepted.batch));
    rig.accepted(1000);
    let (segment, at) = rig.find(&id.bits().to_le_bytes()).expect("on disk");
    rig.disk
        .poke(FileId::Segment(segment), at as u64 + 30, b"!");
    let (mut rig, recovered) = rig.restart(settings(8));
    assert_eq!(recovered.report.damaged.len(), 1);
    assert_eq!(recovered.report.unclaimed, 1);
    rig.run(SECOND);
    assert!(rig.disk.image(FileId::Content(id.bits())).is_some());
}

/// An attack: content with commits at each block, of a later generation. Both headers are damaged; only
/// the first commit is believed, and the client cannot write that.
#[test]
fn content_that_looks_like_commits_does_not_count_without_headers() {
    let mut rig = Rig::new(settings(7));
    let header = CommitHeader {
        secret: 4711,
        sequence: 1_000_000,
        generation: 99,
        segment: 0,
        length: 4096,
        records: 0,
        previous: 0,
        sum: 0,
    };
    // At any offset of a block: sixty-four bytes repeated.
    let content = header.encode().repeat(500);
    let mut live = Vec::new();
    for shift in 0..64 {
        let id = rig.log.reserve_id();
        let content = [&vec![b'x'; shift][..], &content].concat();
        let accepted = rig.log.accept(rig.now, id, &envelope(), &content);
        if accepted.is_err() {
            break;
        }
        rig.run(SECOND);
        live.push(id);
    }
    for segment in rig.segments() {
        for block in [0, BLOCK] {
            damage(&mut rig.disk, segment, block);
        }
    }
    let (_, recovered) = rig.restart(settings(8));
    assert_eq!(ids(&recovered), live);
    assert_eq!(recovered.report.damaged, []);
}
