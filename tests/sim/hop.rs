//! The next hop: takes mail, in as bad a mood as it is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use spool::sim::Rng;
use zmailer::io::sim::{ClientId, SimNet};

/// Chances in a hundred.
#[derive(Clone, Debug, Default)]
pub struct Manners {
    /// 451 to RCPT.
    pub defer: u64,
    /// 451 to the content.
    pub defer_content: u64,
    /// Reset instead of a reply.
    pub reset: u64,
    /// Reset after the content was taken, before it says so.
    pub forget: u64,
}

#[derive(Debug)]
struct Connection {
    id: ClientId,
    input: Vec<u8>,
    content: Option<Vec<u8>>,
    over: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Hop {
    address: SocketAddr,
    pub manners: Manners,
    connections: Vec<Connection>,
    /// Contents by name, each delivery.
    pub delivered: BTreeMap<String, Vec<Vec<u8>>>,
    /// Names of messages that were taken without saying so.
    pub forgotten: Vec<String>,
    pub connections_made: usize,
}

impl Hop {
    pub fn new(address: SocketAddr, manners: Manners) -> Self {
        Self {
            address,
            manners,
            connections: Vec::new(),
            delivered: BTreeMap::new(),
            forgotten: Vec::new(),
            connections_made: 0,
        }
    }

    /// No transaction is under way.
    pub fn idle(&self) -> bool {
        self.connections
            .iter()
            .all(|connection| connection.content.is_none())
    }

    pub fn turn(&mut self, net: &SimNet, rng: &mut Rng) {
        while let Some(id) = net.accept(self.address) {
            self.connections_made += 1;
            net.client_send(id, b"220 hop.example\r\n");
            self.connections.push(Connection {
                id,
                input: Vec::new(),
                content: None,
                over: false,
            });
        }
        let mut connections = std::mem::take(&mut self.connections);
        for connection in &mut connections {
            self.serve(connection, net, rng);
        }
        connections.retain(|connection| !connection.over);
        self.connections = connections;
    }

    fn serve(&mut self, connection: &mut Connection, net: &SimNet, rng: &mut Rng) {
        if net.client_ended(connection.id).is_some() {
            net.client_close(connection.id);
            connection.over = true;
            return;
        }
        connection.input.extend(net.client_received(connection.id));
        while !connection.over
            && let Some(end) = connection.input.iter().position(|byte| *byte == b'\n')
        {
            let line: Vec<u8> = connection.input.drain(..=end).collect();
            if let Some(reply) = self.line(connection, &line, rng) {
                if rng.below(100) < self.manners.reset {
                    net.client_reset(connection.id);
                    connection.over = true;
                } else {
                    net.client_send(connection.id, reply);
                }
            }
        }
    }

    fn line(
        &mut self,
        connection: &mut Connection,
        line: &[u8],
        rng: &mut Rng,
    ) -> Option<&'static [u8]> {
        if let Some(content) = &mut connection.content {
            if line != b".\r\n" {
                content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
                return None;
            }
            let content = connection.content.take()?;
            if rng.below(100) < self.manners.defer_content {
                return Some(b"451 4.3.0 not now\r\n");
            }
            let name = name_of(&content);
            self.delivered
                .entry(name.clone())
                .or_default()
                .push(content);
            if rng.below(100) < self.manners.forget {
                self.forgotten.push(name);
                connection.over = true;
            }
            return Some(b"250 2.0.0 taken\r\n");
        }
        Some(match line.get(..4) {
            Some(b"EHLO") => b"250-hop.example\r\n250 PIPELINING\r\n",
            Some(b"RCPT") if rng.below(100) < self.manners.defer => b"451 4.2.0 later\r\n",
            Some(b"DATA") => {
                connection.content = Some(Vec::new());
                b"354 go on\r\n"
            }
            Some(b"QUIT") => b"221 2.0.0 bye\r\n",
            _ => b"250 2.1.0 fine\r\n",
        })
    }
}

fn name_of(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content);
    let field = text.lines().find_map(|line| line.strip_prefix("X-Name: "));
    field.unwrap_or("nameless").to_owned()
}
