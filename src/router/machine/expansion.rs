//! The lists that `listexpand` walks: each address goes through the script's `rrouter`.

use std::rc::Rc;

use super::{Evaluation, Flow, Limit, Pause, Turn, members};
use crate::base::records::Records;
use crate::router::code::{Code, Op};
use crate::router::diagnostic::Source;
use crate::router::value::{Gathered, Text, Value};

/// A list that is being expanded.
#[derive(Debug)]
pub struct Expansion {
    addresses: Records,
    /// The first of them that has not been routed.
    next: usize,
    /// Attributes, local part, original address, and perhaps tail and domain.
    operands: Vec<Value>,
    /// What stands in front of `ORCPT` in the `DSN` attribute; `-`: the attributes stay as they are.
    notary: Option<Vec<u8>>,
    found: Gathered,
}

/// Members of one list: the evaluation is stopped when there are more.
pub(super) const MEMBERS_MAX: usize = 1_000_000;

impl Expansion {
    /// Of these addresses.
    pub(in crate::router) fn new(
        addresses: Records,
        operands: Vec<Value>,
        notary: Option<Vec<u8>>,
    ) -> Self {
        Self {
            addresses,
            next: 0,
            operands,
            notary,
            found: Gathered::default(),
        }
    }

    /// What the members found so far, and what they are called with.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value> {
        self.found.values().iter().chain(&self.operands)
    }

    /// Bytes of addresses that have not been routed, and of what was found for the others.
    pub(super) fn raw_bytes(&self) -> usize {
        self.addresses.bytes() + self.found.packed_bytes()
    }

    fn next_address(&mut self) -> Option<Text> {
        let address = Text::from(self.addresses.get(self.next)?);
        self.next += 1;
        self.addresses.release_before(self.next);
        Some(address)
    }
}

/// What routes a member.
const ROUTER: &[u8] = b"rrouter";

impl Evaluation {
    /// Routes the members one after the other; the value is the list of what came of all.
    pub(in crate::router) fn expand(&mut self, expansion: Expansion) -> Flow {
        if expansion.addresses.len() > MEMBERS_MAX {
            return Err(Pause::of(Turn::Stopped(Limit::Members(MEMBERS_MAX))));
        }
        let code = match &self.expanding {
            Some(code) => Rc::clone(code),
            None => {
                let source = Source::new("listexpand", b"");
                let ops = vec![
                    Op::Member(2),
                    Op::MemberRouted(0),
                    Op::MembersEnd,
                    Op::Return,
                ];
                let code = Rc::new(Code::of(&source, ops));
                self.expanding = Some(Rc::clone(&code));
                code
            }
        };
        self.enter_nested(code)?;
        self.expansions.push(expansion);
        Ok(())
    }

    /// Routes the next member; after the last one, goes to `end`.
    pub(super) fn next_member(&mut self, end: u32) -> Flow {
        let Some(expansion) = self.expansions.last_mut() else {
            self.jump(end);
            return Ok(());
        };
        let Some(address) = expansion.next_address() else {
            self.jump(end);
            return Ok(());
        };
        self.limits.allocate(address.len());
        let mut values = vec![Value::Text(address.clone())];
        let attributes = self.member_attributes(&address)?;
        let Some(expansion) = self.expansions.last() else {
            return Ok(());
        };
        values.extend(expansion.operands.get(2).cloned());
        values.push(attributes);
        values.extend(expansion.operands[3..].iter().cloned());
        self.returns(super::Returned::Nothing);
        self.defer(b"");
        match self.named_function(ROUTER)? {
            Some(function) => {
                self.marks.push(self.arguments.len());
                self.arguments.extend(values);
                self.enter_function(&function)
            }
            None => {
                self.complain("listexpand: there is no function rrouter");
                self.jump(end);
                Ok(())
            }
        }
    }

    /// The attributes of a list, with the member as original recipient.
    fn member_attributes(&mut self, address: &[u8]) -> Result<Value, Pause> {
        let Some(expansion) = self.expansions.last() else {
            return Ok(Value::nil());
        };
        let base = expansion.operands[0].clone();
        if expansion.notary.as_deref() == Some(b"-") {
            return Ok(base);
        }
        let notary = expansion.notary.clone().unwrap_or_default();
        let symbol = self.symbol(base.bytes())?;
        let base = match self.variable(symbol) {
            Some(Value::List(list)) => Some(list.clone()),
            _ => None,
        };
        self.limits.allocate(address.len());
        let number = self.state.gensym;
        let name = self.new_name();
        match self.known_symbol(&name) {
            None => self
                .state
                .members
                .add(number, base.as_ref(), &notary, address),
            // A script has used the name already.
            Some(symbol) => self.set(symbol, members::list_of(base.as_ref(), &notary, address)),
        }
        Ok(Value::Text(Text::from(name)))
    }

    /// Takes what came of a member and goes back for the next one.
    pub(super) fn member_routed(&mut self, again: u32) {
        let status = self.status;
        let value = self.take_returned();
        self.jump(again);
        let (Some(Value::List(list)), 0) = (value, status) else {
            return;
        };
        let Some(expansion) = self.expansions.last_mut() else {
            return;
        };
        // None: it was dropped, for instance as a duplicate.
        let is_quad = list.item(0).map(|first| first.text().is_some());
        match is_quad {
            None => {}
            Some(true) => {
                let quad = Value::list(vec![Value::List(list)]);
                expansion.found.push(quad);
            }
            Some(false) => list
                .into_values()
                .for_each(|ways| expansion.found.push(ways)),
        }
    }

    pub(super) fn members_end(&mut self) -> Flow {
        let found = self
            .expansions
            .pop()
            .map(|expansion| expansion.found)
            .unwrap_or_default();
        self.give((!found.is_empty()).then(|| Value::List(found.into_list())))
    }
}
