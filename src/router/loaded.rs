//! A configuration that has been loaded once, so that every shard can load it again without asking anybody.
//!
//! Scripts may look at files and accounts while they are loaded. Whoever loads a configuration first answers them and
//! writes the answers down; with the same answers every later load comes to the same state.

use std::fmt;

use super::diagnostic::{Diagnostic, Source};
use super::machine::{Evaluation, Limits, Turn};
use super::relation::{self, NoMaps};
use super::request::{Answer, Request};
use super::value::Value;
use crate::base::clock::Now;

/// What is loaded, in this order.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Variables that the scripts find set.
    pub variables: Vec<(String, Setting)>,
    /// Scripts: name, text, arguments.
    pub scripts: Vec<Script>,
    /// Bounds of an evaluation.
    pub limits: Limits,
}

/// The value of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// A text.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
}

/// A script of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its name in messages.
    pub name: String,
    /// Its text.
    pub text: Vec<u8>,
    /// What it finds in `$1` and so on.
    pub arguments: Vec<Vec<u8>>,
}

/// A configuration with the answers that it was given.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    plan: Plan,
    answers: Vec<Answer>,
    /// The maps that its relations look things up in, by number.
    pub maps: Vec<relation::Source>,
}

/// Why a configuration is not loaded.
#[derive(Debug)]
pub enum LoadError {
    /// The scripts have errors.
    Wrong(Vec<Diagnostic>),
    /// A script ran into a limit.
    Stopped(String),
    /// The scripts define no function `router`.
    NoRouter,
    /// The answers of another configuration.
    Differs,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(errors) => {
                let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join("\n"))
            }
            Self::Stopped(why) => write!(f, "the routing script was stopped: {why}"),
            Self::NoRouter => f.write_str("the routing script defines no function router"),
            Self::Differs => {
                f.write_str("the routing script asks for what it did not ask for before")
            }
        }
    }
}

impl Loaded {
    /// Loads a configuration; `answer` answers its scripts.
    ///
    /// # Errors
    /// All errors of the scripts.
    pub fn new(
        plan: Plan,
        mut answer: impl FnMut(Request, &Evaluation) -> Answer,
        maps: &dyn relation::Maps,
    ) -> Result<(Self, Evaluation), LoadError> {
        let mut answers = Vec::new();
        let evaluation = run(&plan, maps, |request, evaluation| {
            let answer = answer(request, evaluation);
            answers.push(answer.clone());
            Some(answer)
        })?;
        let maps = evaluation.map_sources().to_vec();
        let loaded = Self {
            plan,
            answers,
            maps,
        };
        Ok((loaded, evaluation))
    }

    /// Loads it again.
    ///
    /// # Errors
    /// None that it did not have the first time.
    pub fn again(&self) -> Result<Evaluation, LoadError> {
        let mut answers = self.answers.iter().cloned();
        run(&self.plan, &NoMaps, |_, _| answers.next())
    }
}

fn run(
    plan: &Plan,
    maps: &dyn relation::Maps,
    mut answer: impl FnMut(Request, &Evaluation) -> Option<Answer>,
) -> Result<Evaluation, LoadError> {
    let mut evaluation = Evaluation::new(plan.limits.clone());
    for (name, setting) in &plan.variables {
        let value = match setting {
            Setting::Text(text) => Value::from(text.as_str()),
            Setting::List(texts) => Value::list(
                texts
                    .iter()
                    .map(|text| Value::from(text.as_str()))
                    .collect(),
            ),
        };
        evaluation.set_variable(name.as_bytes(), value);
    }
    evaluation.collect_sources();
    let mut errors = Vec::new();
    for script in &plan.scripts {
        let source = Source::new(&script.name, &script.text);
        let arguments: Vec<&[u8]> = script.arguments.iter().map(Vec::as_slice).collect();
        match evaluation.load(&source, &arguments) {
            Ok(()) => run_script(&mut evaluation, &script.name, maps, &mut answer)?,
            Err(more) => errors.extend(more),
        }
        errors.extend(evaluation.take_errors());
    }
    if !errors.is_empty() {
        return Err(LoadError::Wrong(errors));
    }
    if !evaluation.has_function(b"router") {
        return Err(LoadError::NoRouter);
    }
    evaluation.keep();
    Ok(evaluation)
}

fn run_script(
    evaluation: &mut Evaluation,
    name: &str,
    maps: &dyn relation::Maps,
    answer: &mut impl FnMut(Request, &Evaluation) -> Option<Answer>,
) -> Result<(), LoadError> {
    loop {
        match evaluation.run(maps, Now::default()) {
            Turn::Done(_) => return Ok(()),
            Turn::More => {}
            Turn::Stopped(limit) => return Err(LoadError::Stopped(format!("{name}: {limit}"))),
            Turn::Need(request) => {
                let answer = answer(request, evaluation).ok_or(LoadError::Differs)?;
                evaluation.answer(answer);
            }
        }
    }
}
