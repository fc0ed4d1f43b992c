//! Which users this host has: accounts of the system, and mailboxes that are there.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::mail::mailbox;
use crate::sys::process::{self, Account};

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
    /// There is such a user.
    pub known: bool,
}

/// How long a user who was found is known...
const KNOWN_FOR: Duration = Duration::from_secs(10);

/// ... and how long one who was not is unknown: a new one should not wait.
const UNKNOWN_FOR: Duration = Duration::from_secs(1);

/// Answers remembered.
const ANSWERS_MAX: usize = 10_000;

/// By address: until when it holds, and the user.
type Answers = HashMap<Vec<u8>, (Instant, Option<Found>)>;

/// The users of this host, with a short memory: with some sources of accounts a look-up costs a hundred
/// system calls.
#[derive(Debug)]
pub struct Users {
    template: String,
    answers: Mutex<Answers>,
}

impl Users {
    /// For a template of a mailbox's path.
    #[must_use]
    pub fn new(template: &str) -> Self {
        Self {
            template: template.to_owned(),
            answers: Mutex::default(),
        }
    }

    /// See [`find`].
    #[must_use]
    pub fn find(&self, address: &[u8]) -> Option<Found> {
        let now = Instant::now();
        if let Some((until, found)) = self.answers().get(address)
            && *until > now
        {
            return found.clone();
        }
        let found = find(&self.template, address);
        let time = if found.is_some() {
            KNOWN_FOR
        } else {
            UNKNOWN_FOR
        };
        let mut answers = self.answers();
        if answers.len() >= ANSWERS_MAX {
            answers.clear();
        }
        answers.insert(address.to_vec(), (now + time, found.clone()));
        found
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The user an address of this host means: by its whole local part, else by what stands before `+`.
/// The postmaster always has a mailbox (RFC 5321 4.5.1). May take its time.
#[must_use]
pub fn find(template: &str, address: &[u8]) -> Option<Found> {
    let (user, domain) = mailbox::user_and_domain(address)?;
    let exact = look_up(template, &user, &domain);
    exact.or_else(|| look_up(template, mailbox::without_detail(&user)?, &domain))
}

fn look_up(template: &str, user: &str, domain: &str) -> Option<Found> {
    let account = process::account_of(user);
    let home = account.as_ref().map_or("", |account| account.home.as_str());
    let path = mailbox::path(template, user, domain, home);
    let known = account.is_some()
        || user == "postmaster" && !template.contains("{home}")
        || (!template.contains("{home}") && path.is_dir());
    known.then(|| Found {
        user: user.to_owned(),
        path,
        account,
    })
}
