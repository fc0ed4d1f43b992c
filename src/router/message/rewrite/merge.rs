//! What stands in the place of an address after a function gave another one.

use super::fields::Job;
use crate::mail::address::{Member, members};
use crate::mail::quote;

/// What to do with what a function gave.
pub(super) enum Merged {
    Same,
    Bad,
    New(Vec<u8>),
}

/// Takes the new address into the surroundings of the old one.
pub(super) fn merged(given: &[u8], job: &Job, text: &[u8]) -> Merged {
    let given = given.trim_ascii();
    if *given == *job.place.text(text) {
        return Merged::Same;
    }
    if given.iter().any(u8::is_ascii_control) {
        return Merged::Bad;
    }
    let mut insert = if quote::is_address(given) {
        given.to_vec()
    } else {
        // A function may give a display name too, where none stands there already.
        let mut all = members(given);
        match (all.next(), all.next()) {
            (Some(Member::Address(address)), None) if address.closed && address.bracketed => {
                if job.place.bracketed {
                    address.text(given).into_owned()
                } else {
                    given.to_vec()
                }
            }
            _ => return Merged::Bad,
        }
    };
    if insert.starts_with(b"@") && !job.place.bracketed {
        insert = [b"<", insert.as_slice(), b">"].concat();
    }
    for comment in job.place.comments(text) {
        insert.push(b' ');
        insert.extend_from_slice(comment);
    }
    Merged::New(insert)
}
