//! The engine at the edges of its disk: full, failing, damaged.

mod copy;
mod damage;
mod harness;
mod space;
