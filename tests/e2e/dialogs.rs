//! Every dialogue of the corpus against the running daemon, over TCP, and against the pure session,
//! whole and byte by byte.

use crate::harness::daemon::Setup;
use crate::harness::dialog;
use crate::harness::hop::Hop;

#[test]
fn the_corpus_holds_for_the_pure_session_whole_and_byte_by_byte() {
    for dialog in dialog::corpus() {
        dialog.run_pure(usize::MAX);
        dialog.run_pure(1);
    }
}

#[test]
fn the_corpus_holds_for_the_daemon() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address)
        .with(
            "smtpserver",
            "message_size_max = \"2KiB\"\nrecipients_max = 3\nerrors_max = 4",
        )
        .with("smtpserver", "line_size_max = \"998B\"\nreceived_max = 5")
        .start();
    for dialog in dialog::corpus() {
        dialog.run_tcp(daemon.address);
    }
}
