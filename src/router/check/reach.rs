//! What is never reached: behind a `return`, behind a label or pattern that takes everything.

use std::rc::Rc;

use super::calls::{Names, name_of};
use super::walk::{self, Visitor};
use super::{Script, warning};
use crate::router::diagnostic::{Diagnostic, Source};
use crate::router::syntax::ast::{
    Arm, Block, Chain, Command, CommandKind, Part, Rule, Simple, Word,
};

/// Warns about what a script never reaches.
pub(super) fn check(script: &Script, names: &Names, found: &mut Vec<Diagnostic>) {
    walk::script(
        script,
        &mut Reach {
            source: &script.source,
            leaves: Leaves { names },
            found,
        },
    );
}

struct Reach<'a> {
    source: &'a Rc<Source>,
    leaves: Leaves<'a>,
    found: &'a mut Vec<Diagnostic>,
}

impl Visitor for Reach<'_> {
    fn block(&mut self, block: &Block, in_loop: bool) {
        let mut chains = block.iter();
        let around = if in_loop {
            Around::Loop
        } else {
            Around::Nothing
        };
        let Some(leaving) = chains.find(|chain| self.leaves.chain(chain, around)) else {
            return;
        };
        if let Some(next) = chains.next() {
            let line = self.line(at_of(leaving));
            let message = format!("this is never reached: line {line} always leaves");
            self.warn(at_of(next), message);
        }
    }

    fn command(&mut self, command: &Command) {
        match &command.kind {
            CommandKind::Case { arms, .. } => self.arms(arms),
            CommandKind::Sift { rules, .. } => self.rules(rules),
            _ => {}
        }
    }
}

impl Reach<'_> {
    fn line(&self, at: u32) -> usize {
        self.source.line_column(at as usize).0
    }

    fn warn(&mut self, at: u32, message: String) {
        self.found.push(warning(self.source, at, message));
    }

    /// Of a case only the first pattern that fits is taken.
    fn arms(&mut self, arms: &[Arm]) {
        let mut seen: Vec<(Vec<u8>, u32)> = Vec::new();
        let mut all: Option<u32> = None;
        for pattern in arms.iter().flat_map(|arm| &arm.patterns) {
            if let Some(all) = all {
                let line = self.line(all);
                self.warn(
                    pattern.at,
                    format!("this pattern is never tried: '*' in line {line} takes everything"),
                );
                return;
            }
            if matches!(pattern.plain(), Some(b"*")) {
                all = Some(pattern.at);
                continue;
            }
            let Some(text) = fixed(pattern, true) else {
                continue;
            };
            match seen.iter().find(|(known, _)| *known == text) {
                Some((_, at)) => {
                    let line = self.line(*at);
                    self.warn(
                        pattern.at,
                        format!("this pattern stands in line {line} already"),
                    );
                }
                None => seen.push((text, pattern.at)),
            }
        }
    }

    /// A label is tried unless an earlier one that takes at least the same always leaves the sift.
    fn rules(&mut self, rules: &[Rule]) {
        let mut seen: Vec<(Vec<u8>, u32)> = Vec::new();
        for rule in rules {
            let text = fixed(&rule.label, false);
            let earlier = seen.iter().find(|(known, _)| {
                matches!(known.as_slice(), b".*" | b"(.*)") || text.as_ref() == Some(known)
            });
            if let Some((known, at)) = earlier {
                let known = String::from_utf8_lossy(known);
                let line = self.line(*at);
                self.warn(
                    rule.at,
                    format!("this label is never reached: '{known}' in line {line} takes the same and always leaves"),
                );
                return;
            }
            if let Some(text) = text
                && self.leaves.block(&rule.body, Around::Sift)
            {
                seen.push((text, rule.at));
            }
        }
    }
}

/// Where a chain begins.
fn at_of(chain: &Chain) -> u32 {
    chain.first.commands.first().map_or(0, |command| command.at)
}

/// The text of a pattern without expansions; with marks what is quoted differs from what is not.
fn fixed(word: &Word, marks: bool) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    for part in &word.parts {
        let Part::Literal {
            text: literal,
            quoted,
        } = part
        else {
            return None;
        };
        for byte in literal {
            if marks && *quoted && !byte.is_ascii_alphanumeric() {
                text.push(b'\\');
            }
            text.push(*byte);
        }
    }
    Some(text)
}

/// What a block stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    /// `break` ends nothing.
    Nothing,
    Loop,
    /// `continue` tests the label again and may go on behind it.
    Sift,
}

/// Whether commands always leave what they stand in.
struct Leaves<'a> {
    names: &'a Names,
}

impl Leaves<'_> {
    fn block(&self, block: &Block, around: Around) -> bool {
        block.iter().any(|chain| self.chain(chain, around))
    }

    /// `false || return` may leave or not; what runs first always runs.
    fn chain(&self, chain: &Chain, around: Around) -> bool {
        match chain.first.commands.as_slice() {
            [command] if command.redirections.is_empty() => self.command(command, around),
            _ => false,
        }
    }

    fn command(&self, command: &Command, around: Around) -> bool {
        match &command.kind {
            CommandKind::Simple(simple) => self.simple(simple, around),
            CommandKind::Group(block) => self.block(block, around),
            CommandKind::If {
                branches,
                otherwise,
            } => {
                branches.iter().all(|(_, body)| self.block(body, around))
                    && self.block(otherwise, around)
            }
            CommandKind::Case { arms, .. } => {
                let takes_all = arms
                    .iter()
                    .flat_map(|arm| &arm.patterns)
                    .any(|pattern| matches!(pattern.plain(), Some(b"*")));
                takes_all && arms.iter().all(|arm| self.block(&arm.body, around))
            }
            _ => false,
        }
    }

    fn simple(&self, simple: &Simple, around: Around) -> bool {
        let Some(name) = name_of(simple) else {
            return false;
        };
        if self.names.contains(name) {
            return false;
        }
        match name {
            b"return" | b"returns" => true,
            // With a wrong argument it does nothing.
            b"exit" => simple.words.len() == 1,
            b"break" => around != Around::Nothing && simple.words.len() == 1,
            b"continue" => around == Around::Loop && simple.words.len() == 1,
            _ => false,
        }
    }
}
