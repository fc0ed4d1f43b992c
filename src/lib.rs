//! A mail transfer agent on io_uring: every 250 is on disk.
//!
//! ```text
//! 8  main, bin                        programs
//! 7  shard                            the event loop: joins the pure core to the kernel
//! 6  transports, control              things that talk to the outside
//! 5  ring -> io -> net                the kernel side
//! 4  config, observe                  settings, log, counters
//! 3  protocol  router  scheduler  policy   [crate spool]      the pure core
//! 2  mail                             message syntax
//! 1  base   sys                       small helpers; process and processor calls
//! ```
//!
//! A module uses lower layers only; inside layer 3 nobody uses a neighbour; in layer 5 the arrow is
//! the order. Layer 3 does no I/O, reads no clock and starts no thread: bytes, verdicts and
//! [`base::clock::Now`] go in, bytes and requests come out. `tests/tidy.rs` enforces this.

pub mod base;
