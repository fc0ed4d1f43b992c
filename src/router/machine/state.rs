//! Variables, functions and what else a script can set.
//!
//! A variable has one slot; `local` and `x=v command` put the old value aside until scope or command end (dynamic
//! scoping). What is assigned outside all local scopes is logged, so that a configuration can be put back to what it
//! was when it was loaded.

use std::rc::Rc;

use super::members::Members;
use crate::router::builtin::{self, Builtin};
use crate::router::code::{Function, Symbol, Symbols};
use crate::router::value::{List, Value};

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
    /// Values that were put aside, in order.
    aside: Vec<Aside>,
    /// Where scopes begin in `aside`.
    scopes: Vec<usize>,
    /// Bytes that separate words.
    pub(in crate::router) separators: [bool; 256],
    pub(in crate::router) options: Options,
    /// What programs see besides exported variables.
    environment: Rc<Environment>,
    /// Commands of `trap`, by signal number.
    pub(in crate::router) traps: Vec<(u32, Rc<[u8]>)>,
    pub(in crate::router) gensym: u64,
    pub(super) members: Members,
    log: Log,
    kept: Kept,
    pub(super) known: Known,
    /// What `local` gives, for all variables until somebody looks.
    nil: List,
}

/// Names and values.
pub(super) type Environment = Vec<(Vec<u8>, Vec<u8>)>;

/// A value that comes back.
#[derive(Clone)]
struct Aside {
    symbol: Symbol,
    value: Option<Value>,
    until: Until,
}

/// When a value comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// At the end of a scope.
    ScopeEnds,
    /// At the end of a command.
    CommandEnds,
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
#[derive(Clone, Default)]
struct Log {
    on: bool,
    variables: Vec<(Symbol, Option<Value>)>,
    exported: Vec<Symbol>,
    callables: Vec<(Symbol, Option<Callable>)>,
}

/// What is simply copied when the configuration was loaded.
#[derive(Clone, Default)]
struct Kept {
    names: usize,
    options: Options,
    environment: Rc<Environment>,
    gensym: u64,
}

/// Names that mean something to the machine.
#[derive(Clone, Copy)]
pub(super) struct Known {
    separators: Symbol,
    /// `defer`
    pub(super) defer: Symbol,
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
        let mut known = |name: &[u8]| symbols.intern(name).unwrap_or(Symbol(0));
        let known = Known {
            separators: known(b"IFS"),
            defer: known(b"defer"),
        };
        let mut state = Self {
            symbols,
            variables: Vec::new(),
            callables: Vec::new(),
            builtins: Vec::new(),
            aside: Vec::new(),
            scopes: Vec::new(),
            separators: [false; 256],
            options: Options::default(),
            environment: Rc::default(),
            traps: Vec::new(),
            gensym: 0,
            members: Members::default(),
            log: Log::default(),
            kept: Kept::default(),
            known,
            nil: frozen_nil(),
        };
        state.grow();
        state.assign(known.separators, Value::from(" \t\n"));
        state
    }

    /// Makes room for all symbols.
    pub(super) fn grow(&mut self) {
        let count = self.symbols.len();
        let known = self.variables.len();
        if count > known {
            self.variables.resize(count, Variable::default());
            self.set_members(known);
            self.callables.resize(count, None);
            self.builtins.resize(count, None);
        }
    }

    /// Names from this number on are new to the variables: of members of lists they have values.
    fn set_members(&mut self, from: usize) {
        for (number, variable) in self.variables.iter_mut().enumerate().skip(from) {
            variable.value = self.members.list(self.symbols.name(Symbol(number as u32)));
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

    /// Its value, for whoever may keep it.
    #[inline(always)]
    pub(super) fn copy(&mut self, symbol: Symbol) -> Option<Value> {
        let value = self.variables[symbol.0 as usize].value.as_mut()?;
        if let Value::List(list) = value
            && list.is_same(&self.nil)
        {
            // From here on it is a list of its own.
            *list = List::new(Vec::new());
        }
        Some(value.clone())
    }

    pub(in crate::router) fn assign(&mut self, symbol: Symbol, value: Value) {
        self.log_variable(symbol);
        if symbol == self.known.separators {
            self.separate_at(value.bytes());
        }
        self.variables[symbol.0 as usize].value = Some(value);
        if self.options.export_all {
            self.export(symbol);
        }
    }

    pub(in crate::router) fn unset(&mut self, symbol: Symbol) {
        self.log_variable(symbol);
        self.variables[symbol.0 as usize].value = None;
        let name = self.symbols.name(symbol);
        if self.environment.iter().any(|(known, _)| *known == **name) {
            Rc::make_mut(&mut self.environment).retain(|(known, _)| *known != **name);
        }
    }

    /// What programs see besides exported variables.
    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(super) fn add_environment(&mut self, name: &[u8], value: &[u8]) {
        Rc::make_mut(&mut self.environment).push((name.to_vec(), value.to_vec()));
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
        let variable = &mut self.variables[symbol.0 as usize];
        if !std::mem::replace(&mut variable.exported, true) && self.log.on {
            self.log.exported.push(symbol);
        }
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
        self.scopes.push(self.aside.len());
    }

    pub(super) fn end_scope(&mut self) {
        let start = self.scopes.pop().unwrap_or(0);
        self.take_back(start);
    }

    /// How many scopes are open, and how many values were put aside.
    pub(super) fn depth(&self) -> (usize, usize) {
        (self.scopes.len(), self.aside.len())
    }

    /// Ends scopes and commands that began since [`Self::depth`] was this. What `local` did in a scope that stays
    /// open stays too.
    pub(super) fn leave(&mut self, (scopes, aside): (usize, usize)) {
        if let Some(start) = self.scopes.get(scopes).copied() {
            self.scopes.truncate(scopes);
            self.take_back(start);
        }
        let begun = self.aside.iter().skip(aside);
        let commands = begun.filter(|aside| aside.until == Until::CommandEnds);
        self.end_temporaries(commands.count());
    }

    fn take_back(&mut self, down_to: usize) {
        while self.aside.len() > down_to
            && let Some(aside) = self.aside.pop()
        {
            if aside.until == Until::ScopeEnds {
                self.variables[aside.symbol.0 as usize].local -= 1;
            }
            self.restore(aside.symbol, aside.value);
        }
    }

    /// Makes the variable local to the current scope, or a plain one outside all scopes.
    pub(super) fn local(&mut self, symbol: Symbol, value: Value) {
        if self.scopes.is_empty() {
            self.assign(symbol, value);
            return;
        }
        let variable = &mut self.variables[symbol.0 as usize];
        variable.local += 1;
        let old = variable.value.replace(value);
        self.aside.push(Aside {
            symbol,
            value: old,
            until: Until::ScopeEnds,
        });
    }

    /// Makes the variable local, and nil.
    pub(super) fn local_nil(&mut self, symbol: Symbol) {
        self.local(symbol, Value::List(self.nil.clone()));
    }

    pub(super) fn assign_temporary(&mut self, symbol: Symbol, value: Value) {
        let old = self.value(symbol).cloned();
        self.aside.push(Aside {
            symbol,
            value: old,
            until: Until::CommandEnds,
        });
        self.assign(symbol, value);
    }

    /// Variables that commands have for themselves now.
    pub(super) fn temporary_names(&self) -> impl Iterator<Item = Symbol> {
        self.aside
            .iter()
            .filter(|aside| aside.until == Until::CommandEnds)
            .map(|aside| aside.symbol)
    }

    /// A command with so many variables of its own has ended.
    pub(super) fn end_temporaries(&mut self, count: usize) {
        for _ in 0..count {
            let at = self
                .aside
                .iter()
                .rposition(|aside| aside.until == Until::CommandEnds);
            let Some(at) = at else {
                return;
            };
            let ended = self.aside.remove(at);
            // What the command made local (`x=1 eval 'local x'`) is on top of it, and gives the value back later.
            match self.aside[at..]
                .iter_mut()
                .find(|aside| aside.symbol == ended.symbol)
            {
                Some(above) => above.value = ended.value,
                None => self.restore(ended.symbol, ended.value),
            }
        }
    }

    /// From now on changes are logged.
    pub(super) fn keep(&mut self) {
        self.symbols.settle();
        self.log = Log {
            on: true,
            ..Log::default()
        };
        self.kept = Kept {
            names: self.symbols.len(),
            options: self.options.clone(),
            environment: Rc::clone(&self.environment),
            gensym: self.gensym,
        };
        for variable in &mut self.variables {
            variable.logged = false;
        }
        self.freeze();
    }

    /// Lists of now are copied before they are changed.
    fn freeze(&self) {
        for variable in &self.variables {
            if let Some(value) = &variable.value {
                value.freeze();
            }
        }
    }

    /// What was kept, to run beside it.
    pub(super) fn fork(&self) -> Self {
        let mut fork = Self {
            symbols: self.symbols.clone(),
            variables: self.variables.clone(),
            callables: self.callables.clone(),
            builtins: self.builtins.clone(),
            aside: self.aside.clone(),
            scopes: self.scopes.clone(),
            separators: self.separators,
            options: self.options.clone(),
            environment: Rc::clone(&self.environment),
            traps: Vec::new(),
            gensym: self.gensym,
            members: Members::default(),
            log: self.log.clone(),
            kept: self.kept.clone(),
            known: self.known,
            nil: self.nil.clone(),
        };
        fork.reset();
        fork
    }

    /// Undoes what changed since [`Self::keep`].
    pub(super) fn reset(&mut self) {
        self.leave((0, 0));
        let mut changed = std::mem::take(&mut self.log.variables);
        for (symbol, value) in changed.drain(..) {
            self.variables[symbol.0 as usize].logged = false;
            self.restore(symbol, value);
        }
        self.log.variables = changed;
        for symbol in std::mem::take(&mut self.log.exported) {
            self.variables[symbol.0 as usize].exported = false;
        }
        while let Some((symbol, callable)) = self.log.callables.pop() {
            self.callables[symbol.0 as usize] = callable;
        }
        self.traps.clear();
        if self.log.on {
            self.options = self.kept.options.clone();
            self.environment = Rc::clone(&self.kept.environment);
            self.gensym = self.kept.gensym;
            self.forget_names();
        }
    }

    /// Names that were made since [`Self::keep`].
    pub(super) fn new_names(&self) -> usize {
        self.symbols.len() - self.kept.names
    }

    /// Names that were made since [`Self::keep`], for instance out of the text of a message.
    fn forget_names(&mut self) {
        let count = self.kept.names;
        self.members = Members::default();
        self.symbols.truncate(count);
        self.variables.truncate(count);
        self.callables.truncate(count);
        self.builtins.truncate(count);
    }

    /// Everything that a subshell may change.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.freeze();
        Snapshot {
            variables: self
                .variables
                .iter()
                .map(|variable| (variable.value.clone(), variable.exported))
                .collect(),
            environment: Rc::clone(&self.environment),
            callables: self.callables.clone(),
            separators: self.separators,
            options: self.options.clone(),
            traps: self.traps.clone(),
        }
    }

    pub(super) fn back_to(&mut self, snapshot: Snapshot) {
        let count = snapshot.variables.len();
        let mut values = snapshot.variables.into_iter();
        for variable in &mut self.variables {
            (variable.value, variable.exported) = values.next().unwrap_or_default();
        }
        self.set_members(count);
        self.environment = snapshot.environment;
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
        let aside = self.aside.iter().filter_map(|aside| aside.value.as_ref());
        variables.chain(aside)
    }
}

/// A list that is copied before it is changed.
fn frozen_nil() -> List {
    let nil = Value::nil();
    nil.freeze();
    match nil {
        Value::List(list) => list,
        Value::Text(_) => unreachable!("nil is a list"),
    }
}

/// See [`State::snapshot`].
pub(in crate::router) struct Snapshot {
    variables: Vec<(Option<Value>, bool)>,
    environment: Rc<Environment>,
    callables: Vec<Option<Callable>>,
    separators: [bool; 256],
    options: Options,
    traps: Vec<(u32, Rc<[u8]>)>,
}
