//! Patterns: the labels of `ssift` and `tsift`, and the patterns of `case`.
//!
//! `ssift` and `tsift` share one syntax (`. [..] [^..] * + ? | ( )` and `\`) and one matcher; they differ in what an
//! element is: a byte, or an RFC 822 token. A pattern is anchored at both ends. Groups are greedy, alternatives are
//! tried from the left. Time is bounded by pattern size times input size, whatever the input.

mod glob;
mod matcher;
mod parse;
mod prepare;
mod token;

pub use glob::{Glob, glob_matches};
pub use matcher::{Groups, Matcher};
pub use parse::{BadPattern, Kind, Pattern};
pub use token::Tokens;

/// Groups of a pattern: `\0`, the whole match, and `\1` to `\9`.
pub const GROUPS_MAX: usize = 10;
