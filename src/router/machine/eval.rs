//! `eval`: texts that are run as scripts.
//!
//! What it compiles is kept, for scripts make the same texts for one address after the other. A text that uses a name
//! made since the configuration was loaded is not: such a name ends with the message.

use std::collections::HashMap;
use std::rc::Rc;

use super::service::COMPILE_BYTES;
use super::{Evaluation, Flow};
use crate::router::code::Code;
use crate::router::diagnostic::Source;

/// Texts that were compiled. Full, it forgets all of them.
#[derive(Default)]
pub(super) struct Evals {
    known: HashMap<Box<[u8]>, Rc<Code>>,
}

/// Texts that are kept.
const EVALS_MAX: usize = 64;

/// Longest text that is kept.
const EVAL_BYTES_MAX: usize = 256;

impl Evaluation {
    /// Runs a text inside the current script.
    pub(in crate::router) fn eval(&mut self, text: &[u8]) -> Flow {
        if let Some(code) = self.evals.known.get(text) {
            let code = Rc::clone(code);
            // It takes as much of the limits as the first time.
            self.limits.work(text.len() * COMPILE_BYTES);
            return self.enter_nested(code);
        }
        let source = Source::new("eval", text);
        let Some(code) = self.compile_inner(&source)? else {
            return Ok(());
        };
        if text.len() <= EVAL_BYTES_MAX && self.state.lasts(code.names) {
            if self.evals.known.len() >= EVALS_MAX {
                self.evals.known.clear();
            }
            self.evals.known.insert(text.into(), Rc::clone(&code));
        }
        self.enter_nested(code)
    }
}
