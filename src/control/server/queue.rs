//! `queue` commands: asks every shard page by page, passes entries on as they come.
//!
//! An action touches only messages that were there when it began; after a dry run of the same
//! expression, only those that were there then. What has come since is counted and said.

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
use crate::scheduler::filter::Filter;

/// How long a shard may take for a page.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a dry run binds the action that follows.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Dry runs remembered; beyond it all are forgotten.
const REMEMBERED_MAX: usize = 64;

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
    /// By shard, the latest message.
    upto: Vec<u64>,
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
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(token, sender);
        if !daemon.inquire(shard, inquiry) {
            self.waiting.borrow_mut().remove(&token);
            return Err(format!("shard {shard} has too many questions waiting"));
        }
        let page = tokio::time::timeout(PATIENCE, receiver).await;
        self.waiting.borrow_mut().remove(&token);
        match page {
            Ok(Ok(page)) => Ok(page),
            _ => Err(format!("shard {shard} did not answer within {PATIENCE:?}")),
        }
    }

    fn remembered(&self, key: &(String, String)) -> Option<Vec<u64>> {
        let run = self.dry_runs.borrow_mut().remove(key)?;
        (run.at.elapsed() < REMEMBERED).then_some(run.upto)
    }

    fn remember(&self, key: (String, String), upto: Vec<u64>) {
        let mut runs = self.dry_runs.borrow_mut();
        if runs.len() >= REMEMBERED_MAX {
            runs.clear();
        }
        let at = Instant::now();
        runs.insert(key, DryRun { at, upto });
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
}

#[derive(Default)]
struct Total {
    messages: u64,
    recipients: u64,
    bytes: u64,
    acted: u64,
    newer: u64,
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
            "newer": total.newer,
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
    let acting = wish.act.is_some() && !wish.dry_run;
    let named = if acting {
        inquiries.remembered(&key)
    } else {
        None
    };
    let mut total = Total::default();
    let mut upto = Vec::new();
    for shard in 0..daemon.shards() {
        let newest = ask(inquiries, daemon, shard, blank(wish)).await?.newest;
        let until = match &named {
            Some(named) => named.get(shard).copied().unwrap_or(newest),
            None => newest,
        };
        upto.push(until);
        pages(
            wish,
            (shard, 0, until),
            acting,
            daemon,
            inquiries,
            writer,
            &mut total,
        )
        .await?;
        if named.is_some() {
            let mut newer = Total::default();
            let range = (shard, until, newest);
            pages(wish, range, false, daemon, inquiries, writer, &mut newer).await?;
            total.newer += newer.recipients;
        }
    }
    if wish.act.is_some() && wish.dry_run {
        inquiries.remember(key, upto);
    }
    Ok(total)
}

async fn ask(
    inquiries: &Inquiries,
    daemon: &dyn Daemon,
    shard: usize,
    inquiry: Inquiry,
) -> Result<Page, Ended> {
    let page = inquiries.ask(daemon, shard, inquiry).await;
    page.map_err(Ended::Shard)
}

/// An inquiry that looks at nothing and learns how far the queue goes.
fn blank(wish: &Wish) -> Inquiry {
    Inquiry {
        token: 0,
        filter: Arc::clone(&wish.filter),
        act: None,
        list: false,
        after: 0,
        upto: 0,
    }
}

async fn pages(
    wish: &Wish,
    (shard, mut after, upto): (usize, u64, u64),
    acting: bool,
    daemon: &dyn Daemon,
    inquiries: &Inquiries,
    writer: &mut OwnedWriteHalf,
    total: &mut Total,
) -> Result<(), Ended> {
    loop {
        let inquiry = Inquiry {
            act: wish.act.filter(|_| acting),
            list: wish.list && total.messages < wish.limit,
            after,
            upto,
            ..blank(wish)
        };
        let page = ask(inquiries, daemon, shard, inquiry).await?;
        let room = wish.limit.saturating_sub(total.messages);
        let mut lines = String::new();
        for entry in page
            .entries
            .iter()
            .take(usize::try_from(room).unwrap_or(usize::MAX))
        {
            lines.push_str(&json!({ "entry": entry.to_json() }).to_string());
            lines.push('\n');
        }
        writer
            .write_all(lines.as_bytes())
            .await
            .map_err(Ended::Io)?;
        total.messages += page.messages;
        total.recipients += page.recipients;
        total.bytes += page.bytes;
        total.acted += page.acted;
        match page.next {
            Some(next) => after = next,
            None => return Ok(()),
        }
    }
}
