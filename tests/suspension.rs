//! The recorded scripts, answered at once and answered late: the result is the same.
//!
//! Whether it is the recorded one is not asked here: the world is files in memory and programs that only say what
//! they got, so that every script can run beside others in any order.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use zmailer::base::clock::Now;
use zmailer::router::diagnostic::Source;
use zmailer::router::machine::{Evaluation, Limits, Turn};
use zmailer::router::relation::{NoMaps, Reply};
use zmailer::router::request::{Answer, Failure, Request, Stat};

const NOW: Now = Now {
    mono_ns: 0,
    wall_ms: 0,
};

type Files = BTreeMap<Vec<u8>, Vec<u8>>;

/// What one script sees.
#[derive(Clone, Debug, PartialEq, Eq)]
struct World {
    files: Files,
    output: Vec<u8>,
    errors: Vec<u8>,
}

impl World {
    fn answer(&mut self, request: Request) -> Answer {
        let missing = || Failure {
            missing: true,
            temporary: false,
            text: "no such file".to_owned(),
        };
        match request {
            Request::Read { path, .. } => Answer::File(match self.files.get(&path) {
                Some(bytes) => Ok((bytes.clone(), Stat::default())),
                None => Err(missing()),
            }),
            Request::Write {
                path,
                append,
                bytes,
            } => {
                let file = self.files.entry(path).or_default();
                file.truncate(if append { usize::MAX } else { 0 });
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
                None => Err(missing()),
            }),
            Request::Glob { pattern } => Answer::Paths(vec![pattern]),
            Request::Program { name, .. } => Answer::Paths(vec![name]),
            Request::Account(_) | Request::AccountOf(_) => Answer::Account(Ok(None)),
            Request::Group(_) => Answer::Group(Ok(None)),
            Request::Run(run) => {
                let mut output = run.arguments.join(&b' ');
                output.push(b'\n');
                let input = run.input.unwrap_or_default();
                output.extend_from_slice(&input);
                Answer::Ran {
                    status: i32::from(run.arguments.len() > 3),
                    output,
                    errors: Vec::new(),
                    consumed: input.len(),
                }
            }
            Request::Output { descriptor, bytes } => {
                let stream = match descriptor {
                    1 => &mut self.output,
                    _ => &mut self.errors,
                };
                stream.extend_from_slice(&bytes);
                Answer::Done(Ok(()))
            }
            Request::Line => Answer::Line(Vec::new()),
            Request::Umask(_) => Answer::Umask(0o22),
            Request::Ask(_) => Answer::Reply(Reply::Missing(None)),
            Request::Hostname => Answer::Hostname(b"mx.example.org".to_vec()),
            Request::Time => Answer::Time(0),
            Request::Directory(_)
            | Request::Sleep { .. }
            | Request::Log { .. }
            | Request::Map(_) => Answer::Done(Ok(())),
        }
    }
}

/// A script, where it is, and what it waits for.
struct Running {
    evaluation: Evaluation,
    world: World,
    request: Option<Request>,
    /// Turns of others that it still waits.
    delay: usize,
    result: Option<String>,
}

impl Running {
    fn start(base: &Evaluation, script: &Source, files: &Files, turn_steps: u64) -> Self {
        let mut evaluation = base.fork();
        evaluation.set_limits(
            Limits::default()
                .with_steps(200_000)
                .with_turns_of(turn_steps),
        );
        let source = Source::new(&script.name, &script.text);
        let result = evaluation
            .load(&source, &[])
            .err()
            .map(|errors| errors[0].to_string());
        Self {
            evaluation,
            world: World {
                files: files.clone(),
                output: Vec::new(),
                errors: Vec::new(),
            },
            request: None,
            delay: 0,
            result,
        }
    }

    /// A turn; a request is answered so many turns later.
    fn turn(&mut self, delay: usize) {
        if self.result.is_some() {
            return;
        }
        if self.delay > 0 {
            self.delay -= 1;
            return;
        }
        if let Some(request) = self.request.take() {
            let answer = self.world.answer(request);
            self.evaluation.answer(answer);
        }
        match self.evaluation.run(&NoMaps, NOW) {
            Turn::More => {}
            Turn::Need(request) => {
                self.request = Some(request);
                self.delay = delay;
            }
            Turn::Done(status) => self.result = Some(status.to_string()),
            Turn::Stopped(limit) => self.result = Some(limit.to_string()),
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/zmsh")
}

fn scripts() -> Vec<std::rc::Rc<Source>> {
    let mut paths: Vec<PathBuf> = ["open", "more"]
        .iter()
        .flat_map(|name| fs::read_dir(folder().join(name)).expect("recorded scripts"))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "zmsh"))
        .collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy();
        Source::new(&name, &fs::read(path).expect("a script"))
    };
    paths.iter().map(read).collect()
}

fn data() -> Files {
    let entries = fs::read_dir(folder().join("open/data")).expect("data of the scripts");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy();
            let bytes = fs::read(&path).expect("a file");
            (format!("data/{name}").into_bytes(), bytes)
        })
        .collect()
}

#[test]
fn late_answers_change_nothing() {
    let (scripts, files) = (scripts(), data());
    assert!(scripts.len() > 800, "{}", scripts.len());
    let mut base = Evaluation::new(Limits::default());
    base.keep();
    let mut expected = Vec::new();
    for script in &scripts {
        let mut alone = Running::start(&base, script, &files, u64::MAX / 2);
        while alone.result.is_none() {
            alone.turn(0);
        }
        expected.push((alone.result, alone.world));
    }
    for (turn_steps, delay) in [(1, 1), (3, 2), (20, 0)] {
        // All at the same time, none knowing of the others.
        let start =
            |script: &std::rc::Rc<Source>| Running::start(&base, script, &files, turn_steps);
        let mut running: Vec<Running> = scripts.iter().map(start).collect();
        while running.iter().any(|script| script.result.is_none()) {
            for script in &mut running {
                script.turn(delay);
            }
        }
        for ((script, late), expected) in scripts.iter().zip(running).zip(&expected) {
            let late = (late.result, late.world);
            assert_eq!(&late, expected, "{} {turn_steps} {delay}", script.name);
        }
    }
}
