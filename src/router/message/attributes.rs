//! Attribute lists: the variables that quads name, with the privilege and the reports wanted.

use super::script::{Script, Value};
use super::{EnvelopeRecipient, Facts, Notary};
use crate::mail::message_file::{notify, notify_words};

/// What is read from an attribute list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// `privilege`, if it is a number of a user.
    pub(super) privilege: Option<u32>,
    /// `ERR`.
    pub(super) errors_to: Option<Vec<u8>>,
    /// `DSN`.
    pub(super) dsn: Option<Vec<u8>>,
    /// Whether `DSNr` or `DSNe` is there.
    pub(super) has_envelope: bool,
}

impl Attributes {
    /// Reads what the last element of a quad names: a variable, or the list itself.
    pub(super) fn of<S: Script>(script: &S, named: Option<S::Value>) -> Self {
        let Some(named) = named else {
            return Self::default();
        };
        let list = match named.text() {
            Some(name) => script.variable(name),
            None => Some(named),
        };
        list.map(|list| Self::read(&list)).unwrap_or_default()
    }

    fn read<V: Value>(list: &V) -> Self {
        let mut found = Self::default();
        for at in (0..list.count().unwrap_or(0)).step_by(2) {
            let (Some(key), Some(value)) = (list.item(at), list.item(at + 1)) else {
                break;
            };
            let (Some(key), Some(value)) = (key.text(), value.text()) else {
                continue;
            };
            match key {
                b"privilege" => {
                    let number = core::str::from_utf8(value).ok();
                    found.privilege = number.and_then(|text| text.parse().ok());
                }
                b"ERR" if !value.is_empty() => found.errors_to = Some(value.to_vec()),
                b"DSN" => found.dsn = Some(value.to_vec()),
                b"DSNr" | b"DSNe" => found.has_envelope = true,
                _ => {}
            }
        }
        found
    }
}

/// Texts that every message needs: made once, a copy costs a counter.
#[derive(Clone, Debug)]
pub(super) struct Words<V> {
    pub(super) nothing: V,
    pub(super) sender: V,
    pub(super) recipient: V,
    nobody: (u32, V),
    privilege: V,
    kind: V,
    dsn: V,
    ret: V,
    envid: V,
}

impl<V: Value> Words<V> {
    /// `nobody`: the user whose privilege most lists have.
    pub(super) fn new(nobody: u32) -> Self {
        Self {
            nothing: V::of_text(b""),
            sender: V::of_text(b"sender"),
            recipient: V::of_text(b"recipient"),
            nobody: (nobody, V::of_text(nobody.to_string().as_bytes())),
            privilege: V::of_text(b"privilege"),
            kind: V::of_text(b"type"),
            dsn: V::of_text(b"DSN"),
            ret: V::of_text(b"DSNr"),
            envid: V::of_text(b"DSNe"),
        }
    }
}

/// Makes attribute lists for calls of `router`.
#[derive(Clone, Debug)]
pub(super) struct Maker<V> {
    privilege: V,
    kind: V,
    ret: Option<V>,
    envid: Option<V>,
}

impl<V: Value> Maker<V> {
    /// For lists of this privilege and type. There is no `sender` among them: a script sets it where
    /// failures go to somebody else than the sender.
    pub(super) fn new(words: &Words<V>, privilege: u32, kind: &V, facts: &Facts) -> Self {
        let text = |value: &Option<Vec<u8>>| value.as_deref().map(V::of_text);
        Self {
            privilege: match &words.nobody {
                (nobody, text) if *nobody == privilege => text.clone(),
                _ => V::of_text(privilege.to_string().as_bytes()),
            },
            kind: kind.clone(),
            ret: text(&facts.ret),
            envid: text(&facts.envid),
        }
    }

    /// Sets a new variable to a new list and gives the variable's name.
    pub(super) fn make<S: Script<Value = V>>(
        &self,
        words: &Words<V>,
        script: &mut S,
        dsn: Option<&[u8]>,
    ) -> Vec<u8> {
        let mut items = Vec::with_capacity(10);
        let mut add = |key: &V, value: V| items.extend([key.clone(), value]);
        add(&words.privilege, self.privilege.clone());
        add(&words.kind, self.kind.clone());
        if let Some(dsn) = dsn {
            add(&words.dsn, V::of_text(dsn));
        }
        if let Some(ret) = &self.ret {
            add(&words.ret, ret.clone());
        }
        if let Some(envid) = &self.envid {
            add(&words.envid, envid.clone());
        }
        let name = script.fresh_name();
        script.assign(&name, V::of_list(items));
        name
    }

    /// Whether lists have `DSNr` or `DSNe`.
    pub(super) fn has_envelope(&self) -> bool {
        self.ret.is_some() || self.envid.is_some()
    }
}

/// `NOTIFY=... ORCPT=...`, as scripts see the reports wanted of a recipient; none: nothing is said.
pub(super) fn dsn_text(recipient: &EnvelopeRecipient) -> Option<Vec<u8>> {
    let Notary { notify, orcpt, .. } = &recipient.notary;
    let mut text = Vec::new();
    if *notify != 0 {
        text.extend_from_slice(b"NOTIFY=");
        text.extend_from_slice(notify_words(*notify).as_bytes());
    }
    if let Some(orcpt) = orcpt {
        if !text.is_empty() {
            text.push(b' ');
        }
        text.extend_from_slice(b"ORCPT=");
        text.extend_from_slice(orcpt);
    }
    (!text.is_empty()).then_some(text)
}

/// The reports wanted, from what a script made of them. What is not understood says nothing.
pub(super) fn notary_of(dsn: &[u8], detached: bool) -> Notary {
    let mut notary = Notary {
        detached,
        ..Notary::default()
    };
    for word in dsn.split(u8::is_ascii_whitespace) {
        if let Some(value) = word.strip_prefix(b"NOTIFY=") {
            notary.notify = notify(value).unwrap_or(0);
        } else if let Some(value) = word.strip_prefix(b"ORCPT=") {
            notary.orcpt = Some(value.to_vec()).filter(|value| !value.is_empty());
        }
    }
    notary
}

#[cfg(test)]
mod tests {
    use super::super::script::Tree;
    use super::*;

    #[test]
    fn reports_wanted_travel_as_text() {
        let recipient = EnvelopeRecipient {
            address: b"a@x".to_vec(),
            notary: Notary {
                notify: 4 | 8,
                orcpt: Some(b"rfc822;a@x".to_vec()),
                detached: false,
            },
        };
        let text = dsn_text(&recipient).unwrap();
        assert_eq!(text, b"NOTIFY=FAILURE,DELAY ORCPT=rfc822;a@x");
        assert_eq!(notary_of(&text, false), recipient.notary);
        assert_eq!(dsn_text(&EnvelopeRecipient::default()), None);
        assert_eq!(notary_of(b"NOTIFY=SOMETIMES X ORCPT=", true).notify, 0);
    }

    #[test]
    fn lists_are_read_by_pairs() {
        let text = |text: &str| Tree::Text(text.as_bytes().to_vec());
        let list = |words: &str| Tree::List(words.split(' ').map(text).collect());
        let read = |words| Attributes::read(&list(words));
        assert_eq!(read("privilege 12 type x").privilege, Some(12));
        assert_eq!(read("privilege -2").privilege, None);
        assert_eq!(read("x privilege 12").privilege, None);
        assert_eq!(
            read("ERR a@x DSN NOTIFY=NEVER DSNe q").errors_to.unwrap(),
            b"a@x"
        );
        assert!(read("DSNr FULL").has_envelope);
        assert_eq!(Attributes::read(&text("x")), Attributes::default());
    }
}
