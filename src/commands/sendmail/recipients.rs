//! Who gets the message: the arguments, the header, or both. All of them must be clear, or nobody gets
//! it: a program that is told nothing would believe that everybody has.

use std::collections::HashSet;

use super::options::Options;
use super::{Refusal, refusal};
use crate::commands::exit;
use crate::mail::header::{self, List};
use crate::mail::message_file::FileRecipient;
use crate::protocol::path;

/// The recipients of a message whose header this is.
pub(super) fn of(options: &Options, head: &[u8]) -> Result<Vec<FileRecipient>, Refusal> {
    let mut addresses = Vec::new();
    for argument in &options.recipients {
        addresses.extend(clear(header::addresses(argument), exit::USAGE, "")?);
    }
    // ZMailer and every sendmail: -t, or nobody named, means the header.
    let from_header = options.from_header || options.recipients.is_empty();
    if from_header {
        let list = header::recipients(head);
        addresses.extend(clear(list, exit::DATA, "the header names ")?);
    }
    let mut seen = HashSet::new();
    addresses.retain(|address| seen.insert(address.clone()));
    if addresses.is_empty() {
        return Err(nobody(from_header));
    }
    let notify = options.notify.unwrap_or(0);
    let all = addresses.into_iter().map(|address| FileRecipient {
        address,
        notify,
        orcpt: None,
    });
    Ok(all.collect())
}

fn nobody(from_header: bool) -> Refusal {
    if from_header {
        let text = "no recipients: the header has no To, Cc or Bcc with an address, and none is \
                    named on the command line; the message was not submitted";
        refusal(exit::DATA, text)
    } else {
        let text = "no recipients: the arguments name no address; the message was not submitted";
        refusal(exit::USAGE, text)
    }
}

fn clear(list: List, code: u8, who: &str) -> Result<Vec<Vec<u8>>, Refusal> {
    let bad = list
        .addresses
        .iter()
        .find(|address| !is_address(address))
        .or(list.doubtful.first());
    match bad {
        None => Ok(list.addresses),
        Some(text) => {
            let shown = String::from_utf8_lossy(text).into_owned();
            let text =
                format!("{who}{shown:?}, which is no address; the message was not submitted");
            Err(refusal(code, text))
        }
    }
}

/// Whether an address, or a name of this host, can be used in SMTP.
pub(super) fn is_address(address: &[u8]) -> bool {
    if address.contains(&b'@') {
        return path::check(address, true).is_ok();
    }
    path::check(&[address, b"@localhost"].concat(), true).is_ok()
}
