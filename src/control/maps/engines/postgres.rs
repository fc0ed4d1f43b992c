//! PostgreSQL: `connect host=... user=... dbname=...` and `query TEXT`, or `query.SECTION TEXT` for
//! `-t postgres,SECTION`. In the query `$1` stands for the key, a text that is never part of the query's. The
//! first column of the rows is the value; it has to be a text (`::text` makes it one).
//!
//! Connections are not encrypted: use a socket of this host or a network that is trusted.

use std::sync::Arc;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, Statement};

use super::{Kept, Said, Settings, join};

/// A connection and the statement it was made for.
#[derive(Clone)]
pub(super) struct Connection {
    client: Arc<Client>,
    /// By query.
    statements: Vec<(String, Statement)>,
}

pub(super) async fn ask(
    kept: &Kept<Connection>,
    config: &[u8],
    settings: &Settings,
    section: &[u8],
    key: &[u8],
) -> Said {
    let query = settings.of_section("query", section)?;
    // A text of the database cannot hold what is no UTF-8 or has a zero byte.
    let Some(key) = std::str::from_utf8(key)
        .ok()
        .filter(|key| !key.contains('\0'))
    else {
        return Ok(None);
    };
    // A connection that was idle may be gone: then a new one is made, once.
    let known = kept
        .find(config, settings)
        .filter(|known| !known.client.is_closed());
    let reused = known.is_some();
    let result = once(kept, config, settings, query, key, known).await;
    match result {
        Err(error) if reused && error.is_closed() => {
            kept.drop(config);
            once(kept, config, settings, query, key, None).await
        }
        result => result,
    }
    .map_err(|error| {
        kept.drop(config);
        explain(&error)
    })
    .and_then(join)
}

async fn once(
    kept: &Kept<Connection>,
    config: &[u8],
    settings: &Settings,
    query: &str,
    key: &str,
    known: Option<Connection>,
) -> Result<Vec<Vec<u8>>, tokio_postgres::Error> {
    let mut connection = match known {
        Some(connection) => connection,
        None => connect(settings).await?,
    };
    let prepared = connection
        .statements
        .iter()
        .find(|(known, _)| known == query);
    let statement = match prepared {
        Some((_, statement)) => statement.clone(),
        None => {
            let statement = connection
                .client
                .prepare_typed(query, &[Type::TEXT])
                .await?;
            connection
                .statements
                .push((query.to_owned(), statement.clone()));
            kept.keep(config, settings, connection.clone());
            statement
        }
    };
    let rows = connection.client.query(&statement, &[&key]).await?;
    let mut values = Vec::new();
    for row in rows {
        if let Some(text) = row.try_get::<_, Option<String>>(0)? {
            values.push(text.into_bytes());
        }
    }
    Ok(values)
}

async fn connect(settings: &Settings) -> Result<Connection, tokio_postgres::Error> {
    let description = settings.find("connect").unwrap_or_default();
    let (client, connection) = tokio_postgres::connect(description, NoTls).await?;
    // It ends when the client is dropped or the server goes.
    tokio::spawn(connection);
    Ok(Connection {
        client: Arc::new(client),
        statements: Vec::new(),
    })
}

/// The reason behind the error: by itself it only says `db error`.
fn explain(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(reason) => reason.message().to_owned(),
        None => {
            let cause = std::error::Error::source(error);
            cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
        }
    }
}
