//! What a submitted message must have and its author may have left out (RFC 5322 3.6, RFC 6409 8), and
//! what nobody else shall see.
//!
//! Fields that are there stay as they are, in their order. New ones go to the end of the header, From in
//! front of To or Subject, Sender in front of From.

use std::ops::Range;

use super::head::{Head, Kind};
use super::{Event, Facts, Origin, Owner, Settings};
use crate::mail::address::{Member, members};
use crate::mail::date;
use crate::mail::phrase;
use crate::mail::quote;

/// A field that is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Added {
    /// In front of what stands there.
    pub(super) at: usize,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) value: Vec<u8>,
}

/// What is done to a header before any rewriting.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) added: Vec<Added>,
    pub(super) removed: Vec<Range<usize>>,
    /// The field that becomes `Fake-Sender`.
    pub(super) fake: Option<usize>,
    /// The fields that are removed, by number.
    pub(super) killed: Vec<usize>,
    /// The header lacks the empty line at its end.
    pub(super) lacks_end: bool,
}

/// What is to be done about the sender of a user of this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is he, or nobody has to ask.
    #[default]
    Right,
    /// The author is somebody else: who sent it is said besides.
    SenderMissing,
    /// The Sender field names somebody else.
    SenderWrong(usize),
}

/// Who a message says it is from: what has to be compared with its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// One address, in the field of this number or in the envelope.
    Address(Option<usize>, Vec<u8>),
    /// Nothing that could be the owner's.
    Other(Option<usize>),
}

impl Claim {
    /// By Sender, else From, else what From is going to be.
    pub(super) fn of(head: &Head, content: &[u8], facts: &Facts) -> Self {
        let prefix = prefix(head);
        let field = ["Sender", "From"]
            .iter()
            .find_map(|name| head.first(content, &format!("{prefix}{name}")));
        let Some((index, entry)) = field else {
            return Self::Address(None, facts.sender.clone());
        };
        let value = entry.value_in(content);
        let mut all = members(value);
        match (all.next(), all.next()) {
            (Some(Member::Address(address)), None) => {
                Self::Address(Some(index), address.text(value).into_owned())
            }
            _ => Self::Other(Some(index)),
        }
    }

    /// What follows when the claim is wrong.
    pub(super) fn wrong(&self, head: &Head, content: &[u8]) -> Verdict {
        let (Self::Address(index, _) | Self::Other(index)) = self;
        let is_sender = |index: &usize| {
            let name = format!("{}Sender", prefix(head));
            head.fields
                .get(*index)
                .is_some_and(|entry| entry.is(content, &name))
        };
        match index.filter(is_sender) {
            Some(index) => Verdict::SenderWrong(index),
            None => Verdict::SenderMissing,
        }
    }
}

/// Whether an address is the owner's, as far as can be seen without asking the script.
pub(super) fn is_plainly(owner: &Owner, address: &[u8], hostname: &str) -> bool {
    let at = memchr::memrchr(b'@', address).unwrap_or(address.len());
    let (user, domain) = address.split_at_checked(at).unwrap_or((address, b""));
    let domain = domain.get(1..).unwrap_or_default();
    let here = domain.is_empty() || domain.eq_ignore_ascii_case(hostname.as_bytes());
    here && quote::dequoted(user, None).eq_ignore_ascii_case(&owner.login)
}

fn prefix(head: &Head) -> &'static str {
    if head.is_resent { "Resent-" } else { "" }
}

/// Makes the plan for one message.
pub(super) struct Completion<'a> {
    pub(super) head: &'a Head,
    pub(super) content: &'a [u8],
    pub(super) facts: &'a Facts,
    pub(super) settings: &'a Settings,
    pub(super) verdict: Verdict,
}

impl Completion<'_> {
    pub(super) fn plan(&self, events: &mut Vec<Event>) -> Plan {
        let mut plan = Plan::default();
        let submitted = self.facts.origin != Origin::Relay;
        if submitted || self.settings.kill_in_relayed {
            self.kill(&mut plan);
        }
        if submitted {
            plan.removed.extend(self.head.mailbox_lines.iter().cloned());
            self.sender(&mut plan, events);
            if self.head.is_resent {
                self.resent(&mut plan);
            } else {
                self.plain(&mut plan, events);
            }
            plan.lacks_end = !self.head.has_end;
        }
        plan
    }

    fn kill(&self, plan: &mut Plan) {
        let is_killed = |name: &[u8]| {
            let killed = self.settings.killed.iter();
            killed
                .map(String::as_bytes)
                .any(|known| known.eq_ignore_ascii_case(name))
        };
        for (index, entry) in self.head.fields.iter().enumerate() {
            if is_killed(entry.name_in(self.content)) {
                plan.killed.push(index);
                plan.removed.push(entry.whole.clone());
            }
        }
    }

    /// RFC 5322 3.6.2: the Sender field says who sent what somebody else has written.
    fn sender(&self, plan: &mut Plan, events: &mut Vec<Event>) {
        let Origin::User(owner) = &self.facts.origin else {
            return;
        };
        let name = format!("{}Sender", prefix(self.head));
        let at = match self.verdict {
            Verdict::Right => return,
            Verdict::SenderWrong(index) => {
                let Some(entry) = self.head.fields.get(index) else {
                    return;
                };
                let said = super::head::unfolded(entry.value_in(self.content));
                events.push(Event::BreakIn(said));
                plan.fake = Some(index);
                entry.whole.start
            }
            Verdict::SenderMissing => self.before(&["From", "To", "Subject"]),
        };
        let address = self.owner_address(owner);
        self.add_at(plan, at, &name, named(owner, &address));
    }

    fn plain(&self, plan: &mut Plan, events: &mut Vec<Event>) {
        if !self.has("Message-Id") {
            self.add(plan, "Message-Id", self.message_id());
        }
        if !self.has("From") {
            match self.from() {
                Some(from) => self.add_at(plan, self.before(&["To", "Subject"]), "From", from),
                None => events.push(Event::NoSender),
            }
        }
        let destinations = ["To", "Cc", "Apparently-To"];
        if !destinations.iter().any(|name| self.has(name)) {
            let nobody = "unlisted-recipients:; (no To-header on input)";
            self.add(plan, "To", nobody.to_owned());
        }
        if !self.has("Date") {
            self.add(plan, "Date", date::format(self.facts.arrival_ms));
        }
    }

    /// RFC 5322 3.6.6: who sends something again says when and who; what it said before stays.
    fn resent(&self, plan: &mut Plan) {
        if let Origin::User(owner) = &self.facts.origin {
            if !self.has("Resent-From") {
                let at = self.before(&["To"]);
                let address = self.owner_address(owner);
                self.add_at(plan, at, "Resent-From", named(owner, &address));
            }
            if !self.has("Resent-Message-Id") {
                self.add(plan, "Resent-Message-Id", self.message_id());
            }
        }
        if !self.has("Resent-Date") {
            self.add(plan, "Resent-Date", date::format(self.facts.arrival_ms));
        }
    }

    fn has(&self, name: &str) -> bool {
        self.head.first(self.content, name).is_some()
    }

    fn message_id(&self) -> String {
        format!("<{}@{}>", self.facts.id, self.settings.hostname)
    }

    fn owner_address(&self, owner: &Owner) -> String {
        let login = String::from_utf8_lossy(&owner.login);
        format!("{login}@{}", self.settings.hostname)
    }

    /// The sender of the envelope, with the name of the owner if there is one. A null sender of an owner
    /// is he; of others nobody knows who it is.
    fn from(&self) -> Option<String> {
        let sender = core::str::from_utf8(&self.facts.sender).ok();
        let sender = sender.filter(|sender| !sender.is_empty());
        match &self.facts.origin {
            Origin::User(owner) => {
                let own = || self.owner_address(owner);
                Some(named(owner, &sender.map_or_else(own, str::to_owned)))
            }
            _ => sender.map(|sender| format!("<{sender}>")),
        }
    }

    /// The place of the first of these fields that is there, of Resent- fields if it is resent; else the
    /// end of the header.
    fn before(&self, names: &[&str]) -> usize {
        let prefix = prefix(self.head);
        let place = names
            .iter()
            .find_map(|name| self.head.first(self.content, &format!("{prefix}{name}")));
        place.map_or(self.head.end, |(_, entry)| entry.whole.start)
    }

    fn add(&self, plan: &mut Plan, name: &str, value: String) {
        self.add_at(plan, self.head.end, name, value);
    }

    fn add_at(&self, plan: &mut Plan, at: usize, name: &str, value: String) {
        plan.added.push(Added {
            at,
            kind: super::head::kind(name.as_bytes()),
            name: name.to_owned(),
            value: value.into_bytes(),
        });
    }
}

fn named(owner: &Owner, address: &str) -> String {
    if owner.full_name.is_empty() {
        return format!("<{address}>");
    }
    phrase::mailbox(&String::from_utf8_lossy(&owner.full_name), address)
}

/// Fields of a header that RFC 5322 does not know in this form.
pub(super) fn inspect(head: &Head, content: &[u8], events: &mut Vec<Event>) {
    const EVENTS_MAX: usize = 100;
    for entry in &head.fields {
        let value = entry.value_in(content);
        let good = match entry.kind {
            Kind::Addresses(_) => {
                let mut good = true;
                for member in members(value) {
                    let bad = match member {
                        Member::Address(address) if address.closed => continue,
                        Member::Address(address) => address.whole,
                        Member::Bad(range) => range,
                    };
                    good = false;
                    if events.len() < EVENTS_MAX {
                        let text = value.get(bad).unwrap_or_default();
                        events.push(Event::BadAddress(super::head::unfolded(text)));
                    }
                }
                good
            }
            Kind::Date => date::is_date(value),
            Kind::MessageId => is_message_id(value),
            Kind::Received | Kind::Other => true,
        };
        if !good && events.len() < EVENTS_MAX {
            events.push(Event::BadHeader(entry.name_in(content).to_vec()));
        }
    }
}

/// RFC 5322 3.6.4: something in brackets that looks like an address.
fn is_message_id(value: &[u8]) -> bool {
    let mut all = members(value);
    let first = all.next();
    let good = matches!(&first, Some(Member::Address(id)) if id.bracketed && id.closed);
    good && all.next().is_none()
}
