//! Answers to what look-ups ask outside.

use std::sync::Arc;

use super::bind;
use super::engines::Engines;
use super::own::OwnAddresses;
use crate::control::resolver::Resolver;
use crate::router::relation::{Question, Reply};

/// Whoever can be asked.
pub struct Answers {
    resolver: Arc<Resolver>,
    own: OwnAddresses,
    engines: Engines,
}

impl Answers {
    /// With a resolver, and the addresses that are ours.
    #[must_use]
    pub fn new(resolver: Arc<Resolver>, own: OwnAddresses) -> Self {
        Self {
            resolver,
            own,
            engines: Engines::default(),
        }
    }

    /// Answers; in the time that name servers and databases take, which their clients limit.
    pub async fn answer(&self, question: &Question) -> Reply {
        match question {
            Question::Bind { record, name } => {
                bind::answer(&self.resolver, &self.own, *record, name).await
            }
            Question::SelfMatch { address } => match self.own.find(address) {
                Some(code) => Reply::Text(code.as_bytes().to_vec(), Some(0)),
                None => Reply::Missing(Some(0)),
            },
            Question::Engine {
                engine,
                config,
                section,
                key,
            } => self.engines.answer(*engine, config, section, key).await,
        }
    }
}
