//! Deliberate faults: each breaks one rule of `FORMAT.md`, so that the crash tests can show that
//! they would notice. Only with the feature `faults`, which nothing but the tests turns on.

use crate::types::Settings;

/// A rule to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A commit is written without being durable.
    SkipSync,
    /// A segment without live messages is recycled although an older one needs its done records.
    FreeNeeded,
    /// The header of a recycled segment is not durable before the segment is written to.
    RecycleUnsynced,
    /// A new segment is used without its name being durable.
    SkipDirSync,
    /// Commits of any generation count.
    NoGenerationCheck,
    /// Writing goes on behind the last commit after a start, and commits of any run count.
    AcceptRemains,
    /// The checksum of a commit is not verified.
    AcceptTorn,
    /// A buffer takes new records while it is being written.
    ReuseBuffer,
    /// A commit that failed twice is not voided.
    NoVoid,
    /// States of next hops are not written again before their segment is recycled.
    ForgetThreads,
    /// Done records do not wait for their commit.
    ForgetEarly,
    /// The record of large content does not wait for the content.
    ContentUnsynced,
    /// The record of large content does not wait for the name of its file.
    ContentUnnamed,
    /// The file of large content goes before the done record is on disk.
    UnlinkEarly,
    /// The file of a message whose commit failed goes before that commit is void.
    UnlinkUnvoided,
    /// Clients' mail may use the reserve.
    MailTakesReserve,
    /// A header is written to one of its two blocks only.
    OneHeader,
    /// The first commit of the generation before stays in a recycled segment.
    KeepFirstCommit,
    /// The header of a checkpoint does not wait for the rest of it.
    CheckpointUnsynced,
    /// The header of a checkpoint does not wait for the commits with what it says.
    CheckpointAhead,
    /// A start from a checkpoint does not look into the segment that was being written.
    CheckpointSealsAll,
    /// Entries of a checkpoint count whatever became of their segment.
    CheckpointAnyTag,
    /// Messages that move while a checkpoint is made are not looked at again.
    CheckpointForgetsMoved,
    /// A commit begins in the last block of the one before.
    OverwriteBlock,
    /// A recycled segment keeps its generation.
    ReuseGeneration,
    /// What a start read is used before it is synced.
    RecoverUnsynced,
    /// Clients get their 250 when the write of their commit begins.
    CommittedEarly,
    /// A short write of a commit passes for a whole one.
    AcceptShortWrite,
    /// A segment stays in use after a write to it failed.
    KeepFailedSegment,
    /// Mail is taken between a commit that failed and the one that voids it.
    AcceptWhileFailed,
    /// Outcomes and done records of a commit that failed are not written again.
    DropOnFailure,
    /// Outcomes wait until there is mail to ride with.
    OutcomesWait,
    /// The oldest segment is recycled while a message in it is live.
    FreeLive,
    /// A copied message leaves its segment before the copy is on disk.
    CopyUncommitted,
    /// A result of routing counts before its last piece is there.
    RoundHalfCounts,
    /// A copy of a message leaves out what routing made of it.
    CopyForgetsRounds,
    /// A checkpoint speaks of a message before what routing made of it is on disk.
    RoundsAhead,
    /// A sync of the directory that succeeds makes up for one that failed.
    TrustSecondSync,
}

impl Fault {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::SkipSync,
        Self::FreeNeeded,
        Self::RecycleUnsynced,
        Self::SkipDirSync,
        Self::NoGenerationCheck,
        Self::AcceptRemains,
        Self::AcceptTorn,
        Self::ReuseBuffer,
        Self::NoVoid,
        Self::ForgetThreads,
        Self::ForgetEarly,
        Self::ContentUnsynced,
        Self::ContentUnnamed,
        Self::UnlinkEarly,
        Self::UnlinkUnvoided,
        Self::MailTakesReserve,
        Self::OneHeader,
        Self::KeepFirstCommit,
        Self::CheckpointUnsynced,
        Self::CheckpointAhead,
        Self::CheckpointSealsAll,
        Self::CheckpointAnyTag,
        Self::CheckpointForgetsMoved,
        Self::OverwriteBlock,
        Self::ReuseGeneration,
        Self::RecoverUnsynced,
        Self::CommittedEarly,
        Self::AcceptShortWrite,
        Self::KeepFailedSegment,
        Self::AcceptWhileFailed,
        Self::DropOnFailure,
        Self::OutcomesWait,
        Self::FreeLive,
        Self::CopyUncommitted,
        Self::RoundHalfCounts,
        Self::CopyForgetsRounds,
        Self::RoundsAhead,
        Self::TrustSecondSync,
    ];
}

const _: () = assert!(Fault::ALL.len() == Fault::TrustSecondSync as usize + 1);

impl Settings {
    /// Whether `fault` is on; never, without the feature.
    pub(crate) fn faulty(&self, fault: Fault) -> bool {
        #[cfg(feature = "faults")]
        return self.fault == Some(fault);
        #[cfg(not(feature = "faults"))]
        {
            let _ = fault;
            false
        }
    }
}
