//! PostgreSQL: `connect host=... user=... dbname=...` and `query TEXT`, or `query.SECTION TEXT` for
//! `-t postgres,SECTION`. In the query `$1` stands for the key, a text that is never part of the query's. The
//! first column of the rows is the value; it has to be a text (`::text` makes it one).
//!
//! `sslmode=require` encrypts the connection and, other than with libpq, verifies the certificate (see `tls`).
//! Without it nothing is encrypted: use a socket of this host or a network that is trusted. The password stands
//! in `connect` or, better, in the file of `passwd_file`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, NoTls, TlsConnect, TlsStream};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, Statement};
use tokio_rustls::{TlsConnector, client};

use super::{Kept, Said, Settings, join, tls};

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
        Err(Problem::Closed(_)) if reused => {
            kept.drop(config);
            once(kept, config, settings, query, key, None).await
        }
        result => result,
    }
    .map_err(|problem| {
        kept.drop(config);
        match problem {
            Problem::Closed(text) | Problem::Other(text) => text,
        }
    })
    .and_then(join)
}

/// Why there is no answer.
enum Problem {
    /// The connection has ended.
    Closed(String),
    Other(String),
}

impl From<tokio_postgres::Error> for Problem {
    fn from(error: tokio_postgres::Error) -> Self {
        // By itself it only says `db error`.
        let text = match error.as_db_error() {
            Some(reason) => reason.message().to_owned(),
            None => tls::explain(&error),
        };
        if error.is_closed() {
            Self::Closed(text)
        } else {
            Self::Other(text)
        }
    }
}

async fn once(
    kept: &Kept<Connection>,
    config: &[u8],
    settings: &Settings,
    query: &str,
    key: &str,
    known: Option<Connection>,
) -> Result<Vec<Vec<u8>>, Problem> {
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

async fn connect(settings: &Settings) -> Result<Connection, Problem> {
    let mut config: Config = settings.find("connect").unwrap_or_default().parse()?;
    if let Some(password) = settings.password().map_err(Problem::Other)? {
        config.password(password);
    }
    let client = if config.get_ssl_mode() == SslMode::Require {
        let encryption = tls::config(settings).map_err(Problem::Other)?;
        let (client, connection) = config.connect(Encrypted(encryption)).await?;
        // It ends when the client is dropped or the server goes.
        tokio::spawn(connection);
        client
    } else {
        // `prefer` would let who stands between choose.
        config.ssl_mode(SslMode::Disable);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        client
    };
    Ok(Connection {
        client: Arc::new(client),
        statements: Vec::new(),
    })
}

/// Makes connections encrypted, for a name.
#[derive(Clone)]
struct Encrypted(Arc<ClientConfig>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Encrypted {
    type Stream = Stream<S>;
    type TlsConnect = To;
    type Error = rustls::pki_types::InvalidDnsNameError;

    fn make_tls_connect(&mut self, host: &str) -> Result<To, Self::Error> {
        let name = ServerName::try_from(host.to_owned())?;
        Ok(To(TlsConnector::from(Arc::clone(&self.0)), name))
    }
}

struct To(TlsConnector, ServerName<'static>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for To {
    type Stream = Stream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { Ok(Stream(self.0.connect(self.1, stream).await?)) })
    }
}

struct Stream<S>(client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
