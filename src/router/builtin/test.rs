//! `test` and `[`.

use super::{Flow, USAGE};
use crate::router::machine::{Arguments, Evaluation};
use crate::router::request::{Answer, Request, Stat};

pub(super) fn test(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    evaluate(machine, Test::new(words))
}

pub(super) fn bracket(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    if let Some(value) = lone_word(machine.words(arguments)) {
        machine.status = i32::from(!value);
        return Ok(());
    }
    let mut words = machine.texts(arguments);
    if words.pop().as_deref() != Some(b"]") {
        machine.complain("[: ']' is missing");
        machine.status = USAGE;
        return Ok(());
    }
    evaluate(machine, Test::new(words))
}

/// `[ WORD ]`: whether the word is any text.
fn lone_word<'a>(mut words: impl Iterator<Item = &'a [u8]>) -> Option<bool> {
    match (words.next(), words.next(), words.next()) {
        (Some(word), Some(b"]"), None) => Some(!word.is_empty()),
        _ => None,
    }
}

/// An expression, and what is known of the files in it.
struct Test {
    words: Vec<Vec<u8>>,
    at: usize,
    /// Files in the order in which the expression asks for them; none: there is no such file.
    files: Vec<Option<Stat>>,
    asked: usize,
}

/// Why an expression has no value yet, or none at all.
enum Stop {
    /// A file must be looked at: its path, and whether a link itself is meant.
    File(Vec<u8>, bool),
    /// It makes no sense.
    Syntax(String),
}

/// Files of one expression that are looked at.
const FILES_MAX: usize = 100;

fn evaluate(machine: &mut Evaluation, mut test: Test) -> Flow {
    test.at = 0;
    test.asked = 0;
    match test.whole() {
        Ok(value) => {
            machine.status = i32::from(!value);
            Ok(())
        }
        Err(Stop::Syntax(message)) => {
            machine.complain(&format!("test: {message}"));
            machine.status = USAGE;
            Ok(())
        }
        Err(Stop::File(path, link)) => {
            let user = machine.acting_user();
            machine.need(
                Request::Stat { path, link, user },
                move |machine, answer| {
                    let Answer::Stat(result) = answer else {
                        unreachable!("{answer:?} says nothing about a file")
                    };
                    test.files.push(result.ok());
                    evaluate(machine, test)
                },
            )
        }
    }
}

impl Test {
    fn new(words: Vec<Vec<u8>>) -> Self {
        Self {
            words,
            at: 0,
            files: Vec::new(),
            asked: 0,
        }
    }

    fn whole(&mut self) -> Result<bool, Stop> {
        if self.words.is_empty() {
            return Ok(false);
        }
        let value = self.or()?;
        match self.peek() {
            None => Ok(value),
            Some(word) => Err(Stop::Syntax(format!(
                "{} is too much",
                String::from_utf8_lossy(word)
            ))),
        }
    }

    fn peek(&self) -> Option<&[u8]> {
        self.words.get(self.at).map(Vec::as_slice)
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let word = self.words.get(self.at).cloned();
        self.at += usize::from(word.is_some());
        word
    }

    /// Both sides are looked at, whatever the first says.
    fn or(&mut self) -> Result<bool, Stop> {
        let mut value = self.and()?;
        while self.peek() == Some(b"-o") {
            self.at += 1;
            value |= self.and()?;
        }
        Ok(value)
    }

    fn and(&mut self) -> Result<bool, Stop> {
        let mut value = self.not()?;
        while self.peek() == Some(b"-a") {
            self.at += 1;
            value &= self.not()?;
        }
        Ok(value)
    }

    /// `-l text` as a number: its length.
    fn lengths(&mut self) {
        let mut at = self.at;
        while at + 1 < self.words.len() && !matches!(self.words[at].as_slice(), b"-a" | b"-o") {
            let beside = |at: usize| {
                self.words
                    .get(at)
                    .is_some_and(|word| NUMERIC.contains(&word.as_slice()))
            };
            if self.words[at] == b"-l" && (beside(at + 2) || (at > 0 && beside(at - 1))) {
                let length = self.words[at + 1].len().to_string().into_bytes();
                self.words.splice(at..at + 2, [length]);
            }
            at += 1;
        }
    }

    fn not(&mut self) -> Result<bool, Stop> {
        self.lengths();
        let alone = self.words.len() == self.at + 1;
        if self.peek() == Some(b"!") && !alone && !self.is_binary() {
            self.at += 1;
            return Ok(!self.not()?);
        }
        self.primary()
    }

    /// Whether an operator with two sides stands behind the next word.
    fn is_binary(&self) -> bool {
        let operator = self.words.get(self.at + 1).map(Vec::as_slice);
        self.words.len() > self.at + 2 && operator.is_some_and(|word| BINARY.contains(&word))
    }

    fn primary(&mut self) -> Result<bool, Stop> {
        if self.is_binary() {
            return self.binary();
        }
        let Some(word) = self.next() else {
            return Err(Stop::Syntax("something is missing at the end".to_owned()));
        };
        if word == b"(" && self.peek().is_some() {
            let value = self.or()?;
            return match self.next().as_deref() {
                Some(b")") => Ok(value),
                _ => Err(Stop::Syntax("')' is missing".to_owned())),
            };
        }
        match word.as_slice() {
            [b'-', letter]
                if self
                    .peek()
                    .is_some_and(|next| !matches!(next, b"-a" | b"-o"))
                    && UNARY.contains(letter) =>
            {
                let operand = self.next().unwrap_or_default();
                self.unary(*letter, operand)
            }
            _ => Ok(!word.is_empty()),
        }
    }

    fn unary(&mut self, letter: u8, operand: Vec<u8>) -> Result<bool, Stop> {
        match letter {
            b'n' => return Ok(!operand.is_empty()),
            b'z' => return Ok(operand.is_empty()),
            // No script runs on a terminal.
            b't' => return Ok(false),
            _ => {}
        }
        let Some(stat) = self.file(operand, matches!(letter, b'h' | b'L'))? else {
            return Ok(false);
        };
        let kind = stat.mode & 0o170_000;
        Ok(match letter {
            b'd' => kind == 0o040_000,
            b'f' => kind != 0o040_000,
            b'c' => kind == 0o020_000,
            b'b' => kind == 0o060_000,
            b'p' => kind == 0o010_000,
            b'S' => kind == 0o140_000,
            b'h' | b'L' => kind == 0o120_000,
            b's' => stat.size > 0,
            b'u' => stat.mode & 0o4000 != 0,
            b'g' => stat.mode & 0o2000 != 0,
            b'k' => stat.mode & 0o1000 != 0,
            b'r' => stat.access & 4 != 0,
            b'w' => stat.access & 2 != 0,
            b'x' => stat.access & 1 != 0,
            _ => true,
        })
    }

    fn binary(&mut self) -> Result<bool, Stop> {
        let left = self.next().unwrap_or_default();
        let operator = self.next().unwrap_or_default();
        let right = self.next().unwrap_or_default();
        let order = || number(&left).cmp(&number(&right));
        Ok(match operator.as_slice() {
            b"=" => left == right,
            b"!=" => left != right,
            b"-eq" => order().is_eq(),
            b"-ne" => order().is_ne(),
            b"-lt" => order().is_lt(),
            b"-le" => order().is_le(),
            b"-gt" => order().is_gt(),
            b"-ge" => order().is_ge(),
            _ => {
                let (left, right) = (self.file(left, false)?, self.file(right, false)?);
                let modified = |stat: Option<Stat>| stat.map(|stat| stat.modified);
                match operator.as_slice() {
                    b"-nt" => modified(left) > modified(right),
                    b"-ot" => modified(left) < modified(right),
                    _ => {
                        left.is_some()
                            && left.map(|stat| stat.identity) == right.map(|stat| stat.identity)
                    }
                }
            }
        })
    }

    fn file(&mut self, path: Vec<u8>, link: bool) -> Result<Option<Stat>, Stop> {
        if let Some(known) = self.files.get(self.asked) {
            self.asked += 1;
            return Ok(*known);
        }
        if self.files.len() >= FILES_MAX {
            return Err(Stop::Syntax(format!("more than {FILES_MAX} files")));
        }
        Err(Stop::File(path, link))
    }
}

const UNARY: &[u8] = b"nztdfcbpShLsugkrwxe";
const BINARY: &[&[u8]] = &[
    b"=", b"!=", b"-eq", b"-ne", b"-lt", b"-le", b"-gt", b"-ge", b"-nt", b"-ot", b"-ef",
];

/// Those that compare numbers.
const NUMERIC: &[&[u8]] = &[b"-eq", b"-ne", b"-lt", b"-le", b"-gt", b"-ge"];

/// The number that a text begins with; 0 when it is none.
fn number(text: &[u8]) -> i64 {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let value = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0_i64, |sum, digit| {
            sum.saturating_mul(10)
                .saturating_add(i64::from(digit - b'0'))
        });
    if negative { -value } else { value }
}
