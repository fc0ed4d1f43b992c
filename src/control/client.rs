//! The tools' side of the control socket.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// No answer, or a refusal.
#[derive(Debug)]
pub enum ControlError {
    /// Nobody listens.
    NotRunning(PathBuf),
    /// The socket is there and does not work.
    Io(PathBuf, io::Error),
    /// The daemon says no.
    Refused(String),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(path) => write!(f, "no daemon answers on {}", path.display()),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Refused(text) => f.write_str(text),
        }
    }
}

/// Sends a command and gives back its answer.
///
/// # Errors
/// See [`ControlError`].
pub fn request(socket: &Path, command: &str) -> Result<Value, ControlError> {
    let answer = exchange(socket, command).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ControlError::NotRunning(socket.to_owned())
        }
        _ => ControlError::Io(socket.to_owned(), error),
    })?;
    match answer.get("ok") {
        Some(value) => Ok(value.clone()),
        None => Err(ControlError::Refused(
            answer["error"].as_str().unwrap_or("no answer").to_owned(),
        )),
    }
}

fn exchange(socket: &Path, command: &str) -> io::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{}", json!({ "command": command }))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(io::Error::other)
}
