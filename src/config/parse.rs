//! A file to values: every key is looked up in the list, every problem is collected.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::knob::{Kind, Knob, Value};
use super::knobs::{INHERITS, KNOBS, REPEATED};

type Table = BTreeMap<&'static str, Value>;

/// All values of a file; what is not given has its default.
#[derive(Debug, Default)]
pub(super) struct Values {
    single: BTreeMap<&'static str, Table>,
    repeated: Vec<(&'static str, Table)>,
    /// Where a setting stands, by its dotted name; of a repeated table the last one.
    lines: BTreeMap<String, usize>,
}

/// One table, with defaults behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableView<'a> {
    name: &'static str,
    own: Option<&'a Table>,
    base: Option<&'a Table>,
}

struct Parser<'a> {
    text: &'a str,
    file: &'a str,
    values: Values,
    errors: Vec<ConfigError>,
}

/// Parses `text`.
pub(super) fn parse(text: &str, file: &str) -> (Values, Vec<ConfigError>) {
    let mut parser = Parser {
        text,
        file,
        values: Values::default(),
        errors: Vec::new(),
    };
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        parser.error(at, error.message().to_owned());
    }
    parser.walk("", root.get_ref());
    (parser.values, parser.errors)
}

impl Parser<'_> {
    fn error(&mut self, at: usize, text: String) {
        let line = self.line(at);
        self.errors.push(ConfigError {
            file: self.file.to_owned(),
            line,
            text,
        });
    }

    fn line(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or(self.text);
        before.bytes().filter(|byte| *byte == b'\n').count() + 1
    }

    fn remember_line(&mut self, name: String, at: usize) {
        let line = self.line(at);
        self.values.lines.insert(name, line);
    }

    /// Goes through a table whose dotted name is `prefix`.
    fn walk(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table.iter() {
            let name = if prefix.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{prefix}.{}", key.get_ref())
            };
            let at = key.span().start;
            if let Some(repeated) = REPEATED.iter().find(|table| **table == name) {
                self.repeated(repeated, value);
            } else if let Some(known) = known_table(&name) {
                match value.get_ref() {
                    DeValue::Table(inner) => self.table(known, &name, inner),
                    _ => self.error(at, format!("{name}: a table is expected: [{name}]")),
                }
            } else {
                let hint = nearest(&name, KNOBS.iter().map(|knob| knob.table));
                self.error(at, format!("{name}: no such table{hint}"));
            }
        }
    }

    fn table(&mut self, known: Option<&'static str>, name: &str, table: &DeTable<'_>) {
        let mut rest = DeTable::new();
        let mut own = Table::new();
        for (key, value) in table.iter() {
            let dotted = format!("{name}.{}", key.get_ref());
            let nested = known_table(&dotted).is_some() || REPEATED.contains(&dotted.as_str());
            if nested {
                rest.insert(key.clone(), value.clone());
            } else if let Some(known) = known {
                self.key(known, known, key, value, &mut own);
            } else {
                self.error(key.span().start, format!("{dotted}: no such setting"));
            }
        }
        if let Some(known) = known {
            self.values.single.entry(known).or_default().extend(own);
        }
        self.walk(name, &rest);
    }

    fn repeated(&mut self, name: &'static str, value: &Spanned<DeValue<'_>>) {
        let keys = if name == INHERITS.0 { INHERITS.1 } else { name };
        let DeValue::Array(tables) = value.get_ref() else {
            self.error(value.span().start, format!("{name}: write [[{name}]]"));
            return;
        };
        for table in tables.iter() {
            let DeValue::Table(table) = table.get_ref() else {
                continue;
            };
            let mut own = Table::new();
            for (key, value) in table.iter() {
                self.key(keys, name, key, value, &mut own);
            }
            self.values.repeated.push((name, own));
        }
    }

    fn key(
        &mut self,
        table: &'static str,
        shown: &str,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        own: &mut Table,
    ) {
        let name = key.get_ref();
        let at = key.span().start;
        let mut knobs = KNOBS.iter().filter(|knob| knob.table == table);
        let Some(knob) = knobs.find(|knob| knob.key == name.as_ref()) else {
            let keys = KNOBS
                .iter()
                .filter(|knob| knob.table == table)
                .map(|knob| knob.key);
            let hint = nearest(name, keys);
            self.error(at, format!("{shown}.{name}: no such setting{hint}"));
            return;
        };
        self.remember_line(format!("{shown}.{name}"), at);
        if let (Kind::Pairs, DeValue::Table(pairs)) = (knob.kind, value.get_ref()) {
            for (of, entry) in pairs.iter() {
                let dotted = format!("{shown}.{name}.{}", of.get_ref());
                self.remember_line(dotted, entry.span().start);
            }
        }
        match take(knob, value.get_ref()) {
            Ok(value) => {
                own.insert(knob.key, value);
            }
            Err(got) => {
                self.error(
                    at,
                    format!("{shown}.{name}: {got} is wrong; {}", knob.kind.allowed()),
                );
            }
        }
    }
}

/// The value of a setting, or what was found instead.
fn take(knob: &Knob, value: &DeValue<'_>) -> Result<Value, String> {
    match (knob.kind, value) {
        (Kind::Count { .. }, DeValue::Integer(number)) => {
            let text = number.as_str().replace('_', "");
            let decimal = if number.radix() == 10 {
                Some(text.clone())
            } else {
                None
            };
            decimal.and_then(|text| knob.kind.parse(&text)).ok_or(text)
        }
        (Kind::Flag, DeValue::Boolean(flag)) => Ok(Value::Flag(*flag)),
        (Kind::Count { .. } | Kind::Flag | Kind::List(_) | Kind::Pairs, DeValue::String(text)) => {
            Err(format!("the string {text:?}"))
        }
        (_, DeValue::String(text)) => knob.kind.parse(text).ok_or_else(|| format!("{text:?}")),
        (Kind::List(item), DeValue::Array(array)) => {
            let mut texts = Vec::new();
            for entry in array.iter() {
                match entry.get_ref() {
                    DeValue::String(text) => texts.push(text.as_ref()),
                    other => return Err(format!("a list with {}", other.type_str())),
                }
            }
            item.list(&texts).map_err(|bad| format!("{bad:?}"))
        }
        (Kind::Pairs, DeValue::Table(table)) => {
            let mut pairs = Vec::new();
            for (name, entry) in table.iter() {
                match entry.get_ref() {
                    DeValue::String(text) => {
                        pairs.push((name.get_ref().to_string(), text.to_string()))
                    }
                    other => return Err(format!("{}: {}", name.get_ref(), other.type_str())),
                }
            }
            Ok(Value::Pairs(pairs))
        }
        (_, DeValue::Integer(number)) => Err(format!("the bare number {}", number.as_str())),
        (_, other) => Err(format!("a value of type {}", other.type_str())),
    }
}

/// Whether a dotted name is a table, or the beginning of one's name.
fn known_table(name: &str) -> Option<Option<&'static str>> {
    let known = KNOBS
        .iter()
        .map(|knob| knob.table)
        .find(|table| *table == name);
    let prefix = format!("{name}.");
    let begins = KNOBS
        .iter()
        .any(|knob| knob.table.starts_with(&prefix) && !prefix.is_empty());
    let single = known.filter(|table| !REPEATED.contains(table));
    if single.is_some() || begins {
        Some(single)
    } else {
        None
    }
}

/// "; did you mean ...?" when something known is close.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let best = known.map(|other| (distance(name, other), other)).min();
    match best {
        Some((distance, other)) if distance <= 1 + name.len() / 3 => {
            format!("; did you mean {other}?")
        }
        _ => String::new(),
    }
}

/// Edits between two words.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, left) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, right) in other.bytes().enumerate() {
            let next = (diagonal + usize::from(left != right))
                .min(row[column] + 1)
                .min(row[column + 1] + 1);
            diagonal = std::mem::replace(&mut row[column + 1], next);
        }
    }
    row[other.len()]
}

impl Values {
    pub(super) fn table(&self, name: &'static str) -> TableView<'_> {
        TableView {
            name,
            own: self.single.get(name),
            base: None,
        }
    }

    pub(super) fn tables(&self, name: &'static str) -> Vec<TableView<'_>> {
        let of_name = self.repeated.iter().filter(|(table, _)| *table == name);
        of_name
            .map(|(_, own)| {
                let keys = if name == INHERITS.0 { INHERITS.1 } else { name };
                TableView {
                    name: keys,
                    own: Some(own),
                    base: None,
                }
            })
            .collect()
    }

    /// Line of a setting, by its dotted name; 0 when it is not in the file.
    pub(super) fn line_of(&self, name: &str) -> usize {
        self.lines.get(name).copied().unwrap_or(0)
    }
}

static EMPTY_PAIRS: [(String, String); 0] = [];

impl<'a> TableView<'a> {
    /// The same with `base` behind what is not given here.
    pub(super) fn over(self, base: TableView<'a>) -> Self {
        Self {
            base: base.own,
            ..self
        }
    }

    fn given(&self, key: &str) -> Option<&'a Value> {
        let of = |table: Option<&'a Table>| table.and_then(|table| table.get(key));
        of(self.own).or_else(|| of(self.base))
    }

    fn default(&self, key: &str) -> Value {
        let knob = KNOBS
            .iter()
            .find(|knob| knob.table == self.name && knob.key == key);
        // A test goes through all defaults.
        let value = knob.and_then(|knob| knob.kind.parse(knob.default));
        value.unwrap_or_else(|| unreachable!("{}.{key} has a default of its own kind", self.name))
    }

    pub(super) fn number(&self, key: &str) -> u64 {
        match self
            .given(key)
            .cloned()
            .unwrap_or_else(|| self.default(key))
        {
            Value::Number(number) => number,
            _ => 0,
        }
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.given(key)
            .cloned()
            .unwrap_or_else(|| self.default(key))
            == Value::Flag(true)
    }

    pub(super) fn text(&self, key: &str) -> &'a str {
        match self.given(key) {
            Some(Value::Text(text)) => text,
            _ => self.default_text(key),
        }
    }

    fn default_text(&self, key: &str) -> &'static str {
        let knob = KNOBS
            .iter()
            .find(|knob| knob.table == self.name && knob.key == key);
        knob.map_or("", |knob| knob.default)
    }

    pub(super) fn numbers(&self, key: &str) -> Vec<u64> {
        match self
            .given(key)
            .cloned()
            .unwrap_or_else(|| self.default(key))
        {
            Value::Numbers(numbers) => numbers,
            _ => Vec::new(),
        }
    }

    pub(super) fn list(&self, key: &str) -> Vec<String> {
        match self
            .given(key)
            .cloned()
            .unwrap_or_else(|| self.default(key))
        {
            Value::List(list) => list,
            _ => Vec::new(),
        }
    }

    pub(super) fn pairs(&self, key: &str) -> &'a [(String, String)] {
        match self.given(key) {
            Some(Value::Pairs(pairs)) => pairs,
            _ => &EMPTY_PAIRS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_of_its_own_kind() {
        for knob in KNOBS {
            assert!(
                knob.kind.parse(knob.default).is_some(),
                "{}.{}",
                knob.table,
                knob.key
            );
        }
    }
}
