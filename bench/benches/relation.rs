//! Databases of the router: look-ups through drivers, and rebuilding a large map.
//! Run with `cargo bench -p zmailer-bench --bench relation`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use zmailer::base::clock::Now;
use zmailer::router::relation::source::{Again, Parsed, Syntax};
use zmailer::router::relation::{
    Cache, Compiled, Definition, Held, Lookup, Map, MapId, Maps, Parsed as Words, Relation, Step,
    Unavailable, Version, build,
};

/// Entries of the large map.
const ENTRIES: u64 = 1_000_000;

/// Keys that are asked in turn.
const KEYS: u64 = 4096;

struct One(Version);

impl Maps for One {
    fn map(&self, _: MapId) -> Result<Held<'_>, Unavailable> {
        Ok(Held::Lent(&self.0))
    }
}

/// A relation over a text or a compiled map.
fn relation(words: &[&[u8]], bytes: Vec<u8>) -> (Relation, One) {
    let Ok(Words::Define { name, definition }) = Definition::parse(words, |_| None) else {
        unreachable!("the words are ours")
    };
    let source = definition.source().expect("a file");
    let map = build(&source, bytes, Vec::new()).expect("a good file");
    let relation = Relation {
        name: name.into(),
        definition: *definition,
        map: Some(MapId(0)),
    };
    (relation, One(Version { map, owner: 0 }))
}

fn look_up(relation: &Relation, maps: &One, cache: &mut Cache, key: &str) -> bool {
    let mut lookup = Lookup::begin(relation, &[key.as_bytes()]);
    let step = lookup.step(relation, None, maps, cache, Now::default());
    matches!(step, Step::Found(_))
}

fn aliases() -> String {
    let line = |at: u64| {
        let scattered = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        format!(
            "user{scattered}.{at}: mailbox{at}@host{}.example.org\n",
            at % 1000
        )
    };
    (0..ENTRIES).map(line).collect()
}

fn compile(text: &str) -> Vec<u8> {
    let mut parsed = Parsed::read(text.as_bytes(), Syntax::Aliases);
    parsed.unify(Again::Report);
    parsed.compile().expect("less than 4 GiB")
}

fn routes(c: &mut Criterion) {
    let text: String = (0..100_000)
        .map(|at| {
            format!(
                "host{at}.example{}.org smtp!gw{at}\n.dom{at}.net smtp!x{at}\n",
                at % 97
            )
        })
        .collect();
    let words: [&[u8]; 6] = [
        b"-lm%t",
        b"unordered",
        b"-f",
        b"x",
        b"-dpathalias",
        b"routes",
    ];
    let (relation, maps) = relation(&words, text.into_bytes());
    let mut cache = Cache::new(0);
    let host = |at: u64| {
        let at = (at * 7919) % 100_000;
        format!("Host{at}.example{}.org", at % 97)
    };
    let hits: Vec<String> = (0..KEYS).map(host).collect();
    let misses: Vec<String> = (0..KEYS).map(|at| format!("a{at}.b.example.com")).collect();
    let mut group = c.benchmark_group("routes");
    group.throughput(Throughput::Elements(KEYS));
    for (name, keys, found) in [("hit", &hits, true), ("six keys, no hit", &misses, false)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                for key in keys {
                    assert_eq!(look_up(&relation, &maps, &mut cache, key), found);
                }
            });
        });
    }
}

fn million(c: &mut Criterion) {
    let text = aliases();
    let bytes = compile(&text);
    let map = Compiled::new(bytes.clone()).expect("our own");
    let keys: Vec<Vec<u8>> = map
        .entries()
        .step_by(17)
        .map(|(key, _)| key.to_vec())
        .collect();
    let mut group = c.benchmark_group("1,000,000 aliases");
    group.sample_size(10);
    group.bench_function("look-up, few keys", |b| {
        let mut at = 0;
        b.iter(|| {
            at = (at + 1) % 1000;
            black_box(map.get(&keys[at]))
        });
    });
    group.bench_function("look-up, all over", |b| {
        let mut at = 0;
        b.iter(|| {
            at = (at + 1) % keys.len();
            black_box(map.get(&keys[at]))
        });
    });
    group.bench_function("compile", |b| b.iter(|| compile(&text).len()));
    group.bench_function("take a new version", |b| {
        b.iter_batched(|| bytes.clone(), Compiled::new, BatchSize::LargeInput);
    });
}

criterion_group!(benches, routes, million);
criterion_main!(benches);
