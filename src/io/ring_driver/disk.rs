//! Disk requests of the spool engine on the ring.
//!
//! Files are opened with O_DIRECT; where the file system refuses, all of them are opened without, so
//! that direct and cached access to one file never mix. Opening, creating, removing and listing are
//! plain calls: they happen once a segment, and the ring would hand them to a worker thread anyway.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
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
    in_flight: Vec<Option<Token>>,
    free: Vec<u32>,
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
            Op::Create { file } => Some(self.now(token, self.open(file, true))),
            Op::Open { file } => Some(self.now(token, self.open(file, false))),
            Op::Remove { file } => {
                self.files.remove(&file);
                let result = fs::remove_file(self.dir.join(file_name(file))).map(|()| 0);
                Some(answer(token, result))
            }
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

    /// Translates a completion of the ring.
    pub(super) fn complete(
        &mut self,
        slot: u64,
        completion: ring::Completion,
    ) -> Option<op::Completion> {
        let token = self.in_flight[slot as usize].take()?;
        self.free.push(slot as u32);
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
        self.in_flight[slot as usize] = Some(token);
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

    fn open(&self, id: FileId, create: bool) -> std::io::Result<(FileId, File)> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create_new(create)
            .mode(0o600);
        if self.direct {
            options.custom_flags(libc::O_DIRECT);
        }
        options
            .open(self.dir.join(file_name(id)))
            .map(|file| (id, file))
    }

    fn descriptor(&mut self, id: FileId) -> Option<i32> {
        if !self.files.contains_key(&id) {
            // Recovery ran on another disk driver: its files are opened when first asked for.
            let (id, file) = self.open(id, false).ok()?;
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
