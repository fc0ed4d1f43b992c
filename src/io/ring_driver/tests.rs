//! The driver's rules, each on the real kernel over loopback.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use spool::buffer::AlignedBuf;
use spool::op::{FileId, Op, Request, Token};

use super::*;

/// Longest wait for anything, so that a failure is an error and not a hang.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    driver: RingDriver,
    doorbells: Arc<Doorbells>,
    address: SocketAddr,
    events: Vec<Event>,
    _dir: tempfile::TempDir,
}

fn bench(listen: &str, tweak: impl FnOnce(&mut RingConfig)) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind(listen).unwrap();
    let address = listener.local_addr().unwrap();
    let doorbells = Arc::new(Doorbells::new(1).unwrap());
    let mut config = RingConfig {
        shard: 0,
        spool_dir: dir.path().to_owned(),
        log_file: None,
        listeners: vec![listener],
        doorbells: Arc::clone(&doorbells),
        ring_entries: 64,
        completion_entries: 256,
        receive_buffers: 16,
        receive_buffer_bytes: 4096,
        sessions_max: 1000,
        durability: Durability::Sync,
    };
    tweak(&mut config);
    Bench {
        driver: RingDriver::new(config).unwrap(),
        doorbells,
        address,
        events: Vec::new(),
        _dir: dir,
    }
}

impl Bench {
    fn poll(&mut self) -> Vec<Event> {
        let deadline = self.driver.now().after_ns(10_000_000);
        self.driver.poll(Some(deadline), &mut self.events);
        std::mem::take(&mut self.events)
    }

    /// Polls until `step` says that it has seen what it wants.
    fn until(&mut self, what: &str, mut step: impl FnMut(&mut RingDriver, Event) -> bool) {
        let start = std::time::Instant::now();
        while start.elapsed() < PATIENCE {
            let mut done = false;
            for event in self.poll() {
                done |= step(&mut self.driver, event);
            }
            if done {
                return;
            }
        }
        panic!("{what} does not happen");
    }

    fn accept(&mut self) -> (Socket, SocketAddr) {
        let mut found = None;
        self.until("accepting", |_, event| {
            if let Event::Accepted { socket, peer, .. } = event {
                found = Some((socket, peer));
            }
            found.is_some()
        });
        found.unwrap()
    }

    /// A client and the driver's socket for it.
    fn pair(&mut self) -> (TcpStream, Socket) {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = self.accept();
        (client, socket)
    }
}

/// Bytes that show where they belong.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at * 31 + at / 251 + seed * 7) as u8)
        .collect()
}

fn push(driver: &mut RingDriver, into: &mut Vec<u8>, chunk: Chunk) {
    into.extend_from_slice(driver.bytes(&chunk));
    driver.recycle(chunk);
}

#[test]
fn the_peer_is_known_and_a_mapped_address_is_ipv4() {
    for (listen, client) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("[::1]:0", "::1"),
        ("[::]:0", "127.0.0.1"),
    ] {
        let mut bench = bench(listen, |_| {});
        let address = SocketAddr::new(client.parse().unwrap(), bench.address.port());
        let stream = TcpStream::connect(address).unwrap();
        let (_, peer) = bench.accept();
        assert_eq!(peer, stream.local_addr().unwrap(), "listening on {listen}");
    }
}

#[test]
fn a_paused_socket_is_not_read_and_loses_nothing() {
    let mut bench = bench("127.0.0.1:0", |_| {});
    let (mut client, socket) = bench.pair();
    bench.driver.receive(socket, true);
    client.write_all(b"first").unwrap();
    let mut got = Vec::new();
    bench.until("the first bytes", |driver, event| {
        if let Event::Received { chunk, .. } = event {
            push(driver, &mut got, chunk);
        }
        got == b"first"
    });
    bench.driver.receive(socket, false);
    // The client writes until nothing is taken any more, while the driver runs.
    let sent = pattern(1, 64 << 20);
    client.set_nonblocking(true).unwrap();
    let (mut at, mut refused) = (0, 0);
    while refused < 20 {
        match client.write(&sent[at..]) {
            Ok(written) => (at, refused) = (at + written, 0),
            Err(_) => refused += 1,
        }
        let events = bench.poll();
        assert!(events.is_empty(), "a paused socket says {events:?}");
    }
    assert!(at < sent.len(), "somebody read 64 MiB from a paused socket");
    bench.driver.receive(socket, true);
    client.shutdown(std::net::Shutdown::Write).unwrap();
    got.clear();
    bench.until("the end", |driver, event| match event {
        Event::Received { chunk, .. } => {
            push(driver, &mut got, chunk);
            false
        }
        Event::Ended { result, .. } => {
            assert_eq!(result, Ok(()));
            true
        }
        _ => false,
    });
    assert!(
        got == sent[..at],
        "{} of {at} bytes, or out of order",
        got.len()
    );
}

/// Many clients send at once; everything arrives in order. Chunks are kept back for a while, so that
/// the pool runs dry.
fn crowd(clients: usize, bytes: usize, keep: usize, tweak: impl FnOnce(&mut RingConfig)) {
    let mut bench = bench("127.0.0.1:0", tweak);
    let address = bench.address;
    let senders = std::thread::spawn(move || {
        let mut streams: Vec<TcpStream> = Vec::new();
        for _ in 0..clients {
            streams.push(TcpStream::connect(address).unwrap());
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            let mut sent = (number as u32).to_le_bytes().to_vec();
            sent.extend(pattern(number, bytes));
            stream.write_all(&sent).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        streams
    });
    let mut got: HashMap<Socket, Vec<u8>> = HashMap::new();
    let (mut ended, mut kept) = (0, VecDeque::new());
    let mut starved = false;
    bench.until("the end of all", |driver, event| {
        match event {
            Event::Accepted { socket, .. } => driver.receive(socket, true),
            Event::Received { socket, chunk } => kept.push_back((socket, chunk)),
            Event::Ended { .. } => ended += 1,
            _ => {}
        }
        starved |= !driver.starved.is_empty();
        while kept.len() > keep {
            let Some((socket, chunk)) = kept.pop_front() else {
                break;
            };
            push(driver, got.entry(socket).or_default(), chunk);
        }
        ended == clients
    });
    for (socket, chunk) in kept {
        push(&mut bench.driver, got.entry(socket).or_default(), chunk);
    }
    assert_eq!(got.len(), clients);
    for bytes_of in got.values() {
        let number = u32::from_le_bytes(bytes_of[..4].try_into().unwrap());
        assert!(
            bytes_of[4..] == pattern(number as usize, bytes),
            "of client {number}"
        );
    }
    assert_eq!(starved, keep > 0, "whether the pool ran dry");
    drop(senders.join().unwrap());
}

#[test]
fn running_out_of_buffers_delays_and_loses_nothing() {
    crowd(40, 50_000, 6, |config| {
        config.receive_buffers = 8;
        config.receive_buffer_bytes = 1024;
    });
}

#[test]
fn a_small_completion_queue_loses_nothing() {
    crowd(300, 2_000, 0, |config| {
        config.ring_entries = 32;
        config.completion_entries = 64;
        config.receive_buffers = 1024;
    });
}

#[test]
fn a_long_send_goes_out_whole_and_in_order() {
    let mut bench = bench("127.0.0.1:0", |_| {});
    let (mut client, socket) = bench.pair();
    let sent = pattern(3, 32 << 20);
    bench.driver.send(socket, sent.clone());
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; 32 << 20];
        client.read_exact(&mut got).map(|()| got)
    });
    bench.until("the end of the send", |_, event| match event {
        Event::Sent { result, buf, .. } => {
            assert_eq!(
                (result, buf.len()),
                (Ok(()), 0),
                "and the buffer comes back empty"
            );
            true
        }
        _ => false,
    });
    assert!(reader.join().unwrap().unwrap() == sent);
}

#[test]
fn closing_ends_what_is_in_flight_and_the_descriptor() {
    let mut bench = bench("127.0.0.1:0", |_| {});
    let (mut client, old) = bench.pair();
    bench.driver.receive(old, true);
    // Nobody reads: the send stays in flight.
    bench.driver.send(old, vec![b'x'; 64 << 20]);
    bench.poll();
    bench.driver.close(old);
    bench.until("closed", |_, event| match event {
        Event::Closed { socket } => socket == old,
        Event::Sent { .. } | Event::Received { .. } => panic!("said after close: {event:?}"),
        _ => false,
    });
    let mut rest = Vec::new();
    // An end or a reset, but not a wait: the descriptor is closed.
    let end = client.read_to_end(&mut rest);
    assert!(end.is_ok() || end.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock));

    let (mut next_client, new) = bench.pair();
    assert_ne!(old, new, "a name is not used again");
    bench.driver.receive(new, true);
    next_client.write_all(b"hello").unwrap();
    let mut got = Vec::new();
    bench.until("bytes for the new socket", |driver, event| {
        if let Event::Received { socket, chunk } = event {
            assert_eq!(socket, new);
            push(driver, &mut got, chunk);
        }
        got == b"hello"
    });
}

#[test]
fn connecting_in_flight_is_cancelled_by_close() {
    let mut bench = bench("127.0.0.1:0", |_| {});
    // A full backlog of one: further connects hang.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    full.bind(&any.into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let sockets: Vec<Socket> = (0..8).map(|_| bench.driver.connect(address)).collect();
    for _ in 0..3 {
        bench.poll();
    }
    for socket in &sockets {
        bench.driver.close(*socket);
    }
    let mut closed = Vec::new();
    bench.until("all are closed", |_, event| {
        if let Event::Closed { socket } = event {
            closed.push(socket);
        }
        closed.len() == sockets.len()
    });
}

#[test]
fn a_refused_connect_says_why() {
    let mut bench = bench("127.0.0.1:0", |_| {});
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let socket = bench.driver.connect(address);
    bench.until("a refusal", |_, event| match event {
        Event::Connected { socket: of, result } => {
            assert_eq!((of, result), (socket, Err(libc::ECONNREFUSED)));
            true
        }
        _ => false,
    });
}

#[test]
fn a_doorbell_ends_the_wait_and_is_not_lost_before_it() {
    let mut bench = bench("127.0.0.1:0", |_| {});
    let woken = |bench: &mut Bench| {
        // Longer than the patience of a test run: only the bell ends it.
        let deadline = bench.driver.now().after_ns(600_000_000_000);
        bench.driver.poll(Some(deadline), &mut bench.events);
        std::mem::take(&mut bench.events)
            .iter()
            .any(|event| matches!(event, Event::Woken))
    };
    bench.doorbells.ring_from_outside(0);
    assert!(woken(&mut bench), "rung before the wait");
    for _ in 0..100 {
        let doorbells = Arc::clone(&bench.doorbells);
        let ringer = std::thread::spawn(move || doorbells.ring_from_outside(0));
        let mut polls = 0;
        while !woken(&mut bench) {
            polls += 1;
            assert!(polls < 10, "woken by something else");
        }
        ringer.join().unwrap();
    }
}

#[test]
fn sessions_beyond_the_limit_wait_until_one_ends() {
    let mut bench = bench("127.0.0.1:0", |config| config.sessions_max = 2);
    let clients: Vec<TcpStream> = (0..5)
        .map(|_| TcpStream::connect(bench.address).unwrap())
        .collect();
    let mut open = Vec::new();
    let mut most = 0;
    let mut served = 0;
    bench.until("all are served", |driver, event| {
        match event {
            Event::Accepted { socket, .. } => {
                open.push(socket);
                served += 1;
            }
            Event::Closed { .. } => {}
            _ => return false,
        }
        most = most.max(open.len());
        // A cancelled multishot accept may bring what was on its way already.
        if open.len() >= 2 || served == 5 {
            driver.close(open.remove(0));
        }
        served == 5
    });
    assert!(most <= 5 && served == clients.len());
}

fn disk(bench: &mut Bench, token: u64, op: Op) -> spool::op::Completion {
    let token = Token(token);
    bench.driver.disk(Request { token, op });
    let mut found = None;
    bench.until("a disk answer", |_, event| {
        if let Event::Disk(done) = event {
            assert_eq!(done.token, token);
            found = Some(done);
        }
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn disk_requests_reach_the_disk() {
    let mut bench = bench("127.0.0.1:0", |_| {});
    let file = FileId::Segment(3);
    let answer = disk(&mut bench, 1, Op::Open { file });
    assert_eq!(answer.result, Err(libc::ENOENT));
    assert_eq!(disk(&mut bench, 2, Op::Create { file }).result, Ok(0));
    let mut buf = AlignedBuf::zeroed(8192);
    buf.copy_from_slice(&pattern(9, 8192));
    let write = Op::Write {
        file,
        offset: 4096,
        buf,
        durable: true,
    };
    let answer = disk(&mut bench, 3, write);
    assert_eq!(answer.result, Ok(8192));
    assert_eq!(answer.buf.unwrap().len(), 8192, "the buffer comes back");
    let read = Op::Read {
        file,
        offset: 4096,
        buf: AlignedBuf::zeroed(8192),
    };
    let answer = disk(&mut bench, 4, read);
    assert_eq!(answer.result, Ok(8192));
    assert_eq!(answer.buf.unwrap()[..], pattern(9, 8192)[..]);
    assert_eq!(disk(&mut bench, 5, Op::SyncFile { file }).result, Ok(0));
    assert_eq!(disk(&mut bench, 6, Op::SyncDir).result, Ok(0));
    assert_eq!(disk(&mut bench, 7, Op::List).files, [file]);
    assert_eq!(disk(&mut bench, 8, Op::Remove { file }).result, Ok(0));
    assert_eq!(disk(&mut bench, 9, Op::List).files, []);
}
