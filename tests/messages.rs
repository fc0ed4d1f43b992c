//! What arrives at the next hop, beside what arrives there from ZMailer 3.0.1: the header of each
//! recorded case, taken through message processing and a small script that routes as the recording
//! host did.
//!
//! Each case is the same or has its reason to differ, and one that differs has to. What is compared is
//! what fields say: folding, blanks behind the colon and the first Received field are not.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use zmailer::mail::address::members;
use zmailer::mail::edit::Editor;
use zmailer::mail::line_ends::ToWire;
use zmailer::mail::{header, message_file};
use zmailer::router::message::{
    Basis, Call, EnvelopeRecipient, Facts, Origin, Owner, Progress, Reply, Routed, Routing, Script,
    Settings, Side, Tree, Turn,
};

const HOST: &str = "mta.example.org";
const ID: &str = "SPOOLID";

/// What is expected of a case.
enum Case {
    /// The fields say the same.
    Same,
    /// They do not, because of this.
    Better(&'static str),
    /// The case is about something else.
    Elsewhere(#[expect(dead_code, reason = "for the reader")] &'static str),
}

use Case::{Better, Elsewhere, Same};

const RELAYED: &str = "mail of others passes as it is (README 2, 5, 7)";
const BODY: &str = "bodies are converted, or not, by who delivers";
const ENVELOPE: &str = "who gets it is the script's affair";
const RECEIVED: &str = "the session refuses what has come round too often";

/// Every case of the index.
const CASES: &[(&str, Case)] = &[
    ("hdr-all-present", Same),
    ("hdr-no-date", Better(RELAYED)),
    ("hdr-no-to-cc-only", Better(RELAYED)),
    ("hdr-no-msgid", Better(RELAYED)),
    ("hdr-none-blank-first", Better(RELAYED)),
    ("hdr-bcc-only", Better(RELAYED)),
    ("sm-t-to-cc-bcc", Same),
    ("resent-full", Same),
    (
        "sm-resent-t",
        Better("the sender's own Resent-From needs no Resent-Sender (README 9)"),
    ),
    ("received-5", Same),
    ("received-29", Same),
    ("received-130", Elsewhere(RECEIVED)),
    ("hdr-long-subject", Same),
    ("hdr-long-nospace", Same),
    (
        "hdr-8bit-no8",
        Better("8-bit bytes in a header pass; they are not labelled by guess (README 12)"),
    ),
    (
        "hdr-groups",
        Better("the punctuation of a group stays right (README 4)"),
    ),
    ("hdr-routes", Same),
    (
        "sm-unqualified",
        Better(
            "the sender's own From needs no Sender; recipients are not masqueraded (README 6, 9)",
        ),
    ),
    ("rewrite-orgdomain", Same),
    ("rewrite-local-null", Same),
    ("sender-untrusted-from", Same),
    (
        "sender-untrusted-own",
        Better("a right Sender stays (README 9)"),
    ),
    ("sender-untrusted-f", Same),
    ("sender-trusted-null", Same),
    ("hdr-order-dups", Same),
    (
        "hdr-malformed",
        Better("a blank before the colon does not end a header; mail of others passes (README 10)"),
    ),
    ("hdr-bad-date", Same),
    ("hdr-undisclosed", Same),
    (
        "hdr-mbox-from",
        Better("mail of others passes as it is (README 10)"),
    ),
    ("body-dots", Same),
    ("body-no-final-newline", Same),
    ("body-dot-alone", Same),
    ("body-empty", Same),
    ("body-8bit-mime", Same),
    ("body-8bit-mime-no8", Elsewhere(BODY)),
    ("body-8bit-nomime", Same),
    ("body-8bit-octet-no8", Same),
    ("body-8bit-ascii-no8", Elsewhere(BODY)),
    ("body-8bit-prohibit-no8", Same),
    ("body-8bit-helo", Elsewhere(BODY)),
    ("env-null-sender", Same),
    ("env-notify-never", Same),
    ("env-null-dsn", Same),
    ("env-multi-hops", Same),
    ("env-alias-chain", Elsewhere(ENVELOPE)),
    ("env-dup-alias", Elsewhere(ENVELOPE)),
    ("env-list-owner", Elsewhere(ENVELOPE)),
    ("env-include", Elsewhere(ENVELOPE)),
    ("env-fqdnalias", Elsewhere(ENVELOPE)),
    ("env-plus-tail", Elsewhere(ENVELOPE)),
    ("env-route-rcpt", Elsewhere(ENVELOPE)),
    ("hop-chunk", Elsewhere("nothing arrives there")),
    (
        "hop-size-small",
        Elsewhere("the next hop is asked, and refuses"),
    ),
    ("sm-8bit", Same),
    ("rt-full", Same),
    ("rt-login", Better("a list in `to` is one (README 22)")),
    ("rt-badkeyword", Elsewhere("pick-up keeps such a file")),
    ("rt-channel-error", Same),
    ("rt-empty", Elsewhere("pick-up keeps such a file")),
    ("hdr-nocolon-line", Same),
    ("hdr-unclosed-angle", Same),
    (
        "hdr-8bit-address",
        Better("8-bit bytes in a header pass; they are not labelled by guess (README 12)"),
    ),
    ("sm-F-plain", Same),
    ("rt-include", Elsewhere("pick-up keeps such a file")),
    ("rt-crlf", Same),
    ("body-qp-no8", Same),
    ("body-dot-qp-no8", Elsewhere(BODY)),
];

#[test]
fn every_case_is_the_same_or_has_its_reason() {
    let index = fs::read_to_string(folder().join("index.tsv")).unwrap();
    let index: BTreeMap<&str, Vec<&str>> = index
        .lines()
        .skip(1)
        .map(|line| line.split('\t').collect::<Vec<&str>>())
        .map(|line| (line[1], line))
        .collect();
    assert_eq!(index.len(), CASES.len(), "a case is missing in the table");
    let mut wrong = Vec::new();
    for (name, case) in CASES {
        let line = &index[name];
        if matches!(case, Elsewhere(_)) {
            continue;
        }
        let theirs = reference(name);
        let ours = ours(name, line[2], line[3], line[4]);
        let is_same = theirs == ours;
        match case {
            Same if !is_same => {
                wrong.push(format!("{name} differs:\n{}", side_by_side(&theirs, &ours)))
            }
            Better(reason) if is_same => {
                wrong.push(format!("{name} is the same, in spite of: {reason}"))
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Cases that differ differ in the way that is meant.
#[test]
fn differences_are_those_that_are_meant() {
    let lines = |name: &str, kind: &str, uid: &str, args: &str| ours(name, kind, uid, args);
    for name in [
        "hdr-no-date",
        "hdr-bcc-only",
        "hdr-mbox-from",
        "hdr-malformed",
        "hdr-8bit-no8",
    ] {
        let input = fields_of(&input(name, "smtp").0);
        assert_eq!(
            lines(name, "smtp", "-", ""),
            input,
            "{name} passes as it is"
        );
    }
    let own = lines(
        "sender-untrusted-own",
        "sendmail",
        "2001",
        "bob@far.example.com",
    );
    assert!(
        own.contains(&"Sender: joe@mta.example.org".to_owned()),
        "{own:?}"
    );
    assert!(
        !own.iter().any(|line| line.starts_with("Fake-Sender")),
        "{own:?}"
    );
    let names = lines("sm-unqualified", "sendmail", "2001", "bob@far.example.com");
    assert_eq!(
        names[..4],
        [
            "From: joe@mta.example.org",
            "To: bob@mta.example.org, Joe <joe@mta.example.org>",
            "Cc: ann@mta.example.org, ann@mta.example.org",
            "Reply-To: helpdesk@mta.example.org",
        ]
    );
    let resent = lines("sm-resent-t", "sendmail", "2001", "-t");
    assert_eq!(resent[0], "Resent-From: joe@mta.example.org");
    let both = routed("rt-login", "router", "2001", "").1;
    assert_eq!(both.groups[0].recipients.len(), 2);
}

fn side_by_side(theirs: &[String], ours: &[String]) -> String {
    format!(
        "  theirs:\n    {}\n  ours:\n    {}",
        theirs.join("\n    "),
        ours.join("\n    ")
    )
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/messages")
}

fn read(name: &str, extension: &str) -> Vec<u8> {
    let path = folder().join("open").join(format!("{name}.{extension}"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Lines of a recording with one of these prefixes, with `\xNN` and `\\` undone.
fn recorded(file: &[u8], prefix: &str) -> Vec<Vec<u8>> {
    let lines = file.split(|byte| *byte == b'\n');
    let lines = lines.filter_map(|line| line.strip_prefix(prefix.as_bytes()));
    lines.map(unescaped).collect()
}

fn unescaped(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = line;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match (first, behind) {
            (b'\\', [b'x', high, low, ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap();
                out.push(u8::from_str_radix(digits, 16).unwrap());
                rest = &behind[3..];
            }
            (b'\\', [b'\\', ..]) => {
                out.push(b'\\');
                rest = &behind[1..];
            }
            _ => out.push(*first),
        }
    }
    out
}

/// The message in the lines of a data phase.
fn data(lines: Vec<Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines {
        if line == b"." {
            break;
        }
        out.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// What ZMailer sent first, or put into a mailbox first.
fn reference(name: &str) -> Vec<String> {
    let file = read(name, "hop");
    let sent = recorded(&file, "D: ");
    let message = if sent.is_empty() {
        let stored = recorded(&file, "M: ");
        let message: Vec<Vec<u8>> = stored.into_iter().skip(1).collect();
        message.join(&b"\r\n"[..])
    } else {
        data(sent)
    };
    fields_of(&message)
}

/// What the fields of a message say, without its first Received field and what the last host adds.
fn fields_of(message: &[u8]) -> Vec<String> {
    let last = [
        "Return-Path",
        "X-Envelope-To",
        "X-Orcpt",
        "Original-Recipient",
    ];
    let mut is_traced = false;
    let mut all = Vec::new();
    let mut fields = header::fields(message);
    for field in fields.by_ref() {
        if field.is("Received") && !std::mem::replace(&mut is_traced, true) {
            continue;
        }
        if last.iter().any(|name| field.is(name)) {
            continue;
        }
        let name = String::from_utf8_lossy(field.name).into_owned();
        let text = String::from_utf8_lossy(field.value).into_owned();
        let mut text = text.split_whitespace().collect::<Vec<&str>>().join(" ");
        if text.contains(ID) || text.contains("@ID1@/") {
            text = "@MESSAGE-ID@".to_owned();
        }
        if text == "Sun, 09 Sep 2001 01:46:40 +0000" {
            text = "@DATE@".to_owned();
        }
        all.push(format!("{name}: {text}"));
    }
    // A header that ends too early shows in its first line behind the fields.
    let rest = fields.rest();
    let rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
    let line = rest.split(|byte| *byte == b'\r').next().unwrap_or_default();
    all.push(format!("body: {}", String::from_utf8_lossy(line)));
    all
}

/// Sender, recipients and keywords of a case, and its message with line ends of the wire.
type Input = (Vec<u8>, Facts);

fn input(name: &str, kind: &str) -> Input {
    match kind {
        "smtp" => by_smtp(&read(name, "smtp")),
        "sendmail" => (wire(&read(name, "stdin")), Facts::default()),
        _ => by_file(&read(name, "router")),
    }
}

fn wire(text: &[u8]) -> Vec<u8> {
    let (mut ends, mut out) = (ToWire::default(), Vec::new());
    ends.feed(text, &mut out);
    ends.end(out.is_empty(), &mut out);
    out
}

fn by_smtp(file: &[u8]) -> Input {
    let mut facts = Facts::default();
    for line in recorded(file, "C: ") {
        let text = String::from_utf8_lossy(&line).into_owned();
        let address = text
            .split_once('<')
            .and_then(|(_, rest)| rest.split_once('>'));
        let address = address.map(|(address, _)| address.as_bytes().to_vec());
        if text.starts_with("MAIL") {
            facts.sender = address.unwrap_or_default();
        } else if text.starts_with("RCPT") {
            facts.recipients.push(recipient(address.unwrap()));
        }
    }
    let mut content = format!("Received: from client by {HOST} id {ID}; now\r\n").into_bytes();
    content.extend(data(recorded(file, "D: ")));
    (content, facts)
}

fn by_file(file: &[u8]) -> Input {
    let (envelope, at) = message_file::parse(file).unwrap();
    let mut facts = Facts {
        sender: envelope.sender.unwrap_or_default(),
        ..Facts::default()
    };
    let addresses = envelope.recipients.into_iter().map(|to| to.address);
    facts.recipients = addresses.map(recipient).collect();
    if envelope.external {
        facts.keywords.push((b"external".to_vec(), Vec::new()));
    }
    (wire(&file[at..]), facts)
}

fn recipient(address: Vec<u8>) -> EnvelopeRecipient {
    EnvelopeRecipient {
        address,
        ..EnvelopeRecipient::default()
    }
}

/// A case through message processing: its content, and what becomes of it.
fn routed(name: &str, kind: &str, uid: &str, args: &str) -> (Vec<u8>, Routed) {
    let (mut content, mut facts) = input(name, kind);
    facts.id = ID.to_owned();
    facts.arrival_ms = 1_000_000_000_000;
    if kind != "smtp" {
        content.splice(
            0..0,
            format!("Received: from user by {HOST} id {ID}\r\n").into_bytes(),
        );
        let mut owner = Owner {
            uid: uid.parse().unwrap(),
            login: b"joe".to_vec(),
            full_name: if uid == "0" { &b""[..] } else { b"Joe User" }.to_vec(),
            trusted: uid == "0",
        };
        let words: Vec<&str> = args.split_whitespace().collect();
        if let Some((_, name)) = args.split_once("-F '") {
            owner.full_name = name.split('\'').next().unwrap().as_bytes().to_vec();
        }
        if kind == "sendmail" {
            facts.sender = if args.contains("-f '<>'") {
                Vec::new()
            } else {
                format!("joe@{HOST}").into_bytes()
            };
            let is_last = |word: &&&str| word.ends_with("@far.example.com");
            let named = words.iter().filter(is_last);
            facts.recipients = named
                .map(|word| recipient(word.as_bytes().to_vec()))
                .collect();
        } else if facts.sender.is_empty() && uid != "0" {
            facts.sender = format!("joe@{HOST}").into_bytes();
        }
        facts.origin = Origin::of_file(owner, !facts.keywords.is_empty());
    }
    facts.content_len = content.len() as u64;
    let settings = Arc::new(Settings {
        hostname: HOST.to_owned(),
        ..Settings::default()
    });
    let mut routing = Routing::new(facts, Rc::new(Basis::new(settings)));
    let mut script = Host::default();
    match routing.run(&mut script, Some(&content)) {
        Progress::Done(routed) => (content, routed),
        Progress::Need(never) => match never {},
        Progress::Content | Progress::Stopped(_) => panic!("{name} does not stop"),
    }
}

fn ours(name: &str, kind: &str, uid: &str, args: &str) -> Vec<String> {
    let (content, routed) = routed(name, kind, uid, args);
    let group = routed
        .groups
        .first()
        .unwrap_or_else(|| panic!("{name}: {routed:?}"));
    let (mut editor, mut out) = (Editor::default(), Vec::new());
    editor.feed(&group.edits, &content, &mut out);
    editor.end(&group.edits, &mut out);
    fields_of(&out)
}

/// Nothing is ever needed.
enum Never {}

/// A script that routes by local names, and qualifies the headers of local senders.
#[derive(Default)]
struct Host {
    call: Option<(Vec<u8>, Vec<Tree>, Option<Side>)>,
    names: usize,
}

fn text_of(tree: &Tree) -> String {
    match tree {
        Tree::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Tree::List(_) => String::new(),
    }
}

fn tree(words: &[&str]) -> Tree {
    Tree::List(
        words
            .iter()
            .map(|word| Tree::Text(word.as_bytes().to_vec()))
            .collect(),
    )
}

const OURS: [&str; 4] = [HOST, "example.org", "localhost", "mta"];

/// The user of a local address.
fn local_user(address: &str) -> Option<&str> {
    match address.rsplit_once('@') {
        None => Some(address),
        Some((user, domain)) => {
            let domain = domain.to_ascii_lowercase();
            OURS.contains(&domain.as_str()).then_some(user)
        }
    }
}

impl Host {
    fn router(address: &str, attributes: &str) -> Tree {
        let quad = match local_user(address) {
            Some(user) => tree(&["local", address, &format!("{user}@{HOST}"), attributes]),
            None => {
                let domain = address.rsplit('@').next().unwrap_or_default();
                tree(&["smtp", domain, address, attributes])
            }
        };
        Tree::List(vec![Tree::List(vec![quad])])
    }

    fn qualified(address: &str, side: Option<Side>) -> String {
        // Routes and the marks of other networks are left alone.
        if address.contains([':', '%', '!']) {
            return address.to_owned();
        }
        match local_user(address) {
            Some("ann") if side == Some(Side::Sender) => "Ann.Other@example.com".to_owned(),
            Some(user) => format!("{user}@{HOST}"),
            None => address.to_owned(),
        }
    }
}

impl Script for Host {
    type Value = Tree;
    type Need = Never;

    fn defines(&self, _: &[u8]) -> bool {
        true
    }

    fn mentions(&self, _: &[u8]) -> bool {
        false
    }

    fn fresh_name(&mut self) -> Vec<u8> {
        self.names += 1;
        format!("g{}", self.names).into_bytes()
    }

    fn assign(&mut self, _: &[u8], _: Tree) {}

    fn variable(&self, _: &[u8]) -> Option<Tree> {
        None
    }

    fn begin(&mut self, call: Call<'_, Tree>) {
        self.call = Some((call.function.to_vec(), call.arguments, call.side));
    }

    fn run(&mut self) -> Turn<Reply<Tree>, Never> {
        let (function, arguments, side) = self.call.take().unwrap();
        let value = match function.as_slice() {
            b"router" => Self::router(&text_of(&arguments[0]), &text_of(&arguments[1])),
            b"crossbar" => {
                let Tree::List(from) = &arguments[0] else {
                    panic!();
                };
                // Channel error without a host: submitted here, like what is local.
                let channel = (text_of(&from[0]), text_of(&from[1]));
                let is_local = channel.0 == "local" || channel == ("error".into(), "-".into());
                let rewriter = if is_local { "internet" } else { "null" };
                let rewriter = Tree::Text(rewriter.as_bytes().to_vec());
                Tree::List(vec![rewriter, arguments[0].clone(), arguments[1].clone()])
            }
            _ => Tree::Text(Self::qualified(&text_of(&arguments[0]), side).into_bytes()),
        };
        Turn::Done(Reply {
            status: 0,
            value: Some(value),
            printed: Vec::new(),
        })
    }
}

/// The table would say nothing if the lists it compares were not read.
#[test]
fn recordings_are_read() {
    let (content, facts) = input("hdr-groups", "smtp");
    assert_eq!(facts.recipients.len(), 1);
    let to = header::fields(&content)
        .find(|field| field.is("To"))
        .unwrap();
    assert_eq!(members(to.value).count(), 3);
    assert!(
        reference("hdr-groups")
            .iter()
            .any(|line| line.starts_with("To: Friends:"))
    );
    assert_eq!(unescaped(br"a\xe9\\b"), b"a\xe9\\b");
}
