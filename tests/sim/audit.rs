//! Looks twice at the queue: who waits both times while its next hop had room, waits too long.

use std::collections::BTreeMap;
use std::sync::Arc;

use zmailer::control::queue::Inquiry;
use zmailer::scheduler::filter::Filter;

use super::ledger::{HOUR_NS, SECOND_NS};
use super::process::Process;

/// Between the two looks, and so the longest wait that is not noticed. Passing a vertex to the shard that
/// owns its next hop, lending slots (which waits for transactions under way at a prompt next hop) and
/// opening a connection take a few dozen latencies of 40 ms at most, and lent slots come back after the
/// idle time of half a second: a second or two in all.
pub const SLACK_NS: u64 = 20 * SECOND_NS;

/// A next hop counts as healthy so long after it has become prompt: by then connections from before are
/// over (greetings are waited for 5 minutes, replies 10) and so is the longest pause of 64 s.
pub const HEALTHY_NS: u64 = 12 * 60 * SECOND_NS;

/// So long after its expiry a recipient may be queued: the last attempt may begin at the expiry, be under
/// way for its timeouts, or find the next hop suspended for the longest delay of 66 minutes.
pub const OVERDUE_NS: u64 = 2 * HOUR_NS;

/// A recipient that could be tried now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    pub host: String,
    attempts: u32,
}

/// A message and a recipient.
type Name = (String, String);

/// What one look has found.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub at_ns: u64,
    pub waiting: BTreeMap<Name, Waiter>,
    /// All that is queued, with its age.
    pub ages_ns: BTreeMap<Name, u64>,
}

#[derive(Debug)]
enum State {
    /// Pages are awaited from so many shards.
    Asking(Look, usize),
    Resting(Look),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Audit {
    state: Option<State>,
    first: Option<Look>,
}

impl Audit {
    /// What happened makes the audit worthless: it is begun anew some other time.
    pub fn cancel(&mut self) {
        *self = Self::default();
    }

    pub fn is_under_way(&self) -> bool {
        self.state.is_some()
    }

    pub fn begin(&mut self, process: &mut Process, shards: usize, now_ns: u64) {
        for shard in 0..shards {
            process.inquire(shard, inquiry(shard, 0));
        }
        let look = Look {
            at_ns: now_ns,
            ..Look::default()
        };
        self.state = Some(State::Asking(look, shards));
    }

    /// When the second look is due.
    pub fn due_ns(&self) -> Option<u64> {
        match &self.state {
            Some(State::Resting(look)) => Some(look.at_ns + SLACK_NS),
            _ => None,
        }
    }

    /// Goes on; gives both looks when they have been taken.
    pub fn turn(
        &mut self,
        process: &mut Process,
        shards: usize,
        now: zmailer::base::clock::Now,
    ) -> Option<(Look, Look)> {
        match self.state.take()? {
            State::Asking(mut look, mut missing) => {
                while let Some(page) = process.page() {
                    let shard = page.token as usize;
                    match page.next {
                        Some(after) => process.inquire(shard, inquiry(shard, after)),
                        None => missing -= 1,
                    }
                    look.add(page, now.wall_ms);
                }
                if missing > 0 {
                    self.state = Some(State::Asking(look, missing));
                } else if let Some(first) = self.first.take() {
                    return Some((first, look));
                } else {
                    self.state = Some(State::Resting(look));
                }
                None
            }
            State::Resting(look) if now.mono_ns >= look.at_ns + SLACK_NS => {
                self.first = Some(look);
                self.begin(process, shards, now.mono_ns);
                None
            }
            resting @ State::Resting(_) => {
                self.state = Some(resting);
                None
            }
        }
    }
}

impl Look {
    fn add(&mut self, page: zmailer::control::queue::Page, wall_ms: u64) {
        for entry in page.entries {
            for recipient in entry.recipients {
                let address = String::from_utf8_lossy(&recipient.address).into_owned();
                let name = (entry.id.clone(), address);
                let age_ms = wall_ms.saturating_sub(entry.arrival_ms);
                self.ages_ns.insert(name.clone(), age_ms * 1_000_000);
                if recipient.state != "delivering" && recipient.next_ms <= wall_ms {
                    let waiter = Waiter {
                        host: recipient.host,
                        attempts: recipient.attempts,
                    };
                    self.waiting.insert(name, waiter);
                }
            }
        }
    }
}

fn inquiry(shard: usize, after: u64) -> Inquiry {
    Inquiry {
        dry: false,
        token: shard as u64,
        filter: Arc::new(Filter::All),
        act: None,
        list: true,
        after,
        upto: u64::MAX,
    }
}
