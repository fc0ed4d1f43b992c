//! The engine at the edges of its disk: full, failing, damaged.

mod harness;
mod space;
