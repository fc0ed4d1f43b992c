//! The routing language: recorded scripts, texts of diagnostics, hostile input, the tools.

mod diagnostics;
mod hostile;
mod tools;
mod zmsh;
