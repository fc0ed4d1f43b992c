//! Relations as a script sees them, with files in memory and answers by hand.

mod commands;
mod lookups;
mod properties;

use std::collections::HashMap;

use super::*;
use crate::base::clock::Now;

/// A script's relations, the files they name and what is known outside.
#[derive(Default)]
struct World {
    relations: Vec<(Relation, Option<Table>, Cache)>,
    sources: Vec<(Source, Result<Version, Unavailable>)>,
    files: HashMap<Vec<u8>, Vec<u8>>,
    outside: HashMap<Vec<u8>, Reply>,
    asked: Vec<Question>,
    now: Now,
}

struct Versions<'a>(&'a [(Source, Result<Version, Unavailable>)]);

impl Maps for Versions<'_> {
    fn map(&self, id: MapId) -> Result<Held<'_>, Unavailable> {
        match &self.0[id.0 as usize].1 {
            Ok(version) => Ok(Held::Lent(version)),
            Err(unavailable) => Err(unavailable.clone()),
        }
    }
}

fn words(line: &str) -> Vec<&[u8]> {
    line.split_whitespace().map(str::as_bytes).collect()
}

impl World {
    fn with(files: &[(&str, &str)]) -> Self {
        let mut world = Self::default();
        for (relation, table) in Relation::predefined() {
            world.relations.push((relation, Some(table), Cache::new(0)));
        }
        for (name, text) in files {
            world
                .files
                .insert(name.as_bytes().to_vec(), text.as_bytes().to_vec());
        }
        world
    }

    fn load(&self, source: &Source) -> Result<Version, Unavailable> {
        let read = |path: &[u8]| self.files.get(path).cloned().ok_or_else(Unavailable::io);
        let second = source
            .second
            .as_deref()
            .map(read)
            .transpose()?
            .unwrap_or_default();
        let map = build(source, read(&source.path)?, second).map_err(|_| Unavailable::io())?;
        Ok(Version { map, owner: 8 })
    }

    /// The `relation` built-in.
    fn relation(&mut self, line: &str) -> u8 {
        let taken = |name: &[u8]| match name {
            b"echo" => Some(Taken::Builtin),
            b"f" => Some(Taken::Function),
            _ => {
                let mut known = self.relations.iter();
                known
                    .any(|(relation, ..)| &*relation.name == name)
                    .then_some(Taken::Database)
            }
        };
        let (name, definition) = match Definition::parse(&words(line), taken) {
            Ok(Parsed::Define { name, definition }) => (name, *definition),
            Ok(Parsed::Known) => return 0,
            Err(failure) => return failure.status,
        };
        let map = definition.source().map(|source| {
            let version = self.load(&source);
            self.sources.push((source, version));
            MapId(u32::try_from(self.sources.len() - 1).unwrap())
        });
        let table = definition
            .kind
            .is_table()
            .then(|| Table::new(definition.kind));
        let cache = Cache::new(definition.cache_entries);
        let relation = Relation {
            name: name.into(),
            definition,
            map,
        };
        self.relations.push((relation, table, cache));
        0
    }

    fn step(&mut self, name: &str, words: &[&[u8]]) -> Step<'static> {
        let place =
            |(relation, ..): &(Relation, Option<Table>, Cache)| *relation.name == *name.as_bytes();
        let at = self.relations.iter().position(place).unwrap();
        let (relation, table, cache) = &mut self.relations[at];
        let maps = Versions(&self.sources);
        let mut lookup = Lookup::begin(relation, words);
        loop {
            match lookup.step(relation, table.as_ref(), &maps, cache, self.now) {
                Step::Ask(question) => {
                    let key = match &question {
                        Question::Bind { name, .. } => name,
                        Question::SelfMatch { address } => address,
                        Question::Engine { key, .. } => key,
                    };
                    let reply = self.outside.get(key).cloned();
                    lookup.answer(reply.unwrap_or(Reply::Missing(None)));
                    self.asked.push(question);
                }
                Step::Found(Value::Text(text)) => {
                    return Step::Found(Value::Text(text.into_owned().into()));
                }
                Step::Found(Value::List(list)) => return Step::Found(Value::List(list)),
                Step::Defer { reason, value } => return Step::Defer { reason, value },
                Step::Missing => return Step::Missing,
            }
        }
    }

    /// A look-up as a script sees it: the value, or `-` when there is none.
    fn look(&mut self, name: &str, key: &str) -> String {
        match self.step(name, &words(key)) {
            Step::Found(Value::Text(text)) => String::from_utf8(text.into_owned()).unwrap(),
            Step::Found(Value::List(list)) => {
                let words = list.iter().map(|text| String::from_utf8_lossy(text));
                format!("({})", words.collect::<Vec<_>>().join(" "))
            }
            Step::Missing => "-".to_owned(),
            Step::Defer { reason, .. } => format!("defer {}", String::from_utf8_lossy(&reason)),
            Step::Ask(_) => unreachable!(),
        }
    }

    /// The `db` built-in: status and output.
    fn db(&mut self, words: &[&str]) -> (u8, String) {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let of = |report: Report| (report.status, String::from_utf8(report.output).unwrap());
        let command = match Command::parse(&words) {
            Ok(command) => command,
            Err(report) => return of(report),
        };
        let Command::Act { name, .. } = &command else {
            let all = self
                .relations
                .iter()
                .map(|(relation, _, cache)| (relation, cache.len()));
            return (0, String::from_utf8(contents(all)).unwrap());
        };
        let place = |(relation, ..): &(Relation, Option<Table>, Cache)| *relation.name == **name;
        let Some(at) = self.relations.iter().position(place) else {
            return of(Command::unknown(name));
        };
        let (relation, table, cache) = &mut self.relations[at];
        let effect = command.apply(
            relation,
            table.as_mut(),
            &Versions(&self.sources),
            cache,
            42,
        );
        let map = match effect {
            Effect::Done(report) => return of(report),
            Effect::Reload(map) => map,
            Effect::Append { map, line } => {
                let path = self.sources[map.0 as usize].0.path.clone();
                self.files.get_mut(&path).unwrap().extend_from_slice(&line);
                map
            }
        };
        let source = self.sources[map.0 as usize].0.clone();
        self.sources[map.0 as usize].1 = self.load(&source);
        (0, String::new())
    }
}

/// Files, a definition, and rows of look-up and value.
fn check(files: &[(&str, &str)], definition: &str, rows: &[(&str, &str)]) {
    let mut world = World::with(files);
    assert_eq!(world.relation(definition), 0, "{definition}");
    for (key, value) in rows {
        assert_eq!(&world.look("look", key), value, "{definition}: {key}");
    }
}
