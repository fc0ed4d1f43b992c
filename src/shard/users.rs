//! Whether a recipient is a user of this host: asked of the control thread, remembered for a while.

use super::Shard;
use super::inbound::Phase;
use crate::base::fast_map::FastMap;
use crate::base::slab::Key;
use crate::control::users::{UNKNOWN, UNSURE, UserAnswer, UserQuestion};
use crate::io::Driver;
use crate::protocol::server::Verdict;

/// Users remembered; beyond it all are asked again.
const USERS_MAX: usize = 20_000;

/// How long a user is remembered, and that there is none.
const KNOWN_NS: u64 = 60_000_000_000;
const UNKNOWN_NS: u64 = 5_000_000_000;

/// What is known of users.
#[derive(Debug, Default)]
pub(super) struct Users {
    /// By recipient: whether there is one, and until when that counts.
    known: FastMap<Vec<u8>, (bool, u64)>,
    /// Questions under way: who waits, for which recipient.
    asked: FastMap<u64, (Key, Vec<u8>)>,
}

impl<D: Driver> Shard<D> {
    /// The verdict on a recipient of this host; none: the session waits for it.
    pub(super) fn judge_user(&mut self, key: Key, address: &[u8]) -> Option<Verdict> {
        if let Some((known, until)) = self.users.known.get(address)
            && *until > self.now.mono_ns
        {
            return Some(verdict(*known));
        }
        self.question_next += 1;
        let token = self.question_next;
        let question = UserQuestion {
            shard: self.settings.shard,
            token,
            address: address.to_vec(),
        };
        if (self.outside.ask_user)(question).is_err() {
            return Some(Verdict::Reject(UNSURE.into()));
        }
        self.users.asked.insert(token, (key, address.to_vec()));
        None
    }

    /// An answer of the control thread.
    pub(super) fn user_known(&mut self, answer: &UserAnswer) {
        let Some((key, address)) = self.users.asked.remove(&answer.token) else {
            return;
        };
        if self.users.known.len() >= USERS_MAX {
            self.users.known.clear();
        }
        if let Some(known) = answer.known {
            let lasts = if known { KNOWN_NS } else { UNKNOWN_NS };
            let until = self.now.after_ns(lasts);
            self.users.known.insert(address, (known, until));
        }
        let Some(inbound) = self.inbound.get_mut(key) else {
            return;
        };
        if inbound.phase == Phase::Judging {
            inbound.phase = Phase::Open;
            let verdict = match answer.known {
                Some(known) => verdict(known),
                None => Verdict::Reject(UNSURE.into()),
            };
            inbound
                .session
                .verdict(verdict, self.now, &mut inbound.output);
            self.pump(key, None);
        }
    }
}

fn verdict(known: bool) -> Verdict {
    if known {
        Verdict::Accept
    } else {
        Verdict::Reject(UNKNOWN.into())
    }
}
