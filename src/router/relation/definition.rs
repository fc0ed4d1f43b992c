//! The words of the `relation` built-in.

use std::fmt;

use super::kind::{DRIVERS, Driver, KINDS, Kind, OPTIONAL, RECORDS, Record};

/// Case of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fold {
    /// As they come.
    #[default]
    Keep,
    /// `-l`.
    Lower,
    /// `-u`.
    Upper,
}

impl Fold {
    /// Folds a key.
    pub fn apply(self, key: &mut [u8]) {
        match self {
            Self::Keep => {}
            Self::Lower => key.make_ascii_lowercase(),
            Self::Upper => key.make_ascii_uppercase(),
        }
    }
}

/// What becomes of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finish {
    /// Nothing.
    #[default]
    Plain,
    /// `-b`: the key instead.
    Key,
    /// `-n`: the key instead of nothing.
    KeyForNothing,
    /// `-p`: nothing; a mark.
    Pathalias,
    /// `-i`: it is the place of the value in the second file.
    Indirect,
}

/// The meaning of the words behind `relation`, without the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Type as it was written.
    pub type_name: &'static str,
    /// Type.
    pub kind: Kind,
    /// What stands behind the type's comma.
    pub subtype: Vec<u8>,
    /// `-f`, or what the type uses without.
    pub file: Vec<u8>,
    /// `-C`.
    pub config: Vec<u8>,
    /// `-d`.
    pub driver: Option<Driver>,
    /// `-l`, `-u`.
    pub fold: Fold,
    /// `-b`, `-n`, `-p`, `-i`; the last one counts.
    pub finish: Finish,
    /// `-%`.
    pub substitutes: bool,
    /// `-:`, a mark for tools.
    pub takes_defaults: bool,
    /// `-m`.
    pub watched: bool,
    /// `-N`.
    pub negative: bool,
    /// `-e`, in seconds; 0: as long as the source says, or [`Definition::TTL_S`].
    pub ttl_s: u64,
    /// `-s`.
    pub cache_entries: usize,
}

/// Most entries that a cache may be asked to hold.
const CACHE_ENTRIES_MAX: usize = 1_000_000;

/// A file, or a pair of files, that becomes a map.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// How it is read.
    pub kind: Kind,
    /// The file.
    pub path: Vec<u8>,
    /// The file that values are places of.
    pub second: Option<Vec<u8>>,
    /// A change is picked up by itself; otherwise by `db flush`.
    pub watched: bool,
}

/// What stands under a name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A relation.
    Database,
    /// A built-in.
    Builtin,
    /// A function of the script.
    Function,
}

/// The built-in failed: its status and what is printed on standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Exit status.
    pub status: u8,
    /// Text.
    pub text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What the words ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A relation of this name.
    Define {
        /// Name.
        name: Vec<u8>,
        /// Meaning.
        definition: Box<Definition>,
    },
    /// `-T`: the type is known.
    Known,
}

impl Definition {
    /// How long an answer is remembered when neither `-e` nor its source says.
    pub const TTL_S: u64 = 300;

    /// With nothing but its type.
    #[must_use]
    pub fn of(kind: Kind) -> Self {
        Self {
            type_name: kind.name(),
            kind,
            subtype: Vec::new(),
            file: kind.default_file().to_vec(),
            config: Vec::new(),
            driver: None,
            fold: Fold::Keep,
            finish: Finish::Plain,
            substitutes: false,
            takes_defaults: false,
            watched: false,
            negative: false,
            ttl_s: 0,
            cache_entries: kind.default_cache(),
        }
    }

    /// Reads the words behind `relation`; `taken` says what a name stands for already.
    ///
    /// # Errors
    /// Status 1: usage, a bad driver or record type; 2: `-l` with `-u`; 3: unknown type; 4, 5, 6: the name
    /// is a database, a built-in, a function; 7: `-i` where values cannot be places.
    pub fn parse(
        words: &[&[u8]],
        taken: impl FnOnce(&[u8]) -> Option<Taken>,
    ) -> Result<Parsed, Failure> {
        let options = Options::read(words).map_err(usage)?;
        let (name, kind_words) = match (options.operands, options.kind) {
            ([name], Some(kind)) => (*name, kind),
            ([_], None) => return Err(usage("-t is missing".to_owned())),
            _ => return Err(usage("one name is needed".to_owned())),
        };
        if options.lower && options.upper {
            return Err(failure(2, "-l and -u exclude each other"));
        }
        let comma = kind_words.iter().position(|b| matches!(b, b',' | b'/'));
        let (type_name, subtype) = match comma {
            Some(at) => (&kind_words[..at], &kind_words[at + 1..]),
            None => (kind_words, &b""[..]),
        };
        let row = KINDS
            .iter()
            .find(|(known, _)| known.as_bytes() == type_name);
        let Some(&(type_name, kind)) = row else {
            let known = |word: &&&str| word.as_bytes() == type_name;
            return Err(match OPTIONAL.iter().find(known) {
                _ if options.test => failure(3, ""),
                Some(word) => failure(3, &format!("type {word} is not part of this build")),
                None if type_name == b"yp" => {
                    failure(3, "type yp is left out; compile its maps with makedb")
                }
                None => failure(3, &format!("type {} is not known", show(type_name))),
            });
        };
        if options.test {
            return Ok(Parsed::Known);
        }
        if options.substitutes && kind == Kind::Regex {
            let text = "-% is not for regex, whose values have its groups for %0 to %9";
            return Err(failure(1, text));
        }
        let mut definition = options.definition(type_name, kind, subtype)?;
        let taken = match taken(name) {
            Some(Taken::Database) => Some((4, "a database")),
            Some(Taken::Builtin) => Some((5, "a built-in")),
            Some(Taken::Function) => Some((6, "a function")),
            None => None,
        };
        if let Some((status, what)) = taken {
            return Err(failure(
                status,
                &format!("{} is {what} already", show(name)),
            ));
        }
        if definition.finish == Finish::Indirect && !kind.is_lines() {
            let text = format!("-i is for ordered and unordered, not for {type_name}");
            return Err(failure(7, &text));
        }
        if let Kind::Compiled(extension) = kind {
            definition.file = with_extension(&definition.file, extension);
        }
        let name = name.to_vec();
        let definition = Box::new(definition);
        Ok(Parsed::Define { name, definition })
    }

    /// The file behind it, for kinds that have one.
    #[must_use]
    pub fn source(&self) -> Option<Source> {
        if self.kind.is_table() || self.kind.is_asked() {
            return None;
        }
        let indirect = self.finish == Finish::Indirect;
        Some(Source {
            kind: self.kind,
            path: self.file.clone(),
            second: indirect.then(|| self.subtype.clone()),
            // A compiled file is replaced as a whole, so there is never a bad moment.
            watched: self.watched || matches!(self.kind, Kind::Compiled(_)),
        })
    }

    /// The record type, for `bind`.
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        Record::parse(&self.subtype)
    }

    /// The driver as `db toc` shows it.
    pub(super) fn driver_mark(&self) -> &'static str {
        let row = DRIVERS
            .iter()
            .find(|(_, driver, _)| Some(*driver) == self.driver);
        row.map_or("", |(_, _, mark)| mark)
    }
}

/// What the options say, before they are judged.
#[derive(Default)]
struct Options<'a> {
    test: bool,
    lower: bool,
    upper: bool,
    substitutes: bool,
    takes_defaults: bool,
    watched: bool,
    negative: bool,
    finish: Finish,
    kind: Option<&'a [u8]>,
    file: Option<&'a [u8]>,
    config: Option<&'a [u8]>,
    driver: Option<Driver>,
    ttl_s: u64,
    cache: Option<usize>,
    operands: &'a [&'a [u8]],
}

impl<'a> Options<'a> {
    /// As getopt reads them: letters may be bundled, the argument of one may follow at once or as the next
    /// word, and the first word without a hyphen ends them.
    fn read(words: &'a [&'a [u8]]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut at = 0;
        while let Some(word) = words.get(at) {
            if *word == b"--" {
                at += 1;
                break;
            }
            let [b'-', letters @ ..] = word else { break };
            if letters.is_empty() {
                break;
            }
            at += 1;
            for (place, letter) in letters.iter().enumerate() {
                if options.flag(*letter) {
                    continue;
                }
                let rest = letters.get(place + 1..).unwrap_or_default();
                let argument = if rest.is_empty() {
                    at += 1;
                    words.get(at - 1).copied()
                } else {
                    Some(rest)
                };
                options.argument(*letter, argument)?;
                break;
            }
        }
        options.operands = words.get(at..).unwrap_or_default();
        Ok(options)
    }

    fn flag(&mut self, letter: u8) -> bool {
        match letter {
            b'T' => self.test = true,
            b'l' => self.lower = true,
            b'u' => self.upper = true,
            b'%' => self.substitutes = true,
            b':' => self.takes_defaults = true,
            b'm' => self.watched = true,
            b'N' => self.negative = true,
            b'b' => self.finish = Finish::Key,
            b'n' => self.finish = Finish::KeyForNothing,
            b'p' => self.finish = Finish::Pathalias,
            b'i' => self.finish = Finish::Indirect,
            _ => return false,
        }
        true
    }

    fn argument(&mut self, letter: u8, argument: Option<&'a [u8]>) -> Result<(), String> {
        if !b"tfCdes".contains(&letter) {
            return Err(format!("-{} is not an option", show(&[letter])));
        }
        let letter = char::from(letter);
        let argument = argument.ok_or_else(|| format!("-{letter} needs an argument"))?;
        let number = || {
            let text = std::str::from_utf8(argument).ok();
            let number = text.and_then(|text| text.trim().parse::<i64>().ok());
            number.ok_or_else(|| format!("-{letter} needs a number, not {}", show(argument)))
        };
        match letter {
            't' => self.kind = Some(argument),
            'f' => self.file = Some(argument),
            'C' => self.config = Some(argument),
            'e' => self.ttl_s = u64::try_from(number()?).unwrap_or(0),
            's' => {
                let entries = usize::try_from(number()?).ok();
                self.cache = entries.map(|entries| entries.min(CACHE_ENTRIES_MAX));
            }
            _ => {
                let row = DRIVERS
                    .iter()
                    .find(|(name, _, _)| name.as_bytes() == argument);
                let Some((_, driver, _)) = row else {
                    return Err(format!("driver {} is not known", show(argument)));
                };
                self.driver = Some(*driver);
            }
        }
        Ok(())
    }

    fn definition(
        &self,
        type_name: &'static str,
        kind: Kind,
        subtype: &[u8],
    ) -> Result<Definition, Failure> {
        if kind == Kind::Bind && Record::parse(subtype).is_none() {
            let names: Vec<&str> = RECORDS.iter().map(|(name, _)| *name).collect();
            let text = format!(
                "record type {} is not known; write -t bind,TYPE with one of {}",
                show(subtype),
                names.join(" ")
            );
            return Err(failure(1, &text));
        }
        let fold = match (self.lower, self.upper) {
            (true, _) => Fold::Lower,
            (_, true) => Fold::Upper,
            _ => Fold::Keep,
        };
        let file = self.file.unwrap_or(kind.default_file());
        Ok(Definition {
            type_name,
            kind,
            subtype: subtype.to_vec(),
            file: file.to_vec(),
            config: self.config.unwrap_or_default().to_vec(),
            driver: self.driver,
            fold,
            finish: self.finish,
            substitutes: self.substitutes,
            takes_defaults: self.takes_defaults,
            watched: self.watched,
            negative: self.negative,
            ttl_s: self.ttl_s,
            cache_entries: self.cache.unwrap_or(kind.default_cache()),
        })
    }
}

/// A file's name with an extension of compiled files: the one it has, or the one given.
pub(crate) fn with_extension(file: &[u8], extension: &str) -> Vec<u8> {
    const KNOWN: &[&[u8]] = &[b".cdb", b".db", b".dbh", b".gdbm", b".pag"];
    let mut file = file.to_vec();
    if !KNOWN.iter().any(|known| file.ends_with(known)) {
        file.push(b'.');
        file.extend_from_slice(extension.as_bytes());
    }
    file
}

fn failure(status: u8, text: &str) -> Failure {
    let text = if text.is_empty() {
        String::new()
    } else {
        format!("relation: {text}")
    };
    Failure { status, text }
}

fn usage(what: String) -> Failure {
    let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
    let text = format!(
        "{what}\nusage: relation -t TYPE[,SUBTYPE] [-f FILE] [-C FILE] [-d DRIVER] [-e SECONDS] [-s ENTRIES] \
         [-bilmnNpu%:] NAME\n       relation -T -t TYPE NAME\ntypes: {}",
        names.join(" ")
    );
    failure(1, &text)
}

fn show(text: &[u8]) -> String {
    String::from_utf8_lossy(text).escape_debug().to_string()
}
