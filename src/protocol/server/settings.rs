//! Limits of a receiving session.

/// Settings of one listener; the defaults are safe.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This host's name, in greeting, EHLO reply and Received line.
    pub hostname: String,
    /// Largest message, announced by SIZE.
    pub message_bytes_max: u64,
    /// Recipients in one transaction; RFC 5321 4.5.3.1.8 wants 100 at least.
    pub recipients_max: u32,
    /// Refused commands before 421.
    pub errors_max: u32,
    /// Transactions before 421.
    pub transactions_max: u32,
    /// Command line with CR LF; RFC 5321 4.5.3.1.4 wants 512, extensions add to it.
    pub command_line_bytes_max: usize,
    /// Content line without CR LF; RFC 5321 4.5.3.1.6 allows 998, real mail is longer.
    pub line_bytes_max: usize,
    /// Header of a message.
    pub header_bytes_max: usize,
    /// Received lines before a message counts as looping; RFC 5321 6.3 wants 100 at least.
    pub received_max: usize,
    /// Silence; RFC 5321 4.5.3.2.7 wants 5 minutes at least.
    pub idle_ns: u64,
    /// Whole session.
    pub total_ns: u64,
    /// Speaks LMTP (RFC 2033) instead of SMTP: LHLO, and a reply for each recipient.
    pub lmtp: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            message_bytes_max: 10 << 20,
            recipients_max: 1000,
            errors_max: 20,
            transactions_max: 100_000,
            command_line_bytes_max: 2048,
            line_bytes_max: 64 << 10,
            header_bytes_max: 256 << 10,
            received_max: 100,
            idle_ns: 300_000_000_000,
            total_ns: 4 * 3_600_000_000_000,
            lmtp: false,
        }
    }
}
