//! Jumps, loops, cases, scopes, definitions.

use std::rc::Rc;

use super::frame::{For, Loop};
use super::{Evaluation, Event, Flow, Pause, Trace};
use crate::router::code::{Code, Op, Place};
use crate::router::pattern::{Glob, glob_matches};
use crate::router::value::{Text, Value};

impl Evaluation {
    /// Operations about what runs next; `false`: it is none.
    #[inline(always)]
    pub(super) fn flow_op(&mut self, code: &Rc<Code>, op: &Op) -> Result<bool, Pause> {
        match op {
            Op::Call => self.call_dynamic()?,
            Op::CallNamed(symbol) => self.call_named(*symbol)?,
            Op::Jump(to) => self.jump(*to),
            Op::JumpIfFailed(to) if self.status != 0 => self.jump(*to),
            Op::JumpIfSucceeded(to) if self.status == 0 => self.jump(*to),
            Op::JumpIfFailed(_) | Op::JumpIfSucceeded(_) => {}
            Op::Status(status) => self.status = i32::from(*status),
            Op::Scope => self.state.scope(),
            Op::EndScope => self.state.end_scope(),
            Op::Local(symbol) => self.state.local_nil(*symbol),
            Op::Loop { exit, again } => {
                let depths = self.depths();
                let frames = self.frames.len();
                self.stacks.loops.push(Loop {
                    exit: *exit,
                    again: *again,
                    depths,
                    frames,
                });
            }
            Op::EndLoop => {
                self.stacks.loops.pop();
            }
            Op::For => {
                let start = self.marks.pop().unwrap_or(0);
                let values: Vec<Value> = self.arguments.drain(start..).collect();
                self.stacks.fors.push(For {
                    values: values.into_iter(),
                });
            }
            Op::ForNext { symbol, exit } => {
                let next = self
                    .stacks
                    .fors
                    .last_mut()
                    .and_then(|walk| walk.values.next());
                match next {
                    Some(value) => {
                        self.state.assign(*symbol, value);
                        self.sift_sees(*symbol);
                    }
                    None => self.jump(*exit),
                }
            }
            Op::EndFor => {
                self.stacks.fors.pop();
            }
            Op::Positionals => {
                let mut values = self
                    .frame()
                    .map(|frame| frame.positionals.clone())
                    .unwrap_or_default();
                if values.is_empty() {
                    values.push(self.empty_text());
                }
                self.arguments.extend(values);
            }
            Op::Define(number) => self.define(&code.functions[*number as usize]),
            Op::Subshell(number) => {
                let code = Rc::clone(&code.blocks[*number as usize]);
                self.enter_subshell(code)?;
            }
            Op::Return => self.leave_frame(),
            _ => return self.choice_op(code, op),
        }
        Ok(true)
    }

    /// Cases and sifts.
    #[inline(always)]
    fn choice_op(&mut self, code: &Rc<Code>, op: &Op) -> Result<bool, Pause> {
        match op {
            Op::Case => {
                let text = match self.pop_value() {
                    Value::Text(text) => text,
                    // A list is never the empty text here: patterns see how it is written.
                    list => Text::from(list.to_string().as_bytes()),
                };
                self.cases.push(text);
            }
            Op::CaseMatch(to) => {
                if self.case_matches() {
                    self.jump(*to);
                }
            }
            Op::CaseFixed { glob, to } => {
                if self.case_fits(&code.globs[*glob as usize]) {
                    self.jump(*to);
                }
            }
            Op::CaseUnless { glob, to } => {
                if !self.case_fits(&code.globs[*glob as usize]) {
                    self.jump(*to);
                }
            }
            Op::EndCase => {
                self.cases.pop();
            }
            Op::Sift(watch) => self.open_sift(code, *watch),
            Op::SiftBody(kind) => self.sift_body(*kind),
            Op::SiftLabel(expression) => self.sift_label(*expression),
            Op::SiftTest { pattern, otherwise } => {
                let pattern = &code.patterns[*pattern as usize];
                if !self.sift_matches(pattern) {
                    self.jump(*otherwise);
                }
            }
            Op::SiftTestDynamic(otherwise) => {
                if !self.sift_matches_dynamic() {
                    self.jump(*otherwise);
                }
            }
            Op::EndSift => self.end_sift(),
            Op::Member(end) => self.next_member(*end)?,
            Op::MemberRouted(again) => self.member_routed(*again),
            Op::MembersEnd => self.members_end()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn case_matches(&mut self) -> bool {
        let pattern = self.pop_value();
        let Some(text) = self.cases.last() else {
            return false;
        };
        let pattern = pattern.bytes();
        self.limits.work(text.len());
        let matches = if self.magic.is_empty() {
            pattern == &**text
        } else {
            self.quoted.clear();
            self.quoted.resize(pattern.len(), true);
            for (start, end) in &self.magic {
                self.quoted[*start..*end].fill(false);
            }
            glob_matches(pattern, &self.quoted, text)
        };
        if matches {
            trace_case(&mut self.trace, &self.code, self.place, pattern, text);
        }
        matches
    }

    fn case_fits(&mut self, glob: &Glob) -> bool {
        let Some(text) = self.cases.last() else {
            return false;
        };
        self.limits.work(text.len());
        let matches = glob.matches(text);
        if matches {
            trace_case(&mut self.trace, &self.code, self.place, glob.text(), text);
        }
        matches
    }

    /// `break` and `continue`: leaves `levels - 1` loops and ends or repeats the next; does nothing outside loops.
    pub(in crate::router) fn leave_loops(&mut self, levels: usize, again: bool) -> Flow {
        let frames = self.frames.len();
        let own = self
            .stacks
            .loops
            .iter()
            .rev()
            .take_while(|entry| entry.frames == frames)
            .count();
        if own == 0 {
            return Ok(());
        }
        let at = self.stacks.loops.len() - levels.clamp(1, own);
        let entry = &self.stacks.loops[at];
        let place = if again { entry.again } else { entry.exit };
        let depths = entry.depths;
        // The loop itself stays open: its end closes it.
        let keep = self.stacks.loops.drain(at..).next();
        self.back_to(&depths);
        self.stacks.loops.extend(keep);
        self.jump(place);
        Ok(())
    }
}

fn trace_case(trace: &mut Trace, code: &Code, place: Place, pattern: &[u8], text: &[u8]) {
    trace.add(|| Event::Match {
        place: code.place_of(place),
        label: format!("{})", String::from_utf8_lossy(pattern)),
        input: String::from_utf8_lossy(text).into_owned(),
    });
}
