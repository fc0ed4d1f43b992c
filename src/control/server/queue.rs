//! `queue` commands: asks every shard page by page, passes entries on as they come.
//!
//! An action touches only messages that were there when it began; after a dry run of the same
//! expression, only the recipients that this has named, and of them those that still match. What
//! matches besides is counted and said: mail that has come since, and mail that has come to match, by
//! its age or by an attempt.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::oneshot;

use crate::control::Daemon;
use crate::control::queue::{Act, Inquiry, Page};
use crate::scheduler::filter::{Filter, Noted};

/// How long a shard may take for a page.
const PATIENCE: Duration = Duration::from_secs(5);

/// Likewise when the router is asked, which may have to ask others: two minutes at most for one question.
const REROUTE_PATIENCE: Duration = Duration::from_secs(150);

/// How long a dry run binds the action that follows.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Dry runs remembered; beyond it all are forgotten.
const REMEMBERED_MAX: usize = 64;

/// Recipients of all dry runs that are remembered.
const NOTED_MAX: usize = 1_000_000;

/// What the server knows of inquiries under way.
#[derive(Default)]
pub(in crate::control) struct Inquiries {
    waiting: RefCell<HashMap<u64, oneshot::Sender<Page>>>,
    token: RefCell<u64>,
    dry_runs: RefCell<HashMap<(String, String), DryRun>>,
}

/// What a dry run has named.
struct DryRun {
    at: Instant,
    noted: Arc<Noted>,
}

impl Inquiries {
    /// Hands a page to whom it belongs; he may have stopped waiting.
    pub(in crate::control) fn answer(&self, page: Page) {
        if let Some(sender) = self.waiting.borrow_mut().remove(&page.token) {
            let _ = sender.send(page);
        }
    }

    async fn ask(
        &self,
        daemon: &dyn Daemon,
        shard: usize,
        mut inquiry: Inquiry,
    ) -> Result<Page, String> {
        let token = {
            let mut token = self.token.borrow_mut();
            *token += 1;
            *token
        };
        inquiry.token = token;
        let patience = match inquiry.act {
            Some(Act::Reroute) => REROUTE_PATIENCE,
            _ => PATIENCE,
        };
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(token, sender);
        if !daemon.inquire(shard, inquiry) {
            self.waiting.borrow_mut().remove(&token);
            return Err(format!("shard {shard} has too many questions waiting"));
        }
        let page = tokio::time::timeout(patience, receiver).await;
        self.waiting.borrow_mut().remove(&token);
        match page {
            Ok(Ok(page)) => Ok(page),
            _ => Err(format!(
                "shard {shard} did not answer within {patience:?}; after a start it first reads in what is queued"
            )),
        }
    }

    /// What the dry run of the same words has named. One that is too old is an error, once: whoever
    /// made it believes that it holds.
    fn remembered(&self, key: &(String, String)) -> Result<Option<Arc<Noted>>, String> {
        let Some(run) = self.dry_runs.borrow_mut().remove(key) else {
            return Ok(None);
        };
        if run.at.elapsed() < REMEMBERED {
            return Ok(Some(run.noted));
        }
        Err(format!(
            "the dry run of this is {} minutes old and no longer holds; look again, or repeat this \
             command to act on whatever matches",
            run.at.elapsed().as_secs() / 60
        ))
    }

    /// Remembers what a dry run has named; false when that is too much.
    fn remember(&self, key: (String, String), noted: Noted) -> bool {
        let mut runs = self.dry_runs.borrow_mut();
        runs.remove(&key);
        let all: usize = runs.values().map(|run| run.noted.count()).sum();
        if runs.len() >= REMEMBERED_MAX || all + noted.count() > NOTED_MAX {
            runs.clear();
        }
        if noted.count() > NOTED_MAX {
            return false;
        }
        let (at, noted) = (Instant::now(), Arc::new(noted));
        runs.insert(key, DryRun { at, noted });
        true
    }
}

/// What a request asks for.
struct Wish {
    verb: String,
    text: String,
    filter: Arc<Filter>,
    act: Option<Act>,
    list: bool,
    dry_run: bool,
    limit: u64,
}

impl Wish {
    fn of(request: &Value) -> Result<Self, String> {
        let verb = request["act"].as_str().unwrap_or("list").to_owned();
        let text = request["where"].as_str().unwrap_or_default().to_owned();
        let filter = Filter::parse(&text).map_err(|error| format!("--where: {error}"))?;
        let act = Act::named(&verb);
        if act.is_none() && verb != "list" && verb != "count" {
            return Err(format!("no such action on the queue: {verb:?}"));
        }
        let dry_run = request["dry_run"].as_bool().unwrap_or(false);
        Ok(Self {
            list: verb == "list" || (dry_run && act.is_some()),
            verb,
            text,
            filter: Arc::new(filter),
            act,
            dry_run,
            limit: request["limit"].as_u64().unwrap_or(u64::MAX),
        })
    }

    /// Whether something is done to what matches.
    fn acts(&self) -> bool {
        self.act.is_some() && !self.dry_run
    }

    /// Whether shards find out what would be done, instead of only what matches.
    fn tries(&self) -> bool {
        self.act == Some(Act::Reroute) && self.dry_run
    }

    /// Whether what matches is noted for the action that follows.
    fn notes(&self) -> bool {
        self.act.is_some() && self.dry_run
    }

    /// What matches and fits another filter too.
    fn and(&self, other: Filter) -> Arc<Filter> {
        let own = Box::new(self.filter.as_ref().clone());
        Arc::new(Filter::And(own, Box::new(other)))
    }
}

#[derive(Default)]
struct Total {
    messages: u64,
    recipients: u64,
    bytes: u64,
    /// Of a dry run of `reroute`: recipients that would go elsewhere.
    acted: u64,
    undecided: u64,
    /// Recipients that match and were not named by the dry run.
    newer: u64,
    /// Recipients that the dry run has named, when there was one.
    named: Option<u64>,
    /// A dry run that is not remembered: the action that follows will not keep to it.
    unbound: bool,
}

/// Serves one request, entries first, then the totals.
pub(super) async fn serve(
    request: &Value,
    daemon: &dyn Daemon,
    inquiries: &Rc<Inquiries>,
    writer: &mut OwnedWriteHalf,
) -> io::Result<Value> {
    let wish = match Wish::of(request) {
        Ok(wish) => wish,
        Err(text) => return Ok(json!({ "error": text })),
    };
    match run(&wish, daemon, inquiries, writer).await {
        Ok(total) => Ok(json!({ "ok": {
            "messages": total.messages,
            "recipients": total.recipients,
            "bytes": total.bytes,
            "acted": total.acted,
            "undecided": total.undecided,
            "newer": total.newer,
            "named": total.named,
            "unbound": total.unbound,
        }})),
        Err(Ended::Io(error)) => Err(error),
        Err(Ended::Shard(text)) => Ok(json!({ "error": text })),
    }
}

enum Ended {
    Io(io::Error),
    Shard(String),
}

async fn run(
    wish: &Wish,
    daemon: &dyn Daemon,
    inquiries: &Inquiries,
    writer: &mut OwnedWriteHalf,
) -> Result<Total, Ended> {
    let key = (wish.verb.clone(), wish.text.clone());
    let named = if wish.acts() {
        inquiries.remembered(&key).map_err(Ended::Shard)?
    } else {
        None
    };
    let mut round = Round {
        wish,
        daemon,
        inquiries,
        writer,
        total: Total::default(),
        noted: Noted::default(),
    };
    match named {
        None => round.all(&wish.filter, wish.acts()).await?,
        Some(noted) => {
            let named = Filter::Among(Arc::clone(&noted));
            let of_them = wish.and(named.clone());
            round.all(&of_them, true).await?;
            let acted = std::mem::take(&mut round.total);
            // What has just been acted on may match still, and is not new.
            let others = wish.and(Filter::Not(Box::new(named)));
            round.all(&others, false).await?;
            round.total = Total {
                newer: round.total.recipients,
                named: Some(noted.count() as u64),
                ..acted
            };
        }
    }
    let Round {
        mut total, noted, ..
    } = round;
    if wish.notes() {
        total.unbound = !inquiries.remember(key, noted);
    }
    Ok(total)
}

/// One way through the queues of all shards.
struct Round<'a> {
    wish: &'a Wish,
    daemon: &'a dyn Daemon,
    inquiries: &'a Inquiries,
    writer: &'a mut OwnedWriteHalf,
    total: Total,
    noted: Noted,
}

impl Round<'_> {
    async fn all(&mut self, filter: &Arc<Filter>, acting: bool) -> Result<(), Ended> {
        for shard in 0..self.daemon.shards() {
            let upto = self.ask(shard, inquiry(filter)).await?.newest;
            let mut after = Some(0);
            while let Some(from) = after {
                let inquiry = Inquiry {
                    act: self.wish.act.filter(|_| acting || self.wish.tries()),
                    dry: !acting,
                    list: self.lists(),
                    after: from,
                    upto,
                    ..inquiry(filter)
                };
                let page = self.ask(shard, inquiry).await?;
                after = page.next;
                self.take(&page).await.map_err(Ended::Io)?;
            }
        }
        Ok(())
    }

    async fn ask(&self, shard: usize, inquiry: Inquiry) -> Result<Page, Ended> {
        let page = self.inquiries.ask(self.daemon, shard, inquiry).await;
        page.map_err(Ended::Shard)
    }

    /// Whether entries are wanted still.
    fn lists(&self) -> bool {
        self.wish.notes() || (self.wish.list && self.total.messages < self.wish.limit)
    }

    /// Counts a page and passes on what is shown of it.
    async fn take(&mut self, page: &Page) -> io::Result<()> {
        if self.wish.notes() && self.noted.count() <= NOTED_MAX {
            for entry in &page.entries {
                for recipient in &entry.recipients {
                    self.noted.insert(&entry.id, &recipient.address);
                }
            }
        }
        let room = self.wish.limit.saturating_sub(self.total.messages);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let mut lines = String::new();
        for entry in page.entries.iter().take(room) {
            lines.push_str("{\"entry\":");
            entry.write_json(&mut lines);
            lines.push_str("}\n");
        }
        self.writer.write_all(lines.as_bytes()).await?;
        self.total.messages += page.messages;
        self.total.recipients += page.recipients;
        self.total.bytes += page.bytes;
        self.total.acted += page.acted;
        self.total.undecided += page.undecided;
        Ok(())
    }
}

/// An inquiry that looks at nothing and learns how far the queue goes.
fn inquiry(filter: &Arc<Filter>) -> Inquiry {
    Inquiry {
        token: 0,
        filter: Arc::clone(filter),
        act: None,
        dry: true,
        list: false,
        after: 0,
        upto: 0,
    }
}
