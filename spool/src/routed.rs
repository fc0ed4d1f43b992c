//! The recipients that rounds have made, packed: a list has hundred thousand of them, and a message that is being
//! delivered keeps them all.

use std::fmt;

/// A recipient that a round has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// The recipient of the envelope that it comes from.
    pub of: u32,
    /// Of [`Routing::groups`](crate::Routing::groups).
    pub group: u32,
    /// Of [`Routing::hops`](crate::Routing::hops).
    pub hop: u32,
    /// With whose rights it is delivered.
    pub privilege: Option<u32>,
    /// As in the envelope.
    pub notify: u8,
    /// As in the envelope.
    pub orcpt: Option<Box<[u8]>>,
    /// What the next hop gets.
    pub user: Box<[u8]>,
}

/// The same where it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutedRef<'a> {
    /// See [`Routed`].
    pub of: u32,
    /// See [`Routed`].
    pub group: u32,
    /// See [`Routed`].
    pub hop: u32,
    /// See [`Routed`].
    pub privilege: Option<u32>,
    /// See [`Routed`].
    pub notify: u8,
    /// See [`Routed`].
    pub orcpt: Option<&'a [u8]>,
    /// See [`Routed`].
    pub user: &'a [u8],
}

/// RoutedRecipients by number. No more than a record can hold, whose size is bounded.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RoutedRecipients {
    /// Full blocks of [`BLOCK_COUNT`], but for the last one.
    blocks: Vec<Vec<u8>>,
    len: usize,
}

/// RoutedRecipients of a block: one is found by walking over those before it in its block.
const BLOCK_COUNT: usize = 16;

/// Most original recipients that a list makes are this and the address itself.
const RFC822: &[u8] = b"rfc822;";

const NO_ORCPT: u8 = 0;
const IS_USER: u8 = 1;
const OTHER: u8 = 2;

impl RoutedRecipients {
    /// Appends a recipient.
    pub fn push(&mut self, recipient: RoutedRef<'_>) {
        if self.len.is_multiple_of(BLOCK_COUNT) {
            if let Some(full) = self.blocks.last_mut() {
                full.shrink_to_fit();
            }
            self.blocks.push(Vec::new());
        }
        if let Some(block) = self.blocks.last_mut() {
            put(recipient, block);
        }
        self.len += 1;
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<RoutedRef<'_>> {
        let mut rest = self.blocks.get(index / BLOCK_COUNT)?.as_slice();
        for _ in 0..index % BLOCK_COUNT {
            take(&mut rest)?;
        }
        take(&mut rest)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = RoutedRef<'_>> {
        self.blocks.iter().flat_map(|block| {
            let mut rest = block.as_slice();
            std::iter::from_fn(move || take(&mut rest))
        })
    }
}

impl FromIterator<Routed> for RoutedRecipients {
    fn from_iter<I: IntoIterator<Item = Routed>>(recipients: I) -> Self {
        let mut list = Self::default();
        for recipient in recipients {
            list.push(recipient.borrowed());
        }
        list
    }
}

impl Routed {
    /// Without its own memory.
    #[must_use]
    pub fn borrowed(&self) -> RoutedRef<'_> {
        RoutedRef {
            of: self.of,
            group: self.group,
            hop: self.hop,
            privilege: self.privilege,
            notify: self.notify,
            orcpt: self.orcpt.as_deref(),
            user: &self.user,
        }
    }
}

impl fmt::Debug for RoutedRecipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn put(recipient: RoutedRef<'_>, out: &mut Vec<u8>) {
    for number in [recipient.of, recipient.group, recipient.hop] {
        put_number(out, number.into());
    }
    // One more than the number; 0 is none.
    put_number(
        out,
        recipient.privilege.map_or(0, |user| u64::from(user) + 1),
    );
    out.push(recipient.notify);
    match recipient.orcpt {
        None => {
            out.push(NO_ORCPT);
            put_text(out, &[recipient.user]);
        }
        Some(orcpt) if orcpt.strip_prefix(RFC822) == Some(recipient.user) => {
            out.push(IS_USER);
            put_text(out, &[orcpt]);
        }
        Some(orcpt) => {
            out.push(OTHER);
            put_text(out, &[orcpt]);
            put_text(out, &[recipient.user]);
        }
    }
}

/// The next recipient of a block; none at its end.
fn take<'a>(rest: &mut &'a [u8]) -> Option<RoutedRef<'a>> {
    let (of, group, hop) = (take_u32(rest)?, take_u32(rest)?, take_u32(rest)?);
    let privilege = take_number(rest)?.checked_sub(1);
    let notify = take_byte(rest)?;
    let kind = take_byte(rest)?;
    let text = take_text(rest)?;
    let (orcpt, user) = match kind {
        NO_ORCPT => (None, text),
        IS_USER => (Some(text), text.get(RFC822.len()..)?),
        _ => (Some(text), take_text(rest)?),
    };
    Some(RoutedRef {
        of,
        group,
        hop,
        privilege: privilege.and_then(|user| u32::try_from(user).ok()),
        notify,
        orcpt,
        user,
    })
}

/// Seven bits in each byte, the lowest first.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8 & 0x7f) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_text(out: &mut Vec<u8>, parts: &[&[u8]]) {
    put_number(out, parts.iter().map(|part| part.len() as u64).sum());
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    let (byte, behind) = rest.split_first()?;
    *rest = behind;
    Some(*byte)
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(rest)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    u32::try_from(take_number(rest)?).ok()
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_number(rest)?).ok()?;
    let (text, behind) = rest.split_at_checked(len)?;
    *rest = behind;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(number: u32) -> Routed {
        let user = format!("member{number}@c.example");
        let orcpt = match number % 3 {
            0 => None,
            1 => Some(format!("rfc822;{user}")),
            _ => Some("rfc822;x@y".to_owned()),
        };
        Routed {
            of: number / 7,
            group: number % 200,
            hop: number * 1000,
            privilege: [None, Some(0), Some(u32::MAX)][number as usize % 3],
            notify: number as u8,
            orcpt: orcpt.map(|orcpt| orcpt.into_bytes().into()),
            user: user.into_bytes().into(),
        }
    }

    #[test]
    fn recipients_come_back_by_number() {
        for count in [0, 1, BLOCK_COUNT as u32, 1000] {
            let list: RoutedRecipients = (0..count).map(routed).collect();
            assert_eq!(list.len() as u32, count);
            assert_eq!(list.is_empty(), count == 0);
            for number in 0..count {
                let expected = routed(number);
                assert_eq!(list.get(number as usize), Some(expected.borrowed()));
            }
            assert_eq!(list.get(count as usize), None);
            assert_eq!(list.iter().count() as u32, count);
            let users = list.iter().enumerate().map(|(at, found)| (at, found.user));
            for (at, user) in users {
                assert_eq!(user, &*routed(at as u32).user);
            }
        }
    }
}
