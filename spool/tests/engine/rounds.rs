//! What routing makes of recipients: recorded, read back, copied, found by a start.

use spool::*;

use crate::harness::{Rig, SECOND, envelope, settings};

const MEMBERS: u32 = 100_000;

fn members(count: u32) -> Routing {
    let recipients = (0..count).map(|number| Routed {
        of: 0,
        group: 0,
        hop: number % 2,
        privilege: None,
        notify: 1,
        orcpt: None,
        user: format!("member{number}@c.example").into_bytes().into(),
    });
    Routing {
        generation: 5,
        hops: vec![
            ("smtp".into(), "c.example".into()),
            ("local".into(), "-".into()),
        ],
        groups: vec![Group {
            sender: b"list-owner@b.example".to_vec(),
            errors_to: None,
            detached: true,
            edits: vec![Edit {
                at: 3,
                remove: 1,
                insert: b"To: list\r\n".to_vec(),
            }],
        }],
        recipients: recipients.collect(),
    }
}

/// Segments and batches as in the daemon.
fn large() -> Settings {
    Settings {
        segment_bytes: 16 << 20,
        staging_bytes_max: 4 << 20,
        ..settings(1)
    }
}

fn stored(rig: &mut Rig) -> Accepted {
    let id = rig.log.reserve_id();
    let accepted = rig.log.accept(rig.now, id, &envelope(), b"content");
    let accepted = accepted.expect("there is room");
    rig.run(SECOND);
    assert!(rig.is_committed(accepted.batch));
    accepted
}

fn is_routed(rig: &Rig) -> bool {
    rig.events
        .iter()
        .any(|event| matches!(event, Event::Routed { .. }))
}

fn wake(rig: &mut Rig, key: MessageKey) -> Awake {
    rig.log.wake(key).expect("it rests");
    rig.run(SECOND);
    let awake = rig.events.iter().find_map(|event| match event {
        Event::Awake {
            key: of, result, ..
        } if *of == key => result.clone().ok(),
        _ => None,
    });
    awake.expect("it is read")
}

fn rest(rig: &mut Rig, key: MessageKey, open: std::ops::Range<u32>) {
    let hop = rig.log.hop(b"smtp", b"c.example");
    let open: Vec<(u32, Hop)> = open.map(|number| (number, hop)).collect();
    assert!(rig.log.rest(key, 1, 7, &open));
}

#[test]
fn a_list_goes_into_the_log_piece_by_piece() {
    let mut rig = Rig::new(large());
    let accepted = stored(&mut rig);
    let routing = members(MEMBERS);
    let routed = rig.log.route(rig.now, accepted.key, &[0], &routing);
    assert_eq!(routed, Ok((1, false)), "its pieces wait for batches");
    assert!(!is_routed(&rig));
    let before = rig.log.stats().commits;
    rig.run(SECOND);
    assert!(is_routed(&rig));
    assert!(
        rig.log.stats().commits > before + 10,
        "a commit for each piece"
    );
    rest(&mut rig, accepted.key, 1..MEMBERS + 1);
    let awake = wake(&mut rig, accepted.key);
    assert_eq!(awake.envelope.routing.as_deref(), Some(&routing));
    assert_eq!(awake.outcomes.len() as u32, 1 + MEMBERS);
    let (_, recovered) = rig.restart(large());
    let found = &recovered.messages[0];
    assert_eq!(found.envelope.routing.as_deref(), Some(&routing));
    let replaced = found.outcomes[0].as_ref().map(|outcome| outcome.status);
    assert_eq!(replaced, Some(Status::Replaced));
}

#[test]
fn a_list_that_was_cut_off_is_not_there() {
    let mut rig = Rig::new(large());
    let accepted = stored(&mut rig);
    let routed = rig
        .log
        .route(rig.now, accepted.key, &[0], &members(MEMBERS));
    assert_eq!(routed, Ok((1, false)));
    while rig.log.stats().commits < 5 {
        assert!(rig.step());
    }
    let (mut rig, recovered) = rig.restart(large());
    let found = &recovered.messages[0];
    assert_eq!(found.envelope.routing, None);
    assert_eq!(found.outcomes, [None]);
    // It is made again, and counts then.
    let routing = members(10_000);
    let routed = rig.log.route(rig.now, found.key, &[0], &routing);
    assert!(routed.is_ok());
    rig.run(SECOND);
    let (_, recovered) = rig.restart(large());
    let found = &recovered.messages[0].envelope.routing;
    assert_eq!(found.as_deref(), Some(&routing));
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut rig = Rig::new(settings(1));
    let accepted = stored(&mut rig);
    let routed = rig.log.route(rig.now, accepted.key, &[0], &members(2000));
    assert!(matches!(routed, Err(Refusal::TooLarge { .. })));
    assert_eq!(rig.log.outcomes(accepted.key), []);
    let routed = rig.log.route(rig.now, accepted.key, &[0], &members(20));
    assert_eq!(routed, Ok((1, true)));
    let again = rig.log.route(rig.now, accepted.key, &[1], &members(1));
    assert_eq!(again, Err(Refusal::Busy), "the first is not on disk yet");
}

#[test]
fn a_routed_message_is_copied_with_its_rounds() {
    let mut rig = Rig::new(settings(1));
    let accepted = stored(&mut rig);
    for (replaced, count) in [(0, 3), (2, 2)] {
        let routing = members(count);
        assert!(
            rig.log
                .route(rig.now, accepted.key, &[replaced], &routing)
                .is_ok()
        );
        rig.run(SECOND);
    }
    rest(&mut rig, accepted.key, 1..2);
    let before = wake(&mut rig, accepted.key);
    rest(&mut rig, accepted.key, 1..2);
    // Mail that comes and goes lets the log turn over.
    for _ in 0..60 {
        let id = rig.log.reserve_id();
        let other = rig.log.accept(rig.now, id, &envelope(), &[b'x'; 20_000]);
        rig.run(SECOND);
        if let Ok(other) = other {
            rig.log.done(rig.now, other.key);
            rig.run(SECOND);
        }
    }
    assert!(rig.log.stats().bytes_copied > 0);
    rig.events.clear();
    let after = wake(&mut rig, accepted.key);
    assert_eq!(after.envelope, before.envelope);
    assert_eq!(after.outcomes, before.outcomes);
    let (_, recovered) = rig.restart(settings(2));
    let found = recovered.messages.iter();
    let found = found.filter(|message| message.id == accepted.id);
    let found: Vec<&Envelope> = found.map(|message| &message.envelope).collect();
    assert_eq!(found, [&before.envelope]);
}
