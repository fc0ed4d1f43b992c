//! Writes delivery status reports (RFC 3461 6, RFC 3464, RFC 6533) as complete messages.
//!
//! Addresses, replies and identifiers come from strangers: control characters become `?`, so that
//! none of them can begin a header line or end a part. 8-bit bytes of the returned header or message
//! are kept and declared as `8bit`; when an address is not ASCII the `message/global` types are
//! used. A message with bare CR or LF is returned as its header only, with spaces in their place.

use memchr::memmem;

/// What happened to a recipient (RFC 3464 2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Given up.
    Failed,
    /// Still being tried.
    Delayed,
    /// Delivered.
    Delivered,
    /// Handed to a host that does not report.
    Relayed,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
        }
    }
}

/// A recipient that is reported.
#[derive(Clone, Debug)]
pub struct FailedRecipient {
    /// The address of the attempt.
    pub final_recipient: Vec<u8>,
    /// ORCPT, as given (xtext).
    pub original_recipient: Option<Vec<u8>>,
    /// What happened.
    pub action: Action,
    /// Enhanced status code.
    pub status: String,
    /// The host that decided.
    pub remote_mta: Option<String>,
    /// Its SMTP reply, one line.
    pub diagnostic: Vec<u8>,
    /// Given up because it took too long.
    pub expired: bool,
}

/// A report about one message.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// This host.
    pub reporting_mta: &'a str,
    /// Identifier of the report; without the `@` and the host.
    pub message_id: &'a str,
    /// Now, as in a Date field.
    pub date: &'a str,
    /// When the original arrived, as in a Date field.
    pub arrival_date: &'a str,
    /// Sender of the original, the recipient of the report.
    pub sender: &'a [u8],
    /// ENVID, as given (xtext).
    pub envelope_id: Option<&'a [u8]>,
    /// Identifier of the original in our log.
    pub original_id: &'a str,
    /// The recipients.
    pub failures: &'a [FailedRecipient],
    /// The original message, CRLF lines.
    pub original: &'a [u8],
    /// Returns all of the original, not just its header.
    pub full: bool,
}

impl Report<'_> {
    /// The report, a complete message with CRLF lines.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let global = !self.sender.is_ascii()
            || self
                .failures
                .iter()
                .any(|failure| !failure.final_recipient.is_ascii());
        let text = self.text();
        let status = self.delivery_status(global);
        let (returned, full) = self.returned();
        let boundary = self.boundary(&[&text, &status, &returned]);
        let mut message = Vec::with_capacity(2048 + returned.len());
        self.header(&boundary, &mut message);

        let encoding = |part: &[u8]| if part.is_ascii() { "7bit" } else { "8bit" };
        let charset = if text.is_ascii() { "us-ascii" } else { "utf-8" };
        let status_type = if global {
            "message/global-delivery-status"
        } else {
            "message/delivery-status"
        };
        let returned_type = match (full, global) {
            (true, false) => "message/rfc822",
            (true, true) => "message/global",
            (false, false) => "text/rfc822-headers",
            (false, true) => "message/global-headers",
        };
        let parts = [
            (
                format!("text/plain; charset={charset}"),
                "Notification",
                &text,
            ),
            (status_type.to_owned(), "Delivery report", &status),
            (returned_type.to_owned(), "Undelivered message", &returned),
        ];
        for (content_type, description, part) in parts {
            line(&mut message, &[b"--", boundary.as_bytes()]);
            field(&mut message, "Content-Description", description.as_bytes());
            field(&mut message, "Content-Type", content_type.as_bytes());
            field(
                &mut message,
                "Content-Transfer-Encoding",
                encoding(part).as_bytes(),
            );
            line(&mut message, &[]);
            message.extend_from_slice(part);
            line(&mut message, &[]);
        }
        line(&mut message, &[b"--", boundary.as_bytes(), b"--"]);
        message
    }

    fn is_delay(&self) -> bool {
        self.failures
            .iter()
            .all(|failure| failure.action == Action::Delayed)
    }

    fn header(&self, boundary: &str, message: &mut Vec<u8>) {
        let host = clean(self.reporting_mta.as_bytes());
        let subject: &[u8] = if self.is_delay() {
            b"Delayed mail (still being tried)"
        } else {
            b"Undelivered mail returned to sender"
        };
        let from = [
            b"Mail Delivery System <MAILER-DAEMON@",
            host.as_slice(),
            b">",
        ]
        .concat();
        field(message, "Date", &clean(self.date.as_bytes()));
        field(message, "From", &from);
        field(
            message,
            "To",
            &[b"<", clean(self.sender).as_slice(), b">"].concat(),
        );
        field(message, "Subject", subject);
        let id = [
            b"<",
            clean(self.message_id.as_bytes()).as_slice(),
            b"@",
            &host,
            b">",
        ]
        .concat();
        field(message, "Message-ID", &id);
        field(message, "Auto-Submitted", b"auto-replied");
        field(message, "MIME-Version", b"1.0");
        let content_type =
            format!("multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"");
        field(message, "Content-Type", content_type.as_bytes());
        line(message, &[]);
        line(message, &[b"This is a MIME-encapsulated message."]);
        line(message, &[]);
    }

    fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let host = clean(self.reporting_mta.as_bytes());
        line(
            &mut text,
            &[b"This is the mail system at host ", &host, b"."],
        );
        line(&mut text, &[]);
        let what: &[u8] = if self.is_delay() {
            b"Your message could not be delivered yet. It is still being tried; you need not\r\n\
            send it again."
        } else {
            b"Your message could not be delivered to one or more recipients."
        };
        line(&mut text, &[what]);
        for failure in self.failures {
            let address = clean(&failure.final_recipient);
            line(&mut text, &[]);
            line(&mut text, &[b"<", &address, b">"]);
            if failure.expired {
                line(
                    &mut text,
                    &[b"    could not be delivered in time; the last reply was:"],
                );
            }
            if let Some(remote) = &failure.remote_mta {
                line(
                    &mut text,
                    &[b"    host ", &clean(remote.as_bytes()), b" said:"],
                );
            }
            line(&mut text, &[b"    ", &clean(&failure.diagnostic)]);
        }
        text
    }

    fn delivery_status(&self, global: bool) -> Vec<u8> {
        let mut status = Vec::new();
        let kind: &[u8] = if global { b"utf-8;" } else { b"rfc822;" };
        if let Some(envelope_id) = self.envelope_id {
            field(
                &mut status,
                "Original-Envelope-Id",
                &clean(&decode_xtext(envelope_id)),
            );
        }
        let host = clean(self.reporting_mta.as_bytes());
        field(
            &mut status,
            "Reporting-MTA",
            &[b"dns; ", host.as_slice()].concat(),
        );
        field(
            &mut status,
            "X-Original-Queue-Id",
            &clean(self.original_id.as_bytes()),
        );
        field(
            &mut status,
            "Arrival-Date",
            &clean(self.arrival_date.as_bytes()),
        );
        for failure in self.failures {
            line(&mut status, &[]);
            if let Some(original) = &failure.original_recipient {
                field(
                    &mut status,
                    "Original-Recipient",
                    &clean(&decode_xtext(original)),
                );
            }
            let address = clean(&failure.final_recipient);
            field(
                &mut status,
                "Final-Recipient",
                &[kind, b" ", &address].concat(),
            );
            field(&mut status, "Action", failure.action.name().as_bytes());
            field(&mut status, "Status", &clean(failure.status.as_bytes()));
            if let Some(remote) = &failure.remote_mta {
                let remote = clean(remote.as_bytes());
                field(
                    &mut status,
                    "Remote-MTA",
                    &[b"dns; ", remote.as_slice()].concat(),
                );
            }
            let diagnostic = clean(&failure.diagnostic);
            field(
                &mut status,
                "Diagnostic-Code",
                &[b"smtp; ", diagnostic.as_slice()].concat(),
            );
            field(
                &mut status,
                "Last-Attempt-Date",
                &clean(self.date.as_bytes()),
            );
        }
        status
    }

    /// The third part, and whether it is the whole message.
    fn returned(&self) -> (Vec<u8>, bool) {
        if self.full && !has_bare_line_end(self.original) && !self.original.contains(&0) {
            return (self.original.to_vec(), true);
        }
        let end = match memmem::find(self.original, b"\r\n\r\n") {
            _ if self.original.starts_with(b"\r\n") => 0,
            Some(at) => at + 2,
            None => self.original.len(),
        };
        let header = self.original.get(..end).unwrap_or_default();
        let mut returned = Vec::with_capacity(header.len());
        let mut start = 0;
        for at in memmem::find_iter(header, b"\r\n").chain([header.len()]) {
            let part = header.get(start..at).unwrap_or_default();
            if at < header.len() || !part.is_empty() {
                returned.extend(part.iter().map(|byte| match byte {
                    b'\r' | b'\n' | 0 => b' ',
                    byte => *byte,
                }));
                returned.extend_from_slice(b"\r\n");
            }
            start = at + 2;
        }
        (returned, false)
    }

    /// A boundary that occurs in no part.
    fn boundary(&self, parts: &[&[u8]]) -> String {
        let id: String = self
            .message_id
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(32)
            .collect();
        let mut number = 0_u64;
        loop {
            let boundary = format!("=_{id}.{number}");
            if parts
                .iter()
                .all(|part| memmem::find(part, boundary.as_bytes()).is_none())
            {
                return boundary;
            }
            number += 1; // Ends: finite parts contain finitely many boundaries.
        }
    }
}

fn has_bare_line_end(content: &[u8]) -> bool {
    let pairs = memmem::find_iter(content, b"\r\n").count();
    memchr::memchr2_iter(b'\r', b'\n', content).count() != 2 * pairs
}

fn field(message: &mut Vec<u8>, name: &str, value: &[u8]) {
    line(message, &[name.as_bytes(), b": ", value]);
}

fn line(message: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        message.extend_from_slice(part);
    }
    message.extend_from_slice(b"\r\n");
}

/// Text on one line: control characters and what is not UTF-8 become `?`, at most 900 characters.
fn clean(text: &[u8]) -> Vec<u8> {
    let text: String = String::from_utf8_lossy(text)
        .chars()
        .map(|c| {
            if c.is_control() || c == char::REPLACEMENT_CHARACTER {
                '?'
            } else {
                c
            }
        })
        .take(900)
        .collect();
    text.into_bytes()
}

/// Undoes xtext (RFC 3461 4); what is not xtext stays.
fn decode_xtext(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'+'
            && let Some((digits, after)) = rest.split_at_checked(2)
            && let [Some(high), Some(low)] = [hex(digits.first()), hex(digits.last())]
        {
            decoded.push(high << 4 | low);
            rest = after;
        } else {
            decoded.push(*first);
        }
    }
    decoded
}

fn hex(digit: Option<&u8>) -> Option<u8> {
    match digit? {
        digit @ b'0'..=b'9' => Some(digit - b'0'),
        digit @ b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> FailedRecipient {
        FailedRecipient {
            final_recipient: b"bob@example.net".to_vec(),
            original_recipient: Some(b"rfc822;bob+2Bx@example.net".to_vec()),
            action: Action::Failed,
            status: "5.1.1".to_owned(),
            remote_mta: Some("192.0.2.1:25".to_owned()),
            diagnostic: b"550 5.1.1 no such user".to_vec(),
            expired: false,
        }
    }

    fn write(failures: &[FailedRecipient], sender: &[u8], original: &[u8], full: bool) -> String {
        let report = Report {
            reporting_mta: "mx.example.org",
            message_id: "abc1",
            date: "Thu, 1 Jan 1970 00:00:10 +0000",
            arrival_date: "Thu, 1 Jan 1970 00:00:00 +0000",
            sender,
            envelope_id: Some(b"env+3D1"),
            original_id: "orig1",
            failures,
            original,
            full,
        };
        let message = report.write();
        assert!(!has_bare_line_end(&message));
        String::from_utf8_lossy(&message).into_owned()
    }

    #[test]
    fn a_report_has_its_three_parts() {
        let original = b"Subject: x\r\nTo: y\r\n\r\nbody\r\n";
        let text = write(&[failure()], b"alice@example.org", original, false);
        for wanted in [
            "To: <alice@example.org>\r\n",
            "Auto-Submitted: auto-replied\r\n",
            "boundary=\"=_abc1.0\"\r\n\r\n",
            "Original-Envelope-Id: env=1\r\nReporting-MTA: dns; mx.example.org\r\n",
            "Original-Recipient: rfc822;bob+x@example.net\r\n",
            "\r\n\r\n",
            "Final-Recipient: rfc822; bob@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n",
            "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n",
            "Content-Type: text/rfc822-headers\r\n",
            "\r\n\r\nSubject: x\r\nTo: y\r\n\r\n--=_abc1.0--\r\n",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is missing in {text}");
        }
        assert!(!text.contains("body") && text.is_ascii());
        let text = write(&[failure()], b"alice@example.org", original, true);
        assert!(text.contains("Content-Type: message/rfc822\r\n") && text.contains("\r\nbody\r\n"));
    }

    #[test]
    fn strangers_cannot_inject_lines() {
        let mut evil = failure();
        evil.final_recipient = b"a\r\nBcc: x@y\r\n\r\n--=_abc1.0--".to_vec();
        evil.diagnostic = b"550 no\nX-Evil: 1\r\n.\r\n".to_vec();
        evil.original_recipient = Some(b"rfc822;a+0D+0AX-Evil: 2".to_vec());
        let original = b"A: 1\rX-Evil: 3\nX-Evil: 4\r\n\r\n";
        for full in [false, true] {
            let text = write(&[evil.clone()], b"s\r\nX-Evil: 5", original, full);
            assert!(
                !text
                    .lines()
                    .any(|line| line.starts_with("X-Evil") || line.starts_with("Bcc"))
            );
            assert!(text.contains("boundary=\"=_abc1.1\""), "{text}");
            assert_eq!(
                text.lines().filter(|line| line.starts_with("--=_")).count(),
                4
            );
        }
    }

    #[test]
    fn eight_bit_is_declared() {
        let text = write(
            &[failure()],
            b"a@b",
            "Subject: \u{e9}\r\n\r\n".as_bytes(),
            false,
        );
        assert!(text.contains("text/rfc822-headers\r\nContent-Transfer-Encoding: 8bit\r\n"));
        let mut global = failure();
        global.final_recipient = "\u{e9}@example.net".as_bytes().to_vec();
        let text = write(&[global], b"a@b", b"", false);
        assert!(text.contains("Content-Type: message/global-delivery-status\r\n"));
        assert!(text.contains("Final-Recipient: utf-8; \u{e9}@example.net\r\n"));
    }
}
