//! Whole shards in a simulated world: the code of the daemon on one seeded clock, network and disk.
//!
//! `relay` sends much mail in a short time; `days` lives through weeks of faults, see there for its settings.

mod audit;
mod client;
mod days;
mod hop;
mod ledger;
mod plan;
mod process;
mod relay;
mod routed;
mod routed_site;
mod run;
mod scripts;
mod sender;
mod site;
mod weather;
mod world;
