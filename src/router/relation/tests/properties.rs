//! Tables and drivers against the simplest thing that does the same.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::router::relation::source::{Again, Parsed as Read, Syntax};

/// The first line with this key, read from the top: what the index has to find.
fn scan(text: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    for line in text.split(|byte| *byte == b'\n') {
        let mut quoted = false;
        let mut escaped = false;
        let end = line.iter().position(|byte| {
            if std::mem::take(&mut escaped) {
                return false;
            }
            match byte {
                b'\\' => escaped = true,
                b'"' => quoted = !quoted,
                b' ' | b'\t' => return !quoted,
                _ => {}
            }
            false
        });
        let Some(end) = end else { continue };
        if line[..end].eq_ignore_ascii_case(key) {
            let words = line[end..].split(u8::is_ascii_whitespace);
            let first = words
                .filter(|word| !word.is_empty())
                .map(<[u8]>::to_vec)
                .next();
            return Some(first.unwrap_or_default());
        }
    }
    None
}

/// The keys that the manual says pathalias tries.
fn by_the_book(name: &str) -> Vec<String> {
    let mut keys = vec![name.to_owned()];
    let dotted = if name.starts_with('.') {
        name.to_owned()
    } else {
        format!(".{name}")
    };
    let bytes = dotted.as_bytes();
    for at in 0..bytes.len() {
        let last_of_run = bytes[at] == b'.' && bytes.get(at + 1).is_some_and(|next| *next != b'.');
        if last_of_run {
            keys.push(dotted[at..].to_owned());
        }
    }
    keys.push(".".to_owned());
    keys
}

/// Every key that a look-up tries.
#[derive(Debug)]
struct Recorder(std::sync::Mutex<Vec<Vec<u8>>>);

impl Map for Recorder {
    fn get<'a>(&'a self, key: &[u8]) -> Option<Cow<'a, [u8]>> {
        self.0.lock().unwrap().push(key.to_vec());
        None
    }
    fn count(&self) -> u64 {
        0
    }
    fn print(&self, _: &mut Vec<u8>) {}
    fn bytes(&self) -> usize {
        0
    }
}

struct One(Version);

impl Maps for One {
    fn map(&self, _: MapId) -> Result<Held<'_>, Unavailable> {
        Ok(Held::Lent(&self.0))
    }
}

fn tried(driver: &str, key: &str) -> Vec<String> {
    let line = format!("-t unordered -f f -d {driver} look");
    let Ok(Parsed::Define { name, definition }) = Definition::parse(&words(&line), |_| None) else {
        panic!("{line}");
    };
    let relation = Relation {
        name: name.into(),
        definition: *definition,
        map: Some(MapId(0)),
    };
    let recorder = Arc::new(Recorder(std::sync::Mutex::default()));
    let maps = One(Version {
        map: recorder.clone(),
        owner: 0,
    });
    let mut lookup = Lookup::begin(&relation, &[key.as_bytes()]);
    let step = lookup.step(&relation, None, &maps, &mut Cache::new(0), Now::default());
    assert_eq!(step, Step::Missing);
    let keys = recorder.0.lock().unwrap().clone();
    keys.into_iter()
        .map(|key| String::from_utf8(key).unwrap())
        .collect()
}

proptest! {
    #[test]
    fn text_tables_find_what_a_scan_finds(
        text in "([abAB.\"\\\\# \t\r]{0,6}[ \t]?[ab \t\"]{0,5}\n){0,12}[ab ]{0,3}",
        keys in proptest::collection::vec("[abAB.\"\\\\# \t]{0,5}", 1..8),
    ) {
        let table = Text::new(text.clone().into_bytes()).unwrap();
        let lines = text.lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned());
        for key in keys.into_iter().chain(lines.collect::<Vec<_>>()) {
            let found = table.get(key.as_bytes()).map(Cow::into_owned);
            prop_assert_eq!(found, scan(text.as_bytes(), key.as_bytes()), "{:?}", key);
        }
    }

    #[test]
    fn pathalias_tries_what_the_manual_says(name in "[ab.]{1,12}") {
        let mut keys = tried("pathalias", &name);
        let mut book = by_the_book(&name);
        // A key that is tried twice in a row makes no difference.
        keys.dedup();
        book.dedup();
        prop_assert_eq!(keys, book);
        let domain = tried("pathalias", &name);
        let mut address = tried("pathalias.at", &format!("u@{name}"));
        prop_assert_eq!(address.remove(0), format!("u@{name}"));
        prop_assert_eq!(address, domain);
    }

    #[test]
    fn any_key_and_words_end(key in ".{0,40}", more in proptest::collection::vec("(-:|--|%[0-9]|.{0,6})", 0..6)) {
        let files = [("f", "a.b %0-%1-%9\n.b %0%1\n. %0\n@LOCAL@ %2%0\n")];
        for driver in ["", "-d pathalias", "-d pathalias.at", "-d pathalias.nodot", "-d longestmatch"] {
            let mut world = World::with(&files);
            world.relation(&format!("-%t unordered -f f {driver} look"));
            let mut words = vec![key.as_bytes()];
            words.extend(more.iter().map(String::as_bytes));
            if let Step::Found(Value::Text(text)) = world.step("look", &words) {
                // A value never grows beyond what is put in once.
                let most: usize = words.iter().map(|word| word.len()).sum();
                prop_assert!(text.len() <= 12 + 3 * most);
            }
        }
    }

    #[test]
    fn networks_are_found_as_a_scan_finds_them(
        rows in proptest::collection::vec((0_u32..16, 0_u8..=32, "[a-z]{1,3}"), 0..20),
        probes in proptest::collection::vec(0_u32..16, 1..10),
    ) {
        let spread = |n: u32| n.wrapping_mul(0x1111_1111);
        let mask = |bits: u8| u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        let text: String = rows.iter().map(|(n, bits, value)| {
            format!("{}/{bits} {value}\n", Ipv4Addr::from(spread(*n) & mask(*bits)))
        }).collect();
        let table = Networks::new(text.into_bytes()).unwrap();
        for probe in probes {
            let address = spread(probe);
            let mut best: Option<(u8, &str)> = None;
            for (n, bits, value) in &rows {
                let holds = (spread(*n) & mask(*bits)) == (address & mask(*bits));
                if holds && best.is_none_or(|(most, _)| *bits > most) {
                    best = Some((*bits, value));
                }
            }
            let found = table.get(Ipv4Addr::from(address).to_string().as_bytes());
            let found = found.map(|value| String::from_utf8(value.into_owned()).unwrap());
            prop_assert_eq!(found.as_deref(), best.map(|(_, value)| value));
        }
    }

    #[test]
    fn a_private_table_is_a_map_above_a_map(
        base in proptest::collection::btree_map("[ab]{1,2}", "[xy]{0,2}", 0..6),
        acts in proptest::collection::vec((0_u8..8, "[ab]{1,2}", "[xy]{0,2}"), 0..24),
    ) {
        let mut table = Table::new(Kind::Incore);
        for (key, value) in &base {
            table.add(key.as_bytes(), value.as_bytes()).unwrap();
        }
        table.settle();
        let mut private = table.private();
        let mut model: BTreeMap<String, String> = base.clone();
        for (act, key, value) in acts {
            match act {
                0..=3 => {
                    private.add(key.as_bytes(), value.as_bytes()).unwrap();
                    model.insert(key, value);
                }
                4..=6 => {
                    let removed = private.remove(key.as_bytes()).is_ok();
                    prop_assert_eq!(removed, model.remove(&key).is_some());
                }
                _ => {
                    private.clear();
                    model.clear();
                }
            }
            prop_assert_eq!(private.count(), model.len() as u64);
        }
        for key in ["a", "b", "aa", "ab", "ba", "bb"] {
            let value = private.value(key.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned());
            prop_assert_eq!(value.as_ref(), model.get(key));
        }
        prop_assert_eq!(table.count(), base.len() as u64);
    }

    #[test]
    fn sources_are_read_or_refused_and_maps_hold_them(text in "([ab\":,# \t]{0,8}\n){0,12}") {
        for syntax in [Syntax::Keyed, Syntax::Aliases] {
            let mut parsed = Read::read(text.as_bytes(), syntax);
            if !parsed.is_good() {
                continue;
            }
            parsed.unify(Again::Report);
            let map = Compiled::new(parsed.compile().unwrap()).unwrap();
            for entry in &parsed.entries {
                prop_assert_eq!(map.get(&entry.key).unwrap(), entry.value.clone());
            }
            prop_assert_eq!(map.count(), parsed.entries.len() as u64);
        }
    }
}
