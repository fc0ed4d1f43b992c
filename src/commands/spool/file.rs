//! A message of the spool as a message file, written in pieces: envelope lines for the recipients that wait,
//! then header and body with the line ends of files. Binary content goes as it is.

use std::fs::File;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use spool::{Envelope, SpoolId};

use crate::control::postman::put_origin;
use crate::mail::line_ends::FromWire;
use crate::mail::message_file::{self, FileEnvelope, FileRecipient};

/// A message file under way.
pub(super) struct Writer<W> {
    out: W,
    /// None: binary content.
    ends: Option<FromWire>,
    lines: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes the envelope; `waits` says of a recipient's number whether it needs anything.
    pub(super) fn begin(
        mut out: W,
        id: SpoolId,
        envelope: &Envelope,
        waits: impl Fn(usize) -> bool,
    ) -> io::Result<Self> {
        out.write_all(&message_file::write(&lines(id, envelope, waits)))?;
        let binary = envelope.body == spool::BodyKind::Binary;
        Ok(Self {
            out,
            ends: (!binary).then(FromWire::default),
            lines: Vec::new(),
        })
    }

    /// Writes the next piece of content.
    pub(super) fn feed(&mut self, piece: &[u8]) -> io::Result<()> {
        let Some(ends) = &mut self.ends else {
            return self.out.write_all(piece);
        };
        self.lines.clear();
        ends.feed(piece, &mut self.lines);
        self.out.write_all(&self.lines)
    }

    /// Writes what is left.
    pub(super) fn end(mut self) -> io::Result<W> {
        self.lines.clear();
        if let Some(ends) = self.ends.take() {
            ends.end(&mut self.lines);
        }
        self.out.write_all(&self.lines)?;
        Ok(self.out)
    }
}

/// Gives a file the age of its message, and makes it safe.
pub(super) fn settle(file: &File, arrival_ms: u64) -> io::Result<()> {
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_millis(arrival_ms))?;
    file.sync_all()
}

fn lines(id: SpoolId, envelope: &Envelope, waits: impl Fn(usize) -> bool) -> FileEnvelope {
    let client = String::from_utf8_lossy(&envelope.client);
    let helo = String::from_utf8_lossy(&envelope.helo);
    let body_type: &[u8] = match envelope.body {
        spool::BodyKind::SevenBit => b"7BIT",
        spool::BodyKind::EightBit => b"8BITMIME",
        spool::BodyKind::Binary => b"BINARYMIME",
    };
    let waiting: Vec<usize> = (0..envelope.recipients_count())
        .filter(|at| waits(*at))
        .collect();
    // A file has one sender: that of those who wait, if they share one.
    let mut senders = waiting.iter().map(|at| envelope.sender_for(*at));
    let sender = senders.next().unwrap_or(&envelope.sender);
    let sender = if senders.all(|other| other == sender) {
        sender.to_vec()
    } else {
        envelope.sender.clone()
    };
    let recipients = waiting.iter().filter_map(|at| {
        let recipient = envelope.recipient(*at)?;
        Some(FileRecipient {
            address: recipient.address,
            notify: recipient.notify,
            orcpt: recipient.orcpt,
        })
    });
    let mut file = FileEnvelope {
        received_from: Some(format!("{helo} ([{client}])").into_bytes()),
        with: Some(envelope.protocol.clone()),
        body_type: Some(body_type.to_vec()),
        sender: Some(sender),
        envid: envelope.envid.clone(),
        ret: envelope.ret.map(|ret| match ret {
            spool::Ret::Full => b"FULL".to_vec(),
            spool::Ret::Headers => b"HDRS".to_vec(),
        }),
        comments: vec![format!("spool id {id}").into_bytes()],
        recipients: recipients.collect(),
        ..FileEnvelope::default()
    };
    put_origin(&mut file, &envelope.origin);
    file
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use spool::{BodyKind, Recipient, Ret};

    use super::*;
    use crate::mail::line_ends::ToWire;
    use crate::protocol::path;

    fn written(envelope: &Envelope, content: &[u8], waits: impl Fn(usize) -> bool) -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), SpoolId::from_bits(7), envelope, waits).unwrap();
        for piece in content.chunks(7) {
            writer.feed(piece).unwrap();
        }
        writer.end().unwrap()
    }

    /// An address as a client may give it.
    fn address() -> impl Strategy<Value = Vec<u8>> {
        let local = prop_oneof![
            "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,8}(\\.[a-z0-9]{1,4})?",
            // Quoted: all that may stand there, brackets, spaces and escapes too.
            "\"([ !#-\\[\\]-~]|\\\\[ -~]){0,8}\"",
            "[a-z\u{e4}\u{4e2d}]{1,4}",
        ];
        let domain = prop_oneof![
            "[a-z]{1,6}(\\.[a-z]{2,5}){0,2}",
            Just("[192.0.2.7]".to_owned()),
            Just("[IPv6:2001:db8::1]".to_owned()),
        ];
        let address = (local, domain).prop_map(|(local, domain)| format!("{local}@{domain}"));
        let good = address.prop_filter("not an address", |address| {
            path::check(address.as_bytes(), true).is_ok()
        });
        good.prop_map(String::into_bytes)
    }

    fn recipient() -> impl Strategy<Value = Recipient> {
        let orcpt = proptest::option::of("rfc822;[!-*,-<>-~]{1,20}");
        (
            address(),
            prop_oneof![Just(1_u8), (0_u8..8).prop_map(|bits| bits << 1)],
            orcpt,
        )
            .prop_map(|(address, notify, orcpt)| Recipient {
                address,
                notify,
                orcpt: orcpt.map(String::into_bytes),
            })
    }

    fn envelope() -> impl Strategy<Value = Envelope> {
        let ret = proptest::option::of(prop_oneof![Just(Ret::Full), Just(Ret::Headers)]);
        let body = prop_oneof![
            Just(BodyKind::SevenBit),
            Just(BodyKind::EightBit),
            Just(BodyKind::Binary)
        ];
        let sender = prop_oneof![Just(Vec::new()), address()];
        let envid = proptest::option::of("[!-*,-<>-~]{1,30}");
        let recipients = proptest::collection::vec(recipient(), 1..6);
        (sender, recipients, ret, envid, body).prop_map(|(sender, recipients, ret, envid, body)| {
            Envelope {
                sender,
                recipients,
                ret,
                envid: envid.map(String::into_bytes),
                body,
                client: b"192.0.2.7".to_vec(),
                helo: b"[192.0.2.9]".to_vec(),
                protocol: b"ESMTP".to_vec(),
                ..Envelope::default()
            }
        })
    }

    /// Lines as they travel, some of which look like envelope lines.
    fn lines() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            "[ -~\u{e4}\t]{0,40}",
            "( |\t)?(to|from|env-end|\\.)( <a@b>)?"
        ];
        proptest::collection::vec(line, 0..8).prop_map(|lines| {
            lines
                .iter()
                .flat_map(|line| [line, "\r\n"].concat().into_bytes())
                .collect()
        })
    }

    proptest! {
        /// All that a message file can say comes back: sender, DSN parameters, who still waits, content.
        #[test]
        fn a_message_comes_back_as_it_was(
            envelope in envelope(),
            lines in lines(),
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
            finished in any::<u8>(),
        ) {
            let waits = |at: usize| finished & (1 << at) == 0;
            let binary = envelope.body == BodyKind::Binary;
            let content = if binary { bytes } else { [b"Subject: s\r\n\r\n", &lines[..]].concat() };
            let file = written(&envelope, &content, waits);
            let (back, at) = message_file::parse(&file).expect("a message file");
            let message = &file[at..];
            let mut wire = Vec::new();
            let mut ends = ToWire::default();
            ends.feed(message, &mut wire);
            ends.end(wire.is_empty(), &mut wire);
            prop_assert_eq!(if binary { message } else { &wire }, &content[..]);
            prop_assert_eq!(back.sender.as_ref(), Some(&envelope.sender));
            prop_assert_eq!(&back.envid, &envelope.envid);
            let ret = envelope.ret.map(|ret| if ret == Ret::Full { &b"FULL"[..] } else { b"HDRS" });
            prop_assert_eq!(back.ret.as_deref(), ret);
            prop_assert_eq!(back.body_type.as_deref() == Some(b"BINARYMIME"), binary);
            let open = envelope.recipients.iter().enumerate().filter(|(at, _)| waits(*at));
            let open: Vec<FileRecipient> = open.map(|(_, of)| FileRecipient {
                address: of.address.clone(),
                notify: of.notify,
                orcpt: of.orcpt.clone(),
            }).collect();
            prop_assert_eq!(back.recipients, open);
        }
    }
}
