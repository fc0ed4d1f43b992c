//! Who gets a message, from whom, and what is said of those who do not.

use super::*;

#[test]
fn relayed_mail_is_not_looked_at() {
    let mut script = fake();
    let (result, looked) = finish(&mut script, facts(&["bob@far", "eve@far", "ann"]), "");
    let result = result.unwrap();
    assert!(!looked);
    assert_eq!(result.groups.len(), 1);
    let group = &result.groups[0];
    assert!(group.edits.is_empty() && group.sender == b"alice@src");
    let quads: Vec<String> = group
        .recipients
        .iter()
        .map(|to| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let quad = [&to.channel[..], &to.host, &to.user].map(text);
            format!("{} {} {}", to.of, quad.join(" "), to.privilege)
        })
        .collect();
    assert_eq!(
        quads,
        [
            "0 smtp far bob@far 65534",
            "1 smtp far eve@far 65534",
            "2 local ann ann@here 65534"
        ]
    );
    assert!(script.calls[0].starts_with("router alice@src g1"));
    assert!(script.calls[1].starts_with("router bob@far g2"));
    assert!(script.calls[2].starts_with("crossbar (smtp src alice@src g1) (smtp far bob@far g2)"));
    let attributes = shown(&script.variables[&b"g2"[..]]);
    assert_eq!(attributes, "(privilege 65534 type recipient)");
    assert_eq!(
        shown(&script.variables[&b"g1"[..]]),
        "(privilege 65534 type sender)"
    );
}

/// Nobody would notice that the mail is gone.
#[test]
fn aliases_that_lead_to_themselves_only_are_a_failure() {
    let result = routed(facts(&["sink", "circle", "bob@far"]), "");
    assert_eq!(result.dropped, [0]);
    let problem = &result.problems[0];
    assert_eq!(result.problems.len(), 1);
    assert_eq!((problem.of, problem.status), (Some(1), "5.4.6"));
    assert!(!problem.is_temporary && problem.address == b"circle");
}

#[test]
fn what_cannot_be_routed_is_said() {
    let names = [
        "nobody", "gone", "later", "sink", "bad", "none", "list", "u@weird",
    ];
    let result = routed(facts(&names), "");
    let said: Vec<String> = result
        .problems
        .iter()
        .map(|problem| {
            let text = String::from_utf8_lossy(&problem.text);
            let time = if problem.is_temporary {
                "later"
            } else {
                "never"
            };
            format!("{:?} {time} {} {text}", problem.of.unwrap(), problem.status)
        })
        .collect();
    assert_eq!(
        said,
        [
            "0 never 5.1.1 there is no such user",
            "1 never 5.1.0 moved to the coast",
            "2 later 4.4.3 NS:x/mx",
            "4 later 4.3.5 the routing script gave no route",
            "5 later 4.3.5 the routing script gave no route",
            "7 later 4.3.5 crossbar gave something other than (rewriter from to)",
        ]
    );
    assert_eq!(result.dropped, [3]);
    let of: Vec<u32> = result.groups[0].recipients.iter().map(|to| to.of).collect();
    assert_eq!(of, [6, 6]);
}

#[test]
fn a_reason_to_wait_is_kept() {
    let mut script = fake().with("router", |script, arguments| {
        if word(&arguments[0]) == "alice@src" {
            return router(script, arguments);
        }
        script
            .variables
            .insert(b"defer".to_vec(), text("IO:aliases"));
        None
    });
    let result = finish(&mut script, facts(&["x@y"]), "").0.unwrap();
    assert_eq!(result.problems[0].text, b"IO:aliases");
    assert!(result.problems[0].is_temporary);
}

#[test]
fn limits_of_the_script_end_the_message() {
    for function in ["router", "crossbar", "qualify"] {
        let mut script = fake();
        script.stops_at = Some(function);
        let (result, _) = finish(&mut script, facts(&["u@full"]), "To: a\r\n\r\n");
        assert_eq!(result.unwrap_err(), "too many steps");
    }
    let (result, _) = finish(&mut fake(), facts(&["u@bad"]), "To: a\r\n\r\n");
    let expected = "crossbar names \"no-such-function\", and there is no such function";
    assert_eq!(result.unwrap_err(), expected);
}

#[test]
fn groups_are_made_by_sender_and_rewriter() {
    let mut script = fake().with("crossbar", |script, arguments| {
        let mut result = crossbar(script, arguments)?;
        let user = word(&arguments[1].item(2)?);
        if let (Tree::List(items), true) = (&mut result, user.starts_with("own")) {
            items[1] = list(&["local", "x", "list-owner@here", "g"].map(text));
        }
        Some(result)
    });
    let names = ["a@x", "own1@x", "b@full", "c@y", "own2@full", "own3@z"];
    let content = format!("To: bob{BODY}");
    let result = finish(&mut script, facts(&names), &content).0.unwrap();
    let groups: Vec<(String, Vec<u32>, usize)> = result
        .groups
        .iter()
        .map(|group| {
            let sender = String::from_utf8_lossy(&group.sender).into_owned();
            let of = group.recipients.iter().map(|to| to.of).collect();
            (sender, of, group.edits.len())
        })
        .collect();
    let (alice, owner) = ("alice@src".to_owned(), "list-owner@here".to_owned());
    assert_eq!(
        groups,
        [
            (alice.clone(), vec![0, 3], 0),
            (owner.clone(), vec![1, 5], 0),
            (alice, vec![2], 1),
            (owner, vec![4], 1),
        ]
    );
    // The header was rewritten once for two groups.
    assert!(Arc::ptr_eq(
        &result.groups[2].edits,
        &result.groups[3].edits
    ));
}

#[test]
fn attributes_come_back() {
    let mut script = fake().with("router", |script, arguments| {
        if word(&arguments[0]) != "list@here" {
            return router(script, arguments);
        }
        let mut quad = |name: &str, attributes: &str| script_assign(name, attributes, script);
        let quads = [
            quad("l1", "privilege 12 ERR owner@here DSN NOTIFY=FAILURE"),
            quad("l2", "privilege -2 DSNe E1 DSNr HDRS DSN NOTIFY=NEVER"),
        ];
        Some(list(&quads))
    });
    let mut facts = facts(&["list@here", "b@x"]);
    facts.recipients[0].notary.notify = 1;
    facts.recipients[1].notary.orcpt = Some(b"rfc822;b".to_vec());
    let plain = finish(&mut script, facts.clone(), "").0.unwrap();
    let notary = plain.groups[0].recipients.get(0).unwrap().notary.unwrap();
    assert_eq!((notary.notify, notary.detached), (4, false));
    facts.envid = Some(b"E1".to_vec());
    facts.ret = Some(b"HDRS".to_vec());
    let result = finish(&mut script, facts, "").0.unwrap();
    let first = &result.groups[0];
    assert_eq!(first.errors_to.as_deref(), Some(&b"owner@here"[..]));
    assert_eq!(first.recipients.get(0).unwrap().privilege, 12);
    let notary = first.recipients.get(0).unwrap().notary.unwrap();
    assert_eq!((notary.notify, notary.detached), (4, true));
    let second = &result.groups[1];
    assert_eq!(second.recipients.get(0).unwrap().privilege, 65_534);
    assert_eq!(second.recipients.get(0).unwrap().notary, None);
    assert_eq!(second.recipients.get(1).unwrap().notary, None);
}

fn script_assign(name: &str, attributes: &str, script: &mut Fake) -> Tree {
    let items: Vec<Tree> = attributes.split(' ').map(text).collect();
    script
        .variables
        .insert(name.as_bytes().to_vec(), list(&items));
    let quad = [text("smtp"), text("far"), text("m@far"), text(name)];
    list(&[list(&quad)])
}

/// Addresses of a user's mail have his rights; those of mail he could have made for others have none.
#[test]
fn rights_are_those_of_who_cannot_choose_the_sender() {
    for (origin, sender, recipient) in [
        (joe(false), 2001, 2001),
        (joe(true), 2001, 65_534),
        (Origin::Submission, 65_534, 65_534),
    ] {
        let mut script = fake();
        let mut facts = facts(&["b@x"]);
        facts.sender = b"joe@here".to_vec();
        facts.origin = origin;
        finish(&mut script, facts, BODY).0.unwrap();
        let list = |name: &str| shown(&script.variables[name.as_bytes()]);
        assert_eq!(list("g1"), format!("(privilege {sender} type sender)"));
        assert_eq!(
            list("g2"),
            format!("(privilege {recipient} type recipient)")
        );
    }
}

#[test]
fn a_null_sender_stays_null() {
    let mut facts = facts(&["a@x"]);
    facts.sender.clear();
    facts.keywords = vec![(b"rcvdfrom".to_vec(), b"peer".to_vec())];
    let mut script = fake();
    let result = finish(&mut script, facts, "").0.unwrap();
    assert_eq!(result.groups[0].sender, b"");
    assert!(script.calls[1].starts_with("crossbar (error peer <> ) (smtp x a@x g1)"));
    // A sender whose domain is not known is told all the same.
    let mut facts = self::facts(&["a@x"]);
    facts.sender = b"nobody@here".to_vec();
    let result = routed(facts, "");
    assert_eq!(result.groups[0].sender, b"nobody@here");
}

#[test]
fn the_script_is_told_of_the_envelope() {
    let mut script = fake();
    script.tells = true;
    let mut facts = facts(&["a@x"]);
    facts.keywords = vec![
        (b"with".to_vec(), b"ESMTP".to_vec()),
        (b"external".to_vec(), vec![]),
    ];
    facts.content_len = 60;
    let content = format!("Message-Id: <1@x>\r\nTo: a@x{BODY}");
    let (_, looked) = finish(&mut script, facts.clone(), &content);
    assert!(!looked);
    let info = |script: &Fake| shown(&script.variables[&b"envelopeinfo"[..]]);
    let nobody = "spoolid 17 uid 65534 trusted no now 1000000002 delay 2 size 60";
    let keywords = "with ESMTP external external";
    assert_eq!(info(&script), format!("({nobody} {keywords})"));
    facts.origin = joe(true);
    facts.file = b"4711".to_vec();
    finish(&mut script, facts, &content).0.unwrap();
    let joe = "spoolid 17 uid 2001 trusted yes now 1000000002 delay 2 size 60";
    let header = "file 4711 headersize 28 bodysize 32 resent no message-id <1@x>";
    assert_eq!(info(&script), format!("({joe} {header} {keywords})"));
}

/// Of several ways of one delivery the first is taken that `crossbar` lets pass.
#[test]
fn a_way_that_is_dropped_gives_way_to_the_next() {
    let mut script = fake().with("router", |script, arguments| {
        if word(&arguments[0]) != "either@here" {
            return router(script, arguments);
        }
        let quad = |user: &str| list(&["smtp", "far", user, "g"].map(text));
        let ways = ["drop@1", "drop@2", "b@far", "c@far"].map(quad);
        Some(list(&[list(&ways), list(&[quad("d@far")])]))
    });
    let result = finish(&mut script, facts(&["either@here"]), "").0.unwrap();
    let to = result.groups[0].recipients.iter();
    let users: Vec<Box<[u8]>> = to.map(|to| to.user).collect();
    assert_eq!(users, [b"b@far"[..].into(), b"d@far"[..].into()]);
}

#[test]
fn a_script_without_crossbar_leaves_pairs_alone() {
    let mut script = Fake::default().with("router", router);
    let result = finish(&mut script, facts(&["list@here", "u@full"]), "")
        .0
        .unwrap();
    assert_eq!(result.groups[0].recipients.len(), 4);
    assert!(result.groups[0].edits.is_empty());
}

/// Hundred thousand members take one place each.
#[test]
fn a_long_list_is_taken_by_and_by() {
    const MEMBERS: usize = 20_000;
    let mut script = fake().with("router", |script, arguments| {
        if word(&arguments[0]) != "list@here" {
            return router(script, arguments);
        }
        let quad = |number| {
            let user = format!("member{number}@far");
            list(&[list(&[
                text("smtp"),
                text("far"),
                text(&user),
                arguments[1].clone(),
            ])])
        };
        Some(Tree::List((0..MEMBERS).map(quad).collect()))
    });
    let result = finish(&mut script, facts(&["list@here"]), "").0.unwrap();
    let recipients = &result.groups[0].recipients;
    assert_eq!(recipients.len(), MEMBERS);
    let users = recipients.iter().map(|to| to.user);
    for (number, user) in users.enumerate() {
        assert_eq!(*user, *format!("member{number}@far").as_bytes());
    }
}
