//! Header fields (RFC 5322 2.2, 3.4) of a message whose lines end with LF or CR LF: finding fields,
//! the addresses they name.
//!
//! Nothing here fails: what cannot be understood is handed back as it is, since the header of a
//! submitted message is whatever a user typed.

use std::collections::HashSet;

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
pub fn recipients(message: &[u8]) -> List {
    let resent = ["Resent-To", "Resent-Cc", "Resent-Bcc"];
    let plain = ["To", "Cc", "Bcc"];
    let has_resent = fields(message).any(|field| resent.iter().any(|name| field.is(name)));
    let names = if has_resent { resent } else { plain };
    let mut fields_seen = Vec::new();
    let mut seen = HashSet::new();
    let mut all = List::default();
    for field in fields(message).filter(|field| names.iter().any(|name| field.is(name))) {
        // Of several Resent- blocks only the first counts.
        if has_resent
            && fields_seen
                .iter()
                .any(|name: &Vec<u8>| field.name.eq_ignore_ascii_case(name))
        {
            continue;
        }
        fields_seen.push(field.name.to_vec());
        let list = addresses(field.value);
        all.doubtful.extend(list.doubtful);
        for address in list.addresses {
            if seen.insert(address.clone()) {
                all.addresses.push(address);
            }
        }
    }
    all
}

/// What an address list names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Addresses without display names, brackets and source routes.
    pub addresses: Vec<Vec<u8>>,
    /// Members of the list of which nobody can say whom they mean, as they stand there. Mail must not
    /// go to a guess.
    pub doubtful: Vec<Vec<u8>>,
}

impl List {
    /// The address, if the list is one address and nothing else.
    #[must_use]
    pub fn single(mut self) -> Option<Vec<u8>> {
        let alone = self.addresses.len() == 1 && self.doubtful.is_empty();
        self.addresses.pop().filter(|_| alone)
    }
}

/// The addresses of an address list (RFC 5322 3.4): display names, comments, groups and source
/// routes are left out. A word without `@` is a local user.
#[must_use]
pub fn addresses(list: &[u8]) -> List {
    let mut reader = Reader {
        text: list,
        at: 0,
        from: 0,
        found: List::default(),
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
    /// Where the member under way begins.
    from: usize,
    found: List,
    /// Words of the address under way that stand outside brackets.
    plain: Vec<Vec<u8>>,
    /// Words of it that stand in brackets.
    bracketed: Option<Vec<Vec<u8>>>,
}

impl Reader<'_> {
    fn read(&mut self) {
        while let Some(byte) = self.text.get(self.at).copied() {
            match byte {
                b'(' => {
                    self.comment();
                    self.plain.push(Vec::new());
                }
                b'"' => {
                    let word = self.quoted();
                    self.add(&word);
                }
                b'<' => {
                    if self.bracketed.is_some() {
                        // A comma was forgotten; what is in brackets is clear all the same.
                        self.end(self.at);
                    }
                    self.bracketed = Some(self.bracket());
                }
                b'[' => {
                    let word = self.until(b']');
                    self.add(&word);
                }
                b',' | b';' => {
                    self.end(self.at);
                    self.at += 1;
                    self.from = self.at;
                }
                // A group's name.
                b':' => {
                    self.at += 1;
                    self.from = self.at;
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
        self.end(self.text.len());
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

    /// What stands in angle brackets, by words; comments and a source route are left out.
    fn bracket(&mut self) -> Vec<Vec<u8>> {
        self.at += 1;
        let mut words = vec![Vec::new()];
        while let Some(byte) = self.text.get(self.at).copied() {
            match byte {
                b'>' => {
                    self.at += 1;
                    break;
                }
                b'(' => {
                    self.comment();
                    words.push(Vec::new());
                }
                b'"' => {
                    let word = self.quoted();
                    extend_last(&mut words, &word);
                }
                _ => {
                    self.at += 1;
                    if byte.is_ascii_whitespace() {
                        words.push(Vec::new());
                    } else {
                        extend_last(&mut words, &[byte]);
                    }
                }
            }
        }
        words
    }

    /// The end of one member of the list.
    fn end(&mut self, to: usize) {
        let words = std::mem::take(&mut self.plain);
        let address = match self.bracketed.take() {
            Some(words) => joined(&words).map(without_route),
            None => joined(&words),
        };
        match address {
            Some(address) if address.is_empty() => {}
            Some(address) => self.found.addresses.push(address),
            None => {
                let text = self.text.get(self.from..to).unwrap_or_default();
                self.found.doubtful.push(text.trim_ascii().to_vec());
            }
        }
        self.from = to;
    }
}

fn extend_last(words: &mut [Vec<u8>], bytes: &[u8]) {
    if let Some(word) = words.last_mut() {
        word.extend_from_slice(bytes);
    }
}

/// Words as one address. White space may stand around `@` and `.` only (RFC 5322 4.4), as in
/// `joe @ example.org`; of `joe doe` nobody knows what is meant.
fn joined(words: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut address: Vec<u8> = Vec::new();
    for word in words.iter().filter(|word| !word.is_empty()) {
        let glued = |byte: Option<&u8>| matches!(byte, Some(b'@' | b'.' | b':' | b','));
        if !address.is_empty() && !glued(address.last()) && !glued(word.first()) {
            return None;
        }
        address.extend_from_slice(word);
    }
    Some(address)
}

fn without_route(mut address: Vec<u8>) -> Vec<u8> {
    match address.iter().position(|byte| *byte == b':') {
        Some(colon) if address.starts_with(b"@") => address.split_off(colon + 1),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        addresses(text.as_bytes())
            .addresses
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
            ("<never.closed@x.test", &["never.closed@x.test"]),
            ("<one@x.test> <two@x.test>", &["one@x.test", "two@x.test"]),
            ("(never closed", &[]),
            ("\"never closed\\", &["\"never closed\\"]),
        ];
        for (text, expected) in cases {
            assert_eq!(list(text), *expected, "{text}");
        }
    }

    /// `a b@x.test` was taken for `ab@x.test`, who is somebody else.
    #[test]
    fn what_nobody_can_understand_is_handed_back() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("joe doe, a@x.test", &["a@x.test"], &["joe doe"]),
            ("a b@x.test", &[], &["a b@x.test"]),
            ("Joe <a b@x.test>, c", &["c"], &["Joe <a b@x.test>"]),
            ("Joe joe@x.test", &[], &["Joe joe@x.test"]),
            ("G: joe doe, a@x.test;", &["a@x.test"], &["joe doe"]),
            ("joe(his)name@x.test", &[], &["joe(his)name@x.test"]),
            ("a @ x . test", &["a@x.test"], &[]),
        ];
        for (text, good, bad) in cases {
            let found = addresses(text.as_bytes());
            let shown = |list: &[Vec<u8>]| -> Vec<String> {
                let texts = list.iter().map(|one| String::from_utf8_lossy(one));
                texts.map(std::borrow::Cow::into_owned).collect()
            };
            assert_eq!(shown(&found.addresses), *good, "{text}");
            assert_eq!(shown(&found.doubtful), *bad, "{text}");
        }
        assert_eq!(addresses(b"a@x").single().as_deref(), Some(&b"a@x"[..]));
        assert_eq!(addresses(b"a@x, b@x").single(), None);
        assert_eq!(addresses(b"a@x, b c").single(), None);
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
        let named = recipients(b"To: a@x\nCc: b@x, a@x\nBcc: c@x\n\n").addresses;
        assert_eq!(named, [b"a@x", b"b@x", b"c@x"]);
        let named = recipients(b"Resent-To: r@x\nResent-To: old@x\nTo: a@x\n\n").addresses;
        assert_eq!(named, [b"r@x"]);
    }
}
