//! Accounts and groups, as of passwd(5) and group(5).

use std::fs;
use std::path::PathBuf;

use crate::router::request::{Account, Failure};

use super::file::failure;

/// The account files.
#[derive(Clone, Debug)]
pub struct Accounts {
    passwd: PathBuf,
    group: PathBuf,
}

impl Accounts {
    /// The system's.
    #[must_use]
    pub fn system() -> Self {
        Self::of("/etc/passwd".into(), "/etc/group".into())
    }

    /// Of these files.
    #[must_use]
    pub fn of(passwd: PathBuf, group: PathBuf) -> Self {
        Self { passwd, group }
    }

    pub(super) fn by_name(&self, name: &[u8]) -> Result<Option<Account>, Failure> {
        self.find(|account| account.name == name)
    }

    pub(super) fn by_number(&self, number: u32) -> Result<Option<Account>, Failure> {
        self.find(|account| account.user == number)
    }

    fn find(&self, fits: impl Fn(&Account) -> bool) -> Result<Option<Account>, Failure> {
        let text = fs::read(&self.passwd).map_err(|error| failure(b"passwd", &error))?;
        let accounts = text.split(|byte| *byte == b'\n').filter_map(account);
        Ok(accounts.into_iter().find(fits))
    }

    pub(super) fn members(&self, name: &[u8]) -> Result<Option<Vec<Vec<u8>>>, Failure> {
        let text = fs::read(&self.group).map_err(|error| failure(b"group", &error))?;
        let mut lines = text.split(|byte| *byte == b'\n').map(fields);
        let Some(line) = lines.find(|fields| fields[0] == name) else {
            return Ok(None);
        };
        let members = line.get(3).copied().unwrap_or_default();
        let members = members
            .split(|byte| *byte == b',')
            .filter(|member| !member.is_empty());
        Ok(Some(members.map(<[u8]>::to_vec).collect()))
    }
}

fn fields(line: &[u8]) -> Vec<&[u8]> {
    line.split(|byte| *byte == b':').collect()
}

fn account(line: &[u8]) -> Option<Account> {
    let fields = fields(line);
    let [name, _, user, _, full_name, home, ..] = fields.as_slice() else {
        return None;
    };
    Some(Account {
        name: name.to_vec(),
        user: std::str::from_utf8(user).ok()?.parse().ok()?,
        full_name: full_name.to_vec(),
        home: home.to_vec(),
    })
}
