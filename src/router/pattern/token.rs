//! RFC 822 tokens as `tsift` sees them.

use std::ops::Range;

use crate::mail::token::{self, Kind};

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
    /// What encloses it ends it, too.
    closed: bool,
}

/// The tokens of one text, as [`crate::mail::token`] finds them; blanks and line ends beside each other are one.
#[derive(Default)]
pub struct Tokens<'a> {
    input: std::borrow::Cow<'a, [u8]>,
    tokens: Vec<Token>,
}

impl Tokens<'_> {
    /// Takes the tokens of `input` instead of what it held.
    pub fn scan(&mut self, input: &[u8]) {
        let own = self.input.to_mut();
        own.clear();
        own.extend_from_slice(input);
        self.tokens.clear();
        for found in token::tokens(input) {
            let kind = match found.kind {
                Kind::Atom | Kind::Special | Kind::Control => TokenKind::Plain,
                Kind::Space | Kind::Fold => TokenKind::Blank,
                Kind::Quoted => TokenKind::Quoted,
                Kind::Comment => TokenKind::Comment,
                Kind::Literal => TokenKind::DomainLiteral,
            };
            if kind == TokenKind::Blank
                && let Some(last) = self.tokens.last_mut()
                && last.kind == TokenKind::Blank
            {
                last.end = found.end as u32;
                continue;
            }
            self.tokens.push(Token {
                kind,
                start: found.start as u32,
                end: found.end as u32,
                closed: found.closed,
            });
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
                ..inner(*token)
            };
        }
    }

    /// What a literal of a pattern must spell: quotes, brackets and parentheses do not count.
    #[must_use]
    pub fn match_text(&self, at: usize) -> &[u8] {
        let token = inner(self.tokens[at]);
        &self.input[token.start as usize..token.end as usize]
    }

    /// Appends the text of a range: quoted strings and domain literals as they stood, comments without their
    /// parentheses.
    pub fn text(&self, range: Range<usize>, output: &mut Vec<u8>) {
        for token in &self.tokens[range] {
            let token = match token.kind {
                TokenKind::Comment => inner(*token),
                _ => *token,
            };
            output.extend_from_slice(&self.input[token.start as usize..token.end as usize]);
        }
    }
}

/// Without what encloses it.
fn inner(token: Token) -> Token {
    match token.kind {
        TokenKind::Plain | TokenKind::Blank => token,
        TokenKind::Quoted | TokenKind::Comment | TokenKind::DomainLiteral => Token {
            start: token.start + 1,
            end: token.end - u32::from(token.closed),
            ..token
        },
    }
}
