//! The control socket: one JSON object a line in, one out. Only root and the daemon's own user.

pub(super) mod queue;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::Daemon;
use queue::Inquiries;

/// Longest request line.
const REQUEST_BYTES_MAX: u64 = 64 << 10;

/// Binds the socket; a left-over one is replaced, since the caller holds the postoffice's lock.
pub(super) fn bind(path: &Path) -> io::Result<StdListener> {
    if path.exists() {
        fs::remove_file(path)?;
    }
    let listener = StdListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

pub(super) async fn serve(
    listener: StdListener,
    daemon: Arc<dyn Daemon>,
    inquiries: Rc<Inquiries>,
) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!("control socket: {error}");
            return;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (daemon, inquiries) = (Arc::clone(&daemon), Rc::clone(&inquiries));
                tokio_uring::spawn(async move {
                    if let Err(error) = answer(stream, daemon.as_ref(), &inquiries).await {
                        tracing::debug!("control socket: {error}");
                    }
                });
            }
            Err(error) => {
                tracing::error!("control socket: {error}");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(
    stream: UnixStream,
    daemon: &dyn Daemon,
    inquiries: &Rc<Inquiries>,
) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let allowed = uid == 0 || uid == rustix::process::geteuid().as_raw();
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(REQUEST_BYTES_MAX))
        .read_line(&mut line)
        .await?;
    let reply = match (allowed, serde_json::from_str::<Value>(&line)) {
        (false, _) => json!({ "error": format!("user {uid} may not control this daemon") }),
        (true, Err(error)) => json!({ "error": format!("not a request: {error}") }),
        (true, Ok(request)) if request["command"] == "queue" => {
            queue::serve(&request, daemon, inquiries, &mut writer).await?
        }
        (true, Ok(request)) => obey(&request, daemon),
    };
    writer.write_all(format!("{reply}\n").as_bytes()).await
}

fn obey(request: &Value, daemon: &dyn Daemon) -> Value {
    match request["command"].as_str() {
        Some("status") => json!({ "ok": daemon.status() }),
        Some("stop") => {
            daemon.stop();
            json!({ "ok": true })
        }
        Some("reload") => match daemon.reload() {
            Ok(()) => json!({ "ok": true }),
            Err(text) => json!({ "error": text }),
        },
        _ => json!({ "error": "no such command; allowed: status, stop, reload, queue" }),
    }
}
