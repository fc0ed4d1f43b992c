//! Whole dialogues against a small server, fed whole and byte by byte.

#![allow(clippy::indexing_slicing)]

mod pair;

use std::sync::Arc;

use self::pair::{Pair, START, Toy, job};
use super::content::has_bare_line_end;
use super::{Content, Event, Job, Session, Settings, Status};
use crate::base::clock::Now;

const PLAIN: &str = "";
const PIPE: &str = "\r\n250-PIPELINING";
const CHUNK: &str = "\r\n250-PIPELINING\r\n250-CHUNKING";

const GREETING: &[u8] = b"220 toy\r\n";

fn run(
    offers: &'static str,
    table: &[(&'static str, &'static str)],
    jobs: &[Job],
    step: usize,
    budget: usize,
) -> Pair<Toy> {
    let mut toy = Toy::default();
    (toy.offers, toy.table) = (offers, table.to_vec());
    let mut pair = Pair::new(Settings::default(), toy, jobs.to_vec(), step);
    pair.budget = budget;
    pair.run(GREETING);
    pair
}

/// Runs whole and byte by byte; both must agree.
fn both(
    offers: &'static str,
    table: &[(&'static str, &'static str)],
    jobs: &[Job],
) -> (Vec<String>, Pair<Toy>) {
    let whole = run(offers, table, jobs, usize::MAX, usize::MAX);
    let bytes = run(offers, table, jobs, 1, usize::MAX);
    assert_eq!(whole.results(), bytes.results(), "{offers:?} {table:?}");
    assert_eq!(whole.peer.contents, bytes.peer.contents);
    (whole.results(), whole)
}

fn two() -> Vec<Job> {
    vec![
        job(1, &["a@x", "b@x"], b"One\r\n.dot\r\n"),
        job(2, &["c@x"], b"Two"),
    ]
}

#[test]
fn dialogues_give_their_results() {
    type Row = (
        &'static [(&'static str, &'static str)],
        &'static [&'static str],
    );
    let good: &[&str] = &[
        "1/0 Delivered 250 2.0.0 taken",
        "1/1 Delivered 250 2.0.0 taken",
        "2/0 Delivered 250 2.0.0 taken",
    ];
    let rows: &[Row] = &[
        (&[], good),
        (&[("EHLO", "502 what")], good),
        (
            &[("RCPT TO:<b@x>", "450-4.2.1 later\r\n450 4.2.1 really")],
            &[
                "1/0 Delivered 250 2.0.0 taken",
                "1/1 Deferred 450 4.2.1 later 4.2.1 really",
                "2/0 Delivered 250 2.0.0 taken",
            ],
        ),
        (
            &[
                ("RCPT TO:<b@x>", "552 too many"),
                ("RCPT TO:<a@x>", "552 5.2.2 full"),
            ],
            &[
                "1/0 Failed 552 5.2.2 full",
                "1/1 Deferred 552 too many",
                "2/0 Delivered 250 2.0.0 taken",
            ],
        ),
        (
            &[("MAIL", "550 5.7.1 go away")],
            &[
                "1/0 Failed 550 5.7.1 go away",
                "1/1 Failed 550 5.7.1 go away",
                "2/0 Failed 550 5.7.1 go away",
            ],
        ),
        (
            &[("RCPT TO:<c@x>", "421 4.3.2 closing")],
            &[
                "1/0 Delivered 250 2.0.0 taken",
                "1/1 Delivered 250 2.0.0 taken",
                "2/0 Deferred 421 4.3.2 closing",
                "broken Recipient 421 4.3.2 closing",
            ],
        ),
    ];
    for offers in [PLAIN, PIPE, CHUNK] {
        for (table, wanted) in rows {
            let (results, _) = both(offers, table, &two());
            assert_eq!(results, *wanted, "{offers:?} {table:?}");
        }
    }
}

#[test]
fn content_refusals_leave_the_session_usable() {
    for (offers, command) in [
        (PLAIN, "DATA"),
        (PIPE, "DATA"),
        (PIPE, "."),
        (CHUNK, "BDAT"),
    ] {
        let (results, pair) = both(offers, &[(command, "452 4.3.1 full")], &two());
        assert_eq!(
            results,
            [
                "1/0 Deferred 452 4.3.1 full",
                "1/1 Deferred 452 4.3.1 full",
                "2/0 Deferred 452 4.3.1 full",
            ],
            "{offers:?} {command}"
        );
        assert!(pair.session.is_idle());
    }
}

#[test]
fn all_recipients_refused_sends_no_content() {
    let table = [("RCPT TO:<a@x>", "550 no a"), ("RCPT TO:<b@x>", "550 no b")];
    for offers in [PLAIN, PIPE, CHUNK] {
        let (results, pair) = both(offers, &table, &two());
        assert_eq!(
            results,
            [
                "1/0 Failed 550 no a",
                "1/1 Failed 550 no b",
                "2/0 Delivered 250 2.0.0 taken"
            ],
            "{offers:?}"
        );
        assert_eq!(pair.peer.contents, [b"Two\r\n"]);
    }
    // A peer that answers 354 all the same gets a lone dot.
    let mut session = opened(PIPE);
    let mut output = Vec::new();
    session.submit(job(1, &["a@x"], b"secret\r\n"), START, &mut output);
    output.clear();
    session.receive(b"250 ok\r\n550 no a\r\n354 go\r\n", START, &mut output);
    assert_eq!(output, b".\r\n");
    session.receive(b"250 empty\r\n", START, &mut output);
    assert_eq!(statuses(&mut session), [(1, Status::Failed, false)]);
}

fn opened(offers: &str) -> Session {
    let mut session = Session::new(Arc::new(Settings::default()), START);
    let mut output = Vec::new();
    let text = format!("220 toy\r\n250-toy{offers}\r\n250 HELP\r\n");
    session.receive(text.as_bytes(), START, &mut output);
    assert_eq!(output, b"EHLO localhost\r\n");
    assert_eq!(session.poll_event(), Some(Event::Ready));
    session
}

/// Status and `not_attempted` of the first recipient of each finished job.
fn statuses(session: &mut Session) -> Vec<(u64, Status, bool)> {
    let mut all = Vec::new();
    while let Some(event) = session.poll_event() {
        if let Event::Finished { token, results } = event {
            all.push((token, results[0].status, results[0].not_attempted));
        }
    }
    all
}

#[test]
fn the_next_envelope_follows_the_dot() {
    let mut session = opened(PIPE);
    let mut output = Vec::new();
    session.submit(job(1, &["a@x"], b"One\r\n"), START, &mut output);
    assert_eq!(output, b"MAIL FROM:<s@a>\r\nRCPT TO:<a@x>\r\nDATA\r\n");
    assert!(!session.can_take());
    output.clear();
    session.receive(b"250 ok\r\n250 ok\r\n354 go\r\n", START, &mut output);
    assert!(session.can_take());
    session.submit(job(2, &["b@x"], b"Two\r\n"), START, &mut output);
    assert!(!session.can_take());
    assert_eq!(
        output,
        b"One\r\n.\r\nMAIL FROM:<s@a>\r\nRCPT TO:<b@x>\r\nDATA\r\n"
    );
    output.clear();
    session.receive(
        b"250 one\r\n250 ok\r\n250 ok\r\n354 go\r\n",
        START,
        &mut output,
    );
    assert_eq!(output, b"Two\r\n.\r\n");
    // Lost now: the first is delivered, the second was attempted.
    session.ended(START, None);
    assert_eq!(
        statuses(&mut session),
        [(1, Status::Delivered, false), (2, Status::Deferred, false)]
    );
}

#[test]
fn chunking_takes_one_round_trip() {
    let (_, pair) = both(CHUNK, &[], &[job(1, &["a@x", "b@x"], b"One\r\n.dot\r\n")]);
    assert_eq!(pair.rounds, 2, "EHLO and the message");
    assert_eq!(pair.peer.commands.last().unwrap(), "BDAT 11 LAST");
    assert_eq!(pair.peer.contents, [b"One\r\n.dot\r\n"]);
    let jobs: Vec<Job> = (0..10)
        .map(|token| job(token, &["a@x"], b"x\r\n"))
        .collect();
    let (_, pair) = both(PIPE, &[], &jobs);
    assert_eq!(
        pair.rounds, 12,
        "EHLO, the first envelope, one for each content"
    );
}

#[test]
fn the_connection_may_be_lost_at_every_byte() {
    for offers in [PLAIN, PIPE, CHUNK] {
        for budget in 1..400 {
            let pair = run(offers, &[], &two(), 1, budget);
            let results = pair.results();
            if pair.budget > 0 {
                break;
            }
            let submitted = 2 - pair.jobs.len();
            let finished: Vec<u64> = pair.events.iter().filter_map(finished_token).collect();
            assert_eq!(finished.len(), submitted, "{offers:?} {budget} {results:?}");
            assert!(results.last().unwrap().starts_with("broken"), "{results:?}");
            // Whoever was told of delivery by a whole reply is delivered, nobody else.
            let delivered = results
                .iter()
                .filter(|row| row.contains("Delivered"))
                .count();
            assert!(delivered <= [0, 2, 3][pair.peer.contents.len()]);
            assert!(!results.iter().any(|row| row.contains("Failed")));
        }
    }
}

fn finished_token(event: &Event) -> Option<u64> {
    match event {
        Event::Finished { token, .. } => Some(*token),
        _ => None,
    }
}

#[test]
fn a_dead_reused_connection_is_no_attempt() {
    let mut session = opened(PIPE);
    let mut output = Vec::new();
    session.submit(job(1, &["a@x"], b"One\r\n"), START, &mut output);
    session.receive(
        b"250 ok\r\n250 ok\r\n354 go\r\n250 done\r\n",
        START,
        &mut output,
    );
    session.submit(job(2, &["a@x"], b"Two\r\n"), START, &mut output);
    session.receive(b"421 idle too long\r\n", START, &mut output);
    assert_eq!(
        statuses(&mut session),
        [(1, Status::Delivered, false), (2, Status::Deferred, true)]
    );
    // A new connection that dies counts.
    let mut session = opened(PIPE);
    session.submit(job(3, &["a@x"], b"One\r\n"), START, &mut output);
    session.ended(START, Some(104));
    assert_eq!(statuses(&mut session), [(3, Status::Deferred, false)]);
}

#[test]
fn every_stage_times_out() {
    let settings = Settings::default();
    let lines: [(&[u8], u64, &str); 6] = [
        (b"", settings.greeting_ns, "connect"),
        (b"220 x\r\n", settings.mail_ns, "EHLO"),
        (b"250-x\r\n250 PIPELINING\r\n", settings.mail_ns, "MAIL"),
        (b"250 ok\r\n", settings.rcpt_ns, "RCPT"),
        (b"250 ok\r\n", settings.data_ns, "DATA"),
        (b"354 go\r\n", settings.final_ns, "end of content"),
    ];
    for last in 0..lines.len() {
        let mut session = Session::new(Arc::new(settings.clone()), START);
        let mut output = Vec::new();
        for (bytes, _, _) in &lines[..=last] {
            session.receive(bytes, START, &mut output);
            if session.can_take() && session.is_idle() {
                session.submit(job(1, &["a@x"], b"x\r\n"), START, &mut output);
            }
        }
        let (_, wait_ns, name) = lines[last];
        let deadline = session.deadline().unwrap();
        assert_eq!(deadline, START.mono_ns + wait_ns, "{name}");
        session.timeout(Now {
            mono_ns: deadline - 1,
            wall_ms: 0,
        });
        assert!(session.deadline().is_some(), "{name}: too early");
        session.timeout(Now {
            mono_ns: deadline,
            wall_ms: 0,
        });
        assert!(session.deadline().is_none());
        let broken = std::iter::from_fn(|| session.poll_event()).last().unwrap();
        let Event::Broken { failure } = broken else {
            panic!("{name}: {broken:?}")
        };
        assert_eq!(
            failure.reply,
            format!("450 4.4.2 timed out after {name}").into_bytes()
        );
    }
}

#[test]
fn garbage_breaks_the_session() {
    let long = [b'2'; 3000];
    let rows: [&[u8]; 8] = [
        b"HTTP/1.1 400 Bad\r\n",
        b"554 5.7.1 no\r\n",
        b"220-a\r\n250 b\r\n",
        b"\r\n",
        b"220x\r\n",
        b"999 x\r\n",
        &long,
        &b"220-x\r\n".repeat(101),
    ];
    for bytes in rows {
        for step in [1, usize::MAX] {
            let mut session = Session::new(Arc::new(Settings::default()), START);
            for chunk in bytes.chunks(step) {
                session.receive(chunk, START, &mut Vec::new());
            }
            let Some(Event::Broken { failure }) = session.poll_event() else {
                panic!("{:?} was accepted", String::from_utf8_lossy(bytes))
            };
            assert!(!failure.permanent && failure.reply.len() <= 512);
        }
    }
    // A reply nobody asked for.
    let mut session = opened(PIPE);
    session.receive(b"250 surprise\r\n", START, &mut Vec::new());
    assert!(matches!(session.poll_event(), Some(Event::Broken { .. })));
    // Garbage among the offers is no offer.
    let mut session = opened("\r\n250-SIZE lots\r\n250-\r\n250-\x01PIPELINING\r\n250-=AUTH");
    let mut output = Vec::new();
    session.submit(job(1, &["a@x"], b"x\r\n"), START, &mut output);
    assert_eq!(output, b"MAIL FROM:<s@a> SIZE=3\r\n");
}

#[test]
fn what_the_peer_cannot_take_fails_here() {
    let base = || job(1, &["a@x"], b"x\r\n");
    let limited = "\r\n250-SIZE 10\r\n250-BINARYMIME";
    let rows = [
        (
            Job {
                content: Content::Memory(Arc::new(b"more than ten\r\n".to_vec())),
                ..base()
            },
            "552 5.3.4",
        ),
        (
            Job {
                smtputf8: true,
                ..base()
            },
            "550 5.6.7",
        ),
        (
            Job {
                binary: true,
                ..base()
            },
            "554 5.6.3",
        ),
        (
            Job {
                content: Content::Memory(Arc::new(b"a\n.\r\n".to_vec())),
                ..base()
            },
            "554 5.6.11",
        ),
        (
            Job {
                content: Content::Memory(Arc::new(b"a\r".to_vec())),
                ..base()
            },
            "554 5.6.11",
        ),
        (
            Job {
                sender: b"a@b>\r\nRSET".to_vec(),
                ..base()
            },
            "553 5.1.7",
        ),
        (job(1, &["a>b"], b"x\r\n"), "553 5.1.3"),
        (job(1, &["a NOTIFY=NEVER"], b"x\r\n"), "553 5.1.3"),
        (job(1, &["\"a"], b"x\r\n"), "553 5.1.3"),
    ];
    for (job, wanted) in rows {
        let mut session = opened(limited);
        let mut output = Vec::new();
        session.submit(job, START, &mut output);
        assert!(output.is_empty() && session.is_idle(), "{wanted}");
        let Some(Event::Finished { results, .. }) = session.poll_event() else {
            panic!("{wanted}")
        };
        assert_eq!(results[0].status, Status::Failed);
        assert!(results[0].reply.starts_with(wanted.as_bytes()), "{wanted}");
    }
    assert!(!has_bare_line_end(b"a\r\n\r\nb") && has_bare_line_end(b"\r\r\n"));
}

#[test]
fn parameters_are_given_only_when_offered() {
    let mut full = job(1, &["\"q>\"@x"], b"\xc3\xa9\r\n");
    (full.eight_bit, full.ret, full.envid) =
        (true, Some(super::Ret::Headers), Some(b"e1".to_vec()));
    full.recipients[0].notify = 6;
    full.recipients[0].orcpt = Some(b"rfc822;q@x".to_vec());
    let mut output = Vec::new();
    let offers = "\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-8bitmime\r\n250-DSN";
    opened(offers).submit(full.clone(), START, &mut output);
    assert_eq!(
        String::from_utf8_lossy(&output),
        "MAIL FROM:<s@a> SIZE=4 BODY=8BITMIME RET=HDRS ENVID=e1\r\n\
         RCPT TO:<\"q>\"@x> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;q@x\r\nDATA\r\n"
    );
    output.clear();
    opened(PIPE).submit(full, START, &mut output);
    assert_eq!(output, b"MAIL FROM:<s@a>\r\nRCPT TO:<\"q>\"@x>\r\nDATA\r\n");
}

#[test]
fn large_content_goes_in_pieces_and_arrives_whole() {
    // CR, LF and dots meet the ends of pieces at every offset.
    for shift in 0..5 {
        let mut content = vec![b'x'; shift];
        content.extend(b"\r\n.a\r\n..".repeat(30_000));
        for offers in [PLAIN, PIPE, CHUNK] {
            let jobs = [job(1, &["a@x"], &content), job(2, &["a@x"], b"small\r\n")];
            let pair = run(offers, &[], &jobs, usize::MAX, usize::MAX);
            let wanted = [content.as_slice(), b"\r\n"].concat();
            assert!(pair.peer.contents[0] == wanted, "{offers:?} {shift}");
            assert_eq!(pair.peer.contents[1], b"small\r\n");
        }
    }
    // Refused before its end: no content after that, the session is over.
    let mut session = opened(PIPE);
    let mut output = Vec::new();
    session.submit(
        job(1, &["a@x"], &b"x\r\n".repeat(100_000)),
        START,
        &mut output,
    );
    session.receive(b"250 ok\r\n250 ok\r\n354 go\r\n", START, &mut output);
    assert!(output.len() < 70_000);
    session.receive(b"552 5.3.4 too big\r\n", START, &mut output);
    output.clear();
    session.sent(START, &mut output);
    assert!(output.is_empty());
    assert_eq!(statuses(&mut session), [(1, Status::Failed, false)]);
}

#[test]
fn quit_ends_in_order() {
    for bytes in [Some(b"221 bye\r\n"), None] {
        let mut session = opened(PIPE);
        let mut output = Vec::new();
        session.quit(START, &mut output);
        session.quit(START, &mut output);
        assert_eq!(output, b"QUIT\r\n");
        assert!(!session.can_take());
        match bytes {
            Some(bytes) => session.receive(bytes, START, &mut output),
            None => session.ended(START, Some(104)),
        }
        assert_eq!(session.poll_event(), Some(Event::Closed));
        assert_eq!(session.poll_event(), None);
    }
}

/// However the content is cut, the peer gets the same.
#[test]
fn content_that_comes_in_pieces_arrives_whole() {
    let content = b".a\r\n..\r\n.\r\nb\r\n\r\n.c\r\n".repeat(5);
    for size in 1..20 {
        for offers in [PLAIN, PIPE, CHUNK] {
            let mut large = job(1, &["a@x"], b"");
            large.content = Content::Pieces {
                len: content.len() as u64,
                eight_bit: false,
                edits: [].into(),
            };
            let mut toy = Toy::default();
            toy.offers = offers;
            let jobs = vec![large, job(2, &["a@x"], b"small\r\n")];
            let mut pair = Pair::new(Settings::default(), toy, jobs, usize::MAX);
            pair.pieces = (content.clone(), size);
            pair.run(b"220 toy\r\n");
            assert!(pair.peer.contents[0] == content, "{offers:?} {size}");
            assert_eq!(pair.peer.contents[1], b"small\r\n");
        }
    }
}

#[test]
fn content_that_cannot_be_read_on_never_ends() {
    let mut session = opened(PIPE);
    let mut output = Vec::new();
    let mut large = job(1, &["a@x"], b"");
    large.content = Content::Pieces {
        len: 1_000_000,
        eight_bit: true,
        edits: [].into(),
    };
    session.submit(large, START, &mut output);
    assert_eq!(
        session.wants_piece(),
        None,
        "nobody has asked for the content"
    );
    session.receive(b"250 ok\r\n250 ok\r\n354 go\r\n", START, &mut output);
    assert_eq!(session.wants_piece(), Some((1, 0)));
    session.piece(1, b"x\r\n".to_vec());
    assert_eq!(session.wants_piece(), Some((1, 3)), "one is read ahead");
    session.piece(1, b"y\r\n".to_vec());
    assert_eq!(session.wants_piece(), None);
    output.clear();
    session.sent(START, &mut output);
    assert_eq!(output, b"x\r\n");
    output.clear();
    session.abort(1, b"451 4.3.0 content cannot be read");
    session.sent(START, &mut output);
    assert!(output.is_empty());
    assert_eq!(statuses(&mut session), [(1, Status::Deferred, false)]);
}

/// Programs and files of this host travel as parameters, behind the recipient that the sender named.
#[test]
fn targets_are_named_to_our_own_agent_only() {
    let target = |address: &str, original: &str| super::JobRecipient {
        address: address.as_bytes().to_vec(),
        notify: 0,
        orcpt: None,
        privilege: Some(super::Privilege {
            user: 7,
            original: original.as_bytes().to_vec(),
        }),
    };
    let one = |recipient: super::JobRecipient| {
        let mut one = job(1, &[], b"One\r\n");
        one.recipients = vec![recipient];
        one
    };
    let with = |offers: &'static str, job: Job| {
        let settings = Settings {
            lmtp: true,
            ..Settings::default()
        };
        let mut toy = Toy::default();
        toy.table = vec![("LHLO", offers)];
        let mut pair = Pair::new(settings, toy, vec![job], usize::MAX);
        pair.run(GREETING);
        pair
    };
    let ours = "250-toy\r\n250 XTARGET";
    let cases = [
        (
            target("\"|/bin/x \u{e4}\"", "robot@a.example"),
            "RCPT TO:<robot@a.example> XPRIVILEGE=7 XTARGET=\"|/bin/x+20+C3+A4\"",
        ),
        (
            target("/var/f>\"", "no path"),
            "RCPT TO:<postmaster> XPRIVILEGE=7 XTARGET=/var/f>\"",
        ),
        (target("joe@a.example", "x@y"), "RCPT TO:<joe@a.example>"),
    ];
    for (recipient, line) in cases {
        let pair = with(ours, one(recipient));
        assert!(
            pair.peer.commands.iter().any(|sent| sent == line),
            "{line}: {:?}",
            pair.peer.commands
        );
    }
    let refused = with("250 toy", one(target("|/bin/x", "x@y.example")));
    assert!(
        refused.results()[0].starts_with("1/0 Deferred 451 4.3.5"),
        "{:?}",
        refused.results()
    );
    let empty = with(ours, one(target("|", "x@y.example")));
    assert!(
        empty.results()[0].starts_with("1/0 Failed 553 5.1.3"),
        "{:?}",
        empty.results()
    );
    // Elsewhere it is an address like any other.
    let mut elsewhere = one(target("|x@y.example", ""));
    elsewhere.recipients[0].privilege = None;
    let pair = with("250 toy", elsewhere);
    assert!(
        pair.peer
            .commands
            .iter()
            .any(|sent| sent == "RCPT TO:<|x@y.example>")
    );
}
