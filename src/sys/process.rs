//! Identity of the process.

#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::accounts;

/// A user of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Main group.
    pub gid: u32,
}

/// Identity could not be changed.
#[derive(Debug)]
pub enum UserError {
    /// No such user.
    Unknown(String),
    /// A call was refused.
    Refused(&'static str, io::Error),
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "daemon.user: there is no user {name:?}"),
            Self::Refused(call, error) => write!(f, "{call}: {error}"),
        }
    }
}

/// Whether this process is root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user of a name.
///
/// # Errors
/// When there is none, or it cannot be found out now.
pub fn user(name: &str) -> Result<User, UserError> {
    let account = accounts::by_name(name)
        .map_err(|error| UserError::Refused("getpwnam_r", error))?
        .ok_or_else(|| UserError::Unknown(name.to_owned()))?;
    Ok(User {
        uid: account.uid,
        gid: account.gid,
    })
}

/// From now on writing to a pipe that nobody reads ends the process, as users of `| head` expect. Not
/// for a daemon: a client that goes away must not end it.
pub fn end_at_broken_pipe() {
    // SAFETY: the default action is a valid handler, and no other thread exists yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// The name of the user this process runs as, if the system knows it.
#[must_use]
pub fn own_name() -> Option<String> {
    let account = accounts::by_uid(rustix::process::geteuid().as_raw());
    account.ok().flatten().map(|account| account.name)
}

/// While it lives, this thread (and no other) acts on files as a user; root gets its rights back
/// afterwards. Groups beside the main one count for nobody.
#[derive(Debug)]
pub struct Acting(());

impl Acting {
    /// # Errors
    /// When the kernel does not let this thread be that user.
    pub fn begin(user: User) -> io::Result<Self> {
        let acting = Self(());
        set_file_ids(user);
        if file_ids() == user {
            Ok(acting)
        } else {
            Err(io::Error::from_raw_os_error(libc::EPERM))
        }
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        // Taking root's identity back is always allowed to a thread whose real identity it is.
        set_file_ids(User { uid: 0, gid: 0 });
    }
}

/// Whether it was done says [`file_ids`] only (setfsuid(2)).
fn set_file_ids(user: User) {
    // SAFETY: numbers only; these calls concern the calling thread alone.
    unsafe {
        // The group needs root's rights, which go with the user and come with him.
        if user.uid == 0 {
            libc::setfsuid(user.uid);
            libc::setfsgid(user.gid);
        } else {
            libc::setfsgid(user.gid);
            libc::setfsuid(user.uid);
        }
    }
}

/// The kernel gives back the identity before; an impossible one changes nothing.
fn file_ids() -> User {
    const ASK: u32 = u32::MAX;
    // SAFETY: numbers only; these calls concern the calling thread alone.
    let (uid, gid) = unsafe { (libc::setfsuid(ASK), libc::setfsgid(ASK)) };
    User {
        uid: uid as u32,
        gid: gid as u32,
    }
}

/// Gives up all groups beside the main one.
///
/// # Errors
/// When it is refused.
pub fn drop_groups() -> io::Result<()> {
    // SAFETY: an empty list of groups; no memory is passed.
    if unsafe { libc::setgroups(0, std::ptr::null()) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Lets SIGTERM, SIGINT and SIGHUP pass without effect from now on.
pub fn ignore_stop_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: the call takes numbers only; SIG_IGN runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Makes a command another user's: his rights and no groups beside the main one, when one is given; a session of its
/// own, so that all it starts can be ended with it; the signals that this process ignores; a mask that keeps the files
/// it makes to its user.
pub fn set_apart(command: &mut Command, user: Option<User>) {
    if let Some(user) = user {
        // The standard library gives up all other groups with that, and ends the child where it cannot.
        command.uid(user.uid).gid(user.gid);
    }
    let prepare = || {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPIPE] {
            // SAFETY: signal(2) is allowed between fork and exec, and takes numbers only.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        // SAFETY: umask(2) takes a number and cannot fail.
        unsafe { libc::umask(0o077) };
        // SAFETY: setsid(2) takes nothing; the new process leads no group yet.
        if unsafe { libc::setsid() } == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls only: it takes no memory and no lock.
    unsafe { command.pre_exec(prepare) };
}

/// Becomes `user` for good: supplementary groups, group, user, in this order, all threads.
///
/// # Errors
/// When a call is refused; the process must not go on then.
pub fn become_user(user: User) -> Result<(), UserError> {
    let check = |call, result: i32| {
        if result == 0 {
            Ok(())
        } else {
            Err(UserError::Refused(call, io::Error::last_os_error()))
        }
    };
    // SAFETY: an empty list of groups; no memory is passed.
    check("setgroups", unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: no memory is passed.
    check("setgid", unsafe { libc::setgid(user.gid) })?;
    // SAFETY: no memory is passed.
    check("setuid", unsafe { libc::setuid(user.uid) })
}
