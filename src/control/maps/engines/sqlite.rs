//! SQLite, a library: `file PATH` and `query TEXT`, or `query.SECTION TEXT` for `-t sqlite,SECTION`. In the
//! query `?1` stands for the key, which is never part of its text. The first column of the rows is the value.
//!
//! The file is opened for each question, for reading only: it may be replaced at any time.

use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::{Said, Settings, join};

/// How long a writer may keep us waiting.
const BUSY: Duration = Duration::from_secs(2);

pub(super) async fn ask(settings: &Settings, section: &[u8], key: &[u8]) -> Said {
    let file = settings.need("file")?.to_owned();
    let query = settings.of_section("query", section)?.to_owned();
    let key = key.to_vec();
    let asked = tokio::task::spawn_blocking(move || {
        look_up(&file, &query, &key).map_err(|error| format!("{file}: {error}"))
    });
    let rows = asked.await.map_err(|error| error.to_string())??;
    join(rows)
}

fn look_up(file: &str, query: &str, key: &[u8]) -> rusqlite::Result<Vec<Vec<u8>>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(BUSY)?;
    let mut statement = connection.prepare(query)?;
    // A key that is no text cannot equal one.
    let key = String::from_utf8_lossy(key);
    let mut rows = statement.query([&*key])?;
    let mut values = Vec::new();
    while let Some(row) = rows.next()? {
        match row.get_ref(0)? {
            ValueRef::Null => {}
            ValueRef::Integer(number) => values.push(number.to_string().into_bytes()),
            ValueRef::Real(number) => values.push(number.to_string().into_bytes()),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => values.push(bytes.to_vec()),
        }
    }
    Ok(values)
}
