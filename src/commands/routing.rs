//! The routing of the daemon: its configuration is loaded once, made again in each shard, its maps are watched.

use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};

use super::{run, worker};
use crate::config::Config;
use crate::control::maps::{Answers, Order, Orders, OwnAddresses, Published, Versions};
use crate::control::resolver::Resolver;
use crate::control::route::Oracle;
use crate::control::script::rights::Rights;
use crate::control::script::{Configuration, Local, Session, load};
use crate::control::users::Users;
use crate::router::loaded::Loaded;
use crate::router::machine::MapRequest;
use crate::router::message;
use crate::router::relation::{MapId, Source, Version};
use crate::router::request::{Answer, Failure, Request};
use crate::shard::MakeRouter;
use crate::shard::scripted::{FrontDoor, Scripted};

/// A routing configuration that has been loaded.
#[derive(Clone)]
pub(super) struct RoutePlan {
    loaded: Arc<Loaded>,
    versions: Versions,
    settings: Arc<message::Settings>,
    front_door: FrontDoor,
}

/// What the settings say to the scripts, in the daemon and in the tools that ask them.
pub(super) fn configuration(config: &Config) -> Configuration {
    let mut configuration = Configuration::of(config, &worker::hostname(config));
    configuration.local_domains = run::mailbox_domains(config);
    configuration.has_users = !config.mailboxes.is_empty() || has_aliases(&configuration.directory);
    configuration
}

impl RoutePlan {
    /// Loads what the settings name.
    pub(super) fn load(config: &Config) -> Result<Self, String> {
        let hostname = worker::hostname(config);
        let configuration = configuration(config);
        let resolver = Arc::new(Resolver::new(&config.dns_servers, &hostname));
        let own = OwnAddresses::new(Vec::new());
        let mut session = Session::new(Local::of(config, users(config)), resolver, own)
            .map_err(|error| error.to_string())?;
        let (loaded, _) = load(&configuration, &mut session).map_err(|error| error.to_string())?;
        let domains = configuration
            .local_domains
            .iter()
            .map(|domain| domain.to_ascii_lowercase().into_bytes());
        Ok(Self {
            versions: Versions::seen_in(session.maps(), &loaded.maps),
            settings: Arc::new(message::Settings {
                hostname,
                // What was taken has a field of this host besides.
                received_max: config.smtpserver.services[0].session.received_max + 1,
                // The shipped scripts do not ask, and most mail is relayed by them.
                tells_keywords: config.router.config.is_some()
                    || configuration.directory.join("site.cf").exists(),
                ..message::Settings::default()
            }),
            front_door: FrontDoor {
                domains: domains.collect(),
            },
            loaded: Arc::new(loaded),
        })
    }

    /// The same, for callers on the control thread: what loading waits for is waited for on a thread of its own.
    /// A map that cannot be read any more stays as it is in `running`.
    pub(super) fn load_aside(config: &Config, running: &Watched) -> Result<Self, String> {
        let load = || {
            let mut plan = Self::load(config)?;
            let missing = plan.versions.missing();
            if !missing.is_empty() {
                plan.versions.fill(&running.orders.load(missing).0);
            }
            Ok(plan)
        };
        let loading = std::thread::scope(|scope| scope.spawn(load).join());
        loading.unwrap_or_else(|_| Err("loading the routing scripts has failed".to_owned()))
    }

    /// Makes the router of a shard, in its thread.
    pub(super) fn make(&self) -> MakeRouter {
        let plan = self.clone();
        Box::new(move || {
            match Scripted::new(&plan.loaded, plan.versions, plan.settings, plan.front_door) {
                Ok(router) => Box::new(router),
                Err(error) => {
                    unreachable!("a configuration that was loaded is loaded again: {error}")
                }
            }
        })
    }

    /// What its relations look things up in.
    pub(super) fn sources(&self) -> &[Source] {
        &self.loaded.maps
    }
}

fn has_aliases(directory: &Path) -> bool {
    ["aliases", "aliases.cdb", "db/aliases", "db/aliases.cdb"]
        .iter()
        .any(|name| directory.join(name).exists())
}

/// The maps of the running configuration, for who watches them and for who is asked about them by number.
pub(super) struct Watched {
    orders: Orders,
    sources: Mutex<Vec<Source>>,
    publish: Arc<dyn Fn(&Published) + Send + Sync>,
}

impl Watched {
    pub(super) fn new(orders: Orders, publish: Arc<dyn Fn(&Published) + Send + Sync>) -> Self {
        Self {
            orders,
            sources: Mutex::default(),
            publish,
        }
    }

    /// From now on these are watched, and no others.
    pub(super) fn watch(&self, sources: &[Source]) {
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = sources.to_vec();
        let retained = self.orders.push(Order::Retain(sources.to_vec()));
        let mut refused = retained.is_err();
        for source in sources {
            let publish = Arc::clone(&self.publish);
            let own = Arc::new(source.clone());
            let done = move |result: Result<Version, String>| match result {
                Ok(version) => publish(&Published {
                    source: own,
                    version,
                }),
                Err(problem) => tracing::error!("{problem}"),
            };
            refused |= self
                .orders
                .push(Order::Get(source.clone(), Box::new(done)))
                .is_err();
        }
        if refused {
            tracing::error!("too many maps: some are not watched");
        }
    }

    fn obey(&self, request: &MapRequest) -> Result<(), String> {
        let source = |id: &MapId| {
            let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
            sources
                .get(id.0 as usize)
                .cloned()
                .ok_or_else(|| "there is no such map".to_owned())
        };
        let (sender, receiver) = mpsc::sync_channel(1);
        let done = Box::new(move |result: Result<Version, String>| {
            // Who asked may have given up.
            let _ = sender.send(result.map(drop));
        });
        let order = match request {
            MapRequest::Open { .. } => {
                return Err("relations are made while a configuration is loaded".to_owned());
            }
            MapRequest::Append { id, line } => Order::Append(source(id)?, line.clone(), done),
            MapRequest::Reload(id) => Order::Reload(source(id)?, done),
        };
        self.orders
            .push(order)
            .map_err(|_| "too many orders wait for the maps".to_owned())?;
        receiver
            .recv()
            .unwrap_or_else(|_| Err("the maps are closed".to_owned()))
    }
}

/// Who answers the scripts of the shards.
pub(super) fn oracle(config: &Config, watched: Arc<Watched>, rights: Option<Rights>) -> Oracle {
    let resolver = Arc::new(Resolver::new(
        &config.dns_servers,
        &worker::hostname(config),
    ));
    let answers = Answers::new(resolver, OwnAddresses::new(Vec::new()));
    let (config, users) = (config.clone(), users(config));
    Oracle(Arc::new(move |request| {
        Ok(match request {
            Request::Ask(question) => {
                let handle = tokio::runtime::Handle::current();
                Answer::Reply(handle.block_on(answers.answer(question)))
            }
            Request::Map(request) => Answer::Done(watched.obey(request).map_err(refused)),
            Request::Output { bytes, .. } => {
                let text = String::from_utf8_lossy(bytes);
                for line in text.lines() {
                    tracing::warn!(target: "router", "{line}");
                }
                Answer::Done(Ok(()))
            }
            Request::Line => Answer::Line(Vec::new()),
            Request::Sleep { .. } => Answer::Done(Ok(())),
            Request::Directory(_) => {
                Answer::Done(Err(refused("the daemon stays where it is".to_owned())))
            }
            Request::Umask(_) => Answer::Umask(0o077),
            request => {
                let mut local = Local::of(&config, users.clone()).with_rights(rights.clone());
                known(local.answer(request.clone()))?
            }
        })
    }))
}

/// Who has a mailbox here; none: there are none.
pub(super) fn users(config: &Config) -> Option<Arc<Users>> {
    let users = || Arc::new(Users::new(&config.mailboxes, &worker::hostname(config)));
    (!config.mailboxes.is_empty()).then(users)
}

/// Mail does not go where it would if a file were not there, only because the file cannot be read now.
///
/// # Errors
/// Why the mail has to wait.
fn known(answer: Answer) -> Result<Answer, String> {
    match answer {
        Answer::File(Err(failure)) | Answer::Stat(Err(failure)) if failure.temporary => {
            Err(failure.text)
        }
        answer => Ok(answer),
    }
}

fn refused(text: String) -> Failure {
    Failure {
        missing: false,
        temporary: false,
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_now_is_waited_for() {
        let config = crate::config::from_text("", "test").unwrap();
        let nobody = Rights::at(Path::new("no/such/socket"));
        let read = |path: &[u8], user, rights| {
            let mut local = Local::of(&config, None).with_rights(rights);
            let path = path.to_vec();
            known(local.answer(Request::Read { path, user }))
        };
        let waits = read(b"/users/joe/.forward", Some(1000), Some(nobody));
        assert!(waits.unwrap_err().contains("the mailbox agent"));
        for path in [&b"no/such/file"[..], b"/"] {
            let answer = read(path, None, None).unwrap();
            assert!(matches!(answer, Answer::File(Err(_))), "{answer:?}");
        }
    }
}
