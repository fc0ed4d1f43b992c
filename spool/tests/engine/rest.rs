//! Messages that rest: read back as they were, copied, damaged.

use spool::op::FileId;
use spool::*;

use crate::harness::{Rig, SECOND, envelope, settings};

const REPLY: &[u8] = b"450 4.2.1 not now";

fn deferred(recipient: u32) -> Outcome {
    Outcome {
        recipient,
        attempt: 3,
        status: Status::Deferred,
        next_ms: 7_000,
        reply: REPLY.to_vec(),
    }
}

fn long_envelope(recipients: usize) -> Envelope {
    let recipients = (0..recipients).map(|number| Recipient {
        address: format!("recipient.with.a.long.name.{number}@b.example").into_bytes(),
        notify: 4,
        orcpt: Some(format!("rfc822;{number}@c.example").into_bytes()),
    });
    Envelope {
        recipients: recipients.collect(),
        arrival_ms: 1_234_567,
        ..envelope()
    }
}

fn stored(rig: &mut Rig, envelope: &Envelope, content: &[u8]) -> Accepted {
    let id = rig.log.reserve_id();
    let accepted = rig.log.accept(rig.now, id, envelope, content);
    let accepted = accepted.expect("there is room");
    rig.run(SECOND);
    assert!(rig.is_committed(accepted.batch));
    accepted
}

fn rest(rig: &mut Rig, key: MessageKey, open: std::ops::Range<u32>) {
    let hop = rig.log.hop(b"smtp", b"b.example");
    let open: Vec<(u32, Hop)> = open.map(|number| (number, hop)).collect();
    assert!(rig.log.rest(key, 1_234_567, 7, &open));
    let view = rig.log.resting(key).expect("it rests");
    assert_eq!(view.generation(), Some(7));
}

fn wake(rig: &mut Rig, key: MessageKey) -> Result<Awake, ReadError> {
    let ticket = rig.log.wake(key).expect("it rests");
    rig.run(SECOND);
    let answer = rig.events.iter().find_map(|event| match event {
        Event::Awake {
            ticket: of,
            key: whose,
            result,
        } if *of == ticket && *whose == key => Some(result.clone()),
        _ => None,
    });
    answer.expect("an answer")
}

fn inspect(rig: &mut Rig, key: MessageKey) -> Result<Envelope, ReadError> {
    let ticket = rig.log.inspect(key).expect("it rests");
    rig.run(SECOND);
    let answer = rig.events.iter().find_map(|event| match event {
        Event::Inspected {
            ticket: of, result, ..
        } if *of == ticket => Some(result.clone()),
        _ => None,
    });
    answer.expect("an answer")
}

#[test]
fn what_rests_is_woken_as_it_was() {
    for (recipients, content_len) in [(1, 10), (1, 20_000), (200, 5_000), (3, 0)] {
        let mut rig = Rig::new(settings(7));
        // Records begin anywhere in a block.
        for len in [0, 100, 3_000] {
            rig.accepted(len);
            let envelope = long_envelope(recipients);
            let content: Vec<u8> = (0..content_len).map(|at| (at % 251) as u8).collect();
            let Accepted { key, id, .. } = stored(&mut rig, &envelope, &content);
            rig.log.outcome(rig.now, key, deferred(0));
            // The outcome does not have to be on disk.
            rest(&mut rig, key, 0..recipients as u32);
            assert_eq!(rig.log.id(key), Some(id));
            assert_eq!(rig.log.content_len(key), Some(content_len));
            let view = rig.log.resting(key).expect("it rests");
            assert_eq!((view.id(), view.arrival_ms()), (Some(id), 1_234_000));
            let told: Vec<RestingRecipient<'_>> = view.recipients().collect();
            assert_eq!(told.len(), recipients);
            assert_eq!(told[0].status, Some(Status::Deferred));
            assert_eq!((told[0].attempt, told[0].next_ms), (3, 7_000));
            assert_eq!(told[0].reply, REPLY);
            let hop = rig.log.hop_name(told[0].hop);
            assert_eq!(hop, Some((&b"smtp"[..], &b"b.example"[..])));
            assert_eq!(inspect(&mut rig, key), Ok(envelope.clone()));
            assert!(rig.log.resting(key).is_some(), "it rests on");
            let awake = wake(&mut rig, key).expect("it can be read");
            assert_eq!(awake.envelope, envelope);
            assert_eq!(awake.content, Content::Whole(content));
            assert_eq!(awake.outcomes.len(), recipients);
            assert_eq!(awake.outcomes[0], Some(deferred(0)));
            assert!(awake.outcomes[1..].iter().all(Option::is_none));
            assert!(rig.log.resting(key).is_none());
            assert_eq!(rig.log.outcomes(key), [deferred(0)]);
            rig.log.done(rig.now, key);
            rig.run(SECOND);
            assert_eq!(rig.log.id(key), None);
        }
    }
}

/// What is not on disk cannot be read back, and what is done has nothing to wait for.
#[test]
fn only_live_messages_on_disk_rest() {
    let mut rig = Rig::new(settings(7));
    let hop = rig.log.hop(b"smtp", b"b.example");
    let staged = rig.accept(10).expect("there is room").key;
    assert!(!rig.log.rest(staged, 0, 7, &[(0, hop)]), "not on disk");
    rig.run(SECOND);
    rig.log.done(rig.now, staged);
    assert!(!rig.log.rest(staged, 0, 7, &[(0, hop)]), "done");
    let key = rig.accepted(10).key;
    assert!(!rig.log.rest(key, 0, 7, &[]), "nobody is open");
    assert!(rig.log.rest(key, 0, 7, &[(0, hop)]));
    assert!(!rig.log.rest(key, 0, 7, &[(0, hop)]), "it rests already");
    assert!(rig.log.wake(staged).is_none());
    assert_eq!(rig.log.resting_count(), 1);
    assert_eq!(rig.log.resting_newest(), Some(key));
}

/// The log goes round under messages that rest, and one of them is woken and rests again on the way: all
/// are there after a power cut, with the recipients that were finished and those that were not.
#[test]
fn what_rests_is_copied_with_its_outcomes() {
    let mut rig = Rig::new(settings(7));
    let mut keys = Vec::new();
    for _ in 0..30 {
        let key = stored(&mut rig, &long_envelope(2), b"content").key;
        let finished = Outcome {
            recipient: 0,
            status: Status::Delivered,
            ..deferred(0)
        };
        rig.log.outcome(rig.now, key, finished);
        rig.log.outcome(rig.now, key, deferred(1));
        rest(&mut rig, key, 1..2);
        keys.push(key);
    }
    let before = rig.segments();
    for round in 0..300_usize {
        let accepted = rig.accepted(9_000);
        // While its copy may be under way.
        let key = keys[round % keys.len()];
        let ticket = rig.log.wake(key).expect("it rests");
        rig.deliver(accepted.key);
        rig.run(SECOND / 4);
        let awake = rig.events.drain(..).find_map(|event| match event {
            Event::Awake {
                ticket: of, result, ..
            } if of == ticket => Some(result),
            _ => None,
        });
        let awake = awake.expect("an answer").expect("it can be read");
        assert_eq!(awake.envelope, long_envelope(2));
        rest(&mut rig, key, 1..2);
    }
    assert!(!before.is_empty() && rig.log.stats().bytes_written > 300 * 9_000);
    assert_eq!(rig.log.stats().messages, keys.len() as u64);
    assert_eq!(rig.troubles(), Vec::<&str>::new());
    let (_, recovered) = rig.restart(settings(8));
    assert_eq!(recovered.messages.len(), keys.len());
    for message in recovered.messages {
        let statuses: Vec<Status> = message
            .outcomes
            .iter()
            .flatten()
            .map(|outcome| outcome.status)
            .collect();
        assert_eq!(statuses, [Status::Delivered, Status::Deferred]);
        assert_eq!(
            message.outcomes[1]
                .as_ref()
                .map(|outcome| &outcome.reply[..]),
            Some(REPLY)
        );
    }
}

/// A record that is damaged while its message rests: it is never given out, the message rests on, and
/// the log goes round it.
#[test]
fn a_damaged_message_cannot_be_woken() {
    let mut rig = Rig::new(settings(7));
    let key = stored(&mut rig, &envelope(), b"MARKER-MARKER").key;
    rest(&mut rig, key, 0..1);
    let (segment, at) = rig.find(b"MARKER-MARKER").expect("it is on disk");
    rig.disk.fail_read(5);
    assert_eq!(wake(&mut rig, key), Err(ReadError::Disk(5)));
    rig.disk.poke(FileId::Segment(segment), at as u64, b"m");
    assert_eq!(wake(&mut rig, key), Err(ReadError::Damaged));
    assert!(rig.log.resting(key).is_some());
    for _ in 0..200 {
        let accepted = rig.accepted(9_000);
        rig.deliver(accepted.key);
        rig.run(SECOND / 4);
    }
    assert_eq!(rig.log.stats().damaged, 1);
    assert_eq!(rig.log.stats().messages, 1);
    assert_eq!(rig.find(b"mARKER-MARKER"), Some((segment, at)));
}

/// The envelope is damaged: the checksum of the record shows it.
#[test]
fn a_damaged_envelope_is_not_believed() {
    let mut rig = Rig::new(settings(7));
    let key = stored(&mut rig, &envelope(), b"content").key;
    rest(&mut rig, key, 0..1);
    let (segment, at) = rig.find(b"r@b.example").expect("it is on disk");
    rig.disk.poke(FileId::Segment(segment), at as u64, b"x");
    assert_eq!(wake(&mut rig, key), Err(ReadError::Damaged));
}

#[test]
fn keys_are_listed_in_order() {
    let mut rig = Rig::new(settings(7));
    let keys: Vec<MessageKey> = (0..30).map(|_| rig.accepted(10).key).collect();
    for key in keys.iter().rev() {
        rest(&mut rig, *key, 0..1);
    }
    let listed: Vec<MessageKey> = rig.log.resting_keys(0..).collect();
    assert_eq!(listed, keys);
    let listed: Vec<MessageKey> = rig.log.resting_keys(keys[5].0..=keys[7].0).collect();
    assert_eq!(listed, keys[5..=7]);
    wake(&mut rig, keys[6]).expect("it can be read");
    let listed: Vec<MessageKey> = rig.log.resting_keys(keys[5].0..=keys[7].0).collect();
    assert_eq!(listed, [keys[5], keys[7]]);
}
