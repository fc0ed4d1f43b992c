//! Programs that scripts run.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::router::request::{Answer, Run};

/// Output of a program that is kept; it is ended when it writes more.
const OUTPUT_BYTES_MAX: u64 = 64 << 20;

pub(super) fn run(run: &Run, time: Duration) -> Answer {
    let Some(name) = run.arguments.first() else {
        return Answer::NotRun("a command without a name".to_owned());
    };
    let input = match run.input.as_deref().map(input_file).transpose() {
        Ok(input) => input,
        Err(error) => {
            return Answer::NotRun(format!("no room for the input of a program: {error}"));
        }
    };
    match started(run, input.as_ref()) {
        Ok(child) => finished(child, run, input, time),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Answer::NotRun(format!("{}: not found", String::from_utf8_lossy(name)))
        }
        Err(error) => Answer::NotRun(format!("{}: {error}", String::from_utf8_lossy(name))),
    }
}

/// The first executable file of that name along the path.
pub(super) fn found(name: &[u8], path: &[u8]) -> io::Result<PathBuf> {
    if name.contains(&b'/') {
        return Ok(OsStr::from_bytes(name).into());
    }
    let directories = path
        .split(|byte| *byte == b':')
        .map(|path| Path::new(OsStr::from_bytes(path)));
    let executable = |path: &PathBuf| {
        let metadata = path.metadata();
        metadata
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    let mut paths = directories.map(|directory| directory.join(OsStr::from_bytes(name)));
    paths
        .find(executable)
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// What a program reads: a file in memory, so that it is known afterwards how far it has read.
fn input_file(bytes: &[u8]) -> io::Result<File> {
    let descriptor = rustix::fs::memfd_create("input", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(descriptor);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

fn started(run: &Run, input: Option<&File>) -> io::Result<Child> {
    let word = |bytes: &Vec<u8>| OsStr::from_bytes(bytes).to_owned();
    let mut command = Command::new(found(&run.arguments[0], &run.path)?);
    command.arg0(word(&run.arguments[0]));
    command.args(run.arguments[1..].iter().map(word));
    command.env_clear();
    command.envs(
        run.environment
            .iter()
            .map(|(name, value)| (word(name), word(value))),
    );
    if let Some(input) = input {
        command.stdin(input.try_clone()?);
    }
    if !run.inherit {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that everything it started ends with it.
        command.process_group(0);
    }
    if run.merge && !run.inherit {
        let (reader, writer) = io::pipe()?;
        command.stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn()?;
        drop(command);
        child.stdout = Some(std::process::ChildStdout::from(std::os::fd::OwnedFd::from(
            reader,
        )));
        return Ok(child);
    }
    command.spawn()
}

fn finished(mut child: Child, run: &Run, input: Option<File>, time: Duration) -> Answer {
    let output = child
        .stdout
        .take()
        .map(|pipe| thread::spawn(|| read_all(pipe)));
    let errors = child
        .stderr
        .take()
        .map(|pipe| thread::spawn(|| read_all(pipe)));
    let status = wait(&mut child, if run.inherit { Duration::MAX } else { time });
    let joined = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
        reader
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default()
    };
    let (output, errors) = (joined(output), joined(errors));
    let read = input
        .and_then(|mut input| input.stream_position().ok())
        .unwrap_or(0);
    match status {
        Ok(status) => Answer::Ran {
            status: code(status),
            output,
            errors,
            consumed: usize::try_from(read).unwrap_or(usize::MAX),
        },
        Err(error) => Answer::NotRun(error.to_string()),
    }
}

fn read_all(pipe: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
    bytes
}

/// How often a program that takes its time is looked at.
const LOOK: Duration = Duration::from_millis(2);

fn wait(child: &mut Child, time: Duration) -> io::Result<ExitStatus> {
    if time == Duration::MAX {
        return child.wait();
    }
    let end = Instant::now() + time;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= end {
            if let Some(group) = i32::try_from(child.id())
                .ok()
                .and_then(rustix::process::Pid::from_raw)
            {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            child.wait()?;
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "the program took more than {} s and was ended",
                    time.as_secs()
                ),
            ));
        }
        thread::sleep(LOOK);
    }
}

fn code(status: ExitStatus) -> i32 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    }
}
