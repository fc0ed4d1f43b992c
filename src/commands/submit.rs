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
            io::ErrorKind::PermissionDenied => 77,
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => 69,
            // A full disk, a quota, a read error: the same command may work later.
            _ => 75,
        }
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
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), SubmitError> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        writer.write_all(bytes).map_err(|error| SubmitError {
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
        sync_name(&file, &self.router).map_err(failed("cannot sync", &self.router))?;
        Ok(name)
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
