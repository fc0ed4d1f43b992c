//! One integration binary: the rules of the tree, the dialogues, and one file a story.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test ends with a panic; one binary"
)]

mod harness;
mod tidy;

mod e2e;
mod fuzz;
mod language;
mod messages;
mod routing;
mod sim;
mod suspension;

#[path = "../fuzz/src/lib.rs"]
mod targets;
