//! Identity of the process.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fmt;
use std::io;

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
/// When there is none.
pub fn user(name: &str) -> Result<User, UserError> {
    let unknown = || UserError::Unknown(name.to_owned());
    let text = CString::new(name).map_err(|_| unknown())?;
    // SAFETY: the text is a C string that outlives the call; the entry is read before any other
    // call, and this runs before other threads exist.
    let entry = unsafe { libc::getpwnam(text.as_ptr()).as_ref() };
    entry
        .map(|entry| User {
            uid: entry.pw_uid,
            gid: entry.pw_gid,
        })
        .ok_or_else(unknown)
}

/// The name of the user this process runs as, if the system knows it.
#[must_use]
pub fn own_name() -> Option<String> {
    let uid = rustix::process::geteuid().as_raw();
    // SAFETY: the entry is read before any other call, and this runs before other threads exist.
    let entry = unsafe { libc::getpwuid(uid).as_ref()? };
    // SAFETY: the name of an entry is a C string, valid until the next call.
    let name = unsafe { std::ffi::CStr::from_ptr(entry.pw_name) };
    name.to_str().ok().map(str::to_owned)
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
