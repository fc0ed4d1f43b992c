//! Accounts and groups for scripts: those of the system, and users that have a mailbox only.

use std::io;

use super::file::failure;
use crate::control::users::Users;
use crate::router::message;
use crate::router::request::{Account, Failure};
use crate::sys::accounts;

pub(super) fn by_name(name: &[u8], users: Option<&Users>) -> Result<Option<Account>, Failure> {
    let user = match users {
        Some(users) => users.find_name(name).map_err(|error| failed(&error))?,
        None => None,
    };
    if let Some(user) = user {
        let account = user.account.map(converted);
        return Ok(Some(account.unwrap_or_else(|| without_account(name))));
    }
    let Ok(text) = std::str::from_utf8(name) else {
        return Ok(None);
    };
    let found = accounts::by_name(text).map_err(|error| failed(&error))?;
    Ok(found.map(converted))
}

pub(super) fn by_number(number: u32) -> Result<Option<Account>, Failure> {
    let found = accounts::by_uid(number).map_err(|error| failed(&error))?;
    Ok(found.map(converted))
}

pub(super) fn members(name: &[u8]) -> Result<Option<Vec<Vec<u8>>>, Failure> {
    let Ok(text) = std::str::from_utf8(name) else {
        return Ok(None);
    };
    let found = accounts::group(text).map_err(|error| failed(&error))?;
    let members = found.map(|group| group.members.into_iter());
    Ok(members.map(|members| members.map(String::into_bytes).collect()))
}

/// Somebody whose mailbox was made without an account has nobody's rights, and no home.
fn without_account(name: &[u8]) -> Account {
    Account {
        name: name.to_vec(),
        user: message::Settings::default().nobody,
        full_name: Vec::new(),
        home: b"/nonexistent".to_vec(),
    }
}

fn converted(account: accounts::Account) -> Account {
    Account {
        name: account.name.into_bytes(),
        user: account.uid,
        full_name: account.full_name.into_bytes(),
        home: account.home.into_bytes(),
    }
}

fn failed(error: &io::Error) -> Failure {
    failure(b"accounts", error)
}
