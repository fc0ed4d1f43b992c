//! Which users this host has: accounts of the system, and mailboxes that are there.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::mail::mailbox;
use crate::sys::accounts::{self, Account};
use crate::sys::process::User;

/// The reply for everybody else (RFC 3463 X.1.1).
pub const UNKNOWN: &str = "550 5.1.1 no such user here";

/// The reply when it could not be found out.
pub const UNSURE: &str = "451 4.3.0 users cannot be looked up now";

/// A user with a mailbox, or one that can have one.
#[derive(Clone, Debug)]
pub struct Found {
    /// The name, lower case.
    pub user: String,
    /// Where the mailbox is.
    pub path: PathBuf,
    /// The account of that name.
    pub account: Option<Account>,
    /// Without an account: whose the mailbox is that was there.
    pub owner: Option<User>,
}

/// A question about a recipient.
#[derive(Debug)]
pub struct UserQuestion {
    /// The shard that asks.
    pub shard: u16,
    /// Comes back in [`UserAnswer`].
    pub token: u64,
    /// The recipient.
    pub address: Vec<u8>,
}

/// The answer.
#[derive(Debug)]
pub struct UserAnswer {
    /// Of the question.
    pub token: u64,
    /// Whether there is such a user; none: it cannot be found out now.
    pub known: Option<bool>,
}

/// How long a user who was found is known...
const KNOWN_FOR: Duration = Duration::from_secs(10);

/// ... and how long one who was not is unknown: a new one should not wait.
const UNKNOWN_FOR: Duration = Duration::from_secs(1);

/// Answers remembered.
const ANSWERS_MAX: usize = 10_000;

/// By address: until when it holds, and the user.
type Answers = HashMap<String, (Instant, Option<Found>)>;

/// The users of this host, with a short memory: with some sources of accounts a look-up costs a hundred
/// system calls. Each question may take its time.
#[derive(Debug)]
pub struct Users {
    template: String,
    hostname: String,
    answers: Mutex<Answers>,
}

impl Users {
    /// For a template of a mailbox's path, on a host of this name.
    #[must_use]
    pub fn new(template: &str, hostname: &str) -> Self {
        Self {
            template: template.to_owned(),
            hostname: hostname.to_owned(),
            answers: Mutex::default(),
        }
    }

    /// The user an address of this host means: by its whole local part, else by what stands before `+`.
    /// The postmaster always has a mailbox (RFC 5321 4.5.1).
    ///
    /// # Errors
    /// When it cannot be found out now.
    pub fn find(&self, address: &[u8]) -> io::Result<Option<Found>> {
        let Some((user, domain)) = mailbox::user_and_domain(address) else {
            return Ok(None);
        };
        match (self.exact(&user, &domain)?, mailbox::without_detail(&user)) {
            (None, Some(base)) => self.exact(base, &domain),
            (found, _) => Ok(found),
        }
    }

    /// The user of this name, with or without a domain; what is behind `+` is part of the name.
    ///
    /// # Errors
    /// When it cannot be found out now.
    pub fn find_name(&self, name: &[u8]) -> io::Result<Option<Found>> {
        match mailbox::user_and_domain(name) {
            Some((user, domain)) => self.exact(&user, &domain),
            None => Ok(None),
        }
    }

    fn exact(&self, user: &str, domain: &str) -> io::Result<Option<Found>> {
        let domain = if domain.is_empty() {
            &self.hostname
        } else {
            domain
        };
        let address = format!("{user}@{domain}");
        let now = Instant::now();
        if let Some((until, found)) = self.answers().get(&address)
            && *until > now
        {
            return Ok(found.clone());
        }
        let found = look_up(&self.template, user, domain)?;
        let time = if found.is_some() {
            KNOWN_FOR
        } else {
            UNKNOWN_FOR
        };
        let mut answers = self.answers();
        if answers.len() >= ANSWERS_MAX {
            answers.clear();
        }
        answers.insert(address, (now + time, found.clone()));
        Ok(found)
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose mailbox stands there: a Maildir, or a file of many messages. A lock beside one is none.
#[must_use]
pub fn owner_of_mailbox(path: &Path) -> Option<User> {
    let metadata = fs::metadata(path).ok()?;
    let is_lock = path.extension().is_some_and(|of| of == "lock");
    let is_one = metadata.is_dir() || metadata.is_file() && !is_lock;
    is_one.then(|| User {
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

fn look_up(template: &str, user: &str, domain: &str) -> io::Result<Option<Found>> {
    let account = accounts::by_name(user)?;
    let home = account.as_ref().map_or("", |account| account.home.as_str());
    let path = mailbox::path(template, user, domain, home);
    let owner = match account {
        Some(_) => None,
        None => owner_of_mailbox(&path),
    };
    let known = account.is_some()
        || !template.contains("{home}") && (user == "postmaster" || owner.is_some());
    Ok(known.then(|| Found {
        user: user.to_owned(),
        path,
        account,
        owner,
    }))
}
