//! What is wrong with a script, and where.

use std::fmt;
use std::rc::Rc;

/// A script's text and the name that messages use for it.
#[derive(Debug)]
pub struct Source {
    /// File name, or what stands for it.
    pub name: String,
    /// Its bytes.
    pub text: Vec<u8>,
}

impl Source {
    /// A source.
    #[must_use]
    pub fn new(name: &str, text: &[u8]) -> Rc<Self> {
        Rc::new(Self {
            name: name.to_owned(),
            text: text.to_vec(),
        })
    }

    /// Line and column of a place, both from 1; the column counts bytes.
    #[must_use]
    pub fn line_column(&self, at: usize) -> (usize, usize) {
        let at = at.min(self.text.len());
        let before = &self.text[..at];
        let line = memchr::memchr_iter(b'\n', before).count() + 1;
        let start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
        (line, at - start + 1)
    }

    fn line(&self, at: usize) -> &[u8] {
        let at = at.min(self.text.len());
        let start = memchr::memrchr(b'\n', &self.text[..at]).map_or(0, |newline| newline + 1);
        let end =
            memchr::memchr(b'\n', &self.text[at..]).map_or(self.text.len(), |newline| at + newline);
        &self.text[start..end]
    }
}

/// An error or a warning about a place in a script.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// The script.
    pub source: Rc<Source>,
    /// Offset of the place.
    pub at: usize,
    /// What is wrong.
    pub message: String,
    /// What would be right; empty: nothing to say.
    pub hint: String,
}

impl Diagnostic {
    /// An error at a place.
    #[must_use]
    pub fn new(source: &Rc<Source>, at: usize, message: impl Into<String>) -> Self {
        Self {
            source: Rc::clone(source),
            at,
            message: message.into(),
            hint: String::new(),
        }
    }

    /// With a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// `file:line:column`.
    #[must_use]
    pub fn place(&self) -> String {
        let (line, column) = self.source.line_column(self.at);
        format!("{}:{line}:{column}", self.source.name)
    }
}

/// Longest piece of a line that is shown.
const SHOWN_BYTES_MAX: usize = 160;

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.place(), self.message)?;
        let (_, column) = self.source.line_column(self.at);
        let line = self.source.line(self.at);
        let from = column.saturating_sub(1).saturating_sub(SHOWN_BYTES_MAX / 2);
        let shown = &line[from..line.len().min(from + SHOWN_BYTES_MAX)];
        let text =
            String::from_utf8_lossy(shown).replace(|c: char| c.is_control() && c != '\t', "?");
        writeln!(f, "    {text}")?;
        let before = &shown[..(column - 1 - from).min(shown.len())];
        let pad: String = String::from_utf8_lossy(before)
            .chars()
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        write!(f, "    {pad}^")?;
        if !self.hint.is_empty() {
            write!(f, "\n    hint: {}", self.hint)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_place() {
        let source = Source::new("r.cf", b"a\n\tb c\nd");
        let text = Diagnostic::new(&source, 5, "no").hint("yes").to_string();
        assert_eq!(text, "r.cf:2:4: no\n    \tb c\n    \t  ^\n    hint: yes");
    }

    #[test]
    fn a_place_behind_the_end_is_the_end() {
        let source = Source::new("r.cf", b"ab");
        assert_eq!(Diagnostic::new(&source, 99, "x").place(), "r.cf:1:3");
    }
}
