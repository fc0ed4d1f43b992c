//! Mail in, mail out: what arrives is what was sent, once, with one Received: line more.

use crate::harness::client::Client;
use crate::harness::daemon::Setup;
use crate::harness::hop::Hop;
use crate::harness::wait_for;

const LETTER: &str = "Subject: hello\r\n\r\nfirst line\r\n.leading dot\r\n..two\r\nlast\r\n";

fn without_first_field(content: &[u8]) -> String {
    let text = String::from_utf8(content.to_vec()).expect("ASCII");
    let mut lines = text.split_inclusive("\r\n");
    let first = lines.next().expect("a first line");
    assert!(first.starts_with("Received: "), "first line: {first}");
    let rest: Vec<&str> = lines
        .skip_while(|line| line.starts_with([' ', '\t']))
        .collect();
    rest.concat()
}

#[test]
fn a_message_arrives_unaltered_with_one_received_line() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let id = Client::submit(daemon.address, "ann@a.example", &["bob@b.example"], LETTER);
    assert!(
        (12..=24).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric()),
        "{id}"
    );
    let mails = hop.wait_for_mails(1);
    assert_eq!(mails[0].sender, "ann@a.example");
    assert_eq!(mails[0].recipients, ["bob@b.example"]);
    assert_eq!(without_first_field(&mails[0].content), LETTER);
    let text = String::from_utf8_lossy(&mails[0].content).into_owned();
    assert!(text.contains(&id), "the id stands in Received:: {text}");
    daemon.wait_until_empty();
}

#[test]
fn with_chunking_the_same_bytes_arrive() {
    let hop = Hop::start();
    hop.script.lock().unwrap().extensions =
        vec!["PIPELINING", "CHUNKING", "8BITMIME", "SIZE 1000000"];
    let daemon = Setup::relay_to(hop.address).start();
    Client::submit(daemon.address, "ann@a.example", &["bob@b.example"], LETTER);
    let mails = hop.wait_for_mails(1);
    assert_eq!(without_first_field(&mails[0].content), LETTER);
}

#[test]
fn a_hop_without_ehlo_gets_helo() {
    let hop = Hop::start();
    hop.script.lock().unwrap().no_ehlo = true;
    let daemon = Setup::relay_to(hop.address).start();
    Client::submit(daemon.address, "ann@a.example", &["bob@b.example"], LETTER);
    assert_eq!(hop.wait_for_mails(1).len(), 1);
}

#[test]
fn recipients_of_one_hop_share_a_transaction() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let recipients = ["a@b.example", "b@b.example", "c@c.example"];
    Client::submit(daemon.address, "ann@a.example", &recipients, LETTER);
    let mails = hop.wait_for_mails(1);
    assert_eq!(mails[0].recipients, recipients);
}

#[test]
fn routes_per_domain_win_over_the_default() {
    let (hop, other) = (Hop::start(), Hop::start());
    let setup = Setup::relay_to(hop.address);
    let routes = format!(
        "routes = {{ \"special.example\" = \"smtp!{}\" }}",
        other.address
    );
    let daemon = setup.with("router", routes).start();
    Client::submit(
        daemon.address,
        "a@a.example",
        &["x@special.example"],
        LETTER,
    );
    Client::submit(daemon.address, "a@a.example", &["x@plain.example"], LETTER);
    assert_eq!(other.wait_for_mails(1)[0].recipients, ["x@special.example"]);
    assert_eq!(hop.wait_for_mails(1)[0].recipients, ["x@plain.example"]);
}

#[test]
fn every_shard_count_delivers_and_limits_hold() {
    for (shards, limit) in [(1, 3), (2, 3), (4, 1), (4, 3)] {
        let hop = Hop::start();
        hop.script.lock().unwrap().delay = std::time::Duration::from_millis(2);
        let mut setup = Setup::relay_to(hop.address).shards(shards);
        setup.tail = format!("[[scheduler.rule]]\nmatch = \"smtp/*\"\nmax_connections = {limit}\n");
        let daemon = setup.start();
        let clients: Vec<_> = (0..8)
            .map(|number| {
                let address = daemon.address;
                std::thread::spawn(move || {
                    for round in 0..25 {
                        let to = format!("u{number}.{round}@b.example");
                        Client::submit(address, "ann@a.example", &[&to], LETTER);
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().expect("a client that got its 250s");
        }
        let mails = hop.wait_for_mails(200);
        daemon.wait_until_empty();
        let mut recipients: Vec<&String> = mails.iter().flat_map(|mail| &mail.recipients).collect();
        recipients.sort();
        recipients.dedup();
        assert_eq!(recipients.len(), 200, "{shards} shards: all delivered");
        assert_eq!(hop.mails().len(), 200, "{shards} shards: none twice");
        assert!(
            hop.open_max() <= limit,
            "{shards} shards, limit {limit}: {}",
            hop.open_max()
        );
    }
}

/// All mail goes to one next hop, which one shard owns: the others deliver as well, when they have
/// more than may wait at the owner. Clients are many, so that no shard gets nearly all of them.
#[test]
fn a_hot_next_hop_is_served_by_every_shard() {
    let hop = Hop::start();
    hop.script.lock().unwrap().delay = std::time::Duration::from_millis(250);
    let daemon = Setup::relay_to(hop.address).shards(2).start();
    let clients: Vec<_> = (0..32)
        .map(|number| {
            let address = daemon.address;
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                client.hello();
                for round in 0..50 {
                    let to = format!("u{number}.{round}@b.example");
                    let reply = client.message("ann@a.example", &[&to], LETTER);
                    assert!(reply.starts_with("250"), "{reply}");
                }
            })
        })
        .collect();
    wait_for("connections of both shards at a time", || {
        let status = daemon.status();
        let shards = status["shards"].as_array().unwrap();
        let all = shards
            .iter()
            .all(|shard| shard["connections"].as_u64() > Some(0));
        all.then_some(())
    });
    hop.script.lock().unwrap().delay = std::time::Duration::ZERO;
    for client in clients {
        client.join().expect("a client that got its 250s");
    }
    hop.wait_for_mails(1_600);
}

#[test]
fn both_log_lines_of_a_message_name_its_id() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let id = Client::submit(daemon.address, "ann@a.example", &["bob@b.example"], LETTER);
    let log = wait_for("two lines of mail log", || {
        let log = daemon.mail_log();
        (log.lines().filter(|line| line.contains(&id)).count() >= 2).then_some(log)
    });
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(&id)).collect();
    assert!(
        lines[0].contains("ann@a.example") && lines[0].contains("accepted"),
        "{}",
        lines[0]
    );
    assert!(
        lines[1].contains("bob@b.example") && lines[1].contains("delivered"),
        "{}",
        lines[1]
    );
}
