//! What routing has noticed about a message, for the administrator: nobody else is told. The sender of mail with a
//! forged or broken header need not be who he seems.

use super::message::Event;

/// Bytes of a text that are shown.
const SHOWN_BYTES_MAX: usize = 200;

/// Lines about one message; of more it is said that there are more.
const LINES_MAX: usize = 10;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    /// Lines for the log.
    pub lines: Vec<String>,
    /// Events for which the script wants a copy of the message kept (`squirrel`).
    pub copies: Vec<&'static str>,
    /// Addresses that cannot be understood, each a line, and the file that the script wants them in (`erraddron`).
    pub addresses: Option<(Vec<u8>, Vec<String>)>,
}

impl Remarks {
    /// From events, the events that are kept, and the file of addresses.
    #[must_use]
    pub fn of(events: &[Event], kept: &[&'static str], file: Option<&Vec<u8>>) -> Self {
        let mut remarks = Self::default();
        let mut addresses = Vec::new();
        for event in events {
            let (name, text) = described(event);
            remarks.lines.push(match name {
                Some(name) => format!("{name}: {text}"),
                None => text.clone(),
            });
            let wanted = kept.iter().find(|kept| name == Some(**kept));
            if let Some(wanted) = wanted
                && !remarks.copies.contains(wanted)
            {
                remarks.copies.push(wanted);
            }
            if let Event::BadAddress(address) = event {
                addresses.push(shown(address));
            }
        }
        if remarks.lines.len() > LINES_MAX {
            let more = remarks.lines.len() - LINES_MAX;
            remarks.lines.truncate(LINES_MAX);
            remarks.lines.push(format!("and {more} more"));
        }
        addresses.truncate(LINES_MAX);
        remarks.addresses = file
            .filter(|_| !addresses.is_empty())
            .map(|file| (file.clone(), addresses));
        remarks
    }

    /// Whether there is nothing to be said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

/// The name that `squirrel` has for it, and what happened.
fn described(event: &Event) -> (Option<&'static str>, String) {
    match event {
        Event::BreakIn(said) => (
            Some("breakin"),
            format!("Sender named somebody else: {}", shown(said)),
        ),
        Event::BadHeader(name) => (
            Some("badheader"),
            format!("the field {} does not obey RFC 5322", shown(name)),
        ),
        Event::IllHeader(function) => (
            Some("illheader"),
            format!("{} gave nothing that a header can have", shown(function)),
        ),
        Event::NoSender => (
            Some("nosender"),
            "nobody knows who the author is".to_owned(),
        ),
        Event::BadAddress(address) => (
            None,
            format!("an address that cannot be understood: {}", shown(address)),
        ),
    }
}

/// On one line, of bounded length.
fn shown(bytes: &[u8]) -> String {
    let cut = bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes);
    let text = String::from_utf8_lossy(cut);
    text.chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_script_wants_is_kept_and_all_is_said_within_bounds() {
        let mut events = vec![
            Event::BreakIn(b"a\r\nb".to_vec()),
            Event::BadHeader(b"Date".to_vec()),
            Event::BadHeader(b"To".to_vec()),
        ];
        events.extend((0..50).map(|_| Event::BadAddress(vec![b'x'; 5000])));
        let file = b"/tmp/bad".to_vec();
        let remarks = Remarks::of(&events, &["badheader"], Some(&file));
        assert_eq!(remarks.copies, ["badheader"]);
        assert_eq!(remarks.lines.len(), LINES_MAX + 1);
        assert_eq!(
            remarks.lines[0],
            "breakin: Sender named somebody else: a  b"
        );
        assert_eq!(remarks.lines[LINES_MAX], "and 43 more");
        let (path, lines) = remarks.addresses.unwrap();
        assert_eq!((path, lines.len()), (file, LINES_MAX));
        assert!(lines.iter().all(|line| line.len() == SHOWN_BYTES_MAX));
        assert!(Remarks::of(&[], &["badheader"], None).is_empty());
        assert_eq!(Remarks::of(&events, &[], None).addresses, None);
    }
}
