//! The texts of `<<`.

use super::ast::{At, Part, Word};
use super::cursor::{Parser, Rule};

/// A `<<` whose text has not been read.
pub(super) struct Pending {
    pub(super) at: At,
    /// Its place in the parser's texts.
    pub(super) number: usize,
    /// The line that ends it.
    pub(super) stop: Vec<u8>,
    /// Taken as it stands: nothing is expanded.
    pub(super) quoted: bool,
    /// `<<-`: blanks at the start of lines go.
    pub(super) strip: bool,
}

impl Parser<'_> {
    /// Reads the text that begins here.
    pub(super) fn here_text(&mut self, pending: &Pending) -> Rule<()> {
        let mut word = Word {
            at: self.here(),
            parts: Vec::new(),
        };
        let mut text = Vec::new();
        loop {
            if pending.strip {
                while matches!(self.peek(), Some(b' ' | b'\t')) {
                    self.at += 1;
                }
            }
            if self.peek().is_none() {
                let stop = String::from_utf8_lossy(&pending.stop).into_owned();
                let message = format!("the text of '<<' has no line that is '{stop}'");
                return Err(self.error_at(pending.at, message).into());
            }
            if self.at_stop(&pending.stop) {
                break;
            }
            self.here_line(pending.quoted, &mut text, &mut word)?;
        }
        self.flush(&mut text, &mut word, true);
        self.here_texts[pending.number] = word;
        Ok(())
    }

    /// Takes the line when it ends the text.
    fn at_stop(&mut self, stop: &[u8]) -> bool {
        let rest = &self.text[self.at..];
        let ends = rest.starts_with(stop) && matches!(rest.get(stop.len()), None | Some(b'\n'));
        if ends {
            self.at = (self.at + stop.len() + 1).min(self.text.len());
        }
        ends
    }

    fn here_line(&mut self, quoted: bool, text: &mut Vec<u8>, word: &mut Word) -> Rule<()> {
        while let Some(byte) = self.peek() {
            match byte {
                b'\\' if !quoted => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'\n') => self.at += 1,
                        Some(other) => {
                            self.at += 1;
                            text.push(other);
                        }
                        None => {}
                    }
                }
                b'$' | b'`' if !quoted => {
                    self.flush(text, word, true);
                    let part: Option<Part> = self.expansion(true, text)?;
                    word.parts.extend(part);
                }
                _ => {
                    self.at += 1;
                    text.push(byte);
                    if byte == b'\n' {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}
