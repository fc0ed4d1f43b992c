//! Header rewriting: what the rewriting functions of one group make of the header, as edits.
//!
//! A function gets an address and may give another: then that alone is replaced, and display names,
//! comments and folding around it stay. A line that would become too long is folded in front of the
//! address.

mod fields;
mod merge;

use std::ops::Range;
use std::sync::Arc;

pub(super) use fields::View;
use fields::{Item, Job, items, jobs, name_of, start_of, text_of, value_of};
use merge::{Merged, merged};

use super::header_function::{self, Stage, Wish, put_field};
use super::quad::Rewriter;
use super::script::{Call, Reply, Script, Value};
use super::{Edit, Event};
use crate::mail::edit::Editor;

/// Bytes that the edits of one group may insert. Beyond it the message is stopped.
const EDITS_BYTES_MAX: usize = 1 << 20;

/// Columns after which a line is folded in front of a new address; RFC 5322 2.1.1 allows 998.
const LINE_BYTES_MAX: usize = 900;

/// An edit and the order of those at one place.
#[derive(Clone, Debug)]
struct Placed {
    item: Option<Item>,
    class: u8,
    edit: Edit,
}

/// What is called next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Address(usize),
    /// `header_defer`, for an address that could not be rewritten now.
    Defer(usize),
    Field(Stage, usize),
    Over,
}

/// The rewriting of one group's header.
#[derive(Debug)]
pub(super) struct Rewrite {
    jobs: Arc<[Job]>,
    items: Vec<Item>,
    work: Work,
    placed: Vec<Placed>,
    line: Line,
    /// What a header function made of an added field.
    replaced: Vec<(usize, Vec<u8>)>,
}

/// Where the line under way began, and by how much it has grown.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    item: Option<Item>,
    start: usize,
    growth: isize,
    looked_to: usize,
}

impl Rewrite {
    /// For the first group that is rewritten.
    pub(super) fn new(view: View<'_>) -> Self {
        Self {
            jobs: jobs(view).into(),
            items: Vec::new(),
            work: Work::Over,
            placed: Vec::new(),
            line: Line::default(),
            replaced: Vec::new(),
        }
    }

    /// Begins with another rewriter.
    pub(super) fn begin(&mut self, rewriter: &Rewriter, view: View<'_>) {
        self.placed.clear();
        self.replaced.clear();
        self.line = Line::default();
        self.items = items(view, rewriter.has_addresses());
        self.work = if rewriter.has_addresses() {
            Work::Address(0)
        } else {
            Work::Field(Stage::Before, 0)
        };
        self.settle(rewriter);
    }

    /// Goes on to work that there is.
    fn settle(&mut self, rewriter: &Rewriter) {
        loop {
            self.work = match self.work {
                Work::Address(at) if at >= self.jobs.len() => Work::Field(Stage::Before, 0),
                Work::Field(..) if rewriter.fields.is_empty() => Work::Over,
                Work::Field(Stage::Each, at) if at >= self.items.len() => {
                    Work::Field(Stage::After, 0)
                }
                _ => return,
            };
        }
    }

    /// The next call; none: all is rewritten.
    pub(super) fn call<'r, S: Script>(
        &self,
        script: &S,
        rewriter: &'r Rewriter,
        view: View<'_>,
    ) -> Option<Call<'r, S::Value>> {
        let is_report = view.is_report;
        let (function, arguments, side) = match self.work {
            Work::Over => return None,
            Work::Address(at) | Work::Defer(at) => {
                let job = self.jobs.get(at)?;
                let text = job.place.text(text_of(job.item, view));
                let arguments = [&*text, name_of(job.item, view)].map(S::Value::of_text);
                let function = match self.work {
                    Work::Defer(_) => HEADER_DEFER,
                    _ => rewriter.addresses.as_slice(),
                };
                (function, arguments.to_vec(), Some(job.side))
            }
            Work::Field(stage, at) => {
                let item = self.items.get(at).filter(|_| stage == Stage::Each);
                let name = item.map_or(&b""[..], |item| name_of(*item, view));
                let value = item.map_or_else(Vec::new, |item| value_of(*item, view));
                let arguments = header_function::arguments(script, stage, name, &value);
                (rewriter.fields.as_slice(), arguments, None)
            }
        };
        Some(Call {
            function,
            arguments,
            side,
            is_report,
        })
    }

    /// Takes what the call gave.
    pub(super) fn reply<S: Script>(
        &mut self,
        script: &S,
        reply: Reply<S::Value>,
        (rewriter, view): (&Rewriter, View<'_>),
        events: &mut Vec<Event>,
    ) {
        match self.work {
            Work::Over => {}
            Work::Address(at) | Work::Defer(at) => {
                let deferred = script.variable(b"defer");
                let deferred = deferred.as_ref().and_then(Value::text).unwrap_or_default();
                let again = reply.status != 0
                    && !deferred.is_empty()
                    && self.work == Work::Address(at)
                    && script.defines(HEADER_DEFER);
                if again {
                    self.work = Work::Defer(at);
                    return;
                }
                self.address(at, &reply, (rewriter, view), events);
                self.work = Work::Address(at + 1);
            }
            Work::Field(stage, at) => {
                self.field(script, reply, (stage, at), (rewriter, view), events);
                self.work = match stage {
                    Stage::Before => Work::Field(Stage::Each, 0),
                    Stage::Each => Work::Field(Stage::Each, at + 1),
                    Stage::After => Work::Over,
                };
            }
        }
        self.settle(rewriter);
    }

    fn address<V: Value>(
        &mut self,
        at: usize,
        reply: &Reply<V>,
        (rewriter, view): (&Rewriter, View<'_>),
        events: &mut Vec<Event>,
    ) {
        let Some(job) = Arc::clone(&self.jobs).get(at).cloned() else {
            return;
        };
        let given = reply.value.as_ref().filter(|_| reply.status == 0);
        let Some(given) = given.and_then(V::text).filter(|text| !text.is_empty()) else {
            return;
        };
        match merged(given, &job, text_of(job.item, view)) {
            Merged::Same => {}
            Merged::Bad => bad(&rewriter.addresses, events),
            Merged::New(insert) => self.replace(&job, insert, view),
        }
    }

    /// Puts a new address in the place of the old one.
    fn replace(&mut self, job: &Job, insert: Vec<u8>, view: View<'_>) {
        let spec = &job.place.spec;
        let text = text_of(job.item, view);
        if self.line.item != Some(job.item) {
            let start = start_of(job.item, view);
            self.line = Line {
                item: Some(job.item),
                start,
                growth: 0,
                looked_to: start,
            };
        }
        let between = text
            .get(self.line.looked_to..spec.start)
            .unwrap_or_default();
        if let Some(end) = memchr::memrchr(b'\n', between) {
            self.line.start = self.line.looked_to + end + 1;
            self.line.growth = 0;
        }
        self.line.looked_to = spec.start;
        let growth = insert.len() as isize - spec.len() as isize;
        let len = spec.end.saturating_sub(self.line.start) as isize + self.line.growth + growth;
        if len > LINE_BYTES_MAX as isize && job.place.whole.start > self.line.start + 1 {
            self.put(
                job.item,
                FOLD,
                Edit::insert(job.place.whole.start as u64, *b"\r\n\t"),
            );
            self.line.start = job.place.whole.start;
            self.line.growth = 1;
        }
        self.line.growth += growth;
        self.put(job.item, REPLACE, replacement(spec, insert));
    }

    fn put(&mut self, item: Item, class: u8, edit: Edit) {
        self.placed.push(Placed {
            item: Some(item),
            class,
            edit,
        });
    }

    fn field<S: Script>(
        &mut self,
        script: &S,
        reply: Reply<S::Value>,
        (stage, at): (Stage, usize),
        (rewriter, view): (&Rewriter, View<'_>),
        events: &mut Vec<Event>,
    ) {
        let item = self.items.get(at).copied().filter(|_| stage == Stage::Each);
        let mut same = Vec::new();
        if let Some(item) = item {
            same.extend_from_slice(name_of(item, view));
            same.push(b':');
            same.extend_from_slice(&value_of(item, view));
        }
        let fields = match header_function::wish(script, reply.value, &same) {
            Wish::Same => return,
            Wish::Unclear => return bad(&rewriter.fields, events),
            Wish::Fields(fields) => fields,
        };
        match (stage, item) {
            (Stage::Each, Some(Item::Stored(index))) => {
                if let Some(entry) = view.head.fields.get(index) {
                    self.put(
                        Item::Stored(index),
                        REPLACE,
                        replacement(&entry.whole, fields),
                    );
                }
            }
            (Stage::Each, Some(Item::Added(index))) => self.replaced.push((index, fields)),
            (Stage::Before, _) => self.bare(FIRST, 0, fields),
            (Stage::After, _) => self.bare(LAST, view.head.end, fields),
            (Stage::Each, None) => {}
        }
    }

    fn bare(&mut self, class: u8, at: usize, insert: Vec<u8>) {
        if !insert.is_empty() {
            self.placed.push(Placed {
                item: None,
                class,
                edit: Edit::insert(at as u64, insert),
            });
        }
    }

    /// All edits of the group: what was rewritten, and what is done to the header anyhow.
    ///
    /// # Errors
    /// When they insert more than [`EDITS_BYTES_MAX`].
    pub(super) fn edits(&mut self, view: View<'_>) -> Result<Arc<[Edit]>, String> {
        for (index, added) in view.plan.added.iter().enumerate() {
            let text = self.added(index, &added.name, &added.value);
            self.bare(ADDED, added.at, text);
        }
        let fake = view.plan.fake.and_then(|index| view.head.fields.get(index));
        if let Some(entry) = fake {
            self.bare(RENAMED, entry.whole.start, b"Fake-".to_vec());
        }
        for range in &view.plan.removed {
            self.placed.push(Placed {
                item: None,
                class: REPLACE,
                edit: replacement(range, Vec::new()),
            });
        }
        let end = view.head.end;
        let is_open = end > 0 && view.content.get(end - 1) != Some(&b'\n');
        if is_open && (view.plan.lacks_end || !self.placed.is_empty()) {
            self.bare(FIRST, end, b"\r\n".to_vec());
        }
        if view.plan.lacks_end {
            self.bare(END, end, b"\r\n".to_vec());
        }
        self.collect()
    }

    /// An added field with what was rewritten in it.
    fn added(&self, index: usize, name: &str, value: &[u8]) -> Vec<u8> {
        if let Some((_, fields)) = self.replaced.iter().find(|(of, _)| *of == index) {
            return fields.clone();
        }
        let own = self.placed.iter();
        let own = own.filter(|placed| placed.item == Some(Item::Added(index)));
        let edits: Vec<Edit> = own.map(|placed| placed.edit.clone()).collect();
        let (mut editor, mut changed) = (Editor::default(), Vec::new());
        editor.feed(&edits, value, &mut changed);
        editor.end(&edits, &mut changed);
        let mut out = Vec::new();
        put_field(&mut out, name.as_bytes(), &changed);
        out
    }

    fn collect(&mut self) -> Result<Arc<[Edit]>, String> {
        let mut placed = std::mem::take(&mut self.placed);
        placed.retain(|placed| !matches!(placed.item, Some(Item::Added(_))));
        placed.sort_by_key(|placed| (placed.edit.at, placed.class));
        let bytes: usize = placed.iter().map(|placed| placed.edit.insert.len()).sum();
        if bytes > EDITS_BYTES_MAX {
            return Err(format!(
                "header rewriting inserts {bytes} bytes; at most {EDITS_BYTES_MAX} are allowed"
            ));
        }
        Ok(placed.into_iter().map(|placed| placed.edit).collect())
    }
}

const HEADER_DEFER: &[u8] = b"header_defer";

// The order of edits at one place.
const FIRST: u8 = 0;
const ADDED: u8 = 1;
const RENAMED: u8 = 2;
const FOLD: u8 = 3;
const REPLACE: u8 = 4;
const LAST: u8 = 5;
const END: u8 = 6;

fn replacement(range: &Range<usize>, insert: Vec<u8>) -> Edit {
    Edit {
        at: range.start as u64,
        remove: u32::try_from(range.len()).unwrap_or(u32::MAX),
        insert,
    }
}

/// Names a function that gave something that cannot be used.
fn bad(function: &[u8], events: &mut Vec<Event>) {
    let event = Event::IllHeader(function.to_vec());
    if !events.contains(&event) {
        events.push(event);
    }
}
