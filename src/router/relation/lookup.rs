//! One look-up: keys of the driver, one after the other, until one is found.

use std::borrow::Cow;
use std::ops::Range;

use super::cache::Cache;
use super::definition::{Definition, Finish};
use super::driver::{Candidate, Key, Keys, network};
use super::kind::{Engine, Kind, Record};
use super::table::Table;
use super::{Held, KEY_BYTES_MAX, Maps, Relation};
use crate::base::clock::Now;

/// Default keys of one call; further ones are taken for what is substituted.
const DEFAULTS_MAX: usize = 19;

/// Where a look-up stands. [`Lookup::step`] takes it on; when it asks, [`Lookup::answer`] gives it the reply
/// and it is stepped again.
#[derive(Clone, Debug)]
pub struct Lookup {
    keys: Keys,
    /// What follows the key in the call; most have nothing.
    words: Option<Box<Words>>,
    /// What was asked about.
    asked: Option<Candidate>,
    reply: Option<Reply>,
    /// The least time that an answer on the way may be remembered.
    ttl_s: Option<u64>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begin,
    Walk,
    /// The key is not one.
    Void,
}

#[derive(Clone, Debug, Default)]
struct Words {
    defaults: Vec<Box<[u8]>>,
    extra: Vec<Box<[u8]>>,
}

/// Result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Found.
    Found(Value<'a>),
    /// There is no such key.
    Missing,
    /// It cannot be known now.
    Defer {
        /// Text for `$defer`.
        reason: Vec<u8>,
        /// The value all the same: with `-n` a look-up always has one.
        value: Option<Vec<u8>>,
    },
    /// Somebody outside has to say.
    Ask(Question),
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// One text.
    Text(Cow<'a, [u8]>),
    /// Several.
    List(Vec<Vec<u8>>),
}

/// What is asked outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Of name servers.
    Bind {
        /// Record type.
        record: Record,
        /// Name.
        name: Vec<u8>,
    },
    /// Is this address ours?
    SelfMatch {
        /// The address.
        address: Vec<u8>,
    },
    /// Of a database of others.
    Engine {
        /// Which.
        engine: Engine,
        /// The file that says how.
        config: Vec<u8>,
        /// What stands behind the type's comma: a section of that file.
        section: Vec<u8>,
        /// Key.
        key: Vec<u8>,
    },
}

/// The reply to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// One text; and for how long it may be remembered, where the source says.
    Text(Vec<u8>, Option<u64>),
    /// Several texts.
    List(Vec<Vec<u8>>, Option<u64>),
    /// There is none.
    Missing(Option<u64>),
    /// It cannot be known now; the text for `$defer`.
    Later(Vec<u8>),
}

/// What a cache keeps: the value before substitution, and what `%0` means.
#[derive(Clone, Debug)]
pub(super) struct Answered {
    pub(super) value: Option<Value<'static>>,
    pub(super) rest: Vec<u8>,
}

impl Lookup {
    /// For a call's words: the key, `-: DEFAULT` several times, `--`, and what `%1` to `%9` mean.
    /// An empty key and one over [`KEY_BYTES_MAX`] are in no database.
    #[must_use]
    pub fn begin(relation: &Relation, words: &[&[u8]]) -> Self {
        let (key, rest) = match words {
            [key, rest @ ..] => (*key, rest),
            [] => (&b""[..], words),
        };
        Self::of(relation, key, rest, Vec::new())
    }

    /// The same for a key and the words behind it; in the memory of one that has ended.
    #[must_use]
    pub fn of(relation: &Relation, key: &[u8], rest: &[&[u8]], memory: Vec<u8>) -> Self {
        let definition = &relation.definition;
        let void = key.is_empty() || key.len() > KEY_BYTES_MAX;
        let key = if void { &b""[..] } else { key };
        let words = (!rest.is_empty()).then(|| Box::new(Words::read(rest)));
        Self {
            keys: Keys::new(definition.driver, key, memory, |key| {
                definition.fold.apply(key)
            }),
            words,
            asked: None,
            reply: None,
            ttl_s: None,
            stage: if void { Stage::Void } else { Stage::Begin },
        }
    }

    /// It has ended; the next one may have its memory.
    #[must_use]
    pub fn into_memory(self) -> Vec<u8> {
        self.keys.into_memory()
    }

    /// Takes the reply to what was asked.
    pub fn answer(&mut self, reply: Reply) {
        self.reply = Some(reply);
    }

    /// Goes on until there is a result or something has to be asked. `table` is the table of an `incore` or
    /// `header` relation as the evaluation sees it.
    pub fn step<'a>(
        &mut self,
        relation: &Relation,
        table: Option<&'a Table>,
        maps: &'a dyn Maps,
        cache: &mut Cache,
        now: Now,
    ) -> Step<'a> {
        let definition = &relation.definition;
        match self.stage {
            Stage::Void => return Step::Missing,
            Stage::Begin => self.stage = Stage::Walk,
            Stage::Walk => {}
        }
        if definition.kind.is_table() {
            return match table {
                Some(table) => self.walk(definition, |key| table.value(key).map(Cow::Borrowed)),
                None => self.miss(definition),
            };
        }
        if definition.kind.is_asked() {
            return self.step_asked(definition, cache, now);
        }
        let held = relation.map.map(|id| maps.map(id));
        match held {
            Some(Ok(Held::Lent(version))) => self.walk(definition, |key| version.map.get(key)),
            Some(Ok(Held::Shared(version))) => self.walk(definition, |key| {
                let value = version.map.get(key)?;
                Some(Cow::Owned(value.into_owned()))
            }),
            Some(Err(unavailable)) => self.defer(definition, unavailable.0),
            None => self.defer(definition, b"IO:error".to_vec()),
        }
    }

    fn walk<'a>(
        &mut self,
        definition: &Definition,
        get: impl Fn(&[u8]) -> Option<Cow<'a, [u8]>>,
    ) -> Step<'a> {
        while let Some(candidate) = self.next(definition) {
            if let Some(value) = self.with_key(definition, &candidate.key, &get) {
                let value = self.finish(definition, Value::Text(value));
                let rest = self.rest(definition, &candidate, &value);
                return Step::Found(self.substitute(definition, value, &rest));
            }
        }
        self.miss(definition)
    }

    fn step_asked<'a>(&mut self, definition: &Definition, cache: &mut Cache, now: Now) -> Step<'a> {
        // With other defaults the same key has another answer.
        let remembers = self
            .words
            .as_ref()
            .is_none_or(|words| words.defaults.is_empty());
        let Some(candidate) = self.asked.take() else {
            let known = cache.find(self.keys.whole(), now).filter(|_| remembers);
            return match known {
                Some(Answered {
                    value: Some(value),
                    rest,
                }) => Step::Found(self.substitute(definition, value, &rest)),
                Some(Answered { value: None, .. }) => self.miss(definition),
                None => self.ask_next(definition),
            };
        };
        let (value, ttl_s) = match self.reply.take() {
            Some(Reply::Text(text, ttl_s)) => (Some(Value::Text(Cow::Owned(text))), ttl_s),
            Some(Reply::List(list, ttl_s)) => (Some(Value::List(list)), ttl_s),
            Some(Reply::Missing(ttl_s)) => (None, ttl_s),
            Some(Reply::Later(reason)) => return self.defer(definition, reason),
            // Stepped without an answer: ask again.
            None => return self.ask(definition, candidate),
        };
        self.ttl_s = match (self.ttl_s, ttl_s) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let ttl_s = self.ttl_s.unwrap_or(match definition.ttl_s {
            0 => Definition::TTL_S,
            ttl_s => ttl_s,
        });
        let Some(value) = value else {
            let step = self.ask_next(definition);
            // With `-n` there is always a value, so nothing is a negative answer.
            let kept = definition.negative || definition.finish == Finish::KeyForNothing;
            if !matches!(step, Step::Ask(_)) && kept && remembers {
                let answered = Answered {
                    value: None,
                    rest: Vec::new(),
                };
                cache.insert(self.keys.whole(), answered, ttl_s, now);
            }
            return step;
        };
        let value = self.finish(definition, value);
        let rest = self.rest(definition, &candidate, &value);
        if remembers {
            let answered = Answered {
                value: Some(value.clone()),
                rest: rest.clone(),
            };
            cache.insert(self.keys.whole(), answered, ttl_s, now);
        }
        Step::Found(self.substitute(definition, value, &rest))
    }

    fn ask_next<'a>(&mut self, definition: &Definition) -> Step<'a> {
        match self.next(definition) {
            Some(candidate) => self.ask(definition, candidate),
            None => self.miss(definition),
        }
    }

    fn ask<'a>(&mut self, definition: &Definition, candidate: Candidate) -> Step<'a> {
        let key = self.with_key(definition, &candidate.key, &|key: &[u8]| Some(key.to_vec()));
        let key = key.unwrap_or_default();
        let question = match definition.kind {
            Kind::Bind => Question::Bind {
                // The words were refused if it were none.
                record: definition.record().unwrap_or(Record::Any),
                name: key,
            },
            Kind::Engine(engine) => Question::Engine {
                engine,
                config: if definition.config.is_empty() {
                    definition.file.clone()
                } else {
                    definition.config.clone()
                },
                section: definition.subtype.clone(),
                key,
            },
            _ => Question::SelfMatch { address: key },
        };
        self.asked = Some(candidate);
        Step::Ask(question)
    }

    fn next(&mut self, definition: &Definition) -> Option<Candidate> {
        let defaults = self.words.as_ref().map_or(0, |words| words.defaults.len());
        self.keys.next(definition.driver, defaults)
    }

    fn with_key<T>(
        &self,
        definition: &Definition,
        key: &Key,
        call: &impl Fn(&[u8]) -> Option<T>,
    ) -> Option<T> {
        match key {
            Key::Part(range) => call(self.keys.part(range)),
            Key::Dot => call(b"."),
            Key::Local if definition.fold == super::Fold::Lower => call(b"@local@"),
            Key::Local => call(b"@LOCAL@"),
            Key::Default(number) => {
                let words = self.words.as_ref()?;
                call(words.defaults.get(*number)?)
            }
            Key::Network(address, bits) => {
                let text = format!("{}/{bits}", network(*address, *bits));
                call(text.as_bytes())
            }
        }
    }

    /// What `%0` means; empty when nothing is substituted.
    fn rest(&self, definition: &Definition, candidate: &Candidate, value: &Value<'_>) -> Vec<u8> {
        let has_sign = matches!(value, Value::Text(text) if text.contains(&b'%'));
        if !definition.substitutes || !has_sign {
            return Vec::new();
        }
        let part = |range: &Range<usize>| self.keys.part(range).to_vec();
        match &candidate.rest {
            Some(range) => part(range),
            None => {
                let copy = |key: &[u8]| Some(key.to_vec());
                self.with_key(definition, &candidate.key, &copy)
                    .unwrap_or_default()
            }
        }
    }

    fn finish<'a>(&self, definition: &Definition, value: Value<'a>) -> Value<'a> {
        let empty = match &value {
            Value::Text(text) => text.is_empty(),
            Value::List(list) => list.is_empty(),
        };
        match definition.finish {
            Finish::Key => self.key(),
            Finish::KeyForNothing if empty => self.key(),
            _ => value,
        }
    }

    fn key<'a>(&self) -> Value<'a> {
        Value::Text(Cow::Owned(self.keys.whole().to_vec()))
    }

    fn miss<'a>(&self, definition: &Definition) -> Step<'a> {
        match definition.finish {
            Finish::KeyForNothing => Step::Found(self.key()),
            _ => Step::Missing,
        }
    }

    fn defer<'a>(&self, definition: &Definition, reason: Vec<u8>) -> Step<'a> {
        let value = definition.finish == Finish::KeyForNothing;
        let value = value.then(|| self.keys.whole().to_vec());
        Step::Defer { reason, value }
    }

    /// Puts in what `%0` to `%9` stand for. A text in which none of them stands for anything stays as it
    /// is; in another those that stand for nothing vanish. Where a text names a program, nothing that strangers write
    /// may become a part of its command but plain letters: every other byte is a `_` there.
    fn substitute<'a>(&self, definition: &Definition, value: Value<'a>, rest: &[u8]) -> Value<'a> {
        let Value::Text(text) = &value else {
            return value;
        };
        if !definition.substitutes || !text.contains(&b'%') {
            return value;
        }
        let mut out = Vec::with_capacity(text.len() + rest.len());
        let mut any = false;
        let is_command = text.contains(&b'|');
        let mut bytes = text.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            let digit = bytes.peek().copied().filter(u8::is_ascii_digit);
            let Some(digit) = digit.filter(|_| byte == b'%') else {
                out.push(byte);
                continue;
            };
            bytes.next();
            let word = match digit {
                b'0' => Some(rest),
                _ => self.extra(usize::from(digit - b'1')),
            };
            any |= word.is_some();
            let word = word.unwrap_or_default();
            if is_command {
                let word = word.iter().copied().enumerate();
                out.extend(word.map(|(at, byte)| harmless(byte, at == 0)));
            } else {
                out.extend_from_slice(word);
            }
        }
        if any {
            Value::Text(Cow::Owned(out))
        } else {
            value
        }
    }

    fn extra(&self, number: usize) -> Option<&[u8]> {
        let words = self.words.as_ref()?;
        words.extra.get(number).map(|word| &**word)
    }
}

/// Itself, if neither a shell nor a program gives it a meaning where it stands.
fn harmless(byte: u8, is_first: bool) -> u8 {
    if is_first && byte == b'-' {
        b'_'
    } else if byte.is_ascii_alphanumeric() || b"._+=@-".contains(&byte) {
        byte
    } else {
        b'_'
    }
}

impl Words {
    fn read(words: &[&[u8]]) -> Self {
        let mut read = Self::default();
        let mut rest = words;
        loop {
            rest = match rest {
                [b"--", behind @ ..] => {
                    rest = behind;
                    break;
                }
                [b"-:", default, behind @ ..] if read.defaults.len() < DEFAULTS_MAX => {
                    read.defaults.push((*default).into());
                    behind
                }
                _ => break,
            };
        }
        read.extra = rest.iter().map(|word| (*word).into()).collect();
        read
    }
}
