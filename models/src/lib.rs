//! The relay's lock-free protocols under loom: `RUSTFLAGS="--cfg loom" cargo test` in this directory.
//! The files are those of the relay, not copies.

#[path = "../../src/base/credit.rs"]
pub mod credit;

#[path = "../../src/io/doorbell.rs"]
pub mod doorbell;
