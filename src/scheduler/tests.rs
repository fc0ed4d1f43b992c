//! The scheduler as a table of words and answers; whole shards are in `tests/sim/`.

use super::*;

const MS: u64 = 1_000_000;

fn scheduler(shard: u16, rule: Rule) -> Scheduler {
    Scheduler::new(Settings {
        rules: vec![rule],
        shard,
        shards: 2,
        seed: 7,
    })
}

fn rule(max_connections: u32) -> Rule {
    Rule {
        max_connections,
        retry_ms: vec![1_000, 5_000],
        expiry_ms: 60_000,
        ..Rule::default()
    }
}

fn at(ms: u64) -> Now {
    Now {
        mono_ns: ms * MS + 1,
        wall_ms: ms,
    }
}

/// A host that shard 0 owns.
fn owned(scheduler: &mut Scheduler) -> (ThreadKey, String) {
    for number in 0.. {
        let host = format!("h{number}.example");
        let thread = scheduler.thread("smtp", &host);
        if scheduler.owner(thread) == 0 {
            return (thread, host);
        }
    }
    unreachable!("one of two shards owns every second name")
}

fn vertices(scheduler: &mut Scheduler, thread: ThreadKey, count: u64) {
    for payload in 0..count {
        let vertex = Vertex {
            payload,
            arrival_ms: 0,
            attempt: 0,
            due_ms: 0,
        };
        scheduler.insert(at(0), thread, vertex);
    }
}

/// Does what the scheduler asks; connections become ready at once. Gives back how many were opened
/// and what is said to other shards.
fn serve(scheduler: &mut Scheduler, now: Now) -> (u32, Vec<LeaseKind>) {
    let (mut opened, mut said) = (0, Vec::new());
    while let Some(action) = scheduler.poll(now) {
        match action {
            Action::Open { thread } => {
                opened += 1;
                scheduler.connection_ready(now, thread);
            }
            Action::Send { message, .. } => said.push(message.kind),
            _ => {}
        }
    }
    (opened, said)
}

fn word(host: &str, kind: LeaseKind) -> LeaseMessage {
    LeaseMessage {
        channel: Arc::from("smtp"),
        host: Arc::from(host),
        kind,
    }
}

#[test]
fn connections_are_opened_up_to_the_limit() {
    for limit in [1, 3, 50] {
        let mut scheduler = scheduler(0, rule(limit));
        let (thread, _) = owned(&mut scheduler);
        vertices(&mut scheduler, thread, 1_000);
        assert_eq!(serve(&mut scheduler, at(1)).0, limit);
        assert_eq!(serve(&mut scheduler, at(2)).0, 0);
        scheduler.connection_closed(at(3), thread, true, ConnectionEnd::Clean);
        assert_eq!(serve(&mut scheduler, at(3)).0, 1);
    }
}

#[test]
fn a_full_share_is_lent_when_connections_have_left_for_it() {
    let mut scheduler = scheduler(0, rule(10));
    let (thread, host) = owned(&mut scheduler);
    vertices(&mut scheduler, thread, 1_000);
    assert_eq!(serve(&mut scheduler, at(1)).0, 10);
    assert!(!scheduler.release_surplus(thread), "nobody wants a slot");
    scheduler.lease(at(2), 1, word(&host, LeaseKind::Want));
    assert_eq!(serve(&mut scheduler, at(2)), (0, vec![]), "none is free");
    let leaving = (0..10)
        .filter(|_| scheduler.release_surplus(thread))
        .count();
    assert_eq!(leaving, 5, "half of them leave");
    for closed in 1..=5 {
        scheduler.connection_closed(at(3), thread, true, ConnectionEnd::Clean);
        let (opened, said) = serve(&mut scheduler, at(3));
        assert_eq!(opened, 0, "the rest stays promised");
        let lent = if closed == 5 {
            vec![LeaseKind::Lend { slots: 5 }]
        } else {
            vec![]
        };
        assert_eq!(said, lent, "after {closed} closed");
    }
    scheduler.connection_closed(at(4), thread, true, ConnectionEnd::Clean);
    assert_eq!(
        serve(&mut scheduler, at(4)).0,
        1,
        "its own five stay in use"
    );
    scheduler.lease(at(5), 1, word(&host, LeaseKind::GiveBack { slots: 5 }));
    assert_eq!(serve(&mut scheduler, at(5)).0, 5, "back, and used");
}

#[test]
fn too_few_slots_to_share_are_never_lent() {
    let mut scheduler = scheduler(0, rule(1));
    let (thread, host) = owned(&mut scheduler);
    scheduler.lease(at(1), 1, word(&host, LeaseKind::Want));
    assert_eq!(serve(&mut scheduler, at(1)), (0, vec![]));
    vertices(&mut scheduler, thread, 5);
    assert_eq!(serve(&mut scheduler, at(2)).0, 1);
    assert!(!scheduler.release_surplus(thread));
}

#[test]
fn a_vertex_waits_for_its_time_and_expires_after_its_last_attempt() {
    let mut scheduler = scheduler(0, rule(5));
    let (thread, _) = owned(&mut scheduler);
    vertices(&mut scheduler, thread, 1);
    serve(&mut scheduler, at(1));
    let (mut now, mut waits, mut expired) = (at(1), Vec::new(), false);
    while !expired {
        let (vertex, _) = scheduler.take(now, thread).expect("its time has come");
        let reply = b"451 later".to_vec();
        match scheduler.report(now, vertex, Verdict::Deferred { reply }) {
            Reported::Retry { due_ms, .. } => {
                waits.push(due_ms - now.wall_ms);
                serve(&mut scheduler, at(due_ms - 1));
                assert_eq!(scheduler.take(at(due_ms - 1), thread), None, "too early");
                now = at(due_ms);
                serve(&mut scheduler, now);
            }
            Reported::Expired => expired = true,
            Reported::Finished => panic!("deferred is not finished"),
        }
    }
    assert!((900..=1100).contains(&waits[0]), "{waits:?}");
    let last = waits.len() - 1;
    for wait in &waits[1..last] {
        assert!((4_500..=5_500).contains(wait), "{waits:?}");
    }
    assert_eq!(now.wall_ms, 60_000, "the last attempt is at the expiry");
    assert_eq!(scheduler.counts().vertices, 0);
}

#[test]
fn a_host_that_refuses_is_probed_by_one_connection() {
    let mut scheduler = scheduler(0, rule(20));
    let (thread, _) = owned(&mut scheduler);
    vertices(&mut scheduler, thread, 100);
    let fail = |scheduler: &mut Scheduler, now| {
        let reply = b"451 refused".to_vec();
        scheduler.connection_closed(now, thread, false, ConnectionEnd::Failed { reply });
    };
    let open = |scheduler: &mut Scheduler, now| {
        let mut opened = 0;
        while let Some(action) = scheduler.poll(now) {
            opened += u32::from(matches!(action, Action::Open { .. }));
        }
        opened
    };
    let first = open(&mut scheduler, at(1));
    assert!(first >= 1);
    for _ in 0..first {
        fail(&mut scheduler, at(2));
    }
    assert_eq!(open(&mut scheduler, at(3)), 0, "suspended");
    let mut now = 3;
    for _ in 0..3 {
        now += 10_000;
        assert_eq!(open(&mut scheduler, at(now)), 1, "one probe");
        assert_eq!(open(&mut scheduler, at(now + 1)), 0);
        fail(&mut scheduler, at(now + 2));
    }
    now += 10_000;
    assert_eq!(open(&mut scheduler, at(now)), 1);
    scheduler.connection_ready(at(now + 1), thread);
    assert!(
        open(&mut scheduler, at(now + 1)) > 1,
        "healthy: the others follow"
    );
}

#[test]
fn entries_of_finished_vertices_do_not_pile_up() {
    let mut scheduler = scheduler(0, rule(5));
    let (thread, _) = owned(&mut scheduler);
    for _ in 0..50_000 {
        vertices(&mut scheduler, thread, 1);
        serve(&mut scheduler, at(1));
        let (vertex, _) = scheduler.take(at(1), thread).expect("it waits");
        scheduler.report(at(1), vertex, Verdict::Finished);
    }
    assert!(
        scheduler.expiries.len() <= ENTRIES_MIN,
        "{}",
        scheduler.expiries.len()
    );
}

/// A next hop that takes fewer connections than we may open: those it takes go on, and it is not taken
/// for one that is down.
#[test]
fn surplus_connections_that_fail_do_not_stop_the_others() {
    let mut scheduler = scheduler(0, rule(8));
    let (thread, _) = owned(&mut scheduler);
    vertices(&mut scheduler, thread, 100);
    let mut opened = 0;
    while let Some(action) = scheduler.poll(at(1)) {
        opened += u32::from(matches!(action, Action::Open { .. }));
    }
    assert_eq!(opened, 8);
    let failed = || ConnectionEnd::Failed {
        reply: b"421 too many".to_vec(),
    };
    // Before any is ready, and after one is.
    scheduler.connection_closed(at(2), thread, false, failed());
    scheduler.connection_ready(at(2), thread);
    for _ in 0..6 {
        scheduler.connection_closed(at(3), thread, false, failed());
    }
    assert!(scheduler.take(at(3), thread).is_some(), "one serves");
    assert_eq!(serve(&mut scheduler, at(3)).0, 0, "no more are tried now");
    assert_eq!(serve(&mut scheduler, at(500)).0, 0, "nor soon");
    assert_eq!(serve(&mut scheduler, at(1_100)).0, 7, "but later");
    // Those that serve end while the others are kept waiting: what is left does not wait with them.
    scheduler.connection_closed(at(1_200), thread, true, failed());
    for _ in 0..7 {
        scheduler.connection_closed(at(1_200), thread, true, ConnectionEnd::Clean);
    }
    assert!(serve(&mut scheduler, at(1_200)).0 > 0, "somebody tries");
}

#[test]
fn the_last_connection_to_fail_suspends_the_thread() {
    let mut scheduler = scheduler(0, rule(2));
    let (thread, _) = owned(&mut scheduler);
    vertices(&mut scheduler, thread, 10);
    while scheduler.poll(at(1)).is_some() {}
    for _ in 0..2 {
        let reply = b"421 no".to_vec();
        scheduler.connection_closed(at(2), thread, false, ConnectionEnd::Failed { reply });
    }
    assert_eq!(scheduler.take(at(2), thread), None);
    assert_eq!(scheduler.thread_state(thread).0, 1);
}
