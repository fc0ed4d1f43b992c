//! Whole shards in a simulated world: the code of the daemon on one seeded clock, network and disk.

mod client;
mod hop;
mod relay;
mod world;
