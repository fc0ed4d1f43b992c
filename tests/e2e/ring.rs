//! The ring's rules as a client sees them.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, Setup, free_address, scratch_dir};
use crate::harness::hop::Hop;
use crate::harness::mount::Mount;
use crate::harness::wait_for;

const LETTER: &str = "Subject: hello\r\n\r\ntext\r\n";

#[test]
fn a_client_is_judged_by_its_ipv4_address_however_it_is_written() {
    let hop = Hop::start();
    let port = free_address().port();
    let listen = format!("listen = [\"127.0.0.1:{port}\", \"[::]:{port}\"]");
    let mut setup = Setup::relay_to(hop.address)
        .with("smtpserver", listen)
        .with("smtpserver", "trusted_networks = [\"127.0.0.1/32\"]");
    setup.address = SocketAddr::from(([127, 0, 0, 1], port));
    let daemon = setup.start();
    let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{port}").parse().unwrap();
    for inside in [daemon.address, mapped] {
        Client::submit(inside, "a@a.example", &["b@b.example"], LETTER);
    }
    for mail in hop.wait_for_mails(2) {
        let content = String::from_utf8_lossy(&mail.content).into_owned();
        assert!(content.contains("([127.0.0.1])"), "{content}");
    }
    let outside = [
        ("::1", format!("[::1]:{port}")),
        ("127.0.0.2", daemon.address.to_string()),
        ("::ffff:127.0.0.2", mapped.to_string()),
    ];
    for (from, to) in outside {
        let mut client = Client::connect_from(from.parse().unwrap(), to.parse().unwrap());
        client.hello();
        client.expect("MAIL FROM:<a@a.example>", "250");
        client.expect("RCPT TO:<b@b.example>", "550 5.7.1");
    }
}

/// Processor time of a process in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let behind = text.rsplit(") ").next().unwrap();
    let mut fields = behind.split(' ').skip(11);
    let mut next = || fields.next().unwrap().parse::<u64>().unwrap();
    next() + next()
}

/// Sets the soft limit of open files of a running process.
fn limit_files(pid: u32, limit: &str) -> bool {
    let words = ["--pid", &pid.to_string(), &format!("--nofile={limit}:")];
    let status = Command::new("prlimit").args(words).status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn without_descriptors_clients_wait_and_nobody_spins() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).shards(1).start();
    wait_for("all segments", || {
        (daemon.status()["spool"]["free_segments"].as_u64() >= Some(3)).then_some(())
    });
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
        .unwrap()
        .count();
    if !limit_files(daemon.pid(), &(open + 10).to_string()) {
        crate::harness::skip("no prlimit; running out of descriptors is not tested");
        return;
    }
    let mut crowd: Vec<Client> = (0..60)
        .map(|_| Client::connect_silently(daemon.address))
        .collect();
    for client in &mut crowd[..5] {
        assert!(client.reply().starts_with("220"));
    }
    let before = ticks(daemon.pid());
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(2));
    let used = ticks(daemon.pid()) - before;
    let spinning = start.elapsed().as_millis() as u64 / 10;
    assert!(
        used < spinning / 2,
        "{used} of {spinning} ticks while nothing happens"
    );
    // Those that hold a descriptor go, those that waited are served.
    drop(crowd.drain(..30));
    limit_files(daemon.pid(), "4096");
    for client in &mut crowd {
        let greeting = client.reply();
        assert!(
            greeting.starts_with("220"),
            "a client that waited: {greeting}"
        );
    }
    Client::submit(daemon.address, "a@a.example", &["b@b.example"], LETTER);
    hop.wait_for_mails(1);
}

fn rss_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

/// 1 GiB in messages of 8 MiB over one connection, as fast as it is taken.
fn stream(address: SocketAddr) {
    let line = format!("{}\r\n", "x".repeat(1022));
    let content = format!("Subject: stream\r\n\r\n{}", line.repeat(8 << 10));
    let mut client = Client::connect(address);
    client.set_patience(Duration::from_secs(120));
    client.hello();
    for _ in 0..128 {
        let reply = client.message("a@a.example", &["b@b.example"], &content);
        assert!(reply.starts_with("250"), "{reply}");
    }
}

#[test]
fn a_stalled_disk_stops_one_stream_and_not_a_thousand_clients() {
    let _ = zmailer::sys::limits::raise_open_files();
    let dir = scratch_dir();
    let Some(disk) = Mount::at_postoffice(dir.path(), 1 << 30) else {
        crate::harness::skip("no right to mount; a frozen file system is not tested");
        return;
    };
    let hop = Hop::start();
    hop.script.lock().unwrap().forget_content = true;
    // A ring that overflows all the time: completions wait in the kernel, and receiving starts again.
    let mut daemon: Daemon = Setup::relay_to(hop.address)
        .with("daemon", "completion_entries = 64")
        .prepare(dir);
    daemon.restart();
    // Thawed before the daemon is waited for, whatever happens here.
    let disk = disk;
    disk.freeze(true);
    let address = daemon.address;
    let streamer = std::thread::spawn(move || stream(address));
    // The stream gets as far as memory allows; a thousand others talk to the daemon meanwhile.
    let mut crowd: Vec<Client> = (0..1000).map(|_| Client::connect(address)).collect();
    for _ in 0..3 {
        for client in &mut crowd {
            client.hello();
            client.expect("MAIL FROM:<a@a.example>", "250");
            client.expect("RCPT TO:<b@b.example>", "250");
            client.expect("RSET", "250");
        }
    }
    assert!(!streamer.is_finished(), "250 without a disk");
    assert_eq!(hop.mails().len(), 0, "delivered before it is on disk");
    let rss = rss_kib(daemon.pid());
    assert!(rss < 256 << 10, "{rss} KiB resident");
    disk.freeze(false);
    streamer.join().expect("the stream is taken");
    hop.wait_for_mails(128);
    daemon.wait_until_empty();
    let rss = rss_kib(daemon.pid());
    assert!(rss < 384 << 10, "{rss} KiB resident at most");
    assert_eq!(daemon.stop(), Some(0));
}

/// Starts what follows with io_uring_setup refused.
const REFUSE_IO_URING: &str = r#"
import ctypes, os, struct, sys
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (6, 0, 0, 0x50001), (6, 0, 0, 0x7fff0000)]
program = b"".join(struct.pack("HBBI", *op) for op in code)
buffer = ctypes.create_string_buffer(program)
class Filter(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
fprog = Filter(len(code), ctypes.addressof(buffer))
if libc.prctl(22, 2, ctypes.byref(fprog), 0, 0):
    sys.exit(99)
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn without_io_uring_the_daemon_says_what_is_missing() {
    if Command::new("python3").arg("--version").output().is_err() {
        crate::harness::skip("python3 is not here; a kernel without io_uring is not tested");
        return;
    }
    let mut setup = Setup::relay_to(free_address());
    setup.prefix = ["python3", "-c", REFUSE_IO_URING]
        .map(str::to_owned)
        .to_vec();
    let mut daemon = setup.prepare(scratch_dir());
    daemon.spawn();
    assert_eq!(daemon.wait_exit(), Some(69));
    let said = daemon.stderr();
    assert!(said.contains("io_uring_setup failed"), "{said}");
    assert!(said.contains("kernel.io_uring_disabled"), "{said}");
    assert!(said.contains("seccomp"), "{said}");
    // With panic = "abort", as in a release, a panicking thread would be exit code 134.
    assert!(!said.contains("panicked"), "{said}");
}

/// A command in front of the daemon's that takes its right to locked memory but for `bytes`.
fn with_locked_memory(bytes: &str) -> Option<Vec<String>> {
    let root = rustix::process::geteuid().is_root();
    let caps = "--bounding-set=-ipc_lock,-sys_resource";
    let mut words = if root { vec!["setpriv", caps] } else { vec![] };
    let limit = format!("--memlock={bytes}:{bytes}");
    words.extend(["prlimit", &limit]);
    let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    let tried = Command::new(&words[0])
        .args(&words[1..])
        .arg("true")
        .output();
    tried
        .is_ok_and(|output| output.status.success())
        .then_some(words)
}

#[test]
fn little_locked_memory_costs_speed_and_none_is_named() {
    let hop = Hop::start();
    // Linux counts the rings of all processes of a user together: one daemon after the other.
    for (bytes, starts) in [("0", false), ("32768", true), ("65536", true)] {
        let Some(prefix) = with_locked_memory(bytes) else {
            crate::harness::skip("no prlimit; RLIMIT_MEMLOCK is not tested");
            return;
        };
        let mut setup = Setup::relay_to(hop.address).shards(1);
        setup.prefix = prefix;
        let mut daemon = setup.prepare(scratch_dir());
        if starts {
            daemon.restart();
            let content = format!("Subject: x\r\n\r\n{}", "a line of text\r\n".repeat(5000));
            for _ in 0..5 {
                Client::submit(daemon.address, "a@a.example", &["b@b.example"], &content);
            }
            daemon.wait_until_empty();
            assert_eq!(daemon.stop(), Some(0));
            let said = daemon.stderr();
            let lines = said.lines().filter(|line| line.contains("RLIMIT_MEMLOCK"));
            assert_eq!(lines.count(), 1, "{said}");
        } else {
            daemon.spawn();
            assert_eq!(daemon.wait_exit(), Some(69));
            let said = daemon.stderr();
            assert!(said.contains("RLIMIT_MEMLOCK = 0"), "{said}");
            assert!(said.contains("LimitMEMLOCK"), "{said}");
            assert!(!said.contains("seccomp"), "{said}");
            assert!(!said.contains("panicked"), "{said}");
        }
    }
}
