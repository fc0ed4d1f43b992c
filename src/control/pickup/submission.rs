//! A message file to envelope and content: who brought it, and who may say what. What its header lacks the router
//! adds on the way out (`router/message`): the stored content is what the user wrote.
//!
//! The owner of the file is who submitted it, and stands in the Received field whatever the envelope
//! claims. Trusted owners, which are root and the daemon's user, may also say where a message came from
//! (`rcvdfrom`, `with`), how old it is (the file's time), and for whom they act (`user`), or that others have written
//! it (`external`): then it passes as it is, like relayed mail. `from` may be named by everybody, unlike in ZMailer: programs of users send
//! for the addresses these have elsewhere, and the Received field tells who did. Recipients that only the header
//! names are found here, because the envelope of the spool has them.
//!
//! A file is read once and in pieces, into the content that goes to the shard: beside it only its
//! envelope and header are in memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::SystemTime;

use spool::{BodyKind, Envelope, Origin, Recipient, Ret};

use super::Setup;
use super::file::{Odd, Opened};
use crate::mail::header;
use crate::mail::line_ends::ToWire;
use crate::mail::message_file::{self, ENVELOPE_BYTES_MAX, FileEnvelope};
use crate::mail::trace::Received;
use crate::protocol::{judge, path};
use crate::sys::accounts;

/// Names of users, looked up once each.
#[derive(Debug, Default)]
pub(super) struct Users {
    names: HashMap<u32, accounts::Account>,
}

/// Users remembered; beyond it all are looked up again.
const USERS_MAX: usize = 10_000;

impl Users {
    /// Somebody unknown is asked for again each time: he may have come since, or the answer failed.
    fn account(&mut self, uid: u32) -> Option<&accounts::Account> {
        if self.names.len() >= USERS_MAX {
            self.names.clear();
        }
        match self.names.entry(uid) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(vacant) => Some(vacant.insert(accounts::by_uid(uid).ok()??)),
        }
    }
}

/// Who submitted a file.
struct Submitter {
    uid: u32,
    login: String,
    full_name: String,
    /// May say where a message came from and when.
    is_believed: bool,
    /// A trusted owner has it from another host: it passes as it is.
    is_relayed: bool,
}

impl Submitter {
    fn of(file: &FileEnvelope, uid: u32, users: &mut Users) -> Result<Self, Odd> {
        let account = users.account(uid).ok_or(Odd::NoOwner(uid))?;
        // ZMailer trusts the owners root and daemon; `external` says that others have written the message.
        let own = rustix::process::geteuid().as_raw();
        let is_believed = uid == 0 || uid == own;
        let owner = Self {
            uid,
            login: account.name.clone(),
            full_name: account.full_name.clone(),
            is_believed,
            is_relayed: is_believed && file.external,
        };
        match file
            .user
            .as_deref()
            .filter(|_| is_believed && !file.external)
        {
            Some(name) => Self::named(&String::from_utf8_lossy(name)),
            None => Ok(owner),
        }
    }

    /// Somebody for whom a trusted owner acts; he is not trusted himself.
    fn named(name: &str) -> Result<Self, Odd> {
        let unknown = || Odd::BadEnvelope(format!("there is no user {name:?}"));
        let account = accounts::by_name(name).ok().flatten().ok_or_else(unknown)?;
        Ok(Self {
            uid: account.uid,
            login: account.name,
            full_name: account.full_name,
            is_believed: account.uid == 0,
            is_relayed: false,
        })
    }

    /// What the router has to know of him. Whose word is taken for a sender is the administrator's to say; where a
    /// message came from only root and the daemon may tell.
    fn origin(&self, file: &FileEnvelope, setup: &Setup) -> Origin {
        if self.is_relayed {
            return Origin::Relay;
        }
        // `-F` and `fullname` name the author.
        let given = file.full_name.clone();
        Origin::User(Box::new(spool::Submitter {
            uid: self.uid,
            trusted: self.is_believed || setup.trusted_users.contains(&self.login),
            login: self.login.clone().into_bytes(),
            full_name: given.unwrap_or_else(|| self.full_name.clone().into_bytes()),
        }))
    }
}

/// The envelope and the content of a file.
pub(super) fn make(
    opened: &mut Opened,
    setup: &Setup,
    users: &mut Users,
) -> Result<(Envelope, Received, Vec<u8>), Odd> {
    let mut text = Text::default();
    let file = text.envelope(opened, setup.limits.message_bytes_max)?;
    let submitter = Submitter::of(&file, opened.uid, users)?;
    text.header(opened, setup)?;
    let recipients = recipients(&file, &text.content, &setup.hostname)?;
    let now_ms = now_ms();
    let arrival_ms = if submitter.is_believed {
        opened.source.modified_ns / 1_000_000.min(now_ms)
    } else {
        now_ms
    };
    let sender = sender(&file, &submitter, &setup.hostname);
    text.reserve(opened.source.size);
    text.body(opened, setup.limits.message_bytes_max)?;
    opened.check_unchanged()?;
    let received = received(&file, &submitter, &setup.hostname);
    let utf8 = !sender.is_ascii() || recipients.iter().any(|to| !to.address.is_ascii());
    let envelope = Envelope {
        recipients,
        arrival_ms,
        body: text.kind(),
        smtputf8: utf8,
        ret: file.ret.as_deref().and_then(ret),
        envid: file.envid.clone(),
        client: client(&file, submitter.is_believed),
        protocol: with(&file, submitter.is_believed),
        helo: submitter.login.clone().into_bytes(),
        source: Some(opened.source),
        origin: submitter.origin(&file, setup),
        routing: None,
        sender,
    };
    Ok((envelope, received, text.content))
}

/// Room for the Received field that the shard puts in front.
const RECEIVED_BYTES: usize = 1024;

/// The message of a file under way to its content.
#[derive(Default)]
struct Text {
    content: Vec<u8>,
    /// Bytes read and not yet part of `content`.
    raw: Vec<u8>,
    /// None: content goes as it is (BINARYMIME), or is complete.
    ends: Option<ToWire>,
    binary: bool,
    eight_bit: bool,
    /// Of the message, without what is added to it.
    wire_bytes: u64,
    /// The file has been read to its end.
    over: bool,
}

impl Text {
    /// Reads as far as the envelope goes.
    fn envelope(&mut self, opened: &mut Opened, bytes_max: u64) -> Result<FileEnvelope, Odd> {
        // A keyword at the limit may have been read, and a piece more.
        const RAW_BYTES_MAX: usize = ENVELOPE_BYTES_MAX + (1 << 20);
        if opened.source.size > bytes_max.saturating_add(ENVELOPE_BYTES_MAX as u64) {
            return Err(Odd::TooLarge(bytes_max));
        }
        let mut wanted = 0;
        loop {
            while self.raw.len() <= wanted && !self.over {
                self.over = !opened.piece(&mut self.raw)?;
            }
            match message_file::parse(&self.raw) {
                Ok((file, at)) => {
                    self.raw.drain(..at);
                    let binary = |body: &[u8]| body.eq_ignore_ascii_case(b"BINARYMIME");
                    self.binary = file.body_type.as_deref().is_some_and(binary);
                    self.ends = (!self.binary).then(ToWire::default);
                    self.make_room(self.raw.len());
                    return Ok(file);
                }
                // Twice as much each time, so reading again from the start costs little.
                Err(error) if error.is_short && !self.over && self.raw.len() < RAW_BYTES_MAX => {
                    wanted = 2 * self.raw.len();
                }
                Err(error) => return Err(Odd::BadEnvelope(error.to_string())),
            }
        }
    }

    /// Takes what has been read over into the content, or reads more; false at the end of the file.
    fn advance(&mut self, opened: &mut Opened) -> Result<bool, Odd> {
        if self.raw.is_empty() && !self.over {
            self.over = !opened.piece(&mut self.raw)?;
        }
        let from = self.content.len();
        match &mut self.ends {
            Some(ends) => ends.feed(&self.raw, &mut self.content),
            None => self.content.extend_from_slice(&self.raw),
        }
        self.raw.clear();
        if self.over
            && let Some(ends) = self.ends.take()
        {
            ends.end(self.content.is_empty(), &mut self.content);
        }
        self.eight_bit |= !self.content.get(from..).unwrap_or_default().is_ascii();
        self.wire_bytes += (self.content.len() - from) as u64;
        Ok(!self.over)
    }

    /// Reads until the whole header is in the content, and judges it.
    fn header(&mut self, opened: &mut Opened, setup: &Setup) -> Result<(), Odd> {
        let limits = &setup.limits;
        let mut looked_at = 0;
        loop {
            let more = self.advance(opened)?;
            let new = self.content.get(looked_at..).unwrap_or_default();
            let ends = self.content.starts_with(b"\r\n")
                || memchr::memmem::find(new, b"\r\n\r\n").is_some();
            // The two bytes of the empty line do not count.
            if ends || !more || self.content.len() > limits.header_bytes_max + 2 {
                break;
            }
            looked_at = self.content.len().saturating_sub(3);
        }
        match judge::header_fault(&self.content, limits.header_bytes_max, limits.received_max) {
            Some(fault) => Err(Odd::BadMessage(fault.reply())),
            None => Ok(()),
        }
    }

    /// Makes room for the rest of the file, and for the Received field in front.
    fn reserve(&mut self, file_bytes: u64) {
        if self.content.starts_with(b" ") || self.content.starts_with(b"\t") {
            // A body without a header: the Received field in front of it must not go on in it.
            self.content.splice(0..0, *b"\r\n");
        }
        let file_bytes = usize::try_from(file_bytes).unwrap_or(0);
        self.make_room(file_bytes.saturating_sub(self.content.len()));
    }

    /// Lines of sixteen bytes and more fit without moving all of it.
    fn make_room(&mut self, bytes: usize) {
        self.content.reserve(bytes + bytes / 16 + RECEIVED_BYTES);
    }

    fn body(&mut self, opened: &mut Opened, bytes_max: u64) -> Result<(), Odd> {
        loop {
            let more = !self.over && self.advance(opened)?;
            if self.wire_bytes > bytes_max {
                return Err(Odd::TooLarge(bytes_max));
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn kind(&self) -> BodyKind {
        match (self.binary, self.eight_bit) {
            (true, _) => BodyKind::Binary,
            (false, false) => BodyKind::SevenBit,
            (false, true) => BodyKind::EightBit,
        }
    }
}

/// Who gets it: those of the envelope, else those of the header. Addresses go to the next hop in
/// commands, so each is checked.
fn recipients(file: &FileEnvelope, header: &[u8], host: &str) -> Result<Vec<Recipient>, Odd> {
    let named = if file.recipients.is_empty() {
        of_header(header)?
    } else {
        file.recipients.clone()
    };
    if named.is_empty() {
        let what = "it names no recipient, nor does its header".to_owned();
        return Err(Odd::BadEnvelope(what));
    }
    let all = named.into_iter().map(|recipient| {
        let address = qualified(recipient.address, host);
        match path::check(&address, true) {
            Ok(()) => Ok(Recipient {
                address,
                notify: recipient.notify,
                orcpt: recipient.orcpt,
            }),
            Err(_) => {
                let shown = String::from_utf8_lossy(&address).into_owned();
                Err(Odd::BadEnvelope(format!("not an address: {shown:?}")))
            }
        }
    });
    all.collect()
}

fn of_header(header: &[u8]) -> Result<Vec<message_file::FileRecipient>, Odd> {
    let list = header::recipients(without_mailbox_lines(header));
    if let Some(text) = list.doubtful.first() {
        let shown = String::from_utf8_lossy(text).into_owned();
        let what = format!("its header names somebody unclear: {shown:?}");
        return Err(Odd::BadEnvelope(what));
    }
    let plain = list
        .addresses
        .into_iter()
        .map(|address| message_file::FileRecipient {
            address,
            ..message_file::FileRecipient::default()
        });
    Ok(plain.collect())
}

/// Lines that mailbox files have in front of a header.
fn without_mailbox_lines(mut header: &[u8]) -> &[u8] {
    const LINES_MAX: usize = 2;
    for _ in 0..LINES_MAX {
        let is_line = header.starts_with(b"From ") || header.starts_with(b">From ");
        let Some(end) = memchr::memchr(b'\n', header).filter(|_| is_line) else {
            break;
        };
        header = header.get(end + 1..).unwrap_or_default();
    }
    header
}

/// A name without a host is one of this host.
fn qualified(mut address: Vec<u8>, host: &str) -> Vec<u8> {
    if !address.is_empty() && !address.contains(&b'@') {
        address.push(b'@');
        address.extend_from_slice(host.as_bytes());
    }
    address
}

fn sender(file: &FileEnvelope, submitter: &Submitter, host: &str) -> Vec<u8> {
    match file.sender.clone().map(|sender| qualified(sender, host)) {
        Some(sender) if sender.is_empty() || path::check(&sender, true).is_ok() => sender,
        _ => format!("{}@{host}", submitter.login).into_bytes(),
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

/// The address in what a trusted owner says of where it came from.
fn client(file: &FileEnvelope, is_believed: bool) -> Vec<u8> {
    let given = file.received_from.as_deref().filter(|_| is_believed);
    let text = given.and_then(|text| core::str::from_utf8(text).ok());
    // What the client called itself stands in front, and may be an address in brackets too.
    let address = text.and_then(|text| text.split_once("([")?.1.split(']').next());
    let address = address.and_then(|text| text.parse::<std::net::IpAddr>().ok());
    address.map_or_else(
        || b"local".to_vec(),
        |address| address.to_string().into_bytes(),
    )
}

/// Where it came from: what a trusted owner says, else the owner.
fn received(file: &FileEnvelope, submitter: &Submitter, host: &str) -> Received {
    let said = |value: &Option<Vec<u8>>| {
        let value = value.as_deref().filter(|_| submitter.is_believed);
        value.unwrap_or_default().to_vec()
    };
    let from = said(&file.received_from);
    Received {
        from: if from.is_empty() {
            format!("STDIN ({}@{host})", submitter.login).into_bytes()
        } else {
            from
        },
        via: said(&file.via),
        with: said(&file.with),
    }
}

fn with(file: &FileEnvelope, is_believed: bool) -> Vec<u8> {
    let given = file.with.as_deref().filter(|with| {
        is_believed && !with.is_empty() && with.iter().all(u8::is_ascii_alphanumeric)
    });
    given.unwrap_or(b"STDIN").to_vec()
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_known_by_its_address_and_not_by_what_it_said() {
        for (text, address) in [
            ("mx.a.example ([192.0.2.7])", "192.0.2.7"),
            ("[192.0.2.9] ([192.0.2.7])", "192.0.2.7"),
            ("x ([192.0.2.7]:40112 \"EHLO [192.0.2.9]\")", "192.0.2.7"),
            ("[192.0.2.9]", "local"),
        ] {
            let file = FileEnvelope {
                received_from: Some(text.as_bytes().to_vec()),
                ..FileEnvelope::default()
            };
            assert_eq!(client(&file, true), address.as_bytes());
            assert_eq!(client(&file, false), b"local");
        }
    }
}
