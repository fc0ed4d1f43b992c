//! Time limits; everything else is in the dialogues of `tests/dialogs`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn at(seconds: u64) -> Now {
    Now {
        mono_ns: seconds * SECOND,
        wall_ms: seconds * 1000,
    }
}

fn session() -> (Session, Vec<u8>) {
    let settings = Settings {
        idle_ns: 300 * SECOND,
        total_ns: 1_000 * SECOND,
        ..Settings::default()
    };
    let peer = Peer {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 1,
    };
    let mut session = Session::new(Arc::new(settings), peer, at(1));
    let mut output = Vec::new();
    session.greet(&mut output);
    output.clear();
    (session, output)
}

fn say(session: &mut Session, line: &[u8], now: Now, output: &mut Vec<u8>) -> Want {
    let mut input = Input::new(line);
    session.receive(&mut input, now, output)
}

#[test]
fn silence_ends_a_session_and_each_byte_begins_it_anew() {
    let (mut session, mut output) = session();
    assert_eq!(session.deadline(), 301 * SECOND);
    say(&mut session, b"NO", at(200), &mut output);
    assert_eq!(session.deadline(), 500 * SECOND);
    session.timeout(at(500), &mut output);
    let text = String::from_utf8_lossy(&output).into_owned();
    assert!(
        text.starts_with("421 4.4.2 ") && text.contains("idle"),
        "{text}"
    );
    let want = say(&mut session, b"NOOP\r\n", at(501), &mut output);
    assert!(matches!(want, Want::Close), "{want:?}");
}

#[test]
fn a_session_that_never_rests_ends_too() {
    let (mut session, mut output) = session();
    for second in 2..1_000 {
        say(&mut session, b"NOOP\r\n", at(second), &mut output);
        assert!(session.deadline() <= 1_001 * SECOND);
    }
    assert_eq!(session.deadline(), 1_001 * SECOND);
    output.clear();
    session.timeout(at(1_001), &mut output);
    let text = String::from_utf8_lossy(&output).into_owned();
    assert!(
        text.starts_with("421 4.4.2 ") && text.contains("too long"),
        "{text}"
    );
}

/// Only the protocol of our own agents has programs and files, and they need an account.
#[test]
fn programs_and_files_are_parameters_of_our_own_agents() {
    let lines: &[(&str, &str, &str)] = &[
        (
            "XTARGET=+7C/bin/x+20y XPRIVILEGE=7",
            "250 2.1.5",
            "555 5.5.4",
        ),
        ("XTARGET=/var/f XPRIVILEGE=0", "250 2.1.5", "555 5.5.4"),
        ("XTARGET=joe XPRIVILEGE=7", "501 5.5.4", "555 5.5.4"),
        ("XTARGET=/var/f", "555 5.5.4", "555 5.5.4"),
        ("XPRIVILEGE=7", "555 5.5.4", "555 5.5.4"),
        ("XTARGET=/a+0Ab XPRIVILEGE=7", "501 5.5.4", "555 5.5.4"),
    ];
    for lmtp in [true, false] {
        let settings = Settings {
            lmtp,
            ..Settings::default()
        };
        let peer = Peer {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 1,
        };
        let mut session = Session::new(Arc::new(settings), peer, at(1));
        let mut output = Vec::new();
        let hello: &[u8] = if lmtp { b"LHLO c\r\n" } else { b"EHLO c\r\n" };
        say(&mut session, hello, at(1), &mut output);
        let offered = String::from_utf8_lossy(&output).contains("XTARGET");
        assert_eq!(offered, lmtp);
        say(
            &mut session,
            b"MAIL FROM:<a@b.example>\r\n",
            at(1),
            &mut output,
        );
        session.verdict(Verdict::Accept, at(1), &mut output);
        for (parameters, by_lmtp, by_smtp) in lines {
            output.clear();
            let line = format!("RCPT TO:<c@d.example> {parameters}\r\n");
            let want = say(&mut session, line.as_bytes(), at(1), &mut output);
            assert!(matches!(want, Want::Input), "{line}: {want:?}");
            let expected = if lmtp { by_lmtp } else { by_smtp };
            let said = String::from_utf8_lossy(&output).into_owned();
            assert!(said.starts_with(expected), "{line}: {said}");
        }
    }
}
