//! The sending end: small SMTP clients that take turns.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::connection::{Connection, Fate};
use crate::ledger::{Ledger, Times};
use crate::message::{Book, Content};
use crate::options::Load;
use crate::pace::{Turn, Turns};

/// What all clients share.
struct Source {
    to: SocketAddr,
    load: Load,
    ledger: Arc<Ledger>,
    turns: Turns,
    book: Book,
}

/// Sends everything; ends when each message has been acknowledged or refused.
pub(crate) async fn send(to: SocketAddr, load: Load, ledger: Arc<Ledger>) -> io::Result<()> {
    let source = Rc::new(Source {
        to,
        turns: Turns::new(&load),
        book: Book::new(load.seed),
        ledger,
        load,
    });
    let tasks: Vec<_> = (0..source.load.connections)
        .map(|_| {
            let source = Rc::clone(&source);
            tokio_uring::spawn(async move { client(&source).await })
        })
        .collect();
    let mut result = Ok(());
    for task in tasks {
        let ended = task.await.map_err(io::Error::other).and_then(|ended| ended);
        result = result.and(ended);
    }
    result
}

async fn client(source: &Source) -> io::Result<()> {
    let mut connection: Option<Connection> = None;
    while let Some(turn) = source.turns.next().await {
        let mut open = match connection.take() {
            Some(open) => open,
            None => Connection::open(source.to).await?,
        };
        one(source, turn, &mut open).await?;
        if source.load.no_reuse {
            open.quit().await?;
        } else {
            connection = Some(open);
        }
    }
    match connection {
        Some(open) => open.quit().await,
        None => Ok(()),
    }
}

async fn one(source: &Source, turn: Turn, connection: &mut Connection) -> io::Result<()> {
    let Source {
        load, ledger, book, ..
    } = source;
    let number = turn.number;
    let begun = Instant::now();
    let content = Content::new(book, load.seed, number, load.size_of(number));
    let bytes = content.len();
    match connection.message(number, load, content).await? {
        Fate::Acknowledged(but) => {
            let times = times(turn.due, begun, Instant::now());
            ledger.acknowledged(number, &but, bytes, times);
        }
        Fate::Refused(reply) => ledger.refused(&reply),
    }
    Ok(())
}

/// Latency counts from when the message was due, if it was, so what it waited for a free connection
/// is part of it.
fn times(due: Option<Instant>, begun: Instant, acknowledged: Instant) -> Times {
    Times {
        latency: acknowledged.saturating_duration_since(due.unwrap_or(begun)),
        service: acknowledged.saturating_duration_since(begun),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn waiting_for_a_free_connection_counts_in_an_open_loop_only() {
        let due = Instant::now();
        let begun = due + Duration::from_millis(400);
        let acknowledged = begun + Duration::from_millis(3);
        let open = times(Some(due), begun, acknowledged);
        assert_eq!(open.latency, Duration::from_millis(403));
        assert_eq!(open.service, Duration::from_millis(3));
        let closed = times(None, begun, acknowledged);
        assert_eq!(closed.latency, closed.service);
    }
}
