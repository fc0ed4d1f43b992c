//! Behind the recipients: the header is completed, and rewritten for each group.

use super::super::complete::Completion;
use super::super::complete::Plan;
use super::super::head::Head;
use super::super::rewrite::{Rewrite, View};
use super::super::script::{Script, Value};
use super::{DEFER, Next, Rewriting, Routing, Step};

impl<V: Value> Routing<V> {
    pub(super) fn after_recipients(&mut self, content: Option<&[u8]>) -> Next {
        let rewrites = self
            .groups
            .rewriters()
            .iter()
            .any(|rewriter| !rewriter.is_null());
        if !rewrites && self.head.is_none() {
            // Nobody has looked at the header, and nobody has to.
            self.result.groups = self.groups.finish(&[]);
            self.step = Step::Over;
            return Next::Again;
        }
        let Some(content) = content else {
            return Next::Content;
        };
        // What was submitted has been read already.
        let head = self
            .head
            .get_or_insert_with(|| Head::read(content, self.facts.content_len, false));
        let completion = Completion {
            head,
            content,
            facts: &self.facts,
            settings: &self.basis.settings,
            verdict: self.verdict,
        };
        self.plan = completion.plan(&mut self.result.events);
        if let Some(view) = view(&self.head, &self.plan, self.is_report(), Some(content)) {
            let mut rewrite = Rewrite::new(view);
            if let Some(first) = self.groups.rewriters().first() {
                rewrite.begin(first, view);
            }
            self.step = Step::Rewrite(Box::new(Rewriting {
                current: 0,
                rewrite,
                done: Vec::new(),
            }));
        }
        Next::Again
    }

    pub(super) fn call_rewriter<S: Script<Value = V>>(
        &mut self,
        script: &mut S,
        content: Option<&[u8]>,
    ) -> Next {
        let is_report = self.is_report();
        let Some(view) = view(&self.head, &self.plan, is_report, content) else {
            return Next::Content;
        };
        let Step::Rewrite(rewriting) = &mut self.step else {
            return Next::Again;
        };
        let Some(rewriter) = self.groups.rewriters().get(rewriting.current) else {
            self.result.groups = self.groups.finish(&rewriting.done);
            self.step = Step::Over;
            return Next::Again;
        };
        if let Some(call) = rewriting.rewrite.call(script, rewriter, view) {
            if script.defines(call.function) {
                script.assign(DEFER, V::of_text(b""));
                script.begin(call);
                return Next::Call;
            }
            let text = String::from_utf8_lossy(call.function).into_owned();
            return Next::Stop(format!(
                "crossbar names {text:?}, and there is no such function"
            ));
        }
        match rewriting.rewrite.edits(view) {
            Ok(edits) => rewriting.done.push(edits),
            Err(text) => return Next::Stop(text),
        }
        rewriting.current += 1;
        if let Some(next) = self.groups.rewriters().get(rewriting.current) {
            rewriting.rewrite.begin(next, view);
        }
        Next::Again
    }
}

/// None: the header has not been read, or the content is not at hand.
pub(super) fn view<'a>(
    head: &'a Option<Head>,
    plan: &'a Plan,
    is_report: bool,
    content: Option<&'a [u8]>,
) -> Option<View<'a>> {
    Some(View {
        head: head.as_ref()?,
        content: content?,
        plan,
        is_report,
    })
}
