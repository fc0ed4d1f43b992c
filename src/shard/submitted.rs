//! Message files of `router/`: from the pick-up thread to the spool and the answer back.

use spool::MessageKey;

use super::Shard;
use super::intake::{Content, Message, Origin, Stalled};
use super::large::LARGE_BYTES;
use crate::control::pickup::{Imported, Submission};
use crate::io::Driver;
use crate::mail::date;

impl<D: Driver> Shard<D> {
    /// Takes submissions while the spool has room, and frees messages whose files are gone.
    pub(super) fn take_submissions(&mut self) {
        while let Some(key) = self.outside.pickup.released.pop() {
            self.release_source(key);
        }
        let no_space = self.shared.space().refusal().is_some() || self.routes_are_full();
        // Their files stay where they are.
        while self.stalled.is_empty() && self.stopping.is_none() && !no_space {
            let Some(submission) = self.outside.pickup.submissions.pop() else {
                return;
            };
            self.submit_file(submission);
        }
    }

    fn submit_file(&mut self, submission: Submission) {
        let Submission {
            token,
            envelope,
            received,
            mut content,
        } = submission;
        let id = self.log.reserve_id();
        let hostname = &self.settings.hostname;
        let only = match envelope.recipients.as_slice() {
            [only] => Some(only.address.as_slice()),
            _ => None,
        };
        let date = date::format(self.now.wall_ms);
        let received = received.field(hostname, &id.to_string(), only, &date);
        // In place: large content is not held twice, and the pick-up has left room.
        content.splice(0..0, received);
        let origin = Origin::File(token);
        let is_large = content.len() > LARGE_BYTES;
        let message = Message::new(id, envelope, Content::Memory(content));
        if is_large {
            self.store_whole(origin, message);
        } else {
            self.stage(Stalled { origin, message });
        }
    }

    /// Tells the pick-up what became of a file.
    pub(super) fn imported(&mut self, token: u64, result: Result<MessageKey, &'static str>) {
        let result = result.map(|key| (self.settings.shard, key));
        self.outside.imported.push(Imported { token, result });
    }

    /// The file of a message is gone for good: the message may be done.
    fn release_source(&mut self, message: MessageKey) {
        self.log.source_gone(message);
        if let Some(live) = self.live.get_mut(&message) {
            live.has_file = false;
            self.end_if_finished(message);
        }
    }
}
