//! A message file to envelope and content: who may say what, and what a header must have.

use std::collections::HashMap;
use std::time::SystemTime;

use spool::{BodyKind, Envelope, Recipient, Ret};

use super::Setup;
use super::file::{Loaded, Odd};
use crate::mail::date;
use crate::mail::header::{self, Field};
use crate::mail::message_file::{self, FileEnvelope};
use crate::protocol::{judge, path};
use crate::sys::process;

/// Names of users, looked up once each.
#[derive(Debug, Default)]
pub(super) struct Users {
    names: HashMap<u32, Option<process::Account>>,
}

/// Users remembered; beyond it all are looked up again.
const USERS_MAX: usize = 10_000;

impl Users {
    fn account(&mut self, uid: u32) -> Option<&process::Account> {
        if self.names.len() >= USERS_MAX {
            self.names.clear();
        }
        self.names
            .entry(uid)
            .or_insert_with(|| process::account(uid))
            .as_ref()
    }
}

/// Who submitted a file.
struct Submitter<'a> {
    login: &'a str,
    full_name: &'a str,
    /// May say where a message came from and when.
    trusted: bool,
}

/// The envelope and the content of a file.
pub(super) fn make(
    loaded: &Loaded,
    setup: &Setup,
    users: &mut Users,
) -> Result<(Envelope, Vec<u8>), Odd> {
    let (file, at) =
        message_file::parse(&loaded.bytes).map_err(|error| Odd::BadEnvelope(error.to_string()))?;
    let account = users.account(loaded.uid).ok_or(Odd::NoOwner(loaded.uid))?;
    // ZMailer trusts the owners root and daemon; `external` gives that up.
    let own = rustix::process::geteuid().as_raw();
    let submitter = Submitter {
        login: &account.name,
        full_name: &account.full_name,
        trusted: (loaded.uid == 0 || loaded.uid == own) && !file.external,
    };
    let message = loaded.bytes.get(at..).unwrap_or_default();
    let recipients = recipients(&file, message, &setup.hostname)?;
    let binary = file
        .body_type
        .as_deref()
        .is_some_and(|body| body.eq_ignore_ascii_case(b"BINARYMIME"));
    let wire = if binary {
        message.to_vec()
    } else {
        message_file::to_wire(message)
    };
    check(&wire, setup)?;
    let now_ms = now_ms();
    let arrival_ms = if submitter.trusted {
        loaded.modified_ms.min(now_ms)
    } else {
        now_ms
    };
    let sender = sender(&file, &submitter, &setup.hostname);
    let content = complete(&wire, &file, &submitter, loaded, setup, arrival_ms);
    let utf8 = !sender.is_ascii() || recipients.iter().any(|to| !to.address.is_ascii());
    let envelope = Envelope {
        sender,
        recipients,
        arrival_ms,
        body: body(&wire, binary),
        smtputf8: utf8,
        ret: file.ret.as_deref().and_then(ret),
        envid: file.envid.clone(),
        client: b"local".to_vec(),
        helo: submitter.login.as_bytes().to_vec(),
        protocol: with(&file, submitter.trusted),
        source: Some(loaded.source),
    };
    Ok((envelope, content))
}

fn check(wire: &[u8], setup: &Setup) -> Result<(), Odd> {
    let limits = &setup.limits;
    if wire.len() as u64 > limits.message_bytes_max {
        return Err(Odd::TooLarge(limits.message_bytes_max));
    }
    match judge::header_fault(wire, limits.header_bytes_max, limits.received_max) {
        Some(fault) => Err(Odd::BadMessage(fault.reply())),
        None => Ok(()),
    }
}

fn recipients(file: &FileEnvelope, message: &[u8], host: &str) -> Result<Vec<Recipient>, Odd> {
    let named = if file.recipients.is_empty() {
        let found = header::recipients(message);
        let plain = found
            .into_iter()
            .map(|address| message_file::FileRecipient {
                address,
                ..message_file::FileRecipient::default()
            });
        plain.collect()
    } else {
        file.recipients.clone()
    };
    if named.is_empty() {
        let what = "it names no recipient, nor does its header".to_owned();
        return Err(Odd::BadEnvelope(what));
    }
    let all = named.into_iter().map(|recipient| Recipient {
        address: qualified(recipient.address, host),
        notify: recipient.notify,
        orcpt: recipient.orcpt,
    });
    Ok(all.collect())
}

/// A name without a host is one of this host.
fn qualified(mut address: Vec<u8>, host: &str) -> Vec<u8> {
    if !address.is_empty() && !address.contains(&b'@') {
        address.push(b'@');
        address.extend_from_slice(host.as_bytes());
    }
    address
}

fn sender(file: &FileEnvelope, submitter: &Submitter<'_>, host: &str) -> Vec<u8> {
    match file.sender.clone().map(|sender| qualified(sender, host)) {
        Some(sender) if sender.is_empty() || path::check(&sender, true).is_ok() => sender,
        _ => format!("{}@{host}", submitter.login).into_bytes(),
    }
}

fn body(wire: &[u8], binary: bool) -> BodyKind {
    match (binary, wire.is_ascii()) {
        (true, _) => BodyKind::Binary,
        (false, true) => BodyKind::SevenBit,
        (false, false) => BodyKind::EightBit,
    }
}

fn ret(ret: &[u8]) -> Option<Ret> {
    if ret.eq_ignore_ascii_case(b"FULL") {
        Some(Ret::Full)
    } else if ret.eq_ignore_ascii_case(b"HDRS") {
        Some(Ret::Headers)
    } else {
        None
    }
}

fn with(file: &FileEnvelope, trusted: bool) -> Vec<u8> {
    let given = file
        .with
        .as_deref()
        .filter(|with| trusted && !with.is_empty() && with.iter().all(u8::is_ascii_alphanumeric));
    given.unwrap_or(b"STDIN").to_vec()
}

/// Adds what a message must have and a user's program may have left out (RFC 5322 3.6; RFC 6409 8),
/// and takes out what nobody else shall see.
fn complete(
    wire: &[u8],
    file: &FileEnvelope,
    submitter: &Submitter<'_>,
    loaded: &Loaded,
    setup: &Setup,
    arrival_ms: u64,
) -> Vec<u8> {
    let host = &setup.hostname;
    let has = |name: &str| header::fields(wire).any(|field| field.is(name));
    let mut out = Vec::with_capacity(wire.len() + 512);
    if !has("Date") {
        out.extend_from_slice(format!("Date: {}\r\n", date::format(arrival_ms)).as_bytes());
    }
    if !has("Message-Id") {
        let source = &loaded.source;
        let line = format!(
            "Message-Id: <{:x}.{:x}@{host}>\r\n",
            source.changed_ns, source.inode
        );
        out.extend_from_slice(line.as_bytes());
    }
    if !has("From") {
        let name = file
            .full_name
            .as_deref()
            .map_or_else(|| submitter.full_name.into(), String::from_utf8_lossy);
        let address = format!("{}@{host}", submitter.login);
        out.extend_from_slice(format!("From: {}\r\n", mailbox(&name, &address)).as_bytes());
    }
    if !["To", "Cc", "Resent-To", "Resent-Cc"]
        .iter()
        .any(|name| has(name))
    {
        out.extend_from_slice(b"To: undisclosed-recipients:;\r\n");
    }
    let mut fields = header::fields(wire);
    for field in fields.by_ref().filter(|field| !is_secret(field)) {
        out.extend_from_slice(field.whole);
    }
    if !fields.rest().starts_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(fields.rest());
    out
}

/// Bcc is for the sender alone (RFC 5322 3.6.3); Return-Path is made at the final delivery.
fn is_secret(field: &Field<'_>) -> bool {
    ["Bcc", "Resent-Bcc", "Return-Path"]
        .iter()
        .any(|name| field.is(name))
}

/// A name and an address as RFC 5322 3.4 writes them; a name that is not plain ASCII is left out.
fn mailbox(name: &str, address: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    if name.trim().is_empty() || !name.bytes().all(plain) {
        return address.to_owned();
    }
    let escaped = name.trim().replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\" <{address}>")
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
