//! RFC 822 tokens as `tsift` sees them.

use std::ops::Range;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenKind {
    Plain,
    Blank,
    Quoted,
    Comment,
    DomainLiteral,
}

#[derive(Clone, Copy, Debug)]
struct Token {
    kind: TokenKind,
    start: u32,
    end: u32,
}

/// The tokens of one text. A quoted string, a domain literal, a comment, a run of blanks, a special character and a
/// backslash with what it quotes are one token each; everything between is an atom. What is never closed reaches to
/// the end. Any text has tokens; the scan is linear.
#[derive(Default)]
pub struct Tokens<'a> {
    input: std::borrow::Cow<'a, [u8]>,
    tokens: Vec<Token>,
}

/// Characters that are tokens of their own.
const SPECIALS: &[u8] = b"<>@,;:\\.%!)]";

impl Tokens<'_> {
    /// Takes the tokens of `input` instead of what it held.
    pub fn scan(&mut self, input: &[u8]) {
        let own = self.input.to_mut();
        own.clear();
        own.extend_from_slice(input);
        self.tokens.clear();
        let mut at = 0;
        while at < input.len() {
            let (kind, end) = token(input, at);
            self.tokens.push(Token {
                kind,
                start: at as u32,
                end: end as u32,
            });
            at = end;
        }
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Whether the token is `[...]` and still has its brackets.
    #[must_use]
    pub fn is_domain_literal(&self, at: usize) -> bool {
        self.tokens[at].kind == TokenKind::DomainLiteral
    }

    /// From now on the token is what stands between its brackets.
    pub(super) fn take_brackets(&mut self, at: usize) {
        let token = &mut self.tokens[at];
        if token.kind == TokenKind::DomainLiteral {
            *token = Token {
                kind: TokenKind::Plain,
                ..inner(*token, &self.input)
            };
        }
    }

    /// What a literal of a pattern must spell: quotes, brackets and parentheses do not count.
    #[must_use]
    pub fn match_text(&self, at: usize) -> &[u8] {
        let token = inner(self.tokens[at], &self.input);
        &self.input[token.start as usize..token.end as usize]
    }

    /// Appends the text of a range: quoted strings and domain literals as they stood, comments without their
    /// parentheses.
    pub fn text(&self, range: Range<usize>, output: &mut Vec<u8>) {
        for token in &self.tokens[range] {
            let token = match token.kind {
                TokenKind::Comment => inner(*token, &self.input),
                _ => *token,
            };
            output.extend_from_slice(&self.input[token.start as usize..token.end as usize]);
        }
    }
}

/// Without what encloses it.
fn inner(token: Token, input: &[u8]) -> Token {
    let close = match token.kind {
        TokenKind::Quoted => b'"',
        TokenKind::Comment => b')',
        TokenKind::DomainLiteral => b']',
        TokenKind::Plain | TokenKind::Blank => return token,
    };
    let closed = token.end - token.start >= 2 && input[token.end as usize - 1] == close;
    Token {
        start: token.start + 1,
        end: token.end - u32::from(closed),
        ..token
    }
}

fn token(input: &[u8], at: usize) -> (TokenKind, usize) {
    match input[at] {
        b' ' | b'\t' | b'\n' | b'\r' => {
            let blank = |byte: &&u8| b" \t\r\n".contains(byte);
            let run = input[at..].iter().take_while(blank).count();
            (TokenKind::Blank, at + run)
        }
        b'"' => (TokenKind::Quoted, closing(input, at, b'"')),
        b'[' => (TokenKind::DomainLiteral, closing(input, at, b']')),
        b'(' => (TokenKind::Comment, comment_end(input, at)),
        b'\\' => {
            let special = |byte: &u8| b" \t\n\r\"[(".contains(byte) || SPECIALS.contains(byte);
            let quoted = input.get(at + 1).is_some_and(special);
            (TokenKind::Plain, at + 1 + usize::from(quoted))
        }
        b':' if input.get(at + 1) == Some(&b':') => (TokenKind::Plain, at + 2),
        byte if SPECIALS.contains(&byte) => (TokenKind::Plain, at + 1),
        _ => {
            let atom = |byte: &&u8| !b" \t\r\n\"[(".contains(byte) && !SPECIALS.contains(byte);
            let run = input[at..].iter().take_while(atom).count();
            (TokenKind::Plain, at + run)
        }
    }
}

/// The place behind the closing character; a backslash quotes what follows.
fn closing(input: &[u8], at: usize, close: u8) -> usize {
    let mut here = at + 1;
    while here < input.len() {
        match input[here] {
            b'\\' => here += 1,
            byte if byte == close => return here + 1,
            _ => {}
        }
        here += 1;
    }
    input.len()
}

/// Comments nest.
fn comment_end(input: &[u8], at: usize) -> usize {
    let mut here = at;
    let mut depth = 0usize;
    while here < input.len() {
        match input[here] {
            b'\\' => here += 1,
            b'(' => depth += 1,
            b')' if depth == 1 => return here + 1,
            b')' => depth -= 1,
            _ => {}
        }
        here += 1;
    }
    input.len()
}
