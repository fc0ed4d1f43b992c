//! Runs `sendmail` as programs do.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use super::daemon::{Daemon, binary};

/// The program `sendmail`.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_sendmail");

/// Runs `sendmail` of a daemon's postoffice with these arguments and this input.
pub fn sendmail(daemon: &Daemon, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    run(command, daemon, input)
}

/// Runs `sendmail` by way of another command, which gets it as its last arguments.
pub fn sendmail_by(mut way: Command, daemon: &Daemon, arguments: &[&str], input: &[u8]) -> Output {
    way.arg(PROGRAM).args(arguments);
    run(way, daemon, input)
}

/// Runs any command that finds `sendmail` in its `PATH` and a daemon's postoffice behind it.
pub fn program(mut command: Command, daemon: &Daemon, input: &[u8]) -> Output {
    let dir = daemon.dir.path().join("bin");
    if !dir.exists() {
        std::fs::create_dir(&dir).expect("a scratch directory");
        for (name, program) in [
            ("sendmail", PROGRAM),
            ("zmailer", env!("CARGO_BIN_EXE_zmailer")),
        ] {
            std::os::unix::fs::symlink(program, dir.join(name)).expect("a scratch link");
        }
    }
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", dir.display()));
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
