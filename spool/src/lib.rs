//! The spool: a crash-safe log of mail, one per shard, sans-I/O.
//!
//! The engine asks for disk work ([`op::Request`]) and consumes the results ([`op::Completion`]).
//! Three drivers execute it: the ring in the daemon, plain files in tools (`blocking`), and a
//! simulated disk in the crash tests (`sim`). The format and the crash argument are in `FORMAT.md`.

pub mod blocking;
pub mod buffer;
pub mod op;
pub mod sim;
