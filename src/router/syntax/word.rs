//! Words: quoting, expansions, lists.

use super::ast::{Block, Parameter, Part, Word};
use super::cursor::{Parser, Rule};

impl Parser<'_> {
    /// A word; something of it must stand here.
    pub(super) fn word(&mut self) -> Rule<Word> {
        self.nested(|parser| parser.word_parts(false, b""))
    }

    /// A pattern of `case`: a word in which `\x` is a quoted `x`.
    pub(super) fn pattern_word(&mut self) -> Rule<Word> {
        let at = self.here();
        let word = self.word()?;
        if word.parts.is_empty() {
            return Err(self
                .error_at(at, format!("a pattern is expected, not {}", self.found()))
                .into());
        }
        Ok(word)
    }

    /// The parts of a word up to what ends it; `stops` end it too.
    fn word_parts(&mut self, quoted: bool, stops: &[u8]) -> Rule<Word> {
        let mut word = Word {
            at: self.here(),
            parts: Vec::new(),
        };
        let mut text = Vec::new();
        while let Some(byte) = self.peek() {
            match byte {
                byte if stops.contains(&byte) => break,
                b' ' | b'\t' | b'\r' | b'\n' | b'|' | b'&' | b';' | b'<' | b'>' | b')' | b'}' => {
                    break;
                }
                b'(' if text.is_empty() && word.parts.is_empty() => {
                    let list = self.list()?;
                    word.parts.push(list);
                    return Ok(word);
                }
                b'(' => break,
                b'"' => {
                    self.flush(&mut text, &mut word, quoted);
                    self.double_quoted(&mut word)?;
                }
                b'\'' => {
                    self.flush(&mut text, &mut word, quoted);
                    self.single_quoted(&mut word)?;
                }
                b'`' if self.backquotes => break,
                b'$' | b'`' => {
                    self.flush(&mut text, &mut word, quoted);
                    let part = self.expansion(quoted, &mut text)?;
                    word.parts.extend(part);
                }
                b'\\' => self.backslash(&mut text, &mut word, quoted),
                _ => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
        self.flush(&mut text, &mut word, quoted);
        Ok(word)
    }

    /// Makes what was collected a part.
    pub(super) fn flush(&mut self, text: &mut Vec<u8>, word: &mut Word, quoted: bool) {
        if !text.is_empty() {
            word.parts.push(Part::Literal {
                text: std::mem::take(text).into(),
                quoted,
            });
        }
    }

    /// Outside quotes: `\1` names a group, everything else is itself and quoted.
    fn backslash(&mut self, text: &mut Vec<u8>, word: &mut Word, quoted: bool) {
        self.at += 1;
        let Some(byte) = self.peek() else {
            return;
        };
        self.at += 1;
        match byte {
            b'0'..=b'9' => {
                self.flush(text, word, quoted);
                word.parts.push(Part::Group(byte - b'0'));
            }
            b'\n' => {}
            _ => {
                self.flush(text, word, quoted);
                word.parts.push(Part::Literal {
                    text: [byte].into(),
                    quoted: true,
                });
            }
        }
    }

    fn double_quoted(&mut self, word: &mut Word) -> Rule<()> {
        let opened = self.here();
        self.at += 1;
        let first = word.parts.len();
        let mut text = Vec::new();
        let outer = std::mem::replace(&mut self.in_quotes, true);
        loop {
            let Some(byte) = self.peek() else {
                return Err(self.error_at(opened, "'\"' is not closed").into());
            };
            match byte {
                b'"' => break,
                b'$' | b'`' => {
                    self.flush(&mut text, word, true);
                    let part = self.expansion(true, &mut text)?;
                    word.parts.extend(part);
                }
                b'\\' => self.backslash_in_quotes(&mut text, word),
                _ => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        self.in_quotes = outer;
        self.flush(&mut text, word, true);
        if word.parts.len() == first {
            word.parts.push(Part::Literal {
                text: Box::default(),
                quoted: true,
            });
        }
        Ok(())
    }

    /// In double quotes a backslash is removed before ``$ ` \ "`` and a newline only.
    fn backslash_in_quotes(&mut self, text: &mut Vec<u8>, word: &mut Word) {
        self.at += 1;
        let Some(byte) = self.peek() else {
            return;
        };
        self.at += 1;
        match byte {
            b'0'..=b'9' => {
                self.flush(text, word, true);
                word.parts.push(Part::Group(byte - b'0'));
            }
            b'$' | b'`' | b'\\' | b'"' => text.push(byte),
            b'\n' => {}
            _ => text.extend([b'\\', byte]),
        }
    }

    fn single_quoted(&mut self, word: &mut Word) -> Rule<()> {
        let opened = self.here();
        let start = self.at + 1;
        let Some(length) = memchr::memchr(b'\'', &self.text[start..]) else {
            self.quote_open = true;
            return Err(self.error_at(opened, "\"'\" is not closed").into());
        };
        word.parts.push(Part::Literal {
            text: self.text[start..start + length].into(),
            quoted: true,
        });
        self.at = start + length + 1;
        Ok(())
    }

    /// `(a (b c) d)`; `#` is an ordinary character in there.
    fn list(&mut self) -> Rule<Part> {
        let opened = self.here();
        self.at += 1;
        let mut words = Vec::new();
        loop {
            self.skip_blanks();
            match self.peek() {
                Some(b')') => {
                    self.at += 1;
                    return Ok(Part::List(words));
                }
                Some(b'\n') => self.newline()?,
                None => {
                    return Err(self.error_at(opened, "'(' is not closed").into());
                }
                // It ends what the list stands in.
                Some(b'`') if self.backquotes => {
                    return Err(self.error_at(opened, "'(' is not closed").into());
                }
                Some(b'|' | b'&' | b';' | b'<' | b'>' | b'}') => {
                    let message = format!("{} cannot stand in a list", self.found());
                    return Err(self.error(message).hint("quote it").into());
                }
                Some(_) => words.push(self.word()?),
            }
        }
    }

    /// What begins with `$` or a backquote; a `$` that begins nothing is itself and goes into `text`.
    pub(super) fn expansion(&mut self, quoted: bool, text: &mut Vec<u8>) -> Rule<Option<Part>> {
        let opened = self.here();
        if self.take(b"`") {
            let block = self.substitution(true)?;
            if !self.take(b"`") {
                return Err(self.error_at(opened, "'`' is not closed").into());
            }
            return Ok(Some(Part::Command { block, quoted }));
        }
        self.at += 1;
        if self.take(b"(") {
            let block = self.substitution(false)?;
            self.close(b')', '(', opened)?;
            return Ok(Some(Part::Command { block, quoted }));
        }
        if self.take(b"{") {
            return self.braced(quoted, opened).map(Some);
        }
        match self.parameter() {
            Some(parameter) => Ok(Some(Part::Parameter { parameter, quoted })),
            None => {
                text.push(b'$');
                Ok(None)
            }
        }
    }

    fn substitution(&mut self, backquotes: bool) -> Rule<Block> {
        let outer = std::mem::replace(&mut self.backquotes, backquotes);
        let in_quotes = std::mem::take(&mut self.in_quotes);
        let block = self.block();
        self.backquotes = outer;
        self.in_quotes = in_quotes;
        block
    }

    /// What may stand behind `$`.
    fn parameter(&mut self) -> Option<Parameter> {
        let byte = self.peek()?;
        if byte.is_ascii_alphabetic() {
            return self.name().map(Parameter::Named);
        }
        if byte == b'#' {
            self.at += 1;
            return Some(self.name().map_or(Parameter::Count, Parameter::CountOf));
        }
        let parameter = special(byte)?;
        self.at += 1;
        Some(parameter)
    }

    /// `{x}`, `{x-word}` and their kin, behind the `{`.
    fn braced(&mut self, quoted: bool, opened: u32) -> Rule<Part> {
        let digits = self.text[self.at..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let parameter = if digits > 0 {
            let number = std::str::from_utf8(&self.text[self.at..self.at + digits]).unwrap_or("");
            self.at += digits;
            number.parse().ok().map(Parameter::Positional)
        } else if self.peek() == Some(b'$')
            && self
                .peek_at(1)
                .is_some_and(|byte| byte.is_ascii_alphabetic())
        {
            self.at += 1;
            self.name().map(Parameter::Indirect)
        } else {
            self.parameter()
        };
        let Some(parameter) = parameter else {
            let message = format!("a name is expected behind '${{', not {}", self.found());
            return Err(self.error(message).into());
        };
        if self.take(b"}") {
            return Ok(Part::Parameter { parameter, quoted });
        }
        let colon = self.take(b":");
        let Some(operator @ (b'-' | b'=' | b'?' | b'+')) = self.peek() else {
            let message = format!("'}}' or one of - = ? + expected, not {}", self.found());
            return Err(self
                .error(message)
                .hint("${x#...} and ${x%...} are not in the language")
                .into());
        };
        self.at += 1;
        let stops: &[u8] = if self.in_quotes { b"\"" } else { b"" };
        let word = self.nested(|parser| parser.word_parts(quoted, stops))?;
        if !self.take(b"}") {
            let message = format!("'}}' expected, not {}", self.found());
            let hint = format!(
                "the '${{' of line {} is still open; blanks in there must be quoted",
                self.line_of(opened)
            );
            return Err(self.error(message).hint(hint).into());
        }
        Ok(Part::Conditional {
            parameter,
            operator,
            colon,
            word,
            quoted,
        })
    }
}

fn special(byte: u8) -> Option<Parameter> {
    Some(match byte {
        b'0'..=b'9' => Parameter::Positional(u32::from(byte - b'0')),
        b'*' => Parameter::Star,
        b'@' => Parameter::At,
        b'?' => Parameter::Status,
        b'$' => Parameter::Process,
        b'-' => Parameter::Flags,
        _ => return None,
    })
}
