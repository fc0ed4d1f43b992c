//! What a shard is told at its start.

use std::path::PathBuf;
use std::sync::Arc;

use crate::protocol::{client, server};

/// Settings of one shard.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Number of this shard, from 0.
    pub shard: u16,
    /// This host's name.
    pub hostname: String,
    /// Settings of each listener, by its number.
    pub services: Vec<Arc<server::Settings>>,
    /// Settings of outgoing sessions.
    pub client: Arc<client::Settings>,
    /// The same for LMTP.
    pub lmtp: Arc<client::Settings>,
    /// The socket of the mailbox agent.
    pub mailbox_socket: PathBuf,
    /// Content in memory, in bytes.
    pub memory_bytes: usize,
    /// Clients served at a time.
    pub sessions_max: usize,
    /// Connections to next hops at a time.
    pub connections_max: usize,
    /// Recipients in one transaction to a next hop.
    pub transaction_recipients_max: usize,
    /// Routings that wait for something from outside, at most.
    pub routings_max: usize,
}
