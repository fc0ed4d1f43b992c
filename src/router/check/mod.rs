//! What can be known to be wrong with scripts before they run.
//!
//! The parser finds what cannot be loaded. These checks find what is loaded but cannot be meant: commands that do
//! not exist, built-ins with the wrong number of arguments, commands and labels that are never reached. Only what is
//! certain is said: a word that may vanish or become several counts for any number, and a name that any of the
//! scripts defines in any place is known.

mod calls;
mod reach;
mod walk;

use std::collections::HashSet;
use std::rc::Rc;

use super::diagnostic::{Diagnostic, Source};
use super::syntax::Parsed;

/// A script with its tree.
pub struct Script {
    /// Its text.
    pub source: Rc<Source>,
    /// What the parser made of it.
    pub parsed: Parsed,
}

/// What the checks need to know besides the scripts.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// Whether a name is a function or relation when the scripts have been loaded.
    pub defined: &'a dyn Fn(&[u8]) -> bool,
    /// Scripts may run programs: then every name may be one.
    pub programs: bool,
}

/// Warnings about scripts that are loaded together, in the order of the scripts.
#[must_use]
pub fn check(scripts: &[Script], known: Known<'_>) -> Vec<Diagnostic> {
    let mut names = HashSet::new();
    for script in scripts {
        calls::defined_names(script, &mut names);
    }
    let mut warnings = Vec::new();
    for script in scripts {
        let mut found = Vec::new();
        calls::check(script, &names, known, &mut found);
        reach::check(script, &names, &mut found);
        found.sort_by_key(|warning| warning.at);
        warnings.extend(found);
    }
    warnings
}

fn warning(source: &Rc<Source>, at: u32, message: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::new(source, at as usize, format!("warning: {message}"))
}
