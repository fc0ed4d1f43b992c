//! The tree of what a script did.

use std::fmt::Write;

use crate::router::machine::Event;
use crate::router::value::Value;

/// Bytes of a value that are shown.
const SHOWN_BYTES_MAX: usize = 400;

/// Deepest indentation; what is deeper is shown there.
const INDENTED_MAX: usize = 40;

/// One line an event, indented by function.
pub(super) fn tree(events: &[Event]) -> String {
    let mut tree = String::new();
    let mut depth = 1;
    for event in events {
        if let Event::Leave { value, status } = event {
            line(&mut tree, depth, &left(value.as_ref(), *status));
            depth = depth.saturating_sub(1).max(1);
            continue;
        }
        line(&mut tree, depth, &told(event));
        if matches!(event, Event::Enter { .. }) {
            depth += 1;
        }
    }
    tree
}

fn line(tree: &mut String, depth: usize, text: &str) {
    let text = shown(text);
    let indent = "  ".repeat(depth.min(INDENTED_MAX));
    let _ = writeln!(tree, "{indent}{text}");
}

fn left(value: Option<&Value>, status: i32) -> String {
    match (value, status) {
        (Some(value), 0) => format!("= {value}"),
        (Some(value), status) => format!("= {value}, status {status}"),
        (None, 0) => "= done".to_owned(),
        (None, status) => format!("= fails with {status}"),
    }
}

fn told(event: &Event) -> String {
    match event {
        Event::Enter {
            place,
            name,
            arguments,
        } => {
            let words: String = arguments.iter().map(|value| format!(" {value}")).collect();
            match place.as_str() {
                "" => format!("{name}{words}"),
                place => format!("{place}: {name}{words}"),
            }
        }
        Event::Match {
            place,
            label,
            input,
        } => format!("{place}: {label} fits '{input}'"),
        Event::Lookup {
            name,
            key,
            answer,
            waits,
        } => {
            let found = match answer {
                Some(answer) => format!("'{answer}'"),
                None => "nothing".to_owned(),
            };
            match waits {
                Some(reason) => format!("{name}({key}) cannot be known now: {reason}"),
                None => format!("{name}({key}) has {found}"),
            }
        }
        Event::Outside { question, answer } => format!("{question}: {answer}"),
        Event::Leave { .. } => String::new(),
    }
}

/// Without control characters, and not endless.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        if shown.len() > SHOWN_BYTES_MAX {
            shown.push_str("...");
            break;
        }
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_follows_the_functions() {
        let lookup = |answer: Option<&str>, waits: Option<&str>| Event::Lookup {
            name: "routes".to_owned(),
            key: "x".to_owned(),
            answer: answer.map(str::to_owned),
            waits: waits.map(str::to_owned),
        };
        let enter = |place: &str, name: &str| Event::Enter {
            place: place.to_owned(),
            name: name.to_owned(),
            arguments: vec![Value::from("a\nb")],
        };
        let events = [
            enter("", "router"),
            enter("r.cf:2", "site"),
            lookup(None, None),
            lookup(Some("smtp!y"), None),
            lookup(None, Some("NS:x/mx")),
            Event::Leave {
                value: None,
                status: 1,
            },
            Event::Match {
                place: "r.cf:4".to_owned(),
                label: ".*".to_owned(),
                input: "a".to_owned(),
            },
            Event::Leave {
                value: Some(Value::list(vec![Value::from("smtp")])),
                status: 0,
            },
        ];
        let wanted = "  router 'a\\nb'
    r.cf:2: site 'a\\nb'
      routes(x) has nothing
      routes(x) has 'smtp!y'
      routes(x) cannot be known now: NS:x/mx
      = fails with 1
    r.cf:4: .* fits 'a'
    = (smtp)
";
        assert_eq!(tree(&events), wanted);
    }

    #[test]
    fn nothing_is_endless() {
        assert!(shown(&"x".repeat(100_000)).len() < SHOWN_BYTES_MAX + 10);
        assert_eq!(shown("a\u{1b}[2J"), "a\\u{1b}[2J");
    }
}
