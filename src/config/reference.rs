//! The reference of all settings, printed from the list.

use super::knob::Kind;
use super::knobs::KNOBS;

/// Every setting with its default and meaning, as a commented file.
#[must_use]
pub fn text() -> String {
    let mut out = String::new();
    let mut table = "";
    for knob in KNOBS {
        if knob.table != table {
            table = knob.table;
            let brackets = if super::knobs::REPEATED.contains(&table) {
                ("[[", "]]")
            } else {
                ("[", "]")
            };
            out.push_str(&format!("\n{}{table}{}\n", brackets.0, brackets.1));
        }
        let default = match knob.kind {
            Kind::Count { .. } | Kind::Flag => knob.default.to_owned(),
            Kind::List(_) => {
                let items: Vec<String> = knob
                    .default
                    .split_ascii_whitespace()
                    .map(|item| format!("{item:?}"))
                    .collect();
                format!("[{}]", items.join(", "))
            }
            Kind::Pairs => "{}".to_owned(),
            _ => format!("{:?}", knob.default),
        };
        out.push_str(&format!(
            "# {} {}\n{} = {default}\n",
            knob.doc,
            knob.kind.allowed(),
            knob.key
        ));
    }
    out.trim_start().to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_reference_is_a_good_configuration() {
        let text = super::text();
        let parsed = crate::config::from_text(&text, "reference");
        assert!(parsed.is_ok(), "{:?}\n{text}", parsed.err());
    }
}
