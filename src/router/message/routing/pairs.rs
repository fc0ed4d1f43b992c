//! Recipients: `router` for each, `crossbar` for each pair, and what becomes of it.

use super::super::attributes::{Attributes, dsn_text, notary_of};
use super::super::error_form;
use super::super::group::REWRITERS_MAX;
use super::super::quad::{CHANNEL, Crossed, HOST, Quad, Rewriter, Routes, is_nothing};
use super::super::script::{Reply, Script, Value};
use super::super::{Problem, Recipient};
use super::{CROSSBAR, DEFER, DELIVERIES_MAX, Next, Pair, ROUTER, Routing, Step};

/// How the host begins when an address is dropped because it has been expanded before.
const DUPLICATE: &[u8] = b"duplicate-";

impl<V: Value> Routing<V> {
    pub(super) fn call_recipient<S: Script<Value = V>>(
        &mut self,
        script: &mut S,
        at: usize,
        content: Option<&[u8]>,
    ) -> Next {
        let Some(recipient) = self.facts.recipients.get(at) else {
            return self.after_recipients(content);
        };
        let dsn = dsn_text(recipient);
        let attributes = self
            .recipients
            .make(&self.basis.words, script, dsn.as_deref());
        let arguments = [&recipient.address, &attributes];
        let arguments = arguments.map(|text| V::of_text(text)).to_vec();
        self.call(script, ROUTER, arguments);
        Next::Call
    }

    /// `router` has returned.
    pub(super) fn routed<S: Script<Value = V>>(&mut self, script: &S, at: usize, reply: Reply<V>) {
        self.looped = None;
        let routes = reply.value.filter(|_| reply.status == 0);
        if let Some(routes) = routes.and_then(Routes::of) {
            self.step = Step::Pair(Pair {
                of: at,
                routes,
                delivery: 0,
                way: 0,
            });
            return;
        }
        self.step = Step::Recipient(at + 1);
        let waits = script.variable(DEFER);
        let waits = waits.as_ref().and_then(V::text).unwrap_or_default();
        let (status, text) = if waits.is_empty() {
            ("4.3.5", b"the routing script gave no route".to_vec())
        } else {
            (error_form::waiting(waits), waits.to_vec())
        };
        let address = self.facts.recipients.get(at);
        let address = address.map_or_else(Vec::new, |recipient| recipient.address.clone());
        self.problem(at, address, true, (status, text));
    }

    pub(super) fn problem(
        &mut self,
        of: usize,
        address: Vec<u8>,
        is_temporary: bool,
        (status, text): (&'static str, Vec<u8>),
    ) {
        self.answer(of);
        self.result.problems.push(Problem {
            of: u32::try_from(of).ok(),
            address,
            is_temporary,
            status,
            text,
        });
    }

    pub(super) fn answer(&mut self, of: usize) {
        if let Some(answered) = self.answered.get_mut(of) {
            *answered = true;
        }
    }

    pub(super) fn call_crossbar<S: Script<Value = V>>(&mut self, script: &mut S) -> Next {
        let Step::Pair(pair) = &mut self.step else {
            return Next::Again;
        };
        if pair.delivery >= pair.routes.count() {
            let of = pair.of;
            self.came_to_nothing(of);
            self.step = Step::Recipient(of + 1);
            return Next::Again;
        }
        pair.routes.release_before(pair.delivery);
        let Some(to) = pair.routes.way(pair.delivery, pair.way) else {
            let of = pair.of;
            let is_none = pair.way == 0;
            pair.delivery += 1;
            pair.way = 0;
            if is_none {
                let text = b"the routing script gave something that is no route".to_vec();
                self.problem(of, Vec::new(), true, ("4.3.5", text));
            }
            return Next::Again;
        };
        if !script.defines(CROSSBAR) {
            let crossed = Crossed {
                rewriter: Rewriter::default(),
                from: self.sender.clone(),
                to,
            };
            return self.without_crossbar(script, crossed);
        }
        let arguments = vec![self.sender.0.clone(), to.0];
        self.call(script, CROSSBAR, arguments);
        Next::Call
    }

    /// A script without `crossbar`: every pair is as it is.
    pub(super) fn without_crossbar<S: Script<Value = V>>(
        &mut self,
        script: &S,
        crossed: Crossed<V>,
    ) -> Next {
        let Step::Pair(mut pair) = std::mem::replace(&mut self.step, Step::Over) else {
            return Next::Again;
        };
        let of = pair.of;
        pair.delivery += 1;
        self.step = Step::Pair(pair);
        match self.deliver(script, of, crossed) {
            Ok(()) => Next::Again,
            Err(text) => Next::Stop(text),
        }
    }

    /// `crossbar` has returned. Of the ways of one delivery the first that it does not drop is taken.
    pub(super) fn crossed<S: Script<Value = V>>(
        &mut self,
        script: &S,
        mut pair: Pair<V>,
        value: Option<V>,
    ) -> Result<(), String> {
        let of = pair.of;
        let value = value.filter(|value| !is_nothing(value));
        if value.is_some() {
            pair.delivery += 1;
            pair.way = 0;
        } else {
            pair.way += 1;
        }
        self.step = Step::Pair(pair);
        let Some(value) = value else {
            return Ok(());
        };
        match Crossed::of(&value) {
            Some(crossed) => self.deliver(script, of, crossed),
            None => {
                let text = b"crossbar gave something other than (rewriter from to)".to_vec();
                self.problem(of, Vec::new(), true, ("4.3.5", text));
                Ok(())
            }
        }
    }

    /// All deliveries of a recipient are settled: somebody whose mail all went to channel `bitbucket` gets none, and
    /// nobody is told, unless that is a mistake: aliases that lead to each other and to nobody else.
    fn came_to_nothing(&mut self, of: usize) {
        if self.answered.get(of) != Some(&false) {
            return;
        }
        match self.looped.take() {
            Some(address) => {
                let text = b"aliases lead back to this address and to nobody else".to_vec();
                self.problem(of, address, false, ("5.4.6", text));
            }
            None => self.result.dropped.extend(u32::try_from(of).ok()),
        }
    }

    /// A pair is settled: a delivery, or a reason why there is none.
    pub(super) fn deliver<S: Script<Value = V>>(
        &mut self,
        script: &S,
        of: usize,
        crossed: Crossed<V>,
    ) -> Result<(), String> {
        let to = &crossed.to;
        if to.is_channel(b"bitbucket") {
            if to.host().starts_with(DUPLICATE) {
                self.looped = Some(to.user());
            }
            return Ok(());
        }
        if to.is_channel(b"error") {
            let host = to.host();
            let (status, text) = error_form::failure(&host);
            let text = text.map_or(host, |text| text.as_bytes().to_vec());
            self.problem(of, to.user(), false, (status, text));
            return Ok(());
        }
        if to.is_channel(b"hold") {
            let reason = to.host();
            let status = error_form::waiting(&reason);
            self.problem(of, to.user(), true, (status, reason));
            return Ok(());
        }
        if self.groups.count() >= DELIVERIES_MAX {
            return Err(format!(
                "a message becomes at most {DELIVERIES_MAX} deliveries"
            ));
        }
        let attributes = Attributes::of(script, to.attributes());
        let recipient = self.delivery(of, to, &attributes);
        let sender = self.envelope_sender(&crossed.from);
        self.answer(of);
        let added = self
            .groups
            .add(crossed.rewriter, sender, attributes.errors_to, recipient);
        let text = || format!("more than {} rewriters", REWRITERS_MAX);
        added.then_some(()).ok_or_else(text)
    }

    pub(super) fn delivery(
        &mut self,
        of: usize,
        to: &Quad<V>,
        attributes: &Attributes,
    ) -> Recipient {
        let envelope = self.facts.recipients.get(of);
        let asked = envelope.and_then(dsn_text);
        let detached = self.recipients.has_envelope() && !attributes.has_envelope;
        let changed = asked != attributes.dsn || detached;
        let notary = changed
            .then(|| notary_of(attributes.dsn.as_deref().unwrap_or_default(), detached))
            .map(Box::new);
        Recipient {
            of: u32::try_from(of).unwrap_or(u32::MAX),
            channel: to.with(CHANNEL, |text| self.groups.text(text)),
            host: to.with(HOST, |text| self.groups.text(text)),
            user: to.user().into(),
            privilege: attributes.privilege.unwrap_or(self.basis.settings.nobody),
            notary,
        }
    }

    /// The sender as the next hop is told. Channel `error` means nobody; but where the sender was only
    /// not to be routed, mail does not lose it.
    pub(super) fn envelope_sender(&self, from: &Quad<V>) -> Vec<u8> {
        let user = from.user();
        let is_nobody = user == b"<>" || from.is_channel(b"error") && self.facts.sender.is_empty();
        if is_nobody { Vec::new() } else { user }
    }
}
