//! Header fields (RFC 5322 2.2, 3.4) of a message whose lines end with LF or CR LF: finding fields,
//! the addresses they name.
//!
//! Nothing here fails: what cannot be understood is left out, since the header of a submitted
//! message is whatever a user typed.

/// One field with its continuation lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// What stands before the colon.
    pub name: &'a [u8],
    /// What stands behind it, line ends included.
    pub value: &'a [u8],
    /// All of it, line ends included.
    pub whole: &'a [u8],
}

impl Field<'_> {
    /// Whether the name is this one, in any case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The fields of a message, up to the first line that is not part of a header.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

/// The fields at the start of `message`.
#[must_use]
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

impl<'a> Fields<'a> {
    /// What follows the fields taken so far: behind the last one, the empty line and the body.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let first = line(self.rest);
        let colon = first.iter().position(|byte| *byte == b':')?;
        let name = first.get(..colon)?.trim_ascii_end();
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        let mut len = first.len();
        while matches!(self.rest.get(len), Some(b' ' | b'\t')) {
            len += line(self.rest.get(len..)?).len();
        }
        let whole = self.rest.get(..len)?;
        self.rest = self.rest.get(len..)?;
        Some(Field {
            name,
            value: whole.get(colon + 1..)?,
            whole,
        })
    }
}

/// The first line, its end included.
fn line(text: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'\n', text).map_or(text.len(), |at| at + 1);
    text.get(..end).unwrap_or(text)
}

/// Recipients named in the header: Resent-To, Resent-Cc and Resent-Bcc when there is one of them
/// (RFC 5322 3.6.6: the first set is the latest), else To, Cc and Bcc. No address twice.
#[must_use]
pub fn recipients(message: &[u8]) -> Vec<Vec<u8>> {
    let resent = ["Resent-To", "Resent-Cc", "Resent-Bcc"];
    let plain = ["To", "Cc", "Bcc"];
    let has_resent = fields(message).any(|field| resent.iter().any(|name| field.is(name)));
    let names = if has_resent { resent } else { plain };
    let mut seen = Vec::new();
    let mut found: Vec<Vec<u8>> = Vec::new();
    for field in fields(message).filter(|field| names.iter().any(|name| field.is(name))) {
        // Of several Resent- blocks only the first counts.
        if has_resent
            && seen
                .iter()
                .any(|name: &Vec<u8>| field.name.eq_ignore_ascii_case(name))
        {
            continue;
        }
        seen.push(field.name.to_vec());
        for address in addresses(field.value) {
            if !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found
}

/// The addresses of an address list (RFC 5322 3.4): display names, comments, groups and source
/// routes are left out. A word without `@` is a local user.
#[must_use]
pub fn addresses(list: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = Reader {
        text: list,
        at: 0,
        found: Vec::new(),
        plain: Vec::new(),
        bracketed: None,
    };
    reader.read();
    reader.found
}

/// Takes an address list apart.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    found: Vec<Vec<u8>>,
    /// Words of the address under way that stand outside brackets.
    plain: Vec<Vec<u8>>,
    bracketed: Option<Vec<u8>>,
}

impl Reader<'_> {
    fn read(&mut self) {
        while let Some(byte) = self.text.get(self.at).copied() {
            match byte {
                b'(' => self.comment(),
                b'"' => {
                    let word = self.quoted();
                    self.add(&word);
                }
                b'<' => {
                    let inner = self.bracket();
                    self.bracketed = Some(inner);
                }
                b'[' => {
                    let word = self.until(b']');
                    self.add(&word);
                }
                b',' | b';' => {
                    self.at += 1;
                    self.end();
                }
                // A group's name.
                b':' => {
                    self.at += 1;
                    self.plain.clear();
                }
                _ if byte.is_ascii_whitespace() => {
                    self.at += 1;
                    self.plain.push(Vec::new());
                }
                _ => {
                    self.at += 1;
                    self.add(&[byte]);
                }
            }
        }
        self.end();
    }

    fn add(&mut self, bytes: &[u8]) {
        match self.plain.last_mut() {
            Some(word) => word.extend_from_slice(bytes),
            None => self.plain.push(bytes.to_vec()),
        }
    }

    fn comment(&mut self) {
        let mut depth = 0;
        while let Some(byte) = self.text.get(self.at).copied() {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'(' => depth += 1,
                b')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }

    fn quoted(&mut self) -> Vec<u8> {
        let from = self.at;
        self.at += 1;
        while let Some(byte) = self.text.get(self.at).copied() {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'"' => break,
                _ => {}
            }
        }
        self.at = self.at.min(self.text.len());
        self.text.get(from..self.at).unwrap_or_default().to_vec()
    }

    fn until(&mut self, end: u8) -> Vec<u8> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let len = rest
            .iter()
            .position(|byte| *byte == end)
            .map_or(rest.len(), |at| at + 1);
        self.at += len;
        rest.get(..len).unwrap_or_default().to_vec()
    }

    /// What stands in angle brackets, white space, comments and a source route left out.
    fn bracket(&mut self) -> Vec<u8> {
        self.at += 1;
        let mut inner = Vec::new();
        while let Some(byte) = self.text.get(self.at).copied() {
            match byte {
                b'>' => {
                    self.at += 1;
                    break;
                }
                b'(' => self.comment(),
                b'"' => inner.extend(self.quoted()),
                _ => {
                    self.at += 1;
                    if !byte.is_ascii_whitespace() {
                        inner.push(byte);
                    }
                }
            }
        }
        match inner.iter().position(|byte| *byte == b':') {
            Some(colon) if inner.starts_with(b"@") => inner.split_off(colon + 1),
            _ => inner,
        }
    }

    /// The end of one address.
    fn end(&mut self) {
        let words = std::mem::take(&mut self.plain);
        let address = match self.bracketed.take() {
            Some(address) => address,
            // `joe @ example.org` is one address; of `joe doe` nobody knows what is meant.
            None if words.iter().any(|word| word.contains(&b'@')) => words.concat(),
            None => {
                let mut words = words.into_iter().filter(|word| !word.is_empty());
                match (words.next(), words.next()) {
                    (Some(word), None) => word,
                    _ => return,
                }
            }
        };
        if !address.is_empty() {
            self.found.push(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        addresses(text.as_bytes())
            .into_iter()
            .map(|address| String::from_utf8(address).unwrap())
            .collect()
    }

    #[test]
    fn address_lists_of_rfc_5322() {
        // The examples of RFC 5322 A.1 and what users type.
        let cases: &[(&str, &[&str])] = &[
            (
                "Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>",
                &["mary@x.test", "jdoe@example.org", "one@y.test"],
            ),
            (
                "<boss@nil.test>, \"Giant; \\\"Big\\\" Box\" <sysservices@example.net>",
                &["boss@nil.test", "sysservices@example.net"],
            ),
            (
                "A Group:Ed Jones <joe@where.test>,John <jdoe@one.test>;",
                &["joe@where.test", "jdoe@one.test"],
            ),
            ("Undisclosed recipients:;", &[]),
            (
                "Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>",
                &["pete@silly.test"],
            ),
            ("joe , mary", &["joe", "mary"]),
            (" \"Joe Q\"@x.test", &["\"Joe Q\"@x.test"]),
            ("joe @ x.test", &["joe@x.test"]),
            (
                "a@[192.0.2.1], <@relay.test,@b.test:c@d.test>",
                &["a@[192.0.2.1]", "c@d.test"],
            ),
            ("two words", &[]),
            (
                "\n one@x.test,\n\ttwo@x.test\n",
                &["one@x.test", "two@x.test"],
            ),
            (",,;", &[]),
            ("<never closed@x.test", &["neverclosed@x.test"]),
            ("(never closed", &[]),
            ("\"never closed\\", &["\"never closed\\"]),
        ];
        for (text, expected) in cases {
            assert_eq!(list(text), *expected, "{text}");
        }
    }

    #[test]
    fn a_header_ends_at_the_first_line_that_is_no_field() {
        let message = b"To: a@x\n\tb@x\nSubject : s\n\nTo: c@x\n";
        let mut all = fields(message);
        let names: Vec<&[u8]> = all.by_ref().map(|field| field.name).collect();
        assert_eq!(names, [&b"To"[..], b"Subject"]);
        assert_eq!(all.rest(), b"\nTo: c@x\n");
        assert_eq!(fields(b"no field here\nTo: a@x\n").count(), 0);
        assert_eq!(fields(b"").count(), 0);
    }

    #[test]
    fn resent_fields_hide_the_others() {
        let named = recipients(b"To: a@x\nCc: b@x, a@x\nBcc: c@x\n\n");
        assert_eq!(named, [b"a@x", b"b@x", b"c@x"]);
        let named = recipients(b"Resent-To: r@x\nResent-To: old@x\nTo: a@x\n\n");
        assert_eq!(named, [b"r@x"]);
    }
}
