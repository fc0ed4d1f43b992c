//! One address asked of the script, for people: what `router` gives for it and, when a sender is named, what
//! `crossbar` makes of the pair.
//!
//! The calls are those of message processing, with the same attributes. But nothing is judged: what goes to the
//! channels `error`, `hold` and `bitbucket` is told like everything else.

use super::Facts;
use super::attributes::{Maker, Words};
use super::quad::{CHANNEL, Crossed, Quad, Rewriter, Routes, is_nothing};
use super::script::{Call, Reply, Script, Turn, Value};

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The recipient without brackets.
    pub address: Vec<u8>,
    /// The sender without brackets, empty for the null one; none: `crossbar` is not asked.
    pub sender: Option<Vec<u8>>,
    /// The user whose rights addresses from outside have.
    pub nobody: u32,
}

/// What becomes of the address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// Its deliveries, and errors and delays among them.
    pub ways: Vec<Way>,
    /// Deliveries that `crossbar` dropped.
    pub dropped: usize,
    /// What the functions printed.
    pub printed: Vec<u8>,
}

/// One result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Channel.
    pub channel: Vec<u8>,
    /// Host.
    pub host: Vec<u8>,
    /// User.
    pub user: Vec<u8>,
    /// Names and values of its attribute list; lists among the values are not told.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// The sender for the next hop, when one was named.
    pub sender: Option<Vec<u8>>,
    /// The function that rewrites addresses of the header; empty: none was named.
    pub rewriter: Vec<u8>,
}

/// A question under way.
#[derive(Debug)]
pub struct Probe<V> {
    asked: Asked,
    step: Step<V>,
    from: Quad<V>,
    result: Probed,
}

#[derive(Debug)]
enum Step<V> {
    Begin,
    Sender,
    Recipient,
    /// Each delivery in turn; of its ways the first that is not dropped.
    Pair {
        routes: Routes<V>,
        delivery: usize,
        way: usize,
    },
    Over,
}

/// Results that are told; further ones are left out.
const WAYS_MAX: usize = 1 << 20;

impl<V: Value> Probe<V> {
    /// A question that has not been asked yet.
    #[must_use]
    pub fn new(asked: Asked) -> Self {
        Self {
            from: Quad::new(b"error", b"-", b"<>", b""),
            asked,
            step: Step::Begin,
            result: Probed::default(),
        }
    }

    /// Goes on as far as it can; after a need has been answered it is run again.
    pub fn run<S: Script<Value = V>>(&mut self, script: &mut S) -> Turn<Probed, S::Need> {
        if matches!(self.step, Step::Begin) {
            self.begin(script);
        }
        loop {
            if matches!(self.step, Step::Over) {
                return Turn::Done(std::mem::take(&mut self.result));
            }
            let reply = match script.run() {
                Turn::Done(reply) => reply,
                Turn::Need(need) => return Turn::Need(need),
                Turn::Stopped(text) => return Turn::Stopped(text),
            };
            self.reply(script, reply);
        }
    }

    fn begin<S: Script<Value = V>>(&mut self, script: &mut S) {
        match self.asked.sender.clone() {
            Some(sender) if !sender.is_empty() => {
                self.step = Step::Sender;
                let attributes = self.attributes(script, |words| &words.sender);
                self.call(script, b"router", [&sender, &attributes]);
            }
            _ => self.ask_recipient(script),
        }
    }

    /// A new attribute list of this type, by its name.
    fn attributes<S: Script<Value = V>>(
        &self,
        script: &mut S,
        kind: impl Fn(&Words<V>) -> &V,
    ) -> Vec<u8> {
        let (words, nobody) = (Words::new(self.asked.nobody), self.asked.nobody);
        let maker = Maker::new(&words, nobody, kind(&words), &Facts::default());
        maker.make(&words, script, None)
    }

    fn call<S: Script<Value = V>>(&self, script: &mut S, function: &[u8], words: [&[u8]; 2]) {
        self.begin_call(script, function, words.map(V::of_text).to_vec());
    }

    fn begin_call<S: Script<Value = V>>(&self, script: &mut S, function: &[u8], arguments: Vec<V>) {
        script.assign(b"defer", V::of_text(b""));
        script.begin(Call {
            function,
            arguments,
            side: None,
            is_report: self.asked.sender.as_ref().is_some_and(Vec::is_empty),
        });
    }

    fn ask_recipient<S: Script<Value = V>>(&mut self, script: &mut S) {
        self.step = Step::Recipient;
        let name = self.attributes(script, |words| &words.recipient);
        self.call(script, b"router", [&self.asked.address, &name]);
    }

    fn reply<S: Script<Value = V>>(&mut self, script: &mut S, reply: Reply<V>) {
        self.result.printed.extend_from_slice(&reply.printed);
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::Sender => {
                let value = reply.value.filter(|_| reply.status == 0);
                let quad = value
                    .and_then(Routes::of)
                    .and_then(|routes| routes.nearest());
                let sender = self.asked.sender.clone().unwrap_or_default();
                self.from = quad.unwrap_or_else(|| Quad::new(b"hold", b"-", &sender, b""));
                self.ask_recipient(script);
            }
            Step::Recipient => {
                let value = reply.value.filter(|_| reply.status == 0);
                match value.and_then(Routes::of) {
                    Some(routes) => self.next_pair(script, routes, 0, 0),
                    None => self.no_route(script),
                }
            }
            Step::Pair {
                routes,
                delivery,
                way,
            } => match reply.value.filter(|value| !is_nothing(value)) {
                None => self.next_pair(script, routes, delivery, way + 1),
                Some(value) => {
                    match Crossed::of(&value) {
                        Some(crossed) => self.tell(script, crossed),
                        None => self.hold(b"crossbar gave something other than (rewriter from to)"),
                    }
                    self.next_pair(script, routes, delivery + 1, 0);
                }
            },
            Step::Begin | Step::Over => {}
        }
    }

    /// The script failed: as message processing does, the address waits.
    fn no_route<S: Script<Value = V>>(&mut self, script: &S) {
        let defer = script.variable(b"defer");
        let reason = defer.as_ref().and_then(V::text).unwrap_or_default();
        let reason = match reason {
            b"" => b"the routing script gave no route",
            reason => reason,
        };
        self.hold(reason);
    }

    fn hold(&mut self, reason: &[u8]) {
        self.result.ways.push(Way {
            channel: b"hold".to_vec(),
            host: reason.to_vec(),
            user: self.asked.address.clone(),
            ..Way::default()
        });
    }

    /// Begins the next call of `crossbar`, or tells what needs none.
    fn next_pair<S: Script<Value = V>>(
        &mut self,
        script: &mut S,
        routes: Routes<V>,
        mut delivery: usize,
        mut way: usize,
    ) {
        let crosses = self.asked.sender.is_some() && script.defines(b"crossbar");
        while delivery < routes.count() && self.result.ways.len() < WAYS_MAX {
            match routes.way(delivery, way) {
                Some(to) if crosses => {
                    let arguments = vec![self.from.0.clone(), to.0];
                    self.begin_call(script, b"crossbar", arguments);
                    self.step = Step::Pair {
                        routes,
                        delivery,
                        way,
                    };
                    return;
                }
                Some(to) => self.tell(
                    script,
                    Crossed {
                        rewriter: Rewriter::default(),
                        from: self.from.clone(),
                        to,
                    },
                ),
                None if way == 0 => {
                    self.hold(b"the routing script gave something that is no route")
                }
                None => self.result.dropped += 1,
            }
            delivery += 1;
            way = 0;
        }
    }

    fn tell<S: Script<Value = V>>(&mut self, script: &S, crossed: Crossed<V>) {
        let to = &crossed.to;
        let sender = self.asked.sender.is_some().then(|| {
            let user = crossed.from.user();
            if user == b"<>" { Vec::new() } else { user }
        });
        self.result.ways.push(Way {
            channel: to.with(CHANNEL, <[u8]>::to_vec),
            host: to.host(),
            user: to.user(),
            attributes: pairs(script, to.attributes()),
            sender,
            rewriter: crossed.rewriter.addresses,
        });
    }
}

/// Names and values of an attribute list, or of the variable that is named.
fn pairs<S: Script>(script: &S, named: Option<S::Value>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let list = named.and_then(|named| match named.text() {
        Some(name) => script.variable(name),
        None => Some(named),
    });
    let Some(list) = list else {
        return Vec::new();
    };
    let text = |index| list.item(index)?.text().map(<[u8]>::to_vec);
    (0..list.count().unwrap_or(0))
        .step_by(2)
        .filter_map(|at| Some((text(at)?, text(at + 1)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::script::Tree;
    use super::*;

    /// Answers from a list of replies, and remembers what was asked.
    #[derive(Default)]
    struct Canned {
        replies: Vec<Option<Tree>>,
        calls: Vec<String>,
        crosses: bool,
        waits: bool,
        variables: Vec<(Vec<u8>, Tree)>,
    }

    impl Script for Canned {
        type Value = Tree;
        type Need = ();

        fn defines(&self, _function: &[u8]) -> bool {
            self.crosses
        }

        fn mentions(&self, _variable: &[u8]) -> bool {
            true
        }

        fn fresh_name(&mut self) -> Vec<u8> {
            format!("g{}", self.variables.len()).into_bytes()
        }

        fn assign(&mut self, variable: &[u8], value: Tree) {
            self.variables.push((variable.to_vec(), value));
        }

        fn variable(&self, name: &[u8]) -> Option<Tree> {
            let mut all = self.variables.iter().rev();
            all.find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
        }

        fn begin(&mut self, call: Call<'_, Tree>) {
            let first = call.arguments.first().and_then(Value::text).unwrap_or(b"-");
            let words = [call.function, first].map(String::from_utf8_lossy);
            self.calls.push(words.join(" "));
        }

        fn run(&mut self) -> Turn<Reply<Tree>, ()> {
            if std::mem::take(&mut self.waits) {
                return Turn::Need(());
            }
            let value = self.replies.remove(0);
            Turn::Done(Reply {
                status: i32::from(value.is_none()),
                value,
                printed: b"p".to_vec(),
            })
        }
    }

    fn text(text: &str) -> Tree {
        Tree::Text(text.as_bytes().to_vec())
    }

    fn quad(channel: &str, user: &str) -> Tree {
        Tree::List(vec![text(channel), text("h"), text(user), text("g1")])
    }

    fn routes(quads: &[Tree]) -> Tree {
        Tree::List(
            quads
                .iter()
                .map(|quad| Tree::List(vec![quad.clone()]))
                .collect(),
        )
    }

    fn probe(sender: Option<&str>) -> Probe<Tree> {
        Probe::new(Asked {
            address: b"a@x".to_vec(),
            sender: sender.map(|sender| sender.as_bytes().to_vec()),
            nobody: 7,
        })
    }

    #[test]
    fn without_a_sender_the_router_alone_is_asked() {
        let mut script = Canned {
            replies: vec![Some(routes(&[quad("smtp", "a@y"), quad("error", "b")]))],
            crosses: true,
            waits: true,
            ..Canned::default()
        };
        let mut probe = probe(None);
        assert!(matches!(probe.run(&mut script), Turn::Need(())));
        let Turn::Done(result) = probe.run(&mut script) else {
            panic!("it has been answered");
        };
        assert_eq!(script.calls, ["router a@x"]);
        let ways: Vec<_> = result
            .ways
            .iter()
            .map(|way| way.channel.as_slice())
            .collect();
        assert_eq!(ways, [b"smtp".as_slice(), b"error"]);
        let empty = script.variable(b"g0").expect("the attributes");
        assert_eq!(empty.item(1), Some(text("7")));
        assert!(result.ways.iter().all(|way| way.sender.is_none()));
    }

    #[test]
    fn with_a_sender_each_pair_is_crossed() {
        let crossed = Tree::List(vec![
            text("internet"),
            quad("smtp", "s2"),
            quad("smtp", "a2"),
        ]);
        let mut script = Canned {
            replies: vec![
                Some(routes(&[quad("smtp", "s@y")])),
                Some(routes(&[quad("smtp", "a"), quad("smtp", "b")])),
                Some(crossed),
                Some(Tree::List(Vec::new())),
            ],
            crosses: true,
            ..Canned::default()
        };
        let Turn::Done(result) = probe(Some("s@x")).run(&mut script) else {
            panic!("nothing is needed");
        };
        assert_eq!(
            script.calls,
            ["router s@x", "router a@x", "crossbar -", "crossbar -"]
        );
        assert_eq!((result.ways.len(), result.dropped), (1, 1));
        let way = &result.ways[0];
        assert_eq!(
            (way.user.as_slice(), way.rewriter.as_slice()),
            (&b"a2"[..], &b"internet"[..])
        );
        assert_eq!(way.sender.as_deref(), Some(&b"s2"[..]));
        assert_eq!(result.printed, b"pppp");
    }

    #[test]
    fn what_gives_no_route_waits() {
        let mut script = Canned {
            replies: vec![None],
            ..Canned::default()
        };
        let Turn::Done(result) = probe(None).run(&mut script) else {
            panic!("nothing is needed");
        };
        assert_eq!(result.ways[0].channel, b"hold");
        assert!(
            result.ways[0]
                .host
                .starts_with(b"the routing script gave no route")
        );
    }
}
