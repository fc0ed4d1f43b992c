//! Disk requests of the spool engine on the ring.
//!
//! Files are opened with O_DIRECT; where the file system refuses, all of them are opened without, so
//! that direct and cached access to one file never mix. Creating and removing, and opening content, go
//! through the ring: on a disk that hangs they would hang the shard. Opening segments and listing are
//! plain calls, made at a start.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use spool::blocking::{file_name, parse_file_name};
use spool::op::{self, FileId, Op, Request, Token};

use super::Durability;
use crate::ring::{self, Memory, Ring};

pub(super) struct Disk {
    dir: PathBuf,
    durability: Durability,
    direct: bool,
    files: HashMap<FileId, File>,
    dir_file: Option<File>,
    in_flight: Vec<Option<Started>>,
    free: Vec<u32>,
}

/// A request on the ring.
struct Started {
    token: Token,
    /// The file whose descriptor the completion brings.
    opens: Option<FileId>,
}

impl Disk {
    pub(super) fn new(dir: &Path, durability: Durability) -> Self {
        Self {
            dir: dir.to_owned(),
            durability,
            direct: takes_direct(dir),
            files: HashMap::new(),
            dir_file: File::open(dir).ok(),
            in_flight: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Starts a request; answers at once what needs no waiting.
    pub(super) fn start(
        &mut self,
        ring: &mut Ring,
        request: Request,
        kind: u64,
    ) -> Option<op::Completion> {
        let Request { token, op } = request;
        let synced = self.durability == Durability::Sync;
        match op {
            Op::Create { file } => self.begin_opening(ring, token, file, (true, kind)),
            Op::Open {
                file: file @ (FileId::Content(_) | FileId::Foreign { .. }),
            } => self.begin_opening(ring, token, file, (false, kind)),
            Op::Close { file } => {
                self.files.remove(&file);
                Some(answer(token, Ok(0)))
            }
            Op::Open { file } => Some(self.now(token, self.open(file))),
            Op::Remove { file } => self.remove(ring, token, file, kind),
            Op::List => Some(self.list(token)),
            Op::SyncDir | Op::SyncFile { .. } if !synced => Some(answer(token, Ok(0))),
            Op::SyncDir => match self.dir_file.as_ref().map(AsRawFd::as_raw_fd) {
                Some(descriptor) => {
                    let tag = kind | self.enter(token);
                    ring.sync(descriptor, tag);
                    None
                }
                None => Some(refused(token, None)),
            },
            Op::SyncFile { file } => match self.descriptor(file) {
                Some(descriptor) => {
                    let tag = kind | self.enter(token);
                    ring.sync(descriptor, tag);
                    None
                }
                None => Some(refused(token, None)),
            },
            Op::Write {
                file,
                offset,
                buf,
                durable,
            } => match self.descriptor(file) {
                Some(descriptor) => {
                    let tag = kind | self.enter(token);
                    ring.write(descriptor, buf, offset, durable && synced, tag);
                    None
                }
                None => Some(refused(token, Some(buf))),
            },
            Op::Read { file, offset, buf } => match self.descriptor(file) {
                Some(descriptor) => {
                    let tag = kind | self.enter(token);
                    ring.read(descriptor, buf, offset, tag);
                    None
                }
                None => Some(refused(token, Some(buf))),
            },
        }
    }

    /// Creates a file, or opens content while mail flows: on a disk that hangs a plain call would hang the
    /// shard.
    fn begin_opening(
        &mut self,
        ring: &mut Ring,
        token: Token,
        file: FileId,
        (create, kind): (bool, u64),
    ) -> Option<op::Completion> {
        let Some((dir, name)) = self.name(file) else {
            return Some(refused(token, None));
        };
        let flags = self.flags();
        let tag = kind | self.enter_opening(token, file);
        if create {
            ring.create(dir, name, flags, tag);
        } else {
            ring.open(dir, name, flags, tag);
        }
        None
    }

    fn flags(&self) -> i32 {
        if self.direct { libc::O_DIRECT } else { 0 }
    }

    fn enter_opening(&mut self, token: Token, file: FileId) -> u64 {
        let slot = self.enter(token);
        if let Some(Some(started)) = self.in_flight.get_mut(slot as usize) {
            started.opens = Some(file);
        }
        slot
    }

    fn remove(
        &mut self,
        ring: &mut Ring,
        token: Token,
        file: FileId,
        kind: u64,
    ) -> Option<op::Completion> {
        self.files.remove(&file);
        let Some((dir, name)) = self.name(file) else {
            return Some(refused(token, None));
        };
        ring.remove(dir, name, kind | self.enter(token));
        None
    }

    /// A file's directory and name.
    fn name(&self, file: FileId) -> Option<(RawFd, CString)> {
        let dir = self.dir_file.as_ref()?.as_raw_fd();
        let name = CString::new(file_name(file)).ok()?;
        Some((dir, name))
    }

    /// Translates a completion of the ring.
    pub(super) fn complete(
        &mut self,
        slot: u64,
        completion: ring::Completion,
    ) -> Option<op::Completion> {
        let Started { token, opens } = self.in_flight[slot as usize].take()?;
        self.free.push(slot as u32);
        if let Some(file) = opens {
            let result = completion.result.map(|descriptor| {
                self.files.insert(file, ring::adopt(descriptor).into());
                0
            });
            return Some(op::Completion {
                token,
                result,
                buf: None,
                files: Vec::new(),
            });
        }
        let buf = match completion.memory {
            Memory::Aligned(buf) => Some(buf),
            _ => None,
        };
        Some(op::Completion {
            token,
            result: completion.result.map(u64::from),
            buf,
            files: Vec::new(),
        })
    }

    fn enter(&mut self, token: Token) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.in_flight.push(None);
            (self.in_flight.len() - 1) as u32
        });
        let opens = None;
        self.in_flight[slot as usize] = Some(Started { token, opens });
        u64::from(slot)
    }

    fn now(&mut self, token: Token, opened: std::io::Result<(FileId, File)>) -> op::Completion {
        let result = opened.and_then(|(id, file)| {
            let len = file.metadata()?.len();
            self.files.insert(id, file);
            Ok(len)
        });
        answer(token, result)
    }

    fn open(&self, id: FileId) -> std::io::Result<(FileId, File)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if self.direct {
            options.custom_flags(libc::O_DIRECT);
        }
        options
            .open(self.dir.join(file_name(id)))
            .map(|file| (id, file))
    }

    fn descriptor(&mut self, id: FileId) -> Option<i32> {
        let is_content = matches!(id, FileId::Content(_) | FileId::Foreign { .. });
        if !self.files.contains_key(&id) && !is_content {
            // Recovery ran on another disk driver: its files are opened when first asked for.
            let (id, file) = self.open(id).ok()?;
            self.files.insert(id, file);
        }
        self.files.get(&id).map(AsRawFd::as_raw_fd)
    }

    fn list(&self, token: Token) -> op::Completion {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) => return answer(token, Err(error)),
        };
        let files = entries
            .flatten()
            .filter_map(|entry| parse_file_name(entry.file_name().to_str()?))
            .collect();
        op::Completion {
            token,
            result: Ok(0),
            buf: None,
            files,
        }
    }
}

fn answer(token: Token, result: std::io::Result<u64>) -> op::Completion {
    let result = result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO));
    op::Completion {
        token,
        result,
        buf: None,
        files: Vec::new(),
    }
}

fn refused(token: Token, buf: Option<spool::buffer::AlignedBuf>) -> op::Completion {
    op::Completion {
        token,
        result: Err(libc::ENOENT),
        buf,
        files: Vec::new(),
    }
}

/// Whether the file system of `dir` takes O_DIRECT.
fn takes_direct(dir: &Path) -> bool {
    let probe = dir.join(".direct");
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open(&probe);
    let _ = fs::remove_file(probe);
    opened.is_ok()
}
