//! From the text of a script to its tree.
//!
//! The parser is recursive descent over bytes, because what a byte means depends on where it stands. It goes on
//! behind an error, so that all errors of a script are reported at once. Nesting is bounded.

pub mod ast;
mod command;
mod compound;
mod cursor;
mod here;
mod sift;
mod word;

pub use cursor::{Parsed, is_incomplete, parse};
