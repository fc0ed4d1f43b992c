//! What built-ins use of the machine.

use std::rc::Rc;

use super::output::Returned;
use super::state::{Arguments, Callable};
use super::{Evaluation, Flow, Limit, Pause, Turn};
use crate::router::code::{Code, Op, Symbol};
use crate::router::diagnostic::Source;
use crate::router::value::{List, Text, Value};

/// What scripts set for the router around them, and what it tells them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// Own name.
    pub hostname: Option<Vec<u8>>,
    /// The message that is routed is a report about another.
    pub error_message: bool,
    /// While an address of a header is rewritten: whether it is one of the sender.
    pub of_sender: Option<bool>,
    /// Somebody types the script.
    pub interactive: bool,
    /// Number of the account without rights.
    pub nobody: u32,
    /// Number of the account that the router runs as.
    pub user: u32,
    /// Events that keep a copy of the message.
    pub squirrels: Vec<&'static str>,
    /// File of addresses with errors.
    pub error_addresses: Option<Vec<u8>>,
    /// The script's `process` runs, and whether it has called `rfc822`; none: it does not run.
    pub processed: Option<bool>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            hostname: None,
            error_message: false,
            of_sender: None,
            interactive: false,
            nobody: 65534,
            user: 0,
            squirrels: Vec::new(),
            error_addresses: None,
            processed: None,
        }
    }
}

/// Compiling a byte takes as long as looking at so many.
pub(super) const COMPILE_BYTES: usize = 16;

/// Errors of scripts that scripts ran which are kept; all are written.
const ERRORS_MAX: usize = 1000;

impl Evaluation {
    pub(in crate::router) fn argument(&self, arguments: Arguments, index: usize) -> Option<&Value> {
        self.arguments.get(arguments.start + index)
    }

    pub(in crate::router) fn take_arguments(&mut self, arguments: Arguments) -> Vec<Value> {
        self.arguments.split_off(arguments.start)
    }

    pub(in crate::router) fn drain_arguments(
        &mut self,
        arguments: Arguments,
    ) -> std::vec::Drain<'_, Value> {
        self.arguments.drain(arguments.start..)
    }

    /// Returns a value, or none: then the command fails.
    pub(in crate::router) fn give(&mut self, value: Option<Value>) -> Flow {
        self.status = i32::from(value.is_none());
        self.returns(value.map_or(Returned::Nothing, Returned::One));
        Ok(())
    }

    /// Returns several values; of none, the command fails.
    pub(in crate::router) fn give_all(&mut self, returned: Returned) -> Flow {
        self.count_values(returned.values().len());
        let empty = returned.first().is_none();
        self.status = i32::from(empty);
        self.returns(if empty { Returned::Nothing } else { returned });
        Ok(())
    }

    pub(in crate::router) fn separators(&self) -> [bool; 256] {
        self.state.separators
    }

    pub(in crate::router) fn variable(&self, symbol: Symbol) -> Option<&Value> {
        self.state.value(symbol)
    }

    /// What `get` says of the attributes of a member of a list; none: the name is that of any other variable.
    pub(in crate::router) fn member_attribute(&mut self, name: &[u8], key: &Text) -> Option<Value> {
        self.state.member_attribute(name, key)
    }

    /// Seconds since 1970.
    pub(in crate::router) fn seconds(&self) -> u64 {
        self.now.wall_ms / 1000
    }

    /// Whether any script names it.
    pub(in crate::router) fn knows_name(&self, name: &[u8]) -> bool {
        self.state.symbols.lookup(name).is_some()
    }

    pub(in crate::router) fn set(&mut self, symbol: Symbol, value: Value) {
        self.state.assign(symbol, value);
        self.sift_sees(symbol);
    }

    /// The list that is the variable's value, to be changed: a copy of one that belongs to the configuration.
    pub(in crate::router) fn own_list(&mut self, symbol: Symbol) -> List {
        match self.state.value(symbol) {
            Some(Value::List(list)) if !list.is_frozen() => list.clone(),
            value => {
                let items = match value {
                    Some(Value::List(list)) => list.items().clone(),
                    _ => Vec::new(),
                };
                self.limits
                    .allocate(items.len() * super::limits::VALUE_BYTES);
                let list = List::new(items);
                self.state.assign(symbol, Value::List(list.clone()));
                list
            }
        }
    }

    pub(in crate::router) fn unset(&mut self, symbol: Symbol) {
        self.state.unset(symbol);
    }

    pub(in crate::router) fn export(&mut self, symbol: Symbol) {
        self.state.export(symbol);
    }

    /// A list was changed in place.
    pub(in crate::router) fn touched(&mut self, symbol: Symbol) {
        self.sift_sees(symbol);
    }

    pub(in crate::router) fn count_values(&mut self, count: usize) {
        self.limits.allocate(count * super::limits::VALUE_BYTES);
    }

    pub(in crate::router) fn callable(&self, symbol: Symbol) -> Option<Callable> {
        self.state.callable(symbol)
    }

    pub(in crate::router) fn known_symbol(&self, name: &[u8]) -> Option<Symbol> {
        self.state.symbols.lookup(name)
    }

    /// Runs a built-in or program with the arguments from there on.
    pub(in crate::router) fn call_inner_with(&mut self, symbol: Symbol, start: usize) -> Flow {
        self.marks.push(start);
        self.call_inner(symbol)
    }

    pub(in crate::router) fn run_source(&mut self, source: &Rc<Source>) -> Flow {
        match self.compile_inner(source)? {
            Some(code) => self.enter_nested(code),
            None => Ok(()),
        }
    }

    /// Compiles a text that runs inside the current one; none: it has errors, which are reported.
    pub(super) fn compile_inner(&mut self, source: &Rc<Source>) -> Result<Option<Rc<Code>>, Pause> {
        self.limits.work(source.text.len() * COMPILE_BYTES);
        match self.compile(source) {
            Ok(code) => Ok(Some(code)),
            Err(_) if self.state.symbols.is_full() => Err(Pause::of(Turn::Stopped(Limit::Names))),
            Err(errors) => {
                for error in errors {
                    // While a configuration is loaded all errors are reported together.
                    if !self.collecting {
                        self.write_error(format!("{error}\n").as_bytes());
                    }
                    if self.errors.len() < ERRORS_MAX {
                        self.errors.push(error);
                    }
                }
                self.status = 7;
                Ok(None)
            }
        }
    }

    /// Ends what runs: a function, a file.
    pub(in crate::router) fn leave(&mut self) {
        self.leave_frame();
    }

    pub(in crate::router) fn traps(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        for (signal, command) in &self.state.traps {
            lines.extend_from_slice(format!("{signal}: ").as_bytes());
            lines.extend_from_slice(command);
            lines.push(b'\n');
        }
        lines
    }

    pub(in crate::router) fn set_trap(&mut self, signal: u32, command: Option<&Vec<u8>>) {
        self.state.traps.retain(|(known, _)| *known != signal);
        if let Some(command) = command {
            self.state.traps.push((signal, command.as_slice().into()));
            self.state.traps.sort_by_key(|(signal, _)| *signal);
        }
    }

    pub(in crate::router) fn shift(&mut self, count: usize) {
        if let Some(frame) = self.frame_mut() {
            let count = count.min(frame.positionals.len());
            frame.positionals.drain(..count);
        }
    }

    pub(in crate::router) fn positionals(&self) -> Vec<Vec<u8>> {
        let values = self
            .frame()
            .map(|frame| frame.positionals.as_slice())
            .unwrap_or_default();
        values.iter().map(|value| value.bytes().to_vec()).collect()
    }

    pub(in crate::router) fn set_positionals(&mut self, words: &[Vec<u8>]) {
        if let Some(frame) = self.frame_mut() {
            frame.positionals = words
                .iter()
                .map(|word| Value::from(word.as_slice()))
                .collect();
        }
    }

    /// `false`: a letter is no option.
    pub(in crate::router) fn set_options(&mut self, on: bool, letters: &[u8]) -> bool {
        let options = &mut self.state.options;
        for letter in letters {
            match letter {
                b'a' => options.export_all = on,
                b'e' => options.exit_on_failure = on,
                b'u' => options.unset_is_error = on,
                b'x' => options.show_commands = on,
                // Nothing is globbed, hashed or read line by line here.
                b'f' | b'h' | b'n' | b't' | b'v' | b'i' | b's' | b'k' => {}
                _ => return false,
            }
        }
        true
    }

    pub(in crate::router) fn variable_lines(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        for (name, value) in self.state.all_variables() {
            lines.extend_from_slice(&name);
            lines.push(b'=');
            value.grind(&mut lines);
            lines.push(b'\n');
        }
        lines
    }

    pub(in crate::router) fn export_lines(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        for (name, _) in self.state.exported() {
            lines.extend_from_slice(b"export ");
            lines.extend_from_slice(&name);
            lines.push(b'\n');
        }
        lines
    }

    /// The next name of `gensym`.
    pub(in crate::router) fn new_name(&mut self) -> Vec<u8> {
        let name = format!("g{}", self.state.gensym);
        self.state.gensym += 1;
        name.into_bytes()
    }

    /// Something failed for now: scripts look at `$defer`.
    pub(in crate::router) fn defer(&mut self, reason: &[u8]) {
        let value = match reason {
            b"" => self.empty_text(),
            reason => Value::from(reason),
        };
        self.set(self.state.known.defer, value);
    }

    /// The account with whose rights files are read.
    pub(in crate::router) fn acting_user(&self) -> Option<u32> {
        self.user
    }

    /// Runs a command, its name first, that reads files with an account's rights.
    pub(in crate::router) fn run_with_rights_of(&mut self, user: u32, values: Vec<Value>) -> Flow {
        let code = match &self.forwarding {
            Some(code) => Rc::clone(code),
            None => {
                let source = Source::new("runas", b"\"$@\"");
                let code = self
                    .compile(&source)
                    .unwrap_or_else(|_| Rc::new(Code::empty(&source)));
                self.forwarding = Some(Rc::clone(&code));
                code
            }
        };
        let outer = self.user;
        self.enter_nested(code)?;
        if let Some(frame) = self.frame_mut() {
            frame.positionals = values;
            frame.outer_user = Some(outer);
        }
        // Inside `runas` another one gains nothing: only the router's own rights can be changed.
        self.user = outer.or(Some(user));
        Ok(())
    }

    pub(in crate::router) fn named_function(
        &mut self,
        name: &[u8],
    ) -> Result<Option<Rc<crate::router::code::Function>>, Pause> {
        let symbol = self.symbol(name)?;
        Ok(match self.state.callable(symbol) {
            Some(Callable::Function(function)) => Some(function),
            _ => None,
        })
    }
}

impl Code {
    /// A code that does nothing.
    #[must_use]
    pub fn empty(source: &Rc<Source>) -> Self {
        Self::of(source, vec![Op::Return])
    }

    /// A code of these operations.
    pub(super) fn of(source: &Rc<Source>, ops: Vec<Op>) -> Self {
        Self {
            places: vec![0; ops.len()],
            ops,
            source: Rc::clone(source),
            texts: Vec::new(),
            patterns: Vec::new(),
            globs: Vec::new(),
            made: Vec::new(),
            watches: Vec::new(),
            functions: Vec::new(),
            blocks: Vec::new(),
        }
    }
}
