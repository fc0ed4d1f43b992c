//! A script that runs to its end on the calling thread, with everything it asks answered at once.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::Local;
use crate::base::clock::Now;
use crate::control::maps::{Answers, Live, OwnAddresses};
use crate::control::resolver::Resolver;
use crate::router::machine::{Evaluation, Limit, Turn};
use crate::router::request::{Answer, Failure, Request};

/// What answers a script that waits.
pub struct Session {
    local: Local,
    maps: Rc<Live>,
    answers: Answers,
    runtime: tokio::runtime::Runtime,
    started: Instant,
}

impl Session {
    /// With these rights, this resolver and these addresses of our own besides those of the interfaces.
    ///
    /// # Errors
    /// When there are no resources for it.
    pub fn new(local: Local, resolver: Arc<Resolver>, own: OwnAddresses) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            local,
            maps: Rc::default(),
            answers: Answers::new(resolver, own),
            runtime,
            started: Instant::now(),
        })
    }

    /// For a tool: with the system's name servers.
    ///
    /// # Errors
    /// See [`Self::new`].
    pub fn for_tool(local: Local) -> io::Result<Self> {
        let hostname = String::from_utf8_lossy(&super::hostname()).into_owned();
        let resolver = Arc::new(Resolver::new(&[], &hostname));
        Self::new(local, resolver, OwnAddresses::new(Vec::new()))
    }

    /// The maps of the scripts that it has run.
    #[must_use]
    pub fn maps(&self) -> &Live {
        &self.maps
    }

    /// The same, to look things up while the session answers.
    pub(super) fn maps_handle(&self) -> Rc<Live> {
        Rc::clone(&self.maps)
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            mono_ns: u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Runs what the evaluation has before it; its status.
    ///
    /// # Errors
    /// The limit that it reached.
    pub fn run(&mut self, evaluation: &mut Evaluation) -> Result<i32, Limit> {
        loop {
            match evaluation.run(&*self.maps, self.now()) {
                Turn::Done(status) => return Ok(status),
                Turn::Stopped(limit) => return Err(limit),
                Turn::More => {}
                Turn::Need(request) => {
                    let answer = self.answer(request);
                    evaluation.answer(answer);
                }
            }
        }
    }

    /// The answer to a request.
    pub fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Ask(question) => {
                let answers = &self.answers;
                Answer::Reply(self.runtime.block_on(answers.answer(&question)))
            }
            Request::Map(request) => {
                Answer::Done(self.maps.obey(&request).map_err(|text| Failure {
                    missing: false,
                    temporary: false,
                    text,
                }))
            }
            request => self.local.answer(request),
        }
    }
}
