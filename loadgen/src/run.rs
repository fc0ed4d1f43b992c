//! The commands: source alone, sink alone, both around a relay.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::html::{self, Section};
use crate::idle::Crowd;
use crate::ledger::{Ledger, Progress};
use crate::options::{Behaviour, Load, Output, RunArguments, SinkArguments, SourceArguments};
use crate::report::Report;
use crate::sink::Sink;
use crate::source;

/// Reports about refused recipients are waited for as long as something moves within this. A relay
/// may send them elsewhere, and then none comes.
const REPORT_PATIENCE: Duration = Duration::from_secs(5);

/// After everything has arrived nothing more may arrive for so long.
const SETTLED: Duration = Duration::from_millis(200);

/// The wait for that has an end too.
const SETTLING_MAX: Duration = Duration::from_secs(5);

/// How often things are looked at.
const LOOK: Duration = Duration::from_millis(2);
const LOOK_AT_CROWD: Duration = Duration::from_millis(500);

const FAILURE: u8 = 1;
const UNAVAILABLE: u8 = 69;
const BAD_CONFIGURATION: u8 = 78;

/// Says what is wrong; the exit code for something that is not available.
pub(crate) fn fail(what: impl std::fmt::Display) -> ExitCode {
    eprintln!("loadgen: {what}");
    ExitCode::from(UNAVAILABLE)
}

/// The same for a file that is not right.
pub(crate) fn refuse(what: impl std::fmt::Display) -> ExitCode {
    eprintln!("loadgen: {what}");
    ExitCode::from(BAD_CONFIGURATION)
}

/// The exit code of a run that was good, or was not.
pub(crate) fn verdict(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILURE)
    }
}

pub(crate) fn source_alone(arguments: &SourceArguments) -> ExitCode {
    let plan = Plan {
        relay: arguments.to,
        sink: None,
        load: arguments.load.clone(),
        bar: false,
    };
    conclude(&plan, &arguments.output, "loadgen source")
}

/// A source with what makes it fast.
pub(crate) fn spool_fill(arguments: &SourceArguments) -> ExitCode {
    let mut load = arguments.load.clone();
    load.pipelining = true;
    load.bdat = true;
    load.destinations = load.destinations.or(Some(1));
    let plan = Plan {
        relay: arguments.to,
        sink: None,
        load,
        bar: false,
    };
    conclude(&plan, &arguments.output, "loadgen spool-fill")
}

pub(crate) fn sink_alone(arguments: &SinkArguments) -> ExitCode {
    let ledger = Arc::new(Ledger::without_messages());
    let behaviour = arguments.behaviour.clone();
    let sink = match Sink::start(arguments.listen, behaviour, arguments.seed, &ledger) {
        Ok(sink) => sink,
        Err(error) => return fail(format!("{}: {error}", arguments.listen)),
    };
    println!("ready {}", sink.address());
    let start = Instant::now();
    while arguments.seconds == 0 || start.elapsed().as_secs() < arguments.seconds {
        thread::sleep(Duration::from_millis(200));
    }
    println!("delivered {}", ledger.progress().delivered);
    match sink.stop() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(format!("sink: {error}")),
    }
}

pub(crate) fn around(arguments: &RunArguments) -> ExitCode {
    let plan = Plan {
        relay: arguments.relay,
        sink: Some((arguments.sink, arguments.behaviour.clone())),
        load: arguments.load.clone(),
        bar: arguments.progress && io::stderr().is_terminal(),
    };
    conclude(&plan, &arguments.output, "loadgen run")
}

fn conclude(plan: &Plan, output: &Output, title: &str) -> ExitCode {
    let report = match measure(plan, || Ok(())) {
        Ok((report, ())) => report,
        Err(error) => return fail(error),
    };
    if output.json {
        println!("{}", report.json());
    } else {
        println!("{}", report.text());
    }
    let section = Section {
        title: plan.relay.to_string(),
        text: format!("{} messages", plan.load.messages),
        problems: &[],
        report: Some(&report),
    };
    match write_page(output.html.as_deref(), title, &[section]) {
        Ok(()) => verdict(report.is_good()),
        Err(error) => fail(error),
    }
}

/// Writes the page, when one is asked for.
pub(crate) fn write_page(
    file: Option<&Path>,
    title: &str,
    sections: &[Section<'_>],
) -> Result<(), String> {
    let Some(file) = file else { return Ok(()) };
    let page = html::page(title, sections)?;
    std::fs::write(file, page).map_err(|error| format!("{}: {error}", file.display()))
}

/// What is to be measured.
pub(crate) struct Plan {
    pub(crate) relay: SocketAddr,
    /// Where the sink listens and how it answers, when there is one.
    pub(crate) sink: Option<(SocketAddr, Behaviour)>,
    pub(crate) load: Load,
    /// Draw a progress bar.
    pub(crate) bar: bool,
}

/// Measures; `settled` runs after the last delivery, while the sink still listens, so that what a
/// relay does at its end is seen.
///
/// # Errors
/// When something is not there, or ends, that has to be there.
pub(crate) fn measure<T>(
    plan: &Plan,
    settled: impl FnOnce() -> Result<T, String>,
) -> Result<(Report, T), String> {
    let load = &plan.load;
    let ledger = Arc::new(Ledger::new(load)?);
    let sink = match &plan.sink {
        Some((listen, behaviour)) => Some(
            Sink::start(*listen, behaviour.clone(), load.seed, &ledger)
                .map_err(|error| format!("sink: {listen}: {error}"))?,
        ),
        None => None,
    };
    let limit = Duration::from_secs(load.idle_limit);
    let mut crowd = Crowd::gather(plan.relay, load.idle, limit);
    ledger.begin();
    let sender = {
        let (relay, load, ledger) = (plan.relay, load.clone(), Arc::clone(&ledger));
        thread::spawn(move || tokio_uring::start(source::send(relay, load, ledger)))
    };
    let elapsed = watch(plan, &ledger, &sender, &mut crowd);
    let sent = conclude_source(sender);
    if sink.is_some() {
        settle(&ledger);
    }
    let idle_dropped = crowd.disperse();
    let after = sent.and_then(|()| settled());
    if let Some(sink) = sink {
        sink.stop().map_err(|error| format!("sink: {error}"))?;
    }
    let mut report = Report::new(load, ledger.summary(), elapsed, plan.sink.is_some());
    report.idle_dropped = idle_dropped;
    after.map(|after| (report, after))
}

fn conclude_source(sender: thread::JoinHandle<io::Result<()>>) -> Result<(), String> {
    if !sender.is_finished() {
        // It waits for a reply that does not come, so it cannot be waited for.
        return Err("source: the relay has stopped answering".to_owned());
    }
    match sender.join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("source: {error}")),
        Err(_) => Err("source: its thread panicked".to_owned()),
    }
}

/// Waits until all that is owed has arrived, or nothing has moved for too long; the time to the last
/// thing that moved.
fn watch(
    plan: &Plan,
    ledger: &Ledger,
    sender: &thread::JoinHandle<io::Result<()>>,
    crowd: &mut Crowd,
) -> Duration {
    let start = Instant::now();
    let patience = patience(plan);
    let recipients = all_recipients(plan);
    let (mut last, mut moved_at, mut looked_at) = (Progress::default(), start, start);
    loop {
        let finished = sender.is_finished();
        let progress = ledger.progress();
        if progress != last {
            (last, moved_at) = (progress, Instant::now());
        }
        if plan.bar {
            draw(progress.delivered, recipients);
        }
        if looked_at.elapsed() > LOOK_AT_CROWD {
            crowd.look();
            looked_at = Instant::now();
        }
        let quiet = moved_at.elapsed();
        let reported = progress.reports_awaited == 0 || quiet > REPORT_PATIENCE;
        let arrived = plan.sink.is_none() || (progress.open == 0 && reported);
        if (finished && arrived) || quiet > patience {
            break;
        }
        thread::sleep(LOOK);
    }
    if plan.bar {
        eprintln!();
    }
    moved_at.duration_since(start)
}

/// How long nothing has to happen before the run is over: longer than the sink is down, and than any
/// likely pause between the arrivals of an open loop.
fn patience(plan: &Plan) -> Duration {
    let down = plan.sink.as_ref().map_or(0, |(_, sink)| sink.down_for);
    let between = plan.load.rate.map_or(0.0, |rate| 20.0 / rate);
    Duration::from_secs(plan.load.patience.saturating_add(down))
        .saturating_add(Duration::from_secs_f64(between))
}

fn all_recipients(plan: &Plan) -> u64 {
    let load = &plan.load;
    let count = |number| u64::from(load.recipients_of(number));
    // Only the bar wants to know.
    if plan.bar {
        (0..load.messages).map(count).sum()
    } else {
        0
    }
}

/// Waits for what may arrive a second time.
fn settle(ledger: &Ledger) {
    let start = Instant::now();
    let (mut last, mut moved_at) = (ledger.progress(), start);
    while moved_at.elapsed() < SETTLED && start.elapsed() < SETTLING_MAX {
        thread::sleep(LOOK);
        let progress = ledger.progress();
        if progress != last {
            (last, moved_at) = (progress, Instant::now());
        }
    }
}

fn draw(done: u64, all: u64) {
    const WIDTH: u64 = 50;
    let filled = (done * WIDTH).checked_div(all).unwrap_or(0).min(WIDTH) as usize;
    let rest = WIDTH as usize - filled;
    let mut err = io::stderr().lock();
    // A bar that cannot be drawn is not worth an error.
    let _ = write!(
        err,
        "\r[{}{}] {done}/{all}",
        "#".repeat(filled),
        ".".repeat(rest)
    );
    let _ = err.flush();
}
