//! Commands.

use super::compile::Compiler;
use super::{FileMode, Op, Place};
use crate::router::pattern::Kind;
use crate::router::syntax::ast::{
    Arm, Block, Command, CommandKind, Part, Redirection, Rule, Simple, Target, Word,
};

impl Compiler<'_> {
    pub(super) fn command(&mut self, command: &Command) {
        self.at(command.at);
        let redirect = self.redirections(&command.redirections);
        match &command.kind {
            CommandKind::Simple(simple) => self.simple(command, simple),
            CommandKind::Function(function) => self.define(function),
            CommandKind::Group(block) => {
                self.emit(Op::Scope);
                self.block(block);
                self.emit(Op::EndScope);
            }
            CommandKind::Subshell(block) => self.subshell(block),
            CommandKind::If {
                branches,
                otherwise,
            } => self.if_command(branches, otherwise),
            CommandKind::While {
                condition,
                body,
                until,
            } => self.while_command(condition, body, *until),
            CommandKind::For {
                variable,
                words,
                body,
            } => self.for_command(variable, words.as_deref(), body),
            CommandKind::Case { word, arms } => self.case_command(word, arms),
            CommandKind::Sift { kind, word, rules } => self.sift_command(*kind, word, rules),
            CommandKind::Local(names) => {
                for name in names {
                    let symbol = self.symbol(name);
                    self.emit(Op::Local(symbol));
                }
            }
        }
        if let Some(redirect) = redirect {
            self.patch(redirect);
            self.emit(Op::EndRedirect);
        }
    }

    fn redirections(&mut self, redirections: &[Redirection]) -> Option<Place> {
        if redirections.is_empty() {
            return None;
        }
        let begin = self.emit(Op::Redirect(0));
        for redirection in redirections {
            let descriptor = redirection.descriptor;
            let (word, mode) = match &redirection.target {
                Target::Read(word) => (word, FileMode::Read),
                Target::Write(word) => (word, FileMode::Write),
                Target::Append(word) => (word, FileMode::Append),
                Target::Here(number) => {
                    let texts = self.here_texts;
                    self.value(&texts[*number]);
                    self.emit(Op::Here(descriptor));
                    continue;
                }
                Target::Same(of) => {
                    self.emit(Op::Duplicate {
                        descriptor,
                        of: *of,
                    });
                    continue;
                }
                Target::Closed => {
                    self.emit(Op::Close(descriptor));
                    continue;
                }
            };
            self.value(word);
            self.at(redirection.at);
            self.emit(Op::File { descriptor, mode });
        }
        Some(begin)
    }

    /// Assignments alone stay; in front of a command they end with it.
    fn simple(&mut self, command: &Command, simple: &Simple) {
        let temporary = !simple.words.is_empty();
        for (name, word) in &simple.assignments {
            self.value(word);
            let symbol = self.symbol(name);
            self.emit(if temporary {
                Op::AssignTemporary(symbol)
            } else {
                Op::Assign(symbol)
            });
        }
        let Some((name, arguments)) = simple.words.split_first() else {
            return;
        };
        self.emit(Op::Mark);
        let known = match name.parts.as_slice() {
            [Part::Literal { text, .. }] => Some(self.symbol(text)),
            _ => None,
        };
        if known.is_none() {
            self.argument(name);
        }
        for argument in arguments {
            self.argument(argument);
        }
        self.at(command.at);
        self.emit(known.map_or(Op::Call, Op::CallNamed));
        if !simple.assignments.is_empty() {
            self.emit(Op::EndTemporary(simple.assignments.len() as u32));
        }
    }

    fn if_command(&mut self, branches: &[(Block, Block)], otherwise: &Block) {
        let mut ends = Vec::new();
        for (condition, body) in branches {
            self.block(condition);
            let next = self.emit(Op::JumpIfFailed(0));
            self.block(body);
            ends.push(self.emit(Op::Jump(0)));
            self.patch(next);
        }
        self.block(otherwise);
        for end in ends {
            self.patch(end);
        }
    }

    fn while_command(&mut self, condition: &Block, body: &Block, until: bool) {
        let entered = self.emit(Op::Loop { exit: 0, again: 0 });
        self.patch_again(entered);
        let again = self.here();
        self.block(condition);
        let leave = self.emit(if until {
            Op::JumpIfSucceeded(0)
        } else {
            Op::JumpIfFailed(0)
        });
        self.block(body);
        self.emit(Op::Jump(again));
        self.patch(leave);
        self.patch(entered);
        self.emit(Op::EndLoop);
    }

    fn for_command(&mut self, variable: &[u8], words: Option<&[Word]>, body: &Block) {
        let symbol = self.symbol(variable);
        self.emit(Op::Mark);
        match words {
            Some(words) => {
                for word in words {
                    self.argument(word);
                }
            }
            None => {
                self.emit(Op::Positionals);
            }
        }
        self.emit(Op::Scope);
        self.emit(Op::Local(symbol));
        self.emit(Op::For);
        let entered = self.emit(Op::Loop { exit: 0, again: 0 });
        self.patch_again(entered);
        let again = self.here();
        let next = self.emit(Op::ForNext { symbol, exit: 0 });
        self.block(body);
        self.emit(Op::Jump(again));
        self.patch(next);
        self.patch(entered);
        self.emit(Op::EndLoop);
        self.emit(Op::EndFor);
        self.emit(Op::EndScope);
    }

    fn case_command(&mut self, word: &Word, arms: &[Arm]) {
        self.value(word);
        self.emit(Op::Case);
        let mut ends = Vec::new();
        for arm in arms {
            let mut hits = Vec::new();
            let (last, others) = match arm.patterns.split_last() {
                Some((last, others)) => (Some(last), others),
                None => (None, &arm.patterns[..]),
            };
            for pattern in others {
                hits.push(self.case_pattern(pattern));
            }
            let unless = last.and_then(|last| self.last_case_pattern(last));
            let miss = unless.unwrap_or_else(|| {
                hits.extend(last.map(|last| self.case_pattern(last)));
                self.emit(Op::Jump(0))
            });
            for hit in hits {
                self.patch(hit);
            }
            self.block(&arm.body);
            ends.push(self.emit(Op::Jump(0)));
            self.patch(miss);
        }
        for end in ends {
            self.patch(end);
        }
        self.emit(Op::EndCase);
    }

    fn sift_command(&mut self, kind: Kind, word: &Word, rules: &[Rule]) {
        let mut watched = Vec::new();
        self.variables_of(word, &mut watched);
        let watch = self.watch(watched);
        self.emit(Op::Sift(watch));
        let entered = self.emit(Op::Loop { exit: 0, again: 0 });
        let expression = self.here();
        self.value(word);
        self.emit(Op::SiftBody(kind));
        for rule in rules {
            self.at(rule.at);
            self.emit(Op::SiftLabel(expression));
            let miss = self.label(kind, &rule.label);
            self.block(&rule.body);
            self.patch(miss);
        }
        self.patch(entered);
        self.emit(Op::EndLoop);
        self.emit(Op::EndSift);
    }

    fn label(&mut self, kind: Kind, label: &Word) -> Place {
        let fixed = match label.parts.as_slice() {
            [] => self.pattern(kind, b""),
            [Part::Literal { text, .. }] => self.pattern(kind, text),
            _ => None,
        };
        if let Some(pattern) = fixed {
            return self.emit(Op::SiftTest {
                pattern,
                otherwise: 0,
            });
        }
        self.value(label);
        self.emit(Op::SiftTestDynamic(0))
    }
}
