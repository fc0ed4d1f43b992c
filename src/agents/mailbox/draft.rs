//! A file of a Maildir before it has its name in `new/`.
//!
//! Without any name where the file system can do that: then a crash leaves nothing behind. Otherwise under a name in
//! `tmp/` that no other attempt has.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, linkat};
use rustix::io::Errno;

#[derive(Debug)]
pub(super) struct Draft {
    pub(super) file: File,
    /// Where it stands meanwhile, if anywhere.
    hidden: Option<PathBuf>,
    target: PathBuf,
}

impl Draft {
    /// An empty file that will be `name` in `new/`.
    pub(super) fn nameless(maildir: &Path, name: &str) -> io::Result<Self> {
        let file = options()
            .custom_flags(libc::O_TMPFILE)
            .open(maildir.join("tmp"));
        match file {
            // Kernels and file systems without it say so in three ways.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)
                ) =>
            {
                Self::hidden(maildir, name)
            }
            file => Ok(Self {
                file: file?,
                hidden: None,
                target: target(maildir, name),
            }),
        }
    }

    /// The same in `tmp/`. Its name takes the place of what has it already.
    pub(super) fn hidden(maildir: &Path, name: &str) -> io::Result<Self> {
        let hidden = maildir.join("tmp").join(attempt_name(name));
        let mut options = options();
        let options = options.create_new(true).custom_flags(libc::O_NOFOLLOW);
        Ok(Self {
            file: options.open(&hidden)?,
            hidden: Some(hidden),
            target: target(maildir, name),
        })
    }

    /// Gives it its name. Where that is taken by the same message, this one is not needed any more.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`]: there is no `new/`, or no `/proc` to name a nameless file by.
    pub(super) fn give_name(&self) -> io::Result<()> {
        if let Some(hidden) = &self.hidden {
            return fs::rename(hidden, &self.target);
        }
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        match linkat(CWD, path, CWD, &self.target, AtFlags::SYMLINK_FOLLOW) {
            Err(Errno::EXIST) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Removes what is left of one that has no name.
    pub(super) fn discard(&self) {
        if let Some(hidden) = &self.hidden {
            // What cannot be removed is left to whoever cleans tmp/, as after a crash.
            let _ = fs::remove_file(hidden);
        }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn target(maildir: &Path, name: &str) -> PathBuf {
    maildir.join("new").join(name)
}

/// Not the same for two attempts: two transactions of one message may mean the same mailbox.
fn attempt_name(name: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{name}.{}.{count}", std::process::id())
}
