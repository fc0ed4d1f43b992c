//! Message syntax: dates and reports.

pub mod date;
pub mod edit;
pub mod header;
pub mod line_ends;
pub mod mailbox;
pub mod message_file;
pub mod report;
