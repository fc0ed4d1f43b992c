//! The visual encoding in which header functions get and give values: one word of graphic characters,
//! so that a script may take it apart without losing blanks or having it taken for a pattern.

/// Encodes: blanks, control and 8-bit characters and `* ? [ #` become a backslash and three octal
/// digits, a backslash becomes two.
#[must_use]
pub fn encode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 2);
    for byte in text {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'*' | b'?' | b'[' | b'#' => octal(*byte, &mut out),
            byte if byte.is_ascii_graphic() => out.push(*byte),
            byte => octal(*byte, &mut out),
        }
    }
    out
}

fn octal(byte: u8, out: &mut Vec<u8>) {
    let digits = [byte >> 6, byte >> 3 & 7, byte & 7].map(|digit| b'0' + digit);
    out.push(b'\\');
    out.extend_from_slice(&digits);
}

/// Decodes, and understands besides the letters of C (`\n`, `\t`, `\s`...), `\^X` and `\M-x`. None: a
/// backslash with something else behind it.
#[must_use]
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first == b'\\' {
            rest = escape(behind, &mut out)?;
        } else {
            out.push(*first);
        }
    }
    Some(out)
}

/// Takes what stands behind a backslash.
fn escape<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (first, rest) = text.split_first()?;
    let byte = match first {
        b'0'..=b'7' => {
            let is_digit = |byte: &&u8| (b'0'..=b'7').contains(*byte);
            let count = text.iter().take(3).take_while(is_digit).count();
            let (digits, rest) = text.split_at_checked(count)?;
            let value = digits
                .iter()
                .fold(0_u32, |sum, digit| sum * 8 + u32::from(digit - b'0'));
            out.push(u8::try_from(value).ok()?);
            return Some(rest);
        }
        b'^' => return control(rest, 0, out),
        b'M' => return meta(rest, out),
        // A line that goes on.
        b'\n' | b'$' => return Some(rest),
        b'\\' => b'\\',
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b's' => b' ',
        b'a' => 7,
        b'b' => 8,
        b'v' => 11,
        b'f' => 12,
        b'E' => 27,
        _ => return None,
    };
    out.push(byte);
    Some(rest)
}

fn control<'a>(text: &'a [u8], high: u8, out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (byte, rest) = text.split_first()?;
    let low = if *byte == b'?' { 127 } else { byte & 31 };
    out.push(low | high);
    Some(rest)
}

fn meta<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (mark, rest) = text.split_first()?;
    match mark {
        b'^' => control(rest, 128, out),
        b'-' => {
            let (byte, rest) = rest.split_first()?;
            out.push(byte | 128);
            Some(rest)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_words() {
        assert_eq!(encode(b" a*\t\\b\n[\xe9"), br"\040a\052\011\\b\012\133\351");
        assert_eq!(
            decode(br"\040a\s\t\\\n\M-i\^A\M^A\0x").unwrap(),
            b" a \t\\\n\xe9\x01\x81\0x"
        );
        assert_eq!(decode(br"a\"), None);
        assert_eq!(decode(br"\q"), None);
        assert_eq!(decode(br"\777"), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let word = encode(&text);
            prop_assert!(word.iter().all(u8::is_ascii_graphic));
            prop_assert_eq!(decode(&word), Some(text));
        }

        #[test]
        fn any_word_is_judged(word in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&word);
        }
    }
}
