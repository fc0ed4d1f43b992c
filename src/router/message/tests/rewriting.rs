//! Headers through the functions of a script.

use super::*;

#[test]
fn only_the_address_is_rewritten() {
    let content = format!(
        "Received: x\r\nFrom: Al (me) <alice>,\r\n\t\"x, y\" <b @ c>\r\n\
         To: Friends: bob (x), <carol>;, two words\r\nSubject: joe\r\nReply-To: root{BODY}"
    );
    let mut script = fake();
    let (result, looked) = finish(&mut script, facts(&["u@full"]), &content);
    let result = result.unwrap();
    assert!(looked);
    assert_eq!(
        delivered(&result.groups[0], &content),
        format!(
            "Received: x\r\nFrom: Al (me) <alice@here>,\r\n\t\"x, y\" <b @ c>\r\n\
             To: Friends: bob@here (x), <carol@here>;, two words\r\nSubject: joe\r\n\
             Reply-To: \"The Boss\" <boss@here>{BODY}"
        )
    );
    let calls: Vec<&String> = script
        .calls
        .iter()
        .filter(|call| call.starts_with("qualify"))
        .collect();
    assert_eq!(
        calls,
        [
            "qualify alice From",
            "qualify b@c From",
            "qualify bob To",
            "qualify carol To",
            "qualify root Reply-To"
        ]
    );
}

#[test]
fn a_rewriter_cannot_add_lines() {
    let content = format!("From: evil\r\nTo: <root>, pete(his)@(host)x{BODY}");
    let result = routed(facts(&["u@full"]), &content);
    assert_eq!(
        delivered(&result.groups[0], &content),
        format!("From: evil\r\nTo: <boss@here>, pete(his)@(host)x{BODY}")
    );
    assert_eq!(result.events, [Event::IllHeader(b"qualify".to_vec())]);
}

/// A blank may stand inside an address, and so could a line end.
#[test]
fn an_address_of_two_lines_is_none() {
    let content = format!("To: joe{BODY}");
    for (given, expected) in [
        ("x@\r\n\ty", "joe"),
        ("@r:x@y", "<@r:x@y>"),
        ("x @ y", "x @ y"),
        ("", "joe"),
    ] {
        let mut script = fake().with("qualify", move |_, _| Some(text(given)));
        let facts = facts(&["u@full"]);
        let result = finish(&mut script, facts, &content).0.unwrap();
        let out = delivered(&result.groups[0], &content);
        assert_eq!(out, format!("To: {expected}{BODY}"));
    }
}

#[test]
fn comments_inside_an_address_are_kept() {
    let content = format!("To: joe (the (one)){BODY}");
    let mut script = fake().with("qualify", |_, _| Some(text("x@y")));
    let result = finish(&mut script, facts(&["u@full"]), &content).0.unwrap();
    assert_eq!(
        delivered(&result.groups[0], &content),
        format!("To: x@y (the (one)){BODY}")
    );
    let content = format!("To: joe(a)@(b)z, <@r:j@z>{BODY}");
    let result = finish(&mut script, facts(&["u@full"]), &content).0.unwrap();
    assert_eq!(
        delivered(&result.groups[0], &content),
        format!("To: x@y (a) (b), <x@y>{BODY}")
    );
}

/// RFC 5322 2.1.1: a line of many short names grew beyond 998 bytes.
#[test]
fn long_lines_are_folded() {
    let names: Vec<String> = (0..200).map(|number| format!("u{number:03}")).collect();
    let content = format!("To: {}{BODY}", names.join(", "));
    let result = routed(facts(&["u@full"]), &content);
    let out = delivered(&result.groups[0], &content);
    assert!(out.lines().all(|line| line.len() < 998), "{out}");
    assert!(out.lines().count() < 8, "{out}");
    let joined = out.replace("\r\n\t", "");
    assert!(joined.starts_with("To: u000@here, u001@here, u002@here"));
    assert_eq!(joined.matches("@here").count(), 200);
}

#[test]
fn what_is_added_is_rewritten_too() {
    let content = format!("To: bob\r\nMessage-Id: <1@x>\r\n{DATE}{BODY}");
    let mut script = fake().with("qualify", |_, arguments| {
        let address = word(&arguments[0]);
        Some(text(&address.replace("joe@here", "Joe.User@corp")))
    });
    let mut facts = facts(&["u@full"]);
    facts.sender = b"joe@here".to_vec();
    facts.origin = joe(false);
    let result = finish(&mut script, facts, &content).0.unwrap();
    let out = delivered(&result.groups[0], &content);
    assert_eq!(out, format!("From: Joe User <Joe.User@corp>\r\n{content}"));
}

#[test]
fn header_functions_see_every_field() {
    let script = || {
        fake().with("fields", |_, arguments| {
            let [stage, name, value] = [0, 1, 2].map(|at| word(&arguments[at]));
            let pair = |name: &str, value: &str| list(&[text(name), text(value)]);
            Some(match (stage.as_str(), name.as_str()) {
                ("hrr_ab", "") => list(&[pair("X-First", "1"), pair("X-Two", "a\\nb")]),
                ("hrr_ae", "") => list(&[pair("X-Last", "end\\nBcc: x")]),
                ("hrr_rr", "Subject") => {
                    assert_eq!(value, "\\040a\\052\\012\\011b");
                    list(&[pair("Subject", "changed")])
                }
                ("hrr_rr", "X-Drop") => list(&[list(&[])]),
                ("hrr_rr", "X-Odd") => text("odd"),
                ("hrr_rr", name) => list(&[pair(name, &value)]),
                _ => panic!("{stage} {name}"),
            })
        })
    };
    let content =
        format!("Received: x\r\nTo: bob\r\nSubject: a*\r\n\tb\r\nX-Drop: 1\r\nX-Odd: 2{BODY}");
    let first = "X-First: 1\r\nX-Two: a\r\n\tb\r\nReceived: x\r\n";
    let last = format!("Subject: changed\r\nX-Odd: 2\r\nX-Last: end\r\n\tBcc: x{BODY}");
    for (recipient, to) in [("u@both", "bob@here"), ("u@fields", "bob")] {
        let mut script = script();
        let result = finish(&mut script, facts(&[recipient]), &content)
            .0
            .unwrap();
        let out = delivered(&result.groups[0], &content);
        assert_eq!(out, format!("{first}To: {to}\r\n{last}"));
        assert_eq!(result.events, [Event::IllHeader(b"fields".to_vec())]);
        let to_seen = script.calls.iter().any(|call| call.contains("hrr_rr To"));
        assert_eq!(to_seen, recipient == "u@fields");
    }
}

#[test]
fn a_rewriting_that_has_to_wait_asks_header_defer() {
    let mut script = fake()
        .with("qualify", |script, _| {
            script.variables.insert(b"defer".to_vec(), text("NS:x"));
            None
        })
        .with("header_defer", |script, arguments| {
            assert_eq!(script.side, Some(Side::Recipient));
            Some(text(&format!("{}@later", word(&arguments[0]))))
        });
    let content = format!("To: bob{BODY}");
    let result = finish(&mut script, facts(&["u@full"]), &content).0.unwrap();
    assert_eq!(
        delivered(&result.groups[0], &content),
        format!("To: bob@later{BODY}")
    );
}

/// It failed as well, and was asked for ever.
#[test]
fn header_defer_is_asked_once() {
    let fail = |script: &mut Fake, _: &[Tree]| {
        script.variables.insert(b"defer".to_vec(), text("NS:x"));
        None
    };
    let mut script = fake().with("qualify", fail).with("header_defer", fail);
    let content = format!("To: bob, eve{BODY}");
    let result = finish(&mut script, facts(&["u@full"]), &content).0.unwrap();
    assert!(result.groups[0].edits.is_empty());
    let asked = |name: &str| {
        script
            .calls
            .iter()
            .filter(|call| call.starts_with(name))
            .count()
    };
    assert_eq!((asked("qualify"), asked("header_defer")), (2, 2));
}

mod hostile {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the header is, and whatever a function makes of its addresses: the edits are in order,
        /// the result has no more fields than it had and were added, and the body passes.
        #[test]
        fn any_header_can_be_rewritten(
            fields in "((To|From|Cc|Sender|Resent-From|Bcc|X):[\"\\\\()<>\\[\\]@:;,.ab \t]{0,40}(\r\n[ \t]?)){0,6}",
            given in "[\"\\\\()<>@:;,.ab \r\n]{0,12}",
            user in any::<bool>(),
        ) {
            let content = format!("{fields}\r\nbody\r\n");
            let mut script = fake().with("qualify", move |_, _| Some(text(&given)));
            let mut facts = facts(&["u@full", "v@x"]);
            if user {
                facts.origin = joe(false);
            }
            let result = finish(&mut script, facts, &content).0.unwrap();
            let before = crate::mail::header::fields(content.as_bytes()).count();
            for group in &result.groups {
                let out = delivered(group, &content);
                prop_assert!(out.ends_with("\r\nbody\r\n"));
                let after = crate::mail::header::fields(out.as_bytes()).count();
                prop_assert!(after <= before + 6, "{out}");
                if !user {
                    prop_assert_eq!(after, before, "{}", out);
                }
            }
        }
    }
}
