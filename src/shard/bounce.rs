//! Permanent failures: a report to the sender, or to whom the router names (`ERR`), or the message to `postman/` when
//! there is nobody to tell. A message that came from nobody, as reports do, is never reported about.
//!
//! The report is staged before the outcomes it speaks of, so it is committed with or before them: a
//! crash in between repeats the attempt, it never loses the report.

use std::net::SocketAddr;
use std::sync::Arc;

use spool::{BodyKind, Envelope, MessageKey, Outcome, Recipient, Status};

use super::Shard;
use super::dispatch::{Due, Load};
use super::intake::{Content, Message, Stalled};
use super::large::Outgoing;
use super::recipients::{self, addressed, told_of};

use crate::control::postman::{Kept, Original, Place, Undeliverable};
use crate::io::Driver;
use crate::mail::date;
use crate::mail::edit;
use crate::mail::header;
use crate::mail::report::{Action, FailedRecipient, Report};
use crate::mail::target;
use crate::scheduler::ThreadKey;

/// Bits of the NOTIFY parameter, as the spool keeps them.
const NOTIFY_NEVER: u8 = 1;
const NOTIFY_FAILURE: u8 = 4;

/// A message that `postman/` did not take is tried again, delivery first, after this.
const POSTMAN_RETRY_MS: u64 = 300_000;

/// Original content that a report returns, at most.
const RETURNED_BYTES_MAX: usize = 256 * 1024;

/// A recipient that will never be reached.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) recipient: u32,
    thread: Option<ThreadKey>,
    relay: Option<SocketAddr>,
    expired: bool,
    reply: Vec<u8>,
}

impl Failure {
    /// The next hop refused.
    pub(super) fn remote(
        recipient: u32,
        thread: ThreadKey,
        relay: Option<SocketAddr>,
        reply: Vec<u8>,
    ) -> Self {
        Self {
            recipient,
            thread: Some(thread),
            relay,
            expired: false,
            reply,
        }
    }

    /// Tried long enough.
    pub(super) fn expired(
        recipient: u32,
        thread: ThreadKey,
        relay: Option<SocketAddr>,
        reply: Vec<u8>,
    ) -> Self {
        Self {
            recipient,
            thread: Some(thread),
            relay,
            expired: true,
            reply,
        }
    }

    /// The router refused.
    pub(super) fn routing(recipient: u32, status: &str, text: &str) -> Self {
        let reply = format!("550 {status} {text}").into_bytes();
        Self {
            recipient,
            thread: None,
            relay: None,
            expired: false,
            reply,
        }
    }
}

/// What waits for a file.
#[derive(Debug)]
pub(super) enum Keeping {
    /// In `postman/`, for want of a sender to tell.
    Failures(Vec<Failure>),
    /// In `deferred/`: these recipients, and why.
    Aside(Vec<u32>, String),
    /// In `postman/`: a copy for this event; the file of its content stays until then.
    Copy(&'static str, Option<Arc<spool::ContentFile>>),
}

/// Failures whose report waits for room in the spool.
#[derive(Debug)]
pub(super) struct Failed {
    message: MessageKey,
    failures: Vec<Failure>,
    report: Stalled,
}

impl<D: Driver> Shard<D> {
    /// Ends recipients for good: reports first, outcomes after them. Each address that is to be told gets a report of
    /// its own; what one list has taken over and what not is not reported together.
    pub(super) fn fail(&mut self, message: MessageKey, failures: Vec<Failure>) {
        let mut rest = failures;
        while let Some(first) = rest.first() {
            let Some(live) = self.live.get(&message) else {
                return;
            };
            let common = |failure: &Failure| {
                let recipient = addressed(&live.envelope, failure.recipient);
                let group = recipient.and_then(|recipient| recipient.group);
                let told = told_of(&live.envelope, failure.recipient);
                (told, recipients::is_detached(&live.envelope, group))
            };
            let ours = common(first);
            let same = |failure: &Failure| common(failure) == ours;
            let (ours, others) = rest.iter().cloned().partition(same);
            rest = others;
            self.fail_together(message, ours);
        }
    }

    fn fail_together(&mut self, message: MessageKey, failures: Vec<Failure>) {
        let Some(live) = self.live.get(&message) else {
            return;
        };
        let has_told = has_told(&live.envelope, &failures);
        let wanted = has_told
            && failures
                .iter()
                .any(|failure| wants_report(&live.envelope, failure));
        let wants_content = wanted || !has_told;
        match live.content.clone() {
            None if wants_content => {
                self.load(message, Load::Report { message, failures });
            }
            content => self.fail_with(message, failures, content.map(Outgoing::Memory)),
        }
    }

    /// The same with the original content at hand, or with the news that it cannot be read.
    pub(super) fn fail_with(
        &mut self,
        message: MessageKey,
        failures: Vec<Failure>,
        content: Option<Outgoing>,
    ) {
        let Some(live) = self.live.get(&message) else {
            return;
        };
        if !has_told(&live.envelope, &failures) {
            match content {
                Some(content) => self.keep_for_postman(message, failures, content),
                // Nobody else has it: kept without its content it would be lost.
                None => self.try_later(message, &failures),
            }
            return;
        }
        match content {
            Some(Outgoing::File(file)) => self.read_start(message, failures, file),
            Some(Outgoing::Memory(content)) => {
                self.fail_with_start(message, failures, Some(content));
            }
            None => self.fail_with_start(message, failures, None),
        }
    }

    /// The same with all of the content, or with the start of one that is too large to be returned.
    pub(super) fn fail_with_start(
        &mut self,
        message: MessageKey,
        failures: Vec<Failure>,
        content: Option<Arc<Vec<u8>>>,
    ) {
        let Some(live) = self.live.get(&message) else {
            return;
        };
        let content = content.unwrap_or_default();
        let wanted: Vec<Failure> = failures
            .iter()
            .filter(|failure| wants_report(&live.envelope, failure))
            .cloned()
            .collect();
        if wanted.is_empty() {
            self.record_failures(message, &failures);
            return;
        }
        let report = self.report(message, &wanted, &content);
        match self.try_stage(report) {
            None => self.record_failures(message, &failures),
            Some(report) => self.failures.push_back(Failed {
                message,
                failures,
                report,
            }),
        }
    }

    /// Tries again to stage reports, in order.
    pub(super) fn retry_failures(&mut self) {
        while let Some(Failed {
            message,
            failures,
            report,
        }) = self.failures.pop_front()
        {
            match self.try_stage(report) {
                None => self.record_failures(message, &failures),
                Some(report) => {
                    self.failures.push_front(Failed {
                        message,
                        failures,
                        report,
                    });
                    return;
                }
            }
        }
    }

    /// A failed message without a sender to tell is kept for the postmaster. Its outcomes are
    /// recorded once the file is on disk; if that fails the message stays in the spool.
    fn keep_for_postman(&mut self, message: MessageKey, failures: Vec<Failure>, content: Outgoing) {
        let Some(live) = self.live.get(&message) else {
            return;
        };
        self.question_next += 1;
        let kept = Undeliverable {
            shard: self.settings.shard,
            token: self.question_next,
            id: live.id.to_string(),
            recipients: failures
                .iter()
                .map(|failure| {
                    let address = recipients::address(&live.envelope, failure.recipient);
                    (address.to_vec(), failure.reply.clone())
                })
                .collect(),
            place: Place::Failed,
            content: match content {
                Outgoing::Memory(content) => Original::Memory(content),
                Outgoing::File(file) => Original::File(file),
            },
        };
        let token = kept.token;
        self.keeping
            .insert(token, (message, Keeping::Failures(failures)));
        if (self.outside.keep)(kept).is_err() {
            self.kept(Kept {
                token,
                result: Err("too many at a time".to_owned()),
            });
        }
    }

    /// The answer of the control thread to a message for `postman/`.
    pub(super) fn kept(&mut self, kept: Kept) {
        let Some((message, keeping)) = self.keeping.remove(&kept.token) else {
            return;
        };
        let failures = match keeping {
            Keeping::Failures(failures) => failures,
            Keeping::Aside(numbers, reason) => {
                return self.is_aside(message, numbers, &reason, kept.result);
            }
            Keeping::Copy(event, file) => return self.copy_kept(event, file, &kept.result),
        };
        match kept.result {
            Ok(()) => self.record_failures(message, &failures),
            Err(error) => {
                let id = self.live.get(&message).map(|live| live.id.to_string());
                tracing::error!(
                    "postman: {error}; message {} is tried again in 5 minutes",
                    id.unwrap_or_default()
                );
                self.try_later(message, &failures);
            }
        }
    }

    /// What could not be kept for the postmaster stays queued.
    fn try_later(&mut self, message: MessageKey, failures: &[Failure]) {
        let due_ms = self.now.wall_ms + POSTMAN_RETRY_MS;
        let recipients = failures.iter().map(|failure| Due {
            due_ms,
            thread: failure.thread,
            ..Due::now(failure.recipient)
        });
        self.route(message, recipients.collect());
    }

    fn record_failures(&mut self, message: MessageKey, failures: &[Failure]) {
        for failure in failures {
            let Some(live) = self.live.get_mut(&message) else {
                return;
            };
            live.open_count -= 1;
            self.queued.close();
            self.shared.metrics(self.settings.shard).failed();
            let (status, word) = if failure.expired {
                (Status::Expired, "expired")
            } else {
                (Status::Failed, "failed")
            };
            self.log_failure(message, failure, word);
            let outcome = Outcome {
                recipient: failure.recipient,
                attempt: 1,
                status,
                next_ms: 0,
                reply: failure.reply.clone(),
            };
            self.log.outcome(self.now.mono_ns, message, outcome);
        }
        self.end_if_finished(message);
    }

    fn log_failure(&mut self, message: MessageKey, failure: &Failure, word: &'static str) {
        let thread = failure
            .thread
            .unwrap_or_else(|| self.scheduler.thread("error", "router"));
        let Failure {
            recipient,
            relay,
            reply,
            ..
        } = failure;
        self.log_result(message, thread, *recipient, *relay, word, reply);
    }

    /// The report as a message of our own: null sender, to the original sender. What it returns is what the recipients
    /// would have got: who else had a copy is not for the owner of a list.
    fn report(&mut self, message: MessageKey, failures: &[Failure], content: &[u8]) -> Stalled {
        let id = self.log.reserve_id();
        let id_text = id.to_string();
        let live = &self.live[&message];
        let envelope = &live.envelope;
        let failed: Vec<FailedRecipient> = failures
            .iter()
            .map(|failure| failed_recipient(envelope, failure))
            .collect();
        let whole = self.log.content_len(message) == Some(content.len() as u64);
        let first = failures.first().map_or(0, |failure| failure.recipient);
        let group = addressed(envelope, first).and_then(|recipient| recipient.group);
        let own = (!recipients::is_detached(envelope, group)).then_some(envelope);
        let ret = own.and_then(|envelope| envelope.ret);
        let full = ret == Some(spool::Ret::Full) && whole && content.len() <= RETURNED_BYTES_MAX;
        let content = returned(envelope, group, content);
        let sender = told_of(envelope, first).to_vec();
        let content = Report {
            reporting_mta: &self.settings.hostname,
            message_id: &id_text,
            date: &date::format(self.now.wall_ms),
            arrival_date: &date::format(envelope.arrival_ms),
            sender: &sender,
            envelope_id: own.and_then(|envelope| envelope.envid.as_deref()),
            original_id: &live.id.to_string(),
            failures: &failed,
            original: &content,
            full,
        }
        .write();
        let envelope = Envelope {
            sender: Vec::new(),
            recipients: vec![Recipient {
                address: sender,
                notify: NOTIFY_NEVER,
                orcpt: None,
            }],
            arrival_ms: self.now.wall_ms,
            body: if content.is_ascii() {
                BodyKind::SevenBit
            } else {
                BodyKind::EightBit
            },
            smtputf8: envelope.smtputf8,
            ret: None,
            envid: None,
            client: b"local".to_vec(),
            helo: self.settings.hostname.clone().into_bytes(),
            protocol: b"report".to_vec(),
            source: None,
            origin: spool::Origin::Relay,
            routing: None,
        };
        Self::report_message(Message::new(id, envelope, Content::Memory(content)))
    }
}

/// The content, or its start, as a report returns it: who had a blind copy is nobody's business (RFC 5322 3.6.3), also
/// where a message of a user has failed before its header was completed.
fn returned(envelope: &Envelope, group: Option<u32>, content: &[u8]) -> Vec<u8> {
    let mut edits = super::large::edits(recipients::edits(envelope, group));
    edits.retain(|edit| edit.at < content.len() as u64);
    if !edits.is_empty() || envelope.origin == spool::Origin::Relay {
        return edit::apply(content, &edits);
    }
    let mut out = Vec::with_capacity(content.len());
    let mut fields = header::fields(content);
    for field in fields.by_ref() {
        if !field.is("Bcc") && !field.is("Resent-Bcc") {
            out.extend_from_slice(field.whole);
        }
    }
    out.extend_from_slice(fields.rest());
    out
}

fn wants_report(envelope: &Envelope, failure: &Failure) -> bool {
    // RFC 3461 4.1: without NOTIFY a failure is reported.
    let recipient = addressed(envelope, failure.recipient);
    let notify = recipient.map_or(0, |recipient| recipient.notify);
    notify == 0 || notify & NOTIFY_FAILURE != 0
}

fn failed_recipient(envelope: &Envelope, failure: &Failure) -> FailedRecipient {
    let recipient = addressed(envelope, failure.recipient);
    let address = recipients::address(envelope, failure.recipient);
    let orcpt = recipient.and_then(|recipient| recipient.orcpt);
    let original = recipients::original(envelope, failure.recipient);
    let is_ours = recipient.is_some_and(|recipient| recipient.privilege.is_some());
    let final_recipient = match is_ours && target::is_named(address) {
        // Which programs and files this host has is none of the sender's business.
        true => original.to_vec(),
        false => address.to_vec(),
    };
    // RFC 3464 2.3.1: what the sender knows the recipient by, where aliases and lists have changed it.
    let changed = || (original != final_recipient).then(|| xtext(original));
    FailedRecipient {
        original_recipient: orcpt.map(<[u8]>::to_vec).or_else(changed),
        final_recipient,
        action: Action::Failed,
        status: enhanced_status(failure),
        remote_mta: failure.relay.map(|relay| relay.to_string()),
        diagnostic: failure.reply.clone(),
        expired: failure.expired,
    }
}

/// Whether there is somebody to tell of these failures, which are told together.
fn has_told(envelope: &Envelope, failures: &[Failure]) -> bool {
    let first = failures.first();
    first.is_some_and(|first| !told_of(envelope, first.recipient).is_empty())
}

/// An address as the value of ORCPT (RFC 3461 4.2).
fn xtext(address: &[u8]) -> Vec<u8> {
    let mut out = b"rfc822;".to_vec();
    for byte in address {
        match byte {
            b'+' | b'=' | 0..=32 | 127..=255 => {
                out.extend_from_slice(format!("+{byte:02X}").as_bytes());
            }
            _ => out.push(*byte),
        }
    }
    out
}

/// The enhanced status code of a reply, or one that fits: 4.4.7 for expiry (RFC 3463 3.5), 5.0.0
/// when the peer gave none.
fn enhanced_status(failure: &Failure) -> String {
    if failure.expired {
        return "4.4.7".to_owned();
    }
    let text = String::from_utf8_lossy(&failure.reply);
    let code = text.split_ascii_whitespace().nth(1).unwrap_or("");
    let looks_right = code.split('.').count() == 3
        && code.starts_with("5.")
        && code
            .split('.')
            .all(|part| part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit()));
    if looks_right {
        code.to_owned()
    } else {
        "5.0.0".to_owned()
    }
}
