//! Message syntax: dates and reports.

pub mod date;
pub mod report;
