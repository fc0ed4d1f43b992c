//! The machine by itself: scripts against a world that is a few tables.

mod answers;
mod isolation;
mod jumps;
mod limits;
mod manual;
mod suspension;
mod values;

use std::collections::BTreeMap;

use super::{Evaluation, Limit, Limits, Turn};
use crate::base::clock::Now;
use crate::router::diagnostic::Source;
use crate::router::relation::{NoMaps, Reply};
use crate::router::request::{Account, Answer, Failure, Request, Run, Stat};
use crate::router::value::Value;

const NOW: Now = Now {
    mono_ns: 0,
    wall_ms: 0,
};

/// Answers requests: files in memory, one account, one group, programs that say what they got.
#[derive(Clone, Default)]
struct World {
    files: BTreeMap<Vec<u8>, Vec<u8>>,
    output: Vec<u8>,
    errors: Vec<u8>,
    requests: usize,
}

impl World {
    fn answer(&mut self, request: Request) -> Answer {
        self.requests += 1;
        match request {
            Request::Read { path, .. } => Answer::File(match self.files.get(&path) {
                Some(bytes) => Ok((bytes.clone(), Stat::default())),
                None => Err(missing(&path)),
            }),
            Request::Write {
                path,
                append,
                bytes,
            } => {
                let file = self.files.entry(path).or_default();
                if !append {
                    file.clear();
                }
                file.extend_from_slice(&bytes);
                Answer::Done(Ok(()))
            }
            Request::Stat { path, .. } => Answer::Stat(match self.files.get(&path) {
                Some(bytes) => Ok(Stat {
                    mode: 0o100_644,
                    size: bytes.len() as u64,
                    access: 6,
                    ..Stat::default()
                }),
                None => Err(missing(&path)),
            }),
            Request::Glob { .. } => Answer::Paths(self.files.keys().cloned().collect()),
            Request::Program { name, .. } => Answer::Paths(vec![[b"/bin/", &*name].concat()]),
            Request::Account(name) => Answer::Account(Ok((name == b"joe").then(joe))),
            Request::AccountOf(user) => Answer::Account(Ok((user == 7).then(joe))),
            Request::Group(name) => Answer::Group(Ok(
                (name == b"staff").then(|| vec![b"joe".to_vec(), b"ann".to_vec()])
            )),
            Request::Run(run) => ran(&run),
            Request::Directory(_) => Answer::Done(Ok(())),
            Request::Umask(_) => Answer::Umask(0o22),
            Request::Output { descriptor, bytes } => {
                let stream = match descriptor {
                    1 => &mut self.output,
                    _ => &mut self.errors,
                };
                stream.extend_from_slice(&bytes);
                Answer::Done(Ok(()))
            }
            Request::Line => Answer::Line(Vec::new()),
            Request::Sleep { .. } | Request::Log { .. } | Request::Map(_) => Answer::Done(Ok(())),
            Request::Ask(_) => Answer::Reply(Reply::Missing(None)),
            Request::Hostname => Answer::Hostname(b"mx.example.org".to_vec()),
            Request::Time => Answer::Time(0),
        }
    }
}

/// A program that prints its arguments and its input.
fn ran(run: &Run) -> Answer {
    let mut output = run.arguments.join(&b' ');
    let input = run.input.clone().unwrap_or_default();
    output.extend_from_slice(b":");
    output.extend_from_slice(&input);
    output.push(b'\n');
    Answer::Ran {
        status: 0,
        output,
        errors: Vec::new(),
        consumed: input.len(),
    }
}

fn joe() -> Account {
    Account {
        name: b"joe".to_vec(),
        user: 7,
        full_name: b"Joe User".to_vec(),
        home: b"/users/joe".to_vec(),
    }
}

fn missing(path: &[u8]) -> Failure {
    Failure {
        missing: true,
        temporary: false,
        text: format!("{}: no such file", String::from_utf8_lossy(path)),
    }
}

/// Runs what is loaded to its end.
fn finish(evaluation: &mut Evaluation, world: &mut World) -> Result<i32, Limit> {
    loop {
        match evaluation.run(&NoMaps, NOW) {
            Turn::Done(status) => return Ok(status),
            Turn::Stopped(limit) => return Err(limit),
            Turn::More => {}
            Turn::Need(request) => {
                let answer = world.answer(request);
                evaluation.answer(answer);
            }
        }
    }
}

fn load(evaluation: &mut Evaluation, script: &str) {
    let source = Source::new("test", script.as_bytes());
    if let Err(errors) = evaluation.load(&source, &[]) {
        panic!("{script}\n{}", errors[0]);
    }
}

/// An evaluation that has run a script, and is kept.
fn configured(script: &str) -> Evaluation {
    let mut evaluation = Evaluation::new(Limits::default());
    load(&mut evaluation, script);
    let mut world = World::default();
    finish(&mut evaluation, &mut world).expect("a configuration within its limits");
    evaluation.keep();
    evaluation
}

/// Status, value and output of a call.
fn call(evaluation: &mut Evaluation, name: &str, arguments: &[&str]) -> (i32, String, String) {
    let arguments = arguments.iter().map(|text| Value::from(*text)).collect();
    assert!(evaluation.call(name.as_bytes(), arguments), "{name}");
    let mut world = World::default();
    let status = finish(evaluation, &mut world).expect("a call within its limits");
    let value = evaluation.take_returned();
    let printed = evaluation.take_printed();
    (
        status,
        value.map_or("-".to_owned(), |value| value.to_string()),
        String::from_utf8_lossy(&printed).into_owned(),
    )
}

/// Status and output of a script in a new evaluation; its stacks must be empty at the end.
fn run(script: &str) -> (i32, String) {
    let mut evaluation = Evaluation::new(Limits::default());
    load(&mut evaluation, script);
    let mut world = World::default();
    let status = finish(&mut evaluation, &mut world).expect("a script within its limits");
    assert_eq!(evaluation.leftover(), "", "{script}");
    let output = String::from_utf8_lossy(&world.output).into_owned();
    (status, output)
}

/// A script prints this.
#[track_caller]
fn prints(script: &str, expected: &str) {
    assert_eq!(run(script).1, expected, "{script}");
}

impl Evaluation {
    /// What is still on some stack: nothing when nothing runs.
    fn leftover(&self) -> String {
        let depths = self.depths();
        let mut left = String::new();
        if depths != super::frame::Depths::default() {
            left = format!("{depths:?}");
        }
        if !self.frames.is_empty() || self.sinks.len() != 2 || self.inputs.len() != 1 {
            left += " frames, sinks or inputs";
        }
        left
    }
}
