//! The driver contract, as the simulated driver keeps it.

use std::collections::BTreeSet;

use spool::buffer::AlignedBuf;
use spool::op::{FileId, Op, Token};

use super::*;

const EPIPE: i32 = 32;
const ECONNREFUSED: i32 = 111;
const SECOND_NS: u64 = 1_000_000_000;

fn peer() -> SocketAddr {
    "198.51.100.7:4711".parse().unwrap()
}

fn server() -> SocketAddr {
    "203.0.113.9:25".parse().unwrap()
}

/// A world with shard 0.
fn world(seed: u64) -> (SimNet, SimDriver) {
    let net = SimNet::new(seed);
    let driver = net.driver(0, SimDisk::new(seed));
    (net, driver)
}

/// Polls until `found` says so about an event or the state of the world, for 10 s at most.
fn poll_until(driver: &mut SimDriver, mut found: impl FnMut(&[Event]) -> bool) -> Vec<Event> {
    let end = driver.now().after_ns(10 * SECOND_NS);
    let mut events = Vec::new();
    while !found(&events) {
        assert!(driver.now().mono_ns < end, "not within 10 s: {events:?}");
        driver.poll(Some(end), &mut events);
    }
    events
}

/// Polls for a second, whatever happens.
fn poll_second(driver: &mut SimDriver) -> Vec<Event> {
    let end = driver.now().after_ns(SECOND_NS);
    let mut events = Vec::new();
    while driver.now().mono_ns < end {
        driver.poll(Some(end), &mut events);
    }
    events
}

/// A client's connection, accepted.
fn accepted(net: &SimNet, driver: &mut SimDriver) -> (ClientId, Socket) {
    let client = net.connect_client(0, 0, peer());
    let events = poll_until(driver, |events| !events.is_empty());
    match events[..] {
        [
            Event::Accepted {
                socket,
                listener: 0,
                peer: seen,
                local,
            },
        ] => {
            assert_eq!(seen, peer());
            assert_eq!(local.to_string(), "192.0.2.1:25");
            (client, socket)
        }
        _ => panic!("{events:?}"),
    }
}

fn received(events: &[Event]) -> Vec<u8> {
    let chunk = |event: &Event| match event {
        Event::Received {
            chunk: Chunk::Owned(bytes),
            ..
        } => Some(bytes.clone()),
        _ => None,
    };
    events.iter().filter_map(chunk).flatten().collect()
}

fn ended(events: &[Event]) -> Option<Result<(), i32>> {
    events.iter().find_map(|event| match event {
        Event::Ended { result, .. } => Some(*result),
        _ => None,
    })
}

fn sent(events: &[Event]) -> Option<Result<(), i32>> {
    events.iter().find_map(|event| match event {
        Event::Sent { result, buf, .. } => {
            assert!(buf.is_empty(), "the buffer comes back cleared");
            Some(*result)
        }
        _ => None,
    })
}

/// Bytes of which no two neighbouring stretches are alike.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8)) as u8).collect()
}

#[test]
fn bytes_arrive_in_order_in_different_fragments() {
    let mut shapes = BTreeSet::new();
    for seed in 0..30 {
        let (net, mut driver) = world(seed);
        let (client, socket) = accepted(&net, &mut driver);
        driver.receive(socket, true);
        net.client_send(client, &pattern(3000));
        net.client_send(client, &pattern(17));
        net.client_finish(client);
        let events = poll_until(&mut driver, |events| ended(events).is_some());
        assert_eq!(
            received(&events),
            [pattern(3000), pattern(17)].concat(),
            "seed {seed}"
        );
        assert!(matches!(
            events.last(),
            Some(Event::Ended { result: Ok(()), .. })
        ));
        shapes.insert(events.len());
        driver.send(socket, pattern(5000));
        let mut back = Vec::new();
        poll_until(&mut driver, |_| {
            back.extend(net.client_received(client));
            back.len() >= 5000
        });
        assert_eq!(back, pattern(5000), "seed {seed}");
    }
    assert!(shapes.len() > 10, "many ways to cut: {shapes:?}");
}

#[test]
fn receiving_off_holds_everything_in_order() {
    let (net, mut driver) = world(1);
    let (client, socket) = accepted(&net, &mut driver);
    net.client_send(client, b"before any receive ");
    assert!(
        poll_second(&mut driver).is_empty(),
        "receiving is off after accept"
    );
    driver.receive(socket, true);
    driver.receive(socket, false);
    net.client_send(client, b"and more");
    net.client_finish(client);
    assert!(poll_second(&mut driver).is_empty());
    driver.receive(socket, true);
    let events = poll_until(&mut driver, |events| ended(events).is_some());
    assert_eq!(received(&events), b"before any receive and more");
    net.client_reset(client);
    assert!(poll_second(&mut driver).is_empty(), "the end comes once");
}

#[test]
fn connecting_succeeds_fails_or_stays_without_answer() {
    let (net, mut driver) = world(1);
    net.listen(server());
    let socket = driver.connect(server());
    let events = poll_until(&mut driver, |events| !events.is_empty());
    assert!(
        matches!(events[..], [Event::Connected { socket: seen, result: Ok(()) }] if seen == socket),
        "{events:?}"
    );
    let far = net.accept(server()).unwrap();
    assert_eq!(net.accept(server()), None);
    driver.receive(socket, true);
    net.client_send(far, b"220 ready\r\n");
    driver.send(socket, b"EHLO\r\n".to_vec());
    let events = poll_second(&mut driver);
    assert_eq!(
        (received(&events), sent(&events)),
        (b"220 ready\r\n".to_vec(), Some(Ok(())))
    );
    assert_eq!(net.client_received(far), b"EHLO\r\n");

    for (errno, arrange) in [
        (ECONNREFUSED, SimNet::unlisten as fn(&SimNet, SocketAddr)),
        {
            fn unreachable(net: &SimNet, address: SocketAddr) {
                net.fail_connect(address, 113);
            }
            (113, unreachable)
        },
    ] {
        arrange(&net, server());
        let socket = driver.connect(server());
        let events = poll_second(&mut driver);
        assert!(
            matches!(events[..], [Event::Connected { result: Err(seen), .. }] if seen == errno),
            "{events:?}"
        );
        driver.close(socket);
        assert!(poll_second(&mut driver).is_empty(), "it is closed already");
    }

    net.mute(server());
    let socket = driver.connect(server());
    assert!(poll_second(&mut driver).is_empty());
    driver.close(socket);
    let events = poll_second(&mut driver);
    assert!(matches!(events[..], [Event::Closed { .. }]), "{events:?}");
    assert_eq!(net.sockets_open(0), 1);
}

#[test]
fn a_reset_ends_both_directions_behind_what_was_sent() {
    let (net, mut driver) = world(1);
    let (client, socket) = accepted(&net, &mut driver);
    driver.receive(socket, true);
    net.client_send(client, b"half a li");
    net.client_reset(client);
    let events = poll_second(&mut driver);
    assert_eq!(
        (received(&events), ended(&events)),
        (b"half a li".to_vec(), Some(Err(ECONNRESET)))
    );
    driver.send(socket, b"221".to_vec());
    assert_eq!(sent(&poll_second(&mut driver)), Some(Err(ECONNRESET)));
}

#[test]
fn after_a_close_of_the_far_end_one_send_succeeds_and_the_next_fails() {
    let (net, mut driver) = world(1);
    let (client, socket) = accepted(&net, &mut driver);
    driver.receive(socket, true);
    net.client_close(client);
    assert_eq!(ended(&poll_second(&mut driver)), Some(Ok(())));
    for expected in [Ok(()), Err(EPIPE)] {
        driver.send(socket, b"421".to_vec());
        let events = poll_second(&mut driver);
        // The answer may overtake the report of the first send.
        assert!(sent(&events) == Some(expected) || sent(&events) == Some(Err(EPIPE)));
    }
    assert!(net.client_received(client).is_empty());
}

#[test]
fn a_close_cancels_what_is_in_flight() {
    let mut reported = BTreeSet::new();
    let mut lengths = BTreeSet::new();
    for seed in 0..60 {
        let (net, mut driver) = world(seed);
        let (client, socket) = accepted(&net, &mut driver);
        net.client_send(client, b"never read");
        driver.send(socket, pattern(2000));
        let mut events = Vec::new();
        for _ in 0..seed % 8 {
            driver.poll(None, &mut events);
        }
        driver.close(socket);
        events.extend(poll_second(&mut driver));
        assert!(
            matches!(events.last(), Some(Event::Closed { .. })),
            "seed {seed}: {events:?}"
        );
        assert!(
            events
                .iter()
                .filter(|event| matches!(event, Event::Sent { .. }))
                .count()
                < 2
        );
        reported.insert(sent(&events));
        let bytes = net.client_received(client);
        assert_eq!(bytes, pattern(2000)[..bytes.len()], "seed {seed}: a prefix");
        lengths.insert(bytes.len());
        assert!(net.client_ended(client).is_some());
        assert_eq!(net.sockets_open(0), 0);
    }
    assert_eq!(
        reported.len(),
        3,
        "reported as sent, as cancelled, and not at all: {reported:?}"
    );
    assert!(lengths.len() > 3, "{lengths:?}");
}

#[test]
fn a_close_is_a_reset_where_bytes_were_not_read() {
    for (sent, expected) in [(&b"unread"[..], Err(ECONNRESET)), (b"", Ok(()))] {
        let (net, mut driver) = world(1);
        let (client, socket) = accepted(&net, &mut driver);
        net.client_send(client, sent);
        poll_second(&mut driver);
        driver.close(socket);
        poll_second(&mut driver);
        assert_eq!(net.client_ended(client), Some(expected));
    }
}

#[test]
fn a_reader_that_stalls_delays_the_send_and_a_reset_ends_it() {
    let (net, mut driver) = world(1);
    let (client, socket) = accepted(&net, &mut driver);
    net.client_stall(client, true);
    driver.send(socket, b"one".to_vec());
    assert!(poll_second(&mut driver).is_empty());
    net.client_stall(client, false);
    net.client_stall(client, true);
    net.client_stall(client, false);
    assert_eq!(sent(&poll_second(&mut driver)), Some(Ok(())));
    assert_eq!(net.client_received(client), b"one", "once");
    net.client_stall(client, true);
    driver.send(socket, b"two".to_vec());
    assert!(poll_second(&mut driver).is_empty());
    net.client_reset(client);
    assert_eq!(sent(&poll_second(&mut driver)), Some(Err(ECONNRESET)));
}

#[test]
fn nobody_accepts_after_the_stop_and_a_dead_process_resets() {
    let (net, mut driver) = world(1);
    let (open, _) = accepted(&net, &mut driver);
    driver.stop_accepting();
    let late = net.connect_client(0, 0, peer());
    assert!(poll_second(&mut driver).is_empty());
    assert_eq!(net.client_ended(late), Some(Err(ECONNREFUSED)));
    let waits = net.connect_client(0, 0, peer());
    drop(driver);
    let mut driver = net.driver(0, SimDisk::new(2));
    let events = poll_second(&mut driver);
    assert!(
        matches!(events[..], [Event::Accepted { .. }]),
        "the next process: {events:?}"
    );
    assert_eq!(net.client_ended(open), Some(Err(ECONNRESET)));
    assert_eq!(net.client_ended(waits), None);
}

#[test]
fn a_poll_waits_until_its_deadline_and_not_past_that_of_another_shard() {
    let (net, mut driver) = world(1);
    let mut events = Vec::new();
    driver.poll(Some(5 * SECOND_NS), &mut events);
    assert_eq!(driver.now().mono_ns, 5 * SECOND_NS);
    assert_eq!(driver.now().wall_ms, WALL_START_MS + 4000);
    driver.poll(Some(SECOND_NS), &mut events);
    assert!(
        driver.now().mono_ns < 5 * SECOND_NS + 10_000,
        "a past deadline does not wait"
    );

    let mut other = net.driver(1, SimDisk::new(2));
    driver.poll(Some(9 * SECOND_NS), &mut events);
    assert!(
        driver.now().mono_ns < 6 * SECOND_NS,
        "the other had no turn yet"
    );
    other.poll(Some(7 * SECOND_NS), &mut events);
    driver.poll(Some(9 * SECOND_NS), &mut events);
    assert!((7 * SECOND_NS..8 * SECOND_NS).contains(&driver.now().mono_ns));
    driver.poll(Some(9 * SECOND_NS), &mut events);
    assert_eq!(
        driver.now().mono_ns,
        9 * SECOND_NS,
        "the other takes no turns any more"
    );
    assert!(events.is_empty());
    net.advance(SECOND_NS);
    assert_eq!(net.now().mono_ns, 10 * SECOND_NS);
}

#[test]
fn doorbells_are_coalesced_and_the_log_keeps_what_succeeded() {
    let (net, mut driver) = world(1);
    let mut other = net.driver(1, SimDisk::new(2));
    other.wake(0);
    other.wake(0);
    let events = poll_second(&mut driver);
    assert!(matches!(events[..], [Event::Woken]), "{events:?}");
    other.wake(0);
    let events = poll_second(&mut driver);
    assert!(
        matches!(events[..], [Event::Woken]),
        "it rings again: {events:?}"
    );
    driver.log(b"first\n".to_vec());
    let events = poll_second(&mut driver);
    assert!(matches!(&events[..], [Event::LogWritten { result: Ok(()), buf }] if buf.is_empty()));
    net.fail_log(0, Some(28));
    driver.log(b"second\n".to_vec());
    let events = poll_second(&mut driver);
    assert!(
        matches!(
            events[..],
            [Event::LogWritten {
                result: Err(28),
                ..
            }]
        ),
        "{events:?}"
    );
    assert_eq!(net.log(0), "first\n");
    drop(other);
    driver.wake(1);
    assert!(poll_second(&mut driver).is_empty(), "nobody hears it");
}

#[test]
#[should_panic(expected = "a second send in flight")]
fn a_second_send_in_flight_is_an_error_of_the_caller() {
    let (net, mut driver) = world(1);
    let (_, socket) = accepted(&net, &mut driver);
    driver.send(socket, b"one".to_vec());
    driver.send(socket, b"two".to_vec());
}

/// Two shards that echo, hand a doorbell on, write to disk and log, with clients that come and go.
fn busy_day(seed: u64) -> (u64, Vec<String>) {
    let net = SimNet::new(seed);
    let mut drivers = [
        net.driver(0, SimDisk::new(seed)),
        net.driver(1, SimDisk::new(seed + 1)),
    ];
    let file = FileId::Segment(1);
    let mut trace = Vec::new();
    for (at, driver) in drivers.iter_mut().enumerate() {
        driver.disk(Request {
            token: Token(0),
            op: Op::Create { file },
        });
        let clients = [0, 1].map(|listener| net.connect_client(at, listener, peer()));
        net.client_send(clients[0], &pattern(300));
        net.client_send(clients[1], &pattern(90));
        net.client_reset(clients[1]);
    }
    let mut events = Vec::new();
    for turn in 0..400_u64 {
        let shard = turn as usize % 2;
        let driver = &mut drivers[shard];
        let deadline = driver.now().after_ns(250_000_000);
        driver.poll(Some(deadline), &mut events);
        for event in events.drain(..) {
            let now = driver.now().mono_ns;
            match event {
                Event::Disk(done) => {
                    trace.push(format!("{now} {shard} {:?} {:?}", done.token, done.result));
                    let op = match turn % 3 {
                        0 => Op::SyncFile { file },
                        _ => Op::Write {
                            file,
                            offset: 0,
                            buf: AlignedBuf::zeroed(4096),
                            durable: true,
                        },
                    };
                    driver.disk(Request {
                        token: Token(turn),
                        op,
                    });
                }
                event => {
                    trace.push(format!("{now} {shard} {event:?}"));
                    react(driver, 1 - shard, event);
                }
            }
        }
    }
    (net.digest(), trace)
}

fn react(driver: &mut SimDriver, other: usize, event: Event) {
    match event {
        Event::Accepted { socket, .. } => driver.receive(socket, true),
        Event::Received { socket, chunk } => {
            // One send in flight: the rest waits in the kernel.
            driver.receive(socket, false);
            let bytes = driver.bytes(&chunk).to_vec();
            driver.recycle(chunk);
            driver.wake(other);
            if driver.with_link(socket, |world, id| world.links[&id].sending.is_none()) {
                driver.send(socket, bytes);
            }
        }
        Event::Sent {
            socket,
            result: Ok(()),
            ..
        } => driver.receive(socket, true),
        Event::Sent { socket, .. } => driver.close(socket),
        Event::Woken => {
            driver.connect(server());
        }
        _ => {}
    }
}

#[test]
fn a_seed_decides_every_event_and_its_time() {
    for seed in 0..10 {
        let (digest, trace) = busy_day(seed);
        assert!(trace.len() > 100, "seed {seed}: {} events", trace.len());
        assert_eq!(
            (digest, &trace),
            (busy_day(seed).0, &busy_day(seed).1),
            "seed {seed}"
        );
        assert_ne!(digest, busy_day(seed + 100).0, "seed {seed}");
    }
}
