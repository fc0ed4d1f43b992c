//! One who answers what look-ups ask outside, as the control thread does.

use std::net::SocketAddr;
use std::sync::Arc;

use zmailer::control::maps::{Answers, OwnAddresses};
use zmailer::control::resolver::Resolver;
use zmailer::router::relation::{Question, Reply};

/// Connections to databases live as long as this.
pub struct Outside {
    runtime: tokio::runtime::Runtime,
    answers: Answers,
}

impl Outside {
    /// With this name server.
    pub fn new(dns: SocketAddr) -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let resolver = Arc::new(Resolver::new(&[dns], "mx.test.example"));
        Self {
            runtime: builder.enable_all().build().expect("resources"),
            answers: Answers::new(resolver, OwnAddresses::default()),
        }
    }

    /// Asks and waits.
    pub fn answer(&self, question: &Question) -> Reply {
        self.runtime.block_on(self.answers.answer(question))
    }
}
