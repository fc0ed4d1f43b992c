//! Display names of addresses, as fields that are added to a header need them.

use super::token::is_word;

/// A name and an address as RFC 5322 3.4 writes them; a name that is not ASCII as RFC 2047 does.
#[must_use]
pub fn mailbox(name: &str, address: &str) -> String {
    let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
    if name.is_empty() {
        return address.to_owned();
    }
    // RFC 5322 3.2.5: words need quotes only where they are no atoms.
    let mut bytes = name.bytes();
    if bytes.all(|byte| byte.is_ascii() && (byte == b' ' || is_word(byte))) {
        return format!("{name} <{address}>");
    }
    if name.is_ascii() {
        let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
        return format!("\"{escaped}\" <{address}>");
    }
    format!("{} <{address}>", encoded(&name))
}

/// RFC 2047 2: words of 75 characters at most, none cut inside a character.
fn encoded(name: &str) -> String {
    const WORD_BYTES_MAX: usize = 75 - "=?UTF-8?Q?".len() - "?=".len();
    let mut words = vec![String::new()];
    for c in name.chars() {
        let mut bytes = [0; 4];
        let text: String = c.encode_utf8(&mut bytes).bytes().map(quoted).collect();
        match words.last_mut() {
            Some(word) if word.len() + text.len() <= WORD_BYTES_MAX => word.push_str(&text),
            _ => words.push(text),
        }
    }
    let words: Vec<String> = words
        .iter()
        .map(|word| format!("=?UTF-8?Q?{word}?="))
        .collect();
    words.join(" ")
}

fn quoted(byte: u8) -> String {
    match byte {
        b' ' => "_".to_owned(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("={byte:02X}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_a_from_field() {
        for (name, field) in [
            ("", "a@x"),
            ("Ann O'Neil", "Ann O'Neil <a@x>"),
            ("J. Q. User", "\"J. Q. User\" <a@x>"),
            ("the \"boss\\", "\"the \\\"boss\\\\\" <a@x>"),
            ("two\nlines", "twolines <a@x>"),
            ("J\u{f6}rg B.", "=?UTF-8?Q?J=C3=B6rg_B=2E?= <a@x>"),
        ] {
            assert_eq!(mailbox(name, "a@x"), field);
        }
        let long = encoded(&"\u{20ac}".repeat(20));
        assert!(long.split(' ').all(|word| word.len() <= 75), "{long}");
    }
}
