//! Routing: an address becomes quads of channel, next hop and user.
//!
//! The rest of the relay knows [`Router`] only, so that an interpreter can stand behind it: a step
//! may also say that it needs something from outside.

pub mod builtin;
pub mod code;
pub mod diagnostic;
pub mod loaded;
pub mod machine;
pub mod message;
pub mod next_hop;
pub mod pattern;
pub mod relation;
pub mod request;
pub mod runner;
pub mod stock;
pub mod syntax;
mod table;
pub mod value;

use std::sync::Arc;

pub use table::{BadRoute, Table};

/// What is to be routed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Recipient without brackets.
    pub address: &'a [u8],
    /// Sender without brackets; empty: null.
    pub sender: &'a [u8],
}

/// Where a recipient goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quad {
    /// Transport: `smtp`.
    pub channel: Arc<str>,
    /// Next hop.
    pub host: Arc<str>,
    /// Recipient for the next hop.
    pub user: Vec<u8>,
}

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Routed.
    Done(Vec<Quad>),
    /// Never deliverable: enhanced status and text.
    Failed {
        /// RFC 3463 code.
        status: &'static str,
        /// Why.
        text: String,
    },
}

/// Routes addresses.
pub trait Router {
    /// Routes one recipient.
    fn route(&mut self, request: &Request<'_>) -> Step;
}
