//! One transaction: what the peer can take, the commands of the envelope, the results so far.
//!
//! Everything that can be refused without asking the peer is refused in [`Transaction::check`], so
//! that nothing dangerous or pointless is ever sent.

use std::io::Write as _;

use super::content::{self, Writer};
use super::reply::Reply;
use super::{Job, JobRecipient, RecipientResult, Ret, Settings, Status};
use crate::mail::{target, xtext};
use crate::protocol::path;

/// What the peer offered in its reply to EHLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    pub(super) pipelining: bool,
    pub(super) chunking: bool,
    size: bool,
    /// Greatest message; 0 when the peer named no limit.
    size_bytes_max: u64,
    eight_bit: bool,
    binary: bool,
    smtputf8: bool,
    dsn: bool,
    spool_id: bool,
    targets: bool,
}

impl Extensions {
    /// Reads the lines of the reply to EHLO; what makes no sense is not offered.
    pub(super) fn parse(reply: &Reply, settings: &Settings) -> Self {
        let mut offered = Self::default();
        for line in reply.lines().skip(1) {
            let mut words = line
                .split(|byte| *byte == b' ')
                .filter(|word| !word.is_empty());
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_slice() {
                b"PIPELINING" => offered.pipelining = settings.pipelining,
                b"CHUNKING" => offered.chunking = settings.chunking,
                b"8BITMIME" => offered.eight_bit = true,
                b"BINARYMIME" => offered.binary = true,
                b"SMTPUTF8" => offered.smtputf8 = true,
                b"DSN" => offered.dsn = true,
                b"XSPOOLID" => offered.spool_id = settings.lmtp,
                b"XTARGET" => offered.targets = settings.lmtp,
                b"SIZE" => {
                    let limit = words.next().and_then(|word| std::str::from_utf8(word).ok());
                    offered.size = true;
                    offered.size_bytes_max = limit.and_then(|word| word.parse().ok()).unwrap_or(0);
                }
                _ => {}
            }
        }
        offered
    }
}

/// How far a transaction has come.
#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing was written.
    Queued,
    /// Commands of the envelope are being written; `next` is the first recipient not yet named.
    Envelope { next: usize },
    /// DATA was written.
    Data,
    /// Content is being written.
    Content(Writer),
    /// Everything was written.
    Sent,
}

/// A job and what is known of it.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) job: Job,
    pub(super) progress: Progress,
    /// The peer has answered a command of it.
    pub(super) heard: bool,
    /// In the order of the job's recipients; `None` while undecided.
    results: Vec<Option<RecipientResult>>,
}

impl Transaction {
    pub(super) fn new(job: Job) -> Self {
        let results = job.recipients.iter().map(|_| None).collect();
        Self {
            job,
            progress: Progress::Queued,
            heard: false,
            results,
        }
    }

    /// Decides what needs no peer.
    pub(super) fn check(&mut self, offered: &Extensions, settings: &Settings) {
        if let Some(reply) = self.refusal(offered, settings) {
            self.settle(Status::Failed, reply);
            return;
        }
        for recipient in 0..self.results.len() {
            let named = self.job.recipients.get(recipient);
            if let Some(named) = named.filter(|named| named.is_target()) {
                if let Some((status, reply)) = target_refusal(named, offered) {
                    self.decide(recipient, status, reply);
                }
                continue;
            }
            let address = named.map(|named| named.address.as_slice());
            if !address.is_some_and(|address| !address.is_empty() && is_path(address)) {
                self.decide(
                    recipient,
                    Status::Failed,
                    b"553 5.1.3 bad recipient address syntax",
                );
            }
        }
    }

    fn refusal(&self, offered: &Extensions, settings: &Settings) -> Option<&'static [u8]> {
        let job = &self.job;
        let size = content::size(&job.content, job.binary);
        let wants_utf8 = job.smtputf8 || !job.addresses_are_ascii();
        if !is_path(&job.sender) {
            Some(b"553 5.1.7 bad sender address syntax")
        } else if offered.size_bytes_max > 0 && size > offered.size_bytes_max {
            Some(b"552 5.3.4 message size exceeds the limit of the next hop")
        } else if wants_utf8 && !offered.smtputf8 {
            Some(b"550 5.6.7 next hop does not support SMTPUTF8")
        } else if job.binary && !(offered.binary && offered.chunking) {
            Some(b"554 5.6.3 next hop does not support BINARYMIME")
        } else if job.binary {
            None
        } else if job.content.is_broken() {
            Some(b"554 5.6.11 message contains bare CR or LF")
        } else if !offered.eight_bit && !settings.eight_bit_anyway && job.content.is_eight_bit() {
            Some(b"554 5.6.3 next hop does not support 8BITMIME")
        } else {
            None
        }
    }

    /// Decides one recipient, if it is not decided yet.
    pub(super) fn decide(&mut self, recipient: usize, status: Status, reply: &[u8]) {
        if let Some(result @ None) = self.results.get_mut(recipient) {
            let reply = reply.to_vec();
            *result = Some(RecipientResult {
                recipient,
                status,
                reply,
                not_attempted: false,
            });
        }
    }

    /// Decides all recipients that are not decided yet.
    pub(super) fn settle(&mut self, status: Status, reply: &[u8]) {
        for recipient in 0..self.results.len() {
            self.decide(recipient, status, reply);
        }
    }

    /// No recipient is left to deliver to.
    pub(super) fn is_decided(&self) -> bool {
        self.results.iter().all(Option::is_some)
    }

    /// Ends the transaction; what is undecided is deferred.
    pub(super) fn finish(self, reply: &[u8], not_attempted: bool) -> (u64, Vec<RecipientResult>) {
        let results = self
            .results
            .into_iter()
            .enumerate()
            .map(|(recipient, result)| {
                result.unwrap_or_else(|| RecipientResult {
                    recipient,
                    status: Status::Deferred,
                    reply: reply.to_vec(),
                    not_attempted,
                })
            });
        (self.job.token, results.collect())
    }

    /// The first undecided recipient from `from` on.
    pub(super) fn open_recipient(&self, from: usize) -> Option<usize> {
        (from..self.results.len()).find(|at| matches!(self.results.get(*at), Some(None)))
    }

    /// Appends MAIL.
    pub(super) fn mail(&self, offered: &Extensions, output: &mut Vec<u8>) {
        let job = &self.job;
        output.extend_from_slice(b"MAIL FROM:<");
        output.extend_from_slice(&job.sender);
        output.push(b'>');
        if offered.size {
            // Writing to a Vec cannot fail.
            let _ = write!(output, " SIZE={}", content::size(&job.content, job.binary));
        }
        if job.binary {
            output.extend_from_slice(b" BODY=BINARYMIME");
        } else if offered.eight_bit && (job.eight_bit || job.content.is_eight_bit()) {
            output.extend_from_slice(b" BODY=8BITMIME");
        }
        if job.smtputf8 || !job.addresses_are_ascii() {
            output.extend_from_slice(b" SMTPUTF8");
        }
        if offered.dsn {
            match job.ret {
                Some(Ret::Full) => output.extend_from_slice(b" RET=FULL"),
                Some(Ret::Headers) => output.extend_from_slice(b" RET=HDRS"),
                None => {}
            }
            parameter(b" ENVID=", job.envid.as_deref(), output);
        }
        if let Some((id, arrival_ms)) = job.identity.as_ref().filter(|_| offered.spool_id) {
            // Writing to a Vec cannot fail.
            let _ = write!(output, " XSPOOLID={id}.{arrival_ms}");
        }
        output.extend_from_slice(b"\r\n");
    }

    /// Appends RCPT for one recipient.
    pub(super) fn rcpt(&self, recipient: usize, offered: &Extensions, output: &mut Vec<u8>) {
        let Some(named) = self.job.recipients.get(recipient) else {
            return;
        };
        output.extend_from_slice(b"RCPT TO:<");
        match named.privilege.as_ref().filter(|_| named.is_target()) {
            Some(privilege) => {
                let original = &privilege.original;
                let good = path::check(original, false).is_ok();
                output.extend_from_slice(if good { original } else { b"postmaster" });
                // Writing to a Vec cannot fail.
                let _ = write!(output, "> XPRIVILEGE={} XTARGET=", privilege.user);
                output.extend_from_slice(&xtext::encode(&named.address));
            }
            None => {
                output.extend_from_slice(&named.address);
                output.push(b'>');
            }
        }
        if offered.dsn {
            let names = [(1, "NEVER"), (2, "SUCCESS"), (4, "FAILURE"), (8, "DELAY")];
            let mut separator = " NOTIFY=";
            for (bit, name) in names {
                if named.notify & bit != 0 {
                    output.extend_from_slice(separator.as_bytes());
                    output.extend_from_slice(name.as_bytes());
                    separator = ",";
                }
                if named.notify & 1 != 0 {
                    break; // NEVER stands alone (RFC 3461 4.1).
                }
            }
            parameter(b" ORCPT=", named.orcpt.as_deref(), output);
        }
        output.extend_from_slice(b"\r\n");
    }
}

impl Job {
    fn addresses_are_ascii(&self) -> bool {
        let mut users = self.recipients.iter().filter(|named| !named.is_target());
        self.sender.is_ascii() && users.all(|named| named.address.is_ascii())
    }
}

/// Why a program or a file cannot be named to this peer.
fn target_refusal(named: &JobRecipient, offered: &Extensions) -> Option<(Status, &'static [u8])> {
    if target::parse(&named.address).is_none() {
        Some((
            Status::Failed,
            b"553 5.1.3 this names no program and no file",
        ))
    } else if !offered.targets {
        Some((
            Status::Deferred,
            b"451 4.3.5 the agent does not know programs and files",
        ))
    } else {
        None
    }
}

/// Appends a parameter, unless its value could be taken for something else.
fn parameter(name: &[u8], value: Option<&[u8]>, output: &mut Vec<u8>) {
    if let Some(value) = value
        && !value.is_empty()
        && value.iter().all(u8::is_ascii_graphic)
    {
        output.extend_from_slice(name);
        output.extend_from_slice(value);
    }
}

/// Whether an address can stand between brackets without ending them or the line.
fn is_path(address: &[u8]) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for byte in address {
        match byte {
            0..=31 | 127 => return false,
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'<' | b'>' | b' ' if !quoted => return false,
            _ => {}
        }
    }
    !quoted && !escaped
}
