//! The properties of the simulated disk that the crash argument stands on, and that the blocking
//! disk gives the same answers.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::collections::BTreeSet;

use spool::blocking::{BlockingDisk, Machine, file_name, parse_file_name};
use spool::buffer::AlignedBuf;
use spool::op::{Completion, FileId, Op, Request, Token};
use spool::sim::{Fault, Path, Persistence, Rng, SECTOR_BYTES, SimDisk, Tree};

const FILE: FileId = FileId::Segment(7);
const OTHER: FileId = FileId::Content(0xfeed);
const BLOCK: usize = 4096;
const SECTORS: usize = BLOCK / SECTOR_BYTES;
const EIO: i32 = 5;
const EBADF: i32 = 9;
const ENOSPC: i32 = 28;

fn block(byte: u8) -> AlignedBuf {
    blocks(byte, 1)
}

fn blocks(byte: u8, count: usize) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(count * BLOCK);
    buf.fill(byte);
    buf
}

fn write(file: FileId, offset: usize, byte: u8, durable: bool) -> Op {
    Op::Write {
        file,
        offset: offset as u64,
        buf: block(byte),
        durable,
    }
}

fn request(token: u64, op: Op) -> Request {
    Request {
        token: Token(token),
        op,
    }
}

/// Performs one request on a disk with nothing in flight.
fn perform(disk: &mut SimDisk, op: Op) -> Completion {
    assert_eq!(disk.in_flight(), 0);
    disk.submit(request(1, op));
    disk.complete_one().unwrap()
}

fn run(disk: &mut SimDisk, op: Op) -> Result<u64, i32> {
    perform(disk, op).result
}

/// A disk with [`FILE`], durable by name and content: one block of `byte`.
fn disk_with(seed: u64, byte: u8) -> SimDisk {
    let mut disk = SimDisk::new(seed);
    run(&mut disk, Op::Create { file: FILE }).unwrap();
    run(&mut disk, write(FILE, 0, byte, true)).unwrap();
    run(&mut disk, Op::SyncDir).unwrap();
    disk
}

/// The bytes of the sectors of [`FILE`] after a cut; each must be of one write. `None`: no file.
fn sectors(disk: &SimDisk) -> Option<Vec<u8>> {
    let image = disk.image(FILE)?;
    let sector_byte = |sector: &[u8]| {
        assert!(
            sector.iter().all(|byte| *byte == sector[0]),
            "a sector is torn"
        );
        sector[0]
    };
    Some(image.chunks(SECTOR_BYTES).map(sector_byte).collect())
}

/// What the cuts of many seeds leave of [`FILE`].
fn seeded_outcomes(disk: &SimDisk, seeds: u64) -> BTreeSet<Option<Vec<u8>>> {
    (0..seeds)
        .map(|seed| sectors(&disk.power_cut(&mut Persistence::seeded(seed))))
        .collect()
}

fn exhaustive_outcomes(disk: &SimDisk) -> BTreeSet<Option<Vec<u8>>> {
    let mut choice = Persistence::exhaustive();
    let mut outcomes = BTreeSet::new();
    loop {
        let after = disk.power_cut(&mut choice);
        let again = after.power_cut(&mut Persistence::drop_all());
        assert_eq!(
            after.image_hash(),
            again.image_hash(),
            "what a cut leaves is durable"
        );
        outcomes.insert(sectors(&after));
        if !choice.advance() {
            return outcomes;
        }
    }
}

/// A disk from `make` on which, by luck of the seed, the requests completed in the order `wanted`.
fn in_order(make: impl Fn(u64) -> SimDisk, wanted: &[u64]) -> SimDisk {
    for seed in 0..1000 {
        let mut disk = make(seed);
        let done: Vec<u64> = wanted
            .iter()
            .filter_map(|_| disk.complete_one())
            .map(|done| done.token.0)
            .collect();
        if done == wanted {
            return disk;
        }
    }
    panic!("no seed completes in the order {wanted:?}");
}

#[test]
fn a_cut_leaves_each_sector_of_overlapping_writes_in_any_state() {
    let mut disk = disk_with(1, b'a');
    run(&mut disk, write(FILE, 0, b'b', false)).unwrap();
    run(&mut disk, write(FILE, 0, b'c', false)).unwrap();
    let outcomes = exhaustive_outcomes(&disk);
    assert_eq!(
        outcomes.len(),
        3_usize.pow(SECTORS as u32),
        "all mixtures of a, b and c"
    );
    for outcome in seeded_outcomes(&disk, 300) {
        assert!(
            outcomes.contains(&outcome),
            "the seeded choice stays within the model"
        );
    }
}

#[test]
fn the_seeded_choice_finds_whole_torn_and_reordered_outcomes() {
    let mut disk = disk_with(1, b'a');
    run(&mut disk, write(FILE, 0, b'b', false)).unwrap();
    run(&mut disk, write(FILE, 0, b'c', false)).unwrap();
    run(&mut disk, write(FILE, BLOCK, b'd', false)).unwrap();
    let outcomes = seeded_outcomes(&disk, 200);
    let has = |test: &dyn Fn(&[u8]) -> bool| outcomes.iter().flatten().any(|found| test(found));
    let first = |found: &[u8], byte| found[..SECTORS].iter().all(|sector| *sector == byte);
    assert!(
        has(&|found| first(found, b'a') && found.len() == SECTORS),
        "nothing kept"
    );
    assert!(
        has(&|found| first(found, b'c') && found.ends_with(&[b'd'; SECTORS])),
        "all kept"
    );
    assert!(
        has(&|found| first(found, b'a') && found.ends_with(&[b'd'; SECTORS])),
        "newest only"
    );
    assert!(
        has(&|found| first(found, b'b')),
        "the older of two overlapping writes, whole"
    );
    assert!(
        has(&|found| found.contains(&b'b') && found.contains(&b'c')),
        "a mixture"
    );
    assert!(
        has(&|found| found.ends_with(&[0; SECTORS])),
        "size kept, data lost: zeroes"
    );
    assert!(
        outcomes.len() > 50,
        "few distinct outcomes: {}",
        outcomes.len()
    );
}

#[test]
fn keep_all_and_drop_all_are_the_two_ends() {
    let mut disk = disk_with(1, b'a');
    run(&mut disk, write(FILE, 0, b'b', false)).unwrap();
    disk.submit(request(5, write(FILE, 0, b'c', false)));
    let kept = disk.power_cut(&mut Persistence::keep_all());
    assert_eq!(sectors(&kept), Some(vec![b'c'; SECTORS]));
    let dropped = disk.power_cut(&mut Persistence::drop_all());
    assert_eq!(sectors(&dropped), Some(vec![b'a'; SECTORS]));
    assert_eq!((dropped.in_flight(), dropped.operations()), (0, 0));
}

#[test]
fn a_durable_write_is_any_subset_of_sectors_before_completion_and_whole_after() {
    let mut disk = disk_with(1, b'a');
    run(&mut disk, write(FILE, 0, b'b', false)).unwrap();
    run(&mut disk, Op::SyncFile { file: FILE }).unwrap();
    disk.submit(request(2, write(FILE, 0, b'c', true)));
    assert_eq!(
        exhaustive_outcomes(&disk).len(),
        2_usize.pow(SECTORS as u32)
    );
    disk.complete_one().unwrap().result.unwrap();
    let whole = BTreeSet::from([Some(vec![b'c'; SECTORS])]);
    assert_eq!(exhaustive_outcomes(&disk), whole);
}

#[test]
fn a_durable_write_makes_no_other_write_durable_but_buries_what_it_overwrites() {
    let mut disk = disk_with(1, b'a');
    run(&mut disk, write(FILE, 0, b'b', false)).unwrap();
    run(&mut disk, write(FILE, BLOCK, b'x', false)).unwrap();
    run(&mut disk, write(FILE, 0, b'c', true)).unwrap();
    for found in exhaustive_outcomes(&disk).into_iter().flatten() {
        assert_eq!(found[..SECTORS], [b'c'; SECTORS]);
    }
    let dropped = disk.power_cut(&mut Persistence::drop_all());
    assert_eq!(
        sectors(&dropped),
        Some(vec![b'c'; SECTORS]),
        "the neighbour is not durable"
    );
}

#[test]
fn a_sync_covers_the_writes_completed_before_it_was_submitted() {
    let make = |seed| {
        let mut disk = disk_with(seed, b'a');
        run(&mut disk, write(FILE, 0, b'b', false)).unwrap();
        disk.submit(request(10, Op::SyncFile { file: FILE }));
        disk.submit(request(11, write(FILE, 0, b'c', false)));
        disk
    };
    let mut disk = in_order(make, &[11, 10]);
    let dropped = disk.power_cut(&mut Persistence::drop_all());
    assert_eq!(
        sectors(&dropped),
        Some(vec![b'b'; SECTORS]),
        "the later write is not covered"
    );
    assert_eq!(disk.image(FILE).unwrap()[0], b'c', "reads see it");
    run(&mut disk, Op::SyncFile { file: FILE }).unwrap();
    let dropped = disk.power_cut(&mut Persistence::drop_all());
    assert_eq!(sectors(&dropped), Some(vec![b'c'; SECTORS]));
}

#[test]
fn a_sync_of_one_file_leaves_the_others_alone() {
    let mut disk = disk_with(1, b'a');
    run(&mut disk, Op::Create { file: OTHER }).unwrap();
    run(&mut disk, Op::SyncDir).unwrap();
    run(&mut disk, write(FILE, 0, b'b', false)).unwrap();
    run(&mut disk, Op::SyncFile { file: OTHER }).unwrap();
    let dropped = disk.power_cut(&mut Persistence::drop_all());
    assert_eq!(sectors(&dropped), Some(vec![b'a'; SECTORS]));
}

#[test]
fn an_unsynced_size_is_kept_or_lost() {
    let mut disk = disk_with(1, b'a');
    let op = Op::Write {
        file: FILE,
        offset: BLOCK as u64,
        buf: blocks(b'b', 2),
        durable: false,
    };
    run(&mut disk, op).unwrap();
    let lengths = |disk: &SimDisk| -> BTreeSet<usize> {
        seeded_outcomes(disk, 200)
            .into_iter()
            .flatten()
            .map(|found| found.len())
            .collect()
    };
    assert_eq!(
        lengths(&disk),
        BTreeSet::from([SECTORS, 2 * SECTORS, 3 * SECTORS])
    );
    run(&mut disk, Op::SyncFile { file: FILE }).unwrap();
    assert_eq!(lengths(&disk), BTreeSet::from([3 * SECTORS]));
}

#[test]
fn a_created_file_is_lost_with_its_data_until_the_directory_is_synced() {
    let mut disk = SimDisk::new(1);
    run(&mut disk, Op::Create { file: FILE }).unwrap();
    run(&mut disk, write(FILE, 0, b'a', true)).unwrap();
    run(&mut disk, Op::SyncFile { file: FILE }).unwrap();
    let both = BTreeSet::from([None, Some(vec![b'a'; SECTORS])]);
    assert_eq!(exhaustive_outcomes(&disk), both);
    assert_eq!(seeded_outcomes(&disk, 50), both);
    run(&mut disk, Op::SyncDir).unwrap();
    assert_eq!(
        seeded_outcomes(&disk, 50),
        BTreeSet::from([Some(vec![b'a'; SECTORS])])
    );
}

#[test]
fn a_directory_sync_covers_the_names_changed_before_it_was_submitted() {
    let make = |seed| {
        let mut disk = SimDisk::new(seed);
        disk.submit(request(10, Op::SyncDir));
        disk.submit(request(11, Op::Create { file: FILE }));
        disk
    };
    let disk = in_order(make, &[11, 10]);
    assert_eq!(sectors(&disk.power_cut(&mut Persistence::drop_all())), None);
}

#[test]
fn a_removed_file_comes_back_until_the_directory_is_synced() {
    let mut disk = disk_with(1, b'a');
    disk.submit(request(2, Op::Remove { file: FILE }));
    let both = BTreeSet::from([None, Some(vec![b'a'; SECTORS])]);
    assert_eq!(exhaustive_outcomes(&disk), both, "a removal in flight");
    disk.complete_one().unwrap().result.unwrap();
    assert_eq!(disk.image(FILE), None);
    assert_eq!(exhaustive_outcomes(&disk), both, "a removal that completed");
    run(&mut disk, Op::Create { file: FILE }).unwrap();
    let three = BTreeSet::from([None, Some(vec![]), Some(vec![b'a'; SECTORS])]);
    assert_eq!(exhaustive_outcomes(&disk), three, "removed and made anew");
    run(&mut disk, Op::SyncDir).unwrap();
    assert_eq!(exhaustive_outcomes(&disk), BTreeSet::from([Some(vec![])]));
}

#[test]
fn a_creation_in_flight_leaves_an_empty_file_or_none() {
    let mut disk = SimDisk::new(1);
    disk.submit(request(2, Op::Create { file: FILE }));
    assert_eq!(
        exhaustive_outcomes(&disk),
        BTreeSet::from([None, Some(vec![])])
    );
}

#[test]
fn what_a_failed_sync_covered_stays_in_limbo_whatever_later_syncs_say() {
    let mut disk = disk_with(1, b'a');
    run(&mut disk, write(FILE, 0, b'b', false)).unwrap();
    disk.fail_next(Fault::Error { errno: EIO });
    assert_eq!(run(&mut disk, Op::SyncFile { file: FILE }), Err(EIO));
    assert_eq!(run(&mut disk, Op::SyncFile { file: FILE }), Ok(0));
    assert_eq!(disk.image(FILE).unwrap()[0], b'b', "reads see it");
    assert_eq!(
        exhaustive_outcomes(&disk).len(),
        2_usize.pow(SECTORS as u32)
    );
    run(&mut disk, write(FILE, 0, b'b', false)).unwrap();
    run(&mut disk, Op::SyncFile { file: FILE }).unwrap();
    let whole = BTreeSet::from([Some(vec![b'b'; SECTORS])]);
    assert_eq!(exhaustive_outcomes(&disk), whole, "written anew and synced");
}

#[test]
fn what_a_failed_directory_sync_covered_stays_in_limbo() {
    let mut disk = SimDisk::new(1);
    run(&mut disk, Op::Create { file: FILE }).unwrap();
    disk.fail_next(Fault::Error { errno: EIO });
    assert_eq!(run(&mut disk, Op::SyncDir), Err(EIO));
    assert_eq!(run(&mut disk, Op::SyncDir), Ok(0));
    assert_eq!(
        exhaustive_outcomes(&disk),
        BTreeSet::from([None, Some(vec![])])
    );
}

#[test]
fn a_failed_write_leaves_any_of_its_sectors() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let mut disk = disk_with(seed, b'a');
        disk.fail_next(Fault::Error { errno: EIO });
        assert_eq!(run(&mut disk, write(FILE, 0, b'b', true)), Err(EIO));
        run(&mut disk, Op::SyncFile { file: FILE }).unwrap();
        let dropped = disk.power_cut(&mut Persistence::drop_all());
        assert_eq!(
            sectors(&dropped),
            Some(vec![b'a'; SECTORS]),
            "seed {seed}: nothing is sure"
        );
        seen.insert(sectors(&disk).unwrap());
    }
    assert!(seen.len() > 100, "torn in many ways: {}", seen.len());
}

#[test]
fn a_short_write_writes_a_prefix() {
    let mut disk = disk_with(1, b'a');
    disk.fail_next(Fault::Short { bytes: 700 });
    assert_eq!(
        run(&mut disk, Op::SyncFile { file: FILE }),
        Ok(0),
        "it waits for a write"
    );
    assert_eq!(run(&mut disk, write(FILE, 0, b'b', true)), Ok(700));
    let after = disk.power_cut(&mut Persistence::drop_all());
    let image = after.image(FILE).unwrap();
    assert!(image[..700].iter().all(|byte| *byte == b'b'));
    assert!(image[700..].iter().all(|byte| *byte == b'a'));
}

#[test]
fn faults_hit_the_write_or_sync_they_name() {
    let mut disk = disk_with(1, b'a');
    disk.fail_nth(3, Fault::Full);
    disk.fail_next(Fault::Error { errno: EIO });
    disk.fail_next(Fault::Error { errno: EBADF });
    let results: Vec<Result<u64, i32>> = (0..6)
        .map(|_| run(&mut disk, Op::SyncFile { file: FILE }))
        .collect();
    assert_eq!(
        results,
        [Err(EIO), Err(EBADF), Err(ENOSPC), Ok(0), Ok(0), Ok(0)]
    );
    disk.fail_read(EIO);
    let mut read = || {
        run(
            &mut disk,
            Op::Read {
                file: FILE,
                offset: 0,
                buf: block(0),
            },
        )
    };
    assert_eq!((read(), read()), (Err(EIO), Ok(BLOCK as u64)));
    disk.fail_all(Some(EIO));
    assert_eq!(run(&mut disk, write(FILE, 0, b'b', false)), Err(EIO));
    assert_eq!(run(&mut disk, Op::Create { file: OTHER }), Err(EIO));
    assert_eq!(run(&mut disk, Op::SyncDir), Err(EIO));
    disk.fail_all(None);
    assert_eq!(run(&mut disk, Op::SyncDir), Ok(0));
}

#[test]
fn a_full_disk_takes_what_fits_and_overwrites_what_it_has() {
    let mut disk = disk_with(1, b'a');
    disk.capacity_bytes(Some(2 * BLOCK as u64));
    let large = || Op::Write {
        file: FILE,
        offset: 0,
        buf: blocks(b'b', 3),
        durable: false,
    };
    assert_eq!(
        run(&mut disk, large()),
        Ok(2 * BLOCK as u64),
        "a short write"
    );
    assert_eq!(
        run(&mut disk, write(FILE, 2 * BLOCK, b'c', true)),
        Err(ENOSPC)
    );
    assert_eq!(run(&mut disk, write(FILE, 0, b'c', true)), Ok(BLOCK as u64));
    disk.capacity_bytes(None);
    assert_eq!(run(&mut disk, large()), Ok(3 * BLOCK as u64));
}

#[test]
fn requests_complete_in_any_order() {
    let orders: BTreeSet<Vec<u64>> = (0..200)
        .map(|seed| {
            let mut disk = disk_with(seed, b'a');
            for index in 0..3 {
                disk.submit(request(
                    index,
                    write(FILE, index as usize * BLOCK, b'b', false),
                ));
            }
            core::iter::from_fn(|| disk.complete_one())
                .map(|done| done.token.0)
                .collect()
        })
        .collect();
    assert_eq!(orders.len(), 6, "{orders:?}");
}

#[test]
fn wrong_use_is_answered_as_a_kernel_would() {
    let mut disk = disk_with(1, b'a');
    assert_eq!(run(&mut disk, Op::Create { file: FILE }), Err(17));
    assert_eq!(run(&mut disk, Op::Open { file: OTHER }), Err(2));
    assert_eq!(run(&mut disk, Op::Remove { file: OTHER }), Err(2));
    assert_eq!(run(&mut disk, write(OTHER, 0, b'b', false)), Err(EBADF));
    assert_eq!(run(&mut disk, write(FILE, 512, b'b', false)), Err(22));
    let mut after = disk.power_cut(&mut Persistence::keep_all());
    assert_eq!(
        run(&mut after, write(FILE, 0, b'b', false)),
        Err(EBADF),
        "not opened in this run"
    );
    assert_eq!(run(&mut after, Op::Open { file: FILE }), Ok(BLOCK as u64));
    assert_eq!(
        run(&mut after, write(FILE, 0, b'b', false)),
        Ok(BLOCK as u64)
    );
}

#[test]
#[should_panic(expected = "two writes to the same bytes in flight")]
fn two_writes_to_the_same_bytes_in_flight_are_an_error_of_the_engine() {
    let mut disk = disk_with(1, b'a');
    let op = Op::Write {
        file: FILE,
        offset: 0,
        buf: blocks(b'b', 2),
        durable: false,
    };
    disk.submit(request(1, op));
    disk.submit(request(2, write(FILE, BLOCK, b'c', false)));
}

#[test]
fn the_hash_tells_images_apart_and_a_copy_is_independent() {
    let mut disk = disk_with(1, b'a');
    let before = disk.image_hash();
    let mut copy = disk.clone();
    run(&mut copy, write(FILE, 0, b'b', true)).unwrap();
    assert_eq!(disk.image_hash(), before);
    assert_ne!(copy.image_hash(), before);
    run(&mut copy, write(FILE, 0, b'a', true)).unwrap();
    assert_eq!(copy.image_hash(), before, "the same bytes again");
    disk.poke(FILE, 4000, &[1]);
    assert_ne!(disk.image_hash(), before);
    let after = disk.power_cut(&mut Persistence::drop_all());
    assert_eq!(after.image_hash(), disk.image_hash(), "damage is durable");
    assert_eq!(after.image(FILE).unwrap()[3999..4002], [b'a', 1, b'a']);
}

/// A seeded list of operations on few files, most of them valid.
fn script(seed: u64, length: usize) -> Vec<Op> {
    let mut rng = Rng::new(seed);
    (0..length)
        .map(|_| {
            let file = [FILE, OTHER, FileId::Checkpoint(1)][rng.index(3)];
            let offset = rng.below(3) * BLOCK as u64;
            match rng.below(12) {
                0 | 1 => Op::Create { file },
                2 => Op::Open { file },
                3 => Op::Remove { file },
                4 => Op::SyncFile { file },
                5 => Op::SyncDir,
                6 => Op::List,
                7 | 8 => Op::Read {
                    file,
                    offset,
                    buf: block(0),
                },
                _ => {
                    let (byte, durable) = (rng.below(250) as u8 + 1, rng.below(2) == 0);
                    Op::Write {
                        file,
                        offset,
                        buf: block(byte),
                        durable,
                    }
                }
            }
        })
        .collect()
}

#[test]
fn a_seed_decides_everything() {
    let run_once = |seed| {
        let mut disk = SimDisk::new(seed);
        let mut trace = Vec::new();
        for (token, op) in script(seed, 300).into_iter().enumerate() {
            // A write waits for all before it, so that no two writes overlap in flight.
            let drain = matches!(op, Op::Write { .. }) || token % 3 == 0;
            while drain && disk.in_flight() > 0 {
                let done = disk.complete_one().unwrap();
                let bytes = done.buf.as_deref();
                trace.push(format!(
                    "{:?}",
                    (done.token, done.result, bytes, &done.files)
                ));
            }
            disk.submit(request(token as u64, op));
            let after = disk.power_cut(&mut Persistence::seeded(token as u64));
            trace.push(format!("{:x}", after.image_hash()));
        }
        trace
    };
    assert_eq!(run_once(3), run_once(3));
    assert_ne!(run_once(3), run_once(4));
}

#[test]
fn the_blocking_disk_gives_the_same_answers() {
    for seed in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let mut blocking = BlockingDisk::open(dir.path()).unwrap();
        let mut sim = SimDisk::new(seed);
        for (at, (one, two)) in script(seed, 60)
            .into_iter()
            .zip(script(seed, 60))
            .enumerate()
        {
            let shown = format!("seed {seed}, operation {at}: {one:?}");
            let mut expected = perform(&mut sim, one);
            if expected.result == Err(EBADF) {
                continue; // The blocking disk opens or misses a file where this one refuses.
            }
            let mut answer = blocking.execute(request(1, two));
            expected.files.sort();
            answer.files.sort();
            assert_eq!(answer.result, expected.result, "{shown}");
            assert_eq!(answer.files, expected.files, "{shown}");
            assert_eq!(answer.buf.as_deref(), expected.buf.as_deref(), "{shown}");
        }
        for file in sim.files() {
            let bytes = std::fs::read(dir.path().join(file_name(file))).unwrap();
            assert_eq!(Some(&*bytes), sim.image(file), "seed {seed}");
        }
    }
}

/// Asks for a list of operations one after the other.
struct Script {
    ops: std::vec::IntoIter<Op>,
    results: Vec<Result<u64, i32>>,
}

impl Machine for Script {
    fn poll_op(&mut self) -> Option<Request> {
        let token = self.results.len() as u64;
        self.ops.next().map(|op| request(token, op))
    }

    fn complete(&mut self, completion: Completion) {
        assert_eq!(completion.token, Token(self.results.len() as u64));
        self.results.push(completion.result);
    }
}

#[test]
fn the_blocking_disk_drives_a_machine_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("log.1"), b"not a name of ours").unwrap();
    let ops = vec![
        Op::Create { file: FILE },
        write(FILE, 0, b'a', true),
        Op::Read {
            file: FILE,
            offset: 0,
            buf: blocks(0, 2),
        },
        Op::Open { file: FILE },
        Op::Open { file: OTHER },
    ];
    let mut machine = Script {
        ops: ops.into_iter(),
        results: Vec::new(),
    };
    let mut disk = BlockingDisk::open(dir.path()).unwrap();
    disk.drive(&mut machine);
    let bytes = BLOCK as u64;
    assert_eq!(
        machine.results,
        [Ok(0), Ok(bytes), Ok(bytes), Ok(bytes), Err(2)]
    );
    assert_eq!(disk.execute(request(1, Op::List)).files, [FILE]);
    assert!(
        BlockingDisk::open(&dir.path().join("log.1")).is_err(),
        "not a directory"
    );
}

#[test]
fn only_our_own_names_are_files() {
    for file in [
        FileId::Segment(0),
        FileId::Segment(123_456_789),
        FileId::Checkpoint(1),
        OTHER,
    ] {
        assert_eq!(parse_file_name(&file_name(file)), Some(file));
    }
    assert_eq!(file_name(FILE), "log.00000007");
    for name in [
        "log.7",
        "log.+0000007",
        "log",
        "checkpoint.2",
        "checkpoint.01",
        "content.FEED",
    ] {
        assert_eq!(parse_file_name(name), None, "{name}");
    }
    assert_eq!(parse_file_name(&format!("content.{:032X}", 0xfeed)), None);
}

/// Names found after cuts of many seeds, each with the number of its file.
fn names_after(tree: &Tree) -> BTreeSet<Vec<(u8, u64)>> {
    let found = |seed| {
        let after = tree.power_cut(&mut Persistence::seeded(seed), &mut Vec::new());
        let both = [0, 1].into_iter().flat_map(|dir| {
            let paths = after.list(dir).collect::<Vec<_>>();
            let number = |path| after.read(path).unwrap().0;
            paths
                .into_iter()
                .map(|path| (path.dir, number(path)))
                .collect::<Vec<_>>()
        });
        both.collect()
    };
    (0..200).map(found).collect()
}

#[test]
fn a_rename_is_lost_or_found_by_halves_until_its_directories_are_synced() {
    let [from, to] = [0, 1].map(|dir| Path { dir, name: 7 });
    let mut tree = Tree::default();
    tree.create(from).unwrap();
    tree.sync_dir(0).unwrap();
    tree.rename(from, to).unwrap();
    let file = tree.read(to).unwrap().0;
    let (old, new) = ((0, file), (1, file));
    let any = BTreeSet::from([vec![], vec![old], vec![new], vec![old, new]]);
    assert_eq!(names_after(&tree), any);
    tree.sync_dir(1).unwrap();
    let named = BTreeSet::from([vec![new], vec![old, new]]);
    assert_eq!(names_after(&tree), named, "the old name may come back");
    tree.sync_dir(0).unwrap();
    assert_eq!(names_after(&tree), BTreeSet::from([vec![new]]));
    tree.link(to, from).unwrap();
    tree.unlink(to).unwrap();
    assert_eq!(names_after(&tree), any, "a link and an unlink in any order");
}

#[test]
fn what_a_killed_process_wrote_is_seen_and_not_durable() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let mut disk = disk_with(seed, b'a');
        disk.submit(request(1, write(FILE, 0, b'b', true)));
        disk.kill();
        assert_eq!(disk.in_flight(), 0);
        seen.insert(sectors(&disk).unwrap());
        let dropped = disk.power_cut(&mut Persistence::drop_all());
        assert_eq!(sectors(&dropped), Some(vec![b'a'; SECTORS]), "seed {seed}");
        run(&mut disk, Op::Open { file: FILE }).unwrap();
        run(&mut disk, Op::SyncFile { file: FILE }).unwrap();
        let synced = disk.power_cut(&mut Persistence::drop_all());
        assert_eq!(
            sectors(&synced),
            sectors(&disk),
            "seed {seed}: a sync makes it sure"
        );
    }
    for whole in [b'a', b'b'] {
        assert!(seen.contains(&vec![whole; SECTORS]), "none of it, and all");
    }
    assert!(seen.len() > 10, "torn in many ways: {}", seen.len());
}

/// After a failed sync reads may see what the disk has, once memory is short.
#[test]
fn what_a_sync_could_not_write_leaves_memory() {
    let mut seen = BTreeSet::new();
    for seed in 0..20 {
        let mut disk = disk_with(seed, b'a');
        run(&mut disk, write(FILE, 0, b'b', false)).unwrap();
        disk.fail_next(Fault::Error { errno: EIO });
        run(&mut disk, Op::SyncFile { file: FILE }).unwrap_err();
        disk.forget_failed();
        let now = sectors(&disk).unwrap();
        assert_eq!(
            exhaustive_outcomes(&disk),
            BTreeSet::from([Some(now.clone())])
        );
        seen.insert(now);
    }
    assert_eq!(
        seen,
        BTreeSet::from([vec![b'a'; SECTORS], vec![b'b'; SECTORS]])
    );
}
