//! One message into one Maildir: written in `tmp/`, synced, renamed into `new/`, the directory synced; the syncs by
//! itself or with all that go to the same file system at the time (`group`).
//!
//! The name holds the message's id: a second delivery of the same message finds the first one, in
//! `new/` or, when somebody has read it meanwhile, in `cur/`. Found in `new/` after a crash it counts
//! only when all of the content is there: a file system that lost what it had synced is made good.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use super::batch::Batches;
use super::content::Content;
use super::draft::Draft;
use super::group::{Groups, Ticket};
use crate::control::users::{self, Found};
use crate::sys::process::{self, Acting, User};

/// Content from here on is not written before somebody has looked whether it is there.
const LOOK_FIRST_BYTES: usize = 64 << 10;

/// A message for one mailbox.
pub(super) struct Letter<'a> {
    pub(super) id: &'a str,
    pub(super) arrival_ms: u64,
    /// It may have been delivered before, by a daemon that crashed.
    pub(super) perhaps_there: bool,
    pub(super) hostname: &'a str,
    pub(super) sender: &'a [u8],
    pub(super) recipient: &'a [u8],
    pub(super) content: &'a Content,
}

/// Whose mailbox it is, when that can make a difference.
#[derive(Clone, Copy)]
pub(super) struct Owner(pub(super) User);

impl Owner {
    /// The account, or the owner of a mailbox without an account. None without root's rights.
    pub(super) fn of(found: &Found) -> Option<Self> {
        if !process::is_root() {
            return None;
        }
        let account = found.account.as_ref().map(|account| User {
            uid: account.uid,
            gid: account.gid,
        });
        // One that was made since he was looked up is looked at again: who has no owner is written to as root.
        let user = account
            .or(found.owner)
            .or_else(|| users::owner_of_mailbox(&found.path));
        user.map(Self)
    }

    /// With the group of the directory that a mailbox is in, where that may write there: locks stand beside mailboxes.
    pub(super) fn with_group_of(self, mailbox: &Path) -> Self {
        let parent = mailbox
            .parent()
            .and_then(|parent| fs::metadata(parent).ok());
        let group = parent.filter(|parent| parent.mode() & 0o020 != 0);
        let Self(user) = self;
        Self(User {
            gid: group.map_or(user.gid, |parent| parent.gid()),
            ..user
        })
    }
}

/// A message on its way into one Maildir.
pub(super) struct Delivery<'a> {
    pub(super) maildir: PathBuf,
    pub(super) owner: Option<Owner>,
    pub(super) letter: Letter<'a>,
    pub(super) batches: &'a Batches,
    pub(super) groups: &'a Groups,
}

/// What is left to be done.
pub(super) enum Step {
    /// It is on disk under its final name.
    Done,
    /// It is synced together with others.
    Shared(Ticket),
}

impl Delivery<'_> {
    /// Writes it, and finishes it unless others come along: `following` more of the same transaction will.
    ///
    /// # Errors
    /// Those of the files; nothing is visible then, unless the last sync of a directory failed.
    pub(super) fn begin(&self, following: usize) -> io::Result<Step> {
        match self.attempt(Some(following)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.begin_anew(),
            result => result,
        }
    }

    /// Returns when it is on disk under its final name.
    ///
    /// # Errors
    /// As of [`Delivery::begin`].
    pub(super) fn finish(&self, step: Step) -> io::Result<()> {
        match step {
            Step::Done => Ok(()),
            Step::Shared(ticket) => match ticket.wait() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.begin_anew().map(|_| ())
                }
                result => result,
            },
        }
    }

    /// By itself and with a name in `tmp/`, where a part of the Maildir is missing.
    fn begin_anew(&self) -> io::Result<Step> {
        make(&self.maildir, self.owner.as_ref())?;
        self.attempt(None)
    }

    /// `following` is None for one that goes by itself.
    fn attempt(&self, following: Option<usize>) -> io::Result<Step> {
        let user = self.owner.as_ref().map(|owner| owner.0);
        let _acting = user.map(Acting::begin).transpose()?;
        let (maildir, letter) = (self.maildir.as_path(), &self.letter);
        let name = name(letter);
        if !is_there(maildir, &name, letter)? {
            match self.groups.enter(&maildir.join("tmp"))? {
                Some(presence) if following.is_some_and(|some| presence.has_company(some)) => {
                    let draft = self.share(&name)?;
                    return Ok(Step::Shared(presence.commit(draft, user)));
                }
                // Until it is done it is company for others.
                _presence => self.write_alone(&name)?,
            }
        }
        self.batches.sync(&maildir.join("new"))?;
        Ok(Step::Done)
    }

    /// All but the syncs and the name.
    fn share(&self, name: &str) -> io::Result<Draft> {
        let draft = if self.letter.perhaps_there {
            // It may have to take the place of one that is not whole.
            Draft::hidden(&self.maildir, name)?
        } else {
            Draft::nameless(&self.maildir, name)?
        };
        write(&draft.file, &self.letter).inspect_err(|_| draft.discard())?;
        Ok(draft)
    }

    /// All but the sync of the directory. Not nameless: a sync of the directory leaves out, where there is no journal,
    /// that the file has a name now.
    fn write_alone(&self, name: &str) -> io::Result<()> {
        let draft = Draft::hidden(&self.maildir, name)?;
        let written = write(&draft.file, &self.letter).and_then(|()| draft.file.sync_data());
        let named = written.and_then(|()| draft.give_name());
        named.inspect_err(|_| draft.discard())
    }
}

/// Whether an earlier delivery stands there. One that may be of a run that crashed counts only with all
/// of its content; otherwise the new one takes its place. Of one in this run small content is not worth a look.
fn is_there(maildir: &Path, name: &str, letter: &Letter<'_>) -> io::Result<bool> {
    let target = maildir.join("new").join(name);
    if !letter.perhaps_there {
        return Ok(letter.content.len() >= LOOK_FIRST_BYTES && target.try_exists()?);
    }
    match is_complete(&target, letter.content) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => is_read(maildir, name),
        result => result,
    }
}

/// Whether a file ends with the content: before it may stand the recipient by another of his addresses.
fn is_complete(path: &Path, content: &Content) -> io::Result<bool> {
    // Neither a link nor a pipe is what was delivered; to open them must lead nowhere and not wait.
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = match options.open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(false),
        result => result?,
    };
    let metadata = file.metadata()?;
    Ok(metadata.is_file() && content.ends_file(&file, metadata.len())?)
}

/// The same at each attempt to put this message there.
fn name(letter: &Letter<'_>) -> String {
    let host = letter.hostname.replace(['/', ':'], "_");
    let seconds = letter.arrival_ms / 1000;
    let millis = letter.arrival_ms % 1000;
    format!("{seconds}.M{millis:03}I{}.{host}", letter.id)
}

/// Whether a reader has moved it to `cur/`, where flags follow the name.
fn is_read(maildir: &Path, name: &str) -> io::Result<bool> {
    for entry in fs::read_dir(maildir.join("cur"))? {
        let found = entry?.file_name();
        if found.as_encoded_bytes().starts_with(name.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn write(file: &File, letter: &Letter<'_>) -> io::Result<()> {
    let (head, all) = (
        letter.sender.len() + letter.recipient.len() + 64,
        letter.content.len(),
    );
    let mut out = BufWriter::with_capacity((head + all).min(64 << 10), file);
    out.write_all(b"Return-Path: <")?;
    out.write_all(letter.sender)?;
    out.write_all(b">\nDelivered-To: ")?;
    out.write_all(letter.recipient)?;
    out.write_all(b"\n")?;
    letter.content.write_to(&mut out)?;
    out.flush()
}

/// Makes a Maildir for its owner. As the owner where he may; in a directory that is root's alone, such
/// as /var/mail, root makes it and gives it to him.
fn make(maildir: &Path, owner: Option<&Owner>) -> io::Result<()> {
    let parent = maildir.parent().unwrap_or(maildir);
    let as_owner = match owner {
        None => true,
        Some(_) => !is_roots(parent)?,
    };
    let acting = owner
        .filter(|_| as_owner)
        .map(|owner| Acting::begin(owner.0))
        .transpose()?;
    let dirs: Vec<PathBuf> = ["", "tmp", "new", "cur"]
        .iter()
        .map(|name| maildir.join(name))
        .collect();
    for dir in &dirs {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
        if let (Some(owner), false) = (owner, as_owner) {
            chown(dir, Some(owner.0.uid), Some(owner.0.gid))?;
        }
    }
    File::open(maildir)?.sync_all()?;
    File::open(parent)?.sync_all().or_else(|error| {
        // A home that its owner may not read whole is synced with the next one who may.
        if error.kind() == io::ErrorKind::PermissionDenied {
            Ok(())
        } else {
            Err(error)
        }
    })?;
    drop(acting);
    Ok(())
}

/// Whether nobody but root can put names into a directory, so that making one there follows no link.
fn is_roots(dir: &Path) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(dir)?;
    let others_may_write = metadata.mode() & 0o002 != 0 && metadata.mode() & 0o1000 == 0;
    Ok(metadata.is_dir() && metadata.uid() == 0 && !others_may_write)
}
