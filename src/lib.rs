//! A mail transfer agent on io_uring: every 250 is on disk.
//!
//! ```text
//! 9  main, commands                   programs
//! 8  shard, agents                    the event loop: joins the pure core to the kernel; processes beside it
//! 7  control                          threads for what may take time: names, sockets, pick-up
//! 6  io                               the driver seam: the ring, or a simulated world
//! 5  ring                             io_uring and its rules
//! 4  config, observe                  settings, log, counters
//! 3  protocol  router  scheduler  policy   [crate spool]      the pure core
//! 2  mail                             message syntax
//! 1  base   sys                       small helpers; process and processor calls
//! ```
//!
//! A module uses lower layers only; inside layer 3 nobody uses a neighbour. Layer 3 does no I/O, reads
//! no clock and starts no thread: bytes, verdicts and [`base::clock::Now`] go in, bytes and requests
//! come out. `tests/tidy.rs` enforces this.

pub mod agents;
pub mod base;
pub mod commands;
pub mod config;
pub mod control;
pub mod io;
pub mod mail;
pub mod observe;
pub mod policy;
pub mod protocol;
pub mod ring;
pub mod router;
pub mod scheduler;
pub mod shard;
pub mod sys;
