//! The shipped scripts as the router of simulated shards.
//!
//! A configuration is loaded once in a process and made again for each shard, as the daemon does it. It finds no files,
//! so nothing of the host that the tests run on has a part in it, and no routing asks anything outside.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use zmailer::control::maps::{OwnAddresses, Versions};
use zmailer::control::resolver::Resolver;
use zmailer::control::script::{Configuration, Local, Permission, Session, load};
use zmailer::router::loaded::Loaded;
use zmailer::router::machine::Limits;
use zmailer::router::{Router, message};
use zmailer::shard::scripted::{FrontDoor, Scripted};

/// Of the simulated relay.
pub const HOSTNAME: &str = "relay.example";

/// Default route, and routes by domain.
type Routes = (String, Vec<(String, String)>);

static LOADED: Mutex<BTreeMap<Routes, Arc<Loaded>>> = Mutex::new(BTreeMap::new());

/// The router of a shard with these routes in its settings.
pub fn router(default_route: &str, routes: &[(String, String)]) -> Box<dyn Router> {
    let loaded = loaded((default_route.to_owned(), routes.to_vec()));
    let settings = message::Settings {
        hostname: HOSTNAME.to_owned(),
        ..message::Settings::default()
    };
    let maps = Versions::new(loaded.maps.clone());
    let router = Scripted::new(&loaded, maps, Arc::new(settings), FrontDoor::default());
    Box::new(router.expect("it was loaded before"))
}

fn loaded(routes: Routes) -> Arc<Loaded> {
    let mut all = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = all.entry(routes).or_insert_with_key(|routes| {
        let configuration = Configuration {
            directory: "/nonexistent".into(),
            hostname: HOSTNAME.to_owned(),
            default_route: routes.0.clone(),
            routes: routes.1.clone(),
            limits: Limits::default(),
            ..Configuration::default()
        };
        let local = Local::new(Permission::NoPrograms, Duration::from_secs(1));
        let resolver = Arc::new(Resolver::new(&[], HOSTNAME));
        let mut session = Session::new(local, resolver, OwnAddresses::new(Vec::new()))
            .expect("there are resources for a session");
        let loaded = load(&configuration, &mut session);
        Arc::new(loaded.expect("the shipped scripts are good").0)
    });
    Arc::clone(loaded)
}
