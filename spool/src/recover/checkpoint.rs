//! A start from a checkpoint: which one, and what it spares.
//!
//! Everything in the file is read and verified before anything of it is believed. Where something is
//! wrong with it the log is read as a whole, and the report says why.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::buffer::{ALIGN_BYTES, AlignedBuf};
use crate::checkpoint::load::{Change, Loading};
use crate::checkpoint::{Directory, Extent, Header, KnownSegment};
use crate::id::SpoolId;
use crate::layout::aligned;
use crate::log::{Log, ThreadName};
use crate::op::{Completion, FileId, Op};
use crate::types::{MessageKey, ThreadState};

use super::Recovery;

/// What a start used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CheckpointUse {
    /// There is none, or none was wanted.
    #[default]
    None,
    /// The log was read from the commit behind this one.
    From {
        /// Sequence of the last commit it covers.
        covered: u64,
        /// Messages in it; those that have been finished since among them.
        messages: u64,
        /// Why another one that is there cannot be used.
        unusable: Option<String>,
    },
    /// There is one that cannot be used; the whole log was read.
    Unusable(String),
}

/// The choice of a checkpoint.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Files to look at.
    files: VecDeque<u8>,
    /// Valid headers, the best one last.
    found: Vec<(u8, Header)>,
    /// The file whose answer comes next, for headers.
    asked: Option<u8>,
    directory: Option<Directory>,
    /// Chunks that have been asked for and not been judged.
    chunks: VecDeque<Extent>,
    /// The highest number of any header.
    number: u64,
    why_not: Option<String>,
}

/// A checkpoint that is being used.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) file: u8,
    pub(super) header: Header,
    pub(super) directory: Directory,
}

impl Known {
    fn segment(&self, number: u32) -> Option<&KnownSegment> {
        let mut segments = self.directory.segments.iter();
        segments.find(|segment| segment.number == number)
    }
}

impl Recovery {
    /// Begins the search.
    pub(super) fn look_for_checkpoints(&mut self, files: &[FileId]) {
        let files = files.iter().filter_map(|file| match file {
            FileId::Checkpoint(number) => Some(*number),
            _ => None,
        });
        if self.wants_checkpoint {
            self.search.files = files.collect();
        }
    }

    /// Asks for the next header, directory or chunk; none: the search is over.
    pub(super) fn search_step(&mut self) -> Option<()> {
        if let Some(file) = self.search.files.pop_front() {
            self.search.asked = Some(file);
            let opened = FileId::Checkpoint(file);
            self.queue.push_back(Op::Open { file: opened });
            self.ask_for(file, 0, ALIGN_BYTES as u64);
            return Some(());
        }
        let (file, header) = self.search.found.last().cloned()?;
        if self.search.directory.is_none() {
            self.ask_for(file, header.directory.offset, header.directory.len);
            return Some(());
        }
        if let Some(chunk) = self.search.chunks.front() {
            let (offset, len) = (chunk.offset, chunk.len);
            self.ask_for(file, offset, len);
            return Some(());
        }
        let directory = self.search.directory.take()?;
        self.search.found.clear();
        self.known = Some(Known {
            file,
            header,
            directory,
        });
        None
    }

    fn ask_for(&mut self, file: u8, offset: u64, len: u64) {
        self.queue.push_back(Op::Read {
            file: FileId::Checkpoint(file),
            offset,
            buf: AlignedBuf::zeroed(aligned(len as usize)),
        });
    }

    pub(super) fn search_answer(&mut self, completion: &Completion) {
        if completion.buf.is_none() {
            // Of opening it. What cannot be opened cannot be read either.
            return;
        }
        let read = match (completion.result, &completion.buf) {
            (Ok(len), Some(buf)) => buf.get(..len as usize).unwrap_or_default(),
            _ => &[],
        };
        self.report.bytes += read.len() as u64;
        if let Some(file) = self.search.asked.take() {
            match Header::decode(read, self.settings.shard) {
                Some(header) => {
                    self.search.number = self.search.number.max(header.number);
                    self.search.found.push((file, header));
                    self.search.found.sort_by_key(|(_, header)| header.number);
                }
                // One that was being made has none yet.
                None if read.iter().all(|byte| *byte == 0) => {}
                None => self.unusable(file, "has no valid header"),
            }
            return;
        }
        let Some((file, header)) = self.search.found.last().cloned() else {
            return;
        };
        let exact = |extent: &Extent| {
            let bytes = read.get(..extent.len as usize)?;
            extent.is_good(bytes).then_some(bytes)
        };
        if let Some(chunk) = self.search.chunks.pop_front() {
            if exact(&chunk).is_none() {
                let why = format!("is damaged at offset {}", chunk.offset);
                self.give_up_checkpoint(file, &why);
            }
            return;
        }
        let directory = exact(&header.directory).map(Directory::decode);
        match directory {
            Some(Ok(directory)) => {
                let chunks = directory.chunks.iter();
                self.search.chunks = chunks.map(|chunk| chunk.extent).collect();
                self.search.directory = Some(directory);
            }
            _ => self.give_up_checkpoint(file, "has a damaged directory"),
        }
    }

    /// The other one may do.
    fn give_up_checkpoint(&mut self, file: u8, why: &str) {
        self.unusable(file, why);
        self.search.found.pop();
        self.search.chunks.clear();
        self.search.directory = None;
    }

    fn unusable(&mut self, file: u8, why: &str) {
        self.search.why_not = Some(format!("checkpoint.{file} {why}"));
    }

    /// Whether the directory of segments is what the checkpoint was made of; if not it is not used.
    pub(super) fn check_known(&mut self) {
        let aside = &self.report.aside;
        let missing = self.known.as_ref().and_then(|known| {
            let mut sealed = known.directory.segments.iter();
            sealed.find(|segment| {
                let now = self.headers.get(&segment.number);
                // Whoever recycled it has given it a higher generation.
                let other = now.is_none_or(|now| {
                    let same = now.generation == segment.generation;
                    now.generation < segment.generation
                        || (same && now.tag(segment.number) != segment.tag)
                });
                other && segment.before && !aside.contains(&segment.number)
            })
        });
        if let Some(segment) = missing
            && let Some(known) = &self.known
        {
            let (file, number) = (known.file, segment.number);
            self.unusable(
                file,
                &format!("speaks of segment {number}, which is not there"),
            );
            self.known = None;
        }
        self.report.checkpoint = match (&self.known, &self.search.why_not) {
            (Some(known), _) => CheckpointUse::From {
                covered: known.header.covered,
                messages: known.header.messages,
                unusable: self.search.why_not.clone(),
            },
            (None, Some(why)) => CheckpointUse::Unusable(why.clone()),
            (None, None) => CheckpointUse::None,
        };
    }

    /// Whether a segment holds nothing behind the checkpoint.
    pub(super) fn is_spared(&self, number: u32) -> bool {
        let known = self.known.as_ref().and_then(|known| known.segment(number));
        let owner = self.headers.get(&number);
        known
            .zip(owner)
            .is_some_and(|(known, owner)| known.sealed && known.tag == owner.tag(number))
    }

    /// Segments that the checkpoint spares, oldest first.
    pub(super) fn spared(&self) -> Vec<u32> {
        let known = self.known.iter();
        let segments = known.flat_map(|known| &known.directory.segments);
        let numbers = segments.map(|segment| segment.number);
        numbers.filter(|number| self.is_spared(*number)).collect()
    }

    /// The commit before the first one that is read, when there was nothing between them.
    pub(super) fn covered(&self) -> Option<(u64, u32)> {
        let known = self.known.as_ref()?;
        Some((known.header.covered, known.header.link))
    }

    /// Whether a segment that was in use when the checkpoint was made still is: segments are freed
    /// oldest first, so everything that came later is there as well.
    pub(super) fn is_continuous(&self) -> bool {
        let known = self.known.iter();
        let mut segments = known.flat_map(|known| &known.directory.segments);
        segments.any(|segment| {
            let owner = self.headers.get(&segment.number);
            segment.before && owner.is_some_and(|owner| owner.tag(segment.number) == segment.tag)
        })
    }

    /// States of next hops whose record is still there.
    pub(super) fn known_threads(&self) -> HashMap<ThreadName, (ThreadState, u32)> {
        let known = self.known.iter();
        let threads = known.flat_map(|known| &known.directory.threads);
        threads
            .filter(|thread| {
                let owner = self.headers.get(&thread.segment);
                owner.is_some_and(|owner| owner.tag(thread.segment) == thread.tag)
            })
            .map(|thread| {
                let state = thread.state.clone();
                let name = (state.channel.clone(), state.host.clone());
                (name, (state, thread.segment))
            })
            .collect()
    }

    /// The key of the next message: above all keys of the checkpoint.
    pub(super) fn key_next(&self) -> u64 {
        let known = self.known.as_ref();
        known.map_or(1, |known| known.header.key_next.max(1))
    }

    /// Leaves the entries to the log, with what is known of them. Gives the files without a message
    /// back when there is no checkpoint.
    pub(super) fn begin_loading(
        &mut self,
        log: &mut Log,
        changes: HashMap<SpoolId, Change>,
        unclaimed: BTreeSet<u128>,
    ) -> Option<BTreeSet<u128>> {
        log.checkpoints.number = self.search.number;
        let Some(Known {
            file,
            header,
            directory,
        }) = self.known.take()
        else {
            return Some(unclaimed);
        };
        log.checkpoints.file = Some(file);
        log.checkpoints.size = header.directory.offset;
        for segment in &directory.segments {
            let same = log.tag(segment.number) == segment.tag;
            if segment.damaged && same {
                log.mark_damaged(segment.number);
            }
        }
        let sources = directory.sources.iter();
        log.sources
            .extend(sources.map(|(key, source)| (MessageKey(*key), *source)));
        let hops = directory.hops.iter();
        let hops = hops.map(|(channel, host)| log.resting.hop(channel, host));
        let hops = hops.collect();
        log.loading = Some(Loading::new(
            file,
            directory,
            hops,
            changes,
            unclaimed,
            header.key_next.max(1),
        ));
        None
    }
}
