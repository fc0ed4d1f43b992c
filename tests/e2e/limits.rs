//! Who may relay, and what happens at each limit.

use std::net::SocketAddr;

use crate::harness::client::Client;
use crate::harness::daemon::{Setup, free_address};
use crate::harness::hop::Hop;
use crate::harness::wait_for;

const LETTER: &str = "Subject: hello\r\n\r\ntext\r\n";

#[test]
fn a_stranger_among_trusted_clients_never_relays() {
    let hop = Hop::start();
    let port = free_address().port();
    let setup = Setup::relay_to(hop.address)
        .with(
            "smtpserver",
            format!("listen = [\"127.0.0.1:{port}\", \"[::1]:{port}\"]"),
        )
        .with(
            "smtpserver",
            "trusted_networks = [\"127.0.0.1/32\"]\nerrors_max = 1000",
        )
        .with("router", "local_domains = [\"local.example\"]");
    let mut setup = setup;
    setup.address = SocketAddr::from(([127, 0, 0, 1], port));
    let daemon = setup.start();
    let outside: SocketAddr = format!("[::1]:{port}").parse().unwrap();
    let inside = daemon.address;
    let friends: Vec<_> = (0..50)
        .map(|number| {
            std::thread::spawn(move || {
                for round in 0..20 {
                    let to = format!("f{number}.{round}@elsewhere.example");
                    Client::submit(inside, "friend@a.example", &[&to], LETTER);
                }
            })
        })
        .collect();
    let mut stranger = Client::connect(outside);
    stranger.hello();
    for _ in 0..50 {
        stranger.expect("MAIL FROM:<stranger@a.example>", "250");
        stranger.expect("RCPT TO:<victim@elsewhere.example>", "550 5.7.1");
        stranger.expect("RCPT TO:<ok@local.example>", "250");
        stranger.expect("DATA", "354");
        stranger.send(LETTER.as_bytes());
        stranger.expect(".", "250");
    }
    for friend in friends {
        friend.join().expect("a friend's mail is taken");
    }
    let mails = hop.wait_for_mails(1050);
    for mail in mails
        .iter()
        .filter(|mail| mail.sender.starts_with("stranger"))
    {
        assert_eq!(mail.recipients, ["ok@local.example"]);
    }
}

#[test]
fn limits_answer_exactly() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address)
        .with(
            "smtpserver",
            "recipients_max = 2\nmessage_size_max = \"10KiB\"",
        )
        .start();
    let mut client = Client::connect(daemon.address);
    let hello = client.hello();
    assert!(hello.contains("SIZE 10240"), "{hello}");
    client.expect("MAIL FROM:<a@a.example> SIZE=20000", "552 5.3.4");
    client.expect("MAIL FROM:<a@a.example>", "250");
    client.expect("RCPT TO:<a@b.example>", "250");
    client.expect("RCPT TO:<b@b.example>", "250");
    client.expect("RCPT TO:<c@b.example>", "452 4.5.3");
    client.expect("DATA", "354");
    client.send("0123456789\r\n".repeat(2000).as_bytes());
    client.expect(".", "552 5.3.4");
    client.expect("NOOP", "250");
    let reply = client.message("a@a.example", &["a@b.example"], LETTER);
    assert!(reply.starts_with("250"), "the session goes on: {reply}");
    assert_eq!(hop.wait_for_mails(1).len(), 1);
}

#[test]
fn smuggling_is_refused_and_nothing_is_merged() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    for end in [
        "\n.\n",
        "\n.\r\n",
        "\r.\r\n",
        "\r.\r",
        "\n.\r",
        "\r\n.\r\r\n",
        "\r\r\n.\r\r\n",
    ] {
        let mut client = Client::connect(daemon.address);
        client.hello();
        client.expect("MAIL FROM:<a@a.example>", "250");
        client.expect("RCPT TO:<b@b.example>", "250");
        client.expect("DATA", "354");
        let smuggled = format!(
            "Subject: outer\r\n\r\ntext{end}MAIL FROM:<evil@a.example>\r\n\
             RCPT TO:<v@b.example>\r\nDATA\r\nSubject: inner\r\n\r\nevil\r\n.\r\n"
        );
        client.send(smuggled.as_bytes());
        let reply = client.reply();
        assert!(reply.starts_with("550 5.6"), "{end:?}: {reply}");
        client.expect("NOOP", "250");
    }
    Client::submit(daemon.address, "ann@a.example", &["bob@b.example"], LETTER);
    let mails = hop.wait_for_mails(1);
    assert_eq!(
        mails[0].sender, "ann@a.example",
        "none of the smuggled messages arrived"
    );
}

#[test]
fn a_header_that_is_too_large_is_refused_and_the_session_goes_on() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address)
        .with("smtpserver", "header_size_max = \"1KiB\"")
        .start();
    let mut client = Client::connect(daemon.address);
    client.hello();
    let header = format!("X-Filler: {}\r\n", "x".repeat(70)).repeat(20);
    let large = format!("{header}\r\ntext\r\n");
    let reply = client.message("a@a.example", &["b@b.example"], &large);
    assert!(reply.starts_with("552 5.3.4 the header"), "{reply}");
    let body = format!("Subject: hello\r\n\r\n{}", header.repeat(3));
    let reply = client.message("a@a.example", &["b@b.example"], &body);
    assert!(
        reply.starts_with("250"),
        "a body has another limit: {reply}"
    );
    assert_eq!(hop.wait_for_mails(1).len(), 1);
}

#[test]
fn silence_ends_a_session() {
    let daemon = Setup::relay_to(free_address())
        .with("smtpserver", "idle_timeout = \"1s\"")
        .start();
    let mut client = Client::connect(daemon.address);
    client.hello();
    let reply = client.reply();
    assert!(reply.starts_with("421 4.4.2 "), "{reply}");
    assert_eq!(client.reply(), "", "closed behind it");
}

#[test]
fn a_session_that_is_never_silent_ends_too() {
    let daemon = Setup::relay_to(free_address())
        .with("smtpserver", "session_timeout = \"1s\"")
        .start();
    let mut client = Client::connect(daemon.address);
    client.hello();
    let last = wait_for("the end of the session", || {
        client.try_send(b"NOOP\r\n").ok()?;
        let reply = client.reply();
        (!reply.starts_with("250")).then_some(reply)
    });
    assert!(last.starts_with("421 4.4.2 "), "{last}");
}

/// RFC 9293 3.6: a client may close its side behind its last command.
#[test]
fn a_client_that_only_closes_its_side_gets_all_replies() {
    use std::io::{Read, Write};
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let mut stream = std::net::TcpStream::connect(daemon.address).unwrap();
    stream
        .write_all(
            b"EHLO x\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n\
              Subject: s\r\n\r\nx\r\n.\r\nQUIT\r\n",
        )
        .unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    assert!(replies.contains(" accepted\r\n221 "), "{replies}");
    hop.wait_for_mails(1);
    // Half a line and half a message are nothing.
    let mut stream = std::net::TcpStream::connect(daemon.address).unwrap();
    stream
        .write_all(b"EHLO x\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\nhalf")
        .unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    assert!(
        replies.ends_with("354 end with CR LF . CR LF\r\n"),
        "{replies}"
    );
    daemon.wait_until_empty();
    assert_eq!(hop.mails().len(), 1);
}

/// Content that is refused gives its place in memory back, also for those that wait for it.
#[test]
fn a_refused_message_does_not_keep_others_waiting() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address)
        .shards(1)
        .with("spool", "memory = \"1MiB\"")
        .start();
    let begin = |count: usize| {
        let mut client = Client::connect(daemon.address);
        client.hello();
        client.expect("MAIL FROM:<a@a.example>", "250");
        client.expect("RCPT TO:<b@b.example>", "250");
        client.expect("DATA", "354");
        client.send(&b"Subject: x\r\n\r\n".repeat(count));
        client
    };
    // Many that hold a little each use up the memory; none of them is worth a file.
    let mut idle: Vec<Client> = (0..100).map(|_| begin(900)).collect();
    for client in &mut idle {
        client.send(b"a lone\nline feed\r\n.\r\n");
        let reply = client.reply();
        assert!(reply.starts_with("550 5.6.11"), "{reply}");
    }
    let mut last = begin(10);
    assert!(last.command(".").starts_with("250"));
}

/// Clients that stop with little content keep nobody out, and are missed when they go.
#[test]
fn clients_that_stop_in_the_middle_keep_nobody_out() {
    const CLIENTS: usize = 300;
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address)
        .shards(1)
        .with("spool", "memory = \"1MiB\"")
        .start();
    let stopped: Vec<Client> = (0..CLIENTS)
        .map(|number| {
            let mut client = Client::connect(daemon.address);
            client.hello();
            client.expect("MAIL FROM:<a@a.example>", "250");
            client.expect("RCPT TO:<b@b.example>", "250");
            client.expect("DATA", "354");
            client.send(&b"X: y\r\n".repeat([10, 1_000, 4_000][number % 3]));
            client
        })
        .collect();
    Client::submit(
        daemon.address,
        "a@a.example",
        &["b@b.example"],
        "Subject: x\r\n\r\n",
    );
    hop.wait_for_mails(1);
    drop(stopped);
    wait_for("the end of all sessions", || {
        (daemon.status()["sessions"].as_u64() == Some(0)).then_some(())
    });
}
