//! Whole messages through a script of Rust closures. Each call first asks for something from outside,
//! so that every suspension is met.

mod completion;
mod deliveries;
mod machine;
mod rewriting;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::*;
use crate::mail::edit::{Editor, are_ordered, edited_len};

type Function = Box<dyn Fn(&mut Fake, &[Tree]) -> Option<Tree>>;

/// A script whose functions are closures.
#[derive(Default)]
pub(super) struct Fake {
    functions: HashMap<Vec<u8>, Option<Function>>,
    variables: HashMap<Vec<u8>, Tree>,
    names: usize,
    call: Option<(Vec<u8>, Vec<Tree>)>,
    /// The call under way has been told that it may go on.
    is_answered: bool,
    side: Option<Side>,
    calls: Vec<String>,
    tells: bool,
    stops_at: Option<&'static str>,
}

impl Fake {
    fn with(
        mut self,
        name: &str,
        function: impl Fn(&mut Fake, &[Tree]) -> Option<Tree> + 'static,
    ) -> Self {
        let function: Function = Box::new(function);
        self.functions.insert(name.into(), Some(function));
        self
    }
}

impl Script for Fake {
    type Value = Tree;
    type Need = &'static str;

    fn defines(&self, function: &[u8]) -> bool {
        self.functions.contains_key(function)
    }

    fn mentions(&self, _: &[u8]) -> bool {
        self.tells
    }

    fn fresh_name(&mut self) -> Vec<u8> {
        self.names += 1;
        format!("g{}", self.names).into_bytes()
    }

    fn assign(&mut self, variable: &[u8], value: Tree) {
        self.variables.insert(variable.to_vec(), value);
    }

    fn variable(&self, name: &[u8]) -> Option<Tree> {
        self.variables.get(name).cloned()
    }

    fn begin(&mut self, call: Call<'_, Tree>) {
        assert!(self.call.is_none(), "one call at a time");
        let words: Vec<String> = call.arguments.iter().map(shown).collect();
        let name = String::from_utf8_lossy(call.function);
        self.calls.push(format!("{name} {}", words.join(" ")));
        self.side = call.side;
        self.call = Some((call.function.to_vec(), call.arguments));
        self.is_answered = false;
    }

    fn run(&mut self) -> Turn<Reply<Tree>, &'static str> {
        if !std::mem::replace(&mut self.is_answered, true) {
            return Turn::Need("anything");
        }
        let (name, arguments) = self.call.take().expect("a call is under way");
        if self.stops_at.is_some_and(|stop| stop.as_bytes() == name) {
            return Turn::Stopped("too many steps".to_owned());
        }
        let function = self.functions.get_mut(&name).and_then(Option::take);
        let value = function
            .as_ref()
            .and_then(|function| function(self, &arguments));
        self.functions.insert(name, function);
        Turn::Done(Reply {
            status: i32::from(value.is_none()),
            value,
            printed: Vec::new(),
        })
    }
}

pub(super) fn shown(tree: &Tree) -> String {
    match tree {
        Tree::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Tree::List(items) => {
            let items: Vec<String> = items.iter().map(shown).collect();
            format!("({})", items.join(" "))
        }
    }
}

fn text(text: &str) -> Tree {
    Tree::Text(text.as_bytes().to_vec())
}

fn list(items: &[Tree]) -> Tree {
    Tree::List(items.to_vec())
}

fn word(tree: &Tree) -> String {
    shown(tree)
}

/// One delivery.
fn one(channel: &str, host: &str, user: &str, attributes: &Tree) -> Tree {
    let quad = list(&[text(channel), text(host), text(user), attributes.clone()]);
    list(&[list(&[quad])])
}

/// Sends local names to channel `local`, `error`, `hold` and `sink` by the first word, a list to its
/// members, all else to the domain.
fn router(_: &mut Fake, arguments: &[Tree]) -> Option<Tree> {
    let address = word(&arguments[0]);
    let attributes = &arguments[1];
    let (user, domain) = address.split_once('@').unwrap_or((&address, "here"));
    Some(match (user, domain) {
        ("nobody", "here") => one("error", "nosuchuser", &address, attributes),
        ("gone", "here") => one("error", "moved to the coast", &address, attributes),
        ("later", "here") => one("hold", "NS:x/mx", &address, attributes),
        ("sink", "here") => one("bitbucket", "-", &address, attributes),
        ("circle", "here") => one(
            "bitbucket",
            "duplicate-circle-aliases",
            &address,
            attributes,
        ),
        ("bad", "here") => text("nonsense"),
        ("none", "here") => return None,
        ("list", "here") => {
            let member = |user| {
                let quad = [text("smtp"), text("far"), text(user), attributes.clone()];
                list(&[list(&quad)])
            };
            list(&[member("a@far"), member("b@far"), member("drop@far")])
        }
        (user, "here") => one("local", &address, &format!("{user}@here"), attributes),
        (_, domain) => one("smtp", domain, &address, attributes),
    })
}

/// Names the rewriter after the host of the recipient.
fn crossbar(_: &mut Fake, arguments: &[Tree]) -> Option<Tree> {
    let to = &arguments[1];
    let rewriter = match word(&to.item(1)?).as_str() {
        _ if word(&to.item(2)?).starts_with("drop@") => return Some(list(&[])),
        "full" => text("qualify"),
        "both" => list(&[text("qualify"), text("fields")]),
        "fields" => list(&[text(""), text("fields")]),
        "bad" => text("no-such-function"),
        "weird" => return Some(text("what")),
        _ => text("null"),
    };
    Some(list(&[rewriter, arguments[0].clone(), to.clone()]))
}

/// Appends `@here` to what has no domain, and makes `root` an address with a name.
fn qualify(_: &mut Fake, arguments: &[Tree]) -> Option<Tree> {
    let address = word(&arguments[0]);
    Some(match address.as_str() {
        "root" => text("\"The Boss\" <boss@here>"),
        "evil" => text("a@b\r\nBcc: c@d"),
        address if !address.contains('@') => text(&format!("{address}@here")),
        address => text(address),
    })
}

fn fake() -> Fake {
    Fake::default()
        .with("router", router)
        .with("crossbar", crossbar)
        .with("qualify", qualify)
}

fn facts(recipients: &[&str]) -> Facts {
    let recipient = |address: &&str| EnvelopeRecipient {
        address: address.as_bytes().to_vec(),
        notary: Notary::default(),
    };
    Facts {
        id: "17".to_owned(),
        sender: b"alice@src".to_vec(),
        recipients: recipients.iter().map(recipient).collect(),
        arrival_ms: 1_000_000_000_000,
        now_ms: 1_000_000_002_000,
        ..Facts::default()
    }
}

fn joe(trusted: bool) -> Origin {
    Origin::User(Owner {
        uid: 2001,
        login: b"joe".to_vec(),
        full_name: b"Joe User".to_vec(),
        trusted,
    })
}

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        hostname: "here".to_owned(),
        ..Settings::default()
    })
}

/// Runs to the end; the content is only given when it is asked for.
fn finish(script: &mut Fake, facts: Facts, content: &str) -> (Result<Routed, String>, bool) {
    let mut routing = Routing::new(facts, Rc::new(Basis::new(settings())));
    let mut given = None;
    loop {
        match routing.run(script, given) {
            Progress::Done(routed) => return (Ok(routed), given.is_some()),
            Progress::Stopped(text) => return (Err(text), given.is_some()),
            Progress::Need(_) => {}
            Progress::Content => {
                assert!(given.is_none(), "it is asked for once");
                given = Some(content.as_bytes());
            }
        }
    }
}

fn routed(facts: Facts, content: &str) -> Routed {
    finish(&mut fake(), facts, content).0.unwrap()
}

/// What the recipients of a group get.
fn delivered(group: &Group, content: &str) -> String {
    assert!(are_ordered(&group.edits), "{:?}", group.edits);
    let (mut editor, mut out) = (Editor::default(), Vec::new());
    editor.feed(&group.edits, content.as_bytes(), &mut out);
    editor.end(&group.edits, &mut out);
    assert_eq!(
        out.len() as u64,
        edited_len(content.len() as u64, &group.edits)
    );
    String::from_utf8(out).unwrap()
}

/// What the only group gets of a message that a user submits.
fn submitted(origin: Origin, recipient: &str, content: &str) -> String {
    let mut facts = facts(&[recipient]);
    facts.sender = b"joe@here".to_vec();
    facts.origin = origin;
    let routed = routed(facts, content);
    delivered(&routed.groups[0], content)
}

const BODY: &str = "\r\nbody\r\n";
const DATE: &str = "Date: Sun, 09 Sep 2001 01:46:40 +0000\r\n";
