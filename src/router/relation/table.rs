//! Tables that a script fills: what it put in while it was initialised, which evaluations share, and above
//! that the changes of one evaluation, which end with it.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::header::{self, Meaning};
use super::kind::Kind;

/// An `incore` or `header` table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Keys are names of header fields.
    names: bool,
    base: Rc<Entries>,
    /// The base counts no more.
    cleared: bool,
    /// Above the base; none: removed.
    changes: BTreeMap<Box<[u8]>, Option<Entry>>,
    /// Bytes of `changes`.
    changed_bytes: usize,
}

type Entries = BTreeMap<Box<[u8]>, Entry>;

#[derive(Clone, Debug)]
struct Entry {
    value: Box<[u8]>,
    meaning: Option<Meaning>,
    /// May be neither changed nor removed.
    permanent: bool,
}

/// What an entry costs besides its key and value.
const ENTRY_BYTES: usize = size_of::<Entry>() + 32;

impl Table {
    /// An empty one.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            names: kind == Kind::Header,
            base: Rc::default(),
            cleared: false,
            changes: BTreeMap::new(),
            changed_bytes: 0,
        }
    }

    /// The table of header fields that is there from the start.
    #[must_use]
    pub fn of_headers() -> Self {
        let entries = header::FIELDS.iter().map(|field| {
            let meaning = field.meaning;
            let entry = Entry {
                value: meaning.look_up_text().into(),
                meaning: Some(meaning),
                permanent: field.permanent,
            };
            (field.name.as_bytes().into(), entry)
        });
        Self {
            base: Rc::new(entries.collect()),
            ..Self::new(Kind::Header)
        }
    }

    /// Makes what it holds the base: initialisation is over.
    pub fn settle(&mut self) {
        let entries = self
            .entries()
            .map(|(key, entry)| (key.into(), entry.clone()));
        self.base = Rc::new(entries.collect());
        self.cleared = false;
        self.changes.clear();
        self.changed_bytes = 0;
    }

    /// A copy for one evaluation; costs nothing when this one is settled.
    #[must_use]
    pub fn private(&self) -> Self {
        self.clone()
    }

    /// Bytes that changes take, for the limit of an evaluation.
    #[must_use]
    pub fn changed_bytes(&self) -> usize {
        self.changed_bytes
    }

    /// The value of a key.
    #[must_use]
    pub fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.entry(key).map(|entry| &*entry.value)
    }

    /// What a header field means.
    #[must_use]
    pub fn meaning(&self, name: &[u8]) -> Option<Meaning> {
        self.entry(name)?.meaning
    }

    fn entry(&self, key: &[u8]) -> Option<&Entry> {
        if self.names && key.iter().any(u8::is_ascii_uppercase) {
            return self.entry(&key.to_ascii_lowercase());
        }
        match self.changes.get(key) {
            Some(changed) => changed.as_ref(),
            None if self.cleared => None,
            None => self.base.get(key),
        }
    }

    /// Puts a value in place of what the key had.
    ///
    /// # Errors
    /// Why a header field cannot mean that.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let mut entry = Entry {
            value: value.into(),
            meaning: None,
            permanent: false,
        };
        if !self.names {
            self.change(key.into(), Some(entry));
            return Ok(());
        }
        let meaning = Meaning::parse(value)?;
        let key = key.to_ascii_lowercase();
        if self.entry(&key).is_some_and(|old| old.permanent) {
            let name = String::from_utf8_lossy(&key);
            return Err(format!("what {name} means cannot be changed"));
        }
        entry.value = meaning.look_up_text().into();
        entry.meaning = Some(meaning);
        self.change(key.into(), Some(entry));
        Ok(())
    }

    /// Takes a key out.
    ///
    /// # Errors
    /// When it is not there or has to stay.
    pub fn remove(&mut self, key: &[u8]) -> Result<(), String> {
        let key = if self.names {
            key.to_ascii_lowercase()
        } else {
            key.to_vec()
        };
        let name = || String::from_utf8_lossy(&key).into_owned();
        match self.entry(&key) {
            None => Err(format!("there is no key {}", name())),
            Some(entry) if entry.permanent => Err(format!("{} cannot be removed", name())),
            Some(_) => {
                self.change(key.into(), None);
                Ok(())
            }
        }
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.changes.clear();
        self.changed_bytes = 0;
        self.cleared = true;
    }

    fn change(&mut self, key: Box<[u8]>, entry: Option<Entry>) {
        let cost = |key: usize, entry: &Option<Entry>| {
            key + ENTRY_BYTES + entry.as_ref().map_or(0, |entry| entry.value.len())
        };
        let bytes = key.len();
        self.changed_bytes += cost(bytes, &entry);
        if let Some(old) = self.changes.insert(key, entry) {
            self.changed_bytes -= cost(bytes, &old);
        }
    }

    /// Entries, as `db count` prints them.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.entries().count() as u64
    }

    /// What `db print` prints, by key.
    pub fn print(&self, out: &mut Vec<u8>) {
        for (key, entry) in self.entries() {
            out.extend_from_slice(key);
            match &entry.meaning {
                Some(meaning) => {
                    out.resize(out.len() + 16_usize.saturating_sub(key.len()), b' ');
                    let lasts = if entry.permanent {
                        "permanent"
                    } else {
                        "optional"
                    };
                    let text = format!("\t{} ({lasts})", meaning.print_text());
                    out.extend_from_slice(text.as_bytes());
                }
                None if entry.value.is_empty() => {}
                None => {
                    out.push(b'\t');
                    out.extend_from_slice(&entry.value);
                }
            }
            out.push(b'\n');
        }
    }

    /// By key: both sides are sorted.
    fn entries(&self) -> impl Iterator<Item = (&[u8], &Entry)> {
        let mut base = self.base.iter().filter(|_| !self.cleared).peekable();
        let mut changes = self.changes.iter().peekable();
        std::iter::from_fn(move || {
            loop {
                let from_base = match (base.peek(), changes.peek()) {
                    (None, None) => return None,
                    (Some((old, _)), Some((new, _))) if old == new => {
                        base.next();
                        continue;
                    }
                    (Some((old, _)), Some((new, _))) => old < new,
                    (Some(_), None) => true,
                    (None, Some(_)) => false,
                };
                if from_base {
                    return base.next().map(|(key, entry)| (&**key, entry));
                }
                if let Some((key, Some(entry))) = changes.next() {
                    return Some((&**key, entry));
                }
            }
        })
    }
}
