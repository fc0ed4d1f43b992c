//! From the tree to operations.

use std::rc::Rc;

use super::{Code, Function, Op, Param, Place, Symbol, Symbols};
use crate::router::diagnostic::{Diagnostic, Source};
use crate::router::pattern::{Glob, Kind, Pattern};
use crate::router::syntax::Parsed;
use crate::router::syntax::ast::{self, At, Block, Parameter, Pipeline, Word};
use crate::router::value::Text;

/// Compiles a parsed script.
///
/// # Errors
/// When the configuration uses too many names.
pub fn compile(
    source: &Rc<Source>,
    parsed: &Parsed,
    symbols: &mut Symbols,
) -> Result<Rc<Code>, Diagnostic> {
    let mut compiler = Compiler::new(source, &parsed.here_texts, symbols);
    compiler.block(&parsed.block);
    let (code, full) = compiler.finish();
    if full {
        let message = "too many names of variables and functions";
        return Err(Diagnostic::new(source, 0, message));
    }
    Ok(Rc::new(code))
}

/// Builds one [`Code`].
pub(super) struct Compiler<'a> {
    source: &'a Rc<Source>,
    pub(super) here_texts: &'a [Word],
    symbols: &'a mut Symbols,
    code: Code,
    at: At,
    full: bool,
}

impl<'a> Compiler<'a> {
    fn new(source: &'a Rc<Source>, here_texts: &'a [Word], symbols: &'a mut Symbols) -> Self {
        Self {
            source,
            here_texts,
            symbols,
            code: Code {
                ops: Vec::new(),
                places: Vec::new(),
                source: Rc::clone(source),
                texts: Vec::new(),
                patterns: Vec::new(),
                globs: Vec::new(),
                watches: Vec::new(),
                functions: Vec::new(),
                blocks: Vec::new(),
                made: Vec::new(),
            },
            at: 0,
            full: false,
        }
    }

    fn finish(mut self) -> (Code, bool) {
        self.emit(Op::Return);
        (self.code, self.full)
    }

    /// A code of its own inside this one.
    fn inner(&mut self, build: impl FnOnce(&mut Compiler<'_>)) -> Rc<Code> {
        let mut inner = Compiler::new(self.source, self.here_texts, self.symbols);
        inner.at = self.at;
        build(&mut inner);
        let (code, full) = inner.finish();
        self.full |= full;
        self.code.made.extend_from_slice(&code.made);
        Rc::new(code)
    }

    pub(super) fn at(&mut self, at: At) {
        self.at = at;
    }

    pub(super) fn here(&self) -> Place {
        self.code.ops.len() as Place
    }

    pub(super) fn emit(&mut self, op: Op) -> Place {
        self.code.ops.push(op);
        self.code.places.push(self.at);
        self.here() - 1
    }

    /// Makes the jump at `place` go to what comes next.
    pub(super) fn patch(&mut self, place: Place) {
        let here = self.here();
        match &mut self.code.ops[place as usize] {
            Op::Jump(to)
            | Op::JumpIfFailed(to)
            | Op::JumpIfSucceeded(to)
            | Op::JumpIfUnset { to, .. }
            | Op::Redirect(to)
            | Op::CaseMatch(to)
            | Op::CaseFixed { to, .. }
            | Op::CaseUnless { to, .. }
            | Op::SiftTestDynamic(to)
            | Op::SiftTest { otherwise: to, .. }
            | Op::ForNext { exit: to, .. }
            | Op::Loop { exit: to, .. } => *to = here,
            op => unreachable!("{op:?} goes nowhere"),
        }
    }

    /// Where the next round of the loop opened at `place` begins.
    pub(super) fn patch_again(&mut self, place: Place) {
        let here = self.here();
        if let Op::Loop { again, .. } = &mut self.code.ops[place as usize] {
            *again = here;
        }
    }

    /// The symbol of a name; when the table is full, any: the compilation fails.
    pub(super) fn symbol(&mut self, name: &[u8]) -> Symbol {
        let symbol = self.symbols.intern(name).unwrap_or_else(|| {
            self.full = true;
            Symbol(0)
        });
        if !self.symbols.is_settled(symbol) && !self.code.made.contains(&symbol) {
            self.code.made.push(symbol);
        }
        symbol
    }

    pub(super) fn text(&mut self, text: &[u8]) -> u32 {
        if let Some(known) = self.code.texts.iter().position(|known| **known == *text) {
            return known as u32;
        }
        self.code.texts.push(Text::from(text));
        self.code.texts.len() as u32 - 1
    }

    pub(super) fn parameter(&mut self, parameter: &Parameter) -> Param {
        match parameter {
            Parameter::Named(name) => Param::Variable(self.symbol(name)),
            Parameter::Indirect(name) => Param::Indirect(self.symbol(name)),
            Parameter::Positional(number) => Param::Positional(*number),
            Parameter::Count => Param::Count,
            Parameter::CountOf(name) => Param::CountOf(self.symbol(name)),
            Parameter::Star => Param::Star,
            Parameter::At => Param::At,
            Parameter::Status => Param::Status,
            Parameter::Process => Param::Process,
            Parameter::Flags => Param::Flags,
        }
    }

    pub(super) fn pattern(&mut self, kind: Kind, text: &[u8]) -> Option<u32> {
        // The parser has compiled it before.
        let pattern = Pattern::new(kind, text).ok()?;
        self.code.patterns.push(pattern);
        Some(self.code.patterns.len() as u32 - 1)
    }

    pub(super) fn glob(&mut self, glob: Glob) -> u32 {
        self.code.globs.push(glob);
        self.code.globs.len() as u32 - 1
    }

    pub(super) fn watch(&mut self, symbols: Vec<Symbol>) -> u32 {
        self.code.watches.push(symbols);
        self.code.watches.len() as u32 - 1
    }

    pub(super) fn define(&mut self, function: &ast::Function) {
        let name = self.symbol(&function.name);
        let parameters = function
            .parameters
            .iter()
            .map(|name| self.symbol(name))
            .collect();
        let code = self.inner(|inner| inner.pipeline(&function.body));
        self.code.functions.push(Rc::new(Function {
            name,
            parameters,
            code,
        }));
        let number = self.code.functions.len() as u32 - 1;
        self.emit(Op::Define(number));
    }

    pub(super) fn subshell(&mut self, block: &Block) {
        let code = self.inner(|inner| inner.block(block));
        self.code.blocks.push(code);
        let number = self.code.blocks.len() as u32 - 1;
        self.emit(Op::Subshell(number));
    }

    pub(super) fn block(&mut self, block: &Block) {
        for chain in block {
            self.chain(chain);
        }
    }

    fn chain(&mut self, chain: &ast::Chain) {
        self.pipeline(&chain.first);
        let Some((junction, rest)) = &chain.rest else {
            return;
        };
        let skip = self.emit(match junction {
            ast::Junction::And => Op::JumpIfFailed(0),
            ast::Junction::Or => Op::JumpIfSucceeded(0),
        });
        self.chain(rest);
        self.patch(skip);
    }

    pub(super) fn pipeline(&mut self, pipeline: &Pipeline) {
        let Some((last, writers)) = pipeline.commands.split_last() else {
            return;
        };
        for (number, command) in writers.iter().enumerate() {
            self.emit(Op::Pipe);
            self.command(command);
            self.emit(if number == 0 {
                Op::PipeInput
            } else {
                Op::PipeNext
            });
        }
        self.command(last);
        if !writers.is_empty() {
            self.emit(Op::EndPipe);
        }
    }
}
