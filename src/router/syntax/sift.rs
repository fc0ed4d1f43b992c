//! `ssift ... tfiss` and `tsift ... tfist`.

use super::ast::{At, CommandKind, Part, Rule as SiftRule, Word};
use super::cursor::{Parser, Rule};
use crate::router::pattern::{Kind, Pattern};

/// Words that cannot be labels: they show that the end of the sift is missing.
const MISPLACED: &[&[u8]] = &[b"done", b"elif", b"else", b"esac", b"fi", b"in"];

impl Parser<'_> {
    pub(super) fn sift_command(&mut self, kind: Kind, at: At) -> Rule<CommandKind> {
        let (name, end) = match kind {
            Kind::Bytes => ("ssift", "tfiss"),
            Kind::Tokens => ("tsift", "tfist"),
        };
        self.skip_blanks();
        let word = self.word()?;
        self.expect_keyword("in", (name, at))?;
        let mut rules = Vec::new();
        loop {
            self.skip_lines()?;
            if self.at_keyword(end.as_bytes()) {
                self.at += end.len();
                return Ok(CommandKind::Sift { kind, word, rules });
            }
            self.check_label(end, (name, at))?;
            rules.push(self.rule(kind, end, (name, at))?);
        }
    }

    fn check_label(&self, end: &str, opened: (&str, At)) -> Rule<()> {
        let misplaced = MISPLACED.iter().any(|word| self.at_keyword(word));
        let other_end = [&b"tfiss"[..], b"tfist", b"tfis"]
            .iter()
            .any(|word| self.at_keyword(word));
        if self.peek().is_some() && !misplaced && !other_end && self.peek() != Some(b'}') {
            return Ok(());
        }
        let message = format!("'{end}' expected, not {}", self.found());
        let hint = format!(
            "the '{}' of line {} is still open",
            opened.0,
            self.line_of(opened.1)
        );
        Err(self.error(message).hint(hint).into())
    }

    fn rule(&mut self, kind: Kind, end: &str, opened: (&str, At)) -> Rule<SiftRule> {
        let at = self.here();
        let label = self.label()?;
        self.check_pattern(kind, &label)?;
        let body = self.block()?;
        // The last one may lack it.
        if !self.take(b";;") && !self.at_keyword(end.as_bytes()) {
            let message = format!(
                "';;' expected behind the body of a label, not {}",
                self.found()
            );
            let hint = format!(
                "the '{}' of line {} is still open",
                opened.0,
                self.line_of(opened.1)
            );
            return Err(self.error(message).hint(hint).into());
        }
        Ok(SiftRule { at, label, body })
    }

    /// A label: up to a blank or newline; quotes protect blanks, `$` expands, `\` stays for the pattern.
    fn label(&mut self) -> Rule<Word> {
        let mut word = Word {
            at: self.here(),
            parts: Vec::new(),
        };
        let mut text = Vec::new();
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => break,
                b'\'' | b'"' => self.quoted_label(byte, &mut text)?,
                b'\\' => {
                    text.push(byte);
                    self.at += 1;
                    if let Some(next) = self.peek().filter(|next| *next != b'\n') {
                        text.push(next);
                        self.at += 1;
                    }
                }
                b'$' => {
                    self.flush(&mut text, &mut word, true);
                    let part = self.expansion(true, &mut text)?;
                    word.parts.extend(part);
                }
                _ => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
        self.flush(&mut text, &mut word, true);
        Ok(word)
    }

    /// A quoted part goes on to its closing quote, over the ends of lines too.
    fn quoted_label(&mut self, quote: u8, text: &mut Vec<u8>) -> Rule<()> {
        let at = self.here();
        let start = self.at + 1;
        let Some(length) = memchr::memchr(quote, &self.text[start..]) else {
            let message = format!("a {} in a label is not closed", char::from(quote));
            return Err(self.error_at(at, message).into());
        };
        text.extend_from_slice(&self.text[start..start + length]);
        self.at = start + length + 1;
        Ok(())
    }

    /// A label without expansions is known now.
    fn check_pattern(&self, kind: Kind, label: &Word) -> Rule<()> {
        let text: Vec<u8> = match label.parts.as_slice() {
            [] => Vec::new(),
            [Part::Literal { text, .. }] => text.to_vec(),
            _ => return Ok(()),
        };
        match Pattern::new(kind, &text) {
            Ok(_) => Ok(()),
            Err(bad) => {
                let message = format!("the label is no pattern: {bad}");
                Err(self.error_at(label.at, message).into())
            }
        }
    }
}
