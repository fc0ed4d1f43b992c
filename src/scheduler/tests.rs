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

/// An operator ends a suspension early on the shard that owns the next hop: what others were told of it
/// before must not hold them up until the time they know.
#[test]
fn who_heard_of_a_suspension_hears_of_its_end() {
    let mut owner = scheduler(0, rule(4));
    let (thread, host) = owned(&mut owner);
    owner.insert_guest(at(1), thread, 1, 1);
    while owner.poll(at(1)).is_some() {}
    let reply = b"451 refused".to_vec();
    owner.connection_closed(at(2), thread, false, ConnectionEnd::Failed { reply });
    let (_, said) = serve(&mut owner, at(2));
    let mut other = scheduler(1, rule(4));
    let there = other.thread("smtp", &host);
    vertices(&mut other, there, 1);
    for kind in said {
        other.lease(at(2), 0, word(&host, kind));
    }
    other.credits(0, 8);
    while let Some(action) = other.poll(at(500)) {
        assert!(!matches!(action, Action::Forward { .. }), "it is suspended");
    }
    vertices(&mut owner, thread, 1);
    owner.resume(at(500), thread);
    let (opened, said) = serve(&mut owner, at(500));
    assert!(opened > 0);
    for kind in said {
        other.lease(at(500), 0, word(&host, kind));
    }
    let forwards = |action: &Action| matches!(action, Action::Forward { .. });
    let mut actions = std::iter::from_fn(|| other.poll(at(600)));
    assert!(actions.any(|action| forwards(&action)));
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

/// Numbers that are to be woken, and how many connections are opened.
fn woken(scheduler: &mut Scheduler, now: Now) -> (Vec<u64>, usize) {
    let (mut numbers, mut opened) = (Vec::new(), 0);
    while let Some(action) = scheduler.poll(now) {
        match action {
            Action::Wake { message, .. } => numbers.push(message),
            Action::Open { .. } => opened += 1,
            _ => {}
        }
    }
    (numbers, opened)
}

fn fail_all(scheduler: &mut Scheduler, now: Now, thread: ThreadKey) {
    for _ in 0..scheduler.counts().connections {
        let reply = b"451 refused".to_vec();
        scheduler.connection_closed(now, thread, false, ConnectionEnd::Failed { reply });
    }
}

#[test]
fn what_rests_is_woken_oldest_first_as_far_as_it_is_needed() {
    let mut scheduler = scheduler(0, rule(10));
    let (thread, _) = owned(&mut scheduler);
    for message in (0..1_000).rev() {
        scheduler.rest(message, None, &[thread]);
    }
    let (first, opened) = woken(&mut scheduler, at(1));
    let few = first.len() as u64;
    assert!((64..1_000).contains(&few), "{few}");
    assert_eq!((first, opened), ((0..few).collect(), 0));
    assert!(woken(&mut scheduler, at(2)).0.is_empty(), "under way");
    scheduler.wake_ended(thread);
    vertices(&mut scheduler, thread, 1);
    assert_eq!(woken(&mut scheduler, at(3)), (vec![], 1), "one is awake");
    scheduler.take(at(4), thread).expect("it waits");
    assert_eq!(woken(&mut scheduler, at(4)).0, [few], "one is under way");
    // A read that failed counts no more, either.
    scheduler.wake_ended(thread);
    assert_eq!(woken(&mut scheduler, at(5)).0, [few + 1]);
}

#[test]
fn one_message_is_woken_to_probe_a_thread_that_fails() {
    let mut scheduler = scheduler(0, rule(10));
    let (thread, _) = owned(&mut scheduler);
    vertices(&mut scheduler, thread, 1);
    serve_unready(&mut scheduler, at(1));
    fail_all(&mut scheduler, at(2), thread);
    let settled = std::iter::from_fn(|| scheduler.poll(at(2)))
        .any(|action| action == Action::Settle { thread });
    assert!(settled, "what waits may rest");
    let vertex = VertexKey(scheduler.vertices.keys().next().expect("it waits").0);
    assert_eq!(scheduler.repose(at(3), vertex, false), Repose::Slot);
    assert!(scheduler.withdraw(vertex));
    for message in 0..100 {
        scheduler.rest(message, None, &[thread]);
    }
    assert!(woken(&mut scheduler, at(10)).0.is_empty(), "suspended");
    assert!(scheduler.deadline().is_some_and(|at_ns| at_ns > 10 * MS));
    assert_eq!(woken(&mut scheduler, at(3_000)), (vec![0], 0));
    scheduler.wake_ended(thread);
    vertices(&mut scheduler, thread, 1);
    assert_eq!(woken(&mut scheduler, at(3_001)), (vec![], 1), "the probe");
    scheduler.take(at(3_002), thread).expect("it waits");
    scheduler.connection_ready(at(3_002), thread);
    assert!(woken(&mut scheduler, at(3_002)).0.len() >= 64, "healthy");
}

fn serve_unready(scheduler: &mut Scheduler, now: Now) {
    while scheduler.poll(now).is_some() {}
}

#[test]
fn a_time_comes_true_once_and_what_is_taken_out_never() {
    let mut scheduler = scheduler(0, rule(10));
    let (thread, _) = owned(&mut scheduler);
    scheduler.rest(5, Some(1_000), &[]);
    scheduler.rest(6, Some(2_000), &[thread]);
    scheduler.rest(7, Some(500), &[]);
    scheduler.unrest(7, Some(500), &[thread]);
    scheduler.unrest(6, Some(2_000), &[thread]);
    // Far apart, and at the same time.
    for (message, due_ms) in [(9, 1_000_000), (8, 1_000_000), (1 << 49, 40_000)] {
        scheduler.rest(message, Some(due_ms), &[]);
    }
    assert_eq!(scheduler.next_due(at(999)), None);
    while scheduler.poll(at(999)).is_some() {}
    assert_eq!(scheduler.deadline(), Some(at(1_000).mono_ns));
    assert_eq!(scheduler.next_due(at(1_000)), Some(5));
    assert_eq!(scheduler.next_due(at(39_999)), None, "nothing is left over");
    assert_eq!(scheduler.next_due(at(40_000)), Some(1 << 49));
    assert_eq!(scheduler.next_due(at(999_999)), None);
    let late = [(); 3].map(|()| scheduler.next_due(at(1_000_000)));
    assert_eq!(late, [Some(8), Some(9), None]);
    assert_eq!(scheduler.resting_count(thread), 0);
    assert!(scheduler.due.is_empty());
}

/// Work that rests keeps lent slots, and makes a shard want some.
#[test]
fn what_rests_is_work_for_the_lending_of_slots() {
    let mut scheduler = scheduler(1, rule(10));
    let (thread, host) = owned(&mut scheduler);
    for message in 0..500 {
        scheduler.rest(message, None, &[thread]);
    }
    let said = |scheduler: &mut Scheduler, now| {
        let mut said = Vec::new();
        let mut numbers = Vec::new();
        while let Some(action) = scheduler.poll(now) {
            match action {
                Action::Send { message, .. } => said.push(message.kind),
                Action::Wake { message, .. } => numbers.push(message),
                _ => {}
            }
        }
        (said, numbers.len())
    };
    assert_eq!(said(&mut scheduler, at(1)), (vec![LeaseKind::Want], 0));
    scheduler.credits(0, 5);
    let (_, count) = said(&mut scheduler, at(2));
    assert!(count > 0, "to be passed on");
    for _ in 0..count {
        scheduler.wake_ended(thread);
    }
    scheduler.lease(at(3), 0, word(&host, LeaseKind::Lend { slots: 5 }));
    let (words, count) = said(&mut scheduler, at(3));
    assert_eq!(words, [], "the slots are kept");
    assert!(count > 0, "and used");
}

#[test]
fn new_messages_do_not_go_past_many_that_rest() {
    let mut scheduler = scheduler(0, rule(1));
    let (thread, _) = owned(&mut scheduler);
    vertices(&mut scheduler, thread, 1_000);
    let last = |scheduler: &Scheduler| VertexKey(scheduler.vertices.keys().last().unwrap().0);
    let vertex = last(&scheduler);
    assert_eq!(scheduler.repose(at(1), vertex, true), Repose::Busy);
    scheduler.rest(5_000, None, &[thread]);
    assert_eq!(scheduler.repose(at(1), vertex, true), Repose::Slot);
    assert_eq!(scheduler.repose(at(1), vertex, false), Repose::Busy);
    vertices(&mut scheduler, thread, 10_000);
    assert_eq!(scheduler.repose(at(1), vertex, false), Repose::Slot);
}

/// Entries of vertices that rested again and again are dropped.
#[test]
fn entries_of_vertices_that_were_taken_out_do_not_pile_up() {
    let mut scheduler = scheduler(0, rule(5));
    let (thread, _) = owned(&mut scheduler);
    for payload in 0..50_000_u64 {
        for due_ms in [0, 1_000_000] {
            let vertex = Vertex {
                payload,
                arrival_ms: 0,
                attempt: 1,
                due_ms,
            };
            let vertex = scheduler.insert(at(1), thread, vertex);
            assert!(scheduler.withdraw(vertex));
        }
    }
    let waiting = scheduler.threads[thread.0 as usize].waiting.len();
    assert!(waiting <= 100, "{waiting}");
    assert!(scheduler.agenda.len() <= ENTRIES_MIN);
}
