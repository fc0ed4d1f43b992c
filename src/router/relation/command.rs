//! The `db` built-in.

use super::cache::Cache;
use super::definition::{Finish, Fold};
use super::kind::Kind;
use super::table::Table;
use super::{Map, MapId, Maps, Relation};

/// What the words behind `db` ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A list of all databases.
    Contents,
    /// Something with one.
    Act {
        /// What.
        verb: Verb,
        /// Name of the database.
        name: Vec<u8>,
        /// Key, where the verb has one.
        key: Vec<u8>,
        /// Value, where the verb has one.
        value: Vec<u8>,
    },
}

/// What is done with a database. The first letter is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `add`.
    Add,
    /// `remove`, `delete`.
    Remove,
    /// `flush`, `null`.
    Flush,
    /// `owner`.
    Owner,
    /// `print`.
    Print,
    /// `count`.
    Count,
}

/// What has been done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Exit status.
    pub status: u8,
    /// For standard output.
    pub output: Vec<u8>,
    /// For standard error.
    pub complaint: String,
}

impl Report {
    fn failed(status: u8, text: impl Into<String>) -> Self {
        Self {
            status,
            output: Vec::new(),
            complaint: format!("db: {}", text.into()),
        }
    }

    fn printed(output: Vec<u8>) -> Self {
        Self {
            output,
            ..Self::default()
        }
    }
}

/// What follows from a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is done.
    Done(Report),
    /// A line is to be appended to the file of a map, and the map to be read again. Status 1 if that fails.
    Append {
        /// Which.
        map: MapId,
        /// With its line end.
        line: Vec<u8>,
    },
    /// A map is to be read again from its file.
    Reload(MapId),
}

const USAGE: &str = "usage: db add|remove|flush|owner|print|count|toc [DATABASE [KEY [VALUE]]]";

impl Command {
    /// Reads the words behind `db`.
    ///
    /// # Errors
    /// Status 1 when they make no sense.
    pub fn parse(words: &[&[u8]]) -> Result<Self, Report> {
        let letter = words.first().and_then(|word| word.first());
        let (verb, operands) = match letter {
            Some(b'i' | b't') if words.len() == 1 => return Ok(Self::Contents),
            Some(b'a') => (Verb::Add, 3),
            Some(b'd' | b'r') => (Verb::Remove, 2),
            Some(b'f' | b'n') => (Verb::Flush, 1),
            Some(b'o') => (Verb::Owner, 1),
            Some(b'p') => (Verb::Print, 1),
            Some(b'c') => (Verb::Count, 1),
            _ => return Err(Report::failed(1, USAGE)),
        };
        if words.len() != operands + 1 {
            return Err(Report::failed(1, USAGE));
        }
        let word = |at: usize| words.get(at).map(|word| word.to_vec()).unwrap_or_default();
        Ok(Self::Act {
            verb,
            name: word(1),
            key: word(2),
            value: word(3),
        })
    }

    /// For a name that is none of a database.
    #[must_use]
    pub fn unknown(name: &[u8]) -> Report {
        let name = String::from_utf8_lossy(name);
        Report::failed(2, format!("there is no database {name}"))
    }

    /// Does it. `table` is the table of an `incore` or `header` relation; `uid` is who we are.
    pub fn apply(
        &self,
        relation: &Relation,
        table: Option<&mut Table>,
        maps: &dyn Maps,
        cache: &mut Cache,
        uid: u32,
    ) -> Effect {
        let Self::Act {
            verb, key, value, ..
        } = self
        else {
            return Effect::Done(Report::default());
        };
        let mut key = key.clone();
        relation.definition.fold.apply(&mut key);
        if *verb == Verb::Flush {
            cache.flush();
        }
        match (table, relation.map) {
            (Some(table), _) => Effect::Done(on_table(*verb, table, &key, value, uid)),
            (None, Some(map)) => on_map(*verb, relation, map, maps, &key, value),
            (None, None) => Effect::Done(cannot(*verb, relation)),
        }
    }
}

fn on_table(verb: Verb, table: &mut Table, key: &[u8], value: &[u8], uid: u32) -> Report {
    let mut output = Vec::new();
    let changed = match verb {
        Verb::Add => table.add(key, value),
        Verb::Remove => table.remove(key),
        Verb::Flush => {
            table.clear();
            Ok(())
        }
        Verb::Owner => {
            output = line(uid.into());
            Ok(())
        }
        Verb::Print => {
            table.print(&mut output);
            Ok(())
        }
        Verb::Count => {
            output = line(table.count());
            Ok(())
        }
    };
    match changed {
        Ok(()) => Report::printed(output),
        Err(text) => Report::failed(1, text),
    }
}

fn on_map(
    verb: Verb,
    relation: &Relation,
    map: MapId,
    maps: &dyn Maps,
    key: &[u8],
    value: &[u8],
) -> Effect {
    let kind = relation.definition.kind;
    match verb {
        Verb::Add if kind == Kind::Unordered => {
            let mut line = key.to_vec();
            if !value.is_empty() {
                line.push(b'\t');
                line.extend_from_slice(value);
            }
            // One call adds one line.
            if line.contains(&b'\n') {
                return Effect::Done(Report::failed(1, "a line end cannot be stored"));
            }
            line.push(b'\n');
            Effect::Append { map, line }
        }
        Verb::Add | Verb::Remove => Effect::Done(cannot(verb, relation)),
        Verb::Flush => Effect::Reload(map),
        Verb::Owner | Verb::Print | Verb::Count => {
            let Ok(held) = maps.map(map) else {
                let file = String::from_utf8_lossy(&relation.definition.file);
                return Effect::Done(Report::failed(1, format!("{file} cannot be read now")));
            };
            let version = held.version();
            Effect::Done(Report::printed(match verb {
                Verb::Owner => line(version.owner.into()),
                Verb::Count => line(version.map.count()),
                _ => printed(version.map.as_ref()),
            }))
        }
    }
}

fn printed(map: &dyn Map) -> Vec<u8> {
    let mut out = Vec::new();
    map.print(&mut out);
    out
}

fn line(number: u64) -> Vec<u8> {
    format!("{number}\n").into_bytes()
}

fn cannot(verb: Verb, relation: &Relation) -> Report {
    let what = match verb {
        Verb::Add => "be added to",
        Verb::Remove => "have keys removed",
        Verb::Flush => "be flushed",
        Verb::Owner => "say whose it is",
        Verb::Print => "be printed",
        Verb::Count => "be counted",
    };
    let name = String::from_utf8_lossy(&relation.name);
    let kind = relation.definition.type_name;
    Report::failed(1, format!("{name} is of type {kind} and cannot {what}"))
}

/// The list of all databases, by name; each with the entries of its cache.
#[must_use]
pub fn contents<'a>(relations: impl IntoIterator<Item = (&'a Relation, usize)>) -> Vec<u8> {
    let mut relations: Vec<(&Relation, usize)> = relations.into_iter().collect();
    relations.sort_by(|one, other| one.0.name.cmp(&other.0.name));
    let mut out = b"#DBname Type{lookup,sub} cache{inuse/max} ttl Flgs File/param\n".to_vec();
    for (relation, cached) in relations {
        out.extend_from_slice(&row(relation, cached));
    }
    out
}

fn row(relation: &Relation, cached: usize) -> Vec<u8> {
    let definition = &relation.definition;
    let show = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    let indirect = definition.finish == Finish::Indirect;
    let mut kind = definition.type_name.to_owned();
    if !definition.subtype.is_empty() && !indirect && !definition.kind.is_table() {
        kind.push(',');
        kind.push_str(&show(&definition.subtype));
    }
    let mut file = String::new();
    if !definition.config.is_empty() {
        file.push_str(&show(&definition.config));
        file.push(' ');
    }
    file.push_str(&show(&definition.file));
    if indirect {
        file.push_str(" -> ");
        file.push_str(&show(&definition.subtype));
    }
    let kind_width = if kind.len() > 14 { kind.len() + 1 } else { 14 };
    let flags = flags(relation);
    let flags_width = if flags.len() > 4 { flags.len() + 1 } else { 5 };
    format!(
        "{:<16} {kind:<kind_width$}{cached:>4}/{:<4} {:>4} {flags:<flags_width$}{file}\n",
        show(&relation.name),
        definition.cache_entries,
        definition.ttl_s,
    )
    .into_bytes()
}

fn flags(relation: &Relation) -> String {
    let definition = &relation.definition;
    let mut flags = String::new();
    let mut put = |set: bool, text: &str| {
        if set {
            flags.push_str(text);
        }
    };
    put(definition.fold == Fold::Lower, "l");
    put(definition.fold == Fold::Upper, "u");
    put(definition.watched, "m");
    put(definition.negative, "N");
    put(definition.substitutes, "%");
    put(definition.takes_defaults, ":");
    put(definition.finish == Finish::KeyForNothing, "n");
    put(definition.finish == Finish::Key, "b");
    put(definition.finish == Finish::Pathalias, "p");
    put(definition.finish == Finish::Indirect, "i");
    put(true, definition.driver_mark());
    put(!definition.config.is_empty(), "C");
    if flags.is_empty() {
        flags.push('-');
    }
    flags
}
