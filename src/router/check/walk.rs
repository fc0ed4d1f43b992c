//! Every block and command of a tree, wherever it stands.

use super::Script;
use crate::router::syntax::ast::{Block, Chain, Command, CommandKind, Part, Simple, Target, Word};

/// Sees parts of a tree; what it does not care about it leaves out.
pub(super) trait Visitor {
    /// Commands one after the other. `in_loop`: `break` ends something around them.
    fn block(&mut self, _block: &Block, _in_loop: bool) {}
    /// A command of any kind.
    fn command(&mut self, _command: &Command) {}
}

/// Shows everything in a script.
pub(super) fn script(script: &Script, visitor: &mut impl Visitor) {
    block(&script.parsed.block, false, visitor);
    for text in &script.parsed.here_texts {
        word(text, visitor);
    }
}

fn block(commands: &Block, in_loop: bool, visitor: &mut impl Visitor) {
    visitor.block(commands, in_loop);
    for chain in commands {
        walk_chain(chain, in_loop, visitor);
    }
}

fn walk_chain(chain: &Chain, in_loop: bool, visitor: &mut impl Visitor) {
    for one in &chain.first.commands {
        command(one, in_loop, visitor);
    }
    if let Some((_, rest)) = &chain.rest {
        walk_chain(rest, in_loop, visitor);
    }
}

fn command(command: &Command, in_loop: bool, visitor: &mut impl Visitor) {
    visitor.command(command);
    for redirection in &command.redirections {
        match &redirection.target {
            Target::Read(name) | Target::Write(name) | Target::Append(name) => word(name, visitor),
            Target::Here(_) | Target::Same(_) | Target::Closed => {}
        }
    }
    match &command.kind {
        CommandKind::Simple(simple) => simple_command(simple, visitor),
        CommandKind::Function(function) => {
            for one in &function.body.commands {
                self::command(one, false, visitor);
            }
        }
        CommandKind::Group(commands) => block(commands, in_loop, visitor),
        CommandKind::Subshell(commands) => block(commands, false, visitor),
        CommandKind::If {
            branches,
            otherwise,
        } => {
            for (condition, body) in branches {
                block(condition, in_loop, visitor);
                block(body, in_loop, visitor);
            }
            block(otherwise, in_loop, visitor);
        }
        CommandKind::While {
            condition, body, ..
        } => {
            block(condition, true, visitor);
            block(body, true, visitor);
        }
        CommandKind::For { words, body, .. } => {
            words.iter().flatten().for_each(|one| word(one, visitor));
            block(body, true, visitor);
        }
        CommandKind::Case { word: of, arms } => {
            word(of, visitor);
            for arm in arms {
                arm.patterns
                    .iter()
                    .for_each(|pattern| word(pattern, visitor));
                block(&arm.body, in_loop, visitor);
            }
        }
        CommandKind::Sift {
            word: of, rules, ..
        } => {
            word(of, visitor);
            for rule in rules {
                word(&rule.label, visitor);
                block(&rule.body, true, visitor);
            }
        }
        CommandKind::Local(_) => {}
    }
}

fn simple_command(simple: &Simple, visitor: &mut impl Visitor) {
    for (_, value) in &simple.assignments {
        word(value, visitor);
    }
    for one in &simple.words {
        word(one, visitor);
    }
}

fn word(of: &Word, visitor: &mut impl Visitor) {
    for part in &of.parts {
        match part {
            Part::Conditional { word: operand, .. } => word(operand, visitor),
            Part::Command { block: inner, .. } => block(inner, false, visitor),
            Part::List(words) => words.iter().for_each(|one| word(one, visitor)),
            Part::Literal { .. } | Part::Parameter { .. } | Part::Group(_) => {}
        }
    }
}
