//! Names to next hops, asked from a real authoritative server on loopback.

use std::net::SocketAddr;

use zmailer::control::resolver::{Failure, Lookup, Resolver};

use crate::harness::client::Client;
use crate::harness::daemon::Setup;
use crate::harness::dns::Dns;
use crate::harness::hop::Hop;

const ZONE: &str = "\
two IN MX 20 b
two IN MX 10 a
a IN A 127.0.1.1
b IN A 127.0.1.2
same IN MX 10 a
same IN MX 10 b
same IN MX 10 c
same IN MX 10 d
c IN A 127.0.1.3
d IN A 127.0.1.4
plain IN A 127.0.1.9
six IN AAAA ::1
six IN A 127.0.1.6
alias IN CNAME two
nomail IN MX 0 .
broken IN MX 10 missing
half IN MX 10 missing
half IN MX 20 b
empty IN TXT \"nothing else\"
backup IN MX 10 a
backup IN MX 20 mx.test.example.
backup IN MX 20 b
backup IN MX 30 c
us IN MX 10 mx.test.example.
us IN MX 20 a
";

fn ask(dns: SocketAddr, lookup: &Lookup) -> Result<Vec<SocketAddr>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        Resolver::new(&[dns], "mx.test.example")
            .resolve(lookup)
            .await
    })
}

fn mx(dns: &Dns, name: &str) -> Result<Vec<String>, (bool, &'static str)> {
    let answer = ask(dns.address, &Lookup::Mx(name.to_owned()));
    answer
        .map(|found| found.iter().map(ToString::to_string).collect())
        .map_err(|failure| (failure.permanent, failure.status))
}

#[test]
fn mail_exchangers_are_found_as_rfc_5321_says() {
    let dns = Dns::start(ZONE);
    let good: [(&str, &[&str]); 6] = [
        ("two.test", &["127.0.1.1:25", "127.0.1.2:25"]),
        ("alias.test", &["127.0.1.1:25", "127.0.1.2:25"]),
        // Without MX the domain is the host.
        ("plain.test", &["127.0.1.9:25"]),
        ("half.test", &["127.0.1.2:25"]),
        // We are an exchanger of the domain: only better ones count (5.1).
        ("backup.test", &["127.0.1.1:25"]),
        ("TWO.test.", &["127.0.1.1:25", "127.0.1.2:25"]),
    ];
    for (name, expected) in good {
        let expected: Vec<String> = expected.iter().map(|&text| text.to_owned()).collect();
        assert_eq!(mx(&dns, name), Ok(expected), "{name}");
    }
    let bad = [
        ("nomail.test", (true, "5.1.10")),
        ("broken.test", (true, "5.4.4")),
        ("nowhere.test", (true, "5.1.2")),
        ("empty.test", (true, "5.4.4")),
        ("us.test", (true, "5.4.6")),
        // Not a zone of this server: it refuses, which says nothing about the domain.
        ("elsewhere.example", (false, "4.4.3")),
    ];
    for (name, expected) in bad {
        assert_eq!(mx(&dns, name), Err(expected), "{name}");
    }
    let mut both = mx(&dns, "six.test").unwrap();
    both.sort();
    assert_eq!(both, ["127.0.1.6:25", "[::1]:25"]);
}

#[test]
fn exchangers_of_the_same_preference_take_turns() {
    let dns = Dns::start(ZONE);
    let first = |_| mx(&dns, "same.test").unwrap().remove(0);
    let firsts: std::collections::BTreeSet<String> = (0..40).map(first).collect();
    assert!(firsts.len() > 1, "always {firsts:?} first");
}

#[test]
fn a_name_server_that_is_away_is_no_reason_to_give_up() {
    let nobody = crate::harness::daemon::free_address();
    let answer = ask(nobody, &Lookup::Mx("two.test".to_owned()));
    assert!(!answer.unwrap_err().permanent);
}

#[test]
fn mail_goes_to_hosts_by_name_and_falls_over() {
    let dns = Dns::start("dead IN A 127.0.1.1\nboth IN A 127.0.1.1\nboth IN A 127.0.0.1\n");
    let hop = Hop::start();
    let port = hop.address.port();
    let mut setup = Setup::relay_to(hop.address);
    setup.route = format!("smtp!both.test:{port}");
    setup.tail = format!("[dns]\nservers = [\"{}\"]\n", dns.address);
    let daemon = setup.start();
    Client::submit(
        daemon.address,
        "a@a.example",
        &["b@b.example"],
        "Subject: x\r\n\r\n",
    );
    hop.wait_for_mails(1);
    daemon.wait_until_empty();
}

#[test]
fn mail_to_a_domain_goes_to_its_exchangers_in_order() {
    // Port 25 of an address of loopback that nothing else uses.
    let address: SocketAddr = "127.0.1.2:25".parse().unwrap();
    if std::net::TcpListener::bind(address).is_err() {
        crate::harness::skip(&format!("port 25 of {} cannot be had", address.ip()));
        return;
    }
    // Nobody listens at the first exchanger.
    let dns = Dns::start("two IN MX 10 a\ntwo IN MX 20 b\na IN A 127.0.1.1\nb IN A 127.0.1.2\n");
    let hop = Hop::start_on(address);
    let mut setup = Setup::relay_to(address);
    setup.route = "smtp!two.test".to_owned();
    setup.tail = format!("[dns]\nservers = [\"{}\"]\n", dns.address);
    let daemon = setup.start();
    Client::submit(
        daemon.address,
        "a@a.example",
        &["b@b.example"],
        "Subject: x\r\n\r\n",
    );
    hop.wait_for_mails(1);
    daemon.wait_until_empty();
}

#[test]
fn a_domain_that_does_not_exist_is_reported_at_once() {
    let dns = Dns::start("x IN A 127.0.0.1\n");
    let hop = Hop::start();
    let mut setup = Setup::relay_to(hop.address);
    setup.route = "smtp!nowhere.test".to_owned();
    setup.tail = format!("[dns]\nservers = [\"{}\"]\n", dns.address);
    let routes = format!(
        "routes = {{ \"sender.example\" = \"smtp!{}\" }}",
        hop.address
    );
    let daemon = setup.with("router", routes).start();
    Client::submit(
        daemon.address,
        "a@sender.example",
        &["b@b.example"],
        "Subject: x\r\n\r\n",
    );
    let report = hop.wait_for_mails(1).remove(0);
    assert_eq!(
        (report.sender.as_str(), report.recipients.as_slice()),
        ("", &["a@sender.example".to_owned()][..])
    );
    let text = String::from_utf8_lossy(&report.content).into_owned();
    assert!(text.contains("Status: 5.1.2"), "{text}");
    daemon.wait_until_empty();
}
