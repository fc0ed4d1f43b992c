//! Addresses.

use super::{Flow, USAGE};
use crate::mail::quote;
use crate::router::machine::{Arguments, Evaluation};

pub(super) fn dequote(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    quoting(machine, arguments, quote::dequoted)
}

pub(super) fn condquote(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    quoting(machine, arguments, quote::quoted_as_needed)
}

/// `[-s BLANK] [-a APPENDED] TEXT`; the result has no newline unless something is appended.
fn quoting(
    machine: &mut Evaluation,
    arguments: Arguments,
    convert: fn(&[u8], Option<u8>) -> Vec<u8>,
) -> Flow {
    let words = machine.texts(arguments);
    let mut rest = words.as_slice();
    let (mut space, mut appended) = (None, None);
    loop {
        match rest {
            [option, value, behind @ ..] if option == b"-s" => {
                space = value.first().copied();
                rest = behind;
            }
            [option, value, behind @ ..] if option == b"-a" => {
                appended = Some(value);
                rest = behind;
            }
            [option, behind @ ..] if option == b"--" => {
                rest = behind;
                break;
            }
            _ => break,
        }
    }
    let [text] = rest else {
        machine.complain("usage: [ -s SPCCHR ] [ -a APPENDSTR ] string");
        machine.status = USAGE;
        return Ok(());
    };
    let mut result = convert(text, space);
    if let Some(appended) = appended {
        result.extend_from_slice(appended);
        result.push(b'\n');
    }
    machine.write(&result);
    machine.status = 0;
    Ok(())
}

pub(super) fn syntax(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    machine.status = match words.as_slice() {
        [address] => i32::from(!quote::is_address(address)),
        _ => USAGE,
    };
    Ok(())
}
