//! Temporary failures: mail waits, is tried again by the schedule, and survives a restart.

use std::time::Duration;

use crate::harness::client::Client;
use crate::harness::daemon::{Setup, free_address};
use crate::harness::hop::Hop;
use crate::harness::wait_for;

const LETTER: &str = "Subject: hello\r\n\r\ntext\r\n";
const QUICK: &str = "[[scheduler.rule]]\nmatch = \"smtp/*\"\nretry = [\"1s\"]\nexpiry = \"5d\"\n";

fn quick(mut setup: Setup) -> Setup {
    setup.tail = QUICK.to_owned();
    setup
}

#[test]
fn a_4xx_is_tried_again() {
    let hop = Hop::start();
    hop.script
        .lock()
        .unwrap()
        .rcpt
        .push_back("450 4.2.1 not now".to_owned());
    let daemon = quick(Setup::relay_to(hop.address)).start();
    Client::submit(daemon.address, "ann@a.example", &["bob@b.example"], LETTER);
    assert_eq!(hop.wait_for_mails(1)[0].recipients, ["bob@b.example"]);
    daemon.wait_until_empty();
}

#[test]
fn only_the_deferred_recipient_is_tried_again() {
    let hop = Hop::start();
    hop.script
        .lock()
        .unwrap()
        .rcpt
        .extend(["250 ok".to_owned(), "450 4.2.1 not now".to_owned()]);
    let daemon = quick(Setup::relay_to(hop.address)).start();
    Client::submit(
        daemon.address,
        "ann@a.example",
        &["a@b.example", "b@b.example"],
        LETTER,
    );
    let mails = hop.wait_for_mails(2);
    assert_eq!(mails[0].recipients, ["a@b.example"]);
    assert_eq!(mails[1].recipients, ["b@b.example"]);
    daemon.wait_until_empty();
}

#[test]
fn a_hop_that_is_down_gets_the_mail_when_it_is_back() {
    let address = free_address();
    let mut daemon = quick(Setup::relay_to(address)).start();
    for number in 0..20 {
        let to = format!("u{number}@b.example");
        Client::submit(daemon.address, "ann@a.example", &[&to], LETTER);
    }
    daemon.stop();
    daemon.restart();
    // One shard may greet before another has told what it found.
    wait_for("all to be queued still", || {
        (daemon.status()["queue"]["messages"].as_u64() == Some(20)).then_some(())
    });
    let hop = Hop::start_on(address);
    assert_eq!(hop.wait_for_mails(20).len(), 20);
    daemon.wait_until_empty();
    assert_eq!(hop.mails().len(), 20, "none twice");
    assert!(
        hop.connections() <= 20,
        "connections are used again or shared"
    );
}

#[test]
fn a_connection_lost_at_the_dot_is_repeated() {
    let hop = Hop::start();
    hop.script.lock().unwrap().drop_at_dot = 1;
    let daemon = quick(Setup::relay_to(hop.address)).start();
    Client::submit(daemon.address, "ann@a.example", &["bob@b.example"], LETTER);
    hop.wait_for_mails(1);
    daemon.wait_until_empty();
}

#[test]
fn what_is_deferred_is_not_tried_before_its_time_after_a_restart() {
    let hop = Hop::start();
    hop.script
        .lock()
        .unwrap()
        .rcpt
        .push_back("450 4.2.1 not now".to_owned());
    let mut setup = Setup::relay_to(hop.address);
    setup.tail = "[[scheduler.rule]]\nmatch = \"smtp/*\"\nretry = [\"1h\"]\n".to_owned();
    let mut daemon = setup.start();
    let id = Client::submit(daemon.address, "ann@a.example", &["bob@b.example"], LETTER);
    wait_for("the deferral in the log", || {
        daemon
            .mail_log()
            .lines()
            .find(|line| line.contains(&id) && line.contains("deferred"))?;
        Some(())
    });
    daemon.stop();
    daemon.restart();
    // Mail for another recipient shows that the hop is served while the deferred one waits.
    Client::submit(
        daemon.address,
        "ann@a.example",
        &["other@b.example"],
        LETTER,
    );
    assert_eq!(hop.wait_for_mails(1)[0].recipients, ["other@b.example"]);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(hop.mails().len(), 1);
    assert_eq!(daemon.status()["queue"]["messages"].as_u64(), Some(1));
}

#[test]
fn a_hop_that_never_speaks_is_left_and_tried_again() {
    let hop = Hop::start();
    hop.script.lock().unwrap().mute_connections = 1;
    let mut setup = quick(Setup::relay_to(hop.address));
    setup.tail += "[transport.smtp]\ngreeting_timeout = \"1s\"\n";
    let daemon = setup.start();
    Client::submit(daemon.address, "ann@a.example", &["bob@b.example"], LETTER);
    assert_eq!(hop.wait_for_mails(1)[0].recipients, ["bob@b.example"]);
    daemon.wait_until_empty();
    assert!(hop.connections() >= 2, "the second one was spoken to");
    wait_for("the reason in the log", || {
        daemon.mail_log().lines().find(|line| {
            line.contains("event=unreachable") && line.contains("timed out after connect")
        })?;
        Some(())
    });
}

/// More connections are refused than accepted, and mail flows all the same.
#[test]
fn a_hop_that_takes_few_connections_is_served_by_those() {
    let hop = Hop::start();
    hop.script.lock().unwrap().connections_max = 3;
    let daemon = Setup::relay_to(hop.address).start();
    let senders: Vec<_> = (0..8)
        .map(|sender| {
            let address = daemon.address;
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                client.hello();
                for number in 0..100 {
                    let to = format!("u{sender}.{number}@b.example");
                    let reply = client.message("ann@a.example", &[&to], LETTER);
                    assert!(reply.starts_with("250"), "{reply}");
                }
            })
        })
        .collect();
    for sender in senders {
        sender.join().unwrap();
    }
    hop.wait_for_mails(800);
    daemon.wait_until_empty();
    assert!(hop.open_max() <= 4, "those above the limit were sent away");
}

/// Results that are under way between shards when the daemon stops are not lost: nothing is repeated.
#[test]
fn stops_and_starts_repeat_nothing() {
    let hop = Hop::start();
    hop.script.lock().unwrap().delay = Duration::from_millis(100);
    let mut setup = Setup::relay_to(hop.address).shards(4);
    setup.tail = "[[scheduler.rule]]\nmatch = \"smtp/*\"\nmax_connections = 3\n".to_owned();
    let mut daemon = setup.start();
    for number in 0..60 {
        let to = format!("u{number}@b.example");
        Client::submit(daemon.address, "ann@a.example", &[&to], LETTER);
    }
    for _ in 0..4 {
        let before = hop.mails().len();
        wait_for("some deliveries", || {
            (hop.mails().len() > before).then_some(())
        });
        assert_eq!(daemon.stop(), Some(0));
        daemon.restart();
    }
    hop.wait_for_mails(60);
    daemon.wait_until_empty();
    let mut recipients: Vec<String> = hop
        .mails()
        .iter()
        .map(|mail| mail.recipients[0].clone())
        .collect();
    recipients.sort();
    let all = recipients.len();
    recipients.dedup();
    assert_eq!((all, recipients.len()), (60, 60), "each once");
}

/// What each of many was told holds over a restart: nothing is tried before its time, or all at once
/// because the daemon is new.
#[test]
fn many_deferred_messages_wait_for_their_time_over_a_restart() {
    const MESSAGES: usize = 500;
    let hop = Hop::start();
    hop.script.lock().unwrap().rcpt_usual = Some("450 4.2.1 not now");
    let mut setup = Setup::relay_to(hop.address);
    setup.tail = "[[scheduler.rule]]\nmatch = \"smtp/*\"\nretry = [\"1h\"]\n".to_owned();
    let mut daemon = setup.start();
    let mut client = Client::connect(daemon.address);
    client.hello();
    for number in 0..MESSAGES {
        let to = format!("u{number}@b.example");
        let reply = client.message("ann@a.example", &[&to], LETTER);
        assert!(reply.starts_with("250"), "{reply}");
    }
    let deferred =
        |daemon: &crate::harness::daemon::Daemon| daemon.mail_log().matches("=deferred").count();
    wait_for("all to be deferred", || {
        (deferred(&daemon) >= MESSAGES).then_some(())
    });
    hop.script.lock().unwrap().rcpt_usual = None;
    // One restart in order, one not.
    for kill in [false, true] {
        if kill {
            daemon.kill();
        } else {
            assert_eq!(daemon.stop(), Some(0));
        }
        daemon.restart();
        // Another message passes them all; whoever were due now would have gone with it.
        Client::submit(daemon.address, "ann@a.example", &["now@b.example"], LETTER);
        hop.wait_for_mails(1 + usize::from(kill));
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(hop.mails().len(), 1 + usize::from(kill));
    }
    let output = crate::harness::sendmail::zmailer(
        &daemon,
        &["queue", "retry", "--where", "state = deferred"],
    );
    assert!(output.status.success());
    hop.wait_for_mails(MESSAGES + 2);
    daemon.wait_until_empty();
}
