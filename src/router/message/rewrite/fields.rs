//! The fields of a header and the addresses in them, as they are rewritten.

use super::super::complete::Plan;
use super::super::head::{Head, Kind};
use super::super::script::Side;
use crate::mail::address::{self, Member, members};

/// Addresses of a header that are rewritten; those behind them stay as they are.
const ADDRESSES_MAX: usize = 50_000;

/// The message whose header is rewritten.
#[derive(Clone, Copy)]
pub(in super::super) struct View<'a> {
    pub(in super::super) head: &'a Head,
    pub(in super::super) content: &'a [u8],
    pub(in super::super) plan: &'a Plan,
    pub(in super::super) is_report: bool,
}

/// A field: of the stored content, or one that is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Stored(usize),
    Added(usize),
}

/// An address that is rewritten.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) item: Item,
    pub(super) side: Side,
    /// In the content, or in the value of an added field.
    pub(super) place: address::Address,
}

/// The text that places of an item count in.
pub(super) fn text_of(item: Item, view: View<'_>) -> &[u8] {
    match item {
        Item::Stored(_) => view.content,
        Item::Added(index) => {
            let added = view.plan.added.get(index);
            added.map_or(&b""[..], |added| &added.value)
        }
    }
}

pub(super) fn start_of(item: Item, view: View<'_>) -> usize {
    match item {
        Item::Stored(index) => view
            .head
            .fields
            .get(index)
            .map_or(0, |entry| entry.whole.start),
        Item::Added(_) => 0,
    }
}

pub(super) fn name_of(item: Item, view: View<'_>) -> &[u8] {
    match item {
        Item::Stored(index) => {
            let entry = view.head.fields.get(index);
            entry.map_or(&b""[..], |entry| entry.name_in(view.content))
        }
        Item::Added(index) => {
            let added = view.plan.added.get(index);
            added.map_or(&b""[..], |added| added.name.as_bytes())
        }
    }
}

/// What stands behind the colon.
pub(super) fn value_of(item: Item, view: View<'_>) -> Vec<u8> {
    match item {
        Item::Stored(index) => {
            let entry = view.head.fields.get(index);
            entry.map_or_else(Vec::new, |entry| entry.value_in(view.content).to_vec())
        }
        Item::Added(_) => [b" ", text_of(item, view)].concat(),
    }
}

/// The addresses of the header, added fields included, in order.
pub(super) fn jobs(view: View<'_>) -> Vec<Job> {
    let mut jobs = Vec::new();
    for item in items(view, false) {
        let (kind, range) = match item {
            Item::Stored(index) => match view.head.fields.get(index) {
                Some(entry) => (entry.kind, entry.value.clone()),
                None => continue,
            },
            Item::Added(index) => match view.plan.added.get(index) {
                Some(added) => (added.kind, 0..added.value.len()),
                None => continue,
            },
        };
        let Kind::Addresses(side) = kind else {
            continue;
        };
        let value = text_of(item, view).get(range.clone()).unwrap_or_default();
        for member in members(value) {
            let Member::Address(mut place) = member else {
                continue;
            };
            if jobs.len() >= ADDRESSES_MAX {
                return jobs;
            }
            place.spec = place.spec.start + range.start..place.spec.end + range.start;
            place.whole = place.whole.start + range.start..place.whole.end + range.start;
            jobs.push(Job { item, side, place });
        }
    }
    jobs
}

/// The fields that stay, without those whose addresses are rewritten if `others` is true.
pub(super) fn items(view: View<'_>, others: bool) -> Vec<Item> {
    let plan = view.plan;
    let wanted = |kind: Kind| !(others && matches!(kind, Kind::Addresses(_)));
    let stored = view.head.fields.iter().enumerate();
    let stored = stored.filter(|(index, entry)| {
        let gone = plan.killed.contains(index) || plan.fake == Some(*index);
        !gone && wanted(entry.kind)
    });
    let added = plan.added.iter().enumerate();
    let added = added.filter(|(_, added)| wanted(added.kind));
    stored
        .map(|(index, _)| Item::Stored(index))
        .chain(added.map(|(index, _)| Item::Added(index)))
        .collect()
}
