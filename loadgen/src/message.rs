//! Messages with an identity: `X-Loadgen: number hash` in the header, lines that exercise dots.

/// Bytes of a message: from, to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64, pub(crate) u64);

/// Parses `4096` or `1000-9000`.
pub(crate) fn parse_size(text: &str) -> Result<Size, String> {
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|error| format!("{text:?}: {error}"))
    };
    let (low, high) = match text.split_once('-') {
        Some((low, high)) => (number(low)?, number(high)?),
        None => (number(text)?, number(text)?),
    };
    if low > high {
        Err(format!("{text:?}: the range is empty"))
    } else {
        Ok(Size(low, high))
    }
}

const NAME: &[u8] = b"X-Loadgen: ";

/// FNV-1a, 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The message of a number, with CR LF line ends, not dot-stuffed.
pub(crate) fn build(number: u64, size: Size) -> Vec<u8> {
    let spread = size.1 - size.0 + 1;
    let total = size.0 + number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % spread;
    let mut body = Vec::with_capacity(total as usize);
    let mut state = number | 1;
    while (body.len() as u64) < total.saturating_sub(120) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let dots = if state.is_multiple_of(9) { ".." } else { "" };
        body.extend_from_slice(
            format!("{dots}{number:016x} {state:016x} lorem ipsum dolor sit amet\r\n").as_bytes(),
        );
    }
    let mut message = format!(
        "From: <source@loadgen.example>\r\nSubject: {number}\r\nX-Loadgen: {number} {:016x}\r\n\r\n",
        hash(&body)
    )
    .into_bytes();
    message.append(&mut body);
    message
}

/// What a received message says it is, and whether its body is unaltered.
pub(crate) fn identify(message: &[u8]) -> Option<(u64, bool)> {
    let header_end = memchr::memmem::find(message, b"\r\n\r\n")? + 4;
    let at = memchr::memmem::find(&message[..header_end], NAME)? + NAME.len();
    let line = message[at..header_end]
        .split(|byte| *byte == b'\r')
        .next()?;
    let text = std::str::from_utf8(line).ok()?;
    let (number, sum) = text.split_once(' ')?;
    let sum = u64::from_str_radix(sum, 16).ok()?;
    Some((number.parse().ok()?, hash(&message[header_end..]) == sum))
}

/// Doubles dots at line starts and adds the final dot (RFC 5321 4.5.2).
pub(crate) fn stuff(message: &[u8], out: &mut Vec<u8>) {
    let mut start = 0;
    if message.starts_with(b".") {
        out.push(b'.');
    }
    for at in memchr::memmem::find_iter(message, b"\r\n.") {
        out.extend_from_slice(&message[start..at + 2]);
        out.push(b'.');
        start = at + 2;
    }
    out.extend_from_slice(&message[start..]);
    out.extend_from_slice(b".\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_altered_message_is_seen() {
        let mut message = build(7, Size(2000, 2000));
        assert_eq!(identify(&message), Some((7, true)));
        let last = message.len() - 5;
        message[last] ^= 1;
        assert_eq!(identify(&message), Some((7, false)));
    }

    #[test]
    fn stuffing_doubles_leading_dots_only() {
        let mut out = Vec::new();
        stuff(b".a\r\n..b\r\nc.d\r\n", &mut out);
        assert_eq!(out, b"..a\r\n...b\r\nc.d\r\n.\r\n");
    }
}
