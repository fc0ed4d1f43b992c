//! The encoding of parameters in which any byte can stand (RFC 3461 4).

/// Encodes: what is not a graphic character, `+` and `=` become `+` and two hexadecimal digits.
#[must_use]
pub fn encode(text: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(text.len() + 8);
    for byte in text {
        if byte.is_ascii_graphic() && !b"+=".contains(byte) {
            out.push(*byte);
        } else {
            let digit = |of: u8| DIGITS[usize::from(of & 15)];
            out.extend([b'+', digit(byte >> 4), digit(*byte)]);
        }
    }
    out
}

/// What was encoded; none: it was not by this encoding.
#[must_use]
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            b'=' => return None,
            byte if byte.is_ascii_graphic() => out.push(byte),
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
        assert_eq!(encode(b"|/bin/x a+b=\n"), b"|/bin/x+20a+2Bb+3D+0A");
        for bad in [&b"+"[..], b"+4", b"+4g", b"a b", b"a=b", b"\xff"] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }
}
