//! Somebody else on this host, as far as root may act for him.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::daemon::Daemon;

/// A user every system has, who owns nothing.
pub const NOBODY: &str = "nobody";

/// A command that will run as [`NOBODY`]; none where that cannot be, which is said.
pub fn as_nobody(daemon: &Daemon) -> Option<Command> {
    // The scratch directory is its maker's alone; nobody has to pass through it.
    let passable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(daemon.dir.path(), passable).expect("our own directory");
    let mut probe = nobody();
    probe.args(["test", "-x", env!("CARGO_BIN_EXE_zmailer"), "-a", "-r"]);
    let able = probe.arg(daemon.config()).output();
    if able.is_ok_and(|output| output.status.success()) {
        return Some(nobody());
    }
    super::skip("acting as another user needs root, setpriv and a checkout that users can enter");
    None
}

fn nobody() -> Command {
    let mut command = Command::new("setpriv");
    let group = format!("--regid={}", group());
    command.args(["--reuid", NOBODY, &group, "--clear-groups"]);
    command
}

/// Its main group has different names.
fn group() -> String {
    let output = Command::new("id").args(["-g", NOBODY]).output();
    let text = output.map_or_else(|_| Vec::new(), |output| output.stdout);
    String::from_utf8_lossy(&text).trim().to_owned()
}
