//! `srs_forward` and `srs_reverse`: see [`crate::mail::srs`].

use super::Flow;
use crate::mail::srs::{Scheme, SrsError, is_srs};
use crate::router::machine::{Arguments, Evaluation};
use crate::router::value::Value;

pub(super) fn forward(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let Some(Value::Text(sender)) = machine.argument(arguments, 0).cloned() else {
        return machine.give(None);
    };
    let domain = text(machine, "srs_domain");
    let result = match (scheme(machine), domain) {
        (_, None) => Err("srs_domain is not set: SRS is off".to_owned()),
        (Err(why), _) => Err(why),
        (Ok(scheme), Some(domain)) => match scheme.forward(&sender, &domain, machine.seconds()) {
            Ok(address) => Ok(address),
            Err(SrsError::NotNeeded) if flag(machine, "srs_noforward") => Ok(sender.to_vec()),
            Err(error) => Err(error.to_string()),
        },
    };
    finish(machine, &sender, result)
}

pub(super) fn reverse(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let Some(Value::Text(address)) = machine.argument(arguments, 0).cloned() else {
        return machine.give(None);
    };
    if !is_srs(&address) || flag(machine, "srs_noreverse") {
        return machine.give(Some(Value::Text(address)));
    }
    let result = scheme(machine).and_then(|scheme| {
        let reversed = scheme.reverse(&address, machine.seconds());
        reversed.map_err(|error| error.to_string())
    });
    finish(machine, &address, result)
}

/// What cannot be rewritten stays as it is, and that is said.
fn finish(machine: &mut Evaluation, address: &[u8], result: Result<Vec<u8>, String>) -> Flow {
    let value = match result {
        Ok(rewritten) => Value::from(rewritten.as_slice()),
        Err(why) => {
            machine.complain(&format!("SRS: {}: {why}", String::from_utf8_lossy(address)));
            Value::from(address)
        }
    };
    machine.give(Some(value))
}

fn scheme(machine: &Evaluation) -> Result<Scheme, String> {
    let secrets = match machine.variable_named(b"srs_secrets") {
        Some(Value::List(list)) => list
            .items()
            .iter()
            .map(|item| item.bytes().to_vec())
            .collect(),
        Some(Value::Text(text)) if !text.is_empty() => vec![text.to_vec()],
        _ => Vec::new(),
    };
    if secrets.is_empty() || secrets.iter().any(Vec::is_empty) {
        return Err("srs_secrets is not set: SRS is off".to_owned());
    }
    let standard = Scheme::default();
    let hash_length = number(machine, "srs_hashlength", standard.hash_length, 1..=27);
    Ok(Scheme {
        secrets,
        hash_length,
        hash_min: number(
            machine,
            "srs_hashmin",
            standard.hash_min.min(hash_length),
            1..=hash_length,
        ),
        age_days_max: number(
            machine,
            "srs_maxage",
            standard.age_days_max as usize,
            1..=365,
        ) as u64,
        separator: match text(machine, "srs_separator").as_deref() {
            Some([separator @ (b'=' | b'+' | b'-')]) => *separator,
            _ => standard.separator,
        },
        always: flag(machine, "srs_alwaysrewrite"),
    })
}

fn text(machine: &Evaluation, name: &str) -> Option<Vec<u8>> {
    match machine.variable_named(name.as_bytes()) {
        Some(Value::Text(text)) if !text.is_empty() => Some(text.to_vec()),
        _ => None,
    }
}

/// A number within bounds; what is none, or outside, counts as not set.
fn number(
    machine: &Evaluation,
    name: &str,
    standard: usize,
    bounds: std::ops::RangeInclusive<usize>,
) -> usize {
    let given = text(machine, name).and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
    given
        .filter(|number| bounds.contains(number))
        .unwrap_or(standard)
}

fn flag(machine: &Evaluation, name: &str) -> bool {
    text(machine, name).is_some_and(|text| text != b"0")
}
