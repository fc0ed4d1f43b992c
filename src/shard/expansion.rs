//! What routing made of recipients, on its way to a round of the spool.

use std::collections::HashMap;
use std::sync::Arc;

use spool::Envelope;

use super::recipients::{addressed, sender};
use super::routing::{Asked, How};
use crate::router::{Fate, Group, Recipient};

/// Recipients that are replaced, and what comes in their place.
#[derive(Debug, Default)]
pub(super) struct Expansion {
    replaced: Vec<u32>,
    routing: spool::Routing,
    /// When new recipients are due: so many of them at that time.
    due_ms: Vec<(u32, u64)>,
    /// Groups of the router's result.
    groups: Vec<Group>,
    /// Their numbers here, by group and by the group that a sender was taken from.
    numbers: HashMap<(u32, Option<u32>), u32>,
    hops: HashMap<(Arc<str>, Arc<str>), u32>,
}

impl Expansion {
    /// Of a message, with the groups of a result.
    pub(super) fn of(_: &Envelope, groups: &[Group], generation: u64) -> Self {
        Self {
            groups: groups.to_vec(),
            routing: spool::Routing {
                generation,
                ..spool::Routing::default()
            },
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.replaced.is_empty()
    }

    /// Nothing more is added: what was needed for that is given up.
    pub(super) fn finish(&mut self) {
        self.hops = HashMap::new();
        self.numbers = HashMap::new();
        self.groups = Vec::new();
    }

    pub(super) fn replaced(&self) -> &[u32] {
        &self.replaced
    }

    pub(super) fn routing(&self) -> &spool::Routing {
        &self.routing
    }

    pub(super) fn into_parts(self) -> (spool::Routing, Vec<(u32, u64)>) {
        (self.routing, self.due_ms)
    }

    /// Whether a result is what the envelope says of its recipient, from the same sender, and unchanged.
    pub(super) fn is_plain(&self, envelope: &Envelope, of: u32, result: &Recipient) -> bool {
        let (Fate::Deliver(quad), Some(group)) =
            (&result.fate, self.groups.get(result.group as usize))
        else {
            return false;
        };
        let Some(recipient) = addressed(envelope, of) else {
            return false;
        };
        let same_sender = group.sender.as_ref();
        let same_sender = same_sender.is_none_or(|sender| *sender == envelope.sender);
        let has_envelope = envelope.ret.is_some() || envelope.envid.is_some();
        same_sender
            && group.errors_to.is_none()
            && !(group.detached && has_envelope)
            && group.edits.is_empty()
            && quad.privilege.is_none()
            && quad.user == recipient.address
            && quad.notify == recipient.notify
            && quad.orcpt.as_deref() == recipient.orcpt
            && !matches!(&*quad.channel, "hold" | "error")
    }

    /// Adds what comes in the place of a recipient.
    pub(super) fn add(
        &mut self,
        envelope: &Envelope,
        asked: &Asked,
        results: impl IntoIterator<Item = Recipient>,
    ) {
        self.replaced.extend(asked.numbers());
        let number = if asked.how == How::Held {
            asked.number
        } else {
            asked.of
        };
        let Some(known) = addressed(envelope, number) else {
            return;
        };
        // Sender and changes of one that was on hold stay what they are, unless the result says otherwise.
        let inherited = known.group.filter(|_| asked.how == How::Held);
        let before = self.routing.recipients.len();
        for result in results {
            let group = self.group(envelope, result.group, inherited);
            let (channel, host, user, privilege, notify, orcpt) = match result.fate {
                Fate::Deliver(quad) => (
                    quad.channel,
                    quad.host,
                    quad.user,
                    quad.privilege,
                    quad.notify,
                    quad.orcpt,
                ),
                Fate::Hold { reason } => {
                    let user = known.address.to_vec();
                    let orcpt = known.orcpt.map(<[u8]>::to_vec);
                    let host = short(&reason);
                    (
                        "hold".into(),
                        host,
                        user,
                        known.privilege,
                        known.notify,
                        orcpt,
                    )
                }
                Fate::Fail { status, text } => {
                    let user = known.address.to_vec();
                    let orcpt = known.orcpt.map(<[u8]>::to_vec);
                    let host = short(&format!("{status} {text}"));
                    ("error".into(), host, user, None, known.notify, orcpt)
                }
                Fate::Discard => continue,
            };
            let hop = self.hop(channel, host);
            self.routing.recipients.push(spool::RoutedRef {
                of: asked.of,
                group,
                hop,
                privilege,
                notify,
                orcpt: orcpt.as_deref(),
                user: &user,
            });
        }
        let count = self.routing.recipients.len() - before;
        self.due_ms.push((count as u32, asked.due_ms));
    }

    fn hop(&mut self, channel: Arc<str>, host: Arc<str>) -> u32 {
        if let Some((last_channel, last_host)) = self.routing.hops.last()
            && (&**last_channel, &**last_host) == (&*channel, &*host)
        {
            return self.routing.hops.len() as u32 - 1;
        }
        let hops = &mut self.routing.hops;
        let next = hops.len() as u32;
        *self.hops.entry((channel, host)).or_insert_with_key(|hop| {
            hops.push(hop.clone());
            next
        })
    }

    fn group(&mut self, envelope: &Envelope, group: u32, inherited: Option<u32>) -> u32 {
        if let Some(number) = self.numbers.get(&(group, inherited)) {
            return *number;
        }
        let given = self.groups.get(group as usize);
        let from = given.and_then(|group| group.sender.clone());
        let edits = given.map_or(&[][..], |group| &group.edits);
        let edits = if edits.is_empty() {
            super::recipients::edits(envelope, inherited).to_vec()
        } else {
            edits
                .iter()
                .map(|edit| spool::Edit {
                    at: edit.at,
                    remove: edit.remove,
                    insert: edit.insert.clone(),
                })
                .collect()
        };
        let number = self.routing.groups.len() as u32;
        let known = super::recipients::group_of(envelope, inherited);
        self.routing.groups.push(spool::Group {
            sender: from.unwrap_or_else(|| sender(envelope, inherited).to_vec()),
            errors_to: given
                .and_then(|group| group.errors_to.clone())
                .or_else(|| known.and_then(|group| group.errors_to.clone())),
            detached: given.is_some_and(|group| group.detached)
                || known.is_some_and(|group| group.detached),
            edits,
        });
        self.numbers.insert((group, inherited), number);
        number
    }
}

/// What a result becomes whose recipients all change, and what they replace: what is recorded of a list.
#[must_use]
pub fn round_of(
    envelope: &Envelope,
    routed: crate::router::Routed,
    generation: u64,
) -> (Vec<u32>, spool::Routing) {
    let mut expansion = Expansion::of(envelope, &routed.groups, generation);
    let mut results = routed.recipients.into_iter().peekable();
    for number in 0..envelope.recipients.len() as u32 {
        let asked = Asked {
            number,
            others: Vec::new(),
            of: number,
            due_ms: 0,
            how: How::First,
        };
        let mine = std::iter::from_fn(|| results.next_if(|result| result.of == number));
        expansion.add(envelope, &asked, mine);
    }
    expansion.finish();
    (expansion.replaced, expansion.routing)
}

/// A reason in the place of a next hop: one line, of bounded length.
fn short(text: &str) -> Arc<str> {
    const CHARS_MAX: usize = 300;
    let text: String = text
        .chars()
        .take(CHARS_MAX)
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect();
    text.into()
}
