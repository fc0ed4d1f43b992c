//! Programs that scripts run.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
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
    match started(run) {
        Ok(child) => finished(child, run, time),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Answer::NotRun(format!("{}: not found", String::from_utf8_lossy(name)))
        }
        Err(error) => Answer::NotRun(format!("{}: {error}", String::from_utf8_lossy(name))),
    }
}

fn started(run: &Run) -> io::Result<Child> {
    let word = |bytes: &Vec<u8>| OsStr::from_bytes(bytes).to_owned();
    let mut command = Command::new(word(&run.arguments[0]));
    command.args(run.arguments[1..].iter().map(word));
    command.env_clear();
    command.envs(run.environment.iter().map(|(name, value)| (word(name), word(value))));
    if run.input.is_some() {
        command.stdin(Stdio::piped());
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
        child.stdout = Some(std::process::ChildStdout::from(std::os::fd::OwnedFd::from(reader)));
        return Ok(child);
    }
    command.spawn()
}

fn finished(mut child: Child, run: &Run, time: Duration) -> Answer {
    let input = child.stdin.take().zip(run.input.clone());
    let writer = thread::spawn(move || {
        if let Some((mut pipe, bytes)) = input {
            // A program need not read all that it is given.
            let _ = pipe.write_all(&bytes);
        }
    });
    let output = child.stdout.take().map(|pipe| thread::spawn(|| read_all(pipe)));
    let errors = child.stderr.take().map(|pipe| thread::spawn(|| read_all(pipe)));
    let status = wait(&mut child, if run.inherit { Duration::MAX } else { time });
    let joined = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    let (output, errors) = (joined(output), joined(errors));
    drop(writer);
    match status {
        Ok(status) => Answer::Ran {
            status: code(status),
            output,
            errors,
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
            if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("the program took more than {} s and was ended", time.as_secs())));
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
