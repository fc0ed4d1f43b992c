//! Message syntax: tokens, addresses, headers, dates, reports, and changes of a message on its way out.

pub mod address;
pub mod date;
pub mod edit;
pub mod header;
pub mod line_ends;
pub mod mailbox;
pub mod message_file;
pub mod phrase;
pub mod quote;
pub mod report;
pub mod srs;
pub mod target;
pub mod token;
pub mod trace;
pub mod xtext;
