//! The front door asks the router about senders and recipients: the session waits, the shard does not. Answers are
//! remembered for a while.

use super::Shard;
use super::inbound::Phase;
use super::routing::Waits;
use crate::base::fast_map::FastMap;
use crate::base::slab::Key;
use crate::io::Driver;
use crate::protocol::server::Verdict;
use crate::router::message::Origin;
use crate::router::{Addressee, Check, Fate, Mail, Routed, Turn};

/// Answers remembered; beyond it all are asked for again.
const ANSWERS_MAX: usize = 20_000;

/// How long an answer is remembered; one that may change soon is not.
const ACCEPTED_NS: u64 = 60_000_000_000;
const REFUSED_NS: u64 = 5_000_000_000;

/// The reply while it cannot be found out.
const UNSURE: &str = "451 4.3.0 the address cannot be verified now";

/// Bytes of a reply's text, at most (RFC 5321 4.5.3.1.5).
const REPLY_BYTES_MAX: usize = 400;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    check: Check2,
    address: Vec<u8>,
}

/// [`Check`], as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Check2 {
    Sender,
    Recipient,
}

/// What is known: a refusal, or none, and until when that counts.
#[derive(Debug, Default)]
pub(super) struct Verified {
    known: FastMap<Asked, (Option<String>, u64)>,
}

impl Verified {
    /// Settings have changed.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }
}

impl<D: Driver> Shard<D> {
    /// The verdict of the router; none: the session waits for it.
    pub(super) fn verify(
        &mut self,
        key: Key,
        check: Check,
        sender: &[u8],
        address: &[u8],
    ) -> Option<Verdict> {
        if !self.router.verifies() || !self.router.is_verified(check, address) {
            return Some(Verdict::Accept);
        }
        let asked = Asked {
            check: match check {
                Check::Sender => Check2::Sender,
                Check::Recipient => Check2::Recipient,
            },
            address: address.to_vec(),
        };
        if let Some((refusal, until)) = self.verified.known.get(&asked)
            && *until > self.now.mono_ns
        {
            return Some(verdict(refusal.clone()));
        }
        let inbound = self.inbound.get_mut(key)?;
        inbound.phase = Phase::Judging;
        let addressee = [Addressee {
            address,
            notify: 0,
            orcpt: None,
        }];
        let mail = Mail {
            id: &"",
            sender,
            recipients: &addressee,
            ret: None,
            envid: None,
            client: &inbound.peer_text,
            helo: b"",
            protocol: b"",
            origin: &Origin::Relay,
            arrival_ms: self.now.wall_ms,
            now: self.now,
            size_bytes: 0,
            content: None,
        };
        let turn = self.router.verify(check, &mail);
        if let Turn::Need(..) = turn {
            self.routed(Waits::Session(key, asked), turn);
            // It may have been refused at once.
            return None;
        }
        let refusal = self.remember(asked, turn);
        if let Some(inbound) = self.inbound.get_mut(key) {
            inbound.phase = Phase::Open;
        }
        Some(verdict(refusal))
    }

    /// The router has made up its mind about an address.
    pub(super) fn verified(&mut self, key: Key, asked: Asked, turn: Turn) {
        let refusal = self.remember(asked, turn);
        self.tell_verdict(key, verdict(refusal));
    }

    pub(super) fn cannot_verify(&mut self, key: Key) {
        self.tell_verdict(key, Verdict::Reject(UNSURE.into()));
    }

    fn tell_verdict(&mut self, key: Key, verdict: Verdict) {
        let Some(inbound) = self.inbound.get_mut(key) else {
            return;
        };
        if inbound.phase == Phase::Judging {
            inbound.phase = Phase::Open;
            inbound
                .session
                .verdict(verdict, self.now, &mut inbound.output);
            // Not here: the session may be in the middle of its input.
            self.answered.push_back(key);
        }
    }

    fn remember(&mut self, asked: Asked, turn: Turn) -> Option<String> {
        let (refusal, lasts) = match turn {
            Turn::Done(routed) => match refusal(&routed) {
                Some(reply) if reply.starts_with('4') => (Some(reply), 0),
                Some(reply) => (Some(reply), REFUSED_NS),
                None => (None, ACCEPTED_NS),
            },
            Turn::Need(..) | Turn::Stopped(_) => (Some(UNSURE.to_owned()), 0),
        };
        if lasts > 0 {
            if self.verified.known.len() >= ANSWERS_MAX {
                self.verified.known.clear();
            }
            let until = self.now.after_ns(lasts);
            self.verified.known.insert(asked, (refusal.clone(), until));
        }
        refusal
    }
}

/// An address is refused when nothing of what it becomes can be delivered: for now, when something of it may be
/// later.
fn refusal(routed: &Routed) -> Option<String> {
    let mut refusal = None;
    for recipient in routed.recipients.iter() {
        match recipient.fate {
            Fate::Deliver(_) | Fate::Discard => return None,
            Fate::Hold { reason } => {
                refusal = Some(line("451", "4.4.3", &reason));
            }
            Fate::Fail { status, text } if refusal.is_none() => {
                refusal = Some(line("550", &status, &text));
            }
            Fate::Fail { .. } => {}
        }
    }
    refusal
}

fn line(code: &str, status: &str, text: &str) -> String {
    let clean = |char: char| {
        if char.is_ascii_graphic() || char == ' ' {
            char
        } else {
            '?'
        }
    };
    let text: String = text.chars().map(clean).take(REPLY_BYTES_MAX).collect();
    format!("{code} {status} {text}")
}

fn verdict(refusal: Option<String>) -> Verdict {
    match refusal {
        Some(reply) => Verdict::Reject(reply.into()),
        None => Verdict::Accept,
    }
}
