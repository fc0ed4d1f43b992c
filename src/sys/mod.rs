//! Process and processor calls. Identity is changed here and nowhere else.

pub mod accounts;
pub mod allocator;
pub mod counting;
pub mod filesystem;
pub mod interfaces;
pub mod limits;
pub mod lock;
pub mod process;
pub mod replace;
