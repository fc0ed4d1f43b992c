//! Variables, arguments and options.

use super::{Flow, USAGE};
use crate::router::code::Symbol;
use crate::router::machine::{Arguments, Evaluation};
use crate::router::value::Value;

pub(super) fn read(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let names = machine.texts(arguments);
    if names.is_empty() {
        machine.complain("Usage: read name ...");
        machine.status = USAGE;
        return Ok(());
    }
    let symbols = symbols(machine, &names)?;
    machine.read_line(move |machine, line| {
        machine.status = i32::from(line.is_none());
        spread(machine, &symbols, &line.unwrap_or_default());
        Ok(())
    })
}

fn symbols(
    machine: &mut Evaluation,
    names: &[Vec<u8>],
) -> Result<Vec<Symbol>, crate::router::machine::Pause> {
    names.iter().map(|name| machine.symbol(name)).collect()
}

/// Each variable takes a word, the last one the rest of the line.
fn spread(machine: &mut Evaluation, symbols: &[Symbol], line: &[u8]) {
    let separators = machine.separators();
    let line: Vec<u8> = line
        .iter()
        .copied()
        .filter(|byte| !matches!(byte, b'\r' | 0))
        .collect();
    let mut rest = line.as_slice();
    for (number, symbol) in symbols.iter().enumerate() {
        let start = rest.iter().position(|byte| !separators[usize::from(*byte)]);
        rest = start.map_or(&b""[..], |start| &rest[start..]);
        let last = number + 1 == symbols.len();
        let end = rest
            .iter()
            .position(|byte| !last && separators[usize::from(*byte)]);
        let (word, behind) = rest.split_at(end.unwrap_or(rest.len()));
        machine.set(*symbol, Value::from(word));
        rest = behind;
    }
}

pub(super) fn shift(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    let count = match words.as_slice() {
        [] => Some(1),
        [word] => std::str::from_utf8(word)
            .ok()
            .and_then(|text| text.parse::<usize>().ok()),
        _ => None,
    };
    match count {
        Some(count) => {
            machine.shift(count);
            machine.status = 0;
        }
        None => {
            machine.complain("Usage: shift [ count ]");
            machine.status = USAGE;
        }
    }
    Ok(())
}

pub(super) fn set(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    machine.status = 0;
    if words.is_empty() {
        let lines = machine.variable_lines();
        machine.write(&lines);
        return Ok(());
    }
    let mut rest = words.as_slice();
    while let Some((word, behind)) = rest.split_first() {
        match word.as_slice() {
            b"--" => {
                rest = behind;
                machine.set_positionals(rest);
                return Ok(());
            }
            [sign @ (b'-' | b'+'), letters @ ..] if !letters.is_empty() => {
                if !machine.set_options(*sign == b'-', letters) {
                    machine.complain("Usage: set [ -aefhntuvx ] [ argument ... ]");
                    machine.status = USAGE;
                    return Ok(());
                }
                rest = behind;
            }
            _ => break,
        }
    }
    if !rest.is_empty() {
        machine.set_positionals(rest);
    }
    Ok(())
}

/// Variables that the machine itself needs.
const KEPT: &[&[u8]] = &[b"PATH", b"PS1", b"PS2", b"IFS", b"MAILCHECK"];

pub(super) fn unset(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    machine.status = 0;
    for name in machine.texts(arguments) {
        if KEPT.contains(&name.as_slice()) {
            machine.complain(&format!(
                "unset: {} is kept",
                String::from_utf8_lossy(&name)
            ));
            continue;
        }
        let symbol = machine.symbol(&name)?;
        machine.unset(symbol);
    }
    Ok(())
}

pub(super) fn export(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let names = machine.texts(arguments);
    machine.status = 0;
    if names.is_empty() {
        let lines = machine.export_lines();
        machine.write(&lines);
    }
    for name in names {
        let symbol = machine.symbol(&name)?;
        if machine.variable(symbol).is_none() {
            machine.set(symbol, Value::from(""));
        }
        machine.export(symbol);
    }
    Ok(())
}

pub(super) fn gensym(machine: &mut Evaluation, _arguments: Arguments) -> Flow {
    let mut line = machine.new_name();
    line.push(b'\n');
    machine.write(&line);
    machine.status = 0;
    Ok(())
}

/// `getopts OPTIONS NAME`: `OPTIND` says which argument is next, `OPTARG` what belongs to the option.
pub(super) fn getopts(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    let [options, name, given @ ..] = words.as_slice() else {
        machine.complain("Usage: getopts options name [ argument ... ]");
        machine.status = USAGE;
        return Ok(());
    };
    let given = if given.is_empty() {
        machine.positionals()
    } else {
        given.to_vec()
    };
    let symbols = symbols(
        machine,
        &[
            name.clone(),
            b"OPTIND".to_vec(),
            b"OPTARG".to_vec(),
            b"OPTPOS".to_vec(),
        ],
    )?;
    let number = |machine: &Evaluation, symbol: Symbol, default: usize| {
        let text = machine
            .variable(symbol)
            .map(|value| value.bytes().to_vec())
            .unwrap_or_default();
        std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let mut next = Next {
        argument: number(machine, symbols[1], 1).max(1),
        letter: number(machine, symbols[3], 1),
    };
    let found = next.option(options, &given);
    let number = |number: usize| Value::from(number.to_string().as_bytes());
    machine.set(symbols[1], number(next.argument));
    machine.set(symbols[3], number(next.letter));
    machine.status = i32::from(found.is_none());
    let (letter, value) = found.unwrap_or((b'?', None));
    machine.set(symbols[0], Value::from(&[letter][..]));
    if let Some(value) = value {
        machine.set(symbols[2], Value::from(value.as_slice()));
    }
    Ok(())
}

/// Where the next option is looked for.
struct Next {
    /// Number of the argument, from 1.
    argument: usize,
    /// Place of the letter in it.
    letter: usize,
}

impl Next {
    /// The next option and what belongs to it; `?` is one that nobody knows.
    fn option(&mut self, options: &[u8], given: &[Vec<u8>]) -> Option<(u8, Option<Vec<u8>>)> {
        let word = given.get(self.argument - 1)?;
        if word == b"--" {
            self.argument += 1;
            return None;
        }
        if word.len() < 2 || word[0] != b'-' {
            return None;
        }
        let letter = *word.get(self.letter)?;
        let at = options
            .iter()
            .position(|option| *option == letter && letter != b':');
        let takes = at.is_some_and(|at| options.get(at + 1) == Some(&b':'));
        let rest = word[self.letter + 1..].to_vec();
        let whole = rest.is_empty() || takes;
        self.letter = if whole { 1 } else { self.letter + 1 };
        self.argument += usize::from(whole);
        match (at, takes, rest.is_empty()) {
            (None, ..) => Some((b'?', None)),
            (_, false, _) => Some((letter, None)),
            (_, true, false) => Some((letter, Some(rest))),
            (_, true, true) => {
                let value = given.get(self.argument - 1).cloned();
                self.argument += 1;
                Some((if value.is_some() { letter } else { b'?' }, value))
            }
        }
    }
}
