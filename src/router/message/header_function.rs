//! Functions that rewrite whole fields: what they are given, and what they return.

use super::script::{Script, Value};
use super::vis;

/// When a header function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// `hrr_ab`: before the first field.
    Before,
    /// `hrr_rr`: for a field.
    Each,
    /// `hrr_ae`: behind the last field.
    After,
}

impl Stage {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Before => b"hrr_ab",
            Self::Each => b"hrr_rr",
            Self::After => b"hrr_ae",
        }
    }
}

/// The arguments of a call.
pub(super) fn arguments<S: Script>(
    script: &S,
    stage: Stage,
    name: &[u8],
    value: &[u8],
) -> Vec<S::Value> {
    let given = if is_set(script, b"hrr_vis_disable") {
        with_line_feeds(value)
    } else {
        vis::encode(&with_line_feeds(value))
    };
    [stage.name(), name, &given].map(S::Value::of_text).to_vec()
}

/// Whether a variable is a number other than 0.
fn is_set<S: Script>(script: &S, variable: &[u8]) -> bool {
    let value = script.variable(variable);
    let text = value.as_ref().and_then(Value::text).unwrap_or_default();
    let number = core::str::from_utf8(text).ok();
    number.is_some_and(|text| text.parse::<u32>().is_ok_and(|number| number != 0))
}

fn with_line_feeds(value: &[u8]) -> Vec<u8> {
    let kept = value.iter().filter(|byte| **byte != b'\r');
    kept.copied().collect()
}

/// What a header function wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// The field stays; nothing is added.
    Same,
    /// These fields, with their line ends, instead or besides. None of them: the field goes.
    Fields(Vec<u8>),
    /// What it returned is no list of names and values.
    Unclear,
}

/// Bytes of the fields that one call may give.
const FIELDS_BYTES_MAX: usize = 256 << 10;

/// Reads what a call returned; `same` is the field as it stands there, without its line end.
pub(super) fn wish<S: Script>(script: &S, value: Option<S::Value>, same: &[u8]) -> Wish {
    let Some(value) = value else {
        return Wish::Same;
    };
    let Some(count) = value.count() else {
        return Wish::Unclear;
    };
    let plain = is_set(script, b"hrr_unvis_disable");
    let mut out = Vec::new();
    for index in 0..count {
        let pair = value.item(index);
        // `(())` is how a field is dropped.
        if pair.as_ref().and_then(Value::count) == Some(0) {
            continue;
        }
        let part = |at| pair.as_ref().and_then(|pair| pair.item(at));
        let (name, text) = (part(0), part(1));
        let (Some(name), Some(text)) = (
            name.as_ref().and_then(Value::text),
            text.as_ref().and_then(Value::text),
        ) else {
            return Wish::Unclear;
        };
        let decoded = if plain {
            Some(text.to_vec())
        } else {
            vis::decode(text)
        };
        let Some(decoded) = decoded else {
            return Wish::Unclear;
        };
        if !is_name(name) || out.len() + decoded.len() > FIELDS_BYTES_MAX {
            return Wish::Unclear;
        }
        put_field(&mut out, name, &decoded);
    }
    let is_same = out.strip_suffix(b"\r\n") == Some(same);
    if is_same {
        Wish::Same
    } else {
        Wish::Fields(out)
    }
}

/// RFC 5322 2.2: graphic characters without a colon.
fn is_name(name: &[u8]) -> bool {
    let good = |byte: &u8| byte.is_ascii_graphic() && *byte != b':';
    !name.is_empty() && name.len() <= 256 && name.iter().all(good)
}

/// Appends a field. Whatever the value is, it stays one field: lines that do not begin with a blank get
/// one, empty lines, NUL and lone CR go.
pub(super) fn put_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.push(b':');
    let mut is_first = true;
    for line in value.split(|byte| *byte == b'\n') {
        let kept = line
            .iter()
            .copied()
            .filter(|byte| !matches!(byte, b'\r' | 0));
        let line: Vec<u8> = kept.collect();
        if is_first {
            if !line.is_empty() && !starts_blank(&line) {
                out.push(b' ');
            }
        } else if line.trim_ascii().is_empty() {
            continue;
        } else {
            out.extend_from_slice(b"\r\n");
            if !starts_blank(&line) {
                out.push(b'\t');
            }
        }
        is_first = false;
        out.extend_from_slice(&line);
    }
    out.extend_from_slice(b"\r\n");
}

fn starts_blank(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_stays_one_field() {
        for (value, expected) in [
            (&b"a"[..], &b"X: a\r\n"[..]),
            (b"\ta\n\tb", b"X:\ta\r\n\tb\r\n"),
            (
                b"a\nBcc: x\n\nbody\r\n.\r\n",
                b"X: a\r\n\tBcc: x\r\n\tbody\r\n\t.\r\n",
            ),
            (b"", b"X:\r\n"),
            (b"a\0\rb", b"X: ab\r\n"),
        ] {
            let mut out = Vec::new();
            put_field(&mut out, b"X", value);
            assert_eq!(out, expected);
        }
        assert!(is_name(b"X-A") && !is_name(b"X A") && !is_name(b"X:") && !is_name(b""));
    }
}
