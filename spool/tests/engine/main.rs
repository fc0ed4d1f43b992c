//! The engine at the edges of its disk: full, failing, damaged.

mod content;
mod copy;
mod damage;
mod harness;
mod rest;
mod rounds;
mod space;
