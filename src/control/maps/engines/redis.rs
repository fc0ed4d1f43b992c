//! Redis and Valkey: `uri redis://HOST:PORT/DB` (or `unix:PATH`), and one of `key TEXT` or `hash TEXT`, with
//! `.SECTION` for `-t redis,SECTION`. `key aliases:%s` gets the string of that key, in which `%s` stands for
//! what is looked up; `hash aliases` gets the field of that name from the hash.
//!
//! `rediss://` encrypts the connection (see `tls`); without, use a socket of this host or a network that is
//! trusted. The password stands in the URI or, better, in the file of `passwd_file`.

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisError,
};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Kept, Said, Settings, tls};

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
    let mut connection = connect(settings).await?;
    let value = command.query_async(&mut connection).await;
    kept.keep(config, settings, connection);
    value.map_err(|error| error.to_string())
}

async fn connect(settings: &Settings) -> Result<Connection, String> {
    let uri = settings.need("uri")?;
    let (uri, encrypted) = match uri.split_once("://") {
        Some(("rediss" | "valkeys", rest)) => (format!("redis://{rest}"), true),
        _ => (uri.to_owned(), false),
    };
    let told = |error: RedisError| error.to_string();
    let mut info = uri.as_str().into_connection_info().map_err(told)?;
    if let Some(password) = settings.password()? {
        let redis = info.redis_settings().clone().set_password(password);
        info = info.set_redis_settings(redis);
    }
    // Who asks limits the time.
    let options = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None);
    if encrypted {
        return connect_encrypted(settings, &info, options).await;
    }
    let client = Client::open(info).map_err(told)?;
    let connected = client.get_multiplexed_async_connection_with_config(&options);
    connected.await.map_err(told)
}

async fn connect_encrypted(
    settings: &Settings,
    info: &ConnectionInfo,
    options: AsyncConnectionConfig,
) -> Result<Connection, String> {
    let ConnectionAddr::Tcp(host, port) = info.addr() else {
        return Err("uri names no host".to_owned());
    };
    let connector = TlsConnector::from(tls::config(settings)?);
    let name = ServerName::try_from(host.clone()).map_err(|error| format!("{host}: {error}"))?;
    let place = (host.as_str(), *port);
    let stream = TcpStream::connect(place)
        .await
        .map_err(|error| tls::explain(&error))?;
    let stream = connector.connect(name, stream).await;
    let stream = stream.map_err(|error| tls::explain(&error))?;
    let redis = info.redis_settings();
    let (connection, driver) = MultiplexedConnection::new_with_config(redis, stream, options)
        .await
        .map_err(|error| tls::explain(&error))?;
    // It ends when the last handle is dropped or the server goes.
    tokio::spawn(driver);
    Ok(connection)
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
