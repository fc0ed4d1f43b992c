//! The routing script as the router of a shard.
//!
//! Each message has an evaluation of its own, taken from those that are idle, so that messages that wait for something
//! do not see each other. The maps that scripts look things up in are the shard's: a new version takes the place of the
//! old one between two looks.

use std::borrow::Cow;
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::iter::Peekable;
use std::rc::Rc;
use std::sync::Arc;

use crate::base::clock::Now;
use crate::base::sequence::Drain;
use crate::control::maps::{Published, Versions};
use crate::mail::target::{self, Target};
use crate::router::loaded::{LoadError, Loaded};
use crate::router::machine::Evaluation;
use crate::router::message::{self, EnvelopeRecipient, Facts, Notary, Progress};
use crate::router::relation::{Source, Version};
use crate::router::runner::Runner;
use crate::router::value::Value;
use crate::router::{
    Addressee, Answer, Check, Fate, Group, Mail, Need, Quad, Recipient, Remarks, Routed, Router,
    Routing, Turn,
};

/// Evaluations that are kept for the next messages.
const IDLE_MAX: usize = 32;

/// What all routings of a configuration share.
struct Shared {
    template: Evaluation,
    idle: RefCell<Vec<Evaluation>>,
    maps: RefCell<Versions>,
    basis: Rc<message::Basis<Value>>,
    front_door: FrontDoor,
    names: RefCell<Vec<Arc<str>>>,
}

/// Domains whose recipients are asked about before they are accepted.
#[derive(Clone, Debug, Default)]
pub struct FrontDoor {
    /// Exact names, in lower case.
    pub domains: HashSet<Vec<u8>>,
}

/// Routes by the script.
pub struct Scripted {
    shared: Rc<Shared>,
}

impl Scripted {
    /// Loads the configuration into this thread. `maps` are those that its relations look things up in.
    ///
    /// # Errors
    /// None that loading it did not show before.
    pub fn new(
        loaded: &Loaded,
        maps: Versions,
        settings: Arc<message::Settings>,
        front_door: FrontDoor,
    ) -> Result<Self, LoadError> {
        let shared = Shared {
            template: loaded.again()?,
            idle: RefCell::default(),
            maps: RefCell::new(maps),
            basis: Rc::new(message::Basis::new(settings)),
            front_door,
            names: RefCell::default(),
        };
        Ok(Self {
            shared: Rc::new(shared),
        })
    }

    fn begin(&self, mail: &Mail<'_>) -> Turn {
        let recipients = mail.recipients.iter().map(envelope_recipient).collect();
        let facts = Facts {
            id: mail.id.to_string(),
            sender: mail.sender.to_vec(),
            recipients,
            ret: mail.ret.map(<[u8]>::to_vec),
            envid: mail.envid.map(<[u8]>::to_vec),
            origin: mail.origin.clone(),
            keywords: self.shared.keywords(mail),
            arrival_ms: mail.arrival_ms,
            now_ms: mail.now.wall_ms,
            content_len: mail.size_bytes,
            ..Facts::default()
        };
        let routing = Under {
            shared: Rc::clone(&self.shared),
            evaluation: self.shared.evaluation(),
            routing: message::Routing::new(facts, Rc::clone(&self.shared.basis)),
            recipients_count: mail.recipients.len() as u32,
            content: None,
            now: mail.now,
        };
        Box::new(routing).go(mail.content)
    }
}

fn envelope_recipient(addressee: &Addressee<'_>) -> EnvelopeRecipient {
    EnvelopeRecipient {
        address: addressee.address.to_vec(),
        notary: Notary {
            notify: addressee.notify,
            orcpt: addressee.orcpt.map(<[u8]>::to_vec),
            detached: false,
        },
    }
}

impl Router for Scripted {
    fn route(&mut self, mail: &Mail<'_>) -> Turn {
        self.begin(mail)
    }

    fn verifies(&self) -> bool {
        !self.shared.front_door.domains.is_empty()
    }

    fn is_verified(&self, check: Check, address: &[u8]) -> bool {
        let at = memchr::memrchr(b'@', address);
        let domain = at
            .map_or(&b""[..], |at| &address[at + 1..])
            .to_ascii_lowercase();
        check == Check::Recipient
            && (at.is_none() || self.shared.front_door.domains.contains(&domain))
    }

    fn publish(&mut self, source: &Arc<Source>, version: &Version) {
        // Who compiles databases anew expects new answers from the others too.
        self.shared.template.forget_answers();
        self.shared.maps.borrow_mut().take(&Published {
            source: Arc::clone(source),
            version: version.clone(),
        });
    }
}

impl Shared {
    fn evaluation(&self) -> Evaluation {
        let idle = self.idle.borrow_mut().pop();
        idle.unwrap_or_else(|| self.template.fork())
    }

    fn give_back(&self, mut evaluation: Evaluation) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_MAX {
            evaluation.reset();
            idle.push(evaluation);
        }
    }

    /// What the envelope says besides, where somebody may ask for it.
    fn keywords(&self, mail: &Mail<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
        if !self.basis.settings().tells_keywords && !mail.sender.is_empty() {
            return Vec::new();
        }
        let received = [mail.helo, b" ([", mail.client, b"])"].concat();
        let all = [
            (&b"rcvdfrom"[..], received),
            (b"with", mail.protocol.to_vec()),
        ];
        all.into_iter()
            .map(|(key, value)| (key.to_vec(), value))
            .collect()
    }

    /// A name as a shared text: most messages go to few next hops.
    fn name(&self, bytes: &[u8]) -> Option<Arc<str>> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut names = self.names.borrow_mut();
        if let Some(at) = names.iter().position(|name| **name == *text) {
            return Some(Arc::clone(&names[at]));
        }
        let name: Arc<str> = text.into();
        if names.len() >= NAMES_MAX {
            names.remove(0);
        }
        names.push(Arc::clone(&name));
        Some(name)
    }
}

/// Names of channels and next hops that are shared.
const NAMES_MAX: usize = 16;

/// A message that is being routed.
struct Under {
    shared: Rc<Shared>,
    evaluation: Evaluation,
    routing: message::Routing<Value>,
    recipients_count: u32,
    content: Option<Arc<Vec<u8>>>,
    now: Now,
}

impl Under {
    fn go(mut self: Box<Self>, content: Option<&[u8]>) -> Turn {
        let own = self.content.clone();
        let content = content.or(own.as_ref().map(|content| content.as_slice()));
        let progress = {
            let maps = self.shared.maps.borrow();
            let mut runner = Runner {
                evaluation: &mut self.evaluation,
                maps: &*maps,
                now: self.now,
            };
            self.routing.run(&mut runner, content)
        };
        match progress {
            Progress::Need(request) => Turn::Need(self, Need::Outside(request)),
            Progress::Content => Turn::Need(self, Need::Content),
            Progress::Stopped(why) => {
                self.end();
                Turn::Stopped(why)
            }
            Progress::Done(routed) => {
                let remarks = self.remarks(&routed.events);
                let mut routed = self.done().convert(routed);
                routed.remarks = remarks;
                Turn::Done(routed)
            }
        }
    }

    fn remarks(&mut self, events: &[message::Event]) -> Remarks {
        if events.is_empty() {
            return Remarks::default();
        }
        let said = self.evaluation.surroundings();
        Remarks::of(events, &said.squirrels, said.error_addresses.as_ref())
    }

    fn end(self: Box<Self>) {
        self.shared.give_back(self.evaluation);
    }

    /// What the script has used is given up before its result is taken over.
    fn done(self: Box<Self>) -> Done {
        let Self {
            shared,
            evaluation,
            routing,
            ..
        } = *self;
        shared.give_back(evaluation);
        Done {
            shared,
            facts: routing.into_facts(),
        }
    }

    /// Nobody can say what the script asked for: all wait.
    fn nothing_known(self: Box<Self>, reason: &str) -> Turn {
        let recipients = (0..self.recipients_count).map(|of| Recipient {
            of,
            group: 0,
            fate: Fate::Hold {
                reason: reason.to_owned(),
            },
        });
        let routed = Routed {
            groups: vec![Group::default()],
            recipients: recipients.collect(),
            ..Routed::default()
        };
        Turn::Done(routed)
    }
}

/// What the result of a message is made with, when the script has done its part.
struct Done {
    shared: Rc<Shared>,
    facts: Facts,
}

impl Done {
    /// Recipients and problems, each group and the problems one behind the other, become one row by addressee. What
    /// has been taken over is given up at once: of a long list there is never all of both.
    fn convert(&self, routed: message::Routed) -> Routed {
        let mut result = Routed::default();
        let mut groups = Groups::default();
        let mut rows = Vec::new();
        for group in routed.groups {
            let common = Group {
                sender: (group.sender != self.facts.sender).then_some(group.sender),
                errors_to: group.errors_to,
                detached: false,
                edits: group.edits.to_vec(),
            };
            groups.given.push((common, [None; 2]));
            rows.push(group.recipients.into_iter().peekable());
        }
        let mut problems = self.problems(&routed.problems).into_iter().peekable();
        if problems.peek().is_some() && rows.is_empty() {
            groups.list.push(Group::default());
        }
        let first = |(number, row): (usize, &mut Row)| Some(Reverse((row.peek()?.of, number)));
        let mut turns: BinaryHeap<_> = rows.iter_mut().enumerate().filter_map(first).collect();
        while let Some(Reverse((_, number))) = turns.pop() {
            let Some(recipient) = rows[number].next() else {
                continue;
            };
            let of = recipient.of;
            while let Some(problem) = problems.next_if(|problem| problem.of < of) {
                result.recipients.push(problem);
            }
            result.recipients.push(Recipient {
                of,
                group: groups.number(number, &recipient),
                fate: self.fate(recipient),
            });
            turns.extend(first((number, &mut rows[number])));
        }
        problems.for_each(|problem| result.recipients.push(problem));
        result.groups = groups.list;
        result
    }

    fn fate(&self, recipient: message::Recipient) -> Fate {
        if self.is_strangers(&recipient) {
            let text = "programs and files are not open to others".to_owned();
            let status = Cow::Borrowed("5.7.1");
            return Fate::Fail { status, text };
        }
        let (channel, host) = match delivery(&recipient) {
            Ok(pair) => pair,
            Err(reason) => return Fate::Hold { reason },
        };
        let (Some(channel), Some(host)) = (self.shared.name(channel), self.shared.name(&host))
        else {
            let text = "the next hop is no text".to_owned();
            let status = Cow::Borrowed("5.1.2");
            return Fate::Fail { status, text };
        };
        let (notify, orcpt) = match recipient.notary {
            Some(notary) => (notary.notify, notary.orcpt),
            None => self.asked(recipient.of),
        };
        let local = &*channel == LOCAL;
        let mut user = recipient.user.into_vec();
        if local && &*host == MAILBOXES && !user.contains(&b'@') {
            // A name without a domain is one of this host; the agent is told addresses.
            user.push(b'@');
            user.extend_from_slice(self.shared.basis.settings().hostname.as_bytes());
        }
        Fate::Deliver(Quad {
            channel,
            host,
            user,
            privilege: local.then_some(recipient.privilege),
            notify,
            orcpt,
        })
    }

    /// What the envelope says of reports to a recipient.
    fn asked(&self, of: u32) -> (u8, Option<Vec<u8>>) {
        let recipient = self.facts.recipients.get(of as usize);
        let notary = recipient.map(|recipient| &recipient.notary);
        notary.map_or((0, None), |notary| (notary.notify, notary.orcpt.clone()))
    }

    /// Whether a program or a file comes from the envelope itself, from somebody without rights. What files of this
    /// host name is theirs, even where it has nobody's rights.
    fn is_strangers(&self, recipient: &message::Recipient) -> bool {
        let given = self.facts.recipients.get(recipient.of as usize);
        *recipient.channel == *LOCAL.as_bytes()
            && target::is_named(&recipient.user)
            && recipient.privilege == self.shared.basis.settings().nobody
            && given.is_some_and(|given| target::is_named(&given.address))
    }

    /// What comes of problems, by addressee.
    fn problems(&self, problems: &[message::Problem]) -> Vec<Recipient> {
        let mut results = Vec::new();
        for problem in problems {
            let fate = fate_of(problem);
            let all = 0..self.facts.recipients.len() as u32;
            let of = problem.of.map_or(all, |of| of..of + 1);
            results.extend(of.map(|of| Recipient {
                of,
                group: 0,
                fate: fate.clone(),
            }));
        }
        results.sort_by_key(|result| result.of);
        results
    }
}

/// Recipients of a group that have not been taken over.
type Row = Peekable<Drain<message::Recipient>>;

/// Groups of a result under way.
#[derive(Default)]
struct Groups {
    /// Those of message processing, and what each has become: without and with members of a list that has taken the
    /// message over, which are a group of their own.
    given: Vec<(Group, [Option<u32>; 2])>,
    list: Vec<Group>,
}

impl Groups {
    fn number(&mut self, given: usize, recipient: &message::Recipient) -> u32 {
        let notary = recipient.notary.as_ref();
        let detached = notary.is_some_and(|notary| notary.detached);
        let (common, numbers) = &mut self.given[given];
        *numbers[usize::from(detached)].get_or_insert_with(|| {
            self.list.push(Group {
                detached,
                ..common.clone()
            });
            self.list.len() as u32 - 1
        })
    }
}

/// The channel of users of this host, and of their programs and files.
pub(super) const LOCAL: &str = "local";

/// The next hop of its mailboxes. Programs and files have one for each account, `pipe.UID` and `file.UID`: those of one
/// cannot keep those of another waiting.
pub(super) const MAILBOXES: &str = "-";

/// Channel and next hop of the relay for what the script says.
///
/// # Errors
/// Why nobody can deliver that now.
fn delivery(recipient: &message::Recipient) -> Result<(&[u8], Cow<'_, [u8]>), String> {
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match &*recipient.channel {
        b"smtp" | b"smtpx" => Ok((b"smtp", Cow::Borrowed(&recipient.host))),
        b"lmtp" => Ok((b"lmtp", Cow::Borrowed(&recipient.host))),
        // The host of a local delivery is a tag of the original address: nobody needs it any more.
        b"local" => Ok((LOCAL.as_bytes(), local_host(recipient))),
        channel => Err(format!(
            "there is no transport for channel {}",
            show(channel)
        )),
    }
}

fn local_host(recipient: &message::Recipient) -> Cow<'_, [u8]> {
    let kind = match target::parse(&recipient.user) {
        Some(Target::Program(_)) => "pipe",
        Some(Target::File(_)) => "file",
        None => return Cow::Borrowed(MAILBOXES.as_bytes()),
    };
    Cow::Owned(format!("{kind}.{}", recipient.privilege).into_bytes())
}

fn fate_of(problem: &message::Problem) -> Fate {
    let text = String::from_utf8_lossy(&problem.text).into_owned();
    if problem.is_temporary {
        Fate::Hold { reason: text }
    } else {
        Fate::Fail {
            status: Cow::Borrowed(problem.status),
            text,
        }
    }
}

impl Routing for Under {
    fn resume(mut self: Box<Self>, answer: Answer) -> Turn {
        match answer {
            Answer::Content(Some(content)) => {
                self.content = Some(content);
                self.go(None)
            }
            Answer::Content(None) => self.nothing_known("the content cannot be read now"),
            Answer::Outside(Ok(answer)) => {
                self.evaluation.answer(answer);
                self.go(None)
            }
            Answer::Outside(Err(why)) => self.nothing_known(&why),
        }
    }
}
