//! Before the recipients: what is known of the header, who the sender is, whether he is who he says.

use super::super::attributes::Maker;
use super::super::complete::{Claim, inspect, is_plainly};
use super::super::head::{Head, unfolded};
use super::super::quad::{Quad, Routes, is_login};
use super::super::script::{Call, Reply, Script, Value};
use super::super::{EnvelopeRecipient, Event, Origin, Owner, Problem};
use super::{DEFER, ENVELOPE_INFO, Next, PROCESS, ROUTER, Routing, Step};
use crate::mail::header;

impl<V: Value> Routing<V> {
    pub(super) fn begin<S: Script<Value = V>>(
        &mut self,
        script: &mut S,
        content: Option<&[u8]>,
    ) -> Next {
        let relayed = self.facts.origin == Origin::Relay;
        let is_open = self.facts.recipients.is_empty();
        if !relayed || is_open || self.basis.settings.kill_in_relayed {
            let Some(content) = content else {
                return Next::Content;
            };
            let head = Head::read(content, self.facts.content_len, !relayed);
            if head.received > self.basis.settings.received_max {
                return self.fail_all(
                    "5.4.6",
                    "too many Received fields: the message goes in circles",
                );
            }
            if !relayed {
                inspect(&head, content, &mut self.result.events);
            }
            self.head = Some(head);
        }
        if script.mentions(ENVELOPE_INFO) {
            let info = self.envelope_info(content.unwrap_or_default());
            script.assign(ENVELOPE_INFO, info);
        }
        if self.facts.recipients.is_empty() {
            self.find_recipients(content.unwrap_or_default());
            if self.facts.recipients.is_empty() {
                return self.fail_all("5.1.0", "no recipient is named");
            }
        }
        self.answered = vec![false; self.facts.recipients.len()];
        // At the front door there is no message yet.
        let is_message = !self.facts.id.is_empty();
        self.step = if is_message && script.defines(PROCESS) {
            Step::Process
        } else {
            Step::Sender
        };
        Next::Again
    }

    pub(super) fn call_process<S: Script<Value = V>>(&self, script: &mut S) -> Next {
        let id = V::of_text(self.facts.id.as_bytes());
        self.call(script, PROCESS, vec![id]);
        Next::Call
    }

    /// A message that the script does not take waits: it is asked about again, and nothing is lost.
    pub(super) fn after_process<S: Script<Value = V>>(&mut self, script: &mut S, reply: &Reply<V>) {
        if script.takes_message() {
            self.step = Step::Sender;
            return;
        }
        let waits = script.variable(DEFER);
        let waits = waits.as_ref().and_then(V::text).unwrap_or_default();
        let text = if waits.is_empty() {
            let status = reply.status;
            format!("process has ended with status {status} and has not called rfc822").into_bytes()
        } else {
            waits.to_vec()
        };
        self.result.problems.push(Problem {
            of: None,
            address: Vec::new(),
            is_temporary: true,
            status: "4.3.5",
            text,
        });
        self.step = Step::Over;
    }

    /// One problem for the message as a whole.
    pub(super) fn fail_all(&mut self, status: &'static str, text: &str) -> Next {
        self.result.problems.push(Problem {
            of: None,
            address: Vec::new(),
            is_temporary: false,
            status,
            text: text.as_bytes().to_vec(),
        });
        self.step = Step::Over;
        Next::Again
    }

    /// RFC 5322 3.6.6: of a message that is sent again the Resent- fields count.
    pub(super) fn find_recipients(&mut self, content: &[u8]) {
        let list = header::recipients(content);
        let recipient = |address| EnvelopeRecipient {
            address,
            ..EnvelopeRecipient::default()
        };
        self.facts.recipients = list.addresses.into_iter().map(recipient).collect();
        self.result.found.clone_from(&self.facts.recipients);
        for text in list.doubtful {
            self.result.events.push(Event::BadAddress(unfolded(&text)));
            self.result.problems.push(Problem {
                of: None,
                address: unfolded(&text),
                is_temporary: false,
                status: "5.1.3",
                text: b"the header names somebody unclear".to_vec(),
            });
        }
    }

    pub(super) fn call_sender<S: Script<Value = V>>(
        &mut self,
        script: &mut S,
        content: Option<&[u8]>,
    ) -> Next {
        if self.facts.sender.is_empty() {
            // Nobody: the script need not be asked.
            self.sender = self.null_sender();
            self.after_sender(content);
            return Next::Again;
        }
        let address = self.facts.sender.clone();
        self.call_router(script, &address)
    }

    /// Calls `router` for an address of the sender.
    pub(super) fn call_router<S: Script<Value = V>>(&self, script: &mut S, address: &[u8]) -> Next {
        let privilege = match &self.facts.origin {
            Origin::User(owner) => owner.uid,
            Origin::Relay | Origin::Submission => self.basis.settings.nobody,
        };
        let words = &self.basis.words;
        let maker = Maker::new(words, privilege, &words.sender, &self.facts);
        let attributes = maker.make(words, script, None);
        self.call(
            script,
            ROUTER,
            vec![V::of_text(address), V::of_text(&attributes)],
        );
        Next::Call
    }

    pub(super) fn call<S: Script<Value = V>>(
        &self,
        script: &mut S,
        function: &[u8],
        arguments: Vec<V>,
    ) {
        script.assign(DEFER, self.basis.words.nothing.clone());
        script.begin(Call {
            function,
            arguments,
            side: None,
            is_report: self.is_report(),
        });
    }

    /// Channel `error`, and the host it came from; `-` when it was submitted here.
    fn null_sender(&self) -> Quad<V> {
        let keywords = &self.facts.keywords;
        let received = keywords.iter().find(|(keyword, _)| keyword == b"rcvdfrom");
        let host = match (&self.facts.origin, received) {
            (Origin::Relay, Some((_, host))) => host,
            (Origin::Relay, None) => &b"unknown"[..],
            _ => b"-",
        };
        Quad::new(b"error", host, b"<>", b"")
    }

    /// A sender that the script could not route: what it is, on a channel of no meaning.
    pub(super) fn unknown_sender(&self) -> Quad<V> {
        Quad::new(b"hold", b"-", &self.facts.sender, b"")
    }

    pub(super) fn after_sender(&mut self, content: Option<&[u8]>) {
        let privilege = match &self.facts.origin {
            Origin::User(owner) if !owner.trusted => owner.uid,
            _ => self.basis.settings.nobody,
        };
        let words = &self.basis.words;
        self.recipients = Maker::new(words, privilege, &words.recipient, &self.facts);
        self.step = Step::Recipient(0);
        let (Some(owner), Some(head)) = (untrusted(&self.facts.origin), &self.head) else {
            return;
        };
        let Some(content) = content else {
            return;
        };
        let claim = Claim::of(head, content, &self.facts);
        match &claim {
            Claim::Address(_, said) if said.is_empty() => {}
            Claim::Address(_, said) if is_plainly(owner, said, &self.basis.settings.hostname) => {}
            Claim::Address(..) => self.step = Step::Owner(claim),
            Claim::Other(_) => self.verdict = claim.wrong(head, content),
        }
    }

    pub(super) fn owner(
        &mut self,
        claim: &Claim,
        routes: Option<Routes<V>>,
        content: Option<&[u8]>,
    ) {
        self.step = Step::Recipient(0);
        let (Some(owner), Some(head)) = (untrusted(&self.facts.origin), &self.head) else {
            return;
        };
        let quad = routes.filter(|routes| routes.count() == 1);
        let quad = quad.and_then(|routes| routes.way(0, 0));
        if !quad.is_some_and(|quad| is_login(&quad, &owner.login)) {
            self.verdict = claim.wrong(head, content.unwrap_or_default());
        }
    }

    /// The property list `envelopeinfo`. What the header says is in it where the header had to be read
    /// anyway: for mail that is submitted.
    fn envelope_info(&self, content: &[u8]) -> V {
        let facts = &self.facts;
        let mut items: Vec<V> = Vec::with_capacity(32);
        let mut add = |key: &[u8], value: &[u8]| items.extend([key, value].map(V::of_text));
        let (uid, trusted) = match &facts.origin {
            Origin::User(owner) => (owner.uid, owner.trusted),
            Origin::Relay | Origin::Submission => (self.basis.settings.nobody, false),
        };
        let delay_ms = facts.now_ms.saturating_sub(facts.arrival_ms);
        let yes_no = |yes| if yes { &b"yes"[..] } else { b"no" };
        add(b"spoolid", facts.id.as_bytes());
        add(b"uid", uid.to_string().as_bytes());
        add(b"trusted", yes_no(trusted));
        add(b"now", (facts.now_ms / 1000).to_string().as_bytes());
        add(b"delay", (delay_ms / 1000).to_string().as_bytes());
        add(b"size", facts.content_len.to_string().as_bytes());
        if !facts.file.is_empty() {
            add(b"file", &facts.file);
        }
        if let Some(head) = &self.head {
            let header = head.end as u64;
            let body = facts.content_len.saturating_sub(header);
            add(b"headersize", header.to_string().as_bytes());
            add(b"bodysize", body.to_string().as_bytes());
            add(b"resent", yes_no(head.is_resent));
            if let Some((_, entry)) = head.first(content, "Message-Id") {
                add(b"message-id", &unfolded(entry.value_in(content)));
            }
        }
        for (keyword, value) in &facts.keywords {
            // A keyword without a value is its own.
            add(keyword, if value.is_empty() { keyword } else { value });
        }
        V::of_list(items)
    }
}

/// The user whose claims are not believed.
fn untrusted(origin: &Origin) -> Option<&Owner> {
    match origin {
        Origin::User(owner) if !owner.trusted => Some(owner),
        _ => None,
    }
}
