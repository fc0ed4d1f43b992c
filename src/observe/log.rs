//! The operator log: events on stderr. The mail log is `mail_log`. A line that cannot be written is lost.

/// Starts it. Later calls do nothing.
pub fn start() {
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        // It would be said on stderr as well, and a thread ends that cannot do so.
        .log_internal_errors(false);
    // A second start in one process (tests) keeps the first.
    let _ = builder.with_ansi(false).try_init();
}
