//! What the settings of `zmailer.toml` mean to the routing script.

use std::sync::Arc;
use std::time::Duration;

use super::{Configuration, Local, Permission};
use crate::config::Config;
use crate::control::users::Users;
use crate::router::machine::Limits;

impl Configuration {
    /// Of these settings, on a host of this name.
    #[must_use]
    pub fn of(config: &Config, hostname: &str) -> Self {
        let router = &config.router;
        let mut limits = Limits::default().with_steps(router.steps_max);
        limits.depth_max = router.depth_max;
        limits.bytes_max = usize::try_from(router.memory_bytes).unwrap_or(usize::MAX);
        Self {
            script: router.config.clone(),
            directory: router.directory.clone(),
            hostname: hostname.to_owned(),
            default_route: router.default_route.clone(),
            local_domains: router.local_domains.clone(),
            routes: router.routes.clone(),
            has_users: true,
            users_by_domain: config.mailboxes.contains("{domain}"),
            limits,
        }
    }
}

impl Local {
    /// Answers routing scripts with what these settings allow. Who has a mailbox is a user, with an account
    /// or without.
    #[must_use]
    pub fn of(config: &Config, users: Option<Arc<Users>>) -> Self {
        let permission = if config.router.programs {
            Permission::Everything
        } else {
            Permission::NoPrograms
        };
        let time = Duration::from_nanos(config.router.program_time_ns);
        Self {
            users,
            ..Self::new(permission, time)
        }
    }
}
