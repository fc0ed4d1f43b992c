//! A relay that is broken on purpose, and what the ledger says of it.

#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread;

use serde_json::Value;

/// What the broken relay does with a message.
#[derive(Clone, Copy)]
enum Fault {
    None,
    Lose,
    Duplicate,
    Alter,
    /// Leaves the last recipient out.
    Forget,
    /// Sends it to the recipients of the next message.
    Misdirect,
}

type Faults = fn(u64) -> Fault;

/// Takes mail on the address it gives back, and has it at `sink` before it says so.
fn relay(sink: SocketAddr, faults: Faults) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || serve(stream, sink, faults));
        }
    });
    address
}

fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line
}

fn serve(mut stream: TcpStream, sink: SocketAddr, faults: Faults) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut recipients = Vec::new();
    stream.write_all(b"220 broken\r\n").unwrap();
    loop {
        let command = line(&mut reader);
        let reply = match command.get(..4).unwrap_or("") {
            "" => return,
            "MAIL" => {
                recipients.clear();
                "250 ok"
            }
            "RCPT" => {
                recipients.push(command);
                "250 ok"
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n").unwrap();
                let mut content = String::new();
                while !content.ends_with("\r\n.\r\n") {
                    content += &line(&mut reader);
                }
                pass_on(sink, &mut recipients, content, faults);
                "250 taken"
            }
            "QUIT" => "221 bye",
            _ => "250 ok",
        };
        stream.write_all(format!("{reply}\r\n").as_bytes()).unwrap();
    }
}

fn pass_on(sink: SocketAddr, recipients: &mut Vec<String>, mut content: String, faults: Faults) {
    let field = content.split("X-Loadgen: ").nth(1).unwrap();
    let number: u64 = field.split(' ').next().unwrap().parse().unwrap();
    match faults(number) {
        Fault::None => {}
        Fault::Lose => return,
        Fault::Duplicate => deliver(sink, recipients, &content),
        Fault::Alter => content = content.replacen("lorem", "Lorem", 1),
        Fault::Forget => drop(recipients.pop()),
        Fault::Misdirect => {
            let (old, new) = (format!(".{number}@"), format!(".{}@", number + 1));
            for recipient in recipients.iter_mut() {
                *recipient = recipient.replace(&old, &new);
            }
        }
    }
    deliver(sink, recipients, &content);
}

fn deliver(sink: SocketAddr, recipients: &[String], content: &str) {
    let mut stream = TcpStream::connect(sink).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut say = |text: &str, kind: &str| {
        stream.write_all(text.as_bytes()).unwrap();
        loop {
            let reply = line(&mut reader);
            assert!(reply.starts_with(kind), "{text:?}: {reply:?}");
            if reply.get(3..4) != Some("-") {
                break;
            }
        }
    };
    say("", "220");
    say("EHLO broken\r\n", "250");
    say("MAIL FROM:<source@loadgen.example>\r\n", "250");
    for recipient in recipients {
        say(recipient, "250");
    }
    say("DATA\r\n", "354");
    say(content, "250");
    say("QUIT\r\n", "221");
}

/// Runs 100 messages with `recipients` each through a relay with these faults.
fn run(recipients: u32, faults: Faults) -> (Output, Value) {
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let sink = reserved.local_addr().unwrap();
    drop(reserved);
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["run", "--json", "--messages", "100", "--connections", "4"])
        .args(["--recipients", &recipients.to_string(), "--patience", "5"])
        .args(["--relay", &relay(sink, faults).to_string()])
        .args(["--sink", &sink.to_string()])
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output, report)
}

fn assert_counts(report: &Value, counts: [u64; 4]) {
    let keys = ["delivered", "lost", "duplicated", "altered"];
    let found = keys.map(|key| report[key].as_u64().unwrap());
    assert_eq!(found, counts, "{keys:?} in {report}");
}

#[test]
fn a_relay_that_works_is_good() {
    let (output, report) = run(3, |_| Fault::None);
    assert_eq!(output.status.code(), Some(0));
    assert_counts(&report, [300, 0, 0, 0]);
    assert_eq!(report["acknowledged"].as_u64(), Some(100));
}

#[test]
fn each_way_to_be_broken_is_told_apart() {
    let (output, report) = run(1, |number| match number % 10 {
        3 => Fault::Lose,
        5 | 6 => Fault::Duplicate,
        7..=9 => Fault::Alter,
        _ => Fault::None,
    });
    assert_eq!(output.status.code(), Some(1));
    assert_counts(&report, [110, 10, 20, 30]);
}

#[test]
fn recipients_are_told_apart() {
    let (output, report) = run(3, |number| match number {
        0 => Fault::Forget,
        // Its own three miss it, and it is not what the three of the next message should get.
        10 => Fault::Misdirect,
        _ => Fault::None,
    });
    assert_eq!(output.status.code(), Some(1));
    assert_counts(&report, [299, 4, 0, 3]);
}
