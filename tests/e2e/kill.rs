//! kill -9 under load: what was acknowledged arrives, unaltered; what was delivered more than a
//! second before the kill is not repeated. Five rounds; `ZMAILER_KILL_ROUNDS=100` for the long mode, whose figures
//! are printed with `--nocapture`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, Setup};
use crate::harness::hop::{Hop, Mail};
use crate::harness::wait_for;

/// Deliveries this long before the kill have their outcome on disk.
const WINDOW: Duration = Duration::from_secs(1);

const CLIENTS: usize = 8;

fn rounds() -> u32 {
    std::env::var("ZMAILER_KILL_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(5)
}

fn body(number: u64) -> String {
    // Content that differs by message and spans several disk sectors.
    let line = format!(
        "{number:016x}-{:016x}",
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    );
    format!(
        "Subject: n{number}\r\n\r\n{}",
        format!("{line}\r\n").repeat(1 + (number % 97) as usize)
    )
}

/// Sends until told to stop; notes every number that was acknowledged.
fn send(
    daemon: std::net::SocketAddr,
    next: &AtomicU64,
    acknowledged: &Mutex<Vec<u64>>,
    on: &AtomicBool,
) {
    while on.load(Ordering::Relaxed) {
        let Ok(mut client) = Client::try_connect(daemon) else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        let greeted = client.reply().starts_with("220");
        if !greeted || client.try_send(b"EHLO client.example\r\n").is_err() {
            continue;
        }
        client.reply();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let envelope =
                format!("MAIL FROM:<a@a.example>\r\nRCPT TO:<n{number}@b.example>\r\nDATA\r\n");
            let content = format!("{}.\r\n", body(number));
            if client.try_send(envelope.as_bytes()).is_err() {
                break;
            }
            let replies = [client.reply(), client.reply(), client.reply()];
            if !replies[2].starts_with("354") || client.try_send(content.as_bytes()).is_err() {
                break;
            }
            if !client.reply().starts_with("250") {
                break;
            }
            acknowledged.lock().unwrap().push(number);
            if !on.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

fn load_and_kill(
    daemon: &mut Daemon,
    next: &Arc<AtomicU64>,
    acknowledged: &Arc<Mutex<Vec<u64>>>,
    after: Duration,
) -> Instant {
    let on = Arc::new(AtomicBool::new(true));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (next, on) = (Arc::clone(next), Arc::clone(&on));
            let (acknowledged, address) = (Arc::clone(acknowledged), daemon.address);
            std::thread::spawn(move || send(address, &next, &acknowledged, &on))
        })
        .collect();
    std::thread::sleep(after);
    let at = Instant::now();
    daemon.kill();
    on.store(false, Ordering::Relaxed);
    for client in clients {
        client.join().expect("a client thread ends");
    }
    at
}

fn number_of(mail: &Mail) -> u64 {
    let text = mail.recipients[0].split('@').next().unwrap_or("");
    text.trim_start_matches('n')
        .parse()
        .expect("a numbered recipient")
}

#[test]
fn nothing_acknowledged_is_lost_and_old_deliveries_are_not_repeated() {
    let hop = Hop::start();
    // Checkpoints are under way at most kills, and starts go on from them.
    let setup = Setup::relay_to(hop.address).with("spool", "checkpoint = \"256KiB\"");
    let mut daemon = setup.start();
    let next = Arc::new(AtomicU64::new(0));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut kills = Vec::new();
    for round in 0..rounds() {
        let after = Duration::from_millis(1200 + u64::from(round * 7919 % 600));
        kills.push(load_and_kill(&mut daemon, &next, &acknowledged, after));
        daemon.restart();
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    assert!(
        acknowledged.len() > 100,
        "the load was too small to mean anything"
    );
    daemon.wait_until_empty();
    wait_for("all acknowledged messages at the hop", || {
        (hop.mails().len() >= acknowledged.len()).then_some(())
    });
    let mut deliveries: HashMap<u64, Vec<Mail>> = HashMap::new();
    for mail in hop.mails() {
        deliveries.entry(number_of(&mail)).or_default().push(mail);
    }
    for number in &acknowledged {
        assert!(
            deliveries.contains_key(number),
            "message {number} was acknowledged and is lost"
        );
    }
    let repeated = deliveries.values().filter(|mails| mails.len() > 1);
    println!(
        "{} kills, {} messages acknowledged, 0 lost, {} delivered, {} of them more than once",
        kills.len(),
        acknowledged.len(),
        deliveries.len(),
        repeated.count()
    );
    for (number, mails) in &deliveries {
        for mail in mails {
            let text = String::from_utf8_lossy(&mail.content).into_owned();
            assert!(
                text.ends_with(&body(*number)),
                "message {number} is altered"
            );
        }
        for pair in mails.windows(2) {
            let excused = kills
                .iter()
                .any(|kill| *kill < pair[1].at && *kill < pair[0].at + WINDOW);
            assert!(
                excused,
                "message {number} was repeated although it was delivered long before"
            );
        }
    }
}
