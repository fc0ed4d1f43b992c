//! The Received field of a message that came in a file (RFC 5321 4.4): where from, by whom, how, for whom.

/// What is said of where a message came from. Bytes that could be taken for more than that are replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// `from`: a host, with what is known of it in parentheses.
    pub from: Vec<u8>,
    /// `via`; empty: not said.
    pub via: Vec<u8>,
    /// `with`; empty: not said.
    pub with: Vec<u8>,
}

/// Bytes of a clause; RFC 5322 2.1.1 allows 998 in a line.
const CLAUSE_BYTES_MAX: usize = 400;

impl Received {
    /// The field with its line ends. `only` is the recipient, if there is just one: naming one tells nobody
    /// about another (RFC 5321 7.6).
    #[must_use]
    pub fn field(&self, host: &str, id: &str, only: Option<&[u8]>, date: &str) -> Vec<u8> {
        let mut out = b"Received: from ".to_vec();
        put_text(&mut out, &self.from);
        out.extend_from_slice(format!("\r\n\tby {host}").as_bytes());
        for (word, value) in [("via", &self.via), ("with", &self.with)] {
            let good = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
            if !value.is_empty() && value.len() <= CLAUSE_BYTES_MAX && value.iter().all(good) {
                out.extend_from_slice(format!(" {word} ").as_bytes());
                out.extend_from_slice(value);
            }
        }
        out.extend_from_slice(format!(" id {id}").as_bytes());
        let good =
            |text: &&[u8]| text.len() <= CLAUSE_BYTES_MAX && text.iter().all(u8::is_ascii_graphic);
        if let Some(only) = only.filter(good) {
            out.extend_from_slice(b"\r\n\tfor <");
            out.extend_from_slice(only);
            out.push(b'>');
        }
        out.extend_from_slice(format!("; {date}\r\n").as_bytes());
        out
    }
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let kept = text.iter().take(CLAUSE_BYTES_MAX).map(|byte| match byte {
        // A date follows the semicolon.
        b';' => b'?',
        b' '..=b'~' => *byte,
        _ => b'?',
    });
    out.extend(kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_stand_in_their_order() {
        let received = Received {
            from: b"peer ([192.0.2.7]:4711 \"EHLO peer\")".to_vec(),
            via: b"TCP".to_vec(),
            with: b"ESMTP".to_vec(),
        };
        let field = received.field("mx", "17", Some(b"a@x"), "now");
        let expected = "Received: from peer ([192.0.2.7]:4711 \"EHLO peer\")\r\n\tby mx via TCP \
                        with ESMTP id 17\r\n\tfor <a@x>; now\r\n";
        assert_eq!(String::from_utf8(field).unwrap(), expected);
    }

    #[test]
    fn a_claim_adds_no_lines() {
        let received = Received {
            from: b"a;\r\nBcc: x\xe9".to_vec(),
            via: b"x y".to_vec(),
            with: b"a\nb".to_vec(),
        };
        let field = received.field("mx", "17", Some(b"a b"), "now");
        let expected = "Received: from a???Bcc: x?\r\n\tby mx id 17; now\r\n";
        assert_eq!(String::from_utf8(field).unwrap(), expected);
        let long = Received {
            from: vec![b'x'; 5000],
            ..Received::default()
        };
        let field = long.field("mx", "17", None, "now");
        assert!(
            field
                .split(|byte| *byte == b'\n')
                .all(|line| line.len() < 998)
        );
    }
}
