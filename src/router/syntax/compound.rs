//! `{ } ( ) if for while until case local`.

use super::ast::{Arm, At, Block, CommandKind};
use super::cursor::{Parser, Rule};
use crate::router::pattern::Kind;

impl Parser<'_> {
    /// A compound command; none: a simple one stands here.
    pub(super) fn compound(&mut self) -> Rule<Option<CommandKind>> {
        let at = self.here();
        let keyword = match self.peek() {
            Some(b'{') => return self.group().map(Some),
            Some(b'(') => return self.subshell().map(Some),
            Some(byte) if byte.is_ascii_lowercase() => self.name_here().to_vec(),
            _ => return Ok(None),
        };
        if !self.at_keyword(&keyword) {
            return Ok(None);
        }
        let rule: fn(&mut Self, At) -> Rule<CommandKind> = match keyword.as_slice() {
            b"if" => Self::if_command,
            b"for" => Self::for_command,
            b"while" => |parser, at| parser.while_command("while", at),
            b"until" => |parser, at| parser.while_command("until", at),
            b"case" => Self::case_command,
            b"ssift" => |parser, at| parser.sift_command(Kind::Bytes, at),
            b"tsift" => |parser, at| parser.sift_command(Kind::Tokens, at),
            b"local" => Self::local_command,
            b"sift" => {
                return Err(self
                    .error("'sift' is not in the language")
                    .hint("write ssift ... tfiss for bytes, tsift ... tfist for RFC 822 tokens")
                    .into());
            }
            b"function" => {
                return Err(self
                    .error("'function' is not in the language")
                    .hint("write name () { ... }")
                    .into());
            }
            _ => return Ok(None),
        };
        if self.looks_like_assignment_or_definition(keyword.len()) {
            return Ok(None);
        }
        self.at += keyword.len();
        self.nested(|parser| rule(parser, at)).map(Some)
    }

    /// `case=x` assigns to a variable of that name.
    fn looks_like_assignment_or_definition(&self, length: usize) -> bool {
        self.peek_at(length) == Some(b'=')
    }

    fn group(&mut self) -> Rule<CommandKind> {
        let at = self.here();
        self.at += 1;
        self.braces += 1;
        let block = self.block()?;
        self.close(b'}', '{', at)?;
        self.braces -= 1;
        Ok(CommandKind::Group(block))
    }

    fn subshell(&mut self) -> Rule<CommandKind> {
        let at = self.here();
        self.at += 1;
        let block = self.block()?;
        self.close(b')', '(', at)?;
        Ok(CommandKind::Subshell(block))
    }

    /// Takes what closes a block.
    pub(super) fn close(&mut self, byte: u8, opening: char, opened: At) -> Rule<()> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        let message = format!("'{}' expected, not {}", char::from(byte), self.found());
        let hint = format!(
            "the '{opening}' of line {} is still open",
            self.line_of(opened)
        );
        Err(self.error(message).hint(hint).into())
    }

    fn if_command(&mut self, at: At) -> Rule<CommandKind> {
        let mut branches = Vec::new();
        loop {
            let condition = self.condition(at, "if")?;
            self.expect_keyword("then", ("if", at))?;
            branches.push((condition, self.block()?));
            if !self.at_keyword(b"elif") {
                break;
            }
            self.at += b"elif".len();
        }
        let mut otherwise = Block::new();
        if self.at_keyword(b"else") {
            self.at += b"else".len();
            otherwise = self.block()?;
        }
        self.expect_keyword("fi", ("if", at))?;
        Ok(CommandKind::If {
            branches,
            otherwise,
        })
    }

    fn condition(&mut self, at: At, what: &str) -> Rule<Block> {
        let condition = self.block()?;
        if condition.is_empty() {
            let message = format!("'{what}' without a condition");
            return Err(self.error_at(at, message).into());
        }
        Ok(condition)
    }

    fn while_command(&mut self, what: &'static str, at: At) -> Rule<CommandKind> {
        let condition = self.condition(at, what)?;
        self.expect_keyword("do", (what, at))?;
        let body = self.block()?;
        self.expect_keyword("done", (what, at))?;
        Ok(CommandKind::While {
            condition,
            body,
            until: what == "until",
        })
    }

    fn for_command(&mut self, at: At) -> Rule<CommandKind> {
        self.skip_blanks();
        let Some(variable) = self.name() else {
            return Err(self
                .error(format!(
                    "a variable name is expected behind 'for', not {}",
                    self.found()
                ))
                .into());
        };
        self.skip_lines()?;
        let mut words = None;
        if self.at_keyword(b"in") {
            self.at += b"in".len();
            words = Some(self.for_words()?);
        } else if self.peek() == Some(b';') {
            self.at += 1;
        }
        self.expect_keyword("do", ("for", at))?;
        let body = self.block()?;
        self.expect_keyword("done", ("for", at))?;
        Ok(CommandKind::For {
            variable,
            words,
            body,
        })
    }

    fn for_words(&mut self) -> Rule<Vec<super::ast::Word>> {
        let mut words = Vec::new();
        loop {
            self.skip_blanks();
            match self.peek() {
                Some(b';') => {
                    self.at += 1;
                    return Ok(words);
                }
                None | Some(b'\n' | b'#') => return Ok(words),
                Some(b'`') if self.backquotes => return Ok(words),
                Some(b'|' | b'&' | b'<' | b'>' | b')' | b'}') => {
                    return Err(self
                        .error(format!("a word is expected, not {}", self.found()))
                        .into());
                }
                Some(_) => words.push(self.word()?),
            }
        }
    }

    fn case_command(&mut self, at: At) -> Rule<CommandKind> {
        self.skip_blanks();
        let word = self.word()?;
        self.expect_keyword("in", ("case", at))?;
        let mut arms = Vec::new();
        loop {
            self.skip_lines()?;
            if self.at_keyword(b"esac") {
                self.at += b"esac".len();
                return Ok(CommandKind::Case { word, arms });
            }
            if self.peek().is_none() {
                self.expect_keyword("esac", ("case", at))?;
            }
            arms.push(self.arm(at)?);
        }
    }

    fn arm(&mut self, case: At) -> Rule<Arm> {
        let mut patterns = Vec::new();
        loop {
            self.skip_blanks();
            patterns.push(self.pattern_word()?);
            self.skip_blanks();
            if self.take(b")") {
                break;
            }
            if !self.take(b"|") {
                let message = format!("')' or '|' expected behind a pattern, not {}", self.found());
                let hint = format!("the 'case' of line {} is still open", self.line_of(case));
                return Err(self.error(message).hint(hint).into());
            }
        }
        let body = self.block()?;
        if !self.take(b";;") && !self.at_keyword(b"esac") {
            let message = format!("';;' or 'esac' expected, not {}", self.found());
            let hint = format!("the 'case' of line {} is still open", self.line_of(case));
            return Err(self.error(message).hint(hint).into());
        }
        Ok(Arm { patterns, body })
    }

    fn local_command(&mut self, _at: At) -> Rule<CommandKind> {
        let mut names = Vec::new();
        loop {
            self.skip_blanks();
            match self.name() {
                Some(name) => names.push(name),
                None => break,
            }
        }
        if self.peek() == Some(b'=') {
            return Err(self
                .error("'local' takes names only")
                .hint("write local x; x=...")
                .into());
        }
        Ok(CommandKind::Local(names))
    }
}
