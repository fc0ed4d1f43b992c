//! Hands a message file to the daemon, running or not (zmailer.md 1.2): written in `public/`, synced,
//! renamed into `router/`, the directory synced. Then it is as safe as a 250.
//!
//! No privilege is needed beyond write permission on the two directories; the owner of the file is
//! who submitted it. A file that is dropped before [`Submission::finish`] leaves nothing behind.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::process::{Resource, getrlimit};

use super::exit;
use crate::sys::filesystem;

/// Tries for a name that nobody has taken.
const NAMES_MAX: u32 = 1000;

/// Why a message could not be handed over.
#[derive(Debug)]
pub(super) struct SubmitError {
    what: String,
    path: PathBuf,
    error: io::Error,
}

impl SubmitError {
    /// The exit code: sysexits by cause.
    pub(super) fn exit_code(&self) -> u8 {
        match self.error.kind() {
            // A file that cannot be made has a code of its own, whatever forbids it.
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::FileTooLarge => exit::CANNOT_CREATE,
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => exit::UNAVAILABLE,
            _ if self.error.raw_os_error() == Some(libc::EIO) => exit::IO,
            // A full disk or a quota: the same command may work later.
            _ => exit::TEMPORARY,
        }
    }

    /// Whether there was no room for it.
    pub(super) fn is_full(&self) -> bool {
        matches!(
            self.error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: {}; the message was not submitted",
            self.what,
            self.path.display(),
            self.error
        )
    }
}

/// A message file under way.
pub(super) struct Submission {
    hidden: PathBuf,
    router: PathBuf,
    writer: Option<BufWriter<File>>,
    written: u64,
    /// What this process may write to one file. At the limit the kernel would end it, and the file
    /// would stay.
    bytes_max: u64,
}

impl Submission {
    /// Opens a new file in `public/`.
    pub(super) fn begin(postoffice: &Path) -> Result<Self, SubmitError> {
        let public = postoffice.join("public");
        let (hidden, file) = create(&public).map_err(|error| SubmitError {
            what: "cannot create a file in".to_owned(),
            path: public,
            error,
        })?;
        Ok(Self {
            hidden,
            router: postoffice.join("router"),
            writer: Some(BufWriter::with_capacity(64 << 10, file)),
            written: 0,
            bytes_max: getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX),
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), SubmitError> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        self.written += bytes.len() as u64;
        let written = if self.written > self.bytes_max {
            Err(io::ErrorKind::FileTooLarge.into())
        } else {
            writer.write_all(bytes)
        };
        written.map_err(|error| SubmitError {
            what: "cannot write".to_owned(),
            path: self.hidden.clone(),
            error,
        })
    }

    /// Gives the message an age other than its file's.
    pub(super) fn set_arrival(&mut self, time: SystemTime) -> Result<(), SubmitError> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        // What is written later would set the time again.
        let set = writer
            .flush()
            .and_then(|()| writer.get_ref().set_modified(time));
        set.map_err(|error| SubmitError {
            what: "cannot set the time of".to_owned(),
            path: self.hidden.clone(),
            error,
        })
    }

    /// Makes the message safe and visible. Gives back the name of its file.
    pub(super) fn finish(mut self) -> Result<String, SubmitError> {
        let failed = |what: &str, path: &Path| {
            let (what, path) = (what.to_owned(), path.to_owned());
            move |error| SubmitError { what, path, error }
        };
        let Some(writer) = self.writer.take() else {
            return Ok(String::new());
        };
        let (name, file) = publish(writer, &self.hidden, &self.router)
            .map_err(failed("cannot submit", &self.hidden))?;
        self.hidden = PathBuf::new();
        let Err(error) = sync_name(&file, &self.router) else {
            return Ok(name);
        };
        // It is to be seen already. What the daemon has taken is safe; else it is taken back, since
        // who is told of a failure will send it again.
        match fs::remove_file(self.router.join(&name)) {
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(name),
            _ => Err(failed("cannot sync", &self.router)(error)),
        }
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        if !self.hidden.as_os_str().is_empty() {
            // What cannot be removed is swept out of public/ by the daemon.
            let _ = fs::remove_file(&self.hidden);
        }
    }
}

fn create(public: &Path) -> io::Result<(PathBuf, File)> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    for attempt in 0..NAMES_MAX {
        let name = format!("{}.{}.{attempt}", std::process::id(), now.as_nanos());
        let path = public.join(name);
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&path);
        match opened {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Ok(file) => return Ok((path, file)),
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// ZMailer names a message file by its inode: unique without a counter or a lock. Content is synced
/// before it is seen, so a crash leaves no half of a message in `router/`.
fn publish(
    mut writer: BufWriter<File>,
    hidden: &Path,
    router: &Path,
) -> io::Result<(String, File)> {
    writer.flush()?;
    let file = writer
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    let name = file.metadata()?.ino().to_string();
    fs::rename(hidden, router.join(&name))?;
    Ok((name, file))
}

/// Makes the new name durable. `router/` may be entered and not read by users, so it cannot be opened
/// to be synced; where a sync of the renamed file carries its name the file will do, elsewhere the
/// whole file system is synced.
fn sync_name(file: &File, router: &Path) -> io::Result<()> {
    match File::open(router) {
        Ok(dir) => dir.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            filesystem::sync_renamed(file, router)
        }
        Err(error) => Err(error),
    }
}
