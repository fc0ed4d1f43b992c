//! Lists and property lists.

use std::collections::HashSet;

use super::{Flow, USAGE};
use crate::router::machine::{Arguments, Evaluation, Returned};
use crate::router::value::{List, Value};

pub(super) fn first(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let value = match machine.argument(arguments, 0) {
        None => None,
        Some(Value::List(list)) => Some(list.item(0).unwrap_or_else(Value::nil)),
        Some(text) => Some(text.clone()),
    };
    machine.give(value)
}

pub(super) fn rest(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let value = match machine.argument(arguments, 0) {
        Some(Value::List(list)) if !list.is_empty() => {
            Some(Value::list(list.items()[1..].to_vec()))
        }
        _ => None,
    };
    if let Some(Value::List(list)) = &value {
        machine.count_values(list.len());
    }
    machine.give(value)
}

pub(super) fn last(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let value = match machine.argument(arguments, 0) {
        Some(Value::List(list)) => {
            let last = list.len().checked_sub(1).and_then(|index| list.item(index));
            last.map(|value| Value::list(vec![value]))
        }
        _ => None,
    };
    machine.give(value)
}

pub(super) fn list(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let values = machine.take_arguments(arguments);
    machine.give(Some(Value::list(values)))
}

pub(super) fn length(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let count = match machine.argument(arguments, 0) {
        Some(Value::List(list)) => list.len(),
        _ => 0,
    };
    machine.give(Some(Value::from(count.to_string().as_bytes())))
}

pub(super) fn elements(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let values = match machine.argument(arguments, 0) {
        Some(Value::List(list)) => list.items().clone(),
        _ => machine.take_arguments(arguments),
    };
    machine.give_all(Returned::Elements(values))
}

pub(super) fn grind(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let values = machine.take_arguments(arguments);
    machine.give_all(Returned::Chain(values))
}

pub(super) fn split(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let values = match machine.argument(arguments, 0) {
        Some(Value::Text(text)) => {
            let separators = machine.separators();
            text.split(|byte| separators[usize::from(*byte)])
                .filter(|part| !part.is_empty())
                .map(Value::from)
                .collect()
        }
        Some(list) => {
            return {
                let list = list.clone();
                machine.give(Some(list))
            };
        }
        None => Vec::new(),
    };
    machine.give_all(Returned::Elements(values))
}

pub(super) fn channel(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    part(machine, arguments, 0)
}

pub(super) fn host(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    part(machine, arguments, 1)
}

pub(super) fn user(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    part(machine, arguments, 2)
}

pub(super) fn attributes(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    part(machine, arguments, 3)
}

fn part(machine: &mut Evaluation, arguments: Arguments, index: usize) -> Flow {
    let value = match machine.argument(arguments, 0) {
        Some(Value::List(list)) => list.item(index),
        _ => None,
    };
    machine.give(value)
}

/// The value of a key, and its index when the key is there.
fn find(items: &[Value], key: &[u8]) -> Option<usize> {
    let key_at = |index: &usize| matches!(&items[*index], Value::Text(text) if **text == *key);
    (0..items.len())
        .step_by(2)
        .find(key_at)
        .map(|index| index + 1)
}

pub(super) fn get(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let (name, key) = (
        machine.argument(arguments, 0).cloned(),
        machine.argument(arguments, 1).cloned(),
    );
    let (Some(name), Some(Value::Text(key))) = (name, key) else {
        machine.complain("Usage: get variable-name key");
        return machine.give(None);
    };
    let Value::Text(name) = name else {
        return machine.give(Some(Value::nil()));
    };
    if let Some(value) = machine.member_attribute(&name, &key) {
        return machine.give(Some(value));
    }
    let symbol = machine.symbol(&name)?;
    let value = match machine.variable(symbol) {
        None => {
            let list = Value::list(vec![Value::Text(key), Value::nil()]);
            machine.set(symbol, list);
            Value::nil()
        }
        Some(Value::Text(_)) => return machine.give(None),
        Some(Value::List(list)) => {
            let found = find(&list.items(), &key).map(|index| list.items().get(index).cloned());
            match found {
                Some(value) => value.unwrap_or_else(Value::nil),
                None => {
                    machine
                        .own_list(symbol)
                        .extend([Value::Text(key), Value::nil()]);
                    Value::nil()
                }
            }
        }
    };
    machine.give(Some(value))
}

pub(super) fn append(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let mut values = machine.take_arguments(arguments).into_iter();
    let Some(Value::Text(name)) = values.next() else {
        machine.complain("Usage: lappend variable-name value...");
        machine.status = USAGE;
        return Ok(());
    };
    let symbol = machine.symbol(&name)?;
    let mut new: Vec<Value> = match values.next() {
        Some(Value::List(list)) => list.items().clone(),
        Some(text) => vec![text],
        None => Vec::new(),
    };
    new.extend(values);
    match machine.variable(symbol) {
        Some(Value::List(_)) => {
            let list = machine.own_list(symbol);
            machine.count_values(new.len());
            if any_holds(&new, &list) {
                // No list comes to contain itself: the variable gets a list of its own.
                let items = list.items().iter().cloned().chain(new).collect();
                machine.set(symbol, Value::list(items));
            } else {
                list.extend(new);
            }
            machine.touched(symbol);
        }
        // Nothing is appended to a text or to what is not set.
        Some(Value::Text(_)) | None => {}
    }
    machine.status = 1;
    Ok(())
}

/// Whether one of the values is the list or holds it somewhere.
fn any_holds(values: &[Value], list: &List) -> bool {
    let mut seen = HashSet::new();
    let mut todo: Vec<Value> = values.to_vec();
    while let Some(value) = todo.pop() {
        if let Value::List(own) = value {
            if own.is_same(list) {
                return true;
            }
            // A packed one holds no list that others have.
            if own.packed_bytes().is_none() && seen.insert(own.identity()) {
                todo.extend(own.items().iter().cloned());
            }
        }
    }
    false
}

pub(super) fn replace(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let values = machine.take_arguments(arguments);
    machine.status = 1;
    let [Value::Text(name), Value::Text(place), new @ ..] = values.as_slice() else {
        machine.complain("Usage: lreplace variable-name index|key value");
        return Ok(());
    };
    let symbol = machine.symbol(name)?;
    let Some(Value::List(list)) = machine.variable(symbol) else {
        machine.complain("lreplace: the variable is no list");
        return Ok(());
    };
    let mut items = list.items().clone();
    let index = if place.first().is_some_and(u8::is_ascii_digit) {
        let number = std::str::from_utf8(place)
            .ok()
            .and_then(|text| text.parse::<usize>().ok());
        match number {
            Some(number) => number.min(items.len()),
            None => {
                machine.complain("lreplace: the index is no number");
                return Ok(());
            }
        }
    } else {
        find(&items, place).unwrap_or_else(|| {
            items.push(Value::Text(place.clone()));
            items.len()
        })
    };
    match (items.get_mut(index), new) {
        (Some(old), [new]) => *old = new.clone(),
        _ => {
            let end = (index + 1).min(items.len());
            items.splice(index.min(end)..end, new.iter().cloned());
        }
    }
    machine.count_values(items.len());
    machine.set(symbol, Value::list(items));
    Ok(())
}
