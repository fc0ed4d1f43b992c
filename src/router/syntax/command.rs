//! Blocks, chains, pipelines and simple commands.

use super::ast::{
    Block, Chain, Command, CommandKind, Function, Junction, Part, Pipeline, Redirection, Simple,
    Target, Word,
};
use super::cursor::{Parser, Rule};
use super::here::Pending;

/// Keywords that end a block.
const CLOSING: &[&[u8]] = &[
    b"then", b"fi", b"else", b"elif", b"do", b"done", b"esac", b"tfiss", b"tfist",
];

impl Parser<'_> {
    /// Commands up to what closes them.
    pub(super) fn block(&mut self) -> Rule<Block> {
        let mut block = Vec::new();
        self.nested(|parser| parser.block_into(&mut block))?;
        Ok(block)
    }

    pub(super) fn block_into(&mut self, block: &mut Block) -> Rule<()> {
        loop {
            self.skip_lines()?;
            if self.at_block_end() {
                return Ok(());
            }
            if self.take(b";") {
                continue;
            }
            block.push(self.chain()?);
            self.skip_blanks();
            self.skip_comment();
            match self.peek() {
                Some(b'\n') => self.newline()?,
                Some(b';') if !self.looking_at(b";;") => self.at += 1,
                Some(b'&') => self.at += 1,
                _ if self.at_block_end() => return Ok(()),
                _ => {
                    return Err(self
                        .error(format!("a command ends here, but {} follows", self.found()))
                        .into());
                }
            }
        }
    }

    fn at_block_end(&self) -> bool {
        match self.peek() {
            None | Some(b')' | b'}') => true,
            Some(b'`') => self.backquotes,
            Some(b';') => self.looking_at(b";;"),
            Some(byte) if byte.is_ascii_lowercase() => {
                CLOSING.iter().any(|word| self.at_keyword(word))
            }
            _ => false,
        }
    }

    fn chain(&mut self) -> Rule<Chain> {
        let first = self.pipeline()?;
        self.skip_blanks();
        let junction = if self.take(b"&&") {
            Junction::And
        } else if self.take(b"||") {
            Junction::Or
        } else {
            return Ok(Chain { first, rest: None });
        };
        self.skip_lines()?;
        let rest = self.nested(Self::chain)?;
        Ok(Chain {
            first,
            rest: Some((junction, Box::new(rest))),
        })
    }

    pub(super) fn pipeline(&mut self) -> Rule<Pipeline> {
        let mut commands = vec![self.command()?];
        loop {
            self.skip_blanks();
            if self.peek() != Some(b'|') || self.looking_at(b"||") {
                return Ok(Pipeline { commands });
            }
            self.at += 1;
            self.skip_lines()?;
            commands.push(self.command()?);
        }
    }

    pub(super) fn command(&mut self) -> Rule<Command> {
        self.skip_blanks();
        let at = self.here();
        let kind = match self.compound()? {
            Some(kind) => kind,
            None => return self.simple(),
        };
        let mut redirections = Vec::new();
        loop {
            self.skip_blanks();
            match self.redirection()? {
                Some(redirection) => redirections.push(redirection),
                None => break,
            }
        }
        Ok(Command {
            at,
            kind,
            redirections,
        })
    }

    fn simple(&mut self) -> Rule<Command> {
        let at = self.here();
        let mut simple = Simple::default();
        let mut redirections = Vec::new();
        loop {
            self.skip_blanks();
            if simple.words.is_empty() && self.assignment(&mut simple)? {
                continue;
            }
            let nothing_yet = simple.words.is_empty() && simple.assignments.is_empty();
            if nothing_yet && let Some(function) = self.function()? {
                return Ok(Command {
                    at,
                    kind: CommandKind::Function(function),
                    redirections,
                });
            }
            if let Some(redirection) = self.redirection()? {
                redirections.push(redirection);
            } else if self.at_word_start() {
                simple.words.push(self.word()?);
            } else {
                break;
            }
        }
        if simple.words.is_empty() && simple.assignments.is_empty() && redirections.is_empty() {
            let message = format!("a command is expected, not {}", self.found());
            return Err(self.error(message).into());
        }
        Ok(Command {
            at,
            kind: CommandKind::Simple(simple),
            redirections,
        })
    }

    fn at_word_start(&self) -> bool {
        match self.peek() {
            None | Some(b'\n' | b';' | b'&' | b'|' | b')' | b'}' | b'<' | b'>' | b'#') => false,
            Some(b'`') => !self.backquotes,
            Some(_) => true,
        }
    }

    /// `name = value`, blanks before the `=` allowed, none behind it.
    fn assignment(&mut self, simple: &mut Simple) -> Rule<bool> {
        let start = self.at;
        let Some(name) = self.name() else {
            return Ok(false);
        };
        self.skip_blanks();
        if self.peek() != Some(b'=') {
            self.at = start;
            return Ok(false);
        }
        self.at += 1;
        let at = self.here();
        let word = if self.at_word_start() && !matches!(self.peek(), Some(b' ' | b'\t' | b'\r')) {
            self.word()?
        } else {
            Word {
                at,
                parts: vec![Part::Literal {
                    text: Box::default(),
                    quoted: true,
                }],
            }
        };
        simple.assignments.push((name, word));
        Ok(true)
    }

    /// `name (a, b) body`; `return (a b)` returns a list.
    fn function(&mut self) -> Rule<Option<Function>> {
        let start = self.at;
        let Some(name) = self.name() else {
            return Ok(None);
        };
        self.skip_blanks();
        if self.peek() != Some(b'(') || matches!(&*name, b"return" | b"returns") {
            self.at = start;
            return Ok(None);
        }
        self.at += 1;
        let parameters = self.parameters(&name)?;
        self.skip_lines()?;
        let body = self.nested(Self::pipeline)?;
        Ok(Some(Function {
            name,
            parameters,
            body,
        }))
    }

    fn parameters(&mut self, function: &[u8]) -> Rule<Vec<Box<[u8]>>> {
        let mut parameters = Vec::new();
        self.skip_lines()?;
        if self.take(b")") {
            return Ok(parameters);
        }
        loop {
            self.skip_lines()?;
            let Some(name) = self.name() else {
                let message = format!("a parameter name is expected, not {}", self.found());
                return Err(self.error(message).hint(not_a_list(function)).into());
            };
            parameters.push(name);
            self.skip_lines()?;
            if self.take(b")") {
                return Ok(parameters);
            }
            if !self.take(b",") {
                let message = format!(
                    "',' or ')' expected between parameters, not {}",
                    self.found()
                );
                return Err(self.error(message).hint(not_a_list(function)).into());
            }
        }
    }

    /// `2> file`; none: something else stands here.
    pub(super) fn redirection(&mut self) -> Rule<Option<Redirection>> {
        let at = self.here();
        let digits = self.text[self.at..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let Some(operator @ (b'<' | b'>')) = self.peek_at(digits) else {
            return Ok(None);
        };
        let number = std::str::from_utf8(&self.text[self.at..self.at + digits]).unwrap_or("");
        let descriptor = match number {
            "" => u8::from(operator == b'>'),
            number => match number.parse() {
                Ok(descriptor @ 0..=9) => descriptor,
                _ => return Err(self.error("descriptors go from 0 to 9").into()),
            },
        };
        self.at += digits + 1;
        let target = if operator == b'>' && self.take(b">") {
            Target::Append(self.file()?)
        } else if operator == b'<' && self.take(b"<") {
            self.here_document()?
        } else if self.take(b"&") {
            self.descriptor()?
        } else if operator == b'<' {
            self.take(b">");
            Target::Read(self.file()?)
        } else {
            Target::Write(self.file()?)
        };
        Ok(Some(Redirection {
            at,
            descriptor,
            target,
        }))
    }

    fn file(&mut self) -> Rule<Word> {
        self.skip_blanks();
        if !self.at_word_start() {
            return Err(self
                .error(format!("a file name is expected, not {}", self.found()))
                .into());
        }
        self.word()
    }

    fn descriptor(&mut self) -> Rule<Target> {
        match self.peek() {
            Some(b'-') => {
                self.at += 1;
                Ok(Target::Closed)
            }
            Some(digit @ b'0'..=b'9') => {
                self.at += 1;
                Ok(Target::Same(digit - b'0'))
            }
            _ => Err(self
                .error(format!(
                    "a descriptor or '-' is expected, not {}",
                    self.found()
                ))
                .into()),
        }
    }

    fn here_document(&mut self) -> Rule<Target> {
        let strip = self.take(b"-");
        self.skip_blanks();
        let at = self.here();
        let quoted = matches!(self.peek(), Some(b'\'' | b'\\' | b'"'));
        let word = self.file()?;
        let mut stop = Vec::new();
        for part in &word.parts {
            match part {
                Part::Literal { text, .. } => stop.extend_from_slice(text),
                _ => {
                    return Err(self
                        .error_at(at, "the word behind '<<' is taken as it stands")
                        .into());
                }
            }
        }
        let number = self.here_texts.len();
        self.here_texts.push(Word::default());
        self.pending.push(Pending {
            at,
            number,
            stop,
            quoted,
            strip,
        });
        Ok(Target::Here(number))
    }
}

fn not_a_list(function: &[u8]) -> String {
    let name = String::from_utf8_lossy(function);
    format!(
        "'{name} (' defines a function; the first argument of a command cannot be written as a list: assign it to a variable first"
    )
}
