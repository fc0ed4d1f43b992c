//! Message processing around a script that costs nothing: relayed mail, a rewritten header, a long list;
//! and edits on the way out.

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zmailer::mail::address::members;
use zmailer::mail::edit::Editor;
use zmailer::router::message::{
    Basis, Call, EnvelopeRecipient, Facts, Progress, Reply, Routed, Routing, Script, Settings,
    Turn, Value,
};

/// A value as the language has them: copies cost a counter.
#[derive(Clone)]
enum Shared {
    Text(Rc<[u8]>),
    List(Rc<Vec<Shared>>),
}

impl Value for Shared {
    fn of_text(text: &[u8]) -> Self {
        Self::Text(text.into())
    }

    fn of_list(items: Vec<Self>) -> Self {
        Self::List(Rc::new(items))
    }

    fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text),
            Self::List(_) => None,
        }
    }

    fn count(&self) -> Option<usize> {
        match self {
            Self::Text(_) => None,
            Self::List(items) => Some(items.len()),
        }
    }

    fn item(&self, index: usize) -> Option<Self> {
        match self {
            Self::Text(_) => None,
            Self::List(items) => items.get(index).cloned(),
        }
    }
}

/// Gives the same answers to all.
struct Constant {
    route: Shared,
    rewriter: Shared,
    attributes: Shared,
    reply: Option<Shared>,
}

impl Constant {
    fn new(rewriter: &str, members: usize) -> Self {
        let text = |text: &str| Shared::of_text(text.as_bytes());
        let quad = |number: usize| {
            let user = format!("member{number}@far.example.com");
            let parts = ["smtp", "far.example.com", &user, "g"].map(text);
            Shared::of_list(vec![Shared::of_list(parts.to_vec())])
        };
        Self {
            route: Shared::of_list((0..members).map(quad).collect()),
            rewriter: text(rewriter),
            attributes: Shared::of_list(
                ["privilege", "65534", "type", "recipient"]
                    .map(text)
                    .to_vec(),
            ),
            reply: None,
        }
    }
}

enum Never {}

impl Script for Constant {
    type Value = Shared;
    type Need = Never;

    fn defines(&self, _: &[u8]) -> bool {
        true
    }

    fn mentions(&self, _: &[u8]) -> bool {
        false
    }

    fn fresh_name(&mut self) -> Vec<u8> {
        b"g".to_vec()
    }

    fn assign(&mut self, _: &[u8], _: Shared) {}

    fn variable(&self, _: &[u8]) -> Option<Shared> {
        Some(self.attributes.clone())
    }

    fn begin(&mut self, call: Call<'_, Shared>) {
        let mut arguments = call.arguments;
        self.reply = match call.function {
            b"router" => Some(self.route.clone()),
            b"crossbar" => {
                let to = arguments.pop();
                let pair = [Some(self.rewriter.clone()), arguments.pop(), to];
                Some(Shared::of_list(pair.into_iter().flatten().collect()))
            }
            _ => Some(Shared::of_text(b"somebody@else.example.org")),
        };
    }

    fn run(&mut self) -> Turn<Reply<Shared>, Never> {
        Turn::Done(Reply {
            status: 0,
            value: self.reply.take(),
            printed: Vec::new(),
        })
    }
}

fn facts(recipients: usize) -> Facts {
    let recipient = |number: usize| EnvelopeRecipient {
        address: format!("user{number}@far.example.com").into_bytes(),
        ..EnvelopeRecipient::default()
    };
    Facts {
        sender: b"someone@source.example".to_vec(),
        recipients: (0..recipients).map(recipient).collect(),
        ..Facts::default()
    }
}

fn route(
    script: &mut Constant,
    facts: Facts,
    basis: &Rc<Basis<Shared>>,
    content: Option<&[u8]>,
) -> Routed {
    let mut routing = Routing::new(facts, Rc::clone(basis));
    match routing.run(script, content) {
        Progress::Done(routed) => routed,
        _ => panic!("nothing has to be waited for"),
    }
}

/// A header of 1.5 KiB as mail has it, and a body.
fn message() -> Vec<u8> {
    let mut text = String::new();
    for number in 0..4 {
        text.push_str(&format!(
            "Received: from host{number}.example ([192.0.2.{number}])\r\n\tby mx{number}.example with ESMTP id 17; \
             Mon, 23 Nov 2026 19:20:21 +0000\r\n"
        ));
    }
    text.push_str("DKIM-Signature: v=1; a=rsa-sha256; d=example;\r\n\t");
    text.push_str(&"b".repeat(300));
    text.push_str(
        "\r\nFrom: Some One <someone@source.example>\r\nTo: \"User, A.\" <a@far.example.com>,\r\n\tb@far.example.com, \
         Carol <carol>\r\nCc: list (the list) <list@far.example.com>\r\nSubject: a message\r\n\
         Message-Id: <1@source.example>\r\nDate: Mon, 23 Nov 2026 19:20:21 +0000\r\n\r\n",
    );
    text.push_str(&"body\r\n".repeat(400));
    text.into_bytes()
}

fn routing(c: &mut Criterion) {
    let basis = Rc::new(Basis::new(Arc::new(Settings::default())));
    let content = message();
    let mut group = c.benchmark_group("message");
    for recipients in [1, 100] {
        group.throughput(Throughput::Elements(recipients as u64));
        let mut script = Constant::new("null", 1);
        let facts = facts(recipients);
        group.bench_function(format!("relayed, {recipients} recipients"), |b| {
            b.iter(|| route(&mut script, black_box(facts.clone()), &basis, None));
        });
    }
    group.throughput(Throughput::Elements(1));
    let mut script = Constant::new("internet", 1);
    group.bench_function("header rewritten", |b| {
        b.iter(|| route(&mut script, facts(1), &basis, Some(black_box(&content))));
    });
    let mut script = Constant::new("null", 100_000);
    group.throughput(Throughput::Elements(100_000));
    group.sample_size(20);
    group.bench_function("list of 100,000", |b| {
        b.iter(|| route(&mut script, facts(1), &basis, None));
    });
    group.finish();
}

fn content(c: &mut Criterion) {
    let basis = Rc::new(Basis::new(Arc::new(Settings::default())));
    let content = message();
    let mut script = Constant::new("internet", 1);
    let routed = route(&mut script, facts(1), &basis, Some(&content));
    let edits = &routed.groups[0].edits;
    assert_eq!(edits.len(), 5);
    let mut out = Vec::with_capacity(2 * content.len());
    let mut group = c.benchmark_group("edits");
    group.throughput(Throughput::Bytes(content.len() as u64));
    group.bench_function("applied to 4 KiB", |b| {
        b.iter(|| {
            out.clear();
            let mut editor = Editor::default();
            editor.feed(edits, black_box(&content), &mut out);
            editor.end(edits, &mut out);
            out.len()
        });
    });
    group.bench_function("baseline: copied", |b| {
        b.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(&content));
            out.len()
        });
    });
    let list = b"Some One <one@a.example>, two@b.example, ".repeat(2_500);
    group.throughput(Throughput::Bytes(list.len() as u64));
    group.bench_function("address list of 100 KB", |b| {
        b.iter(|| members(black_box(&list)).count());
    });
    group.finish();
}

criterion_group!(benches, routing, content);
criterion_main!(benches);
