//! Redis and Valkey: `uri redis://HOST:PORT/DB` (or `unix:PATH`), and one of `key TEXT` or `hash TEXT`, with
//! `.SECTION` for `-t redis,SECTION`. `key aliases:%s` gets the string of that key, in which `%s` stands for
//! what is looked up; `hash aliases` gets the field of that name from the hash.
//!
//! Connections are not encrypted: use a socket of this host or a network that is trusted.

use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, RedisError};

use super::{Kept, Said, Settings};

/// One connection serves all questions.
pub(super) type Connection = MultiplexedConnection;

pub(super) async fn ask(
    kept: &Kept<Connection>,
    config: &[u8],
    settings: &Settings,
    section: &[u8],
    key: &[u8],
) -> Said {
    let command = command(settings, section, key)?;
    if let Some(mut connection) = kept.find(config, settings) {
        match command.query_async(&mut connection).await {
            Ok(value) => return Ok(value),
            // The server may have closed it while it was idle.
            Err(error) if is_broken(&error) => kept.drop(config),
            Err(error) => return Err(error.to_string()),
        }
    }
    let uri = settings.need("uri")?;
    let connected = async {
        let client = Client::open(uri)?;
        client.get_multiplexed_async_connection().await
    };
    let mut connection = connected.await.map_err(|error| error.to_string())?;
    let value = command.query_async(&mut connection).await;
    kept.keep(config, settings, connection);
    value.map_err(|error| error.to_string())
}

fn command(settings: &Settings, section: &[u8], key: &[u8]) -> Result<Cmd, String> {
    if let Ok(hash) = settings.of_section("hash", section) {
        return Ok(Cmd::hget(hash, key));
    }
    let pattern = settings
        .of_section("key", section)
        .map_err(|_| "neither key nor hash says what is asked".to_owned())?;
    let mut name = Vec::new();
    for (at, part) in pattern.split("%s").enumerate() {
        if at > 0 {
            name.extend_from_slice(key);
        }
        name.extend_from_slice(part.as_bytes());
    }
    Ok(Cmd::get(name))
}

fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped()
}
