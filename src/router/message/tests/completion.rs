//! Submitted mail: what is added, what is removed, who the sender is.

use super::*;

#[test]
fn submitted_mail_is_completed() {
    let content = format!("To: bob@x\r\nBcc: eve@x\r\nSubject: s\r\nReturn-Path: <q>{BODY}");
    let out = submitted(joe(false), "bob@x", &content);
    let from = "From: Joe User <joe@here>\r\n";
    let expected =
        format!("{from}To: bob@x\r\nSubject: s\r\nMessage-Id: <17@here>\r\n{DATE}{BODY}");
    assert_eq!(out, expected);
    // Without any header, and without the line that ends it.
    let expected = format!(
        "Message-Id: <17@here>\r\n{from}To: unlisted-recipients:; (no To-header on input)\r\n\
         {DATE}\r\njust text\r\n"
    );
    let out = submitted(joe(false), "bob@x", "just text\r\n");
    assert_eq!(out, expected);
    // Cc is a destination too; what is complete is not changed.
    let content = format!("From: joe\r\nCc: a@x\r\nMessage-Id: <1@x>\r\n{DATE}{BODY}");
    assert_eq!(submitted(joe(false), "bob@x", &content), content);
    let content = "To: a@x";
    let out = submitted(joe(false), "bob@x", content);
    assert_eq!(
        out,
        format!("{from}To: a@x\r\nMessage-Id: <17@here>\r\n{DATE}\r\n")
    );
}

#[test]
fn a_client_that_submits_gets_the_same() {
    let content = format!("Subject: s{BODY}");
    let out = submitted(Origin::Submission, "bob@x", &content);
    assert!(out.starts_with("From: <joe@here>\r\nSubject: s\r\nMessage-Id: <17@here>\r\nTo: unl"));
    let mut null = facts(&["bob@x"]);
    null.origin = Origin::Submission;
    null.sender.clear();
    let result = routed(null, &content);
    assert!(result.events.contains(&Event::NoSender));
}

#[test]
fn lines_of_a_mailbox_file_go() {
    let content = format!(
        "Received: x\r\nFrom joe Wed Feb 14 10:11:12 2001\r\n>From y\r\nFrom: joe\r\nTo: a@x\r\n\
         Message-Id: <1@x>\r\n{DATE}{BODY}"
    );
    let expected =
        format!("Received: x\r\nFrom: joe\r\nTo: a@x\r\nMessage-Id: <1@x>\r\n{DATE}{BODY}");
    assert_eq!(submitted(joe(false), "bob@x", &content), expected);
}

#[test]
fn a_user_does_not_pass_for_somebody_else() {
    let rest = format!("To: b@x\r\nMessage-Id: <1@x>\r\n{DATE}{BODY}");
    let sender = "Sender: Joe User <joe@here>\r\n";
    let cases = [
        // What he may say.
        ("From: joe\r\n", "From: joe\r\n".to_owned()),
        (
            "From: J <Joe@HERE>\r\n",
            "From: J <Joe@HERE>\r\n".to_owned(),
        ),
        ("From: joe+x\r\n", "From: joe+x\r\n".to_owned()),
        (
            "Sender: joe@here\r\nFrom: a@b\r\n",
            "Sender: joe@here\r\nFrom: a@b\r\n".to_owned(),
        ),
        // What he may not.
        (
            "From: boss@corp\r\n",
            format!("{sender}From: boss@corp\r\n"),
        ),
        ("From: ann\r\n", format!("{sender}From: ann\r\n")),
        ("From: joe, ann\r\n", format!("{sender}From: joe, ann\r\n")),
        ("From: \r\n", format!("{sender}From: \r\n")),
        (
            "From: a@b\r\nSender: boss@corp\r\n",
            format!("From: a@b\r\n{sender}Fake-Sender: boss@corp\r\n"),
        ),
    ];
    for (given, expected) in cases {
        let content = format!("{given}{rest}");
        let out = submitted(joe(false), "b@x", &content);
        assert_eq!(out, format!("{expected}{rest}"), "{given}");
        assert_eq!(submitted(joe(true), "b@x", &content), content, "{given}");
    }
    let mut facts = facts(&["b@x"]);
    facts.origin = joe(false);
    let result = routed(facts, &format!("From: a@b\r\nSender: boss@corp\r\n{rest}"));
    assert!(
        result
            .events
            .contains(&Event::BreakIn(b"boss@corp".to_vec()))
    );
}

/// `-f` names another sender, and From is made of it: then who sent it is said besides.
#[test]
fn a_made_from_is_compared_too() {
    let mut facts = facts(&["b@x"]);
    facts.origin = joe(false);
    let content = format!("To: b@x\r\nMessage-Id: <1@x>\r\n{DATE}{BODY}");
    let result = routed(facts, &content);
    let out = delivered(&result.groups[0], &content);
    let added = "Sender: Joe User <joe@here>\r\nFrom: Joe User <alice@src>\r\n";
    assert_eq!(out, format!("{added}{content}"));
}

#[test]
fn resent_mail_keeps_what_it_said() {
    let content = format!("Resent-To: b@x\r\nFrom: a@b\r\nTo: c@d\r\nSubject: s{BODY}");
    let out = submitted(joe(false), "b@x", &content);
    let date = DATE.replace("Date", "Resent-Date");
    let expected = format!(
        "Resent-From: Joe User <joe@here>\r\nResent-To: b@x\r\nFrom: a@b\r\nTo: c@d\r\n\
         Subject: s\r\nResent-Message-Id: <17@here>\r\n{date}{BODY}"
    );
    assert_eq!(out, expected);
    let content = content.replace("Resent-To", "Resent-From: boss@corp\r\nResent-To");
    let out = submitted(joe(false), "b@x", &content);
    assert!(out.starts_with("Resent-Sender: Joe User <joe@here>\r\nResent-From: boss@corp\r\n"));
}

#[test]
fn recipients_come_from_the_header() {
    let mut facts = facts(&[]);
    facts.origin = joe(true);
    let content = format!("To: a@x, <b@y>\r\nCc: two words\r\nBcc: c@z\r\nFrom: joe{BODY}");
    let result = routed(facts.clone(), &content);
    let found: Vec<&[u8]> = result.found.iter().map(|to| &to.address[..]).collect();
    assert_eq!(found, [&b"a@x"[..], b"b@y", b"c@z"]);
    assert_eq!(result.groups[0].recipients.len(), 3);
    assert_eq!(result.problems[0].address, b"two words");
    assert_eq!(result.problems[0].status, "5.1.3");
    let result = routed(facts, &format!("Subject: s{BODY}"));
    assert_eq!(result.problems[0].text, b"no recipient is named");
    assert!(result.groups.is_empty());
}

#[test]
fn a_loop_is_seen() {
    let content = format!("{}To: a@x{BODY}", "Received: x\r\n".repeat(101));
    let mut facts = facts(&["a@x"]);
    facts.origin = joe(true);
    let result = routed(facts, &content);
    assert_eq!(result.problems[0].status, "5.4.6");
    assert!(result.groups.is_empty() && result.problems[0].of.is_none());
}

#[test]
fn bad_fields_are_reported() {
    let content = format!(
        "From: Al <a@x\r\nTo: two words\r\nDate: noon\r\nMessage-Id: x\r\nCc: (a) b@c{BODY}"
    );
    let mut facts = facts(&["a@x"]);
    facts.origin = joe(true);
    let result = routed(facts, &content);
    let event = |name: &str| Event::BadHeader(name.as_bytes().to_vec());
    let bad = |text: &str| Event::BadAddress(text.as_bytes().to_vec());
    assert_eq!(
        result.events,
        [
            bad("Al <a@x"),
            event("From"),
            bad("two words"),
            event("To"),
            event("Date"),
            event("Message-Id")
        ]
    );
    // The message goes as it is.
    assert!(result.groups[0].edits.iter().all(|edit| edit.remove == 0));
}
