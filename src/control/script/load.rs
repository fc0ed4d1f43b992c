//! Loads a routing configuration.

use std::path::{Path, PathBuf};

use super::Session;
use crate::router::loaded::{LoadError as ScriptError, Loaded, Plan, Script, Setting};
use crate::router::machine::{Evaluation, Limits};
use crate::router::stock;

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
    /// There are users here, or aliases; otherwise the names of this host are like all others.
    pub has_users: bool,
    /// The same name is another user in another domain.
    pub users_by_domain: bool,
    /// Bounds of an evaluation.
    pub limits: Limits,
}

/// Why a configuration is not loaded.
#[derive(Debug)]
pub enum LoadError {
    /// The script cannot be read.
    Unreadable(String),
    /// It is wrong.
    Script(ScriptError),
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(why) => f.write_str(why),
            Self::Script(error) => error.fmt(f),
        }
    }
}

/// Puts the routes of the settings into a relation.
const ROUTES: &str = "relation -lt incore -d pathalias settings_routes
while [ $# -gt 0 ]; do db add settings_routes \"$1\" \"$2\"; shift 2; done
";

/// Takes the names of this host out of those whose users are here.
const NO_USERS: &str = "db remove own_names \"$hostname\"; db remove own_names localhost
";

/// Loads the configuration: its scripts are run once, and what they have set is what each message starts with.
///
/// # Errors
/// All errors of the scripts.
pub fn load(
    configuration: &Configuration,
    session: &mut Session,
) -> Result<(Loaded, Evaluation), LoadError> {
    let plan = plan(configuration)?;
    let maps = session.maps_handle();
    let loaded = Loaded::new(plan, |request, _| session.answer(request), &*maps);
    loaded.map_err(LoadError::Script)
}

fn plan(configuration: &Configuration) -> Result<Plan, LoadError> {
    let pairs = configuration
        .routes
        .iter()
        .flat_map(|(domain, route)| [domain, route]);
    let mut scripts = Vec::new();
    if !configuration.routes.is_empty() {
        scripts.push(Script {
            name: "settings".to_owned(),
            text: ROUTES.into(),
            arguments: pairs.map(|text| text.clone().into_bytes()).collect(),
        });
    }
    match &configuration.script {
        None => scripts.extend(
            stock::FILES
                .iter()
                .map(|(name, text)| script(name, text.as_bytes())),
        ),
        Some(path) => scripts.push(read(path)?),
    }
    if configuration.script.is_none() && !configuration.has_users {
        scripts.push(script("settings", NO_USERS.as_bytes()));
    }
    let texts = [
        ("hostname", configuration.hostname.clone()),
        ("default_route", configuration.default_route.clone()),
        ("MAILVAR", configuration.directory.display().to_string()),
    ];
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
    let mut variables: Vec<(String, Setting)> = texts
        .map(|(name, text)| (name.to_owned(), Setting::Text(text)))
        .collect();
    if configuration.users_by_domain {
        let aware = (
            "DOMAIN_AWARE_GETPWNAM".to_owned(),
            Setting::Text("1".to_owned()),
        );
        variables.push(aware);
    }
    variables.push((
        "local_domains".to_owned(),
        Setting::List(configuration.local_domains.clone()),
    ));
    Ok(Plan {
        variables,
        scripts,
        limits: configuration.limits.clone(),
    })
}

fn script(name: &str, text: &[u8]) -> Script {
    Script {
        name: name.to_owned(),
        text: text.to_vec(),
        arguments: Vec::new(),
    }
}

fn read(path: &Path) -> Result<Script, LoadError> {
    let name = path.display().to_string();
    match std::fs::read(path) {
        Ok(text) => Ok(script(&name, &text)),
        Err(error) => Err(LoadError::Unreadable(format!("{name}: {error}"))),
    }
}
