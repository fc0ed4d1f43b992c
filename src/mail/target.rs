//! Programs and files in the place of users: `|command` and `/file`.
//!
//! Both may stand in quotes, as addresses that hold blanks have to. A command is told apart from its words here; whether
//! a shell is needed for it is decided by its own text, which the owner of the file it stands in has written.

use super::quote;

/// Where mail goes instead of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A command that reads the message.
    Program(Vec<u8>),
    /// A file that messages are appended to, by its absolute path.
    File(Vec<u8>),
}

/// Longest command or path: what a line of the protocol to the agent has room for.
pub const TARGET_BYTES_MAX: usize = 4000;

/// What a user names, when it is a program or a file.
#[must_use]
pub fn parse(user: &[u8]) -> Option<Target> {
    let plain = match user {
        [b'"', inner @ .., b'"'] if matches!(inner.first(), Some(b'|' | b'/')) => {
            quote::dequoted(user, None)
        }
        _ => user.to_vec(),
    };
    let fits =
        plain.len() <= TARGET_BYTES_MAX && plain.iter().all(|byte| !b"\0\r\n".contains(byte));
    match plain.split_first() {
        Some((b'|', command)) if fits && !command.trim_ascii().is_empty() => {
            Some(Target::Program(command.trim_ascii().to_vec()))
        }
        Some((b'/', rest)) if fits && !rest.is_empty() => Some(Target::File(plain)),
        _ => None,
    }
}

/// Whether the local part of an address is written as a program or a file, whether or not it makes a good one.
#[must_use]
pub fn is_named(address: &[u8]) -> bool {
    let address = address.strip_prefix(b"\"").unwrap_or(address);
    matches!(address.trim_ascii_start().first(), Some(b'|' | b'/'))
}

/// The words of a command that needs no shell: its program by an absolute path, then arguments, which may stand in
/// `'` or `"`. None: it holds something that a shell gives a meaning to, or a name that a shell has to find.
#[must_use]
pub fn words(command: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    for byte in command.iter().copied() {
        match (quote, byte) {
            (Some(open), _) if byte == open => quote = None,
            (Some(b'"'), b'$' | b'`' | b'\\') => return None,
            (Some(_), _) => word.get_or_insert_default().push(byte),
            (None, b'\'' | b'"') => {
                word.get_or_insert_default();
                quote = Some(byte);
            }
            (None, b' ' | b'\t') => words.extend(word.take()),
            (None, byte) if needs_shell(byte) => return None,
            (None, _) => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    let absolute = words
        .first()
        .is_some_and(|word: &Vec<u8>| word.first() == Some(&b'/'));
    (quote.is_none() && absolute).then_some(words)
}

fn needs_shell(byte: u8) -> bool {
    byte.is_ascii_control() || b"$`\\<>|&;(){}*?[]~#!".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_program_or_a_file() {
        let program = |text: &str| Some(Target::Program(text.into()));
        let cases: &[(&str, Option<Target>)] = &[
            ("|/bin/x", program("/bin/x")),
            ("\"|/bin/x a b\"", program("/bin/x a b")),
            ("\"|\\\"/bin/x y\\\" a\"", program("\"/bin/x y\" a")),
            ("|\"/bin/x y\" a", program("\"/bin/x y\" a")),
            ("| exec cat", program("exec cat")),
            ("/var/f", Some(Target::File("/var/f".into()))),
            ("\"/var/a b\"", Some(Target::File("/var/a b".into()))),
            ("|", None),
            ("\"| \"", None),
            ("/", None),
            ("joe", None),
            ("\"joe\"@x", None),
            ("|a\nb", None),
        ];
        for (user, expected) in cases {
            assert_eq!(parse(user.as_bytes()), *expected, "{user}");
        }
        let long = format!("|{}", "x".repeat(TARGET_BYTES_MAX));
        assert_eq!(parse(long.as_bytes()), None);
        for (address, named) in [
            ("|x@y", true),
            ("\"|x\"@y", true),
            ("/x@y", true),
            ("x|y@z", false),
        ] {
            assert_eq!(is_named(address.as_bytes()), named, "{address}");
        }
    }

    #[test]
    fn a_command_without_a_meaning_for_the_shell_is_words() {
        let cases: &[(&str, Option<&[&str]>)] = &[
            ("/bin/x", Some(&["/bin/x"])),
            (
                "/bin/x  -f a@b '' \"c d\"'e'",
                Some(&["/bin/x", "-f", "a@b", "", "c de"]),
            ),
            ("\"/bin/with space\" arg", Some(&["/bin/with space", "arg"])),
            ("/bin/x '$HOME;|`'", Some(&["/bin/x", "$HOME;|`"])),
            ("/bin/x $HOME", None),
            ("/bin/x \"$HOME\"", None),
            ("/bin/x >f", None),
            ("/bin/x a\\ b", None),
            ("/bin/x 'open", None),
            ("vacation joe", None),
            ("IFS=' ' exec /bin/x", None),
        ];
        for (command, expected) in cases {
            let found = words(command.as_bytes());
            let found: Option<Vec<String>> = found.map(|words| {
                words
                    .into_iter()
                    .map(|word| String::from_utf8(word).unwrap())
                    .collect()
            });
            let expected: Option<Vec<String>> =
                expected.map(|words| words.iter().map(|word| (*word).to_owned()).collect());
            assert_eq!(found, expected, "{command}");
        }
    }
}
