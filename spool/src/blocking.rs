//! Files of a directory behind the spool's operations, with plain blocking calls.
//!
//! For tools and for recovery before the event loop runs. Promises what [`Op`] says; an operation
//! that fails answers with its errno. A file not yet opened is opened at its first use. Nothing is
//! retried here.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::content::{ContentFile, PIECE_BYTES};
use crate::op::{Completion, FileId, Op, Request};

/// A machine that asks for disk work and consumes the answers.
pub trait Machine {
    /// The next request, if there is one now.
    fn poll_op(&mut self) -> Option<Request>;

    /// Takes the answer to an earlier request.
    fn complete(&mut self, completion: Completion);
}

/// The spool directory of one shard, used with blocking calls.
#[derive(Debug)]
pub struct BlockingDisk {
    path: PathBuf,
    dir: File,
    /// Open files, at most [`HANDLES_MAX`].
    handles: BTreeMap<FileId, File>,
    /// Nothing is changed: operations that would are answered as if they had been done.
    read_only: bool,
}

impl BlockingDisk {
    /// Uses the existing directory `dir`.
    ///
    /// # Errors
    /// When it cannot be opened, or is not a directory.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let handle = File::open(dir)?;
        if !handle.metadata()?.is_dir() {
            return Err(io::Error::from(ErrorKind::NotADirectory));
        }
        Ok(Self {
            path: dir.to_owned(),
            dir: handle,
            handles: BTreeMap::new(),
            read_only: false,
        })
    }

    /// Uses `dir` for looking only, while a daemon may be writing there: recovery can be run on it, and
    /// messages read; nothing on the disk changes.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn open_read_only(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            read_only: true,
            ..Self::open(dir)?
        })
    }

    /// Executes requests one by one until the machine asks for nothing.
    pub fn drive(&mut self, machine: &mut impl Machine) {
        while let Some(request) = machine.poll_op() {
            machine.complete(self.execute(request));
        }
    }

    /// Executes one request to its end.
    pub fn execute(&mut self, request: Request) -> Completion {
        let token = request.token;
        if self.read_only && changes(&request.op) {
            return Completion {
                token,
                result: Ok(0),
                buf: None,
                files: Vec::new(),
            };
        }
        let (result, buf, files) = match request.op {
            Op::Create { file } => (self.create(file), None, Vec::new()),
            Op::Open { file } => (self.length(file), None, Vec::new()),
            Op::Write {
                file,
                offset,
                buf,
                durable,
            } => (
                self.write(file, offset, &buf, durable),
                Some(buf),
                Vec::new(),
            ),
            Op::Read {
                file,
                offset,
                mut buf,
            } => (self.read(file, offset, &mut buf), Some(buf), Vec::new()),
            Op::SyncFile { file } => (
                self.handle(file).and_then(File::sync_all).map(|()| 0),
                None,
                Vec::new(),
            ),
            Op::SyncDir => (self.dir.sync_all().map(|()| 0), None, Vec::new()),
            Op::Remove { file } => (self.remove(file), None, Vec::new()),
            Op::Close { file } => {
                self.handles.remove(&file);
                (Ok(0), None, Vec::new())
            }
            Op::List => match self.list() {
                Ok(files) => (Ok(0), None, files),
                Err(error) => (Err(error), None, Vec::new()),
            },
        };
        let result = result.map_err(|error| error.raw_os_error().unwrap_or(EIO));
        Completion {
            token,
            result,
            buf,
            files,
        }
    }

    fn create(&mut self, file: FileId) -> io::Result<u64> {
        let path = self.path.join(file_name(file));
        let handle = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        self.keep(file, handle);
        Ok(0)
    }

    fn length(&mut self, file: FileId) -> io::Result<u64> {
        Ok(self.handle(file)?.metadata()?.len())
    }

    fn write(&mut self, file: FileId, offset: u64, buf: &[u8], durable: bool) -> io::Result<u64> {
        let handle = self.handle(file)?;
        handle.write_all_at(buf, offset)?;
        if durable {
            handle.sync_data()?;
        }
        Ok(buf.len() as u64)
    }

    fn read(&mut self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<u64> {
        let handle = self.handle(file)?;
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match handle.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done as u64)
    }

    fn remove(&mut self, file: FileId) -> io::Result<u64> {
        fs::remove_file(self.path.join(file_name(file)))?;
        self.handles.remove(&file);
        Ok(0)
    }

    fn list(&self) -> io::Result<Vec<FileId>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            files.extend(entry?.file_name().to_str().and_then(parse_file_name));
        }
        Ok(files)
    }

    fn handle(&mut self, file: FileId) -> io::Result<&File> {
        if !self.handles.contains_key(&file) {
            let path = self.path.join(file_name(file));
            let write = !self.read_only;
            let handle = OpenOptions::new().read(true).write(write).open(path)?;
            self.keep(file, handle);
        }
        self.handles
            .get(&file)
            .ok_or_else(|| io::Error::from_raw_os_error(EIO))
    }

    fn keep(&mut self, file: FileId, handle: File) {
        if self.handles.len() >= HANDLES_MAX {
            self.handles.pop_first();
        }
        self.handles.insert(file, handle);
    }
}

/// Reads a content file of the shard's directory `dir` piece by piece, each verified before it is given out.
///
/// # Errors
/// Those of the file and of `each`; [`ErrorKind::InvalidData`] for damage.
pub fn read_content(
    dir: &Path,
    content: &ContentFile,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let file = File::open(dir.join(file_name(FileId::Content(content.id.bits()))))?;
    let mut buf = vec![0; PIECE_BYTES];
    for piece in 0..content.pieces() {
        let bytes = buf
            .get_mut(..content.piece_len(piece))
            .ok_or(ErrorKind::InvalidData)?;
        file.read_exact_at(bytes, u64::from(piece) * PIECE_BYTES as u64)?;
        if !content.is_piece(piece, bytes) {
            let text = format!("piece {piece} of the content of {} is damaged", content.id);
            return Err(io::Error::new(ErrorKind::InvalidData, text));
        }
        each(bytes)?;
    }
    Ok(())
}

/// Whether an operation changes anything on the disk. Writes are among them, but nobody asks for one
/// before recovery has ended.
fn changes(op: &Op) -> bool {
    matches!(
        op,
        Op::Create { .. }
            | Op::Write { .. }
            | Op::Remove { .. }
            | Op::SyncFile { .. }
            | Op::SyncDir
    )
}

/// The name of a file in the spool directory.
#[must_use]
pub fn file_name(file: FileId) -> String {
    match file {
        FileId::Segment(number) => format!("log.{number:08}"),
        FileId::Checkpoint(number) => format!("checkpoint.{number}"),
        FileId::Content(id) => format!("content.{id:032x}"),
        FileId::Foreign { shard, id } => format!("../{shard:04}/content.{id:032x}"),
    }
}

/// The file of a name; `None` for any name that [`file_name`] does not produce.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<FileId> {
    let (kind, number) = name.split_once('.')?;
    let file = match kind {
        "log" => FileId::Segment(number.parse().ok()?),
        "checkpoint" => FileId::Checkpoint(number.parse().ok().filter(|number| *number < 2)?),
        "content" => FileId::Content(u128::from_str_radix(number, 16).ok()?),
        _ => return None,
    };
    (file_name(file) == name).then_some(file)
}

/// Bounds the descriptors; a file beyond it is opened again at its next use.
const HANDLES_MAX: usize = 256;

const EIO: i32 = 5;
