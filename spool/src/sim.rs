//! A simulated disk whose power can be cut after every operation.
//!
//! What it promises and no more than that:
//! - Requests complete in any order (seeded). Reads see all completed writes.
//! - A sector of 512 bytes is atomic, nothing larger is. Until a write is durable each of its
//!   sectors is kept or lost at a cut, in any order; so are the sectors of writes in flight.
//! - A `durable` write is durable at completion. [`Op::SyncFile`] covers the writes that had
//!   completed when it was submitted; likewise [`Op::SyncDir`] and names. A file whose name is lost
//!   is lost, synced or not. A size that was not synced may be found shorter, or full of zeroes.
//! - After a failed sync what it covered stays in limbo: visible to reads until memory is short, kept
//!   or lost at a cut, whatever later syncs report. A failed write leaves any of its sectors, in limbo
//!   as well.
//! - When only the process ends ([`SimDisk::kill`]) nothing becomes durable and nothing is lost.
//! - [`Tree`] is the same for directories that other programs write to: renames, links, removals.
//!
//! Wrong use is answered as a kernel would (`EBADF` for a file not opened or created in this run,
//! `EINVAL` for bad alignment); what no kernel notices is a panic: two writes to the same bytes in
//! flight, a token used twice.

#![allow(
    clippy::indexing_slicing,
    reason = "a range error here is an error of the test"
)]

mod faults;
mod image;
pub mod lab;
mod names;
mod persistence;
mod power;
mod rng;
mod tally;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use crate::buffer::{ALIGN_BYTES, AlignedBuf};
use crate::op::{Completion, FileId, Op, Request, Token};

use faults::{ENOSPC, Faults};
use image::Inode;
use names::{NameVersion, Names};

pub use faults::Fault;
pub use image::SECTOR_BYTES;
pub use persistence::Persistence;
pub use rng::Rng;
pub use tally::{Column, Fate, Matrix, OpKind};
pub use tree::{Path, Tree};

/// A disk in memory. A clone is a second disk in the same state, requests in flight included.
#[derive(Clone, Debug)]
pub struct SimDisk {
    rng: Rng,
    /// Counts submissions and completions: the time of this disk.
    moment: u64,
    operations: u64,
    inodes: BTreeMap<u64, Inode>,
    names: Names<FileId>,
    /// What happened at each moment.
    kinds: BTreeMap<u64, OpKind>,
    opened: BTreeSet<FileId>,
    queue: Vec<InFlight>,
    faults: Faults,
    capacity_bytes: Option<u64>,
}

#[derive(Debug)]
struct InFlight {
    issued: u64,
    request: Request,
}

impl SimDisk {
    /// An empty disk; `seed` decides the order of completions.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            moment: 1,
            operations: 0,
            inodes: BTreeMap::new(),
            names: Names::new(),
            kinds: BTreeMap::new(),
            opened: BTreeSet::new(),
            queue: Vec::new(),
            faults: Faults::default(),
            capacity_bytes: None,
        }
    }

    /// Takes a request; nothing happens before [`Self::complete_one`].
    ///
    /// # Panics
    /// When the token is in flight already, or a write overlaps one in flight.
    pub fn submit(&mut self, request: Request) {
        for other in &self.queue {
            assert_ne!(
                other.request.token, request.token,
                "a token is in flight twice"
            );
            assert!(
                !overlaps(&other.request.op, &request.op),
                "two writes to the same bytes in flight: {:?} and {:?}",
                other.request.token,
                request.token
            );
        }
        let issued = self.tick();
        self.queue.push(InFlight { issued, request });
    }

    /// Performs and completes one of the requests in flight.
    pub fn complete_one(&mut self) -> Option<Completion> {
        if self.queue.is_empty() {
            return None;
        }
        let chosen = self.rng.index(self.queue.len());
        let InFlight { issued, request } = self.queue.remove(chosen);
        self.operations += 1;
        Some(self.perform(issued, request))
    }

    /// Requests submitted and not completed.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.queue.len()
    }

    /// Requests completed since this disk was switched on.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// The next write or sync without a fault of its own fails.
    pub fn fail_next(&mut self, fault: Fault) {
        self.faults.add_next(fault);
    }

    /// The `nth` write or sync from now fails; 1 is the next.
    pub fn fail_nth(&mut self, nth: u64, fault: Fault) {
        self.faults.add(nth, fault);
    }

    /// The next read without a fault of its own fails with `errno`.
    pub fn fail_read(&mut self, errno: i32) {
        self.faults.add_read(errno);
    }

    /// From now on every write, sync, creation and removal fails with this errno; `None` ends it.
    pub fn fail_all(&mut self, errno: Option<i32>) {
        self.faults.broken = errno;
    }

    /// The number of bytes in files at which the disk is full; `None`: never.
    pub fn capacity_bytes(&mut self, bytes: Option<u64>) {
        self.capacity_bytes = bytes;
    }

    /// The bytes of a file as reads see them.
    #[must_use]
    pub fn image(&self, file: FileId) -> Option<&[u8]> {
        Some(self.inodes[&self.names.find(&file)?].visible().bytes())
    }

    /// The names in the directory, ascending.
    pub fn files(&self) -> impl Iterator<Item = FileId> + '_ {
        self.names.iter().map(|(file, _)| *file)
    }

    /// A number that is the same for two disks with the same names and bytes, as reads see them,
    /// and in practice for no others.
    #[must_use]
    pub fn image_hash(&self) -> u64 {
        self.names.iter().fold(0, |hash, (file, inode)| {
            let name = match *file {
                FileId::Segment(number) => rng::mix(1 ^ u64::from(number) << 8),
                FileId::Checkpoint(number) => rng::mix(2 ^ u64::from(number) << 8),
                FileId::Content(id) | FileId::Foreign { id, .. } => {
                    rng::mix(3 ^ rng::mix(id as u64) ^ (id >> 64) as u64)
                }
            };
            rng::mix(hash ^ name ^ rng::mix(self.inodes[inode].visible().hash()))
        })
    }

    /// Damages a file on purpose, durably.
    ///
    /// # Panics
    /// When the file has no such bytes.
    pub fn poke(&mut self, file: FileId, offset: u64, bytes: &[u8]) {
        let inode = self
            .names
            .find(&file)
            .expect("only an existing file can be damaged");
        let inode = self
            .inodes
            .get_mut(&inode)
            .expect("a name always has an inode");
        inode.poke(offset as usize, bytes);
    }

    /// Cuts a file short on purpose, durably.
    pub fn cut_short(&mut self, file: FileId, len: usize) {
        let inode = self.names.find(&file);
        if let Some(inode) = inode.and_then(|inode| self.inodes.get_mut(&inode)) {
            inode.cut_short(len);
        }
    }

    fn tick(&mut self) -> u64 {
        self.moment += 1;
        self.moment - 1
    }

    fn perform(&mut self, issued: u64, request: Request) -> Completion {
        let token = request.token;
        if let Some(kind) = OpKind::of(&request.op) {
            self.kinds.insert(self.moment, kind);
        }
        match request.op {
            Op::Create { file } => plain(token, self.create(file)),
            Op::Open { file } => plain(token, self.open(file)),
            Op::Write {
                file,
                offset,
                buf,
                durable,
            } => {
                let result = self.write(file, offset, &buf, durable);
                Completion {
                    token,
                    result,
                    buf: Some(buf),
                    files: Vec::new(),
                }
            }
            Op::Read {
                file,
                offset,
                mut buf,
            } => {
                let result = self.read(file, offset, &mut buf);
                Completion {
                    token,
                    result,
                    buf: Some(buf),
                    files: Vec::new(),
                }
            }
            Op::SyncFile { file } => plain(token, self.sync_file(file, issued)),
            Op::SyncDir => plain(token, self.sync_dir(issued)),
            Op::Remove { file } => plain(token, self.remove(file)),
            Op::Close { file } => {
                self.opened.remove(&file);
                plain(token, Ok(0))
            }
            Op::List => {
                let mut files: Vec<FileId> = self.files().collect();
                for last in (1..files.len()).rev() {
                    files.swap(last, self.rng.index(last + 1));
                }
                Completion {
                    token,
                    result: Ok(0),
                    buf: None,
                    files,
                }
            }
        }
    }

    fn create(&mut self, file: FileId) -> Result<u64, i32> {
        self.faults.broken.map_or(Ok(()), Err)?;
        if self.names.find(&file).is_some() {
            return Err(EEXIST);
        }
        let inode = self.tick();
        self.inodes.insert(inode, Inode::default());
        self.opened.insert(file);
        let version = NameVersion::single(inode, Some(inode));
        self.names.change(file, version);
        Ok(0)
    }

    fn remove(&mut self, file: FileId) -> Result<u64, i32> {
        self.faults.broken.map_or(Ok(()), Err)?;
        self.names.find(&file).ok_or(ENOENT)?;
        self.opened.remove(&file);
        let order = self.tick();
        self.names.change(file, NameVersion::single(order, None));
        Ok(0)
    }

    fn open(&mut self, file: FileId) -> Result<u64, i32> {
        let inode = self.names.find(&file).ok_or(ENOENT)?;
        self.opened.insert(file);
        Ok(self.inodes[&inode].visible().bytes().len() as u64)
    }

    /// The file, if it was opened or created in this run.
    fn file(&mut self, file: FileId) -> Result<&mut Inode, i32> {
        if !self.opened.contains(&file) {
            return Err(EBADF);
        }
        let inode = self.names.find(&file).ok_or(EBADF)?;
        self.inodes.get_mut(&inode).ok_or(EBADF)
    }

    fn write(&mut self, file: FileId, offset: u64, buf: &[u8], durable: bool) -> Result<u64, i32> {
        aligned(offset, buf)?;
        let at = offset as usize;
        let order = self.tick();
        let mut rng = self.rng.clone();
        let fault = self.faults.strike(true);
        let space = self.space(file, at, buf.len())?;
        let inode = self.file(file)?;
        let len = match fault {
            Some(Fault::Full) => return Err(ENOSPC),
            Some(Fault::Error { errno }) => {
                inode.write_part(order, at, &buf[..space], true, || rng.below(2) == 0);
                self.rng = rng;
                return Err(errno);
            }
            Some(Fault::Short { bytes }) => bytes.min(space),
            None => space,
        };
        if len == 0 && !buf.is_empty() && space == 0 {
            return Err(ENOSPC);
        }
        if durable {
            inode.write_durable(order, at, &buf[..len]);
        } else {
            inode.write(order, at, &buf[..len]);
        }
        Ok(len as u64)
    }

    /// How many of `len` bytes at `offset` the disk has room for.
    fn space(&mut self, file: FileId, offset: usize, len: usize) -> Result<usize, i32> {
        let size = self.file(file)?.visible().bytes().len();
        let Some(capacity) = self.capacity_bytes else {
            return Ok(len);
        };
        let used: u64 = self
            .names
            .iter()
            .map(|(_, inode)| self.inodes[inode].visible().bytes().len() as u64)
            .sum();
        let end = size as u64 + capacity.saturating_sub(used);
        let room = end.saturating_sub(offset as u64) as usize;
        Ok(len.min(room / ALIGN_BYTES * ALIGN_BYTES))
    }

    fn read(&mut self, file: FileId, offset: u64, buf: &mut AlignedBuf) -> Result<u64, i32> {
        aligned(offset, buf)?;
        self.faults.strike_read().map_or(Ok(()), Err)?;
        let bytes = self.file(file)?.visible().bytes();
        let start = bytes.len().min(offset as usize);
        let end = bytes.len().min(start + buf.len());
        buf[..end - start].copy_from_slice(&bytes[start..end]);
        Ok((end - start) as u64)
    }

    fn sync_file(&mut self, file: FileId, issued: u64) -> Result<u64, i32> {
        let errno = self.faults.strike(false).map(Fault::errno);
        let inode = self.file(file)?;
        match errno {
            Some(errno) => {
                inode.sync_failed(issued);
                Err(errno)
            }
            None => {
                inode.sync(issued);
                Ok(0)
            }
        }
    }

    fn sync_dir(&mut self, issued: u64) -> Result<u64, i32> {
        if let Some(fault) = self.faults.strike(false) {
            self.names.sync_failed(issued, |_| true);
            return Err(fault.errno());
        }
        self.names.sync(issued, |_| true);
        let needed = self.names.needed();
        self.inodes.retain(|inode, _| needed.contains(inode));
        Ok(0)
    }
}

impl Clone for InFlight {
    fn clone(&self) -> Self {
        let copy = |buf: &AlignedBuf| {
            let mut copy = AlignedBuf::zeroed(buf.capacity());
            copy.resize(buf.len());
            copy.copy_from_slice(buf);
            copy
        };
        let op = match &self.request.op {
            Op::Create { file } => Op::Create { file: *file },
            Op::Open { file } => Op::Open { file: *file },
            Op::Write {
                file,
                offset,
                buf,
                durable,
            } => Op::Write {
                file: *file,
                offset: *offset,
                buf: copy(buf),
                durable: *durable,
            },
            Op::Read { file, offset, buf } => Op::Read {
                file: *file,
                offset: *offset,
                buf: copy(buf),
            },
            Op::SyncFile { file } => Op::SyncFile { file: *file },
            Op::SyncDir => Op::SyncDir,
            Op::Remove { file } => Op::Remove { file: *file },
            Op::Close { file } => Op::Close { file: *file },
            Op::List => Op::List,
        };
        Self {
            issued: self.issued,
            request: Request {
                token: self.request.token,
                op,
            },
        }
    }
}

fn plain(token: Token, result: Result<u64, i32>) -> Completion {
    Completion {
        token,
        result,
        buf: None,
        files: Vec::new(),
    }
}

fn aligned(offset: u64, buf: &[u8]) -> Result<(), i32> {
    let whole = offset.is_multiple_of(ALIGN_BYTES as u64) && buf.len().is_multiple_of(ALIGN_BYTES);
    if whole { Ok(()) } else { Err(EINVAL) }
}

fn overlaps(one: &Op, other: &Op) -> bool {
    let (
        Op::Write {
            file, offset, buf, ..
        },
        Op::Write {
            file: other_file,
            offset: other_offset,
            buf: other_buf,
            ..
        },
    ) = (one, other)
    else {
        return false;
    };
    file == other_file
        && *offset < other_offset + other_buf.len() as u64
        && *other_offset < offset + buf.len() as u64
}

const ENOENT: i32 = 2;
const EBADF: i32 = 9;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
