//! Recipients by number: those of the envelope first, then those that routing made of them.

use std::sync::Arc;

use spool::Envelope;

use crate::router;

/// A recipient of a message as it is delivered to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addressed<'a> {
    pub(super) address: &'a [u8],
    pub(super) notify: u8,
    pub(super) orcpt: Option<&'a [u8]>,
    /// The recipient of the envelope it comes from.
    pub(super) of: u32,
    /// What it shares with others; none: it is as in the envelope.
    pub(super) group: Option<u32>,
    pub(super) privilege: Option<u32>,
}

/// The recipient of this number; none: there is none, which only damage can lead to.
pub(super) fn addressed(envelope: &Envelope, number: u32) -> Option<Addressed<'_>> {
    let count = envelope.recipients.len();
    if let Some(recipient) = envelope.recipients.get(number as usize) {
        return Some(Addressed {
            address: &recipient.address,
            notify: recipient.notify,
            orcpt: recipient.orcpt.as_deref(),
            of: number,
            group: None,
            privilege: None,
        });
    }
    let routing = envelope.routing.as_ref()?;
    let routed = routing.recipients.get(number as usize - count)?;
    Some(Addressed {
        address: routed.user,
        notify: routed.notify,
        orcpt: routed.orcpt,
        of: routed.of,
        group: Some(routed.group),
        privilege: routed.privilege,
    })
}

/// Its address.
pub(super) fn address(envelope: &Envelope, number: u32) -> &[u8] {
    addressed(envelope, number).map_or(&[], |recipient| recipient.address)
}

/// The recipient of the envelope that the sender named.
pub(super) fn original(envelope: &Envelope, number: u32) -> &[u8] {
    let of = addressed(envelope, number).map(|recipient| recipient.of as usize);
    let original = of.and_then(|of| envelope.recipients.get(of));
    original.map_or(&[], |recipient| &recipient.address)
}

/// The sender that the members of a group have.
pub(super) fn sender(envelope: &Envelope, group: Option<u32>) -> &[u8] {
    group_of(envelope, group).map_or(&envelope.sender, |group| &group.sender)
}

/// The sender that a recipient's mail has.
pub(super) fn sender_for(envelope: &Envelope, number: u32) -> &[u8] {
    let group = addressed(envelope, number).and_then(|recipient| recipient.group);
    sender(envelope, group)
}

/// Whom a report about a recipient goes to: whom routing names, else the sender of its mail. Empty: nobody. A report,
/// or whatever else came from nobody, is never reported about (RFC 5321 4.5.5), whatever routing has made of it.
pub(super) fn told_of(envelope: &Envelope, number: u32) -> &[u8] {
    if envelope.sender.is_empty() {
        return &[];
    }
    let group = addressed(envelope, number).and_then(|recipient| recipient.group);
    let named = group_of(envelope, group).and_then(|group| group.errors_to.as_deref());
    named.unwrap_or_else(|| sender(envelope, group))
}

/// RET and ENVID of the message are not for the members of a group.
pub(super) fn is_detached(envelope: &Envelope, group: Option<u32>) -> bool {
    group_of(envelope, group).is_some_and(|group| group.detached)
}

/// The changes of the content for the members of a group.
pub(super) fn edits(envelope: &Envelope, group: Option<u32>) -> &[spool::Edit] {
    group_of(envelope, group).map_or(&[], |group| &group.edits)
}

/// Whether the members of a group share just what a result says.
pub(super) fn is_group(envelope: &Envelope, group: Option<u32>, result: &router::Group) -> bool {
    let known = group_of(envelope, group);
    let edits = edits(envelope, group);
    let mut pairs = edits.iter().zip(&result.edits);
    sender(envelope, group) == result.sender.as_deref().unwrap_or(&envelope.sender)
        && known.and_then(|known| known.errors_to.as_ref()) == result.errors_to.as_ref()
        && is_detached(envelope, group) == result.detached
        && edits.len() == result.edits.len()
        && pairs.all(|(old, new)| {
            (old.at, old.remove, &old.insert) == (new.at, new.remove, &new.insert)
        })
}

/// What the members of a group share; none: it is as in the envelope.
pub(super) fn group_of(envelope: &Envelope, group: Option<u32>) -> Option<&spool::Group> {
    let routing = envelope.routing.as_ref()?;
    routing.groups.get(group? as usize)
}

/// Where routing has sent a recipient; none: the envelope does not say.
pub(super) fn hop(envelope: &Envelope, number: u32) -> Option<(&Arc<str>, &Arc<str>)> {
    let routing = envelope.routing.as_ref()?;
    let at = (number as usize).checked_sub(envelope.recipients.len())?;
    let hop = routing.recipients.get(at)?.hop;
    let (channel, host) = routing.hops.get(hop as usize)?;
    Some((channel, host))
}
