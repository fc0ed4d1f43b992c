//! Spools as version 1 of the format has written them, kept as text: every later version reads them, message
//! by message as it is said here by hand. `examples/golden.rs` has made them.

mod text;

use std::collections::BTreeSet;

use spool::blocking::{BlockingDisk, file_name};
use spool::op::FileId;
use spool::survey::{Survey, Surveyed};
use spool::*;

use text::Files;

/// All kinds of records that version 1 writes; segments of several generations, copies, a void record.
fn relay() -> Files {
    text::read(include_str!("relay.txt"))
}

/// A segment set aside, a damaged commit, an unfinished end.
fn damaged() -> Files {
    text::read(include_str!("damaged.txt"))
}

struct Started {
    disk: BlockingDisk,
    log: Log,
    recovered: Recovered,
    dir: tempfile::TempDir,
}

fn start(files: &Files) -> Result<Started, RecoverError> {
    let dir = tempfile::tempdir().expect("a scratch directory");
    for (file, bytes) in files {
        std::fs::write(dir.path().join(file_name(*file)), bytes).expect("a scratch file");
    }
    let mut disk = BlockingDisk::open(dir.path()).expect("it is there");
    let mut recovery = Recovery::new(Settings::default());
    disk.drive(&mut recovery);
    let (log, recovered) = recovery.finish()?;
    Ok(Started {
        disk,
        log,
        recovered,
        dir,
    })
}

impl Started {
    /// The content of a message, read through the engine.
    fn content(&mut self, message: MessageKey) -> Vec<u8> {
        let ticket = self.log.read(message).expect("it is on disk");
        for now in 1..100_u64 {
            while let Some(request) = self.log.poll_op(now * 1_000_000_000) {
                let done = self.disk.execute(request);
                self.log.complete(now * 1_000_000_000, done);
            }
            while let Some(event) = self.log.poll_event() {
                if let Event::Content {
                    ticket: of,
                    content,
                    ..
                } = event
                    && of == ticket
                {
                    return match content.expect("it is whole") {
                        Content::Whole(content) => content,
                        Content::File(file) => self.pieces(&file),
                    };
                }
            }
        }
        panic!("no answer")
    }

    fn pieces(&self, file: &ContentFile) -> Vec<u8> {
        let mut all = Vec::new();
        let each = |piece: &[u8]| {
            all.extend_from_slice(piece);
            Ok(())
        };
        blocking::read_content(self.dir.path(), file, each).expect("every piece is whole");
        all
    }
}

fn id(epoch: u64, sequence: u64) -> SpoolId {
    SpoolId {
        shard: 0,
        epoch,
        sequence,
    }
}

fn recipient(address: &str, notify: u8, orcpt: Option<&str>) -> Recipient {
    Recipient {
        address: address.as_bytes().to_vec(),
        notify,
        orcpt: orcpt.map(|orcpt| orcpt.as_bytes().to_vec()),
    }
}

fn outcome(recipient: u32, status: Status, reply: &str) -> Option<Outcome> {
    Some(Outcome {
        recipient,
        attempt: 3,
        status,
        next_ms: 1_700_000_600_000,
        reply: reply.as_bytes().to_vec(),
    })
}

fn plain() -> Envelope {
    Envelope {
        sender: b"s@a.example".to_vec(),
        recipients: vec![recipient("r@b.example", 0, None)],
        ..Envelope::default()
    }
}

fn survey(files: &Files) -> Surveyed {
    let mut survey = Survey::new(Some(0));
    let mut contents = BTreeSet::new();
    for (file, bytes) in files {
        match file {
            FileId::Segment(number) => survey.start(*number, &bytes[..3 * 4096]),
            FileId::Content(id) => {
                contents.insert(*id);
            }
            _ => {}
        }
    }
    for (file, bytes) in files {
        if let FileId::Segment(number) = file {
            survey.segment(*number, bytes);
        }
    }
    survey.finish(&contents)
}

#[test]
fn a_spool_of_version_1_is_read_message_by_message() {
    let mut started = start(&relay()).expect("a spool of version 1");
    let waits = Envelope {
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
    };
    let tried = vec![
        outcome(0, Status::Deferred, "451 4.2.0 later"),
        outcome(1, Status::Delivered, "250 2.0.0 ok"),
        None,
    ];
    let held = vec![outcome(0, Status::Held, "held by root")];
    let failed = vec![outcome(0, Status::Failed, "550 5.1.1 no")];
    let large = b"0123456789abcdef0123456789abcd\r\n".repeat(4500);
    let small = "Subject: gr\u{fc}n\r\n\r\nwaits\r\n".as_bytes().to_vec();
    // 3 to 62 have been delivered, 63 was refused.
    let expected = [
        (id(7, 1), waits, tried, small),
        (id(7, 2), plain(), held, large),
        (id(7, 64), plain(), vec![None], vec![b'x'; 700]),
        (id(7, 65), plain(), failed, vec![b'x'; 700]),
    ];
    let messages = std::mem::take(&mut started.recovered.messages);
    assert_eq!(messages.len(), expected.len());
    for (message, (id, envelope, outcomes, content)) in messages.into_iter().zip(expected) {
        assert_eq!(
            (message.id, message.content_len),
            (id, content.len() as u64)
        );
        assert_eq!(
            (&message.envelope, &message.outcomes),
            (&envelope, &outcomes)
        );
        assert_eq!(message.has_file, id.sequence == 2);
        assert!(started.content(message.key) == content, "{id}");
    }
    let thread = ThreadState {
        channel: b"smtp".to_vec(),
        host: b"b.example".to_vec(),
        attempt: 3,
        next_ms: 1_700_000_900_000,
        reply: b"connection refused".to_vec(),
    };
    assert_eq!(started.recovered.threads, [thread]);
    let report = &started.recovered.report;
    assert_eq!(
        (&report.damaged[..], &report.aside[..], report.torn),
        (&[][..], &[][..], 0)
    );
}

/// Otherwise the file above would prove less than it seems to.
#[test]
fn the_golden_spool_has_every_kind_of_record() {
    let mut kinds = BTreeSet::new();
    let mut generations = BTreeSet::new();
    for (file, bytes) in relay() {
        let FileId::Segment(_) = file else { continue };
        for (at, block) in bytes.chunks(4096).enumerate() {
            let Some(header) = layout::CommitHeader::decode(block) else {
                continue;
            };
            generations.insert(header.generation);
            let start = at * 4096 + layout::COMMIT_HEADER_BYTES;
            let mut records = &bytes[start..start + header.records as usize];
            while let Ok(frame) = record::take_frame(&mut records) {
                kinds.insert(frame.kind as u8);
            }
        }
    }
    assert_eq!(kinds, BTreeSet::from([1, 3, 4, 6, 7, 8, 10]));
    assert!(generations.len() > 1, "{generations:?}");
}

#[test]
fn damage_in_a_spool_of_version_1_is_seen_for_what_it_is() {
    let files = damaged();
    let mut started = start(&files).expect("a spool of version 1");
    let messages = std::mem::take(&mut started.recovered.messages);
    let [message] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert_eq!((message.id, &message.envelope), (id(8, 62), &plain()));
    assert!(started.content(message.key) == vec![b'x'; 700]);
    let report = &started.recovered.report;
    assert_eq!((&report.aside[..], report.torn), (&[0][..], 1));
    let [(segment, offset)] = report.damaged[..] else {
        panic!("{report:?}")
    };
    let surveyed = survey(&files);
    let lines: Vec<String> = surveyed
        .findings
        .iter()
        .map(|finding| {
            let place = finding.place.expect("all are in segments");
            format!("{}:{} {}", place.segment, place.offset, finding.what)
        })
        .collect();
    assert!(
        lines.contains(&"0:0 the segment is damaged and set aside".to_owned()),
        "{lines:?}"
    );
    let damaged = format!("{segment}:{offset} commit ");
    assert!(
        lines.iter().any(|line| line.starts_with(&damaged)),
        "{lines:?}"
    );
    assert!(
        surveyed
            .notes
            .iter()
            .any(|note| note.what.contains("unfinished end"))
    );
}

#[test]
fn a_check_of_the_golden_spool_finds_nothing() {
    let surveyed = survey(&relay());
    assert_eq!(surveyed.findings, []);
    let ids: Vec<SpoolId> = surveyed.messages.iter().map(|found| found.id).collect();
    assert_eq!(ids, [id(7, 1), id(7, 2), id(7, 64), id(7, 65)]);
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0x82f6_3b78 * (sum & 1))
        })
    })
}

/// A later version and a kind of it: refused with the place and what is needed, never skipped. A check names
/// both as well, and goes on.
#[test]
fn what_a_newer_version_wrote_is_refused() {
    let mut files = relay();
    let bytes = files.get_mut(&FileId::Segment(3)).expect("it is there");
    let header = &mut bytes[4096..8192];
    header[8] = 2;
    let sum = crc(&header[..32]);
    header[32..36].copy_from_slice(&sum.to_le_bytes());
    let refused = start(&files)
        .map(|started| started.recovered)
        .expect_err("a newer version");
    let expected = RecoverError::NewerFormat {
        segment: 3,
        offset: 4096,
        what: "format version 2".to_owned(),
    };
    assert_eq!(refused, expected);
    assert!(
        refused
            .to_string()
            .contains("segment 3 offset 4096: format version 2; a newer version")
    );
    assert!(survey(&files).newer);

    for kind in [5, 9, 13, 255] {
        let mut files = relay();
        let (segment, offset) = last_commit(&files);
        let bytes = files
            .get_mut(&FileId::Segment(segment))
            .expect("it is there");
        let commit = &mut bytes[offset..];
        commit[64] = kind;
        let records = u32::from_le_bytes(commit[36..40].try_into().expect("four")) as usize;
        let sum = crc(&commit[64..64 + records]);
        commit[44..48].copy_from_slice(&sum.to_le_bytes());
        let sum = crc(&commit[..48]);
        commit[48..52].copy_from_slice(&sum.to_le_bytes());
        let refused = start(&files)
            .map(|started| started.recovered)
            .expect_err("a newer version");
        let expected = RecoverError::NewerFormat {
            segment,
            offset: offset as u64,
            what: format!("record kind {kind}"),
        };
        assert_eq!(refused, expected);
        assert!(survey(&files).newer, "kind {kind}");
    }
}

/// The place of the commit with the highest sequence.
fn last_commit(files: &Files) -> (u32, usize) {
    let blocks = files.iter().flat_map(|(file, bytes)| {
        let blocks = bytes.chunks(4096).enumerate();
        blocks.filter_map(move |(at, block)| match file {
            FileId::Segment(number) => {
                let header = layout::CommitHeader::decode(block)?;
                Some((header.sequence, (*number, at * 4096)))
            }
            _ => None,
        })
    });
    blocks.max().expect("there are commits").1
}
