//! The operator log: events on stderr. The mail log is `mail_log`.

/// Starts it. Later calls do nothing.
pub fn start() {
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false);
    // A second start in one process (tests) keeps the first.
    let _ = builder.with_ansi(false).try_init();
}
