//! Groups under way: recipients by sender, address for reports and rewriter.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::quad::Rewriter;
use super::{Edit, Group, Recipient};
use crate::base::sequence::Sequence;

/// What the recipients of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Common {
    rewriter: usize,
    sender: Vec<u8>,
    errors_to: Option<Vec<u8>>,
}

/// Different rewriters in one message; each of them rewrites the header once.
pub(super) const REWRITERS_MAX: usize = 64;

/// Most messages have one group or two.
const LOOKED_AT_MAX: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Groups {
    list: Vec<(Common, Sequence<Recipient>)>,
    /// Those behind the first [`LOOKED_AT_MAX`].
    others: HashMap<Common, usize>,
    rewriters: Vec<Rewriter>,
    texts: Texts,
    count: usize,
}

impl Groups {
    /// False: the recipient was not taken, since there are [`REWRITERS_MAX`] other rewriters.
    pub(super) fn add(
        &mut self,
        rewriter: Rewriter,
        sender: Vec<u8>,
        errors_to: Option<Vec<u8>>,
        recipient: Recipient,
    ) -> bool {
        let Some(rewriter) = self.rewriter(rewriter) else {
            return false;
        };
        let common = Common {
            rewriter,
            sender,
            errors_to,
        };
        self.count += 1;
        match self.known(&common) {
            Some(at) => self.list[at].1.push(recipient),
            None => {
                if self.list.len() >= LOOKED_AT_MAX {
                    self.others.insert(common.clone(), self.list.len());
                }
                self.list.push((common, Sequence::from_iter([recipient])));
            }
        }
        true
    }

    fn known(&self, common: &Common) -> Option<usize> {
        // Members of a list come one behind the other.
        let last = self.list.len().checked_sub(1);
        let last = last.filter(|at| self.list[*at].0 == *common);
        let mut first = self.list.iter().take(LOOKED_AT_MAX);
        last.or_else(|| first.position(|(known, _)| known == common))
            .or_else(|| self.others.get(common).copied())
    }

    /// Rewriters that change nothing are one.
    fn rewriter(&mut self, rewriter: Rewriter) -> Option<usize> {
        let rewriter = if rewriter.is_null() {
            Rewriter::default()
        } else {
            rewriter
        };
        let known = self.rewriters.iter().position(|known| *known == rewriter);
        if known.is_none() && self.rewriters.len() < REWRITERS_MAX {
            self.rewriters.push(rewriter);
            return Some(self.rewriters.len() - 1);
        }
        known
    }

    /// The rewriters named so far.
    pub(super) fn rewriters(&self) -> &[Rewriter] {
        &self.rewriters
    }

    /// Deliveries so far.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// A text that many recipients share.
    pub(super) fn text(&mut self, text: &[u8]) -> Arc<[u8]> {
        self.texts.shared(text)
    }

    /// The groups, each with the edits of its rewriter.
    pub(super) fn finish(&mut self, edits: &[Arc<[Edit]>]) -> Vec<Group> {
        let list = std::mem::take(&mut self.list);
        let group = |(common, recipients): (Common, Sequence<Recipient>)| Group {
            sender: common.sender,
            errors_to: common.errors_to,
            edits: edits.get(common.rewriter).cloned().unwrap_or_default(),
            recipients,
        };
        list.into_iter().map(group).collect()
    }
}

/// The latest channels and hosts.
#[derive(Debug, Default)]
struct Texts {
    last: VecDeque<Arc<[u8]>>,
}

/// Texts that are remembered: a few next hops get most of a message.
const TEXTS_MAX: usize = 8;

impl Texts {
    fn shared(&mut self, text: &[u8]) -> Arc<[u8]> {
        if let Some(known) = self.last.iter().find(|known| ***known == *text) {
            return Arc::clone(known);
        }
        let shared: Arc<[u8]> = text.into();
        if self.last.len() >= TEXTS_MAX {
            self.last.pop_front();
        }
        self.last.push_back(Arc::clone(&shared));
        shared
    }
}
