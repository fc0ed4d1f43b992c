//! `zmailer queue` and `mailq`: what waits, for whom, why, and what is done to it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{ConfigArgument, exit, fail, help};
use crate::config::Config;
use crate::control::client;

/// What `zmailer queue` does.
#[derive(Subcommand)]
pub(super) enum Act {
    /// Messages and their recipients: age, size, sender, attempts, last reply, next attempt.
    #[command(after_long_help = help::QUEUE_LIST)]
    List(Listing),
    /// How many messages, recipients and bytes wait.
    #[command(after_long_help = help::QUEUE_COUNT)]
    Count(Selection),
    /// Try now instead of at the time due.
    #[command(after_long_help = help::QUEUE_RETRY)]
    Retry(Selection),
    /// Do not try until released.
    #[command(after_long_help = help::QUEUE_HOLD)]
    Hold(Selection),
    /// Let go what is held.
    #[command(after_long_help = help::QUEUE_RELEASE)]
    Release(Selection),
    /// Drop without a report to the sender.
    #[command(after_long_help = help::QUEUE_DELETE)]
    Delete(Selection),
    /// Give up, with a report to the sender.
    #[command(after_long_help = help::QUEUE_BOUNCE)]
    Bounce(Selection),
    /// Ask the router again where they go.
    #[command(after_long_help = help::QUEUE_REROUTE)]
    Reroute(Selection),
}

/// Who is meant.
#[derive(Args)]
pub(super) struct Selection {
    #[command(flatten)]
    config: ConfigArgument,
    /// Which recipients: keys id, sender, recipient, domain, channel, host, destination, state with
    /// = != ~ !~ (* and ?), and age, size, attempts with < > =; and, or, not, ( ).
    #[arg(long = "where", value_name = "EXPR")]
    filter: Option<String>,
    /// Only say what would be done. The same command without it then leaves alone what came since.
    #[arg(long)]
    dry_run: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Who is meant, and how much of it is shown.
#[derive(Args)]
pub(super) struct Listing {
    #[command(flatten)]
    selection: Selection,
    /// Messages shown at most.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// `mailq` (zmailer.md 4.7).
#[derive(Args, Default)]
pub(super) struct Mailq {
    #[command(flatten)]
    config: ConfigArgument,
    /// Summary lines of the directories first; twice: nothing else.
    #[arg(short, action = clap::ArgAction::Count)]
    summary: u8,
    /// By destination: messages, attempts, next time, last reply.
    #[arg(short = 'Q', action = clap::ArgAction::Count)]
    by_destination: u8,
    /// All recipients of each message.
    #[arg(short, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Only this channel.
    #[arg(short, value_name = "CHANNEL")]
    channel: Option<String>,
    /// Only this next hop.
    #[arg(short = 'H', long, value_name = "HOST")]
    host: Option<String>,
}

/// By how much a listing steps back behind the daemon.
const NICENESS: i32 = 10;

/// Recipients of a message shown without `-v`.
const SHOWN_RECIPIENTS: usize = 5;

/// Runs `zmailer queue`.
pub(super) fn run(act: &Act) -> Result<ExitCode, ExitCode> {
    let (verb, selection, limit) = match act {
        Act::List(listing) => ("list", &listing.selection, listing.limit),
        Act::Count(selection) => ("count", selection, None),
        Act::Retry(selection) => ("retry", selection, None),
        Act::Hold(selection) => ("hold", selection, None),
        Act::Release(selection) => ("release", selection, None),
        Act::Delete(selection) => ("delete", selection, None),
        Act::Bounce(selection) => ("bounce", selection, None),
        Act::Reroute(selection) => ("reroute", selection, None),
    };
    let config = selection.config.load()?;
    let changes = !matches!(act, Act::List(_) | Act::Count(_));
    if changes && selection.filter.is_none() {
        let text = format!("queue {verb} needs --where EXPR; --where '' means every recipient");
        return Err(fail(exit::USAGE, text));
    }
    let filter = selection.filter.as_deref().unwrap_or_default();
    let request = json!({
        "command": "queue",
        "act": verb,
        "where": filter,
        "dry_run": selection.dry_run,
        "limit": limit,
    });
    let now_ms = now_ms();
    let lists = matches!(act, Act::List(_)) || selection.dry_run;
    let mut shown = Shown::new(selection.json && lists);
    let tries = matches!(act, Act::Reroute(_));
    let total = ask(&config, &request, |entry| {
        if tries && !selection.json {
            return shown.entry(entry, |out| show_changes(entry, out));
        }
        shown.entry(entry, |out| show(entry, now_ms, usize::MAX, out))
    })?;
    let written = if selection.json {
        shown.end_of_json(&total)
    } else {
        shown.line(&conclusion(verb, changes, selection.dry_run, &total))
    };
    written.map_err(|error| fail(exit::IO, format!("standard output: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

/// Standard output of a listing: the first entries at once, the others in larger pieces, none kept.
struct Shown {
    out: BufWriter<io::Stdout>,
    count: usize,
    /// One object, whose entries come first.
    json: bool,
}

impl Shown {
    /// Entries that are not kept for others to come.
    const AT_ONCE: usize = 100;

    fn new(json: bool) -> Self {
        Self {
            out: BufWriter::with_capacity(64 << 10, io::stdout()),
            count: 0,
            json,
        }
    }

    fn entry(
        &mut self,
        entry: &Value,
        show: impl FnOnce(&mut BufWriter<io::Stdout>) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.json {
            let before = if self.count == 0 {
                "{\"entries\":["
            } else {
                ",\n"
            };
            write!(self.out, "{before}{entry}")?;
        } else {
            show(&mut self.out)?;
        }
        self.count += 1;
        if self.count <= Self::AT_ONCE {
            self.out.flush()?;
        }
        Ok(())
    }

    /// The totals, as the rest of the object that the entries have begun.
    fn end_of_json(&mut self, total: &Value) -> io::Result<()> {
        let text = total.to_string();
        match (self.json, self.count) {
            (false, _) => self.line(&text),
            (true, 0) => self.line(&text.replacen('{', "{\"entries\":[],", 1)),
            (true, _) => self.line(&text.replacen('{', "],", 1)),
        }
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }
}

fn conclusion(verb: &str, changes: bool, dry_run: bool, total: &Value) -> String {
    let number = |key: &str| total[key].as_u64().unwrap_or(0);
    let (messages, recipients) = (number("messages"), number("recipients"));
    let what = format!("{recipients} recipients of {messages} messages");
    if !changes {
        return format!("{what}, {} bytes", number("bytes"));
    }
    if dry_run && verb == "reroute" {
        let mut text = format!("reroute would change {} of {what}", number("acted"));
        text.push_str(&undecided(number("undecided")));
        text.push_str("; nothing has been done");
        return text;
    }
    if dry_run {
        let unbound = total["unbound"].as_bool().unwrap_or(false);
        let more = if unbound {
            "; that is too much to remember: the command itself will act on what matches then"
        } else {
            ""
        };
        return format!("{verb} would concern {what}; nothing has been done{more}");
    }
    let acted = number("acted");
    let mut text = format!("{verb}: {acted} of {what}");
    if verb == "reroute" && acted < recipients {
        text.push_str(&format!("; {} stay where they are", recipients - acted));
        text.push_str(&undecided(number("undecided")));
    } else if acted < recipients {
        let left = recipients - acted;
        text.push_str(&format!(
            "; {left} left alone: being delivered, or nothing to {verb}"
        ));
    }
    if let Some(named) = total["named"].as_u64() {
        text.push_str(&format!("; the dry run has named {named}"));
    }
    match number("newer") {
        0 => {}
        newer => text.push_str(&format!(
            "; {newer} more came after the dry run, or match since, and were left alone"
        )),
    }
    text
}

fn undecided(count: u64) -> String {
    match count {
        0 => String::new(),
        count => format!("; about {count} the router cannot decide now"),
    }
}

fn ask(
    config: &Config,
    request: &Value,
    entry: impl FnMut(&Value) -> io::Result<()>,
) -> Result<Value, ExitCode> {
    let socket = config.paths.postoffice.join("control.sock");
    // Mail comes before a look at it. Who may not be nice is as he is.
    let _ = rustix::process::nice(NICENESS);
    client::request_entries(&socket, request, entry).map_err(|error| match error {
        client::ControlError::Refused(text) => fail(exit::USAGE, text),
        client::ControlError::Io(_, error) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        client::ControlError::Io(path, error)
            if error.kind() == io::ErrorKind::PermissionDenied =>
        {
            let text = format!(
                "{}: only root and the daemon's user may ask",
                path.display()
            );
            fail(exit::PERMISSION, text)
        }
        error => fail(exit::UNAVAILABLE, error),
    })
}

pub(super) fn show(
    entry: &Value,
    now_ms: u64,
    recipients_max: usize,
    out: &mut impl Write,
) -> io::Result<()> {
    let age = now_ms.saturating_sub(entry["arrival_ms"].as_u64().unwrap_or(now_ms));
    let sender = entry["sender"].as_str().unwrap_or_default();
    let routed_by = match entry["generation"].as_u64() {
        Some(generation) => format!(" conf={generation}"),
        None => String::new(),
    };
    writeln!(
        out,
        "{} {} {} <{sender}>{routed_by}",
        entry["id"].as_str().unwrap_or_default(),
        size(entry["size"].as_u64().unwrap_or(0)),
        span(age),
    )?;
    let recipients = entry["recipients"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    for recipient in recipients.iter().take(recipients_max) {
        writeln!(out, "    {}", line_of(recipient, now_ms))?;
    }
    match recipients.len().saturating_sub(recipients_max) {
        0 => Ok(()),
        more => writeln!(out, "    and {more} more recipients"),
    }
}

/// What rerouting would change: old and new, a line for each recipient.
fn show_changes(entry: &Value, out: &mut impl Write) -> io::Result<()> {
    let recipients = entry["recipients"].as_array();
    for recipient in recipients.map_or(&[][..], Vec::as_slice) {
        let Some(becomes) = recipient["becomes"].as_str() else {
            continue;
        };
        let text = |key: &str| recipient[key].as_str().unwrap_or_default();
        writeln!(
            out,
            "{} <{}> {}/{} -> {becomes}",
            entry["id"].as_str().unwrap_or_default(),
            text("recipient"),
            text("channel"),
            text("host"),
        )?;
    }
    Ok(())
}

fn line_of(recipient: &Value, now_ms: u64) -> String {
    let text = |key: &str| recipient[key].as_str().unwrap_or_default();
    let mut line = format!("<{}>", text("recipient"));
    if !text("channel").is_empty() {
        line.push_str(&format!(" {}/{}", text("channel"), text("host")));
    }
    line.push_str(&format!(" {}", text("state")));
    match recipient["attempts"].as_u64() {
        None | Some(0) => {}
        Some(1) => line.push_str(", 1 attempt"),
        Some(attempts) => line.push_str(&format!(", {attempts} attempts")),
    }
    match recipient["next_ms"].as_u64() {
        None | Some(0) => {}
        Some(next) => line.push_str(&format!(", next in {}", span(next.saturating_sub(now_ms)))),
    }
    if !text("reply").is_empty() {
        line.push_str(&format!(": {}", text("reply")));
    }
    line
}

/// Runs `mailq`.
pub(super) fn mailq(arguments: &Mailq) -> Result<ExitCode, ExitCode> {
    let config = arguments.config.load()?;
    if arguments.summary > 0 {
        directories(&config);
    }
    if arguments.summary > 1 {
        return Ok(ExitCode::SUCCESS);
    }
    let mut parts = Vec::new();
    for (key, value) in [("channel", &arguments.channel), ("host", &arguments.host)] {
        if let Some(value) = value {
            parts.push(format!("{key} = {}", quoted(value)?));
        }
    }
    let filter = parts.join(" and ");
    let request = json!({ "command": "queue", "act": "list", "where": filter });
    let now_ms = now_ms();
    let shown = if arguments.verbose > 0 {
        usize::MAX
    } else {
        SHOWN_RECIPIENTS
    };
    let mut destinations = BTreeMap::new();
    let mut out = Shown::new(false);
    let total = ask(&config, &request, |entry| {
        if arguments.by_destination > 0 {
            count(entry, &mut destinations);
            return Ok(());
        }
        out.entry(entry, |out| show(entry, now_ms, shown, out))
    })?;
    let conclusion = match total["messages"].as_u64() {
        Some(0) => "Mail queue is empty".to_owned(),
        _ => conclusion("list", false, false, &total),
    };
    let lines = destinations.iter();
    let lines = lines.map(|(name, destination)| destination.line(name, now_ms));
    for line in lines.chain([conclusion]) {
        out.line(&line)
            .map_err(|error| fail(exit::IO, format!("standard output: {error}")))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A value of an expression. There is no way to write a quotation mark in one.
pub(super) fn quoted(value: &str) -> Result<String, ExitCode> {
    if value.contains('"') {
        return Err(fail(
            exit::USAGE,
            format!("{value:?}: a quotation mark is in it"),
        ));
    }
    Ok(format!("\"{value}\""))
}

/// What waits for one channel/host.
#[derive(Default)]
struct Destination {
    recipients: u64,
    attempts: u64,
    next_ms: u64,
    oldest_ms: u64,
    held: u64,
    reply: String,
}

fn count(entry: &Value, destinations: &mut BTreeMap<String, Destination>) {
    for recipient in entry["recipients"]
        .as_array()
        .map_or(&[][..], Vec::as_slice)
    {
        let text = |key: &str| recipient[key].as_str().unwrap_or_default();
        let name = if text("state") == "held" {
            "held".to_owned()
        } else {
            format!("{}/{}", text("channel"), text("host"))
        };
        let found = destinations.entry(name).or_default();
        let arrival = entry["arrival_ms"].as_u64().unwrap_or(0);
        found.recipients += 1;
        found.held += u64::from(text("state") == "held");
        found.attempts = found
            .attempts
            .max(recipient["attempts"].as_u64().unwrap_or(0));
        let next = recipient["next_ms"].as_u64().unwrap_or(0);
        if found.next_ms == 0 || (next > 0 && next < found.next_ms) {
            found.next_ms = next;
        }
        if found.oldest_ms == 0 || arrival < found.oldest_ms {
            found.oldest_ms = arrival;
        }
        if found.reply.is_empty() {
            text("reply").clone_into(&mut found.reply);
        }
    }
}

impl Destination {
    /// In ZMailer's words: R recipients, A attempts, W wait, QA oldest age.
    fn line(&self, name: &str, now_ms: u64) -> String {
        let mut line = format!("{name}  R={} A={}", self.recipients, self.attempts);
        if self.next_ms > now_ms {
            line.push_str(&format!(" W={}s", (self.next_ms - now_ms) / 1000));
        }
        line.push_str(&format!(
            " QA={}",
            span(now_ms.saturating_sub(self.oldest_ms))
        ));
        if !self.reply.is_empty() {
            line.push_str(&format!("  {}", self.reply));
        }
        line
    }
}

/// The lines of `mailq -s`.
fn directories(config: &Config) {
    let socket = config.paths.postoffice.join("control.sock");
    let status = client::request(&socket, "status").ok();
    let state = |idle: bool| match (&status, idle) {
        (None, _) => "no daemon",
        (Some(_), true) => "idle",
        (Some(_), false) => "processing",
    };
    let router = config.paths.postoffice.join("router");
    let waiting = files_in(&router);
    println!(
        "{waiting} entries in {}/ directory: {}",
        router.display(),
        state(waiting == 0)
    );
    let deferred = files_in(&config.paths.postoffice.join("deferred"));
    println!("{deferred} messages deferred");
    let spool = config.paths.postoffice.join("spool");
    match &status {
        Some(status) => {
            let queued = status["queue"]["messages"].as_u64().unwrap_or(0);
            let word = if queued == 0 { "idle" } else { "working" };
            println!(
                "{queued} messages in {}/ directory: {word}",
                spool.display()
            );
        }
        None => println!(
            "messages in {}/ directory: no scheduler daemon",
            spool.display()
        ),
    }
}

fn files_in(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, |entries| {
        let visible = |name: std::ffi::OsString| !name.as_encoded_bytes().starts_with(b".");
        entries
            .flatten()
            .filter(|entry| visible(entry.file_name()))
            .count()
    })
}

pub(super) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// A time span in two units at most: 1d18h.
fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes}B"),
        10_240..10_485_760 => format!("{}KiB", bytes >> 10),
        _ => format!("{}MiB", bytes >> 20),
    }
}
