//! Messages whose routing was stopped at a limit: a file in `deferred/` with the reason. An operator looks at it, and
//! gives it back by `zmailer resubmit` when what was wrong has been put right.

use spool::{Envelope, MessageKey, Status};

use super::Shard;
use super::bounce::Keeping;
use super::dispatch::Load;
use super::large::Outgoing;
use super::recipients::{addressed, sender_for};
use crate::control::postman::{Original, Place, Undeliverable, put_origin};
use crate::io::Driver;
use crate::mail::message_file::{FileEnvelope, FileRecipient};

impl<D: Driver> Shard<D> {
    /// Recipients whose routing was stopped leave the queue for `deferred/`.
    pub(super) fn set_aside(&mut self, message: MessageKey, numbers: Vec<u32>, reason: &str) {
        let Some(live) = self.live.get_mut(&message) else {
            return;
        };
        let (shard, id) = (self.settings.shard, live.id);
        tracing::error!(shard, "message {id} goes to deferred/: {reason}");
        // Until the file is there nothing is done to them.
        live.routing_count += numbers.len();
        match live.content.clone() {
            Some(content) => {
                let content = Outgoing::Memory(content);
                self.keep_aside(message, numbers, reason.to_owned(), content);
            }
            None => {
                let reason = reason.to_owned();
                self.load(
                    message,
                    Load::Aside {
                        message,
                        numbers,
                        reason,
                    },
                );
            }
        }
    }

    /// The same with the content at hand.
    pub(super) fn keep_aside(
        &mut self,
        message: MessageKey,
        numbers: Vec<u32>,
        reason: String,
        content: Outgoing,
    ) {
        let Some(live) = self.live.get(&message) else {
            return;
        };
        self.question_next += 1;
        let token = self.question_next;
        let file = message_file(&live.envelope, &numbers, &reason);
        let kept = Undeliverable {
            shard: self.settings.shard,
            token,
            id: live.id.to_string(),
            recipients: Vec::new(),
            place: Place::Deferred(Box::new(file)),
            content: match content {
                Outgoing::Memory(content) => Original::Memory(content),
                Outgoing::File(file) => Original::File(file),
            },
        };
        self.keeping
            .insert(token, (message, Keeping::Aside(numbers, reason)));
        if (self.outside.keep)(kept).is_err() {
            self.kept(crate::control::postman::Kept {
                token,
                result: Err("too many at a time".to_owned()),
            });
        }
    }

    /// The file is there, or it could not be written: then the router is asked again later.
    pub(super) fn is_aside(
        &mut self,
        message: MessageKey,
        numbers: Vec<u32>,
        reason: &str,
        result: Result<(), String>,
    ) {
        if let Err(error) = result {
            let shard = self.settings.shard;
            tracing::error!(shard, "deferred/: {error}; it is tried again");
            self.hold_all(message, &numbers, &format!("{reason}; deferred/: {error}"));
            return;
        }
        let thread = self.scheduler.thread("deferred", "router");
        let reply = format!("451 4.3.5 moved to deferred/: {reason}").into_bytes();
        if let Some(live) = self.live.get_mut(&message) {
            live.routing_count = live.routing_count.saturating_sub(numbers.len());
        }
        for number in numbers {
            self.log_result(message, thread, number, None, "stopped", &reply);
            self.finish_recipient(message, number, Status::Failed, &reply);
        }
        self.end_if_finished(message);
    }

    /// What could not be set aside is routed again later.
    pub(super) fn hold_all(&mut self, message: MessageKey, numbers: &[u32], reason: &str) {
        if let Some(live) = self.live.get_mut(&message) {
            live.routing_count = live.routing_count.saturating_sub(numbers.len());
        }
        for number in numbers {
            self.hold(message, *number, reason);
        }
        self.maybe_rest(message, false);
    }
}

/// The envelope of a message file with some of the recipients of a message, and a reason.
pub(super) fn message_file(envelope: &Envelope, numbers: &[u32], reason: &str) -> FileEnvelope {
    let recipients = numbers.iter().filter_map(|number| {
        let recipient = addressed(envelope, *number)?;
        Some(FileRecipient {
            address: recipient.address.to_vec(),
            notify: recipient.notify,
            orcpt: recipient.orcpt.map(<[u8]>::to_vec),
        })
    });
    let first = numbers.first().copied().unwrap_or(0);
    let mut file = FileEnvelope {
        received_from: Some(envelope.client.clone()).filter(|client| !client.is_empty()),
        sender: Some(sender_for(envelope, first).to_vec()),
        envid: envelope.envid.clone(),
        ret: envelope.ret.map(|ret| match ret {
            spool::Ret::Full => b"FULL".to_vec(),
            spool::Ret::Headers => b"HDRS".to_vec(),
        }),
        comments: vec![reason.as_bytes().to_vec()],
        recipients: recipients.collect(),
        ..FileEnvelope::default()
    };
    put_origin(&mut file, &envelope.origin);
    file
}
