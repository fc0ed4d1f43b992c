//! What a power cut did to each operation that was not durable: found, lost, torn, or found without
//! what came before it.

use core::fmt;
use std::collections::BTreeMap;

use crate::layout::DATA_START;
use crate::op::{FileId, Op};

/// Kinds of operations that a power cut treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpKind {
    /// A commit goes to a segment.
    CommitWrite,
    /// A segment's header.
    HeaderWrite,
    /// Zeroes in a segment: it is being made or recycled.
    ZeroWrite,
    /// A file with large content.
    ContentWrite,
    /// Entries or the directory of a checkpoint.
    CheckpointWrite,
    /// The header of a checkpoint.
    CheckpointHeader,
    /// The file of a checkpoint is made.
    CheckpointCreate,
    /// The file of an old checkpoint goes.
    CheckpointRemove,
    /// A sync of a checkpoint.
    CheckpointSync,
    /// A message file that a user submits.
    MailFileWrite,
    /// A sync of a file, by what it should cover.
    FileSync,
    /// A sync of a directory, likewise.
    DirectorySync,
    /// A new name.
    Create,
    /// A name goes.
    Unlink,
    /// A file gets another name.
    Rename,
    /// A file gets a second name.
    Link,
}

impl OpKind {
    /// All kinds.
    pub const ALL: [Self; 16] = [
        Self::CommitWrite,
        Self::HeaderWrite,
        Self::ZeroWrite,
        Self::ContentWrite,
        Self::CheckpointWrite,
        Self::CheckpointHeader,
        Self::CheckpointCreate,
        Self::CheckpointRemove,
        Self::CheckpointSync,
        Self::MailFileWrite,
        Self::FileSync,
        Self::DirectorySync,
        Self::Create,
        Self::Unlink,
        Self::Rename,
        Self::Link,
    ];

    /// What a request is; `None`: it leaves nothing on the disk.
    #[must_use]
    pub fn of(op: &Op) -> Option<Self> {
        Some(match op {
            Op::Create {
                file: FileId::Checkpoint(_),
            } => Self::CheckpointCreate,
            Op::Remove {
                file: FileId::Checkpoint(_),
            } => Self::CheckpointRemove,
            Op::SyncFile {
                file: FileId::Checkpoint(_),
            } => Self::CheckpointSync,
            Op::Create { .. } => Self::Create,
            Op::Remove { .. } => Self::Unlink,
            Op::SyncFile { .. } => Self::FileSync,
            Op::SyncDir => Self::DirectorySync,
            Op::Write {
                file, offset, buf, ..
            } => match file {
                FileId::Segment(_) if *offset < DATA_START => Self::HeaderWrite,
                FileId::Segment(_) if buf.iter().all(|byte| *byte == 0) => Self::ZeroWrite,
                FileId::Segment(_) => Self::CommitWrite,
                FileId::Checkpoint(_) if *offset == 0 => Self::CheckpointHeader,
                FileId::Checkpoint(_) => Self::CheckpointWrite,
                FileId::Content(_) | FileId::Foreign { .. } => Self::ContentWrite,
            },
            Op::Open { .. } | Op::Read { .. } | Op::Close { .. } | Op::List => return None,
        })
    }

    /// A name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CommitWrite => "commit write",
            Self::HeaderWrite => "header write",
            Self::ZeroWrite => "zero write",
            Self::ContentWrite => "content write",
            Self::CheckpointWrite => "checkpoint write",
            Self::CheckpointHeader => "checkpoint header",
            Self::CheckpointCreate => "checkpoint create",
            Self::CheckpointRemove => "checkpoint remove",
            Self::CheckpointSync => "checkpoint sync",
            Self::MailFileWrite => "mail file write",
            Self::FileSync => "file sync",
            Self::DirectorySync => "directory sync",
            Self::Create => "create",
            Self::Unlink => "unlink",
            Self::Rename => "rename",
            Self::Link => "link",
        }
    }
}

/// What became of one operation.
#[derive(Clone, Copy, Debug)]
pub struct Fate {
    /// What it was.
    pub kind: OpKind,
    /// Its moment on its disk.
    pub order: u64,
    /// Parts of it that are found.
    pub found: u32,
    /// Parts of it that are lost. Those that a later operation covers count nowhere.
    pub lost: u32,
    /// It is found, in part at least, and something that came before it is lost. Of a sync: something
    /// that came after it is found, and something that it should cover is lost.
    pub reordered: bool,
}

/// The columns of a [`Matrix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Found as a whole.
    Kept,
    /// Lost as a whole.
    Dropped,
    /// Found in part.
    Torn,
    /// See [`Fate::reordered`].
    Reordered,
}

impl Column {
    /// All columns.
    pub const ALL: [Self; 4] = [Self::Kept, Self::Dropped, Self::Torn, Self::Reordered];
}

impl Fate {
    fn is(&self, column: Column) -> bool {
        match column {
            Column::Kept => self.found > 0 && self.lost == 0,
            Column::Dropped => self.found == 0 && self.lost > 0,
            Column::Torn => self.found > 0 && self.lost > 0,
            Column::Reordered => self.reordered,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, order) = (self.kind.name(), self.order);
        let all = self.found + self.lost;
        write!(f, "{name} at {order}: {} of {all} parts found", self.found)?;
        if self.reordered {
            f.write_str(", out of order")?;
        }
        Ok(())
    }
}

/// How often each kind of operation met each fate.
#[derive(Clone, Debug, Default)]
pub struct Matrix(BTreeMap<OpKind, [u64; 4]>);

impl Matrix {
    /// Counts what one cut did.
    pub fn add(&mut self, fates: &[Fate]) {
        for fate in fates {
            let row = self.0.entry(fate.kind).or_default();
            for (cell, column) in row.iter_mut().zip(Column::ALL) {
                *cell += u64::from(fate.is(column));
            }
        }
    }

    /// Takes the counts of another.
    pub fn merge(&mut self, other: &Self) {
        for (kind, counts) in &other.0 {
            let row = self.0.entry(*kind).or_default();
            for (cell, count) in row.iter_mut().zip(counts) {
                *cell += count;
            }
        }
    }

    /// The count of a cell.
    #[must_use]
    pub fn count(&self, kind: OpKind, column: Column) -> u64 {
        let row = self.0.get(&kind).copied().unwrap_or_default();
        row[column as usize]
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:17}", "operation")?;
        for column in Column::ALL {
            let name = format!("{column:?}").to_lowercase();
            write!(f, "{name:>11}")?;
        }
        for (kind, row) in &self.0 {
            write!(f, "\n{:17}", kind.name())?;
            for count in row {
                write!(f, "{count:>11}")?;
            }
        }
        Ok(())
    }
}

/// Counts the parts of each operation while a cut is made.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<u64, (u32, u32)>);

impl Tally {
    /// One place: the operations that changed it, oldest first, and which of them is found.
    pub(super) fn place(&mut self, orders: impl Iterator<Item = u64>, kept: Option<usize>) {
        for (index, order) in orders.enumerate() {
            let (found, lost) = self.0.entry(order).or_default();
            *found += u32::from(kept == Some(index));
            *lost += u32::from(kept.is_none_or(|kept| kept < index));
        }
    }

    /// The fates of writes and changes of names.
    pub(super) fn fates(&self, kind: impl Fn(u64) -> Option<OpKind>) -> Vec<Fate> {
        let mut something_lost = false;
        let mut fates = Vec::with_capacity(self.0.len());
        for (&order, &(found, lost)) in &self.0 {
            let reordered = found > 0 && something_lost;
            something_lost |= lost > 0;
            if let Some(kind) = kind(order) {
                fates.push(Fate {
                    kind,
                    order,
                    found,
                    lost,
                    reordered,
                });
            }
        }
        fates
    }

    /// The fate of a sync in flight that was issued at `issued` and should cover `covered`.
    pub(super) fn sync(
        &self,
        kind: OpKind,
        issued: u64,
        covered: impl Iterator<Item = u64>,
    ) -> Fate {
        let mut orders: Vec<u64> = covered.filter(|order| *order < issued).collect();
        orders.sort_unstable();
        orders.dedup();
        let parts = orders.iter().filter_map(|order| self.0.get(order));
        let (found, lost) = parts.fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        let mut later = self.0.range(issued..);
        Fate {
            kind,
            order: issued,
            found,
            lost,
            reordered: lost > 0 && later.any(|(_, (found, _))| *found > 0),
        }
    }
}
