//! `eval`: texts that are run as scripts.
//!
//! What it compiles is kept, for scripts make the same texts for one address after the other. A name that was made
//! since the configuration was loaded ends with the message; what uses it counts when the name has got the same number
//! again, as those of `gensym` do.

use std::collections::HashMap;
use std::rc::Rc;

use super::service::COMPILE_BYTES;
use super::{Evaluation, Flow, Pause};
use crate::router::code::{Code, Symbol};
use crate::router::diagnostic::Source;
use crate::router::value::Text;

/// Texts that were compiled. Full, it forgets all of them.
#[derive(Default)]
pub(super) struct Evals {
    known: HashMap<Box<[u8]>, Kept>,
}

struct Kept {
    code: Rc<Code>,
    /// Names in it that end with the message.
    made: Rc<[(Symbol, Text)]>,
}

/// Texts that are kept.
const EVALS_MAX: usize = 64;

/// Longest text that is kept.
const EVAL_BYTES_MAX: usize = 256;

impl Evaluation {
    /// Runs a text inside the current script.
    pub(in crate::router) fn eval(&mut self, text: &[u8]) -> Flow {
        if let Some(code) = self.known_eval(text)? {
            // It takes as much of the limits as the first time.
            self.limits.work(text.len() * COMPILE_BYTES);
            return self.enter_nested(code);
        }
        let source = Source::new("eval", text);
        let Some(code) = self.compile_inner(&source)? else {
            return Ok(());
        };
        if text.len() <= EVAL_BYTES_MAX {
            self.keep_eval(text, &code);
        }
        self.enter_nested(code)
    }

    fn keep_eval(&mut self, text: &[u8], code: &Rc<Code>) {
        let symbols = &self.state.symbols;
        let made = code.made.iter();
        let made = made.map(|symbol| (*symbol, symbols.name(*symbol).clone()));
        let kept = Kept {
            code: Rc::clone(code),
            made: made.collect(),
        };
        if self.evals.known.len() >= EVALS_MAX {
            self.evals.known.clear();
        }
        self.evals.known.insert(text.into(), kept);
    }

    /// The code of a text that was compiled before, when its names mean the same.
    fn known_eval(&mut self, text: &[u8]) -> Result<Option<Rc<Code>>, Pause> {
        let Some(kept) = self.evals.known.get(text) else {
            return Ok(None);
        };
        let (code, made) = (Rc::clone(&kept.code), Rc::clone(&kept.made));
        for (symbol, name) in made.iter() {
            if self.symbol(name)? != *symbol {
                return Ok(None);
            }
        }
        Ok(Some(code))
    }
}
