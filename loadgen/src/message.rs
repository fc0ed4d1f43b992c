//! Messages with an identity: `X-Loadgen: number sum` in the header, lines that exercise dots.
//!
//! Content is produced in pieces of at most [`PIECE`] bytes, so a message of any size costs no more
//! memory than one piece. The body is a line of its own and then text out of a [`Book`]; the sum is
//! XXH3 over the body without dot-stuffing, and costs a second pass over the pieces.

use xxhash_rust::xxh3::Xxh3;

use crate::distribution::{Purpose, Random};

/// Bytes that are produced, sent and received at a time.
pub(crate) const PIECE: usize = 64 << 10;

/// Name of the field with the identity.
pub(crate) const FIELD: &[u8] = b"X-Loadgen: ";

/// The address of a recipient; [`parse_recipient`] is the inverse.
pub(crate) fn recipient(number: u64, index: u32, domain: &str) -> String {
    format!("r{index}.{number}@{domain}")
}

/// Number of the message and index of the recipient in `r1.17@anywhere`.
pub(crate) fn parse_recipient(address: &[u8]) -> Option<(u64, u32)> {
    let text = std::str::from_utf8(address).ok()?;
    let (index, number) = text.strip_prefix('r')?.split_once('@')?.0.split_once('.')?;
    Some((number.parse().ok()?, index.parse().ok()?))
}

/// Lines that all bodies are cut from.
#[derive(Debug)]
pub(crate) struct Book {
    text: Vec<u8>,
    line_starts: Vec<usize>,
}

impl Book {
    /// Every ninth line or so begins with a dot, or is nothing but one.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, Purpose::Content, u64::MAX);
        let (mut text, mut line_starts) = (Vec::with_capacity(PIECE), Vec::new());
        while text.len() < PIECE - 128 {
            line_starts.push(text.len());
            let value = random.draw();
            let line = match value % 32 {
                0 => ".\r\n".to_owned(),
                1 => "\r\n".to_owned(),
                2 | 3 => format!("..{value:016x}\r\n"),
                4 => format!(".{value:016x}\r\n"),
                _ => format!("{value:016x} lorem ipsum dolor sit amet consectetur\r\n"),
            };
            text.extend_from_slice(line.as_bytes());
        }
        Self { text, line_starts }
    }
}

/// The content of one message, with CR LF line ends, not dot-stuffed, piece by piece.
#[derive(Debug)]
pub(crate) struct Content<'a> {
    header: Option<String>,
    body: Body<'a>,
    len: u64,
}

impl<'a> Content<'a> {
    /// `size` counts the header; what is smaller than the header and one line becomes as small as
    /// that.
    pub(crate) fn new(book: &'a Book, seed: u64, number: u64, size: u64) -> Self {
        let header = |sum: u64| {
            format!(
                "From: <source@loadgen.example>\r\nSubject: {number}\r\nX-Loadgen: {number} {sum:016x}\r\n\r\n"
            )
        };
        let body = Body::new(
            book,
            seed,
            number,
            size.saturating_sub(header(0).len() as u64),
        );
        let header = header(body.clone().sum());
        Self {
            len: header.len() as u64 + body.left,
            header: Some(header),
            body,
        }
    }

    /// Bytes altogether.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Appends the next piece; whether more will follow.
    pub(crate) fn piece(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some(header) = self.header.take() {
            out.extend_from_slice(header.as_bytes());
        }
        self.body.piece(out);
        self.body.left > 0
    }
}

#[derive(Clone, Debug)]
struct Body<'a> {
    book: &'a Book,
    /// The line that no other message has.
    own: Option<String>,
    at: usize,
    left: u64,
}

impl<'a> Body<'a> {
    fn new(book: &'a Book, seed: u64, number: u64, size: u64) -> Self {
        let mut random = Random::new(seed, Purpose::Content, number);
        let own = format!("{number:016x} {:016x}\r\n", random.draw());
        let line = random.draw() as usize % book.line_starts.len();
        Self {
            book,
            at: book.line_starts[line],
            left: size.max(own.len() as u64),
            own: Some(own),
        }
    }

    fn piece(&mut self, out: &mut Vec<u8>) {
        let mut wanted = self.left.min(PIECE as u64);
        if self.left - wanted < TAIL {
            // The end is put right in the piece that holds it, so it may not be cut.
            wanted = self.left;
        }
        let end = out.len() + wanted as usize;
        self.left -= wanted;
        if let Some(own) = self.own.take() {
            out.extend_from_slice(own.as_bytes());
        }
        while out.len() < end {
            let page = &self.book.text[self.at..];
            let taken = page.len().min(end - out.len());
            out.extend_from_slice(&page[..taken]);
            self.at = (self.at + taken) % self.book.text.len();
        }
        if self.left == 0 {
            end_line(out);
        }
    }

    fn sum(mut self) -> u64 {
        let (mut hash, mut piece) = (Xxh3::new(), Vec::new());
        while self.left > 0 {
            piece.clear();
            self.piece(&mut piece);
            hash.update(&piece);
        }
        hash.digest()
    }
}

/// Bytes at the end that [`end_line`] may change.
const TAIL: u64 = 3;

/// Makes the last two bytes CR LF, wherever in a line the text was cut, and leaves no bare CR.
fn end_line(out: &mut [u8]) {
    if let [.., before, cr, lf] = out {
        (*cr, *lf) = (b'\r', b'\n');
        if *before == b'\r' {
            *before = b'x';
        }
    }
}

/// Doubles dots at line starts, across pieces (RFC 5321 4.5.2). All line ends are CR LF.
#[derive(Debug)]
pub(crate) struct Stuffer {
    at_line_start: bool,
}

impl Stuffer {
    pub(crate) fn new() -> Self {
        Self {
            at_line_start: true,
        }
    }

    pub(crate) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        if self.at_line_start && piece.starts_with(b".") {
            out.push(b'.');
        }
        let mut start = 0;
        for at in memchr::memmem::find_iter(piece, b"\n.") {
            out.extend_from_slice(&piece[start..=at]);
            out.push(b'.');
            start = at + 1;
        }
        out.extend_from_slice(&piece[start..]);
        if let Some(last) = piece.last() {
            self.at_line_start = *last == b'\n';
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The whole content of a message.
    pub(crate) fn whole(number: u64, size: u64) -> Vec<u8> {
        let book = Book::new(1);
        let mut content = Content::new(&book, 1, number, size);
        let mut out = Vec::new();
        while content.piece(&mut out) {}
        assert_eq!(out.len() as u64, content.len());
        out
    }

    #[test]
    fn every_size_is_exact_and_every_line_ends_with_cr_lf() {
        let sizes = (0..400).chain([PIECE as u64, (PIECE as u64) * 2 + 1, 1_000_003]);
        for size in sizes {
            let text = whole(size * 31, size);
            if size > 160 {
                assert_eq!(text.len() as u64, size);
            }
            assert!(text.ends_with(b"\r\n"), "{size}");
            let ends = memchr::memmem::find_iter(&text, b"\r\n").count();
            assert_eq!(memchr::memchr_iter(b'\r', &text).count(), ends, "{size}");
            assert_eq!(memchr::memchr_iter(b'\n', &text).count(), ends, "{size}");
        }
    }

    #[test]
    fn sizes_around_the_end_of_a_piece_are_exact() {
        for size in PIECE as u64 - 5..PIECE as u64 + 200 {
            assert_eq!(whole(3, size).len() as u64, size);
        }
    }

    #[test]
    fn stuffing_doubles_leading_dots_only_however_it_is_cut() {
        let text = b".a\r\n..b\r\nc.d\r\n.\r\n";
        for cut in 0..=text.len() {
            let (mut stuffer, mut out) = (Stuffer::new(), Vec::new());
            stuffer.push(&text[..cut], &mut out);
            stuffer.push(&text[cut..], &mut out);
            assert_eq!(out, b"..a\r\n...b\r\nc.d\r\n..\r\n", "cut at {cut}");
        }
    }

    #[test]
    fn an_address_gives_back_what_it_was_made_of() {
        let address = recipient(17, 3, "d4.example");
        assert_eq!(parse_recipient(address.as_bytes()), Some((17, 3)));
        for other in ["source@loadgen.example", "r1@x", "r.1@x", "rx.y@z", ""] {
            assert_eq!(parse_recipient(other.as_bytes()), None, "{other}");
        }
    }
}
