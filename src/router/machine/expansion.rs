//! The lists that `listexpand` walks: each address goes through the script's `rrouter`.

use std::rc::Rc;

use super::{Evaluation, Flow, Pause};
use crate::router::code::{Code, Op};
use crate::router::diagnostic::Source;
use crate::router::value::{Text, Value};

/// A list that is being expanded.
#[derive(Debug)]
pub struct Expansion {
    addresses: std::vec::IntoIter<Vec<u8>>,
    /// Attributes, local part, original address, and perhaps tail and domain.
    operands: Vec<Value>,
    /// What stands in front of `ORCPT` in the `DSN` attribute; `-`: the attributes stay as they are.
    notary: Option<Vec<u8>>,
    found: Vec<Value>,
}

/// Members of one list.
pub(super) const MEMBERS_MAX: usize = 1_000_000;

impl Expansion {
    /// Of these addresses.
    pub(in crate::router) fn new(
        mut addresses: Vec<Vec<u8>>,
        operands: Vec<Value>,
        notary: Option<Vec<u8>>,
    ) -> Self {
        addresses.truncate(MEMBERS_MAX);
        Self {
            addresses: addresses.into_iter(),
            operands,
            notary,
            found: Vec::new(),
        }
    }
}

impl Expansion {
    /// What the members found so far, and what they are called with.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value> {
        self.found.iter().chain(&self.operands)
    }

    /// Bytes of addresses that have not been routed.
    pub(super) fn raw_bytes(&self) -> usize {
        self.addresses.as_slice().iter().map(Vec::len).sum()
    }
}

/// What routes a member.
const ROUTER: &[u8] = b"rrouter";

impl Evaluation {
    /// Routes the members one after the other; the value is the list of what came of all.
    pub(in crate::router) fn expand(&mut self, expansion: Expansion) -> Flow {
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
        let Some(address) = expansion.addresses.next() else {
            self.jump(end);
            return Ok(());
        };
        let mut values = vec![Value::Text(self.new_text(&address))];
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
        let mut dsn = expansion.notary.clone().unwrap_or_default();
        if !dsn.is_empty() {
            dsn.push(b' ');
        }
        dsn.extend_from_slice(b"ORCPT=rfc822;");
        for byte in address {
            match byte {
                b'!'..=b'~' if !b"+=".contains(byte) => dsn.push(*byte),
                _ => dsn.extend_from_slice(format!("+{byte:02X}").as_bytes()),
            }
        }
        let symbol = self.symbol(base.bytes())?;
        let others = match self.variable(symbol) {
            Some(Value::List(list)) => list.items().clone(),
            _ => Vec::new(),
        };
        let dsn = Value::Text(self.new_text(&dsn));
        let mut items = vec![Value::Text(Text::from("DSN")), dsn];
        for pair in others.chunks(2).filter(|pair| pair[0].bytes() != b"DSN") {
            items.extend_from_slice(pair);
        }
        let name = self.new_name();
        let symbol = self.symbol(&name)?;
        self.count_values(items.len());
        self.set(symbol, Value::list(items));
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
        let items = list.items();
        match items.first() {
            // Dropped, for instance as a duplicate.
            None => {}
            Some(Value::List(_)) => expansion.found.extend(items.iter().cloned()),
            // A quad alone.
            Some(Value::Text(_)) => {
                let quad = Value::list(vec![Value::List(list.clone())]);
                expansion.found.push(quad);
            }
        }
    }

    pub(super) fn members_end(&mut self) -> Flow {
        let found = self
            .expansions
            .pop()
            .map(|expansion| expansion.found)
            .unwrap_or_default();
        self.count_values(found.len());
        self.give((!found.is_empty()).then(|| Value::list(found)))
    }
}
