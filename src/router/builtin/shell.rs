//! The commands of a shell that are neither about variables nor files.

use super::{Flow, USAGE};
use crate::router::machine::{Arguments, Callable, Evaluation, Returned};
use crate::router::request::{Answer, Request};
use crate::router::value::Value;

pub(super) fn succeed(machine: &mut Evaluation, _arguments: Arguments) -> Flow {
    machine.status = 0;
    Ok(())
}

pub(super) fn fail(machine: &mut Evaluation, _arguments: Arguments) -> Flow {
    machine.status = 1;
    Ok(())
}

pub(super) fn echo(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let mut words = machine.words(arguments).peekable();
    let newline = words.next_if_eq(&b"-n").is_none();
    words.next_if_eq(&b"--");
    let mut line = joined(words);
    if newline {
        line.push(b'\n');
    }
    machine.write(&line);
    machine.status = 0;
    Ok(())
}

pub(super) fn eval(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let text = joined(machine.words(arguments));
    machine.eval(&text)
}

/// A blank between them.
fn joined<'a>(words: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut text = Vec::new();
    for (number, word) in words.enumerate() {
        if number > 0 {
            text.push(b' ');
        }
        text.extend_from_slice(word);
    }
    text
}

pub(super) fn builtin(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    machine.status = 0;
    let Some(Value::Text(name)) = machine.argument(arguments, 0).cloned() else {
        return Ok(());
    };
    let symbol = machine.symbol(&name)?;
    machine.call_inner_with(symbol, arguments.start + 1)
}

pub(super) fn kind(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let names = machine.texts(arguments);
    kinds(machine, names)
}

fn kinds(machine: &mut Evaluation, names: Vec<Vec<u8>>) -> Flow {
    let mut names = names.into_iter();
    while let Some(name) = names.next() {
        let symbol = machine.symbol(&name)?;
        let rest = names.as_slice().to_vec();
        let is = match machine.callable(symbol) {
            Some(Callable::Function(_)) => "is a shell function",
            Some(Callable::Relation(_)) => "is a shell builtin",
            None if super::find(&name).is_some() => "is a shell builtin",
            None => return kind_of_program(machine, name, rest),
        };
        let mut line = name;
        line.extend_from_slice(format!(" {is}\n").as_bytes());
        machine.write(&line);
    }
    machine.status = 0;
    Ok(())
}

fn kind_of_program(machine: &mut Evaluation, name: Vec<u8>, rest: Vec<Vec<u8>>) -> Flow {
    let request = Request::Program {
        name: name.clone(),
        path: machine.program_path(),
    };
    machine.need(request, move |machine, answer| {
        let Answer::Paths(paths) = answer else {
            unreachable!("{answer:?} are no paths")
        };
        let mut line = name;
        match paths.first() {
            Some(path) => line.extend([b" is ", path.as_slice(), b"\n"].concat()),
            None => line.extend_from_slice(b" not found\n"),
        }
        machine.write(&line);
        kinds(machine, rest)
    })
}

pub(super) fn return_(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    if let Some(Value::Text(text)) = machine.argument(arguments, 0)
        && !text.is_empty()
        && text.iter().all(u8::is_ascii_digit)
    {
        let status = std::str::from_utf8(text)
            .ok()
            .and_then(|digits| digits.parse().ok());
        machine.status = status.unwrap_or(i32::MAX);
        machine.returns(Returned::Nothing);
        machine.leave();
        return Ok(());
    }
    returns(machine, arguments)
}

pub(super) fn returns(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let returned = Returned::all_of(machine.drain_arguments(arguments));
    machine.give_all(returned)?;
    machine.leave();
    Ok(())
}

pub(super) fn break_(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    leave_loop(machine, arguments, false)
}

pub(super) fn continue_(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    leave_loop(machine, arguments, true)
}

fn leave_loop(machine: &mut Evaluation, arguments: Arguments, again: bool) -> Flow {
    let Some(levels) = number(machine, arguments) else {
        return Ok(());
    };
    machine.status = 0;
    machine.leave_loops(levels.unwrap_or(1) as usize, again)
}

/// The only argument, a number; the outer none: it is something else, and that was said.
fn number(machine: &mut Evaluation, arguments: Arguments) -> Option<Option<u32>> {
    let words = machine.texts(arguments);
    match words.as_slice() {
        [] => Some(None),
        [word] if word.iter().all(u8::is_ascii_digit) => {
            let text = std::str::from_utf8(word).unwrap_or("");
            Some(Some(text.parse().unwrap_or(u32::MAX)))
        }
        _ => {
            machine.complain("a number is expected");
            machine.status = USAGE;
            None
        }
    }
}

pub(super) fn exit(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    if let Some(status) = number(machine, arguments) {
        let status = status.map_or(machine.status, |status| {
            i32::try_from(status).unwrap_or(i32::MAX)
        });
        machine.exit(status);
    }
    Ok(())
}

/// Signals cannot reach a script; signal 0 is its end.
pub(super) fn trap(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    machine.status = 0;
    let Some((command, signals)) = words.split_first() else {
        let lines = machine.traps();
        machine.write(&lines);
        return Ok(());
    };
    let reset = command.iter().all(u8::is_ascii_digit);
    let signals = if reset { &words[..] } else { signals };
    for signal in signals {
        let number = std::str::from_utf8(signal)
            .ok()
            .and_then(|text| text.parse::<u32>().ok());
        match number.filter(|number| *number < 65) {
            Some(number) => machine.set_trap(number, (!reset).then_some(command)),
            None => {
                machine.complain("trap: a signal is a number below 65");
                machine.status = 1;
            }
        }
    }
    Ok(())
}

pub(super) fn hash(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    if machine.texts(arguments).is_empty() {
        machine.write(b"no hashing information\n");
    }
    machine.status = 0;
    Ok(())
}

pub(super) fn times(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    if !machine.texts(arguments).is_empty() {
        machine.complain("Usage: times");
        machine.status = USAGE;
        return Ok(());
    }
    machine.write(b"0m0.0s 0m0.0s\n0m0.0s 0m0.0s\n");
    machine.status = 0;
    Ok(())
}

/// Longest sleep.
const SLEEP_S_MAX: u32 = 3600;

pub(super) fn sleep(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let seconds = match number(machine, arguments) {
        Some(Some(seconds)) => u64::from(seconds.min(SLEEP_S_MAX)),
        Some(None) => {
            machine.complain("Usage: sleep seconds");
            machine.status = USAGE;
            return Ok(());
        }
        None => return Ok(()),
    };
    machine.need(Request::Sleep { seconds }, |machine, _| {
        machine.status = 0;
        Ok(())
    })
}
