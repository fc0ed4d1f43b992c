//! Variables, functions and what else a script can set.
//!
//! A variable has one slot; `local` puts the old value aside until the scope ends (dynamic scoping). What is assigned
//! outside all local scopes is logged, so that a configuration can be put back to what it was when it was loaded.

use std::rc::Rc;

use crate::router::builtin::{self, Builtin};
use crate::router::code::{Function, Symbol, Symbols};
use crate::router::value::Value;

/// What a name runs.
#[derive(Clone)]
pub enum Callable {
    /// A function of the script.
    Function(Rc<Function>),
    /// A relation: its number.
    Relation(usize),
}

/// See the module.
pub(in crate::router) struct State {
    pub(in crate::router) symbols: Symbols,
    variables: Vec<Variable>,
    callables: Vec<Option<Callable>>,
    builtins: Vec<Option<&'static Builtin>>,
    /// Values that `local` put aside.
    locals: Vec<(Symbol, Option<Value>)>,
    /// Where scopes begin in `locals`.
    scopes: Vec<usize>,
    /// Values that `x=v command` put aside.
    temporaries: Vec<(Symbol, Option<Value>)>,
    /// Bytes that separate words.
    pub(in crate::router) separators: [bool; 256],
    pub(in crate::router) options: Options,
    /// What programs see besides exported variables.
    pub(in crate::router) environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// Commands of `trap`, by signal number.
    pub(in crate::router) traps: Vec<(u32, Rc<[u8]>)>,
    pub(in crate::router) gensym: u64,
    log: Log,
    known: Known,
}

#[derive(Clone, Default)]
struct Variable {
    value: Option<Value>,
    exported: bool,
    /// Scopes in which it is local now.
    local: u32,
    /// It has been logged.
    logged: bool,
}

/// What `set` changes.
#[derive(Clone, Default)]
pub(in crate::router) struct Options {
    pub(in crate::router) export_all: bool,
    pub(in crate::router) exit_on_failure: bool,
    pub(in crate::router) unset_is_error: bool,
    pub(in crate::router) show_commands: bool,
}

/// What changed since the configuration was loaded.
#[derive(Default)]
struct Log {
    on: bool,
    variables: Vec<(Symbol, Option<Value>)>,
    callables: Vec<(Symbol, Option<Callable>)>,
}

/// Names that mean something to the machine.
#[derive(Clone, Copy)]
struct Known {
    separators: Symbol,
}

/// The arguments of a command: a part of the machine's stack.
#[derive(Clone, Copy, Debug)]
pub struct Arguments {
    /// The first one.
    pub(in crate::router) start: usize,
}

impl State {
    pub(super) fn new() -> Self {
        let mut symbols = Symbols::default();
        let separators = symbols.intern(b"IFS").unwrap_or(Symbol(0));
        let mut state = Self {
            symbols,
            variables: Vec::new(),
            callables: Vec::new(),
            builtins: Vec::new(),
            locals: Vec::new(),
            scopes: Vec::new(),
            temporaries: Vec::new(),
            separators: [false; 256],
            options: Options::default(),
            environment: Vec::new(),
            traps: Vec::new(),
            gensym: 0,
            log: Log::default(),
            known: Known { separators },
        };
        state.grow();
        state.assign(separators, Value::from(" \t\n"));
        state
    }

    /// Makes room for all symbols.
    pub(super) fn grow(&mut self) {
        let count = self.symbols.len();
        if count > self.variables.len() {
            self.variables.resize(count, Variable::default());
            self.callables.resize(count, None);
            self.builtins.resize(count, None);
        }
    }

    pub(super) fn add_builtins(&mut self) {
        for builtin in builtin::TABLE {
            if let Some(symbol) = self.symbols.intern(builtin.name.as_bytes()) {
                self.grow();
                self.builtins[symbol.0 as usize] = Some(builtin);
            }
        }
    }

    pub(in crate::router) fn value(&self, symbol: Symbol) -> Option<&Value> {
        self.variables[symbol.0 as usize].value.as_ref()
    }

    pub(in crate::router) fn assign(&mut self, symbol: Symbol, value: Value) {
        self.log_variable(symbol);
        if symbol == self.known.separators {
            self.separate_at(value.bytes());
        }
        let variable = &mut self.variables[symbol.0 as usize];
        variable.exported |= self.options.export_all;
        variable.value = Some(value);
    }

    pub(in crate::router) fn unset(&mut self, symbol: Symbol) {
        self.log_variable(symbol);
        self.variables[symbol.0 as usize].value = None;
    }

    fn restore(&mut self, symbol: Symbol, value: Option<Value>) {
        if symbol == self.known.separators {
            self.separate_at(value.as_ref().map_or(b"", Value::bytes));
        }
        self.variables[symbol.0 as usize].value = value;
    }

    fn separate_at(&mut self, bytes: &[u8]) {
        self.separators = [false; 256];
        for byte in bytes {
            self.separators[usize::from(*byte)] = true;
        }
    }

    fn log_variable(&mut self, symbol: Symbol) {
        let variable = &mut self.variables[symbol.0 as usize];
        if self.log.on && variable.local == 0 && !variable.logged {
            variable.logged = true;
            self.log.variables.push((symbol, variable.value.clone()));
        }
    }

    pub(in crate::router) fn export(&mut self, symbol: Symbol) {
        self.variables[symbol.0 as usize].exported = true;
    }

    /// Exported variables that are texts.
    pub(in crate::router) fn exported(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.named(|variable| variable.exported)
            .filter_map(|(name, value)| Some((name, value.text()?.to_vec())))
            .collect()
    }

    /// Variables that are set.
    pub(in crate::router) fn all_variables(&self) -> Vec<(Vec<u8>, Value)> {
        self.named(|_| true).collect()
    }

    fn named(&self, which: impl Fn(&Variable) -> bool) -> impl Iterator<Item = (Vec<u8>, Value)> {
        self.variables
            .iter()
            .enumerate()
            .filter_map(move |(number, variable)| {
                let value = variable.value.clone().filter(|_| which(variable))?;
                Some((self.symbols.name(Symbol(number as u32)).to_vec(), value))
            })
    }

    pub(in crate::router) fn callable(&self, symbol: Symbol) -> Option<Callable> {
        self.callables[symbol.0 as usize].clone()
    }

    pub(in crate::router) fn define(&mut self, symbol: Symbol, callable: Option<Callable>) {
        let slot = &mut self.callables[symbol.0 as usize];
        let old = std::mem::replace(slot, callable);
        if self.log.on {
            self.log.callables.push((symbol, old));
        }
    }

    pub(in crate::router) fn builtin(&self, symbol: Symbol) -> Option<&'static Builtin> {
        self.builtins[symbol.0 as usize]
    }

    pub(super) fn scope(&mut self) {
        self.scopes.push(self.locals.len());
    }

    pub(super) fn end_scope(&mut self) {
        let start = self.scopes.pop().unwrap_or(0);
        while self.locals.len() > start
            && let Some((symbol, value)) = self.locals.pop()
        {
            self.variables[symbol.0 as usize].local -= 1;
            self.restore(symbol, value);
        }
    }

    pub(super) fn scopes(&self) -> usize {
        self.scopes.len()
    }

    /// Makes the variable local to the current scope, or a plain one outside all scopes.
    pub(super) fn local(&mut self, symbol: Symbol, value: Value) {
        if self.scopes.is_empty() {
            self.assign(symbol, value);
            return;
        }
        let variable = &mut self.variables[symbol.0 as usize];
        variable.local += 1;
        let old = std::mem::replace(&mut variable.value, Some(value));
        self.locals.push((symbol, old));
    }

    pub(super) fn assign_temporary(&mut self, symbol: Symbol, value: Value) {
        let old = self.value(symbol).cloned();
        self.temporaries.push((symbol, old));
        self.assign(symbol, value);
    }

    /// Variables that the next command has for itself.
    pub(super) fn temporary_names(&self, count: usize) -> Vec<Symbol> {
        let start = self.temporaries.len().saturating_sub(count);
        self.temporaries[start..]
            .iter()
            .map(|(symbol, _)| *symbol)
            .collect()
    }

    pub(super) fn end_temporaries(&mut self, down_to: usize) {
        while self.temporaries.len() > down_to
            && let Some((symbol, value)) = self.temporaries.pop()
        {
            self.restore(symbol, value);
        }
    }

    pub(super) fn temporaries(&self) -> usize {
        self.temporaries.len()
    }

    /// From now on changes are logged.
    pub(super) fn keep(&mut self) {
        self.log = Log {
            on: true,
            ..Log::default()
        };
        for variable in &mut self.variables {
            variable.logged = false;
            if let Some(value) = &variable.value {
                value.freeze();
            }
        }
    }

    /// The same, to run beside it.
    pub(super) fn fork(&self) -> Self {
        Self {
            symbols: self.symbols.clone(),
            variables: self.variables.clone(),
            callables: self.callables.clone(),
            builtins: self.builtins.clone(),
            locals: Vec::new(),
            scopes: Vec::new(),
            temporaries: Vec::new(),
            separators: self.separators,
            options: self.options.clone(),
            environment: self.environment.clone(),
            traps: Vec::new(),
            gensym: self.gensym,
            log: Log {
                on: true,
                ..Log::default()
            },
            known: self.known,
        }
    }

    /// Undoes what changed since [`Self::keep`].
    pub(super) fn reset(&mut self) {
        for (symbol, value) in std::mem::take(&mut self.log.variables) {
            self.variables[symbol.0 as usize].logged = false;
            self.restore(symbol, value);
        }
        while let Some((symbol, callable)) = self.log.callables.pop() {
            self.callables[symbol.0 as usize] = callable;
        }
        self.gensym = 0;
    }

    /// Everything that a subshell may change.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            variables: self
                .variables
                .iter()
                .map(|variable| variable.value.clone())
                .collect(),
            callables: self.callables.clone(),
            separators: self.separators,
            options: self.options.clone(),
            traps: self.traps.clone(),
        }
    }

    pub(super) fn back_to(&mut self, snapshot: Snapshot) {
        let mut values = snapshot.variables.into_iter();
        for variable in &mut self.variables {
            variable.value = values.next().flatten();
        }
        let count = self.callables.len();
        self.callables = snapshot.callables;
        self.callables.resize(count, None);
        self.separators = snapshot.separators;
        self.options = snapshot.options;
        self.traps = snapshot.traps;
    }

    /// Bytes of values that are alive in here.
    pub(super) fn roots(&self) -> impl Iterator<Item = &Value> {
        let variables = self
            .variables
            .iter()
            .filter_map(|variable| variable.value.as_ref());
        let aside = self
            .locals
            .iter()
            .chain(&self.temporaries)
            .filter_map(|(_, value)| value.as_ref());
        variables.chain(aside)
    }
}

/// See [`State::snapshot`].
pub(in crate::router) struct Snapshot {
    variables: Vec<Option<Value>>,
    callables: Vec<Option<Callable>>,
    separators: [bool; 256],
    options: Options,
    traps: Vec<(u32, Rc<[u8]>)>,
}
