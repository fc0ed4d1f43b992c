//! The parser's place in the text, its errors, and the way to go on behind one.

use std::rc::Rc;

use super::ast::{At, Block, Word};
use super::here::Pending;
use crate::router::diagnostic::{Diagnostic, Source};

/// Deepest nesting of commands, words and lists.
const DEPTH_MAX: usize = 100;

/// Errors of one script that are reported; further ones are not looked for.
const ERRORS_MAX: usize = 50;

/// Longest script.
const SCRIPT_BYTES_MAX: usize = 16 << 20;

/// A script's tree.
#[derive(Debug)]
pub struct Parsed {
    /// What it runs.
    pub block: Block,
    /// The texts of its `<<` redirections.
    pub here_texts: Vec<Word>,
}

/// Parses a whole script.
///
/// # Errors
/// All errors found.
pub fn parse(source: &Rc<Source>) -> Result<Parsed, Vec<Diagnostic>> {
    if source.text.len() > SCRIPT_BYTES_MAX {
        return Err(vec![Diagnostic::new(
            source,
            0,
            "the script is longer than 16 MiB",
        )]);
    }
    let mut parser = Parser::new(source);
    let mut errors = Vec::new();
    let mut block = Vec::new();
    while errors.len() < ERRORS_MAX {
        match parser.script(&mut block) {
            Ok(()) => break,
            Err(error) => {
                errors.push(*error);
                parser.recover();
            }
        }
    }
    if errors.is_empty() {
        Ok(Parsed {
            block,
            here_texts: parser.here_texts,
        })
    } else {
        Err(errors)
    }
}

/// Whether a text is wrong only because its end is missing: more of it may make it right.
#[must_use]
pub fn is_incomplete(source: &Rc<Source>) -> bool {
    let mut parser = Parser::new(source);
    let failed = parser.script(&mut Vec::new()).is_err();
    failed && (parser.at >= parser.text.len() || parser.quote_open)
}

/// A place in the text, and what surrounds it.
pub(super) struct Parser<'a> {
    pub(super) source: &'a Rc<Source>,
    pub(super) text: &'a [u8],
    pub(super) at: usize,
    depth: usize,
    /// Inside `` `...` ``, where a backquote ends what it stands in.
    pub(super) backquotes: bool,
    /// Inside double quotes, where a double quote ends an operand.
    pub(super) in_quotes: bool,
    /// `<<` whose text begins behind the next newline.
    pub(super) pending: Vec<Pending>,
    pub(super) here_texts: Vec<Word>,
    /// Open `{`: an error inside is left at the `}` that begins a line.
    pub(super) braces: usize,
    /// An apostrophe is open at the end.
    pub(super) quote_open: bool,
    /// There was an error in a command: what closes nothing may belong to it.
    recovered: bool,
    /// The error is something that closes nothing.
    stray: bool,
}

/// What a rule returns.
pub(super) type Rule<T> = Result<T, Box<Diagnostic>>;

impl<'a> Parser<'a> {
    fn new(source: &'a Rc<Source>) -> Self {
        Self {
            source,
            text: &source.text,
            at: 0,
            depth: 0,
            backquotes: false,
            in_quotes: false,
            pending: Vec::new(),
            here_texts: Vec::new(),
            braces: 0,
            quote_open: false,
            recovered: false,
            stray: false,
        }
    }
}

impl Parser<'_> {
    fn script(&mut self, block: &mut Block) -> Rule<()> {
        loop {
            self.block_into(block)?;
            match self.peek() {
                None => return self.end_of_text(),
                Some(b';') if self.looking_at(b";;") => self.at += 2,
                // What is left of a command that had an error.
                Some(_) if self.recovered => self.skip_line(),
                Some(_) => {
                    self.stray = true;
                    let message = format!("{} closes nothing", self.found());
                    return Err(self.error(message).into());
                }
            }
        }
    }

    /// A text that was announced must be there.
    fn end_of_text(&mut self) -> Rule<()> {
        match self.pending.first() {
            None => Ok(()),
            Some(pending) => Err(self
                .error_at(pending.at, "the text of '<<' is missing")
                .into()),
        }
    }

    /// To the next line that can begin something.
    fn recover(&mut self) {
        let inside = self.braces > 0;
        self.braces = 0;
        self.depth = 0;
        self.backquotes = false;
        self.in_quotes = false;
        self.pending.clear();
        self.recovered |= !std::mem::take(&mut self.stray);
        while self.at < self.text.len() {
            self.skip_line();
            if !inside {
                return;
            }
            if self.peek() == Some(b'}') {
                self.at += 1;
                return;
            }
        }
    }

    fn skip_line(&mut self) {
        let line_end = memchr::memchr(b'\n', &self.text[self.at..]);
        self.at = line_end.map_or(self.text.len(), |newline| self.at + newline + 1);
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    pub(super) fn peek_at(&self, distance: usize) -> Option<u8> {
        self.text.get(self.at + distance).copied()
    }

    pub(super) fn looking_at(&self, text: &[u8]) -> bool {
        self.text[self.at..].starts_with(text)
    }

    /// Takes the text when it stands here.
    pub(super) fn take(&mut self, text: &[u8]) -> bool {
        let there = self.looking_at(text);
        if there {
            self.at += text.len();
        }
        there
    }

    pub(super) fn here(&self) -> At {
        u32::try_from(self.at).unwrap_or(u32::MAX)
    }

    pub(super) fn error(&self, message: impl Into<String>) -> Diagnostic {
        self.error_at(self.here(), message)
    }

    pub(super) fn error_at(&self, at: At, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.source, at as usize, message)
    }

    /// What stands here, for a message.
    pub(super) fn found(&self) -> String {
        match self.peek() {
            None => "the end".to_owned(),
            Some(b'\n') => "the end of the line".to_owned(),
            Some(byte) if byte.is_ascii_alphabetic() => {
                format!("'{}'", String::from_utf8_lossy(self.name_here()))
            }
            Some(byte) => format!("'{}'", char::from(byte).escape_default()),
        }
    }

    /// One level deeper.
    pub(super) fn nested<T>(&mut self, rule: impl FnOnce(&mut Self) -> Rule<T>) -> Rule<T> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self
                .error(format!("more than {DEPTH_MAX} levels of nesting"))
                .into());
        }
        let result = rule(self);
        self.depth -= 1;
        result
    }

    /// A line of the surrounding text, for a hint.
    pub(super) fn line_of(&self, at: At) -> usize {
        self.source.line_column(at as usize).0
    }

    /// Blanks, and a backslash with the newline behind it.
    pub(super) fn skip_blanks(&mut self) {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\r') => self.at += 1,
                Some(b'\\') if self.peek_at(1) == Some(b'\n') => self.at += 2,
                _ => return,
            }
        }
    }

    /// A comment, up to its newline.
    pub(super) fn skip_comment(&mut self) {
        if self.peek() == Some(b'#') {
            let end = memchr::memchr(b'\n', &self.text[self.at..]);
            self.at = end.map_or(self.text.len(), |newline| self.at + newline);
        }
    }

    /// Blanks, comments and newlines, with the `<<` texts that follow a newline.
    pub(super) fn skip_lines(&mut self) -> Rule<()> {
        loop {
            self.skip_blanks();
            match self.peek() {
                Some(b'#') => self.skip_comment(),
                Some(b'\n') => self.newline()?,
                _ => return Ok(()),
            }
        }
    }

    /// Takes a newline and the `<<` texts that wait for it.
    pub(super) fn newline(&mut self) -> Rule<()> {
        self.at += 1;
        for pending in std::mem::take(&mut self.pending) {
            self.here_text(&pending)?;
        }
        Ok(())
    }

    /// The name that stands here; empty: none.
    pub(super) fn name_here(&self) -> &[u8] {
        let rest = &self.text[self.at..];
        if !rest.first().is_some_and(u8::is_ascii_alphabetic) {
            return b"";
        }
        let end = rest
            .iter()
            .position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'));
        &rest[..end.unwrap_or(rest.len())]
    }

    /// Takes the name that stands here.
    pub(super) fn name(&mut self) -> Option<Box<[u8]>> {
        let name: Box<[u8]> = self.name_here().into();
        self.at += name.len();
        (!name.is_empty()).then_some(name)
    }

    /// Whether this keyword stands here as a word of its own.
    pub(super) fn at_keyword(&self, keyword: &[u8]) -> bool {
        if self.name_here() != keyword {
            return false;
        }
        matches!(
            self.peek_at(keyword.len()),
            None | Some(
                b' ' | b'\t'
                    | b'\r'
                    | b'\n'
                    | b';'
                    | b'|'
                    | b'&'
                    | b'<'
                    | b'>'
                    | b'('
                    | b')'
                    | b'{'
                    | b'}'
                    | b'`'
                    | b'#'
                    | b'\\'
            )
        )
    }

    /// Takes a keyword that must stand here.
    pub(super) fn expect_keyword(&mut self, keyword: &str, opened: (&str, At)) -> Rule<()> {
        self.skip_lines()?;
        if self.at_keyword(keyword.as_bytes()) {
            self.at += keyword.len();
            return Ok(());
        }
        let message = format!("'{keyword}' expected, not {}", self.found());
        let hint = format!(
            "the '{}' of line {} is still open",
            opened.0,
            self.line_of(opened.1)
        );
        Err(self.error(message).hint(hint).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_its_end_is_not_wrong_yet() {
        let incomplete = |text: &str| is_incomplete(&Source::new("t", text.as_bytes()));
        for text in [
            "if true\n",
            "f (a)\n",
            "f () {\n",
            "for i in a b; do\n",
            "case $x in\n",
            "case $x in a) echo\n",
            "ssift $x in\n",
            "ssift $x in\na\tb ;;\n",
            "echo 'a\n",
            "echo \"a\n",
            "x=(a b\n",
            "x=$(a\n",
            "x=`a\n",
            "a |\n",
            "a &&\n",
            "( a\n",
            "cat <<E\na\n",
            "cat <<E\n",
        ] {
            assert!(incomplete(text), "{text}");
        }
        for text in [
            "a\n",
            "}\n",
            "if then\n",
            "echo >\n",
            "f (a b) {\n",
            "x=(a;\n",
            "",
            "echo ${a b}\n",
        ] {
            assert!(!incomplete(text), "{text}");
        }
    }
}
