//! Large content: dropped, failing, read while it goes; every file that is opened is closed.

use std::sync::Arc;

use spool::op::FileId;
use spool::*;

use crate::harness::{Rig, SECOND, envelope, settings};

const ENOSPC: i32 = 28;

/// Content of three pieces.
fn bytes() -> Vec<u8> {
    (0..2 * PIECE_BYTES + 5000)
        .map(|at| (at % 251) as u8)
        .collect()
}

/// Begins content and gives all of it.
fn arriving(rig: &mut Rig) -> SpoolId {
    let id = rig.log.reserve_id();
    let content = bytes();
    let (first, rest) = content.split_at(PIECE_BYTES);
    rig.log.content_begin(id);
    rig.log.content_write(id, first);
    rig.log.content_end(id, rest);
    id
}

/// A message with large content on disk.
fn stored(rig: &mut Rig) -> (MessageKey, Arc<ContentFile>) {
    let id = arriving(rig);
    rig.run(SECOND);
    let accepted = rig
        .log
        .accept_content(rig.now, id, &envelope(), false)
        .expect("it is stored");
    rig.run(SECOND);
    rig.log.read(accepted.key).expect("it is on disk");
    rig.run(SECOND);
    let file = rig.events.iter().rev().find_map(|event| match event {
        Event::Content {
            content: Ok(Content::File(file)),
            ..
        } => Some(Arc::clone(file)),
        _ => None,
    });
    (accepted.key, file.expect("the record names the file"))
}

fn files(rig: &Rig) -> usize {
    let is_content = |file: &FileId| matches!(file, FileId::Content(_));
    rig.disk.files().filter(is_content).count()
}

fn asked(rig: &Rig, what: &str) -> usize {
    let of_content = |op: &&String| op.starts_with(what) && op.contains("Content");
    rig.asked.iter().filter(of_content).count()
}

/// The answer to a read.
fn piece(rig: &Rig, ticket: ReadTicket) -> Option<&Result<Vec<u8>, ReadError>> {
    rig.events.iter().find_map(|event| match event {
        Event::Piece {
            ticket: of,
            content,
        } if *of == ticket => Some(content),
        _ => None,
    })
}

#[test]
fn dropped_content_leaves_nothing_at_whatever_moment() {
    for steps in 0..40 {
        let mut rig = Rig::new(settings(7));
        let id = arriving(&mut rig);
        for _ in 0..steps {
            rig.step();
        }
        rig.log.content_drop(id);
        // A caller that comes too late changes nothing.
        rig.log.content_write(id, &[0; 4096]);
        rig.log.content_end(id, b"more");
        rig.log.content_drop(id);
        rig.run(SECOND);
        assert_eq!(files(&rig), 0, "dropped after {steps} operations");
        let accepted = rig.log.accept_content(rig.now, id, &envelope(), false);
        assert_eq!(accepted, Err(Refusal::Failed));
    }
}

/// What was lost: a file could not be made while bytes waited behind it; the session that waited for them
/// to be written never heard of it.
#[test]
fn who_waits_for_a_file_that_cannot_be_made_hears_of_it() {
    let mut rig = Rig::new(settings(7));
    rig.run(SECOND);
    rig.disk.fail_all(Some(ENOSPC));
    let id = rig.log.reserve_id();
    rig.log.content_begin(id);
    rig.log.content_write(id, &[0; 4096]);
    rig.run(SECOND);
    let written = |event: &Event| matches!(event, Event::ContentWritten { id: of } if *of == id);
    assert!(rig.events.iter().any(written), "{:?}", rig.events);
    assert_eq!(rig.log.content_backlog(id), 0);
    rig.log.content_end(id, b"rest");
    rig.run(SECOND);
    let failed = |event: &Event| matches!(event, Event::ContentStored { id: of, result: Err(ENOSPC) } if *of == id);
    assert!(rig.events.iter().any(failed), "{:?}", rig.events);
}

/// The message is done while another reader is in the middle: he reads to the end, then the file goes.
#[test]
fn a_file_goes_with_its_last_reader() {
    let mut rig = Rig::new(settings(7));
    let (key, file) = stored(&mut rig);
    rig.log.content_open(&file);
    let first = rig.log.content_read(&file, 0);
    rig.run(SECOND);
    rig.deliver(key);
    rig.run(SECOND);
    assert_eq!(rig.log.stats().messages, 0);
    let last = rig.log.content_read(&file, 2);
    rig.run(SECOND);
    for (ticket, part) in [
        (first, &bytes()[..PIECE_BYTES]),
        (last, &bytes()[2 * PIECE_BYTES..]),
    ] {
        let read = piece(&rig, ticket).expect("an answer").as_ref();
        assert_eq!(read.map(Vec::as_slice), Ok(part));
    }
    assert_eq!(files(&rig), 1);
    rig.log.content_close(&file);
    rig.run(SECOND);
    assert_eq!(files(&rig), 0);
    assert_eq!(
        asked(&rig, "Open"),
        asked(&rig, "Close") - asked(&rig, "Create")
    );
}

/// A reader leaves while his read is under way: the descriptor stays until the disk has answered, or
/// the answer could be of whatever was opened under its number since.
#[test]
fn a_file_is_not_closed_under_a_read() {
    let mut rig = Rig::new(settings(7));
    let (_, file) = stored(&mut rig);
    rig.log.content_open(&file);
    rig.run(SECOND);
    let closed = asked(&rig, "Close");
    let ticket = rig.log.content_read(&file, 1);
    rig.log.content_close(&file);
    while piece(&rig, ticket).is_none() {
        assert_eq!(asked(&rig, "Close"), closed);
        assert!(rig.step());
    }
    rig.run(SECOND);
    assert_eq!(asked(&rig, "Close"), closed + 1);
}

/// Readers come and go at any time: as many files are closed as were opened, and none is open twice.
#[test]
fn readers_that_come_and_go_leave_no_file_open() {
    let mut rng = sim::Rng::new(3);
    let mut rig = Rig::new(settings(7));
    let (key, file) = stored(&mut rig);
    let mut readers = 0;
    let mut tickets = Vec::new();
    for _ in 0..600 {
        match rng.below(4) {
            0 => {
                rig.log.content_open(&file);
                readers += 1;
            }
            1 if readers > 0 => {
                rig.log.content_close(&file);
                readers -= 1;
            }
            2 if readers > 0 => tickets.push(rig.log.content_read(&file, rng.below(3) as u32)),
            _ => {
                rig.step();
            }
        }
    }
    rig.deliver(key);
    for _ in 0..readers {
        rig.log.content_close(&file);
    }
    rig.run(SECOND);
    assert!(tickets.len() > 50);
    for ticket in tickets {
        let read = piece(&rig, ticket).expect("every read is answered");
        assert!(read.is_ok(), "{read:?}");
    }
    assert_eq!(
        asked(&rig, "Open") + asked(&rig, "Create"),
        asked(&rig, "Close")
    );
    assert_eq!(files(&rig), 0);
}

/// A sync of the directory that fails takes the content with it whose name it may have covered, and no other.
#[test]
fn names_that_may_be_lost_fail_their_content() {
    for nth in 1..12 {
        let mut rig = Rig::new(settings(7));
        stored(&mut rig);
        rig.disk.fail_nth(nth, sim::Fault::Error { errno: 5 });
        let id = arriving(&mut rig);
        rig.run(10 * SECOND);
        let result = rig.events.iter().find_map(|event| match event {
            Event::ContentStored { id: of, result } if *of == id => Some(*result),
            _ => None,
        });
        let result = result.expect("there is always an answer");
        if result.is_ok() {
            let accepted = rig.log.accept_content(rig.now, id, &envelope(), false);
            accepted.expect("it is stored");
            rig.run(10 * SECOND);
        }
        assert_eq!(files(&rig), 1 + usize::from(result.is_ok()), "fault {nth}");
        let (mut rig, recovered) = rig.restart(settings(8));
        assert_eq!(recovered.report.missing, [], "fault {nth}");
        assert_eq!(recovered.messages.len(), 1 + usize::from(result.is_ok()));
        rig.run(SECOND);
        assert_eq!(files(&rig), recovered.messages.len());
    }
}
