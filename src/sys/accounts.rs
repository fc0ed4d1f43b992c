//! Accounts and groups, from wherever this host has them (nsswitch.conf(5)). Each call may take its time:
//! the answer can come from afar.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;

/// What the system knows of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// The first part of the comment field, `&` replaced.
    pub full_name: String,
    /// Home directory.
    pub home: String,
    /// User id.
    pub uid: u32,
    /// Main group.
    pub gid: u32,
}

/// What the system knows of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Group id.
    pub gid: u32,
    /// Login names of those whose main group is another.
    pub members: Vec<String>,
}

/// The account of a user id; none: there is none.
///
/// # Errors
/// When it cannot be found out now.
pub fn by_uid(uid: u32) -> io::Result<Option<Account>> {
    look_up(
        |entry, buffer, found| {
            // SAFETY: entry, buffer and found live as long as the call; the length is the buffer's own.
            unsafe { libc::getpwuid_r(uid, entry, buffer.as_mut_ptr().cast(), buffer.len(), found) }
        },
        account,
    )
}

/// The account of a login name; none: there is none.
///
/// # Errors
/// When it cannot be found out now.
pub fn by_name(name: &str) -> io::Result<Option<Account>> {
    let Ok(text) = CString::new(name) else {
        return Ok(None);
    };
    look_up(
        |entry, buffer, found| {
            let (bytes, len) = (buffer.as_mut_ptr().cast(), buffer.len());
            // SAFETY: as in `by_uid`; the name is a C string that outlives the call.
            unsafe { libc::getpwnam_r(text.as_ptr(), entry, bytes, len, found) }
        },
        account,
    )
}

/// The group of a name; none: there is none.
///
/// # Errors
/// When it cannot be found out now.
pub fn group(name: &str) -> io::Result<Option<Group>> {
    let Ok(name) = CString::new(name) else {
        return Ok(None);
    };
    look_up(
        |entry, buffer, found| {
            let (bytes, len) = (buffer.as_mut_ptr().cast(), buffer.len());
            // SAFETY: as in `by_uid`; the name is a C string that outlives the call.
            unsafe { libc::getgrnam_r(name.as_ptr(), entry, bytes, len, found) }
        },
        |entry: &libc::group| Group {
            gid: entry.gr_gid,
            members: texts(entry.gr_mem),
        },
    )
}

/// Calls with more and more room until what is found fits.
fn look_up<Entry, Found>(
    call: impl Fn(*mut Entry, &mut [u8], *mut *mut Entry) -> i32,
    convert: impl Fn(&Entry) -> Found,
) -> io::Result<Option<Found>> {
    const BUFFER_BYTES_MAX: usize = 16 << 20;
    let mut buffer = vec![0_u8; 4096];
    loop {
        let mut entry = std::mem::MaybeUninit::<Entry>::zeroed();
        let mut found = std::ptr::null_mut();
        match call(entry.as_mut_ptr(), &mut buffer, &raw mut found) {
            libc::ERANGE if buffer.len() < BUFFER_BYTES_MAX => {
                buffer.resize(buffer.len() * 4, 0);
            }
            // What sources of accounts say when there is no such entry (getpwnam_r(3)).
            0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM if found.is_null() => {
                return Ok(None);
            }
            // SAFETY: the call says that it has filled the entry, whose texts are in the buffer.
            0 => return Ok(Some(convert(unsafe { &*found }))),
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

fn account(entry: &libc::passwd) -> Account {
    let name = text(entry.pw_name);
    let comment = text(entry.pw_gecos);
    let full_name = comment.split(',').next().unwrap_or_default();
    Account {
        full_name: full_name.replace('&', &name),
        home: text(entry.pw_dir),
        uid: entry.pw_uid,
        gid: entry.pw_gid,
        name,
    }
}

fn text(pointer: *const libc::c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: called for the fields of a found entry only: C strings inside the buffer, which is alive.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_string_lossy().into_owned()
}

/// Of a list that ends with a null pointer.
fn texts(list: *const *mut libc::c_char) -> Vec<String> {
    let mut texts = Vec::new();
    if list.is_null() {
        return texts;
    }
    for at in 0.. {
        // SAFETY: called for the list of a found entry only, and nothing behind its end is read.
        let pointer = unsafe { *list.add(at) };
        if pointer.is_null() {
            break;
        }
        texts.push(text(pointer));
    }
    texts
}
