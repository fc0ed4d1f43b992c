//! What a session writes for its transactions, and what the replies to them mean.

use std::io::Write as _;

use super::super::content::{self, Framing, PIECE_BYTES_MAX, Writer};
use super::super::pipeline::{Extensions, Progress};
use super::super::reply::Reply;
use super::super::{Event, Stage, Status};
use super::{Expected, Phase, Session};

/// What a reply says about recipients.
fn verdict(code: u16) -> Option<Status> {
    match code / 100 {
        2 => Some(Status::Delivered),
        4 => Some(Status::Deferred),
        5 => Some(Status::Failed),
        _ => None,
    }
}

impl Session {
    /// Writes all that can be written now.
    pub(super) fn advance(&mut self, output: &mut Vec<u8>) {
        let Phase::Open(offered) = self.phase else {
            return;
        };
        while let Some(first) = self.transactions.front() {
            let waiting = !self.expected.is_empty();
            match first.progress {
                Progress::Queued if first.is_decided() => self.finish(0),
                Progress::Queued if !waiting => self.begin(0, &offered, output),
                Progress::Envelope { .. } if !waiting && first.is_decided() => {
                    self.wants_reset = true;
                    self.finish(0);
                }
                Progress::Envelope { next } if !waiting => {
                    self.envelope(next, &offered, output);
                }
                Progress::Sent => {
                    self.begin_behind(&offered, output);
                    return;
                }
                _ => return,
            }
        }
        if self.wants_quit && self.expected.is_empty() {
            output.extend_from_slice(b"QUIT\r\n");
            self.expected.push_back(Expected::Quit);
            self.phase = Phase::Quitting;
        }
    }

    /// The second transaction follows the content of the first without waiting.
    fn begin_behind(&mut self, offered: &Extensions, output: &mut Vec<u8>) {
        match self.transactions.get(1) {
            Some(next) if !matches!(next.progress, Progress::Queued) => {}
            Some(next) if next.is_decided() => self.finish(1),
            Some(_) if offered.pipelining => self.begin(1, offered, output),
            _ => {}
        }
    }

    /// Writes the first commands of a transaction: one, or with PIPELINING all there are.
    fn begin(&mut self, at: usize, offered: &Extensions, output: &mut Vec<u8>) {
        if std::mem::take(&mut self.wants_reset) {
            output.extend_from_slice(b"RSET\r\n");
            self.expected.push_back(Expected::Reset);
            if !offered.pipelining {
                return;
            }
        }
        let Some(transaction) = self.transactions.get_mut(at) else {
            return;
        };
        transaction.mail(offered, output);
        self.expected.push_back(Expected::Mail);
        transaction.progress = Progress::Envelope { next: 0 };
        if !offered.pipelining {
            return;
        }
        let mut next = 0;
        while let Some(recipient) = transaction.open_recipient(next) {
            transaction.rcpt(recipient, offered, output);
            self.expected.push_back(Expected::Recipient(recipient));
            next = recipient + 1;
        }
        transaction.progress = Progress::Envelope { next };
        // Large content is sent only when somebody is known to take it.
        if !offered.chunking || transaction.job.content.len() <= PIECE_BYTES_MAX as u64 {
            self.ask_for_content(at, offered, output);
        }
    }

    /// Nothing is outstanding inside an envelope: the next recipient, or the content.
    fn envelope(&mut self, next: usize, offered: &Extensions, output: &mut Vec<u8>) {
        let Some(transaction) = self.transactions.front_mut() else {
            return;
        };
        match transaction.open_recipient(next) {
            Some(recipient) if next <= recipient && !offered.pipelining => {
                transaction.rcpt(recipient, offered, output);
                transaction.progress = Progress::Envelope {
                    next: recipient + 1,
                };
                self.expected.push_back(Expected::Recipient(recipient));
            }
            _ => self.ask_for_content(0, offered, output),
        }
    }

    /// DATA, or BDAT with the content at once.
    fn ask_for_content(&mut self, at: usize, offered: &Extensions, output: &mut Vec<u8>) {
        let Some(transaction) = self.transactions.get_mut(at) else {
            return;
        };
        if !offered.chunking {
            output.extend_from_slice(b"DATA\r\n");
            self.expected.push_back(Expected::Data);
            transaction.progress = Progress::Data;
            return;
        }
        let job = &transaction.job;
        // Writing to a Vec cannot fail.
        let _ = write!(
            output,
            "BDAT {} LAST\r\n",
            content::size(&job.content, job.binary)
        );
        let writer = Writer::new(Framing::Length, &job.content, job.binary);
        transaction.progress = Progress::Content(writer);
        self.expected.push_back(Expected::Final);
        // After a refused BDAT the state of the peer is not known (RFC 3030 2).
        self.wants_reset = true;
        self.write_content(at, output);
    }

    /// Writes the next piece of content, if there is one.
    pub(super) fn write_content(&mut self, at: usize, output: &mut Vec<u8>) {
        if let Some(transaction) = self.transactions.get_mut(at)
            && let Progress::Content(writer) = &mut transaction.progress
            && writer.write(&transaction.job.content, output)
        {
            transaction.progress = Progress::Sent;
        }
    }

    /// Takes a transaction out and reports it.
    fn finish(&mut self, at: usize) {
        if let Some(transaction) = self.transactions.remove(at) {
            let (token, results) = transaction.finish(b"450 4.3.0 no result", false);
            self.events.push_back(Event::Finished { token, results });
        }
    }

    pub(super) fn mail_reply(&mut self, reply: &Reply) {
        let Some(transaction) = self.transactions.front_mut() else {
            return;
        };
        transaction.heard = true;
        match verdict(reply.code) {
            Some(Status::Delivered) => {}
            Some(status) => transaction.settle(status, &reply.text()),
            None => self.violated(reply, Stage::Mail),
        }
    }

    pub(super) fn rcpt_reply(&mut self, recipient: usize, reply: &Reply) {
        let Some(transaction) = self.transactions.front_mut() else {
            return;
        };
        match verdict(reply.code) {
            Some(Status::Delivered) => {}
            Some(Status::Failed) if is_too_many(reply) => {
                transaction.decide(recipient, Status::Deferred, &reply.text());
            }
            Some(status) => transaction.decide(recipient, status, &reply.text()),
            None => self.violated(reply, Stage::Recipient),
        }
    }

    pub(super) fn data_reply(&mut self, reply: &Reply, output: &mut Vec<u8>) {
        let Some(transaction) = self.transactions.front_mut() else {
            return;
        };
        match (reply.code, verdict(reply.code)) {
            (354, _) if transaction.is_decided() => {
                output.extend_from_slice(b".\r\n");
                transaction.progress = Progress::Sent;
                self.expected.push_back(Expected::Final);
            }
            (354, _) => {
                let writer = Writer::new(Framing::Dot, &transaction.job.content, false);
                transaction.progress = Progress::Content(writer);
                self.expected.push_back(Expected::Final);
                self.write_content(0, output);
            }
            (_, Some(status @ (Status::Deferred | Status::Failed))) => {
                transaction.settle(status, &reply.text());
                self.wants_reset = true;
                self.finish(0);
            }
            _ => self.violated(reply, Stage::Data),
        }
    }

    /// The reply to the content. One that comes before the end of the content can only refuse it,
    /// and leaves no way to go on with the session.
    pub(super) fn final_reply(&mut self, reply: &Reply, stage: Stage) {
        let next_begun = self
            .transactions
            .get(1)
            .is_some_and(|next| !matches!(next.progress, Progress::Queued));
        let Some(transaction) = self.transactions.front_mut() else {
            return;
        };
        match verdict(reply.code) {
            None => self.violated(reply, stage),
            Some(Status::Delivered) if stage == Stage::Content => self.violated(reply, stage),
            // RFC 2033 4.2: one reply for each recipient that was accepted, in their order.
            Some(status) if self.settings.lmtp && stage != Stage::Content => {
                if let Some(recipient) = transaction.open_recipient(0) {
                    transaction.decide(recipient, status, &reply.text());
                }
                if !transaction.is_decided() {
                    self.expected.push_front(Expected::Final);
                    return;
                }
                self.completed_count += 1;
                if !next_begun {
                    self.wants_reset = false;
                }
                self.finish(0);
            }
            Some(status) => {
                transaction.settle(status, &reply.text());
                self.completed_count += 1;
                if status == Status::Delivered && !next_begun {
                    self.wants_reset = false;
                }
                self.finish(0);
                if stage == Stage::Content {
                    self.break_at(&reply.text(), false, stage);
                }
            }
        }
    }
}

/// 552 in answer to RCPT means too many recipients (RFC 5321 4.5.3.1.10), unless an enhanced code
/// says what else is full.
fn is_too_many(reply: &Reply) -> bool {
    reply.code == 552 && reply.enhanced().is_none_or(|code| code == (5, 5, 3))
}
