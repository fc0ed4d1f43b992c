//! The order of things: a state machine that calls the script and takes what it gives.

mod header;
mod pairs;
mod sender;

use std::rc::Rc;
use std::sync::Arc;

use header::view;

use super::attributes::{Maker, Words};
use super::complete::{Claim, Plan, Verdict};
use super::group::Groups;
use super::head::Head;
use super::quad::{Quad, Routes};
use super::rewrite::Rewrite;
use super::script::{Reply, Script, Turn, Value};
use super::{Edit, Facts, Routed, Settings};

/// Deliveries that one message may become. Beyond it the message is stopped.
pub const DELIVERIES_MAX: usize = 1 << 20;

/// How far a routing came.
#[derive(Debug)]
pub enum Progress<N> {
    /// It has ended.
    Done(Routed),
    /// It has to see the header: run it again with the content.
    Content,
    /// The script needs this from outside: run it again when that has been answered.
    Need(N),
    /// A limit was reached; the text says which. The message cannot be routed by this script.
    Stopped(String),
}

/// What all messages of a configuration are processed with.
#[derive(Debug)]
pub struct Basis<V> {
    settings: Arc<Settings>,
    words: Words<V>,
    no_sender: Quad<V>,
}

impl<V: Value> Basis<V> {
    /// From the administrator's settings.
    #[must_use]
    pub fn new(settings: Arc<Settings>) -> Self {
        Self {
            words: Words::new(settings.nobody),
            no_sender: Quad::new(b"error", b"-", b"<>", b""),
            settings,
        }
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// One message under way through the script. It may wait for days: it holds what it needs, but for the
/// content.
#[derive(Debug)]
pub struct Routing<V> {
    facts: Facts,
    basis: Rc<Basis<V>>,
    head: Option<Head>,
    plan: Plan,
    verdict: Verdict,
    step: Step<V>,
    /// A call is under way.
    is_calling: bool,
    sender: Quad<V>,
    recipients: Maker<V>,
    groups: Groups,
    /// Envelope recipients from whom a delivery or a problem came.
    answered: Vec<bool>,
    /// An address that the recipient of now leads to, and that leads back to itself.
    looped: Option<Vec<u8>>,
    result: Routed,
}

/// What is done next, or what a call under way is for.
#[derive(Debug)]
enum Step<V> {
    Begin,
    /// Does the script want it?
    Process,
    /// Who is the sender of the envelope?
    Sender,
    /// Is this claim the owner's?
    Owner(Claim),
    /// Where does this recipient go?
    Recipient(usize),
    /// What does the script say about this pair?
    Pair(Pair<V>),
    Rewrite(Box<Rewriting>),
    Over,
}

/// Deliveries of one recipient under way.
#[derive(Debug)]
struct Pair<V> {
    of: usize,
    routes: Routes<V>,
    delivery: usize,
    way: usize,
}

#[derive(Debug)]
struct Rewriting {
    current: usize,
    rewrite: Rewrite,
    done: Vec<Arc<[Edit]>>,
}

/// What follows a step.
enum Next {
    /// A call has begun.
    Call,
    Again,
    Content,
    Stop(String),
    Done,
}

impl<V: Value> Routing<V> {
    /// A message that nothing has been done for.
    #[must_use]
    pub fn new(facts: Facts, basis: Rc<Basis<V>>) -> Self {
        let (words, nobody) = (&basis.words, basis.settings.nobody);
        let recipients = Maker::new(words, nobody, &words.recipient, &facts);
        Self {
            facts,
            sender: basis.no_sender.clone(),
            basis,
            head: None,
            plan: Plan::default(),
            verdict: Verdict::Right,
            step: Step::Begin,
            is_calling: false,
            recipients,
            groups: Groups::default(),
            answered: Vec::new(),
            looped: None,
            result: Routed::default(),
        }
    }

    /// Goes on as far as it can. `content` is the stored content from its start, or the first part of it;
    /// of a header that goes beyond that the rest stays as it is. It is the same each time. None: it is not
    /// at hand.
    pub fn run<S: Script<Value = V>>(
        &mut self,
        script: &mut S,
        content: Option<&[u8]>,
    ) -> Progress<S::Need> {
        loop {
            if self.is_calling {
                match script.run() {
                    Turn::Need(need) => return Progress::Need(need),
                    Turn::Stopped(text) => return Progress::Stopped(text),
                    Turn::Done(reply) => {
                        self.is_calling = false;
                        if let Err(text) = self.reply(script, reply, content) {
                            return Progress::Stopped(text);
                        }
                    }
                }
            }
            match self.advance(script, content) {
                Next::Again => {}
                Next::Call => self.is_calling = true,
                Next::Content => return Progress::Content,
                Next::Stop(text) => return Progress::Stopped(text),
                Next::Done => return Progress::Done(std::mem::take(&mut self.result)),
            }
        }
    }

    /// What is known of the message, when nothing more is done for it.
    #[must_use]
    pub fn into_facts(self) -> Facts {
        self.facts
    }

    fn advance<S: Script<Value = V>>(&mut self, script: &mut S, content: Option<&[u8]>) -> Next {
        match &self.step {
            Step::Begin => self.begin(script, content),
            Step::Process => self.call_process(script),
            Step::Sender => self.call_sender(script, content),
            Step::Owner(claim) => {
                let Claim::Address(_, address) = claim else {
                    return Next::Again;
                };
                let address = address.clone();
                self.call_router(script, &address)
            }
            Step::Recipient(at) => self.call_recipient(script, *at, content),
            Step::Pair(_) => self.call_crossbar(script),
            Step::Rewrite(_) => self.call_rewriter(script, content),
            Step::Over => Next::Done,
        }
    }

    fn reply<S: Script<Value = V>>(
        &mut self,
        script: &mut S,
        reply: Reply<V>,
        content: Option<&[u8]>,
    ) -> Result<(), String> {
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::Process => self.after_process(script, &reply),
            Step::Sender => {
                let routes = reply.value.filter(|_| reply.status == 0);
                self.sender = routes
                    .and_then(Routes::of)
                    .and_then(|routes| routes.nearest())
                    .unwrap_or_else(|| self.unknown_sender());
                self.after_sender(content);
            }
            Step::Owner(claim) => {
                let routes = reply.value.and_then(Routes::of);
                self.owner(&claim, routes, content);
            }
            Step::Recipient(at) => self.routed(script, at, reply),
            Step::Pair(pair) => return self.crossed(script, pair, reply.value),
            Step::Rewrite(mut rewriting) => {
                if let Some(view) = view(&self.head, &self.plan, self.is_report(), content)
                    && let Some(rewriter) = self.groups.rewriters().get(rewriting.current)
                {
                    let with = (rewriter, view);
                    let events = &mut self.result.events;
                    rewriting.rewrite.reply(script, reply, with, events);
                }
                self.step = Step::Rewrite(rewriting);
            }
            Step::Begin | Step::Over => {}
        }
        Ok(())
    }

    fn is_report(&self) -> bool {
        self.facts.is_report || self.facts.sender.is_empty()
    }
}

/// The function of a script that is called for each message before anything else.
pub const PROCESS: &[u8] = b"process";

const ROUTER: &[u8] = b"router";
const CROSSBAR: &[u8] = b"crossbar";
const DEFER: &[u8] = b"defer";
const ENVELOPE_INFO: &[u8] = b"envelopeinfo";
