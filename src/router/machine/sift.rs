//! `ssift` and `tsift`: rules that are tried one after the other.
//!
//! A body that assigns a variable of the sift's expression makes the next label look at the new value. `continue`
//! tests the same label again; `\1` is a group of the innermost sift that has matched.

use std::rc::Rc;

use super::{Evaluation, Event};
use crate::router::code::{Code, Place, SiftKind, Symbol};
use crate::router::pattern::{Groups, Matcher, Pattern, Tokens};
use crate::router::value::{Text, Value};

/// A sift that is running.
pub(super) struct Sift {
    code: Rc<Code>,
    watch: u32,
    /// A watched variable was assigned.
    changed: bool,
    /// Where to go on when the expression was evaluated again.
    resume: Option<Place>,
    kind: SiftKind,
    text: Text,
    tokens: Tokens<'static>,
    groups: Option<Groups>,
}

impl Sift {
    /// Bytes of what it looks at.
    pub(super) fn text_bytes(&self) -> usize {
        self.text.len()
    }
}

/// Labels with variables whose compiled form is kept.
const CACHED_PATTERNS_MAX: usize = 64;

/// A step of a match takes as long as looking at so many bytes.
const MATCH_STEP_BYTES: usize = 16;

/// What sifts use one after the other.
#[derive(Default)]
pub(super) struct Tools {
    matcher: Matcher,
    spare: Vec<Tokens<'static>>,
    /// The last label patterns with variables in them.
    cached: Vec<(SiftKind, Text, Option<Rc<Pattern>>)>,
    next: usize,
}

impl Evaluation {
    fn empty_bytes(&self) -> Text {
        match &self.empty {
            Value::Text(text) => text.clone(),
            Value::List(_) => unreachable!("the empty text is a text"),
        }
    }

    pub(super) fn open_sift(&mut self, code: &Rc<Code>, watch: u32) {
        let text = self.empty_bytes();
        let tokens = self.sift_tools.spare.pop().unwrap_or_default();
        self.sifts.push(Sift {
            code: Rc::clone(code),
            watch,
            changed: false,
            resume: None,
            kind: SiftKind::Bytes,
            text,
            tokens,
            groups: None,
        });
    }

    pub(super) fn sift_body(&mut self, kind: SiftKind) {
        let value = self.pop_value();
        let Some(sift) = self.sifts.last_mut() else {
            return;
        };
        sift.text = match value {
            Value::Text(text) => text,
            Value::List(_) => Text::from(&b""[..]),
        };
        sift.kind = kind;
        sift.changed = false;
        if kind == SiftKind::Tokens {
            sift.tokens.scan(&sift.text);
        }
        if let Some(resume) = sift.resume.take() {
            self.place = resume;
        }
    }

    /// At a label: `continue` comes back here; a changed expression is evaluated first.
    pub(super) fn sift_label(&mut self, expression: Place) {
        let here = self.place - 1;
        if let Some(entry) = self.stacks.loops.last_mut() {
            entry.again = here;
        }
        if let Some(sift) = self.sifts.last_mut()
            && sift.changed
        {
            sift.changed = false;
            sift.resume = Some(self.place);
            self.place = expression;
        }
    }

    pub(super) fn sift_matches(&mut self, pattern: &Pattern) -> bool {
        let Some(sift) = self.sifts.last_mut() else {
            return false;
        };
        let matcher = &mut self.sift_tools.matcher;
        if !self.limits.allows(pattern.memory_bytes(sift.text.len())) {
            return false;
        }
        let groups = match sift.kind {
            SiftKind::Bytes => matcher.matches_bytes(pattern, &sift.text),
            SiftKind::Tokens => matcher.matches_tokens(pattern, &mut sift.tokens),
        };
        self.limits.work(matcher.steps() * MATCH_STEP_BYTES);
        let matched = groups.is_some();
        if matched {
            sift.groups = groups;
            self.trace_match();
        }
        matched
    }

    fn trace_match(&mut self) {
        let (code, place, sift) = (&self.code, self.place, self.sifts.last());
        self.trace.add(|| {
            let at = code.places[place as usize - 1] as usize;
            let label = code.source.text[at.min(code.source.text.len())..]
                .split(u8::is_ascii_whitespace)
                .next()
                .unwrap_or(b"");
            Event::Match {
                place: code.place_of(place),
                label: String::from_utf8_lossy(label).into_owned(),
                input: sift.map_or(String::new(), |sift| {
                    String::from_utf8_lossy(&sift.text).into_owned()
                }),
            }
        });
    }

    /// The pattern on top; one that is none matches nothing.
    pub(super) fn sift_matches_dynamic(&mut self) -> bool {
        let value = self.pop_value();
        let text = match value {
            Value::Text(text) => text,
            Value::List(_) => Text::from(&b""[..]),
        };
        let Some(kind) = self.sifts.last().map(|sift| sift.kind) else {
            return false;
        };
        let known = self
            .sift_tools
            .cached
            .iter()
            .find(|(known, of, _)| *known == kind && *of == text);
        let pattern = match known {
            Some((_, _, pattern)) => pattern.clone(),
            None => self.compile_label(kind, text),
        };
        pattern.is_some_and(|pattern| self.sift_matches(&pattern))
    }

    fn compile_label(&mut self, kind: SiftKind, text: Text) -> Option<Rc<Pattern>> {
        let pattern = match Pattern::new(kind, &text) {
            Ok(pattern) => Some(Rc::new(pattern)),
            Err(bad) => {
                let label = String::from_utf8_lossy(&text).into_owned();
                self.complain(&format!("the label is no pattern: {bad}: {label}"));
                None
            }
        };
        let tools = &mut self.sift_tools;
        let entry = (kind, text, pattern.clone());
        if tools.cached.len() < CACHED_PATTERNS_MAX {
            tools.cached.push(entry);
        } else {
            tools.cached[tools.next] = entry;
            tools.next = (tools.next + 1) % CACHED_PATTERNS_MAX;
        }
        pattern
    }

    pub(super) fn end_sift(&mut self) {
        if let Some(sift) = self.sifts.pop() {
            self.sift_tools.spare.push(sift.tokens);
        }
    }

    /// A variable was assigned: the innermost sift may have to look again.
    pub(in crate::router) fn sift_sees(&mut self, symbol: Symbol) {
        if let Some(sift) = self.sifts.last_mut() {
            sift.changed |= sift.code.watches[sift.watch as usize].contains(&symbol);
        }
    }

    /// Adds a group to the word; a group that took no part is nothing.
    pub(super) fn add_group(&mut self, number: u8) {
        let base = self.frame().map_or(0, |frame| frame.sifts);
        let found = self.sifts[base..]
            .iter()
            .rposition(|sift| sift.groups.is_some());
        let Some(at) = found.map(|at| base + at) else {
            return;
        };
        let sift = &self.sifts[at];
        let Some(Some((start, end))) = sift
            .groups
            .as_ref()
            .map(|groups| groups[usize::from(number)])
        else {
            return;
        };
        match sift.kind {
            SiftKind::Bytes => self.buffer.extend_from_slice(&sift.text[start..end]),
            SiftKind::Tokens => sift.tokens.text(start..end, &mut self.buffer),
        }
        // Also an empty group keeps the word.
        self.add_text(b"", true);
    }
}
