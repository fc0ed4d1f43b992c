//! LDAP, with the words of ZMailer's files:
//!
//! ```text
//! uri ldap://HOST:PORT   or ldaphost and ldapport; ldaps:// encrypted; ldapi:// for a socket of this host
//! start_tls yes|no       an ldap:// connection is encrypted before anything is said over it
//! base DN                where the search begins
//! scope base|one|sub     sub when not given
//! filter TEXT            (mail=%s): %s stands for the key, with what would be syntax escaped (RFC 4515 3)
//! attr NAME              its values are the value of the key
//! binddn DN              who asks; anonymous when not given
//! passwd TEXT            its password; or passwd_file
//! ```
//!
//! SASL is refused rather than ignored. Without encryption use a socket of this host or a network that is
//! trusted.

use ldap3::{
    Ldap, LdapConnAsync, LdapConnSettings, LdapError, LdapResult, Scope, SearchEntry, ldap_escape,
};

use super::{Kept, Said, Settings, join, tls};

/// Words that ask for what there is not, and their values that ask for nothing.
const REFUSED: &[(&str, &[&str])] = &[("authmethod", &["simple"]), ("sasl_mech", &[])];

/// A connection that has said who it is.
pub(super) type Connection = Ldap;

pub(super) async fn ask(
    kept: &Kept<Connection>,
    config: &[u8],
    settings: &Settings,
    key: &[u8],
) -> Said {
    for (word, harmless) in REFUSED {
        if let Some(value) = settings.find(word)
            && !harmless.contains(&value.to_ascii_lowercase().as_str())
        {
            return Err(format!("{word} {value} is not supported"));
        }
    }
    // Attributes are texts; a key that is none matches nothing.
    let Ok(key) = std::str::from_utf8(key) else {
        return Ok(None);
    };
    let known = kept.find(config, settings);
    let reused = known.is_some();
    let result = match known {
        Some(connection) => search(connection, settings, key).await,
        None => first(kept, config, settings, key).await,
    };
    match result {
        Ok(said) => Ok(said),
        // The server may have closed it while it was idle.
        Err(_) if reused => {
            kept.drop(config);
            first(kept, config, settings, key).await
        }
        Err(problem) => Err(problem),
    }
}

async fn first(kept: &Kept<Connection>, config: &[u8], settings: &Settings, key: &str) -> Said {
    let connection = connect(settings).await?;
    let said = search(connection.clone(), settings, key).await?;
    kept.keep(config, settings, connection);
    Ok(said)
}

async fn connect(settings: &Settings) -> Result<Ldap, String> {
    let uri = settings.find("uri").map(str::to_owned).unwrap_or_else(|| {
        let host = settings.find("ldaphost").unwrap_or("localhost");
        let port = settings.find("ldapport").unwrap_or("389");
        format!("ldap://{host}:{port}")
    });
    let starts = settings.switch("start_tls")?.unwrap_or(false);
    let mut options = LdapConnSettings::new()
        .set_conn_timeout(settings.timeout())
        .set_starttls(starts);
    if starts || uri.starts_with("ldaps:") {
        options = options.set_config(tls::config(settings)?);
    }
    let told = |error: LdapError| tls::explain(&error);
    let connected = LdapConnAsync::with_settings(options, &uri).await;
    let (connection, mut ldap) = connected.map_err(told)?;
    // It ends when the last handle is dropped or the server goes.
    tokio::spawn(async move { drop(connection.drive().await) });
    if let Some(name) = settings.find("binddn") {
        let password = match settings.password()? {
            Some(password) => password,
            None => settings.find("passwd").unwrap_or_default().to_owned(),
        };
        let bound = ldap.simple_bind(name, &password).await;
        bound.and_then(LdapResult::success).map_err(told)?;
    }
    Ok(ldap)
}

async fn search(mut connection: Ldap, settings: &Settings, key: &str) -> Said {
    let attribute = settings.need("attr")?;
    let filter = settings.need("filter")?.replace("%s", &ldap_escape(key));
    let scope = match settings.find("scope").unwrap_or("sub") {
        "base" => Scope::Base,
        "one" | "onelevel" => Scope::OneLevel,
        "sub" | "subtree" => Scope::Subtree,
        other => return Err(format!("scope {other} is none of base, one, sub")),
    };
    let base = settings.find("base").unwrap_or_default();
    let found = connection
        .with_timeout(settings.timeout())
        .search(base, scope, &filter, vec![attribute])
        .await
        .map_err(|error| error.to_string())?;
    // 32: there is no such base; that is how some servers say that there is nothing.
    if found.1.rc == 32 {
        return Ok(None);
    }
    let (entries, _) = found.success().map_err(|error| error.to_string())?;
    let mut values = Vec::new();
    for entry in entries {
        let entry = SearchEntry::construct(entry);
        let of = |name: &String| name.eq_ignore_ascii_case(attribute);
        let texts = entry.attrs.into_iter().filter(|(name, _)| of(name));
        values.extend(texts.flat_map(|(_, texts)| texts).map(String::into_bytes));
        let bytes = entry.bin_attrs.into_iter().filter(|(name, _)| of(name));
        values.extend(bytes.flat_map(|(_, bytes)| bytes));
    }
    join(values)
}
