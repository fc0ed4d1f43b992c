//! What routing has noticed: a line in the log for each event, a copy in `postman/` of what the script wants kept, a
//! line in the script's file for each address that cannot be understood.
//!
//! Nobody is sent anything. A shard keeps at most [`COPIES_MAX`] copies and writes about as many messages' addresses in
//! an hour; of more only the log tells. A message that is routed again has the same names in `postman/`, so it is there
//! once for each event. Where a copy cannot be kept, that is said, and the message goes on its way.

use std::sync::Arc;

use spool::{ContentFile, MessageKey};

use super::Shard;
use super::aside::message_file;
use super::bounce::Keeping;
use super::dispatch::Load;
use super::large::Outgoing;
use crate::control::postman::{Kept, Original, Place, Undeliverable};
use crate::control::route::RouteQuestion;
use crate::io::Driver;
use crate::mail::date;
use crate::router::{Remarks, Request};

/// Messages in an hour of which copies are kept, and of which addresses are written down.
const COPIES_MAX: u32 = 100;

const HOUR_NS: u64 = 3_600_000_000_000;

/// What has been kept in this hour.
#[derive(Debug, Default)]
pub(super) struct Noted {
    since_ns: u64,
    copies_count: u32,
    addresses_count: u32,
}

impl Noted {
    fn renew(&mut self, now_ns: u64) {
        if now_ns >= self.since_ns.saturating_add(HOUR_NS) {
            *self = Self {
                since_ns: now_ns,
                ..Self::default()
            };
        }
    }
}

impl<D: Driver> Shard<D> {
    /// Tells the administrator what routing has noticed about a message.
    pub(super) fn note(&mut self, message: MessageKey, remarks: Remarks) {
        let Some(live) = self.live.get(&message) else {
            return;
        };
        let (shard, id) = (self.settings.shard, live.id);
        for line in &remarks.lines {
            tracing::info!(shard, "message {id}: {line}");
        }
        self.noted.renew(self.now.mono_ns);
        if let Some((path, addresses)) = remarks.addresses {
            self.write_down(&id.to_string(), path, &addresses);
        }
        for event in remarks.copies {
            if self.noted.copies_count >= COPIES_MAX {
                tracing::warn!(
                    shard,
                    "message {id}: no copy for {event}: {COPIES_MAX} have been kept in this hour"
                );
                return;
            }
            self.noted.copies_count += 1;
            let content = self
                .live
                .get(&message)
                .and_then(|live| live.content.clone());
            match content {
                Some(content) => self.keep_copy(message, event, Outgoing::Memory(content)),
                None => {
                    self.load(message, Load::Copy(event));
                }
            }
        }
    }

    /// Addresses that cannot be understood go to the file that the script has named. Nobody waits for it.
    fn write_down(&mut self, id: &str, path: Vec<u8>, addresses: &[String]) {
        if self.noted.addresses_count >= COPIES_MAX {
            return;
        }
        self.noted.addresses_count += 1;
        let date = date::format(self.now.wall_ms);
        let lines = addresses
            .iter()
            .map(|address| format!("{id} {date} {address}\n"));
        self.question_next += 1;
        let question = RouteQuestion {
            shard: self.settings.shard,
            token: self.question_next,
            request: Request::Write {
                path,
                append: true,
                bytes: lines.collect::<String>().into_bytes(),
            },
        };
        if (self.outside.ask_route)(question).is_err() {
            let shard = self.settings.shard;
            tracing::warn!(
                shard,
                "message {id}: its bad addresses are not written down"
            );
        }
    }

    /// Has a copy kept, with the content at hand. A file of the spool stays until that has been done.
    pub(super) fn keep_copy(
        &mut self,
        message: MessageKey,
        event: &'static str,
        content: Outgoing,
    ) {
        let Some(live) = self.live.get(&message) else {
            return;
        };
        let numbers: Vec<u32> = (0..live.envelope.recipients.len() as u32).collect();
        let envelope = message_file(&live.envelope, &numbers, event);
        self.question_next += 1;
        let token = self.question_next;
        let file = content.file();
        let kept = Undeliverable {
            shard: self.settings.shard,
            token,
            id: live.id.to_string(),
            recipients: Vec::new(),
            place: Place::Copy(event, Box::new(envelope)),
            content: match content {
                Outgoing::Memory(content) => Original::Memory(content),
                Outgoing::File(file) => Original::File(file),
            },
        };
        if let Some(file) = &file {
            self.log.content_open(file);
        }
        self.keeping
            .insert(token, (message, Keeping::Copy(event, file)));
        if (self.outside.keep)(kept).is_err() {
            self.kept(Kept {
                token,
                result: Err("too many at a time".to_owned()),
            });
        }
    }

    /// A copy is there, or not.
    pub(super) fn copy_kept(
        &mut self,
        event: &'static str,
        file: Option<Arc<ContentFile>>,
        result: &Result<(), String>,
    ) {
        if let Some(file) = file {
            self.log.content_close(&file);
        }
        if let Err(error) = result {
            let shard = self.settings.shard;
            tracing::error!(shard, "postman/: {error}; no copy is kept for {event}");
        }
    }
}
