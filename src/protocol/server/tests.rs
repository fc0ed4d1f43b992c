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
