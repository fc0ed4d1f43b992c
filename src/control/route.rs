//! What routers ask from outside, and who answers: files, accounts, names, databases. The control thread hands each
//! question to a thread that may wait.

use std::fmt;
use std::sync::Arc;

use crate::router::{Reply, Request};

/// A question of a shard's router.
#[derive(Debug)]
pub struct RouteQuestion {
    /// The shard that waits.
    pub shard: u16,
    /// Comes back in [`RouteAnswer`].
    pub token: u64,
    /// What is asked.
    pub request: Request,
}

/// The answer.
#[derive(Debug)]
pub struct RouteAnswer {
    /// Of the question.
    pub token: u64,
    /// What was found out; the error is a temporary one.
    pub reply: Reply,
}

/// Answers questions; it may take its time.
#[derive(Clone)]
pub struct Oracle(pub Arc<dyn Fn(&Request) -> Reply + Send + Sync>);

impl fmt::Debug for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Oracle")
    }
}

impl Default for Oracle {
    /// Knows nothing.
    fn default() -> Self {
        Self(Arc::new(
            |_| Err("nobody answers such questions".to_owned()),
        ))
    }
}
