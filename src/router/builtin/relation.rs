//! `relation` and `db`.

use super::Flow;
use crate::router::machine::{Arguments, Callable, Evaluation, MapRequest};
use crate::router::relation::{Command, Definition, Effect, Parsed, Report, Taken};
use crate::router::request::{Answer, Request};

pub(super) fn relation(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let parsed = Definition::parse(&words, |name| taken(machine, name));
    match parsed {
        Ok(Parsed::Known) => machine.status = 0,
        Err(failure) => {
            if !failure.text.is_empty() {
                machine.complain(&failure.text);
            }
            machine.status = i32::from(failure.status);
        }
        Ok(Parsed::Define { name, definition }) => {
            machine.status = 0;
            if let Some((id, source)) = machine.define_relation(&name, *definition)? {
                return machine.need(Request::Map(MapRequest::Open { id, source }), |_, _| Ok(()));
            }
        }
    }
    Ok(())
}

fn taken(machine: &Evaluation, name: &[u8]) -> Option<Taken> {
    let symbol = machine.known_symbol(name)?;
    match machine.callable(symbol) {
        Some(Callable::Relation(_)) => Some(Taken::Database),
        Some(Callable::Function(_)) => Some(Taken::Function),
        None => super::find(name).map(|_| Taken::Builtin),
    }
}

pub(super) fn database(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words: Vec<&[u8]> = machine.words(arguments).collect();
    match Command::parse(&words) {
        Err(report) => finish(machine, &report),
        Ok(Command::Contents) => {
            let list = machine.relation_list();
            machine.write(&list);
            machine.status = 0;
        }
        Ok(command) => {
            let Command::Act { name, .. } = &command else {
                unreachable!("{command:?} acts on nothing")
            };
            let symbol = machine.known_symbol(name);
            let callable = symbol.and_then(|symbol| machine.callable(symbol));
            match callable {
                Some(Callable::Relation(number)) => return machine.apply(number, command),
                _ => finish(machine, &Command::unknown(name)),
            }
        }
    }
    Ok(())
}

fn finish(machine: &mut Evaluation, report: &Report) {
    machine.write(&report.output);
    if !report.complaint.is_empty() {
        machine.complain(&report.complaint);
    }
    machine.status = i32::from(report.status);
}

/// What follows from a `db` command.
pub(in crate::router) fn effect(machine: &mut Evaluation, effect: Effect) -> Flow {
    let request = match effect {
        Effect::Done(report) => {
            finish(machine, &report);
            return Ok(());
        }
        Effect::Append { map, line } => MapRequest::Append { id: map, line },
        Effect::Reload(map) => MapRequest::Reload(map),
    };
    machine.need(Request::Map(request), |machine, answer| {
        machine.status = 0;
        if let Answer::Done(Err(failure)) = answer {
            machine.complain(&format!("db: {failure}"));
            machine.status = 1;
        }
        Ok(())
    })
}
