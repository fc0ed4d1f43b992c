//! Commands: whether there are such ones, and whether they are given what they need.

use std::collections::HashSet;

use super::walk::{self, Visitor};
use super::{Known, Script, warning};
use crate::router::builtin::{self, Builtin};
use crate::router::diagnostic::Diagnostic;
use crate::router::syntax::ast::{Command, CommandKind, Parameter, Part, Simple, Word};

/// Names that scripts define, wherever they do.
pub(super) type Names = HashSet<Box<[u8]>>;

/// Names of functions and relations of a script.
pub(super) fn defined_names(script: &Script, names: &mut Names) {
    walk::script(script, &mut Definitions { names });
}

struct Definitions<'a> {
    names: &'a mut Names,
}

impl Visitor for Definitions<'_> {
    fn command(&mut self, command: &Command) {
        match &command.kind {
            CommandKind::Function(function) => {
                self.names.insert(function.name.clone());
            }
            CommandKind::Simple(simple) => {
                let relation = name_of(simple) == Some(b"relation");
                let last = simple.words.last().and_then(literal);
                if let Some(name) = last.filter(|_| relation) {
                    self.names.insert(name.into());
                }
            }
            _ => {}
        }
    }
}

/// Warns about the calls of a script.
pub(super) fn check(script: &Script, names: &Names, known: Known<'_>, found: &mut Vec<Diagnostic>) {
    walk::script(
        script,
        &mut Calls {
            script,
            names,
            known,
            found,
        },
    );
}

struct Calls<'a> {
    script: &'a Script,
    names: &'a Names,
    known: Known<'a>,
    found: &'a mut Vec<Diagnostic>,
}

impl Visitor for Calls<'_> {
    fn command(&mut self, command: &Command) {
        let CommandKind::Simple(simple) = &command.kind else {
            return;
        };
        let Some(name) = name_of(simple) else {
            return;
        };
        if self.names.contains(name) || (self.known.defined)(name) {
            return;
        }
        let at = simple.words[0].at;
        match builtin::find(name) {
            Some(builtin) => self.arguments(builtin, simple, at),
            None if self.known.programs || name.contains(&b'/') => {}
            None => self.unknown(name, at),
        }
    }
}

impl Calls<'_> {
    fn unknown(&mut self, name: &[u8], at: u32) {
        let shown = String::from_utf8_lossy(name);
        let message = format!("there is no function, relation or built-in '{shown}'");
        let near = nearest(name, self.names);
        let hint = near.map_or_else(
            || {
                "programs are not allowed to routing scripts; router.programs would allow them"
                    .to_owned()
            },
            |near| format!("is '{near}' meant?"),
        );
        self.found
            .push(warning(&self.script.source, at, message).hint(hint));
    }

    fn arguments(&mut self, builtin: &Builtin, simple: &Simple, at: u32) {
        // What does nothing may be given anything.
        let arity = arity(builtin.usage).filter(|_| !builtin.text.starts_with("Nothing"));
        let Some((least, most)) = arity else {
            return;
        };
        let (few, many) = count(&simple.words[1..]);
        let wrong = many.is_some_and(|many| many < least) || most.is_some_and(|most| few > most);
        if wrong {
            let given = match (few, many) {
                (1, Some(1)) => "1 argument is given".to_owned(),
                (few, Some(many)) if few == many => format!("{few} arguments are given"),
                (few, _) => format!("{few} arguments or more are given"),
            };
            let message = format!("'{}' takes {}; {given}", builtin.name, takes(least, most));
            let usage = format!("usage: {} {}", builtin.name, builtin.usage);
            self.found
                .push(warning(&self.script.source, at, message).hint(usage));
        }
    }
}

fn takes(least: usize, most: Option<usize>) -> String {
    let number = |number: usize| {
        let s = if number == 1 { "" } else { "s" };
        format!("{number} argument{s}")
    };
    match most {
        Some(most) if most == least => number(most),
        Some(most) => format!("{least} to {}", number(most)),
        None => format!("{} at least", number(least)),
    }
}

/// The name of a command that is written out.
pub(super) fn name_of(simple: &Simple) -> Option<&[u8]> {
    simple.words.first().and_then(literal)
}

/// The text of a word that is one literal.
pub(super) fn literal(word: &Word) -> Option<&[u8]> {
    match word.parts.as_slice() {
        [Part::Literal { text, .. }] => Some(text),
        _ => None,
    }
}

/// How many arguments words can be: at least, and at most where that is known.
fn count(words: &[Word]) -> (usize, Option<usize>) {
    let mut least = 0;
    let mut most = Some(0);
    for word in words {
        let (few, many) = count_of(word);
        least += few;
        most = most.zip(many).map(|(all, many)| all + many);
    }
    (least, most)
}

fn count_of(word: &Word) -> (usize, Option<usize>) {
    let spreads = |part: &Part| match part {
        Part::Parameter { parameter, .. } | Part::Conditional { parameter, .. } => {
            matches!(parameter, Parameter::At | Parameter::Star)
        }
        // What a command returns may be the elements of a list.
        Part::Command { .. } => true,
        Part::Literal { .. } | Part::List(_) | Part::Group(_) => false,
    };
    let certain = |part: &Part| match part {
        Part::Literal { text, quoted } => *quoted || !text.is_empty(),
        Part::List(_) => true,
        Part::Parameter { parameter, quoted } => *quoted && !matches!(parameter, Parameter::At),
        Part::Conditional { .. } | Part::Command { .. } | Part::Group(_) => false,
    };
    let least = usize::from(word.parts.iter().any(certain));
    let most = (!word.parts.iter().any(spreads)).then_some(1);
    (least, most)
}

/// Least and most arguments, from the words of a usage; none: it does not say exactly.
fn arity(usage: &str) -> Option<(usize, Option<usize>)> {
    if usage.is_empty()
        || usage.contains('-')
        || usage.contains("on|off")
        || usage.contains("EXPRESSION")
    {
        return None;
    }
    let (mut least, mut most) = (0, Some(0));
    for word in usage.split_whitespace() {
        if word.ends_with("...") || word.ends_with("...]") {
            most = None;
        } else if word.starts_with('[') || word.ends_with(']') {
            most = most.map(|most| most + 1);
        } else {
            least += 1;
            most = most.map(|most| most + 1);
        }
    }
    Some((least, most))
}

/// A known name that differs by one letter.
fn nearest(name: &[u8], names: &Names) -> Option<String> {
    let builtins = builtin::TABLE.iter().map(|builtin| builtin.name.as_bytes());
    let mut near: Vec<&[u8]> = names
        .iter()
        .map(|name| &**name)
        .chain(builtins)
        .filter(|known| known.len() > 2 && is_near(known, name))
        .collect();
    near.sort_unstable();
    near.first()
        .map(|near| String::from_utf8_lossy(near).into_owned())
}

/// Whether one letter is missing, too much, other, or two stand the other way round.
fn is_near(one: &[u8], other: &[u8]) -> bool {
    let same = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let (one, other) = (&one[same..], &other[same..]);
    match (one, other) {
        ([_, one @ ..], [_, other @ ..]) if one == other => true,
        ([a, b, one @ ..], [c, d, other @ ..]) if (a, b) == (d, c) && one == other => true,
        ([_, rest @ ..], other) if rest == other => true,
        (one, [_, rest @ ..]) if rest == one => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usages_say_how_many_arguments() {
        for (usage, wanted) in [
            ("LIST", Some((1, Some(1)))),
            ("VARIABLE VALUE...", Some((1, None))),
            ("VARIABLE INDEX|KEY VALUE", Some((3, Some(3)))),
            ("PATH [SUFFIX]", Some((1, Some(2)))),
            ("[STATUS|VALUE...]", Some((0, None))),
            ("", None),
            ("[-n] [--] WORD...", None),
        ] {
            assert_eq!(arity(usage), wanted, "{usage}");
        }
    }

    #[test]
    fn names_are_near_by_one_letter() {
        for (one, other) in [("route", "routes"), ("alias", "alais"), ("user", "usar")] {
            assert!(is_near(one.as_bytes(), other.as_bytes()), "{one} {other}");
            assert!(is_near(other.as_bytes(), one.as_bytes()), "{other} {one}");
        }
        assert!(!is_near(b"route", b"rooter"));
        assert!(!is_near(b"abc", b"xyz"));
    }
}
