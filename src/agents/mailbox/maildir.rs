//! One message into one Maildir: written in `tmp/`, synced, renamed into `new/`, the directory synced.
//!
//! The name holds the message's id: a second delivery of the same message finds the first one, in
//! `new/` or, when somebody has read it meanwhile, in `cur/`. Found in `new/` after a crash it counts
//! only when all of the content is there: a file system that lost what it had synced is made good.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::batch::Batches;
use super::content::Content;
use crate::control::users::Found;
use crate::sys::process::{self, Acting, User};

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
pub(super) struct Owner(pub(super) User);

impl Owner {
    /// The account, or the owner of a mailbox without an account. None without root's rights.
    pub(super) fn of(found: &Found) -> Option<Self> {
        if !process::is_root() {
            return None;
        }
        let user = match &found.account {
            Some(account) => Some(User {
                uid: account.uid,
                gid: account.gid,
            }),
            None => fs::metadata(&found.path).ok().map(|metadata| User {
                uid: metadata.uid(),
                gid: metadata.gid(),
            }),
        };
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

/// Delivers; when it returns the message is on disk under its final name.
///
/// # Errors
/// Those of the files; nothing is visible then.
pub(super) fn deliver(
    maildir: &Path,
    owner: Option<&Owner>,
    letter: &Letter<'_>,
    batches: &Batches,
) -> io::Result<()> {
    if !maildir.join("new").is_dir() {
        make(maildir, owner)?;
    }
    let _acting = owner.map(|owner| Acting::begin(owner.0)).transpose()?;
    let name = name(letter);
    let new = maildir.join("new");
    let target = new.join(&name);
    if !is_there(maildir, &name, letter)? {
        let hidden = maildir.join("tmp").join(attempt_name(&name));
        write(&hidden, letter).inspect_err(|_| {
            // What cannot be removed is left to whoever cleans tmp/, as after a crash.
            let _ = fs::remove_file(&hidden);
        })?;
        fs::rename(&hidden, &target)?;
    }
    batches.sync(&new)
}

/// Whether an earlier delivery stands there. One that may be of a run that crashed counts only with all
/// of its content; otherwise the new one takes its place.
fn is_there(maildir: &Path, name: &str, letter: &Letter<'_>) -> io::Result<bool> {
    let target = maildir.join("new").join(name);
    if !letter.perhaps_there {
        return target.try_exists();
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

/// Not the same for two attempts: two transactions of one message may mean the same mailbox.
fn attempt_name(name: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{name}.{}.{count}", std::process::id())
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

fn write(path: &Path, letter: &Letter<'_>) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    let mut out = BufWriter::with_capacity(64 << 10, file);
    out.write_all(b"Return-Path: <")?;
    out.write_all(letter.sender)?;
    out.write_all(b">\nDelivered-To: ")?;
    out.write_all(letter.recipient)?;
    out.write_all(b"\n")?;
    letter.content.write_to(&mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_data()
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
