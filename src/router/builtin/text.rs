//! Texts.

use super::{Flow, USAGE};
use crate::router::machine::{Arguments, Evaluation};
use crate::router::request::{Answer, Request};

pub(super) fn basename(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    let Some(path) = words.first() else {
        machine.complain("Usage: basename path [suffix]");
        machine.status = USAGE;
        return Ok(());
    };
    let start = path
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |slash| slash + 1);
    let mut name = &path[start..];
    if let Some(suffix) = words.get(1)
        && name.len() > suffix.len()
        && let Some(stem) = name.strip_suffix(suffix.as_slice())
    {
        name = stem;
    }
    write_line(machine, name);
    Ok(())
}

fn write_line(machine: &mut Evaluation, line: &[u8]) {
    machine.write(line);
    machine.write(b"\n");
    machine.status = 0;
}

pub(super) fn recase(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    let mut how = b' ';
    let mut rest = words.as_slice();
    while let Some((word, behind)) = rest.split_first() {
        match word.as_slice() {
            b"--" => {
                rest = behind;
                break;
            }
            [b'-', letter @ (b'u' | b'l' | b'p')] => {
                how = *letter;
                rest = behind;
            }
            _ => break,
        }
    }
    let [text] = rest else {
        machine.complain("Usage: recase [ -u | -l | -p ] -- string");
        machine.status = USAGE;
        return Ok(());
    };
    let text = match how {
        b'u' => text.to_ascii_uppercase(),
        b'l' => text.to_ascii_lowercase(),
        b'p' => capitalised(text),
        _ => text.clone(),
    };
    write_line(machine, &text);
    Ok(())
}

/// A capital at the start of each word, small letters behind it.
fn capitalised(text: &[u8]) -> Vec<u8> {
    let mut inside = false;
    let one = |byte: &u8| {
        let letter = byte.is_ascii_alphanumeric();
        let byte = if inside {
            byte.to_ascii_lowercase()
        } else {
            byte.to_ascii_uppercase()
        };
        inside = letter;
        byte
    };
    text.iter().map(one).collect()
}

pub(super) fn date(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let mut words = machine.texts(arguments);
    let plain = words.first().is_some_and(|word| word == b"-s");
    words.drain(..usize::from(plain));
    let write_date = if plain { write_seconds } else { write_date };
    let given = words
        .first()
        .and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
    if let Some(seconds) = given {
        write_date(machine, seconds);
        return Ok(());
    }
    machine.need(Request::Time, move |machine, answer| {
        let Answer::Time(seconds) = answer else {
            unreachable!("{answer:?} is no time")
        };
        write_date(machine, seconds);
        Ok(())
    })
}

fn write_seconds(machine: &mut Evaluation, seconds: u64) {
    write_line(machine, seconds.to_string().as_bytes());
}

fn write_date(machine: &mut Evaluation, seconds: u64) {
    let date = crate::mail::date::format(seconds.saturating_mul(1000));
    write_line(machine, date.as_bytes());
}
