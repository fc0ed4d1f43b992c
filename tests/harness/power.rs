//! A disk that remembers in which order it was written and flushed, so that a power cut at any moment can be had later.
//!
//! It is a file in memory, shown to the kernel by FUSE, with a loop device on it: every real file system can be made
//! there, and thinks that it has a disk with a volatile cache.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyWrite, Request, WriteFlags,
};
use spool::sim::Rng;

use super::wait_for;

/// What a disk with a volatile cache keeps or loses as a whole.
const BLOCK_BYTES: usize = 4096;

/// One thing that happened to the disk, or that somebody was told meanwhile.
enum Event {
    Write(u64, Vec<u8>),
    Flush,
    Told(String),
}

struct Record {
    bytes: Vec<u8>,
    events: Vec<Event>,
}

/// The disk; unmounted and gone with this.
pub struct PowerDisk {
    record: Arc<Mutex<Record>>,
    dir: PathBuf,
    point: PathBuf,
    /// The loop device, while there is one.
    device: Option<String>,
    session: Option<BackgroundSession>,
}

/// A moment at which the power was cut.
pub struct Cut {
    /// What people had been told before.
    pub told: Vec<String>,
    /// Which moment, and what the disk's cache kept, for whoever reads a failure.
    pub name: String,
}

fn run(program: &str, words: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(words).output()?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(io::Error::other(format!("{program} {words:?}: {said}")))
    }
}

impl PowerDisk {
    /// A disk of `bytes` bytes that `dir` may keep files for, with a file system made by the command `mkfs`, mounted at
    /// `point`.
    ///
    /// # Errors
    /// Why there can be none here.
    pub fn mount(dir: &Path, point: &Path, bytes: u64, mkfs: &[&str]) -> io::Result<Self> {
        let file = dir.join("disk");
        File::create(&file)?;
        fs::create_dir_all(point)?;
        let record = Record {
            bytes: vec![0; bytes as usize],
            events: Vec::new(),
        };
        let mut disk = Self {
            record: Arc::new(Mutex::new(record)),
            dir: dir.to_owned(),
            point: point.to_owned(),
            device: None,
            session: None,
        };
        let shown = Shown(Arc::clone(&disk.record));
        disk.session = Some(fuser::spawn_mount(shown, &file, &Config::default())?);
        let device = run("losetup", &["-f", "--show", &file.to_string_lossy()])?;
        let device = disk.device.insert(device).clone();
        let (program, words) = mkfs.split_first().expect("a command");
        run(program, &[words, &[&device]].concat())?;
        run("mount", &[&device, &point.to_string_lossy()])?;
        Ok(disk)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("nobody panics with the disk")
    }

    /// Somebody is told something now.
    pub fn tell(&self, what: String) {
        self.record().events.push(Event::Told(what));
    }

    /// How much has happened.
    pub fn events(&self) -> usize {
        self.record().events.len()
    }

    /// Takes the file system away, so that what a cut leaves can be mounted in its place.
    pub fn unmount(&mut self) {
        unmount(&self.point);
        if let Some(device) = self.device.take() {
            run("losetup", &["-d", &device]).expect("a device without users");
        }
    }

    /// Mounts what the disk holds after a cut behind the first `moment` events: all that was written before the last
    /// flush, and of the rest what `rng` leaves.
    ///
    /// # Errors
    /// When that is no file system any more.
    pub fn cut(&self, moment: usize, rng: &mut Rng) -> io::Result<Cut> {
        let image = self.dir.join("cut");
        let _ = fs::remove_file(&image);
        let file = File::create(&image)?;
        let record = self.record();
        file.set_len(record.bytes.len() as u64)?;
        let past = record.events.get(..moment).expect("a moment that was");
        let is_flush = |event: &Event| matches!(event, Event::Flush);
        let flushed = past.iter().rposition(is_flush).unwrap_or(0);
        let quarters_kept = rng.below(5);
        let mut told = Vec::new();
        for (number, event) in past.iter().enumerate() {
            match event {
                Event::Write(at, bytes) => {
                    for (piece, at) in bytes.chunks(BLOCK_BYTES).zip((*at..).step_by(BLOCK_BYTES)) {
                        if number < flushed || rng.below(4) < quarters_kept {
                            file.write_all_at(piece, at)?;
                        }
                    }
                }
                Event::Flush => {}
                Event::Told(what) => told.push(what.clone()),
            }
        }
        drop(record);
        let (image, point) = (image.to_string_lossy(), self.point.to_string_lossy());
        run("mount", &["-o", "loop", &image, &point])?;
        let name = format!("a cut {moment} events in, {quarters_kept} quarters of the cache kept");
        Ok(Cut { told, name })
    }

    /// Takes what a cut left away again.
    pub fn uncut(&self) {
        unmount(&self.point);
    }
}

fn unmount(point: &Path) {
    // The agent of a daemon that was killed ends a moment after it.
    wait_for("nobody to use the file system", || {
        run("umount", &[&point.to_string_lossy()]).ok()
    });
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", &self.point.to_string_lossy()]);
        if let Some(device) = self.device.take() {
            let _ = run("losetup", &["-d", &device]);
        }
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}

/// The file in memory as FUSE sees it: the root of a file system that is nothing but a file.
struct Shown(Arc<Mutex<Record>>);

impl Shown {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().expect("nobody panics with the disk")
    }
}

impl Filesystem for Shown {
    fn getattr(&self, _: &Request, _: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let size = self.record().bytes.len() as u64;
        let attr = FileAttr {
            ino: INodeNo::ROOT,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: FileType::RegularFile,
            perm: 0o600,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK_BYTES as u32,
            flags: 0,
        };
        reply.attr(&Duration::from_secs(1), &attr);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let record = self.record();
        let from = (offset as usize).min(record.bytes.len());
        let to = (from + size as usize).min(record.bytes.len());
        reply.data(&record.bytes[from..to]);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut record = self.record();
        let from = offset as usize;
        let Some(place) = record.bytes.get_mut(from..from + data.len()) else {
            return reply.error(Errno::ENOSPC);
        };
        place.copy_from_slice(data);
        record.events.push(Event::Write(offset, data.to_vec()));
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.record().events.push(Event::Flush);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
