//! The bytes of `FORMAT.md`, written out by hand: a change of the format has to change this file,
//! and with it the version.

use spool::buffer::AlignedBuf;
use spool::layout::{COMMIT_HEADER_BYTES, CommitHeader, DATA_START, HeaderBlock, SegmentHeader};
use spool::op::{FileId, Op, Request, Token};
use spool::record::{self, DecodeError, Kind, MessageHead, take_frame};
use spool::sim::SimDisk;
use spool::{
    BodyKind, Edit, Envelope, Group, Origin, Outcome, Recipient, RecoverError, Recovered, Recovery,
    Ret, Routed, RoutedRecipients, Routing, Settings, Source, SpoolId, Status, Submitter,
    ThreadState,
};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] * 16 + pair[1]) as u8)
        .collect()
}

/// CRC-32C by its definition (RFC 3720 12.1), bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0x82f6_3b78 * (sum & 1))
        })
    })
}

#[test]
fn the_checksum_is_crc32c() {
    // The check value of the polynomial.
    assert_eq!(crc(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn segment_header() {
    let header = SegmentHeader {
        shard: 3,
        segment: 0x0102,
        generation: 5,
        secret: 0x1122_3344_5566_7788,
    };
    let mut expected = hex("005a4d4c53473031 0100 0300 02010000 0500000000000000 8877665544332211");
    expected.extend(crc(&expected).to_le_bytes());
    expected.resize(4096, 0);
    assert_eq!(header.encode(), expected);
    assert_eq!(SegmentHeader::decode(&expected), HeaderBlock::Valid(header));
    let mut aside = hex("005a4d4c53474153 0100 0300 02010000 0500000000000000 8877665544332211");
    aside.extend(crc(&aside).to_le_bytes());
    aside.resize(4096, 0);
    assert_eq!(header.encode_aside(), aside);
    assert_eq!(SegmentHeader::decode(&aside), HeaderBlock::Aside(header));
    assert_eq!(SegmentHeader::offset(5), 4096);
    assert_eq!(SegmentHeader::offset(6), 0);
    assert_eq!(DATA_START, 8192);
}

#[test]
fn a_segment_of_another_version_is_told_from_a_damaged_one() {
    let mut block = hex("005a4d4c53473031 0200 0300 02010000 0500000000000000 8877665544332211");
    let sum = crc(&block);
    block.extend(sum.to_le_bytes());
    assert_eq!(SegmentHeader::decode(&block), HeaderBlock::Version(2));
    block[9] ^= 1;
    assert_eq!(SegmentHeader::decode(&block), HeaderBlock::Invalid);
}

#[test]
fn commit_header() {
    let header = CommitHeader {
        secret: 1,
        sequence: 2,
        generation: 3,
        segment: 4,
        length: 4096,
        records: 100,
        previous: 0xaabb_ccdd,
        sum: 0x0102_0304,
    };
    let mut expected = hex(
        "015a4374 0100000000000000 0200000000000000 0300000000000000 \
         04000000 00100000 64000000 ddccbbaa 04030201",
    );
    assert_eq!(expected.len(), 48);
    expected.extend(crc(&expected).to_le_bytes());
    expected.resize(COMMIT_HEADER_BYTES, 0);
    assert_eq!(header.encode().to_vec(), expected);
    assert_eq!(CommitHeader::decode(&expected), Some(header));
    // Secret, sequence and checksum; not the place.
    let linked = hex("0100000000000000 0200000000000000 04030201");
    assert_eq!(header.link(), crc(&linked));
}

fn id() -> SpoolId {
    SpoolId {
        shard: 0x0102,
        epoch: 0x1112_1314_1516_1718,
        sequence: 0x2122_2324_2526,
    }
}

fn routing() -> Routing {
    Routing {
        generation: 0x77,
        hops: vec![("smtp".into(), "h".into())],
        groups: vec![Group {
            sender: b"o@b".to_vec(),
            errors_to: None,
            detached: false,
            edits: vec![Edit {
                at: 5,
                remove: 2,
                insert: b"x\r\n".to_vec(),
            }],
        }],
        recipients: RoutedRecipients::from_iter([Routed {
            of: 1,
            group: 0,
            hop: 0,
            privilege: Some(99),
            notify: 4,
            orcpt: Some(b"r;c".as_slice().into()),
            user: b"u@h".as_slice().into(),
        }]),
    }
}

const ROUND: &str = "01000000 0400 736d7470 0100 68 \
     01000000 0300 6f4062 01000000 0500000000000000 02000000 03000000 780d0a \
     01000000 01000000 00000000 00000000 01 63000000 04 01 0300 723b63 0300 754068";

#[test]
fn an_envelope_with_a_round() {
    let envelope = Envelope {
        routing: Some(Box::new(routing())),
        ..Envelope::default()
    };
    let mut encoded = hex("0000000000000000 00 00 00 0000 00 0000 0000 0000 00 00000000");
    // What is replaced is among the outcomes.
    encoded.extend(hex("7700000000000000 00000000"));
    encoded.extend(hex(ROUND));
    let mut out = Vec::new();
    record::put_envelope(&mut out, &envelope);
    assert_eq!(out, encoded);
    assert_eq!(record::envelope(&encoded).expect("decodes"), envelope);
}

/// What came later stands where earlier versions wrote nothing but zeroes: their bytes mean what they meant.
#[test]
fn who_brought_a_message_and_who_is_told_of_failures() {
    let user = Submitter {
        uid: 0x1234,
        trusted: true,
        login: b"joe".to_vec(),
        full_name: b"J".to_vec(),
    };
    let source = Source {
        born_ns: 1,
        inode: 2,
        modified_ns: 3,
        size: 4,
    };
    let file = "0100000000000000 0200000000000000 0300000000000000 0400000000000000";
    let user_bytes = "34120000 01 0300 6a6f65 0100 4a";
    for (origin, source, bytes) in [
        (Origin::Relay, None, "00".to_owned()),
        (Origin::Relay, Some(source), format!("01 {file}")),
        (Origin::Submission, None, "02".to_owned()),
        (
            Origin::User(Box::new(user.clone())),
            None,
            format!("04 {user_bytes}"),
        ),
        (
            Origin::User(Box::new(user)),
            Some(source),
            format!("05 {file} {user_bytes}"),
        ),
    ] {
        let envelope = Envelope {
            origin,
            source,
            ..Envelope::default()
        };
        let start = "0000000000000000 00 00 00 0000 00 0000 0000 0000";
        let encoded = hex(&format!("{start} {bytes} 00000000"));
        let mut out = Vec::new();
        record::put_envelope(&mut out, &envelope);
        assert_eq!(out, encoded, "{envelope:?}");
        assert_eq!(record::envelope(&encoded).expect("decodes"), envelope);
    }
    for wrong in ["06", "08", "04 34120000 02 0000 0000"] {
        let start = "0000000000000000 00 00 00 0000 00 0000 0000 0000";
        let encoded = hex(&format!("{start} {wrong} 00000000"));
        assert_eq!(record::envelope(&encoded), Err(DecodeError::Value));
    }
    let mut told = routing();
    told.groups[0].errors_to = Some(b"e@b".to_vec());
    told.groups[0].detached = true;
    let envelope = Envelope {
        routing: Some(Box::new(told)),
        ..Envelope::default()
    };
    let mut out = Vec::new();
    record::put_envelope(&mut out, &envelope);
    let group = hex("01000000 0300 6f4062 010000c0 0300 654062 0500000000000000");
    assert!(out.windows(group.len()).any(|window| window == group));
    assert_eq!(record::envelope(&out).expect("decodes"), envelope);
}

#[test]
fn message() {
    let envelope = Envelope {
        sender: b"a@b".to_vec(),
        recipients: vec![Recipient {
            address: b"c@d".to_vec(),
            notify: 6,
            orcpt: Some(b"rfc822;c".to_vec()),
        }],
        arrival_ms: 0x0a0b,
        body: BodyKind::Binary,
        smtputf8: true,
        ret: Some(Ret::Headers),
        envid: None,
        client: b"::1".to_vec(),
        helo: b"h".to_vec(),
        protocol: b"ESMTP".to_vec(),
        source: Some(Source {
            born_ns: 0x31,
            inode: 0x32,
            modified_ns: 0x33,
            size: 0x34,
        }),
        origin: Origin::Relay,
        routing: None,
    };
    let encoded = hex(
        "0b0a000000000000 02 01 02 0300 614062 00 0300 3a3a31 0100 68 0500 45534d5450 \
         01 3100000000000000 3200000000000000 3300000000000000 3400000000000000 \
         01000000 0300 634064 06 01 0800 7266633832323b63",
    );
    let mut out = Vec::new();
    record::put_envelope(&mut out, &envelope);
    assert_eq!(out, encoded);
    assert_eq!(record::envelope(&encoded).expect("decodes"), envelope);

    let head = MessageHead {
        id: id(),
        envelope_len: 1,
        outcomes_count: 2,
        content_len: 3,
        content_sum: 4,
    };
    let expected =
        hex("262524232221 1817161514131211 0201 01000000 02000000 0300000000000000 04000000");
    assert_eq!(head.encode().to_vec(), expected);
}

#[test]
fn outcome_and_thread() {
    let outcome = Outcome {
        recipient: 1,
        attempt: 2,
        status: Status::Expired,
        next_ms: 3,
        reply: b"no".to_vec(),
    };
    let mut out = Vec::new();
    record::put_outcome(&mut out, &outcome);
    assert_eq!(out, hex("01000000 02000000 03 0300000000000000 0200 6e6f"));
    let state = ThreadState {
        channel: b"smtp".to_vec(),
        host: b"h".to_vec(),
        attempt: 7,
        next_ms: 8,
        reply: b"x".to_vec(),
    };
    let mut out = Vec::new();
    record::put_thread(&mut out, &state);
    let expected = hex("0400 736d7470 0100 68 07000000 0800000000000000 0100 78");
    assert_eq!(out, expected);
    assert_eq!(record::thread(&expected).expect("decodes"), state);
}

fn framed(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 0, 0, 0];
    out.extend((payload.len() as u32).to_le_bytes());
    out.extend(crc(payload).to_le_bytes());
    out.extend(payload);
    out
}

#[test]
fn frames() {
    for (number, kind) in (1u8..).zip(Kind::ALL) {
        let bytes = framed(number, b"payload");
        let mut rest = bytes.as_slice();
        let frame = take_frame(&mut rest).expect("a good frame");
        assert_eq!((frame.kind, frame.payload), (kind, &b"payload"[..]));
        assert!(rest.is_empty());
    }
    let unknown = framed(13, b"payload");
    assert_eq!(
        take_frame(&mut unknown.as_slice()),
        Err(DecodeError::UnknownKind(13))
    );
    let mut damaged = framed(13, b"payload");
    damaged[14] ^= 1;
    assert_eq!(
        take_frame(&mut damaged.as_slice()),
        Err(DecodeError::Checksum)
    );
    let short = framed(1, b"payload");
    let short = &short[..short.len() - 1];
    assert_eq!(take_frame(&mut { short }), Err(DecodeError::Truncated));
}

/// A disk with one segment of one commit, byte by byte as `FORMAT.md` has it.
fn disk_with(records: &[u8]) -> SimDisk {
    let mut header = hex("005a4d4c53473031 0100 0000 00000000 0100000000000000 0900000000000000");
    header.extend(crc(&header).to_le_bytes());
    header.resize(4096, 0);
    let mut commit =
        hex("015a4374 0900000000000000 0500000000000000 0100000000000000 00000000 00100000");
    commit.extend((records.len() as u32).to_le_bytes());
    commit.extend(hex("00000000"));
    commit.extend(crc(records).to_le_bytes());
    commit.extend(crc(&commit).to_le_bytes());
    commit.resize(64, 0);
    commit.extend(records);
    commit.resize(4096, 0);
    let mut buf = AlignedBuf::zeroed(3 * 4096);
    buf.copy_from_slice(&[header.clone(), header, commit].concat());
    let file = FileId::Segment(0);
    let (offset, durable) = (0, true);
    let mut disk = SimDisk::new(1);
    for op in [
        Op::Create { file },
        Op::Write {
            file,
            offset,
            buf,
            durable,
        },
        Op::SyncDir,
    ] {
        let token = Token(1);
        disk.submit(Request { token, op });
        assert!(disk.complete_one().expect("submitted").result.is_ok());
    }
    disk
}

fn start(mut disk: SimDisk) -> Result<Recovered, RecoverError> {
    let mut recovery = Recovery::new(Settings::default());
    while let Some(request) = recovery.poll_op() {
        disk.submit(request);
        recovery.complete(disk.complete_one().expect("submitted"));
    }
    recovery.finish().map(|(_, recovered)| recovered)
}

const ID: &str = "262524232221 1817161514131211 0201";

/// Kinds that version 1 does not write: they frame as laid down, and a start refuses them by name, since
/// what they say cannot be left out.
#[test]
fn kinds_of_later_versions() {
    let action = format!("{ID} ffffffff 03 0400 736d7470");
    let checkpoint = "0500000000000000 00000000 01000000 06000000 10000000";
    for (number, kind, payload) in [
        (5, Kind::Action, action.as_str()),
        (9, Kind::Checkpoint, checkpoint),
    ] {
        let payload = hex(payload);
        let bytes = framed(number, &payload);
        let frame = take_frame(&mut bytes.as_slice()).expect("a good frame");
        assert_eq!((frame.kind, frame.payload), (kind, payload.as_slice()));
        let refused = start(disk_with(&bytes)).expect_err("a newer version is needed");
        let what = format!("record kind {number}");
        let (segment, offset) = (0, DATA_START);
        assert_eq!(
            refused,
            RecoverError::NewerFormat {
                segment,
                offset,
                what
            }
        );
    }
}

/// A message for two, and the head and bytes of a round that replaces the second.
const FOR_TWO: &str = "0000000000000000 00 00 00 0000 00 0000 0000 0000 00 \
     02000000 0000 00 00 0000 00 00";
const REPLACES: &str = "7700000000000000 01000000 01000000";

fn for_two(kind: u8, envelope: &[u8], outcomes: &[u8]) -> Vec<u8> {
    let mut payload = hex(ID);
    payload.extend((envelope.len() as u32).to_le_bytes());
    payload.extend([u8::from(!outcomes.is_empty()), 0, 0, 0]);
    payload.extend(hex("0000000000000000 00000000"));
    payload.extend(envelope);
    payload.extend(outcomes);
    framed(kind, &payload)
}

fn is_routed(records: &[u8]) -> bool {
    let recovered = start(disk_with(records)).expect("records of this version");
    let message = &recovered.messages[0];
    let replaced = |outcome: &Option<Outcome>| {
        outcome
            .as_ref()
            .is_some_and(|outcome| outcome.status == Status::Replaced)
    };
    let outcomes: Vec<bool> = message.outcomes.iter().map(replaced).collect();
    match &message.envelope.routing {
        Some(found) => {
            assert_eq!(**found, routing());
            assert_eq!(outcomes, [false, true, false]);
            true
        }
        None => {
            assert_eq!(outcomes, [false, false]);
            false
        }
    }
}

#[test]
fn a_round_counts_with_its_last_piece() {
    let round = hex(&format!("{REPLACES} {ROUND}"));
    let (first, last) = round.split_at(30);
    let piece = |head: &str, bytes: &[u8]| {
        let mut payload = hex(&format!("{ID} 02000000 {head}"));
        payload.extend(bytes);
        framed(2, &payload)
    };
    let message = for_two(1, &hex(FOR_TWO), &[]);
    let whole = piece("00000000 01000000", &round);
    let (one, two) = (
        piece("00000000 02000000", first),
        piece("01000000 02000000", last),
    );
    assert!(is_routed(&[&message[..], &whole].concat()));
    assert!(is_routed(&[&message[..], &one, &two].concat()));
    assert!(is_routed(&[&message[..], &one, &one, &two].concat()));
    assert!(!is_routed(&[&message[..], &one].concat()));
    assert!(!is_routed(&[&message[..], &two].concat()));
    assert!(!is_routed(
        &[&message[..], &one, &whole[..0], &one].concat()
    ));
    // It begins at other recipients than there are.
    let mut other = hex(&format!("{ID} 03000000 00000000 01000000"));
    other.extend(&round);
    assert!(!is_routed(&[message, framed(2, &other)].concat()));
}

#[test]
fn a_routed_copy() {
    let envelope = [hex(FOR_TWO), hex("7700000000000000 00000000"), hex(ROUND)].concat();
    let replaced = hex("01000000 00000000 05 0000000000000000 0000");
    assert!(is_routed(&for_two(11, &envelope, &replaced)));
}

/// A void record, alone: the commit with the sequence it names does not count, whether it is there or not.
#[test]
fn void_and_done() {
    let void = framed(8, &hex("0400000000000000"));
    let recovered = start(disk_with(&void)).expect("a record of this version");
    assert_eq!(recovered.report.commits, 1);
    // It names its own commit, whose sequence is 5: that is dropped.
    let own = framed(8, &hex("0500000000000000"));
    let recovered = start(disk_with(&own)).expect("a record of this version");
    assert_eq!(recovered.report.commits, 0);
    let short = framed(8, &hex("04000000"));
    let recovered = start(disk_with(&short)).expect("the rest is used");
    assert_eq!((recovered.report.commits, recovered.report.torn), (0, 1));
    let done = framed(6, &hex(ID));
    let recovered = start(disk_with(&done)).expect("a record of this version");
    assert_eq!((recovered.report.commits, recovered.messages.len()), (1, 0));
}

/// What the engine writes as a void record is what is laid down here.
#[test]
fn a_void_record_as_written() {
    let mut disk = SimDisk::new(1);
    let (mut log, _) = Recovery::new(Settings::default())
        .finish()
        .expect("an empty directory");
    let mut now = 1;
    let mut failed = false;
    for _ in 0..2000 {
        while let Some(request) = log.poll_op(now) {
            disk.submit(request);
        }
        if let Some(done) = disk.complete_one() {
            log.complete(now, done);
        } else {
            now += 1_000_000_000;
        }
        if log.stats().free_segments == 3 && !failed {
            failed = true;
            disk.fail_all(Some(5));
            let id = log.reserve_id();
            log.accept(now, id, &Envelope::default(), b"x")
                .expect("there is room");
        }
        if failed && !log.stats().accepting {
            disk.fail_all(None);
        }
    }
    assert!(failed && log.stats().accepting);
    let void = framed(8, &hex("0100000000000000"));
    let written = disk.files().any(|file| {
        let image = disk.image(file).unwrap_or_default();
        let mut commits = image.chunks(4096);
        commits.any(|block| block.get(64..64 + void.len()) == Some(&void[..]))
    });
    assert!(written);
}

#[test]
fn an_id_is_22_digits() {
    // 128 bits in base 62, most significant digit first.
    let small = SpoolId {
        shard: 0,
        epoch: 0,
        sequence: 61,
    };
    assert_eq!(small.to_string(), format!("{}z", "0".repeat(21)));
    assert_eq!(id().to_string().parse::<SpoolId>(), Ok(id()));
}

#[test]
fn large() {
    let content = spool::ContentFile {
        id: id(),
        shard: 0,
        len: 131_072 + 1,
        eight_bit: true,
        sums: vec![0x0102_0304, 5],
    };
    let mut envelope = Vec::new();
    record::put_envelope(&mut envelope, &Envelope::default());
    let sums = hex("04030201 05000000");
    let mut expected = hex("262524232221 1817161514131211 0201");
    expected.extend((envelope.len() as u32).to_le_bytes());
    expected.extend(hex("00000000 0100020000000000"));
    expected.extend(crc(&sums).to_le_bytes());
    expected.extend(&envelope);
    expected.extend(hex("01 02000000"));
    expected.extend(&sums);
    let payload = record::large_payload(&Envelope::default(), &[], &content);
    assert_eq!(payload, expected);
    assert_eq!(Kind::Large as u8, 10);

    let parts = record::large(&payload).expect("decodes");
    assert_eq!((parts.sums, parts.eight_bit), (content.sums, true));
    let last = payload.len() - 1;
    for (change, error) in [
        (last, DecodeError::Checksum),
        (last - 9, DecodeError::Value),
    ] {
        let mut damaged = payload.clone();
        damaged[change] ^= 1;
        assert_eq!(record::large(&damaged).err(), Some(error), "byte {change}");
    }
}
