//! New settings for a running shard.

use std::sync::Arc;

use super::Shard;
use crate::io::Driver;
use crate::policy::Policy;
use crate::protocol::{client, server};
use crate::router::Router;
use crate::scheduler::Rule;

/// What can change while a shard runs. Sessions and connections that are open keep what they began
/// with; so do vertices: a message that has been routed stays where it waits.
pub struct Reload {
    /// The router.
    pub router: Box<dyn Router + Send>,
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
}

impl<D: Driver> Shard<D> {
    /// Takes new settings, the latest if there are several.
    pub(super) fn take_reload(&mut self) {
        while let Some(reload) = self.outside.reloads.pop() {
            let Reload {
                router,
                policies,
                services,
                client,
                lmtp,
                rules,
                transaction_recipients_max,
            } = *reload;
            self.router = router;
            self.policies = policies;
            self.settings.services = services;
            self.settings.client = client;
            self.settings.lmtp = lmtp;
            self.settings.transaction_recipients_max = transaction_recipients_max;
            self.scheduler.set_rules(rules);
        }
    }
}
