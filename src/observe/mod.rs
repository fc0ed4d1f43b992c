//! What an operator sees: counters and logs. Each counter and each line is declared once.

pub mod log;
mod lost;
pub mod mail_log;
pub mod metrics;
