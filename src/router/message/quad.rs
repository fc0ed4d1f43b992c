//! Quads, and the lists of them that `router` and `crossbar` return.

use super::script::Value;

/// Channel, host, user, name of an attribute list: as the script gave it.
#[derive(Clone, Debug)]
pub(super) struct Quad<V>(pub(super) V);

impl<V: Value> Quad<V> {
    /// From its parts.
    pub(super) fn new(channel: &[u8], host: &[u8], user: &[u8], attributes: &[u8]) -> Self {
        Self(V::of_list(
            [channel, host, user, attributes].map(V::of_text).to_vec(),
        ))
    }

    /// None: no list that begins with a text and has a user.
    fn of(value: V) -> Option<Self> {
        let has = |index| value.item(index).is_some_and(|item| item.text().is_some());
        (value.count()? >= 3 && has(0) && has(2)).then_some(Self(value))
    }

    fn part(&self, index: usize) -> Vec<u8> {
        let item = self.0.item(index);
        let text = item.as_ref().and_then(V::text);
        text.unwrap_or_default().to_vec()
    }

    pub(super) fn with<T>(&self, index: usize, read: impl FnOnce(&[u8]) -> T) -> T {
        let item = self.0.item(index);
        read(item.as_ref().and_then(V::text).unwrap_or_default())
    }

    pub(super) fn is_channel(&self, channel: &[u8]) -> bool {
        self.with(CHANNEL, |text| text == channel)
    }

    pub(super) fn host(&self) -> Vec<u8> {
        self.part(HOST)
    }

    pub(super) fn user(&self) -> Vec<u8> {
        self.part(USER)
    }

    /// The attribute list, or its name; none: an empty one.
    pub(super) fn attributes(&self) -> Option<V> {
        self.0.item(3)
    }
}

pub(super) const CHANNEL: usize = 0;
pub(super) const HOST: usize = 1;
pub(super) const USER: usize = 2;

/// What `router` returned: a list (all of them) of lists (one of them) of quads, or one quad. Read by
/// index, so that of a list of hundred thousand members nothing is copied.
#[derive(Clone, Debug)]
pub(super) struct Routes<V> {
    value: V,
    is_one: bool,
}

impl<V: Value> Routes<V> {
    /// None: not a result of that form.
    pub(super) fn of(value: V) -> Option<Self> {
        let first = value.item(0)?;
        if first.text().is_some() {
            Quad::of(value.clone())?;
            return Some(Self {
                value,
                is_one: true,
            });
        }
        // The rest is judged when its turn comes.
        Quad::of(first.item(0)?)?;
        Some(Self {
            value,
            is_one: false,
        })
    }

    /// How many deliveries it asks for.
    pub(super) fn count(&self) -> usize {
        if self.is_one {
            1
        } else {
            self.value.count().unwrap_or(0)
        }
    }

    /// One way of a delivery. None: there are no more, or it is no quad.
    pub(super) fn way(&self, index: usize, way: usize) -> Option<Quad<V>> {
        if self.is_one {
            return (index == 0 && way == 0).then(|| Quad(self.value.clone()));
        }
        Quad::of(self.value.item(index)?.item(way)?)
    }

    /// Nobody asks for deliveries before this one again.
    pub(super) fn release_before(&self, index: usize) {
        if !self.is_one {
            self.value.release_before(index);
        }
    }

    /// The one that stands for the address: with no host to go to, if there is one.
    pub(super) fn nearest(&self) -> Option<Quad<V>> {
        let ways = (0..self.count()).filter_map(|index| self.way(index, 0));
        let here = ways
            .take(WAYS_LOOKED_AT_MAX)
            .find(|quad| quad.with(HOST, |host| host.is_empty() || host == b"-"));
        here.or_else(|| self.way(0, 0))
    }
}

/// Of the ways of a sender that is a long list.
const WAYS_LOOKED_AT_MAX: usize = 100;

/// The functions that rewrite a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rewriter {
    /// For addresses; empty: none.
    pub(super) addresses: Vec<u8>,
    /// For whole fields; empty: none.
    pub(super) fields: Vec<u8>,
}

impl Rewriter {
    /// Whether the header stays as it is.
    pub(super) fn is_null(&self) -> bool {
        !self.has_addresses() && self.fields.is_empty()
    }

    /// The function of this name changes nothing; so it need not be called.
    pub(super) fn has_addresses(&self) -> bool {
        !matches!(self.addresses.as_slice(), b"" | b"null")
    }

    /// `rewriter`, or `(address-rewriter header-rewriter)`.
    fn of<V: Value>(value: &V) -> Option<Self> {
        if let Some(name) = value.text() {
            return Some(Self {
                addresses: name.to_vec(),
                fields: Vec::new(),
            });
        }
        value.count()?;
        let name = |index| {
            let item = value.item(index)?;
            item.text().map(<[u8]>::to_vec)
        };
        Some(Self {
            addresses: name(0).unwrap_or_default(),
            fields: name(1).unwrap_or_default(),
        })
    }
}

/// What `crossbar` returned.
#[derive(Clone, Debug)]
pub(super) struct Crossed<V> {
    pub(super) rewriter: Rewriter,
    pub(super) from: Quad<V>,
    pub(super) to: Quad<V>,
}

impl<V: Value> Crossed<V> {
    /// None: not `(rewriter from to)`.
    pub(super) fn of(value: &V) -> Option<Self> {
        Some(Self {
            rewriter: Rewriter::of(&value.item(0)?)?,
            from: Quad::of(value.item(1)?)?,
            to: Quad::of(value.item(2)?)?,
        })
    }
}

/// Whether a value says nothing: an empty text or an empty list.
pub(super) fn is_nothing<V: Value>(value: &V) -> bool {
    match value.text() {
        Some(text) => text.is_empty(),
        None => value.count() == Some(0),
    }
}

/// Whether a quad means this login name on this host.
pub(super) fn is_login<V: Value>(quad: &Quad<V>, login: &[u8]) -> bool {
    if !quad.is_channel(b"local") {
        return false;
    }
    quad.with(USER, |user| {
        let end = memchr::memrchr(b'@', user).unwrap_or(user.len());
        let local = crate::mail::quote::dequoted(user.get(..end).unwrap_or(user), None);
        let base = local.split(|byte| *byte == b'+').next().unwrap_or_default();
        local.eq_ignore_ascii_case(login) || base.eq_ignore_ascii_case(login)
    })
}

#[cfg(test)]
mod tests {
    use super::super::script::Tree;
    use super::*;

    fn text(text: &str) -> Tree {
        Tree::Text(text.as_bytes().to_vec())
    }

    fn quad(host: &str) -> Tree {
        Tree::List(vec![text("smtp"), text(host), text("u@x"), text("g1")])
    }

    #[test]
    fn results_of_router() {
        let list = |items: Vec<Tree>| Tree::List(items);
        let one = Routes::of(quad("a")).unwrap();
        assert_eq!(
            (one.count(), one.way(0, 0).unwrap().host()),
            (1, b"a".to_vec())
        );
        assert!(one.way(0, 1).is_none() && one.way(1, 0).is_none());
        let many = list(vec![
            list(vec![quad("a"), quad("b")]),
            list(vec![quad("-")]),
        ]);
        let many = Routes::of(many).unwrap();
        assert_eq!(many.count(), 2);
        assert_eq!(many.way(0, 1).unwrap().host(), b"b");
        assert_eq!(many.nearest().unwrap().host(), b"-");
        for bad in [
            text("smtp"),
            list(vec![]),
            list(vec![quad("a")]),
            list(vec![text("smtp"), text("a")]),
            list(vec![list(vec![])]),
        ] {
            assert!(Routes::of(bad.clone()).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn results_of_crossbar() {
        let crossed = |first: Tree| Crossed::of(&Tree::List(vec![first, quad("f"), quad("t")]));
        let pair = Tree::List(vec![text("internet"), text("hrr")]);
        let both = crossed(pair).unwrap();
        assert_eq!(both.rewriter.addresses, b"internet");
        assert_eq!(both.rewriter.fields, b"hrr");
        assert_eq!(
            (both.from.host(), both.to.host()),
            (b"f".to_vec(), b"t".to_vec())
        );
        assert!(crossed(text("null")).unwrap().rewriter.is_null());
        assert!(crossed(text("")).unwrap().rewriter.is_null());
        assert!(crossed(Tree::List(vec![])).unwrap().rewriter.is_null());
        assert!(Crossed::of(&text("x")).is_none());
        assert!(is_nothing(&text("")) && is_nothing(&Tree::List(vec![])));
    }

    #[test]
    fn a_login_name_is_known_in_its_quad() {
        let quad = |channel: &[u8], user: &[u8]| Quad::<Tree>::new(channel, b"-", user, b"");
        assert!(is_login(&quad(b"local", b"Joe@mta.example.org"), b"joe"));
        assert!(is_login(&quad(b"local", b"joe+x@mta"), b"joe"));
        assert!(is_login(&quad(b"local", b"\"joe\""), b"joe"));
        assert!(!is_login(&quad(b"local", b"ann@mta"), b"joe"));
        assert!(!is_login(&quad(b"smtp", b"joe@mta"), b"joe"));
    }
}
