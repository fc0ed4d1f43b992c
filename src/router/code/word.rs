//! Words.

use super::compile::Compiler;
use super::{Op, Param, Place, Symbol};
use crate::router::pattern::Glob;
use crate::router::syntax::ast::{Block, Chain, Command, CommandKind, Parameter, Part, Word};

impl Compiler<'_> {
    /// A word that becomes no, one or several arguments.
    pub(super) fn argument(&mut self, word: &Word) {
        self.at(word.at);
        match word.parts.as_slice() {
            [Part::Literal { text, .. }] => {
                let text = self.text(text);
                self.emit(Op::ArgumentLiteral(text));
            }
            [
                Part::Parameter {
                    parameter: Parameter::Named(name),
                    quoted,
                },
            ] => {
                let symbol = self.symbol(name);
                self.emit(Op::ArgumentVariable {
                    symbol,
                    quoted: *quoted,
                });
            }
            [Part::Parameter { parameter, quoted }] if is_one(parameter) => {
                let parameter = self.parameter(parameter);
                self.emit(Op::ArgumentParameter {
                    parameter,
                    quoted: *quoted,
                });
            }
            [Part::List(words)] => {
                self.list(words);
                self.emit(Op::ListArgument);
            }
            [Part::Command { block, quoted }] => {
                self.emit(Op::Capture);
                self.block(block);
                self.emit(Op::CaptureArgument { quoted: *quoted });
            }
            parts => {
                self.emit(Op::Begin);
                self.parts(parts, false);
                self.emit(Op::EndArgument);
            }
        }
    }

    /// A word that becomes one value.
    pub(super) fn value(&mut self, word: &Word) {
        self.at(word.at);
        match word.parts.as_slice() {
            [Part::Literal { text, .. }] => {
                let text = self.text(text);
                self.emit(Op::ValueLiteral(text));
            }
            [
                Part::Parameter {
                    parameter: Parameter::Named(name),
                    ..
                },
            ] => {
                let symbol = self.symbol(name);
                self.emit(Op::ValueVariable(symbol));
            }
            [Part::Parameter { parameter, .. }] if is_one(parameter) => {
                let parameter = self.parameter(parameter);
                self.emit(Op::ValueParameter(parameter));
            }
            [Part::List(words)] => {
                self.list(words);
                self.emit(Op::ListValue);
            }
            [Part::Command { block, quoted }] => {
                self.emit(Op::Capture);
                self.block(block);
                self.emit(Op::CaptureValue { quoted: *quoted });
            }
            parts => {
                self.emit(Op::BeginValue);
                self.parts(parts, false);
                self.emit(Op::EndValue);
            }
        }
    }

    /// A pattern of `case`, and where to go when it fits.
    pub(super) fn case_pattern(&mut self, word: &Word) -> Place {
        self.at(word.at);
        if let Some(glob) = fixed_glob(word) {
            let glob = self.glob(glob);
            return self.emit(Op::CaseFixed { glob, to: 0 });
        }
        self.emit(Op::BeginValue);
        self.parts(&word.parts, true);
        self.emit(Op::EndValue);
        self.emit(Op::CaseMatch(0))
    }

    /// The last pattern of an arm, and where to go when it does not fit; none: it must be expanded.
    pub(super) fn last_case_pattern(&mut self, word: &Word) -> Option<Place> {
        let glob = fixed_glob(word)?;
        self.at(word.at);
        let glob = self.glob(glob);
        Some(self.emit(Op::CaseUnless { glob, to: 0 }))
    }

    fn list(&mut self, words: &[Word]) {
        self.emit(Op::Mark);
        for word in words {
            self.argument(word);
        }
    }

    fn parts(&mut self, parts: &[Part], magic: bool) {
        for part in parts {
            self.part(part, magic);
        }
    }

    fn part(&mut self, part: &Part, magic: bool) {
        match part {
            Part::Literal { text, quoted } => {
                let text = self.text(text);
                self.emit(if magic && !quoted {
                    Op::Magic(text)
                } else {
                    Op::Literal(text)
                });
            }
            Part::Parameter { parameter, quoted } => {
                let parameter = self.parameter(parameter);
                self.emit(Op::Parameter {
                    parameter,
                    quoted: *quoted,
                });
            }
            Part::Conditional {
                parameter,
                operator,
                colon,
                word,
                quoted,
            } => {
                let parameter = self.parameter(parameter);
                self.conditional(parameter, *operator, *colon, word, *quoted);
            }
            Part::Command { block, quoted } => {
                self.emit(Op::Capture);
                self.block(block);
                self.emit(Op::EndCapture { quoted: *quoted });
            }
            Part::List(words) => {
                self.list(words);
                self.emit(Op::EndList);
            }
            Part::Group(number) => {
                self.emit(Op::Group(*number));
            }
        }
    }

    fn conditional(
        &mut self,
        parameter: Param,
        operator: u8,
        colon: bool,
        word: &Word,
        quoted: bool,
    ) {
        let unset = self.emit(Op::JumpIfUnset {
            parameter,
            colon,
            to: 0,
        });
        if operator == b'+' {
            self.parts(&word.parts, false);
        } else {
            self.emit(Op::Parameter { parameter, quoted });
        }
        let end = self.emit(Op::Jump(0));
        self.patch(unset);
        match operator {
            b'+' => {}
            b'-' => self.parts(&word.parts, false),
            _ => {
                self.value(word);
                self.emit(if operator == b'=' {
                    Op::AssignDefault(parameter)
                } else {
                    Op::Complain(parameter)
                });
            }
        }
        self.patch(end);
        if quoted {
            self.emit(Op::Keep);
        }
    }

    /// The variables that a word looks at, also inside `$(...)`.
    pub(super) fn variables_of(&mut self, word: &Word, found: &mut Vec<Symbol>) {
        for part in &word.parts {
            match part {
                Part::Literal { .. } | Part::Group(_) => {}
                Part::Parameter { parameter, .. } => self.variable_of(parameter, found),
                Part::Conditional {
                    parameter, word, ..
                } => {
                    self.variable_of(parameter, found);
                    self.variables_of(word, found);
                }
                Part::Command { block, .. } => self.variables_of_block(block, found),
                Part::List(words) => {
                    for word in words {
                        self.variables_of(word, found);
                    }
                }
            }
        }
    }

    fn variable_of(&mut self, parameter: &Parameter, found: &mut Vec<Symbol>) {
        if let Parameter::Named(name) | Parameter::CountOf(name) | Parameter::Indirect(name) =
            parameter
        {
            let symbol = self.symbol(name);
            if !found.contains(&symbol) {
                found.push(symbol);
            }
        }
    }

    fn variables_of_block(&mut self, block: &Block, found: &mut Vec<Symbol>) {
        for chain in block {
            let mut next: Option<&Chain> = Some(chain);
            while let Some(chain) = next {
                for command in &chain.first.commands {
                    self.variables_of_command(command, found);
                }
                next = chain.rest.as_ref().map(|(_, rest)| &**rest);
            }
        }
    }

    fn variables_of_command(&mut self, command: &Command, found: &mut Vec<Symbol>) {
        match &command.kind {
            CommandKind::Simple(simple) => {
                for word in simple
                    .words
                    .iter()
                    .chain(simple.assignments.iter().map(|(_, word)| word))
                {
                    self.variables_of(word, found);
                }
            }
            CommandKind::Group(block) | CommandKind::Subshell(block) => {
                self.variables_of_block(block, found);
            }
            CommandKind::If {
                branches,
                otherwise,
            } => {
                for (condition, body) in branches {
                    self.variables_of_block(condition, found);
                    self.variables_of_block(body, found);
                }
                self.variables_of_block(otherwise, found);
            }
            CommandKind::Case { word, arms } => {
                self.variables_of(word, found);
                for arm in arms {
                    self.variables_of_block(&arm.body, found);
                }
            }
            CommandKind::While { .. }
            | CommandKind::For { .. }
            | CommandKind::Sift { .. }
            | CommandKind::Function(_)
            | CommandKind::Local(_) => {}
        }
    }
}

/// Whether it stands for one value at most.
fn is_one(parameter: &Parameter) -> bool {
    !matches!(parameter, Parameter::At | Parameter::Star)
}

/// A pattern of `case` in which nothing is expanded.
fn fixed_glob(word: &Word) -> Option<Glob> {
    let (mut pattern, mut quotes) = (Vec::new(), Vec::new());
    for part in &word.parts {
        let Part::Literal { text, quoted } = part else {
            return None;
        };
        pattern.extend_from_slice(text);
        quotes.resize(pattern.len(), *quoted);
    }
    Some(Glob::new(&pattern, &quotes))
}
