//! New settings for a running shard.

use std::sync::Arc;

use super::Shard;
use crate::io::Driver;
use crate::policy::Policy;
use crate::protocol::{client, server};
use crate::router::Router;
use crate::scheduler::Rule;

/// Makes a router that stays in one thread.
pub type MakeRouter = Box<dyn FnOnce() -> Box<dyn Router> + Send>;

/// What can change while a shard runs. Sessions and connections that are open keep what they began
/// with; so do vertices: a message that has been routed stays where it waits.
pub struct Reload {
    /// Makes the router, in the thread of its shard.
    pub router: MakeRouter,
    /// Of this configuration: later ones have higher numbers.
    pub generation: u64,
    /// The policy of each listener, by its number.
    pub policies: Vec<Policy>,
    /// Settings of each listener, by its number.
    pub services: Vec<Arc<server::Settings>>,
    /// Settings of outgoing sessions.
    pub client: Arc<client::Settings>,
    /// The same for LMTP.
    pub lmtp: Arc<client::Settings>,
    /// Rules of the scheduler.
    pub rules: Vec<Rule>,
    /// Recipients in one transaction to a next hop.
    pub transaction_recipients_max: usize,
    /// Routings that wait for something from outside, at most.
    pub routings_max: usize,
}

impl<D: Driver> Shard<D> {
    /// Takes new settings, the latest if there are several.
    pub(super) fn take_reload(&mut self) {
        while let Some(reload) = self.outside.reloads.pop() {
            let Reload {
                router,
                generation,
                policies,
                services,
                client,
                lmtp,
                rules,
                transaction_recipients_max,
                routings_max,
            } = *reload;
            // Routings that wait go on with what they began with.
            self.router = router();
            self.generation = generation;
            self.verified.forget();
            self.policies = policies;
            self.settings.services = services;
            self.settings.client = client;
            self.settings.lmtp = lmtp;
            self.settings.transaction_recipients_max = transaction_recipients_max;
            self.settings.routings_max = routings_max;
            self.scheduler.set_rules(rules);
        }
    }
}
