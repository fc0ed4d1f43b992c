//! Message files (zmailer.md 1.4) that the daemon writes: `postman/` has failed messages without a sender to tell, and
//! copies of messages that a routing script wants to be looked at; `deferred/` has those whose routing was stopped.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use spool::blocking::read_content;
use spool::{ContentFile, Origin};

use crate::mail::line_ends::FromWire;
use crate::mail::message_file::{self, FileEnvelope};

/// A failed message without a sender.
#[derive(Clone, Debug)]
pub struct Undeliverable {
    /// The shard that waits for the answer.
    pub shard: u16,
    /// Comes back in [`Kept`].
    pub token: u64,
    /// Its id, the file's name.
    pub id: String,
    /// Failed recipients with the reply that failed them.
    pub recipients: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where it goes.
    pub place: Place,
    /// The message.
    pub content: Original,
}

/// Where a message file goes, and with which envelope.
#[derive(Clone, Debug)]
pub enum Place {
    /// To `postman/`, with the failed recipients.
    Failed,
    /// To `deferred/`: its routing was stopped.
    Deferred(Box<FileEnvelope>),
    /// To `postman/`: a copy of a message that goes on its way, kept for this event.
    Copy(&'static str, Box<FileEnvelope>),
}

impl Undeliverable {
    /// The name of its file. A copy has the same each time.
    fn name(&self) -> String {
        match &self.place {
            Place::Copy(event, _) => format!("{}._{event}", self.id),
            Place::Failed | Place::Deferred(_) => format!("{}.{}", self.id, self.token),
        }
    }
}

/// The content of a failed message, with CR LF line ends.
#[derive(Clone, Debug)]
pub enum Original {
    /// All of it.
    Memory(Arc<Vec<u8>>),
    /// In a file of the spool, which stays there until the answer.
    File(Arc<ContentFile>),
}

/// The answer to an [`Undeliverable`]: it is on disk, or why not.
#[derive(Debug)]
pub struct Kept {
    /// Of the request.
    pub token: u64,
    /// The error's text.
    pub result: Result<(), String>,
}

/// Says in a message file who brought the message, so that it is the same when it is submitted again.
pub fn put_origin(file: &mut FileEnvelope, origin: &Origin) {
    match origin {
        Origin::Relay => file.external = true,
        Origin::Submission => {}
        Origin::User(user) => {
            file.user = Some(user.login.clone()).filter(|_| !user.trusted);
            file.full_name = Some(user.full_name.clone()).filter(|name| !name.is_empty());
        }
    }
}

/// Writes the file under a name that is not seen, syncs it, renames it, syncs the directory.
///
/// # Errors
/// Those of the file operations; nothing half-written is left under the final name.
pub fn keep(dir: &Path, message: &Undeliverable) -> io::Result<()> {
    let hidden = dir.join(format!(".{}.{}", message.id, message.token));
    let mut file = File::create(&hidden)?;
    write_envelope(message, &mut file)?;
    match &message.content {
        Original::Memory(content) => file.write_all(&message_file::from_wire(content))?,
        Original::File(content) => copy(dir, content, &mut file)?,
    }
    file.sync_all()?;
    fs::rename(&hidden, dir.join(message.name()))?;
    File::open(dir)?.sync_all()
}

fn write_envelope(message: &Undeliverable, file: &mut File) -> io::Result<()> {
    if let Place::Deferred(envelope) | Place::Copy(_, envelope) = &message.place {
        return file.write_all(&message_file::write(envelope));
    }
    file.write_all(b"channel error\n")?;
    for (recipient, reply) in &message.recipients {
        file.write_all(b"comment ")?;
        file.write_all(&printable(reply))?;
        file.write_all(b"\nto <")?;
        file.write_all(&printable(recipient))?;
        file.write_all(b">\n")?;
    }
    file.write_all(b"env-end\n")
}

/// Copies content out of the spool, verified, with the line ends of files.
fn copy(dir: &Path, content: &ContentFile, to: &mut File) -> io::Result<()> {
    let spool = dir.parent().unwrap_or(dir).join("spool");
    let (mut ends, mut text) = (FromWire::default(), Vec::new());
    read_content(
        &spool.join(format!("{:04}", content.shard)),
        content,
        |piece| {
            text.clear();
            ends.feed(piece, &mut text);
            to.write_all(&text)
        },
    )?;
    text.clear();
    ends.end(&mut text);
    to.write_all(&text)
}

/// One envelope line stays one line.
fn printable(text: &[u8]) -> Vec<u8> {
    text.iter()
        .map(|byte| if byte.is_ascii_control() { b' ' } else { *byte })
        .collect()
}
