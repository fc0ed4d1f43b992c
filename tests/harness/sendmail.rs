//! Runs `sendmail` as programs do.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use super::daemon::{Daemon, binary};

/// Runs `sendmail` of a daemon's postoffice with these arguments and this input.
pub fn sendmail(daemon: &Daemon, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = binary();
    command.arg("sendmail").args(arguments);
    run(command, daemon, input)
}

/// Runs `zmailer` with a daemon's configuration.
pub fn zmailer(daemon: &Daemon, arguments: &[&str]) -> Output {
    let mut command = binary();
    command.args(arguments);
    run(command, daemon, b"")
}

fn run(mut command: Command, daemon: &Daemon, input: &[u8]) -> Output {
    let mut child = command
        .env("ZMAILER_CONFIG", daemon.config())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // A refusal comes before all input is read: that pipe may break.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("a child can be waited for")
}

/// What a command has written, both ways.
pub fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}
