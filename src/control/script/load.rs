//! Loads a routing configuration into an evaluation.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::Session;
use crate::router::diagnostic::{Diagnostic, Source};
use crate::router::machine::{Evaluation, Limits};
use crate::router::stock;
use crate::router::value::Value;

/// What the settings say about routing.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    /// The administrator's script; none: the shipped ones.
    pub script: Option<PathBuf>,
    /// Where aliases, routes and other files of the administrator are: `$MAILVAR`.
    pub directory: PathBuf,
    /// This host's name.
    pub hostname: String,
    /// `channel!next-hop` for all without a route.
    pub default_route: String,
    /// Domains whose users have their mail here.
    pub local_domains: Vec<String>,
    /// Routes by domain.
    pub routes: Vec<(String, String)>,
    /// Bounds of an evaluation.
    pub limits: Limits,
}

/// Why a configuration is not loaded.
#[derive(Debug)]
pub enum LoadError {
    /// The script cannot be read.
    Unreadable(String),
    /// The scripts have errors.
    Wrong(Vec<Diagnostic>),
    /// A script ran into a limit, or ended with a failure.
    Stopped(String),
    /// The scripts define no function `router`.
    NoRouter,
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(why) => f.write_str(why),
            Self::Wrong(errors) => {
                for (number, error) in errors.iter().enumerate() {
                    let separator = if number == 0 { "" } else { "\n" };
                    write!(f, "{separator}{error}")?;
                }
                Ok(())
            }
            Self::Stopped(why) => write!(f, "the routing script was stopped: {why}"),
            Self::NoRouter => f.write_str("the routing script defines no function router"),
        }
    }
}

/// Puts the routes of the settings into a relation.
const ROUTES: &[u8] = b"relation -lt incore -d pathalias settings_routes
while [ $# -gt 0 ]; do db add settings_routes \"$1\" \"$2\"; shift 2; done
";

/// Loads the configuration: its scripts are run once, and what they have set is what each message starts with.
///
/// # Errors
/// All errors of the scripts.
pub fn load(configuration: &Configuration, session: &mut Session) -> Result<Evaluation, LoadError> {
    let sources = sources(configuration)?;
    let mut evaluation = Evaluation::new(configuration.limits.clone());
    set_variables(configuration, &mut evaluation);
    let pairs = configuration
        .routes
        .iter()
        .flat_map(|(domain, route)| [domain.as_bytes(), route.as_bytes()]);
    let pairs: Vec<&[u8]> = pairs.collect();
    run(
        &mut evaluation,
        session,
        &Source::new("settings", ROUTES),
        &pairs,
    )?;
    let mut errors = Vec::new();
    for source in &sources {
        match run(&mut evaluation, session, source, &[]) {
            Ok(()) => {}
            Err(LoadError::Wrong(more)) => errors.extend(more),
            Err(error) => return Err(error),
        }
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

fn sources(configuration: &Configuration) -> Result<Vec<Rc<Source>>, LoadError> {
    match &configuration.script {
        None => Ok(stock::FILES
            .iter()
            .map(|(name, text)| Source::new(name, text.as_bytes()))
            .collect()),
        Some(path) => Ok(vec![read(path)?]),
    }
}

fn read(path: &Path) -> Result<Rc<Source>, LoadError> {
    let name = path.display().to_string();
    match std::fs::read(path) {
        Ok(text) => Ok(Source::new(&name, &text)),
        Err(error) => Err(LoadError::Unreadable(format!("{name}: {error}"))),
    }
}

fn set_variables(configuration: &Configuration, evaluation: &mut Evaluation) {
    let texts = [
        ("hostname", configuration.hostname.as_str()),
        ("default_route", configuration.default_route.as_str()),
        ("MAILVAR", configuration.directory.to_str().unwrap_or("")),
    ];
    for (name, text) in texts.iter().filter(|(_, text)| !text.is_empty()) {
        evaluation.set_variable(name.as_bytes(), Value::from(*text));
    }
    let domains = configuration
        .local_domains
        .iter()
        .map(|domain| Value::from(domain.as_str()))
        .collect();
    evaluation.set_variable(b"local_domains", Value::list(domains));
}

fn run(
    evaluation: &mut Evaluation,
    session: &mut Session,
    source: &Rc<Source>,
    arguments: &[&[u8]],
) -> Result<(), LoadError> {
    evaluation
        .load(source, arguments)
        .map_err(LoadError::Wrong)?;
    session
        .run(evaluation)
        .map_err(|limit| LoadError::Stopped(format!("{}: {limit}", source.name)))?;
    let errors = evaluation.take_errors();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(LoadError::Wrong(errors))
    }
}
