//! With whose rights a program runs and a file is written.
//!
//! The router gives every address the number of an account. Root's becomes the one that the settings name, so nothing
//! that stands in a file ever runs as root. An agent that is not root has its own rights only: what needs others waits
//! until somebody starts the daemon as root.

use std::io;

use super::maildir::Owner;
use crate::control::users::UNSURE;
use crate::sys::accounts::{self, Account};
use crate::sys::process::{self, User};

/// An account, and whether we have to become it.
#[derive(Debug)]
pub(super) struct Rights {
    pub(super) account: Account,
    change: bool,
}

impl Rights {
    /// Of an address with this privilege; `instead` is the account in the place of root.
    ///
    /// # Errors
    /// Why not, as a reply: a temporary one, since all of it can be put right.
    pub(super) fn of(privilege: u32, instead: &str) -> Result<Self, String> {
        if !process::is_root() {
            return Self::own(privilege);
        }
        let account = match privilege {
            0 => known(accounts::by_name(instead))?.ok_or_else(|| {
                format!("451 4.3.5 there is no account {instead} (transport.program.user)")
            })?,
            user => of_number(user)?,
        };
        if account.uid == 0 {
            return Err(
                "451 4.3.5 root delivers to no program and no file (transport.program.user)"
                    .to_owned(),
            );
        }
        Ok(Self {
            account,
            change: true,
        })
    }

    fn own(privilege: u32) -> Result<Self, String> {
        let own = rustix::process::geteuid().as_raw();
        if privilege != own {
            return Err(format!(
                "451 4.3.5 this needs the rights of user {privilege}; the daemon was not started as root and has those \
                 of user {own} only"
            ));
        }
        let account = of_number(own)?;
        Ok(Self {
            account,
            change: false,
        })
    }

    /// Whom we have to become, if anybody.
    pub(super) fn user(&self) -> Option<User> {
        self.change.then_some(User {
            uid: self.account.uid,
            gid: self.account.gid,
        })
    }

    /// The owner of what is written.
    pub(super) fn owner(&self) -> Option<Owner> {
        self.user().map(Owner)
    }
}

fn of_number(user: u32) -> Result<Account, String> {
    known(accounts::by_uid(user))?
        .ok_or_else(|| format!("451 4.3.5 no account has the number {user}"))
}

fn known(found: io::Result<Option<Account>>) -> Result<Option<Account>, String> {
    found.map_err(|_| UNSURE.to_owned())
}
