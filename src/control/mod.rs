//! The control thread: what may take its time. Names, the control socket, signals, the space of the spool,
//! files in `postman/`. Beside it the pick-up thread, for files in `router/`. Shards reach it through bounded
//! queues and never wait for it.

pub mod client;
pub mod maps;
pub mod pickup;
pub mod postman;
pub mod queue;
pub mod resolver;
pub mod route;
pub mod script;
mod server;
pub mod space;
mod thread;
pub mod users;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use postman::{Kept, Place, Undeliverable};
use resolver::{Answer, Question, Resolver};
pub use thread::StartError;

/// Requests of all shards that wait for the control thread.
const REQUESTS_MAX: usize = 4096;

/// What shards ask for.
#[derive(Debug)]
pub enum Request {
    /// The addresses of a name.
    Resolve(Question),
    /// A file in `postman/`.
    Keep(Undeliverable),
    /// An answer about the queue.
    Page(queue::Page),
    /// Whether there is a user.
    User(users::UserQuestion),
    /// What a router needs to know.
    Route(route::RouteQuestion),
}

/// Where answers go.
pub trait Answers: Send + Sync {
    /// Hands an answer to the shard that asked.
    fn resolved(&self, shard: u16, answer: Answer);
    /// Hands an answer to the shard that asked.
    fn kept(&self, shard: u16, kept: Kept);
    /// Hands an answer to the shard that asked.
    fn known(&self, shard: u16, answer: users::UserAnswer);
    /// Hands an answer to the shard that asked.
    fn found_out(&self, shard: u16, answer: route::RouteAnswer);
}

/// What an operator or a signal asks of the daemon.
pub trait Daemon: Send + Sync {
    /// Drain and stop; a second time: stop now.
    fn stop(&self);

    /// Read the settings again, open the mail logs again.
    ///
    /// # Errors
    /// Everything that is wrong with the settings; the old ones stay.
    fn reload(&self) -> Result<(), String>;

    /// How many shards there are.
    fn shards(&self) -> usize;

    /// Asks a shard about its queue. False: it has too many questions waiting.
    fn inquire(&self, shard: usize, inquiry: queue::Inquiry) -> bool;

    /// The status object of the interface.
    fn status(&self) -> Value;
}

/// The queue to the control thread.
#[derive(Debug)]
pub struct Requests {
    queue: ArrayQueue<Request>,
    notify: Notify,
}

impl Requests {
    /// Puts a request in.
    ///
    /// # Errors
    /// Gives it back when the queue is full.
    pub fn push(&self, request: Request) -> Result<(), Request> {
        self.queue.push(request)?;
        self.notify.notify_one();
        Ok(())
    }
}

/// What the control thread is made from.
pub struct Setup {
    /// Path of the control socket.
    pub socket: PathBuf,
    /// The directory for undeliverable messages.
    pub postman: PathBuf,
    /// The directory for messages whose routing was stopped.
    pub deferred: PathBuf,
    /// Who answers routers.
    pub oracle: route::Oracle,
    /// Name servers; empty: those of the system.
    pub dns_servers: Vec<SocketAddr>,
    /// This host's name.
    pub hostname: String,
    /// Template of a mailbox's path.
    pub mailboxes: String,
    /// Who watches the space of the spool.
    pub space: space::Watch,
    /// Where answers go.
    pub answers: Arc<dyn Answers>,
    /// Whom signals and commands concern.
    pub daemon: Arc<dyn Daemon>,
}

/// A queue for [`start`].
#[must_use]
pub fn requests() -> Arc<Requests> {
    Arc::new(Requests {
        queue: ArrayQueue::new(REQUESTS_MAX),
        notify: Notify::new(),
    })
}

/// Starts the control thread. It ends with the process.
///
/// # Errors
/// When the control socket cannot be bound, or the thread or its ring not be made.
pub fn start(setup: Setup, requests: Arc<Requests>) -> Result<(), StartError> {
    let path = setup.socket.display();
    let socket = server::bind(&setup.socket)
        .map_err(|error| StartError::Thread(format!("{path}: {error}")))?;
    // Shards begin with what there is.
    setup.space.look();
    thread::start("control", move || serve(setup, requests, socket))
}

async fn serve(setup: Setup, requests: Arc<Requests>, socket: std::os::unix::net::UnixListener) {
    let daemon = Arc::clone(&setup.daemon);
    let inquiries = Rc::new(server::queue::Inquiries::default());
    let users = Arc::new(users::Users::new(&setup.mailboxes, &setup.hostname));
    let serving = server::serve(socket, Arc::clone(&daemon), Rc::clone(&inquiries));
    tokio_uring::spawn(serving);
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        tokio_uring::spawn(watch_signal(kind, Arc::clone(&daemon), |daemon| {
            daemon.stop()
        }));
    }
    let reload = |daemon: &dyn Daemon| {
        // The log has what is wrong.
        let _ = daemon.reload();
    };
    tokio_uring::spawn(watch_signal(
        SignalKind::hangup(),
        Arc::clone(&daemon),
        reload,
    ));
    tokio_uring::spawn(setup.space.run());
    let resolver = Arc::new(Resolver::new(&setup.dns_servers, &setup.hostname));
    loop {
        while let Some(request) = requests.queue.pop() {
            match request {
                Request::Resolve(question) => {
                    let (resolver, answers) = (Arc::clone(&resolver), Arc::clone(&setup.answers));
                    tokio_uring::spawn(async move {
                        let result = resolver.resolve(&question.lookup).await;
                        answers.resolved(
                            question.shard,
                            Answer {
                                token: question.token,
                                result,
                            },
                        );
                    });
                }
                Request::Page(page) => inquiries.answer(page),
                Request::User(question) => {
                    let (users, answers) = (Arc::clone(&users), Arc::clone(&setup.answers));
                    // Accounts may be asked for over the network.
                    tokio::task::spawn_blocking(move || {
                        let found = users.find(&question.address).inspect_err(|error| {
                            let address = String::from_utf8_lossy(&question.address);
                            tracing::warn!("user {address}: {error}");
                        });
                        let known = found.ok().map(|found| found.is_some());
                        let token = question.token;
                        answers.known(question.shard, users::UserAnswer { token, known });
                    });
                }
                Request::Route(question) => find_out(&setup.oracle, &setup.answers, question),
                Request::Keep(message) => {
                    let dirs = [&setup.postman, &setup.deferred];
                    keep(dirs, &*setup.answers, &message);
                }
            }
        }
        requests.notify.notified().await;
    }
}

/// Routers ask for what may take its time.
fn find_out(oracle: &route::Oracle, answers: &Arc<dyn Answers>, question: route::RouteQuestion) {
    let (oracle, answers) = (oracle.clone(), Arc::clone(answers));
    tokio::task::spawn_blocking(move || {
        let reply = (oracle.0)(&question.request);
        let token = question.token;
        answers.found_out(question.shard, route::RouteAnswer { token, reply });
    });
}

fn keep([postman, deferred]: [&PathBuf; 2], answers: &dyn Answers, message: &Undeliverable) {
    let dir = match message.place {
        Place::Deferred(_) => deferred,
        Place::Failed | Place::Copy(..) => postman,
    };
    let result = postman::keep(dir, message).map_err(|error| error.to_string());
    let token = message.token;
    answers.kept(message.shard, Kept { token, result });
}

async fn watch_signal(kind: SignalKind, daemon: Arc<dyn Daemon>, act: impl Fn(&dyn Daemon)) {
    match signal(kind) {
        Ok(mut stream) => {
            while stream.recv().await.is_some() {
                act(daemon.as_ref());
            }
        }
        Err(error) => tracing::error!("signals cannot be watched: {error}"),
    }
}
