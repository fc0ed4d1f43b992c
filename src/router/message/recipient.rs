//! Deliveries, and how they are packed when there are many.

use std::sync::Arc;

use super::Notary;
use crate::base::records::{Reader, Writer};
use crate::base::sequence::Pack;

/// A delivery: a quad of the script, and the envelope recipient it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Which envelope recipient, from 0.
    pub of: u32,
    /// Channel.
    pub channel: Arc<[u8]>,
    /// Host; `-`: none.
    pub host: Arc<[u8]>,
    /// User: the recipient for the next hop.
    pub user: Box<[u8]>,
    /// The user whose rights it has: attribute `privilege`.
    pub privilege: u32,
    /// Attribute `DSN`, when the script changed it; none: as the envelope says.
    pub notary: Option<Box<Notary>>,
}

impl Pack for Recipient {
    fn pack(&self, record: &mut Vec<u8>) {
        record.number(self.of.into());
        record.text(&self.channel);
        record.text(&self.host);
        record.text(&self.user);
        record.number(self.privilege.into());
        if let Some(notary) = &self.notary {
            record.push(notary.notify);
            record.push(notary.detached.into());
            orcpt::put(record, notary.orcpt.as_deref(), &self.user);
        }
    }

    fn unpack(record: &mut Reader<'_>, before: Option<&Self>) -> Self {
        let of = record.number() as u32;
        let channel = shared(record.text(), before.map(|before| &before.channel));
        let host = shared(record.text(), before.map(|before| &before.host));
        let user: Box<[u8]> = record.text().into();
        let privilege = record.number() as u32;
        let notary = (!record.is_at_end()).then(|| {
            let notify = record.number() as u8;
            let detached = record.number() != 0;
            Box::new(Notary {
                notify,
                detached,
                orcpt: orcpt::take(record, &user),
            })
        });
        Self {
            of,
            channel,
            host,
            user,
            privilege,
            notary,
        }
    }
}

fn shared(text: &[u8], before: Option<&Arc<[u8]>>) -> Arc<[u8]> {
    match before {
        Some(before) if **before == *text => Arc::clone(before),
        _ => text.into(),
    }
}

/// Original recipients in packed form: most of those that a list makes are the address itself.
pub(in crate::router) mod orcpt {
    use crate::base::records::{Reader, Writer};

    const NONE: u8 = 0;
    const IS_USER: u8 = 1;
    const OTHER: u8 = 2;

    const RFC822: &[u8] = b"rfc822;";

    pub(in crate::router) fn put(record: &mut Vec<u8>, orcpt: Option<&[u8]>, user: &[u8]) {
        match orcpt {
            None => record.push(NONE),
            Some(orcpt) if orcpt.strip_prefix(RFC822) == Some(user) => record.push(IS_USER),
            Some(orcpt) => {
                record.push(OTHER);
                record.text(orcpt);
            }
        }
    }

    pub(in crate::router) fn take(record: &mut Reader<'_>, user: &[u8]) -> Option<Vec<u8>> {
        match record.number() as u8 {
            IS_USER => Some([RFC822, user].concat()),
            OTHER => Some(record.text().to_vec()),
            _ => None,
        }
    }
}
