//! Frames of functions and scripts, and leaving them from anywhere.

use std::rc::Rc;

use super::state::Snapshot;
use super::{Evaluation, Flow, Limit, Pause, Turn};
use crate::router::code::{Code, Function, Place, Symbol};
use crate::router::value::Value;

/// What runs when the current code has ended.
pub(super) struct Frame {
    code: Rc<Code>,
    place: Place,
    pub(super) kind: Kind,
    /// Arguments without names.
    pub(super) positionals: Vec<Value>,
    /// `$0`
    pub(super) name: Option<Symbol>,
    depths: Depths,
    /// Sifts of callers: their groups are not seen here.
    pub(super) sifts: usize,
    /// With whose rights files were read outside, when `runas` changed it.
    pub(super) outer_user: Option<Option<u32>>,
}

/// What a frame runs.
pub(super) enum Kind {
    /// A script, or what `eval` and `.` run: sees the arguments of its caller.
    Script,
    /// A function.
    Function,
    /// A subshell, and what it must put back.
    Subshell(Box<Snapshot>),
}

/// How far the stacks were filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Depths {
    arguments: usize,
    marks: usize,
    values: usize,
    builders: usize,
    buffer: usize,
    /// Of variables.
    state: (usize, usize),
    loops: usize,
    fors: usize,
    cases: usize,
    sifts: usize,
    saved: usize,
    expansions: usize,
}

/// Loops and what they walk over.
#[derive(Default)]
pub(super) struct Stacks {
    pub(super) loops: Vec<Loop>,
    pub(super) fors: Vec<For>,
}

/// A loop that is running.
pub(super) struct Loop {
    pub(super) exit: Place,
    pub(super) again: Place,
    pub(super) depths: Depths,
    /// Number of frames at its start: `break` does not leave a function.
    pub(super) frames: usize,
}

/// What `for` walks over.
pub(super) struct For {
    pub(super) values: std::vec::IntoIter<Value>,
}

impl Evaluation {
    pub(super) fn depths(&self) -> Depths {
        Depths {
            arguments: self.arguments.len(),
            marks: self.marks.len(),
            values: self.values.len(),
            builders: self.builders.len(),
            buffer: self.buffer.len(),
            state: self.state.depth(),
            loops: self.stacks.loops.len(),
            fors: self.stacks.fors.len(),
            cases: self.cases.len(),
            sifts: self.sifts.len(),
            saved: self.saved.len(),
            expansions: self.expansions.len(),
        }
    }

    /// Leaves everything that was opened since.
    pub(super) fn back_to(&mut self, depths: &Depths) {
        self.arguments.truncate(depths.arguments);
        self.marks.truncate(depths.marks);
        self.values.truncate(depths.values);
        self.builders.truncate(depths.builders);
        self.buffer.truncate(depths.buffer);
        self.state.leave(depths.state);
        self.stacks.loops.truncate(depths.loops);
        self.stacks.fors.truncate(depths.fors);
        self.cases.truncate(depths.cases);
        while self.sifts.len() > depths.sifts {
            self.end_sift();
        }
        while self.saved.len() > depths.saved {
            self.close_io();
        }
        self.expansions.truncate(depths.expansions);
    }

    /// Everything starts from nothing.
    pub(super) fn begin(&mut self) {
        self.back_to(&Depths::default());
        self.frames.clear();
        self.unwritten.clear();
        self.returned = super::Returned::Nothing;
        self.unshown = false;
        // Where scripts are typed, `$?` is that of the one before.
        if !self.router.interactive {
            self.status = 0;
        }
        self.waiting = None;
        self.ended = Some(0);
        self.again = None;
        self.stopped = None;
        self.before_trap = None;
        self.user = None;
        self.databases.work = None;
        self.exited = false;
        self.limits.begin();
    }

    fn push_frame(
        &mut self,
        code: Rc<Code>,
        kind: Kind,
        positionals: Vec<Value>,
        name: Option<Symbol>,
    ) {
        let depths = self.depths();
        let sifts = self.sifts.len();
        self.ended = None;
        self.switched = true;
        self.frames.push(Frame {
            code: std::mem::replace(&mut self.code, code),
            place: std::mem::replace(&mut self.place, 0),
            kind,
            positionals,
            name,
            depths,
            sifts,
            outer_user: None,
        });
    }

    pub(super) fn enter_script(&mut self, code: Rc<Code>, positionals: Vec<Value>) {
        let name = self.frames.last().and_then(|frame| frame.name);
        self.push_frame(code, Kind::Script, positionals, name);
    }

    /// Runs a text that shares the arguments of what runs now: `eval`, `.`, a trap.
    pub(super) fn enter_nested(&mut self, code: Rc<Code>) -> Flow {
        self.check_depth()?;
        let positionals = self.frames.last().map(|frame| frame.positionals.clone());
        self.enter_script(code, positionals.unwrap_or_default());
        Ok(())
    }

    pub(super) fn enter_subshell(&mut self, code: Rc<Code>) -> Flow {
        self.check_depth()?;
        let snapshot = Box::new(self.state.snapshot());
        let (positionals, name) = match self.frames.last() {
            Some(frame) => (frame.positionals.clone(), frame.name),
            None => (Vec::new(), None),
        };
        let sifts = self.frames.last().map_or(0, |frame| frame.sifts);
        self.push_frame(code, Kind::Subshell(snapshot), positionals, name);
        if let Some(frame) = self.frames.last_mut() {
            frame.sifts = sifts;
        }
        Ok(())
    }

    /// Runs a function with the arguments behind the last mark.
    pub(super) fn enter_function(&mut self, function: &Rc<Function>) -> Flow {
        self.check_depth()?;
        let start = self.marks.pop().unwrap_or(0);
        let named = function.parameters.len();
        let given = self.arguments.len() - start;
        let positionals: Vec<Value> = if given > named {
            self.arguments.drain(start + named..).collect()
        } else {
            Vec::new()
        };
        self.trace_entry(function, start, &positionals);
        self.push_frame(
            Rc::clone(&function.code),
            Kind::Function,
            positionals,
            Some(function.name),
        );
        // The arguments are the callee's.
        if let Some(frame) = self.frames.last_mut() {
            frame.depths.arguments = start;
        }
        self.state.scope();
        let mut values = self.arguments.drain(start..);
        for parameter in &function.parameters {
            let value = values.next().unwrap_or_else(|| self.empty.clone());
            self.state.local(*parameter, value);
        }
        Ok(())
    }

    fn trace_entry(&mut self, function: &Function, start: usize, positionals: &[Value]) {
        let (symbols, arguments) = (&self.state.symbols, &self.arguments[start..]);
        let (code, place) = (&self.code, self.place);
        self.trace.add(|| super::Event::Enter {
            place: code.place_of(place),
            name: String::from_utf8_lossy(symbols.name(function.name)).into_owned(),
            arguments: arguments.iter().chain(positionals).cloned().collect(),
        });
    }

    pub(super) fn empty_text(&self) -> Value {
        self.empty.clone()
    }

    fn check_depth(&self) -> Flow {
        let max = self.limits.depth_max;
        if self.frames.len() >= max {
            return Err(Pause::of(Turn::Stopped(Limit::Depth(max))));
        }
        Ok(())
    }

    /// Leaves the current code.
    pub(super) fn leave_frame(&mut self) {
        let Some(frame) = self.frames.pop() else {
            return;
        };
        if matches!(frame.kind, Kind::Function) {
            self.trace_exit();
        }
        self.back_to(&frame.depths);
        self.switched = true;
        self.code = frame.code;
        self.place = frame.place;
        if let Some(user) = frame.outer_user {
            self.user = user;
        }
        if let Kind::Subshell(snapshot) = frame.kind {
            self.state.back_to(*snapshot);
        }
        if self.frames.is_empty() {
            self.ended = Some(self.status);
            if let Some((status, returned)) = self.before_trap.take() {
                self.ended = Some(status);
                self.returned = returned;
            }
        }
    }

    fn trace_exit(&mut self) {
        let (returned, status) = (&self.returned, self.status);
        self.trace.add(|| super::Event::Leave {
            value: returned.clone().into_value(),
            status,
        });
    }

    /// `exit`: leaves everything up to a subshell.
    pub(in crate::router) fn exit(&mut self, status: i32) {
        self.status = status;
        self.settle();
        while let Some(frame) = self.frames.last() {
            let subshell = matches!(frame.kind, Kind::Subshell(_));
            self.leave_frame();
            if subshell {
                return;
            }
        }
        self.exited = true;
    }

    /// Runs operations, until something else has its turn.
    pub(super) fn run_operations(&mut self, turn_end: u64) -> Flow {
        let goes_on = |limits: &super::Limits| limits.steps_used < turn_end && !limits.audit_due();
        while goes_on(&self.limits) && self.ended.is_none() && self.databases.work.is_none() {
            if !self.unwritten.is_empty() {
                self.limits.steps_used += 1;
                return self.write_next();
            }
            let code = Rc::clone(&self.code);
            self.switched = false;
            while !self.switched && goes_on(&self.limits) {
                self.limits.steps_used += 1;
                let op = &code.ops[self.place as usize];
                self.place += 1;
                if !(self.word_op(&code, op)
                    || self.flow_op(&code, op)?
                    || self.rarer_word_op(&code, op)
                    || self.io_op(op)?)
                {
                    unreachable!("{op:?} belongs to no part of the machine")
                }
            }
        }
        Ok(())
    }

    /// The value on top.
    pub(super) fn pop_value(&mut self) -> Value {
        match self.values.pop() {
            Some(value) => value,
            None => unreachable!("{:?} needs a value", self.code.ops[self.place as usize - 1]),
        }
    }

    pub(super) fn jump(&mut self, place: Place) {
        self.place = place;
    }

    /// The arguments that a script without a function around it sees, and `$0` of it.
    pub(super) fn frame(&self) -> Option<&Frame> {
        self.frames.last()
    }

    pub(super) fn frame_mut(&mut self) -> Option<&mut Frame> {
        self.frames.last_mut()
    }
}
