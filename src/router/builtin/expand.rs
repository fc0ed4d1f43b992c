//! `listexpand`: the addresses of a list, each routed.

use super::{Flow, USAGE};
use crate::base::records::Records;
use crate::mail::address::{Member, members};
use crate::router::machine::{Arguments, Evaluation, Expansion};
use crate::router::value::Value;

pub(super) fn list_expand(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let mut values = machine.take_arguments(arguments);
    let mut options = Options::default();
    let operands = match options.take(&mut values) {
        true if (3..=5).contains(&values.len()) => values,
        _ => {
            machine.complain(
                "Usage: listexpand [ -e error-address ] [ -E errors-to-address ] [-p privilege] [ -c comment ] \
                 [ -N notarystring ] attribute localpart origaddr [plustail [domain]]",
            );
            machine.status = USAGE;
            return Ok(());
        }
    };
    let text = machine.rest_of_input();
    let (mut addresses, bad) = addresses_of(&text, options.keeps_backslash);
    drop(text);
    for line in &bad {
        machine.complain(&format!(
            "{}: line {line} holds what is no address",
            options.comment
        ));
    }
    if addresses.is_empty() && !machine.router.error_message {
        let owner = options
            .error_address
            .unwrap_or_else(|| b"postmaster".to_vec());
        addresses.push(&owner);
    }
    machine.expand(Expansion::new(addresses, operands, options.notary))
}

#[derive(Default)]
struct Options {
    comment: String,
    error_address: Option<Vec<u8>>,
    notary: Option<Vec<u8>>,
    /// `-k backslash`, which the original does not know: a `\` in front of an address goes along with it.
    keeps_backslash: bool,
}

impl Options {
    /// Takes options and what belongs to them off the front; `false`: one is not known.
    fn take(&mut self, values: &mut Vec<Value>) -> bool {
        self.comment = "list".to_owned();
        while values.len() >= 2 {
            let letter = match values[0].bytes() {
                [b'-', letter, ..] => *letter,
                _ => break,
            };
            let value = values[1].bytes().to_vec();
            if value.iter().any(|byte| b"\r\n".contains(byte)) {
                return false;
            }
            match letter {
                b'c' => self.comment = String::from_utf8_lossy(&value).into_owned(),
                b'e' => self.error_address = Some(value),
                b'N' => self.notary = Some(value),
                b'k' if value == b"backslash" => self.keeps_backslash = true,
                // Privilege and Errors-To go with the attributes.
                b'p' | b'E' => {}
                _ => return false,
            }
            values.drain(..2);
        }
        true
    }
}

/// The addresses of a list file, an alias or a `.forward`, and the lines that hold something else. A newline
/// separates as a comma does; `#` begins a comment line; a `\` in front of an address is left out unless it is kept;
/// `:include:/path` is an address of its own. A line that begins with `|` and is no list of addresses is a command as a
/// whole, as people write it who leave the quotes out.
fn addresses_of(text: &[u8], keeps_backslash: bool) -> (Records, Vec<usize>) {
    let mut addresses = Records::default();
    let mut bad = Vec::new();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if line.first() == Some(&b'#') {
            continue;
        }
        let line = line.trim_ascii();
        if is_plain(line) {
            addresses.push(line);
            continue;
        }
        let (line, mut backslashes) = without_backslashes(line);
        if let Some(rest) = line.strip_prefix(b":include:")
            && !rest.contains(&b',')
        {
            addresses.push(&[b":include:", rest].concat());
            continue;
        }
        let members: Vec<Member> = members(&line).collect();
        let any_bad = members
            .iter()
            .any(|member| matches!(member, Member::Bad(_)));
        if any_bad && line.first() == Some(&b'|') {
            addresses.push(&quoted(&line));
            continue;
        }
        for member in members {
            match member {
                Member::Address(address) => {
                    let text = address.text(&line);
                    let before = backslashes
                        .iter()
                        .take_while(|at| **at < address.whole.start);
                    match backslashes.drain(..before.count()).next() {
                        Some(_) if keeps_backslash => addresses.push(&[b"\\", &*text].concat()),
                        _ => addresses.push(&text),
                    }
                }
                Member::Bad(_) => bad.push(number + 1),
            }
        }
    }
    (addresses, bad)
}

/// Whether it is one address of letters, digits and what stands between them, as nearly all are: it needs no parser.
fn is_plain(line: &[u8]) -> bool {
    let mut previous = b'.';
    let mut signs = 0;
    for byte in line {
        let separates = matches!(byte, b'.' | b'@');
        signs += usize::from(*byte == b'@');
        let fits = byte.is_ascii_alphanumeric() || b"_+=-".contains(byte);
        if !(fits || separates && !matches!(previous, b'.' | b'@')) {
            return false;
        }
        previous = *byte;
    }
    signs <= 1 && !matches!(previous, b'.' | b'@')
}

/// A command that nobody has put into quotes.
fn quoted(line: &[u8]) -> Vec<u8> {
    let mut text = vec![b'"'];
    for byte in line {
        if matches!(byte, b'"' | b'\\') {
            text.push(b'\\');
        }
        text.push(*byte);
    }
    text.push(b'"');
    text
}

/// `\user` and `a, \user`: the backslash becomes a blank; where there was one.
fn without_backslashes(line: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let mut result = line.to_vec();
    let mut places = Vec::new();
    let mut start = true;
    for (at, byte) in result.iter_mut().enumerate() {
        match *byte {
            b'\\' if start => {
                *byte = b' ';
                places.push(at);
                start = false;
            }
            b',' => start = true,
            b' ' | b'\t' => {}
            _ => start = false,
        }
    }
    (result, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn plain_addresses_are_what_the_parser_makes_of_them(line in "[a-zA-Z0-9_+=@.-]{1,12}") {
            let line = line.as_bytes();
            if is_plain(line) {
                let parsed: Vec<Member> = members(line).collect();
                let [Member::Address(address)] = parsed.as_slice() else {
                    panic!("{parsed:?}")
                };
                proptest::prop_assert_eq!(&*address.text(line), line);
            }
        }
    }

    #[test]
    fn lists_as_people_write_them() {
        let text = b"# comment\nann@x, Bob <bob@y>\n\\carol\n a, \\dave\n:include:/etc/list\n\n\"joe user\"@z\na b c\n";
        let texts = |addresses: &Records| -> Vec<String> {
            let text = |address: &[u8]| String::from_utf8(address.to_vec()).unwrap();
            addresses.iter().map(text).collect()
        };
        let (kept, _) = addresses_of(text, true);
        assert_eq!(texts(&kept)[2..5], ["\\carol", "a", "\\dave"]);
        let (addresses, bad) = addresses_of(text, false);
        assert_eq!(
            texts(&addresses),
            [
                "ann@x",
                "bob@y",
                "carol",
                "a",
                "dave",
                ":include:/etc/list",
                "\"joe user\"@z"
            ]
        );
        assert_eq!(bad, [8]);
        let text = b"|\"/path with space\" arg\n|/bin/x a\\b, c\n|plain, joe\n";
        let (addresses, bad) = addresses_of(text, false);
        let addresses: Vec<String> = addresses
            .iter()
            .map(|a| String::from_utf8(a.to_vec()).unwrap())
            .collect();
        assert_eq!(
            addresses,
            [
                r#""|\"/path with space\" arg""#,
                r#""|/bin/x a\\b, c""#,
                "|plain",
                "joe"
            ]
        );
        assert!(bad.is_empty());
    }
}
