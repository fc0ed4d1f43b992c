//! Tokens, address lists and message processing.

use std::rc::Rc;
use std::sync::Arc;

use zmailer::mail::address::{Member, members, plain};
use zmailer::mail::edit::{Editor, are_ordered, edited_len};
use zmailer::mail::token::tokens;
use zmailer::mail::{header, quote};
use zmailer::router::message::{
    Basis, Call, EnvelopeRecipient, Facts, Origin, Owner, Progress, Reply, Routing, Script,
    Settings, Tree, Turn,
};

/// Tokens cover the text; members of a list stand in order, and each address is one by itself; quotes are
/// added and removed for good.
pub fn addresses(data: &[u8]) {
    let mut at = 0;
    for token in tokens(data) {
        assert!(token.start == at && token.end > at);
        at = token.end;
    }
    assert_eq!(at, data.len());
    let mut at = 0;
    for member in members(data) {
        let place = match member {
            Member::Address(address) => {
                assert!(quote::is_address(&address.text(data)));
                address.whole
            }
            Member::Bad(place) => place,
        };
        assert!(place.start >= at && place.end >= place.start);
        at = place.end;
    }
    assert!(at <= data.len());
    if quote::is_address(data) {
        assert!(quote::is_address(&plain(data)));
    }
    let once = quote::quoted_as_needed(data, None);
    assert_eq!(once, quote::quoted_as_needed(&once, None));
}

/// A message whose addresses become what the input says: edits are in order and inside the header, the
/// body passes, and relayed mail has as many fields as before.
pub fn message(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    let (given, content) = bytes.split_at(bytes.len().min(usize::from(*choice >> 3)));
    let owner = Owner {
        login: b"joe".to_vec(),
        trusted: choice & 4 != 0,
        ..Owner::default()
    };
    let origin = match choice & 3 {
        0 => Origin::Submission,
        1 => Origin::User(owner),
        _ => Origin::Relay,
    };
    let is_relayed = origin == Origin::Relay;
    let recipient = EnvelopeRecipient {
        address: b"a@far.example".to_vec(),
        ..EnvelopeRecipient::default()
    };
    let facts = Facts {
        sender: b"joe@here.example".to_vec(),
        recipients: vec![recipient],
        origin,
        content_len: content.len() as u64,
        ..Facts::default()
    };
    let mut routing = Routing::new(facts, Rc::new(Basis::new(Arc::new(Settings::default()))));
    let mut script = Echo {
        given: Tree::Text(given.to_vec()),
        call: None,
    };
    let Progress::Done(routed) = routing.run(&mut script, Some(content)) else {
        panic!("nothing is waited for");
    };
    for group in &routed.groups {
        assert!(are_ordered(&group.edits));
        let (mut editor, mut out) = (Editor::default(), Vec::new());
        editor.feed(&group.edits, content, &mut out);
        editor.end(&group.edits, &mut out);
        let announced = edited_len(content.len() as u64, &group.edits);
        assert_eq!(out.len() as u64, announced);
        let mut before = header::fields(content);
        let count = before.by_ref().count();
        if is_relayed {
            assert!(out.ends_with(before.rest()));
            assert_eq!(header::fields(&out).count(), count);
        }
    }
}

enum Never {}

/// Routes all to one host, and gives one answer to all addresses.
struct Echo {
    given: Tree,
    call: Option<(Vec<u8>, Vec<Tree>)>,
}

impl Script for Echo {
    type Value = Tree;
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

    fn assign(&mut self, _: &[u8], _: Tree) {}

    fn variable(&self, _: &[u8]) -> Option<Tree> {
        None
    }

    fn begin(&mut self, call: Call<'_, Tree>) {
        self.call = Some((call.function.to_vec(), call.arguments));
    }

    fn run(&mut self) -> Turn<Reply<Tree>, Never> {
        let (function, mut arguments) = self.call.take().expect("a call has begun");
        let text = |text: &[u8]| Tree::Text(text.to_vec());
        let value = match function.as_slice() {
            b"router" => {
                let address = arguments.swap_remove(0);
                let quad = vec![text(b"smtp"), text(b"far"), address, text(b"g")];
                Tree::List(vec![Tree::List(vec![Tree::List(quad)])])
            }
            b"crossbar" => {
                arguments.insert(0, text(b"rewrite"));
                Tree::List(arguments)
            }
            _ => self.given.clone(),
        };
        Turn::Done(Reply {
            status: 0,
            value: Some(value),
            printed: Vec::new(),
        })
    }
}
