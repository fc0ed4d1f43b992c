//! The thread that reads and watches the daemon's maps.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use super::store::Store;
use super::{Published, Source, Versions};
use crate::router::relation::Version;

/// Time between two looks at the files.
const LOOK: Duration = Duration::from_secs(1);

/// Orders that wait.
const ORDERS_MAX: usize = 1024;

/// Who waits for an order to be done.
pub type Done = Box<dyn FnOnce(Result<Version, String>) + Send>;

/// What the thread is asked to do.
pub enum Order {
    /// The current version of a map, read if need be; the map is watched from now on.
    Get(Source, Done),
    /// Read a map again.
    Reload(Source, Done),
    /// Append a line to a map's file.
    Append(Source, Vec<u8>, Done),
    /// Forget all maps but these.
    Retain(Vec<Source>),
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (word, source) = match self {
            Self::Get(source, _) => ("Get", Some(source)),
            Self::Reload(source, _) => ("Reload", Some(source)),
            Self::Append(source, ..) => ("Append", Some(source)),
            Self::Retain(_) => ("Retain", None),
        };
        write!(f, "{word} {source:?}")
    }
}

/// The way to the thread, which ends when the last of these is dropped.
#[derive(Clone, Debug)]
pub struct Orders(SyncSender<Order>);

impl Orders {
    /// The versions of a script's sources, in their order, read as far as they were not; and why some are
    /// missing. Waits for the thread: not for shards, nor for a thread that has futures to run.
    #[must_use]
    pub fn load(&self, sources: Vec<Source>) -> (Versions, Vec<String>) {
        let (done, results) = mpsc::channel();
        let mut problems = Vec::new();
        for source in &sources {
            let (done, key) = (done.clone(), Arc::new(source.clone()));
            let done: Done = Box::new(move |result| {
                let published = result.map(|version| Published {
                    source: key,
                    version,
                });
                // Who waits has not gone.
                let _ = done.send(published);
            });
            if self.push(Order::Get(source.clone(), done)).is_err() {
                let name = String::from_utf8_lossy(&source.path);
                problems.push(format!("{name}: too many maps are being read"));
            }
        }
        drop(done);
        let mut versions = Versions::new(sources);
        for result in results {
            match result {
                Ok(published) => {
                    versions.take(&published);
                }
                Err(problem) => problems.push(problem),
            }
        }
        (versions, problems)
    }

    /// Gives an order.
    ///
    /// # Errors
    /// Gives it back when too many wait.
    pub fn push(&self, order: Order) -> Result<(), Order> {
        self.0.try_send(order).map_err(|error| match error {
            TrySendError::Full(order) | TrySendError::Disconnected(order) => order,
        })
    }
}

/// Starts the thread. `publish` is called with every version that is new, before who waits for it hears.
///
/// # Errors
/// When the thread cannot be made.
pub fn start(publish: impl Fn(&Published) + Send + 'static) -> io::Result<Orders> {
    let (orders, taken) = mpsc::sync_channel(ORDERS_MAX);
    thread::Builder::new()
        .name("maps".to_owned())
        .spawn(move || {
            let mut store = Store::default();
            let mut next = Instant::now() + LOOK;
            loop {
                let rest = next.saturating_duration_since(Instant::now());
                match taken.recv_timeout(rest) {
                    Ok(order) => obey(&mut store, order, &publish),
                    Err(RecvTimeoutError::Timeout) => {
                        store.look().iter().for_each(&publish);
                        next = Instant::now() + LOOK;
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
    Ok(Orders(orders))
}

fn obey(store: &mut Store, order: Order, publish: &impl Fn(&Published)) {
    let (source, result, done) = match order {
        Order::Get(source, done) => return done(store.get(&source)),
        Order::Retain(used) => return store.retain(&used),
        Order::Reload(source, done) => {
            let result = store.reload(&source);
            (source, result, done)
        }
        Order::Append(source, line, done) => {
            let result = store.append(&source, &line);
            (source, result, done)
        }
    };
    if let Ok(version) = &result {
        publish(&Published {
            source: Arc::new(source),
            version: version.clone(),
        });
    }
    done(result);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::router::relation::source::{Parsed, Syntax};
    use crate::router::relation::{Held, Kind, MapId, Maps};
    use crate::sys::replace::{Rights, replace};

    fn compile(path: &std::path::Path, text: &str) {
        let bytes = Parsed::read(text.as_bytes(), Syntax::Keyed)
            .compile()
            .unwrap();
        let rights = Rights {
            owner: None,
            mode: 0o644,
        };
        replace(path, &bytes, rights).unwrap();
    }

    fn value(versions: &Versions, key: &str) -> Option<String> {
        let Ok(Held::Lent(version)) = versions.map(MapId(0)) else {
            return None;
        };
        let value = version.map.get(key.as_bytes())?.into_owned();
        Some(String::from_utf8(value).unwrap())
    }

    /// Aliases that were compiled anew must be used without a restart.
    #[test]
    fn a_replaced_map_reaches_who_uses_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aliases.cdb");
        let source = Source {
            kind: Kind::Compiled("cdb"),
            path: path.as_os_str().as_bytes().to_vec(),
            second: None,
            watched: true,
        };
        let (told, published) = mpsc::channel();
        let orders = start(move |new: &Published| told.send(new.clone()).unwrap()).unwrap();
        let mut versions = Versions::new(vec![source.clone()]);
        assert!(versions.map(MapId(0)).is_err());
        let (done, result) = mpsc::channel();
        let get = |done: mpsc::Sender<bool>| -> Done {
            Box::new(move |result| done.send(result.is_ok()).unwrap())
        };
        orders
            .push(Order::Get(source.clone(), get(done.clone())))
            .unwrap();
        assert!(!result.recv().unwrap(), "it is not there yet");
        for round in ["one", "two"] {
            compile(&path, &format!("k {round}\n"));
            let new = published.recv_timeout(Duration::from_secs(60)).unwrap();
            assert!(versions.take(&new));
            assert_eq!(value(&versions, "k").as_deref(), Some(round));
        }
        // What is no map leaves the one that was there.
        fs::write(&path, "rubbish").unwrap();
        orders
            .push(Order::Reload(source.clone(), get(done.clone())))
            .unwrap();
        assert!(!result.recv().unwrap());
        orders
            .push(Order::Get(source.clone(), get(done.clone())))
            .unwrap();
        assert!(result.recv().unwrap());
        orders.push(Order::Retain(Vec::new())).unwrap();
        orders.push(Order::Get(source, get(done))).unwrap();
        assert!(!result.recv().unwrap());
        assert!(published.try_recv().is_err());
    }
    #[test]
    fn a_script_gets_all_its_maps_and_hears_which_are_missing() {
        let dir = tempfile::tempdir().unwrap();
        let source = |name: &str| Source {
            kind: Kind::Unordered,
            path: dir.path().join(name).as_os_str().as_bytes().to_vec(),
            second: None,
            watched: true,
        };
        for name in ["a", "c"] {
            fs::write(dir.path().join(name), format!("k {name}\n")).unwrap();
        }
        let orders = start(|_: &Published| {}).unwrap();
        let (versions, problems) = orders.load(["a", "b", "c"].map(source).to_vec());
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("b: No such file"), "{problems:?}");
        assert_eq!(value(&versions, "k").as_deref(), Some("a"));
        assert!(versions.map(MapId(1)).is_err());
        assert_eq!(versions.map(MapId(2)).unwrap().version().map.count(), 1);
        let (none, problems) = orders.load(Vec::new());
        assert!(none.sources().is_empty() && problems.is_empty());
    }
}
