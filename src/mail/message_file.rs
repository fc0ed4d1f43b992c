//! The message file (zmailer.md 1.4): envelope lines, then a message with LF line ends. It is how
//! `sendmail` hands a message over, how `postman/` keeps one, and what `zmailer spool export` writes.
//!
//! A keyword has no colon, so the header is recognised without `env-end`. An unknown keyword is an
//! error: the file is a bad submission.

use std::fmt;

use super::header;
use super::line_ends::{FromWire, ToWire};

/// Longest envelope.
pub const ENVELOPE_BYTES_MAX: usize = 16 << 20;

/// One recipient with its DSN parameters, as given (RFC 3461).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct FileRecipient {
    /// Address without brackets.
    pub address: Vec<u8>,
    /// NOTIFY: 1 NEVER, 2 SUCCESS, 4 FAILURE, 8 DELAY; 0 not given.
    pub notify: u8,
    /// ORCPT.
    pub orcpt: Option<Vec<u8>>,
}

/// The envelope of a message file.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct FileEnvelope {
    /// `external`: no privileges, whoever owns the file.
    pub external: bool,
    /// `rcvdfrom`.
    pub received_from: Option<Vec<u8>>,
    /// `with`.
    pub with: Option<Vec<u8>>,
    /// `via`.
    pub via: Option<Vec<u8>>,
    /// `bodytype`.
    pub body_type: Option<Vec<u8>>,
    /// `fullname`.
    pub full_name: Option<Vec<u8>>,
    /// `loginname`.
    pub login_name: Option<Vec<u8>>,
    /// `user`.
    pub user: Option<Vec<u8>>,
    /// `from`, or empty for `channel error`; none: not given.
    pub sender: Option<Vec<u8>>,
    /// `envid`.
    pub envid: Option<Vec<u8>>,
    /// `notaryret`.
    pub ret: Option<Vec<u8>>,
    /// `comment` lines.
    pub comments: Vec<Vec<u8>>,
    /// `verbose`.
    pub verbose: Option<Vec<u8>>,
    /// `to`; none: those of the header.
    pub recipients: Vec<FileRecipient>,
}

/// Why a file is not a message file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub text: String,
    /// The file ends inside its envelope: of a part of a file nothing is known yet.
    pub is_short: bool,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

/// Takes a file apart: the envelope, and where the message begins.
///
/// # Errors
/// See [`FileError`].
pub fn parse(file: &[u8]) -> Result<(FileEnvelope, usize), FileError> {
    let mut parser = Parser::default();
    let (mut at, mut number) = (0, 0);
    loop {
        number += 1;
        let error = |text: String| FileError {
            line: number,
            text,
            is_short: false,
        };
        let rest = file.get(at..).unwrap_or_default();
        let Some(len) = logical_line(rest) else {
            let text = "the file ends inside its envelope".to_owned();
            return Err(FileError {
                is_short: true,
                ..error(text)
            });
        };
        let line = rest.get(..len).unwrap_or_default();
        let text = line.trim_ascii_end();
        let (keyword, value) = split(text);
        if keyword.is_empty() || keyword.contains(&b':') {
            break;
        }
        at += len;
        if at > ENVELOPE_BYTES_MAX {
            return Err(error(format!(
                "the envelope is larger than {ENVELOPE_BYTES_MAX} bytes"
            )));
        }
        if is_end(keyword) {
            break;
        }
        parser.line(keyword, value).map_err(error)?;
        number += line.iter().filter(|byte| **byte == b'\n').count() - 1;
    }
    Ok((parser.envelope, at))
}

/// Length of a line with its continuations; none: it has no end.
fn logical_line(text: &[u8]) -> Option<usize> {
    let mut len = memchr::memchr(b'\n', text)? + 1;
    // What follows the end of the envelope belongs to the message, whatever it begins with.
    if is_end(split(text.get(..len)?.trim_ascii_end()).0) {
        return Some(len);
    }
    while matches!(text.get(len), Some(b' ' | b'\t')) {
        len += memchr::memchr(b'\n', text.get(len..)?)? + 1;
    }
    Some(len)
}

fn is_end(keyword: &[u8]) -> bool {
    keyword.eq_ignore_ascii_case(b"env-end") || keyword.eq_ignore_ascii_case(b"env-eof")
}

fn split(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text
        .iter()
        .position(u8::is_ascii_whitespace)
        .unwrap_or(text.len());
    let (keyword, value) = text.split_at_checked(end).unwrap_or((text, b""));
    (keyword, value.trim_ascii())
}

#[derive(Default)]
struct Parser {
    envelope: FileEnvelope,
    /// Parameters of the next recipient.
    dsn: FileRecipient,
}

impl Parser {
    fn line(&mut self, keyword: &[u8], value: &[u8]) -> Result<(), String> {
        let envelope = &mut self.envelope;
        let word = keyword.to_ascii_lowercase();
        let text = Some(value.to_vec());
        match word.as_slice() {
            b"external" => envelope.external = true,
            b"rcvdfrom" => envelope.received_from = text,
            b"with" => envelope.with = text,
            b"via" => envelope.via = text,
            b"bodytype" => envelope.body_type = text,
            b"fullname" => envelope.full_name = text,
            b"loginname" => envelope.login_name = text,
            b"from" => envelope.sender = Some(one_address(value)?),
            b"channel" if value.eq_ignore_ascii_case(b"error") => {
                envelope.sender = Some(Vec::new())
            }
            b"envid" => envelope.envid = Some(envid(value)?),
            b"notaryret" => envelope.ret = text,
            b"comment" => envelope.comments.push(value.to_vec()),
            b"verbose" => envelope.verbose = text,
            b"todsn" => self.dsn = dsn(value)?,
            b"to" => self.to(value)?,
            b"user" => envelope.user = text,
            b"type" | b"identinfo" | b"authinfo" | b"errormsg" => {}
            _ => {
                let shown = String::from_utf8_lossy(keyword).into_owned();
                return Err(format!("no such envelope keyword: {shown:?}"));
            }
        }
        Ok(())
    }

    fn to(&mut self, value: &[u8]) -> Result<(), String> {
        let list = header::addresses(value);
        if let Some(text) = list.doubtful.first() {
            let shown = String::from_utf8_lossy(text).into_owned();
            return Err(format!("`to` names somebody unclear: {shown:?}"));
        }
        if list.addresses.is_empty() {
            return Err("`to` names nobody".to_owned());
        }
        let dsn = std::mem::take(&mut self.dsn);
        for address in list.addresses {
            let dsn = dsn.clone();
            self.envelope
                .recipients
                .push(FileRecipient { address, ..dsn });
        }
        Ok(())
    }
}

fn one_address(value: &[u8]) -> Result<Vec<u8>, String> {
    if value == b"<>" || value.is_empty() {
        return Ok(Vec::new());
    }
    let single = header::addresses(value).single();
    single.ok_or_else(|| "`from` takes one address".to_owned())
}

fn dsn(value: &[u8]) -> Result<FileRecipient, String> {
    let mut recipient = FileRecipient::default();
    for word in value
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
    {
        let at = word
            .iter()
            .position(|byte| *byte == b'=')
            .unwrap_or(word.len());
        let (name, value) = word.split_at_checked(at).unwrap_or((word, b""));
        let value = value.get(1..).unwrap_or_default();
        if name.eq_ignore_ascii_case(b"NOTIFY") {
            recipient.notify = notify(value)?;
        } else if name.eq_ignore_ascii_case(b"ORCPT") {
            recipient.orcpt = Some(orcpt(value)?);
        }
        // INRCPT, INFROM, EZMLM and BY say nothing that is used here.
    }
    Ok(recipient)
}

/// Checks an ENVID (RFC 3461 4.4). It goes to the next hop as a parameter, where a space would begin
/// another one.
///
/// # Errors
/// What is allowed.
pub fn envid(value: &[u8]) -> Result<Vec<u8>, String> {
    if value.len() <= 100 && is_xtext(value) {
        return Ok(value.to_vec());
    }
    let shown = String::from_utf8_lossy(value).into_owned();
    Err(format!(
        "an envelope id is at most 100 characters of xtext, not {shown:?}"
    ))
}

/// Checks an ORCPT (RFC 3461 4.2; RFC 6533 3 for 8 bits).
fn orcpt(value: &[u8]) -> Result<Vec<u8>, String> {
    let mut parts = value.splitn(2, |byte| *byte == b';');
    let (kind, address) = (parts.next().unwrap_or_default(), parts.next());
    let is_kind = |kind: &[u8]| !kind.is_empty() && kind.iter().all(|byte| is_kind(*byte));
    let eight_bit = |address: &[u8]| address.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
    let good = is_kind(kind)
        && value.len() <= 500
        && address.is_some_and(|text| is_xtext(text) || eight_bit(text));
    if good {
        return Ok(value.to_vec());
    }
    let shown = String::from_utf8_lossy(value).into_owned();
    Err(format!("ORCPT is a type, a `;` and xtext, not {shown:?}"))
}

fn is_kind(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// RFC 3461 4: graphic characters but `=`; `+` begins two hexadecimal digits.
fn is_xtext(text: &[u8]) -> bool {
    let hex = |at: usize| text.get(at).is_some_and(u8::is_ascii_hexdigit);
    let good = |(at, byte): (usize, &u8)| match byte {
        b'=' => false,
        b'+' => hex(at + 1) && hex(at + 2),
        _ => byte.is_ascii_graphic(),
    };
    text.iter().enumerate().all(good)
}

/// The bits of a NOTIFY value.
///
/// # Errors
/// What is wrong with it.
pub fn notify(value: &[u8]) -> Result<u8, String> {
    let mut bits = 0;
    for word in value.split(|byte| *byte == b',') {
        bits |= match word.to_ascii_uppercase().as_slice() {
            b"NEVER" => 1,
            b"SUCCESS" => 2,
            b"FAILURE" => 4,
            b"DELAY" => 8,
            _ => {
                let shown = String::from_utf8_lossy(word).into_owned();
                return Err(format!(
                    "NOTIFY is NEVER, or SUCCESS, FAILURE and DELAY, not {shown:?}"
                ));
            }
        };
    }
    if bits & 1 != 0 && bits != 1 {
        return Err("NOTIFY=NEVER stands alone".to_owned());
    }
    Ok(bits)
}

/// The words of NOTIFY bits.
#[must_use]
pub fn notify_words(bits: u8) -> String {
    let names = [(1, "NEVER"), (2, "SUCCESS"), (4, "FAILURE"), (8, "DELAY")];
    let words: Vec<&str> = names
        .iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    words.join(",")
}

/// Writes an envelope with its `env-end`. Each value stays on one line.
#[must_use]
pub fn write(envelope: &FileEnvelope) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    if envelope.external {
        out.extend_from_slice(b"external\n");
    }
    let lines = [
        ("rcvdfrom", &envelope.received_from),
        ("with", &envelope.with),
        ("via", &envelope.via),
        ("bodytype", &envelope.body_type),
        ("fullname", &envelope.full_name),
        ("loginname", &envelope.login_name),
        ("user", &envelope.user),
        ("envid", &envelope.envid),
        ("notaryret", &envelope.ret),
        ("verbose", &envelope.verbose),
    ];
    for (keyword, value) in lines {
        if let Some(value) = value {
            put(&mut out, keyword, value);
        }
    }
    for comment in &envelope.comments {
        put(&mut out, "comment", comment);
    }
    match &envelope.sender {
        Some(sender) if sender.is_empty() => out.extend_from_slice(b"channel error\n"),
        Some(sender) => put(&mut out, "from", &bracketed(sender)),
        None => {}
    }
    for recipient in &envelope.recipients {
        put_recipient(&mut out, recipient);
    }
    out.extend_from_slice(b"env-end\n");
    out
}

fn put_recipient(out: &mut Vec<u8>, recipient: &FileRecipient) {
    let mut dsn = Vec::new();
    if recipient.notify != 0 {
        dsn.extend_from_slice(format!("NOTIFY={}", notify_words(recipient.notify)).as_bytes());
    }
    if let Some(orcpt) = &recipient.orcpt {
        if !dsn.is_empty() {
            dsn.push(b' ');
        }
        dsn.extend_from_slice(b"ORCPT=");
        dsn.extend_from_slice(orcpt);
    }
    if !dsn.is_empty() {
        put(out, "todsn", &dsn);
    }
    put(out, "to", &bracketed(&recipient.address));
}

fn bracketed(address: &[u8]) -> Vec<u8> {
    [b"<", address, b">"].concat()
}

fn put(out: &mut Vec<u8>, keyword: &str, value: &[u8]) {
    out.extend_from_slice(keyword.as_bytes());
    out.push(b' ');
    out.extend(
        value
            .iter()
            .map(|byte| if byte.is_ascii_control() { b' ' } else { *byte }),
    );
    out.push(b'\n');
}

/// The message of a file as it travels; see [`ToWire`].
#[must_use]
pub fn to_wire(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + message.len() / 32 + 2);
    let mut ends = ToWire::default();
    ends.feed(message, &mut out);
    ends.end(out.is_empty(), &mut out);
    out
}

/// Content with CR LF line ends as it stands in a file.
#[must_use]
pub fn from_wire(content: &[u8]) -> Vec<u8> {
    let (mut ends, mut out) = (FromWire::default(), Vec::with_capacity(content.len()));
    ends.feed(content, &mut out);
    ends.end(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of zmailer.md 1.4.
    const EXAMPLE: &[u8] = b"external\n\
        rcvdfrom relay.example.net ([192.0.2.7]:40112 \"EHLO relay.example.net\")\n\
        with ESMTP\n\
        from <ann@example.net>\n\
        todsn NOTIFY=FAILURE,DELAY ORCPT=rfc822;bob@example.org\n\
        to <bob@example.org>\n\
        env-end\n\
        Subject: hello\n\ntext\n";

    #[test]
    fn the_example_is_understood() {
        let (envelope, at) = parse(EXAMPLE).unwrap();
        assert!(envelope.external);
        assert_eq!(envelope.with.as_deref(), Some(&b"ESMTP"[..]));
        assert_eq!(envelope.sender.as_deref(), Some(&b"ann@example.net"[..]));
        assert_eq!(
            envelope.recipients,
            [FileRecipient {
                address: b"bob@example.org".to_vec(),
                notify: 4 | 8,
                orcpt: Some(b"rfc822;bob@example.org".to_vec()),
            }]
        );
        assert_eq!(EXAMPLE.get(at..).unwrap(), b"Subject: hello\n\ntext\n");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (envelope, at) = parse(EXAMPLE).unwrap();
        let mut again = write(&envelope);
        again.extend_from_slice(EXAMPLE.get(at..).unwrap());
        assert_eq!(parse(&again).unwrap().0, envelope);
    }

    #[test]
    fn files_without_an_end_of_the_envelope() {
        let cases: &[(&[u8], usize)] = &[
            (b"from <a@x>\nSubject: s\n\nbody\n", 11),
            (b"Subject: s\n\nbody\n", 0),
            (b"\nbody\n", 0),
            (b"FROM <a@x>\nTo <b@x>,\n c@x\nenv-eof\n", 34),
        ];
        for (file, at) in cases {
            let shown = String::from_utf8_lossy(file);
            assert_eq!(parse(file).map(|(_, at)| at), Ok(*at), "{shown}");
        }
        let (envelope, _) = parse(b"to <b@x>,\n c@x\nenv-end\n").unwrap();
        assert_eq!(envelope.recipients.len(), 2);
        assert_eq!(
            parse(b"channel error\nto x\nenv-end\n").unwrap().0.sender,
            Some(Vec::new())
        );
    }

    #[test]
    fn bad_files_are_refused_with_line_and_reason() {
        let cases: &[(&[u8], usize, &str)] = &[
            (b"from <a@x>\nfrm <b@x>\nenv-end\n", 2, "frm"),
            (b"from <a@x>\nto <b", 2, "ends"),
            (b"", 1, "ends"),
            (b"\x7fELF\x02\x01\n", 1, "keyword"),
            (
                b"todsn NOTIFY=SOMETIMES\nto <a@x>\nenv-end\n",
                1,
                "SOMETIMES",
            ),
            (b"to ()\nenv-end\n", 1, "nobody"),
            (b"from a@x, b@x\nenv-end\n", 1, "one address"),
            (b"to <a b@x>\nenv-end\n", 1, "a b@x"),
            (b"envid a AUTH=<>\nto <a@x>\nenv-end\n", 1, "a AUTH=<>"),
            (b"todsn ORCPT=rfc822;\x01\nto <a@x>\nenv-end\n", 1, "ORCPT"),
            (b"todsn ORCPT=a@x\nto <a@x>\nenv-end\n", 1, "ORCPT"),
        ];
        for (file, line, word) in cases {
            let error = parse(file).unwrap_err();
            assert!(error.line == *line && error.text.contains(word), "{error}");
        }
    }

    #[test]
    fn line_ends_there_and_back() {
        assert_eq!(to_wire(b"a\nb"), b"a\r\nb\r\n");
        assert_eq!(to_wire(b"a\r\nb\r\n"), b"a\r\nb\r\n");
        assert_eq!(to_wire(b"a\rb\0c\r"), b"a bc \r\n");
        assert_eq!(to_wire(b""), b"\r\n");
        assert_eq!(from_wire(b"a\r\n.\r\n"), b"a\n.\n");
    }
}
