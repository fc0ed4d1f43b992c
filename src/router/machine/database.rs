//! Relations as the machine keeps and asks them.

use std::cell::RefCell;
use std::rc::Rc;

use super::output::Returned;
use super::state::{Arguments, Callable};
use super::{Evaluation, Event, Flow, Pause};
use crate::base::clock::Now;
use crate::router::builtin;
use crate::router::code::Symbol;
use crate::router::relation::{
    Answers, Cache, Command, Definition, Lookup, MapId, Maps, Question, Relation, Source, Step,
    Table, Value as Found, contents,
};
use crate::router::request::{Answer, Request};
use crate::router::value::Value;

/// What is asked of whoever keeps the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapRequest {
    /// A map that is new: it is asked for under this number from now on.
    Open {
        /// Its number.
        id: MapId,
        /// Where it comes from.
        source: Source,
    },
    /// A line is added to its file, which is then read again.
    Append {
        /// Its number.
        id: MapId,
        /// With its newline.
        line: Vec<u8>,
    },
    /// Its file is read again.
    Reload(MapId),
}

/// A relation of this evaluation.
pub(super) struct Kept {
    relation: Rc<Relation>,
    /// Of `incore` and `header`.
    table: Option<Table>,
    /// The table was changed since the configuration was loaded.
    changed: bool,
}

/// A look-up that is under way.
pub(super) struct Asked {
    number: usize,
    lookup: Lookup,
    /// For the trace.
    key: Vec<u8>,
}

/// A step of a look-up, with the script's values.
enum Said {
    /// The value if there is one, and why it cannot be known.
    Known(Option<Value>, Option<Vec<u8>>),
    Ask(Question),
}

impl Said {
    fn of(step: Step<'_>) -> Self {
        match step {
            Step::Found(Found::Text(text)) => Self::Known(Some(Value::from(&*text)), None),
            Step::Found(Found::List(texts)) => {
                let values = texts.iter().map(|text| Value::from(text.as_slice()));
                Self::Known(Some(Value::list(values.collect())), None)
            }
            Step::Missing => Self::Known(None, None),
            Step::Defer { reason, value } => {
                let value = value.map(|value| Value::from(value.as_slice()));
                Self::Known(value, Some(reason))
            }
            Step::Ask(question) => Self::Ask(question),
        }
    }
}

/// Work that needs the maps.
pub(super) enum Work {
    Lookup(Asked),
    Command(usize, Command),
}

/// All of them.
pub(super) struct Databases {
    kept: Vec<Kept>,
    /// What they held when the configuration was loaded.
    base: Vec<Option<Table>>,
    sources: Vec<Source>,
    /// What relations of the configuration were answered; all evaluations of a shard have the same.
    shared: Rc<RefCell<Answers>>,
    /// What the others were answered.
    own: Answers,
    /// Room for the key of the next look-up.
    spare: Vec<u8>,
    pub(super) work: Option<Work>,
}

impl Default for Databases {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            base: Vec::new(),
            sources: Vec::new(),
            shared: Rc::new(RefCell::new(Answers::new(SHARED_BYTES_MAX))),
            own: Answers::new(OWN_BYTES_MAX),
            spare: Vec::new(),
            work: None,
        }
    }
}

impl Databases {
    /// Something to do with a relation, its table and what is remembered of it.
    fn with<T>(
        &mut self,
        number: usize,
        act: impl FnOnce(&Relation, &mut Option<Table>, &mut Cache) -> T,
    ) -> T {
        let kept = &mut self.kept[number];
        match number.checked_sub(self.base.len()) {
            None => {
                let mut shared = self.shared.borrow_mut();
                shared.with(number, |cache| act(&kept.relation, &mut kept.table, cache))
            }
            Some(number) => {
                let own = &mut self.own;
                own.with(number, |cache| act(&kept.relation, &mut kept.table, cache))
            }
        }
    }

    fn answers_of(&self, number: usize) -> usize {
        match number.checked_sub(self.base.len()) {
            None => self.shared.borrow().len(number),
            Some(number) => self.own.len(number),
        }
    }
}

/// Relations of one configuration.
const RELATIONS_MAX: usize = 10_000;

/// Bytes of answers that a shard remembers.
const SHARED_BYTES_MAX: usize = 16 << 20;

/// Bytes of answers to relations that a message's evaluation defined, or a tool's script.
const OWN_BYTES_MAX: usize = 1 << 20;

impl Evaluation {
    pub(super) fn add_predefined(&mut self) {
        for (relation, table) in Relation::predefined() {
            let Ok(symbol) = self.symbol(&relation.name.clone()) else {
                continue;
            };
            self.keep_relation(symbol, relation, Some(table));
        }
    }

    fn keep_relation(&mut self, symbol: Symbol, relation: Relation, table: Option<Table>) {
        let entries_max = relation.definition.cache_entries;
        self.databases.own.add(entries_max);
        self.databases.kept.push(Kept {
            relation: Rc::new(relation),
            table,
            changed: false,
        });
        let number = self.databases.kept.len() - 1;
        self.state.define(symbol, Some(Callable::Relation(number)));
    }

    /// A new relation; when its map is new too, where that comes from.
    pub(in crate::router) fn define_relation(
        &mut self,
        name: &[u8],
        definition: Definition,
    ) -> Result<Option<(MapId, Source)>, Pause> {
        let symbol = self.symbol(name)?;
        if self.databases.kept.len() >= RELATIONS_MAX {
            self.complain(&format!("more than {RELATIONS_MAX} relations"));
            self.status = 1;
            return Ok(None);
        }
        let table = definition
            .kind
            .is_table()
            .then(|| Table::new(definition.kind));
        let source = definition.source();
        let sources = &mut self.databases.sources;
        let known = source
            .as_ref()
            .and_then(|source| sources.iter().position(|known| known == source));
        let (map, new) = match (known, source) {
            (Some(number), _) => (Some(MapId(number as u32)), None),
            (None, Some(source)) => {
                let id = MapId(sources.len() as u32);
                sources.push(source.clone());
                (Some(id), Some((id, source)))
            }
            (None, None) => (None, None),
        };
        let relation = Relation {
            name: name.into(),
            definition,
            map,
        };
        self.keep_relation(symbol, relation, table);
        Ok(new)
    }

    pub(in crate::router) fn relation_list(&self) -> Vec<u8> {
        let kept = self.databases.kept.iter().enumerate();
        contents(kept.map(|(number, kept)| (&*kept.relation, self.databases.answers_of(number))))
    }

    /// `db` with one relation.
    pub(in crate::router) fn apply(&mut self, number: usize, command: Command) -> Flow {
        self.do_first(Work::Command(number, command));
        Ok(())
    }

    /// Asks a relation with the arguments behind the mark.
    pub(super) fn ask_relation(&mut self, number: usize) -> Flow {
        let start = self.marks.pop().unwrap_or(0);
        let spare = std::mem::take(&mut self.databases.spare);
        let mut words = self.words(Arguments { start });
        let key = words.next().unwrap_or_default();
        // Most calls have a key only, and this takes no memory then.
        let rest: Vec<&[u8]> = words.collect();
        let lookup = Lookup::of(&self.databases.kept[number].relation, key, &rest, spare);
        let key = match self.trace.on {
            true => key.to_vec(),
            false => Vec::new(),
        };
        self.arguments.truncate(start);
        self.do_first(Work::Lookup(Asked {
            number,
            lookup,
            key,
        }));
        Ok(())
    }

    /// Before the next operation.
    fn do_first(&mut self, work: Work) {
        self.databases.work = Some(work);
        self.switched = true;
    }

    /// Does what waits for the maps.
    pub(super) fn do_work(&mut self, maps: &dyn Maps, now: Now) -> Flow {
        match self.databases.work.take() {
            None => Ok(()),
            Some(Work::Lookup(asked)) => self.look_up(asked, maps, now),
            Some(Work::Command(number, command)) => {
                let user = self.router.user;
                let kept = &mut self.databases.kept[number];
                kept.changed |= kept.table.is_some();
                let before = kept.table.as_ref().map_or(0, Table::changed_bytes);
                let (effect, after) = self.databases.with(number, |relation, table, cache| {
                    let effect = command.apply(relation, table.as_mut(), maps, cache, user);
                    (effect, table.as_ref().map_or(0, Table::changed_bytes))
                });
                self.limits.allocate(after.saturating_sub(before));
                builtin::effect(self, effect)
            }
        }
    }

    fn look_up(&mut self, mut asked: Asked, maps: &dyn Maps, now: Now) -> Flow {
        let lookup = &mut asked.lookup;
        let said = self.databases.with(asked.number, |relation, table, cache| {
            Said::of(lookup.step(relation, table.as_ref(), maps, cache, now))
        });
        let (value, reason) = match said {
            Said::Known(value, reason) => (value, reason),
            Said::Ask(question) => {
                return self.need(Request::Ask(question), move |machine, answer| {
                    let Answer::Reply(reply) = answer else {
                        unreachable!("{answer:?} is no reply of a database")
                    };
                    asked.lookup.answer(reply);
                    machine.databases.work = Some(Work::Lookup(asked));
                    Ok(())
                });
            }
        };
        if let Some(reason) = &reason {
            self.defer(reason);
        }
        self.trace_lookup(&asked, value.as_ref(), reason.as_deref());
        self.databases.spare = asked.lookup.into_memory();
        self.limits
            .allocate(value.as_ref().map_or(0, |value| value.bytes().len()));
        self.status = i32::from(value.is_none());
        self.returns(value.map_or(Returned::Nothing, Returned::One));
        self.command_ended();
        Ok(())
    }

    fn trace_lookup(&mut self, asked: &Asked, value: Option<&Value>, waits: Option<&[u8]>) {
        let relation = &self.databases.kept[asked.number].relation;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.trace.add(|| Event::Lookup {
            name: text(&relation.name),
            key: text(&asked.key),
            answer: value.map(|value| match value {
                Value::Text(value) => text(value),
                Value::List(_) => value.to_string(),
            }),
            waits: waits.map(text),
        });
    }

    /// What relations hold now is what each message starts with; none was answered anything.
    pub(super) fn settle_databases(&mut self) {
        let tables = self.databases.kept.iter_mut().map(|kept| {
            kept.changed = false;
            let table = kept.table.as_mut()?;
            table.settle();
            Some(table.private())
        });
        self.databases.base = tables.collect();
        let mut answers = Answers::new(SHARED_BYTES_MAX);
        for kept in &self.databases.kept {
            answers.add(kept.relation.definition.cache_entries);
        }
        self.databases.shared = Rc::new(RefCell::new(answers));
        self.databases.own.clear();
    }

    /// The same relations, with tables of their own; what they were answered is the same.
    pub(super) fn fork_databases(&self) -> Databases {
        let databases = &self.databases;
        let kept = databases.kept.iter().zip(&databases.base);
        let kept = kept.map(|(kept, base)| Kept {
            relation: Rc::clone(&kept.relation),
            table: base.as_ref().map(Table::private),
            changed: false,
        });
        let base = databases.base.iter();
        Databases {
            kept: kept.collect(),
            base: base.map(|base| base.as_ref().map(Table::private)).collect(),
            sources: databases.sources.clone(),
            shared: Rc::clone(&databases.shared),
            own: Answers::new(OWN_BYTES_MAX),
            spare: Vec::new(),
            work: None,
        }
    }

    /// Forgets what relations of the configuration were answered, for all who share it.
    pub fn forget_answers(&self) {
        self.databases.shared.borrow_mut().flush();
    }

    /// Bytes that tables take more than when the configuration was loaded.
    pub(super) fn changed_table_bytes(&self) -> usize {
        let tables = self
            .databases
            .kept
            .iter()
            .filter_map(|kept| kept.table.as_ref());
        tables.map(Table::changed_bytes).sum()
    }

    /// The maps that the script looks things up in, by number.
    #[must_use]
    pub fn map_sources(&self) -> &[Source] {
        &self.databases.sources
    }

    /// Relations hold again what they held when the configuration was loaded.
    pub(super) fn reset_databases(&mut self) {
        let known = self.databases.base.len();
        self.databases.kept.truncate(known);
        self.databases.own.clear();
        for (kept, base) in self.databases.kept.iter_mut().zip(&self.databases.base) {
            if std::mem::take(&mut kept.changed) {
                kept.table = base.as_ref().map(Table::private);
            }
        }
        self.databases.work = None;
    }
}
