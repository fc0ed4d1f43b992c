//! A log on a real disk, driven as the daemon drives it: commits go to the disk (`O_DIRECT`, `O_DSYNC`)
//! while the log's other work goes on beside them.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use spool::blocking::{BlockingDisk, file_name};
use spool::op::{Completion, FileId, Op, Request};
use spool::{Envelope, Event, Log, MessageKey, Outcome, Recipient, Recovery, Settings, Status};

/// A log, and the threads that do what it asks for.
pub struct Driven {
    /// The log.
    pub log: Log,
    commits: Sender<Request>,
    others: Sender<Request>,
    done: Receiver<Completion>,
    /// Requests under way.
    flying: usize,
    started: Instant,
}

impl Driven {
    /// An empty log in the empty directory `dir`.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn new(dir: &Path, settings: Settings) -> io::Result<Self> {
        let mut disk = BlockingDisk::open(dir)?;
        let mut recovery = Recovery::new(settings);
        disk.drive(&mut recovery);
        let (log, _) = recovery.finish().map_err(io::Error::other)?;
        let (done_sender, done) = channel();
        let (commits, commit_requests) = channel();
        let (others, other_requests) = channel();
        let answers = done_sender.clone();
        let files = Direct::new(dir);
        thread::spawn(move || execute(commit_requests, &answers, files, None));
        let files = Direct::new(dir);
        thread::spawn(move || execute(other_requests, &done_sender, files, Some(disk)));
        Ok(Self {
            log,
            commits,
            others,
            done,
            flying: 0,
            started: Instant::now(),
        })
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Works until the batch is on disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn commit(&mut self, batch: u64) -> io::Result<()> {
        loop {
            self.submit()?;
            while let Some(event) = self.log.poll_event() {
                match event {
                    Event::Committed { batch: on_disk } if on_disk >= batch => return Ok(()),
                    Event::Failed { .. } => return Err(io::Error::other("a commit failed")),
                    Event::Trouble(text) => return Err(io::Error::other(text)),
                    _ => {}
                }
            }
            if self.flying == 0 {
                return Err(io::Error::other("nothing is under way"));
            }
            let completion = self.done.recv().map_err(io::Error::other)?;
            self.flying -= 1;
            let now = self.now();
            self.log.complete(now, completion);
        }
    }

    fn submit(&mut self) -> io::Result<()> {
        while let Some(request) = self.log.poll_op(self.now()) {
            self.flying += 1;
            // Headers are of one block and shorter than any commit of a benchmark.
            let is_commit =
                matches!(&request.op, Op::Write { buf, durable: true, .. } if buf.len() > 4096);
            let to = if is_commit {
                &self.commits
            } else {
                &self.others
            };
            to.send(request).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Records that the only recipient has got a message.
    pub fn deliver(&mut self, key: MessageKey) {
        let now = self.now();
        self.log.outcome(now, key, delivered(0));
        self.log.done(now, key);
    }
}

fn execute(
    requests: Receiver<Request>,
    answers: &Sender<Completion>,
    mut files: Direct,
    mut disk: Option<BlockingDisk>,
) {
    for request in requests {
        let completion = match (&request.op, &mut disk) {
            (Op::Read { .. } | Op::Write { durable: true, .. }, _) | (_, None) => {
                files.execute(request)
            }
            (_, Some(disk)) => disk.execute(request),
        };
        if answers.send(completion).is_err() {
            return;
        }
    }
}

/// Segments open without the page cache.
struct Direct {
    dir: PathBuf,
    files: HashMap<FileId, File>,
}

impl Direct {
    fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            files: HashMap::new(),
        }
    }

    fn open(&mut self, file: FileId) -> io::Result<&File> {
        if !self.files.contains_key(&file) {
            let mut options = OpenOptions::new();
            options.read(true).write(true);
            options.custom_flags(libc::O_DIRECT | libc::O_DSYNC);
            let opened = options.open(self.dir.join(file_name(file)))?;
            self.files.insert(file, opened);
        }
        self.files
            .get(&file)
            .ok_or_else(|| io::Error::other("gone"))
    }

    fn execute(&mut self, request: Request) -> Completion {
        let (result, buf) = match request.op {
            Op::Write {
                file, offset, buf, ..
            } => {
                let opened = self.open(file);
                let written = opened.and_then(|opened| opened.write_all_at(&buf, offset));
                (written, buf)
            }
            Op::Read {
                file,
                offset,
                mut buf,
            } => {
                let opened = self.open(file);
                let read = opened.and_then(|opened| opened.read_exact_at(&mut buf, offset));
                (read, buf)
            }
            other => unreachable!("{other:?} is for the other disk"),
        };
        Completion {
            token: request.token,
            result: result
                .map(|()| buf.len() as u64)
                .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)),
            buf: Some(buf),
            files: Vec::new(),
        }
    }
}

/// An envelope with so many recipients.
#[must_use]
pub fn envelope(recipients: usize) -> Envelope {
    let recipient = |number| Recipient {
        address: format!("somebody.{number}@sink.example").into_bytes(),
        ..Recipient::default()
    };
    Envelope {
        sender: b"someone@source.example".to_vec(),
        recipients: (0..recipients).map(recipient).collect(),
        client: b"192.0.2.1".to_vec(),
        helo: b"client.example".to_vec(),
        protocol: b"ESMTP".to_vec(),
        ..Envelope::default()
    }
}

/// What a next hop says that takes a message.
#[must_use]
pub fn delivered(recipient: u32) -> Outcome {
    Outcome {
        recipient,
        attempt: 1,
        status: Status::Delivered,
        next_ms: 0,
        reply: b"250 2.0.0 ok".to_vec(),
    }
}

/// A directory that is empty now.
///
/// # Errors
/// Those of the file system.
pub fn empty_dir(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(dir)
}

/// The value below which `share` in a thousand are; sorts.
#[must_use]
pub fn quantile(values: &mut [u64], share: usize) -> u64 {
    values.sort_unstable();
    let at = values.len() * share / 1000;
    values
        .get(at.min(values.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0)
}
