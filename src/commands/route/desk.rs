//! A loaded routing configuration that addresses are asked of.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use super::super::{routing, worker};
use super::outside;
use crate::config::Config;
use crate::control::maps::OwnAddresses;
use crate::control::resolver::Resolver;
use crate::control::script::{LoadError, Local, Session, load};
use crate::router::check;
use crate::router::diagnostic::Diagnostic;
use crate::router::machine::{Evaluation, Event};
use crate::router::message::{Asked, Probe, Probed, Turn};
use crate::router::runner::Runner;
use crate::router::value::Value;
use crate::router::{stock, syntax};

/// See the module.
pub(in crate::commands) struct Desk {
    session: Session,
    evaluation: Evaluation,
    /// What is wrong with files behind relations, as far as that has been told.
    told: BTreeSet<String>,
}

/// What came of a question.
pub(super) struct Reply {
    /// The results; the error is the limit that was reached.
    pub(super) result: Result<Probed, String>,
    /// What happened on the way, when that was wanted.
    pub(super) events: Vec<Event>,
    /// Events that were not kept.
    pub(super) dropped: u64,
}

/// A session that answers the routing script of these settings.
///
/// # Errors
/// When there are no resources for it.
pub(in crate::commands) fn session(config: &Config, local: Local) -> io::Result<Session> {
    let hostname = worker::hostname(config);
    let resolver = Arc::new(Resolver::new(&config.dns_servers, &hostname));
    Session::new(local, resolver, OwnAddresses::new(Vec::new()))
}

impl Desk {
    /// Loads the configuration of these settings, with another script when one is given.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in crate::commands) fn open(config: &Config, script: Script) -> Result<Self, LoadError> {
        let mut session = session(config, Local::of(config, routing::users(config)))
            .map_err(|error| LoadError::Unreadable(error.to_string()))?;
        let mut configuration = routing::configuration(config);
        match script {
            Script::Configured => {}
            Script::Shipped => configuration.script = None,
            Script::File(path) => configuration.script = Some(path),
        }
        let (_, evaluation) = load(&configuration, &mut session)?;
        Ok(Self {
            session,
            evaluation,
            told: BTreeSet::new(),
        })
    }

    /// What is suspicious in the scripts of the administrator.
    pub(in crate::commands) fn warnings(&self, config: &Config) -> Vec<Diagnostic> {
        let sources = self.evaluation.sources().iter();
        let scripts: Vec<check::Script> = sources
            .filter_map(|source| {
                let parsed = syntax::parse(source).ok()?;
                Some(check::Script {
                    source: Rc::clone(source),
                    parsed,
                })
            })
            .collect();
        let known = check::Known {
            defined: &|name| self.evaluation.is_defined(name),
            programs: config.router.programs,
        };
        let shipped = |name: &str| stock::FILES.iter().any(|(shipped, _)| *shipped == name);
        let mut warnings = check::check(&scripts, known);
        warnings.retain(|warning| !shipped(&warning.source.name));
        warnings
    }

    /// What is wrong with the files behind relations: look-ups in these are deferred, or find what was before.
    pub(in crate::commands) fn bad_maps(&self) -> Vec<String> {
        self.session.maps().judge()
    }

    /// Asks for one address.
    pub(super) fn ask(&mut self, address: &[u8], sender: Option<&[u8]>, traced: bool) -> Reply {
        self.evaluation.reset();
        self.evaluation.trace().on = traced;
        let mut probe = Probe::<Value>::new(Asked {
            address: address.to_vec(),
            sender: sender.map(<[u8]>::to_vec),
            nobody: self.evaluation.surroundings().nobody,
        });
        let result = loop {
            let mut runner = Runner {
                evaluation: &mut self.evaluation,
                maps: self.session.maps(),
                now: self.session.now(),
            };
            match probe.run(&mut runner) {
                Turn::Done(probed) => break Ok(probed),
                Turn::Stopped(limit) => break Err(limit),
                Turn::Need(request) => {
                    let question = traced.then(|| outside::question(&request)).flatten();
                    let answer = self.session.answer(request);
                    if let Some(question) = question {
                        self.evaluation.trace().tell(|| Event::Outside {
                            question,
                            answer: outside::answer(&answer),
                        });
                    }
                    self.evaluation.answer(answer);
                }
            }
        };
        for problem in self.session.maps().take_problems() {
            if !self.told.contains(&problem) {
                eprintln!("{problem}");
                self.told.insert(problem);
            }
        }
        let dropped = self.evaluation.trace().dropped;
        Reply {
            result,
            events: self.evaluation.trace().take(),
            dropped,
        }
    }
}

/// Which script a desk loads.
pub(in crate::commands) enum Script {
    /// That of the settings.
    Configured,
    /// The shipped ones.
    Shipped,
    /// This one.
    File(PathBuf),
}
