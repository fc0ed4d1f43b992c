//! The tools' side of the control socket.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

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
    request_entries(socket, &json!({ "command": command }), |_| Ok(()))
}

/// Sends a request whose answer may bring entries first, and gives back the rest of it.
///
/// # Errors
/// See [`ControlError`]; also those of `entry`.
pub fn request_entries(
    socket: &Path,
    request: &Value,
    entry: impl FnMut(&Value) -> io::Result<()>,
) -> Result<Value, ControlError> {
    let answer = exchange(socket, request, entry).map_err(|error| match error.kind() {
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

fn exchange(
    socket: &Path,
    request: &Value,
    mut entry: impl FnMut(&Value) -> io::Result<()>,
) -> io::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{request}")?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).map_err(io::Error::other)?;
        match answer.get("entry") {
            Some(found) => entry(found)?,
            None => return Ok(answer),
        }
    }
}
