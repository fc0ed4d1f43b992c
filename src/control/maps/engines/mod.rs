//! Databases of others. Each is a feature of the build; one that is missing cannot be named in a script.
//!
//! A relation names a file, by `-C` or `-f`, of lines `word value`; lines that begin with `#` and empty ones
//! are comments. The file is read at each question, so a change counts at once; a connection is kept as long
//! as the file stays the same. Words of all:
//!
//! ```text
//! timeout SECONDS     longest wait for an answer, connecting included; 5 when not given, 60 at most
//! passwd_file FILE    where the password stands, the first line; nobody but owner and group may read it
//! ```
//!
//! What fails is a temporary failure, `IO:error`, and logged when the reason changes. No text of ours has the
//! value of a word that may be secret. A connection that was silent for too long is not used again.

#[cfg(feature = "ldap")]
mod ldap;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "tls")]
mod tls;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::router::relation::{Engine, Reply};

/// Largest file of settings.
const SETTINGS_BYTES_MAX: usize = 64 << 10;

/// Longest value; further rows are an error, not a value cut short.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "ldap"))]
const VALUE_BYTES_MAX: usize = 1 << 20;

/// Connections to the databases that scripts name.
#[derive(Default)]
pub(super) struct Engines {
    #[cfg(feature = "ldap")]
    ldap: Kept<ldap::Connection>,
    #[cfg(feature = "postgres")]
    postgres: Kept<postgres::Connection>,
    #[cfg(feature = "redis")]
    redis: Kept<redis::Connection>,
    problems: Mutex<HashMap<Vec<u8>, String>>,
}

/// What a database says: a value, nothing, or why it says nothing.
type Said = Result<Option<Vec<u8>>, String>;

impl Engines {
    /// Asks one.
    pub(super) async fn answer(
        &self,
        engine: Engine,
        config: &[u8],
        section: &[u8],
        key: &[u8],
    ) -> Reply {
        let said = match Settings::read(config) {
            Ok(settings) => {
                let limit = settings.timeout();
                let said = self.ask(engine, config, &settings, section, key);
                match tokio::time::timeout(limit, said).await {
                    Ok(said) => said,
                    Err(_) => {
                        self.disconnect(config);
                        Err(format!("no answer within {} s", limit.as_secs()))
                    }
                }
            }
            Err(problem) => Err(problem),
        };
        self.tell(config, said.as_ref().err());
        match said {
            Ok(Some(value)) => Reply::Text(value, None),
            Ok(None) => Reply::Missing(None),
            Err(_) => Reply::Later(b"IO:error".to_vec()),
        }
    }

    async fn ask(
        &self,
        engine: Engine,
        config: &[u8],
        settings: &Settings,
        section: &[u8],
        key: &[u8],
    ) -> Said {
        // Without any of the features nothing is used.
        let _ = (config, settings, section, key);
        match engine {
            #[cfg(feature = "sqlite")]
            Engine::Sqlite => sqlite::ask(settings, section, key).await,
            #[cfg(feature = "postgres")]
            Engine::Postgres => postgres::ask(&self.postgres, config, settings, section, key).await,
            #[cfg(feature = "ldap")]
            Engine::Ldap => ldap::ask(&self.ldap, config, settings, key).await,
            #[cfg(feature = "redis")]
            Engine::Redis => redis::ask(&self.redis, config, settings, section, key).await,
            #[allow(unreachable_patterns)]
            _ => Err("is not part of this build".to_owned()),
        }
    }

    /// Forgets the connections of a file: the next question makes a new one.
    fn disconnect(&self, config: &[u8]) {
        let _ = config;
        #[cfg(feature = "ldap")]
        self.ldap.drop(config);
        #[cfg(feature = "postgres")]
        self.postgres.drop(config);
        #[cfg(feature = "redis")]
        self.redis.drop(config);
    }

    /// Logs a problem when it is another one than before.
    fn tell(&self, config: &[u8], problem: Option<&String>) {
        let mut problems = lock(&self.problems);
        let name = String::from_utf8_lossy(config);
        match problem {
            None => {
                if problems.remove(config).is_some() {
                    tracing::info!("{name}: the database answers again");
                }
            }
            Some(problem) if problems.get(config) != Some(problem) => {
                tracing::error!("{name}: {problem}");
                problems.insert(config.to_vec(), problem.clone());
            }
            Some(_) => {}
        }
    }
}

/// Connections by the file that describes them, each with what the file said.
#[allow(dead_code)]
struct Kept<C>(Mutex<HashMap<Vec<u8>, (Settings, C)>>);

impl<C> Default for Kept<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[allow(dead_code)]
impl<C: Clone> Kept<C> {
    fn find(&self, config: &[u8], settings: &Settings) -> Option<C> {
        let kept = lock(&self.0);
        let (before, connection) = kept.get(config)?;
        (before == settings).then(|| connection.clone())
    }

    fn keep(&self, config: &[u8], settings: &Settings, connection: C) {
        lock(&self.0).insert(config.to_vec(), (settings.clone(), connection));
    }

    fn drop(&self, config: &[u8]) {
        lock(&self.0).remove(config);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The words of a file of settings.
#[derive(Clone, PartialEq, Eq)]
struct Settings(Vec<(String, String)>);

impl fmt::Debug for Settings {
    /// Without values: some are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(word, _)| word))
            .finish()
    }
}

#[allow(dead_code)]
impl Settings {
    fn read(path: &[u8]) -> Result<Self, String> {
        use std::os::unix::ffi::OsStrExt;
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path));
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        if text.len() > SETTINGS_BYTES_MAX {
            return Err(format!("is larger than {SETTINGS_BYTES_MAX} bytes"));
        }
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut words = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((word, value)) = line.split_once(char::is_whitespace) else {
                // The line may be a password with a wrong sign behind its word.
                return Err(format!(
                    "{}:1: a word and its value are expected",
                    number + 1
                ));
            };
            words.push((word.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Self(words))
    }

    fn find(&self, word: &str) -> Option<&str> {
        let row = self.0.iter().find(|(known, _)| known == word);
        row.map(|(_, value)| value.as_str())
    }

    fn need(&self, word: &str) -> Result<&str, String> {
        self.find(word).ok_or_else(|| format!("{word} is missing"))
    }

    /// `WORD.SECTION` for a relation with a section, else `WORD`.
    fn of_section(&self, word: &str, section: &[u8]) -> Result<&str, String> {
        if section.is_empty() {
            return self.need(word);
        }
        let section = String::from_utf8_lossy(section).to_ascii_lowercase();
        self.need(&format!("{word}.{section}"))
    }

    /// Whether a word says yes; none: it is not there.
    fn switch(&self, word: &str) -> Result<Option<bool>, String> {
        let Some(value) = self.find(word) else {
            return Ok(None);
        };
        match value.to_ascii_lowercase().as_str() {
            "yes" | "on" | "true" | "1" => Ok(Some(true)),
            "no" | "off" | "false" | "0" => Ok(Some(false)),
            _ => Err(format!("{word} is neither yes nor no")),
        }
    }

    /// The password that `passwd_file` names.
    fn password(&self) -> Result<Option<String>, String> {
        let Some(file) = self.find("passwd_file") else {
            return Ok(None);
        };
        let failed = |why: &dyn fmt::Display| format!("passwd_file {file}: {why}");
        let is = std::fs::metadata(file).map_err(|error| failed(&error))?;
        if std::os::unix::fs::MetadataExt::mode(&is) & 0o007 != 0 {
            return Err(failed(&"anybody may read or change it; chmod o= helps"));
        }
        if is.len() > SETTINGS_BYTES_MAX as u64 {
            return Err(failed(&"is too large"));
        }
        let text = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
        Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
    }

    fn timeout(&self) -> Duration {
        let seconds = self.find("timeout").and_then(|text| text.parse().ok());
        Duration::from_secs(seconds.unwrap_or(5).clamp(1, 60))
    }
}

/// Several values in one text, as aliases have them.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "ldap"))]
fn join(values: impl IntoIterator<Item = Vec<u8>>) -> Said {
    let mut joined: Option<Vec<u8>> = None;
    for value in values {
        match &mut joined {
            None => joined = Some(value),
            Some(joined) => {
                joined.extend_from_slice(b", ");
                joined.extend_from_slice(&value);
            }
        }
        if joined
            .as_ref()
            .is_some_and(|joined| joined.len() > VALUE_BYTES_MAX)
        {
            return Err(format!("a value of more than {VALUE_BYTES_MAX} bytes"));
        }
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let settings =
            Settings::parse("# c\nBase\to=X, c=Y\n\nquery.b SELECT 1\ntimeout 300\n").unwrap();
        assert_eq!(settings.need("base"), Ok("o=X, c=Y"));
        assert_eq!(settings.of_section("query", b"B"), Ok("SELECT 1"));
        assert_eq!(
            settings.of_section("query", b""),
            Err("query is missing".to_owned())
        );
        assert_eq!(settings.timeout().as_secs(), 60);
        assert_eq!(
            Settings::parse("a b\nalone\n"),
            Err("2:1: a word and its value are expected".to_owned())
        );
    }

    #[test]
    fn secrets_are_read_from_files_and_told_to_nobody() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        let text = format!("passwd tell-nobody\npasswd_file {}\n", file.display());
        let settings = Settings::parse(&text).unwrap();
        assert_eq!(format!("{settings:?}"), r#"["passwd", "passwd_file"]"#);
        let problem = Settings::parse("passwd=tell-nobody\n").unwrap_err();
        assert!(!problem.contains("tell-nobody"), "{problem}");
        assert!(settings.password().unwrap_err().contains("No such file"));
        std::fs::write(&file, "a secret \nsecond line\n").unwrap();
        for (mode, wanted) in [(0o640, Some("a secret ")), (0o644, None), (0o602, None)] {
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
            let password = settings.password().ok().flatten();
            assert_eq!(password.as_deref(), wanted, "{mode:o}");
        }
        assert_eq!(Settings::parse("").unwrap().password(), Ok(None));
        let rows = [("yes", Ok(Some(true))), ("OFF", Ok(Some(false)))];
        for (value, wanted) in rows {
            let settings = Settings::parse(&format!("tls {value}")).unwrap();
            assert_eq!(settings.switch("tls"), wanted);
        }
        let odd = Settings::parse("tls maybe").unwrap();
        assert!(odd.switch("tls").is_err());
        assert_eq!(odd.switch("other"), Ok(None));
    }
}
