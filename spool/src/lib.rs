//! The spool: a crash-safe log of mail, one per shard, sans-I/O.
//!
//! The engine asks for disk work ([`op::Request`]) and consumes the results ([`op::Completion`]).
//! Three drivers execute it: the ring in the daemon, plain files in tools (`blocking`), and a
//! simulated disk in the crash tests (`sim`). The format and the crash argument are in `FORMAT.md`.

#![forbid(unsafe_code)]

pub mod blocking;
pub mod buffer;
pub(crate) mod checkpoint;
mod commit;
mod content;
pub mod faults;
mod forward;
mod id;
mod jobs;
pub mod layout;
mod log;
pub mod op;
mod read;
pub mod record;
mod recover;
pub(crate) mod rest;
mod routed;
mod routing;
mod segments;
pub mod sim;
pub mod survey;
mod types;

pub use content::{ContentFile, PIECE_BYTES};
pub use id::{BadId, SpoolId};
pub use log::Log;
pub use recover::{
    CheckpointUse, RecoverError, Recovered, RecoveredMessage, Recovery, RecoveryReport,
};
pub use rest::{Hop, RestView, RestingRecipient};
pub use routed::{Routed, RoutedRecipients, RoutedRef};
pub use routing::{Edit, Group, Routing};
pub use types::{
    Accepted, Awake, BodyKind, Content, Envelope, Event, MessageKey, Origin, Outcome, ReadError,
    ReadTicket, Recipient, Refusal, Ret, Settings, Source, Stats, Status, Submitter, ThreadState,
};
