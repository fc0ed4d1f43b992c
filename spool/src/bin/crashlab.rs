//! The laboratory of `spool::sim::lab` for hours: day after day, with the power cut after every operation,
//! on every processor. A day that fails is printed with the command that shows it again; exit code 1.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::panic;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use spool::sim::lab::{self, Breach, Kind, Total};

const USAGE: &str = "\
usage: crashlab --hours N [--kind calm|errors|tight|routed|routed-tight|all] [--from SEED]
       crashlab --seed SEED [--kind KIND]

  --hours N      run days for N hours (0.01 is 36 s)
  --from SEED    the first seed; without it a time of the day
  --seed SEED    one day, with every operation
  --kind KIND    days without errors of the disk, with, or on a full one; the same with routing
  --break RULE   a deliberate fault (with --features faults)";

/// Progress is shown this often.
const SHOWN_EVERY: Duration = Duration::from_secs(1);

/// Hashes of images kept to tell new ones from old ones, at most; a day's own are told apart beyond it.
const HASHES_MAX: usize = 16 << 20;

/// What was asked for.
struct Wish {
    hours: f64,
    first: Option<u64>,
    seed: Option<u64>,
    kinds: Vec<(String, Kind)>,
    breach: Option<Breach>,
}

/// What the threads have done so far.
#[derive(Default)]
struct Progress {
    next: AtomicU64,
    days: AtomicU64,
    states: AtomicU64,
    failed: AtomicBool,
}

fn main() -> ExitCode {
    let wish = match wish(std::env::args().skip(1)) {
        Ok(wish) => wish,
        Err(problem) => {
            eprintln!("crashlab: {problem}\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    match wish.seed {
        Some(seed) => replay(&wish, seed),
        None => run(&wish),
    }
}

fn wish(mut words: impl Iterator<Item = String>) -> Result<Wish, String> {
    let mut wish = Wish {
        hours: 0.0,
        first: None,
        seed: None,
        kinds: all_kinds(),
        breach: None,
    };
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        let bad = || format!("{word}: {value:?} makes no sense");
        match word.as_str() {
            "--hours" => wish.hours = value.parse().map_err(|_| bad())?,
            "--from" => wish.first = Some(value.parse().map_err(|_| bad())?),
            "--seed" => wish.seed = Some(value.parse().map_err(|_| bad())?),
            "--kind" if value == "all" => {}
            "--kind" => {
                let kind = Kind::named(&value).ok_or_else(bad)?;
                wish.kinds = vec![(value, kind)];
            }
            "--break" => wish.breach = Some(Breach::named(&value).ok_or_else(bad)?),
            _ => return Err(format!("unknown option {word}")),
        }
    }
    if let Some(breach) = wish.breach {
        if matches!(breach, Breach::Engine(_)) && cfg!(not(feature = "faults")) {
            return Err("--break needs --features faults".to_owned());
        }
        wish.kinds = vec![(String::new(), Kind::breaking(breach))];
    }
    if wish.seed.is_none() && !(wish.hours > 0.0 && wish.hours.is_finite()) {
        return Err("--hours or --seed is needed".to_owned());
    }
    Ok(wish)
}

fn all_kinds() -> Vec<(String, Kind)> {
    let all = Kind::ALL.into_iter();
    all.map(|(name, kind)| (name.to_owned(), kind)).collect()
}

impl Wish {
    /// The command that shows a day again.
    fn command(&self, name: &str, seed: u64) -> String {
        let (features, mut options) = match self.breach {
            Some(breach) => (" --features faults", format!(" --break {breach}")),
            None => ("", String::new()),
        };
        if !name.is_empty() {
            let _ = write!(options, " --kind {name}");
        }
        format!(
            "cargo run --release -p zmailer-spool{features} --bin crashlab -- --seed {seed}{options}"
        )
    }
}

/// One day with a line for each operation.
fn replay(wish: &Wish, seed: u64) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for (name, kind) in &wish.kinds {
        let mut lines = Vec::new();
        let result = lab::run(seed, *kind, Some(&mut lines));
        for line in lines {
            println!("{line}");
        }
        match result {
            Ok(total) => {
                let (states, starts) = (total.images.len(), total.starts);
                println!("seed {seed} {name}: {states} states, {starts} starts, nothing wrong");
            }
            Err(error) => {
                println!("seed {seed} {name}: {error}");
                code = ExitCode::from(1);
            }
        }
    }
    code
}

fn run(wish: &Wish) -> ExitCode {
    let begun = Instant::now();
    let whole = Duration::from_secs_f64(wish.hours * 3600.0);
    let first = wish.first.unwrap_or_else(|| {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
        since.map_or(1, |since| since.as_secs())
    });
    println!("seeds from {first}");
    tell_of_panics();
    let progress = Progress::default();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let total = thread::scope(|scope| {
        let worker = || work(wish, first, begun + whole, &progress, HASHES_MAX / threads);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            show(&progress, begun.elapsed(), whole);
            thread::park_timeout(SHOWN_EVERY);
        }
        let mut total = Total::default();
        for worker in workers {
            match worker.join() {
                Ok(part) => total.merge(part),
                Err(_) => progress.failed.store(true, Ordering::Relaxed),
            }
        }
        total
    });
    show(&progress, begun.elapsed(), whole);
    println!();
    summary(&total, &progress);
    ExitCode::from(u8::from(progress.failed.load(Ordering::Relaxed)))
}

/// Days until the time is over or one has failed.
fn work(wish: &Wish, first: u64, until: Instant, progress: &Progress, hashes_max: usize) -> Total {
    let mut all = Total::default();
    while Instant::now() < until && !progress.failed.load(Ordering::Relaxed) {
        let number = progress.next.fetch_add(1, Ordering::Relaxed);
        let (name, kind) = &wish.kinds[(number % wish.kinds.len() as u64) as usize];
        let seed = first + number / wish.kinds.len() as u64;
        COMMAND.set(wish.command(name, seed));
        match lab::run(seed, *kind, None) {
            Ok(mut day) => {
                progress.days.fetch_add(1, Ordering::Relaxed);
                let new = day.images.difference(&all.images).count() as u64;
                progress.states.fetch_add(new, Ordering::Relaxed);
                if all.images.len() > hashes_max {
                    day.images = HashSet::new();
                }
                all.merge(day);
            }
            Err(error) => {
                println!(
                    "\nseed {seed} {name}: {error}\n{}",
                    wish.command(name, seed)
                );
                progress.failed.store(true, Ordering::Relaxed);
            }
        }
    }
    all
}

thread_local! {
    /// The command for the day of this thread: it has to be said when an assertion fails.
    static COMMAND: RefCell<String> = const { RefCell::new(String::new()) };
}

/// An assertion of the engine ends the process, and says which day it was.
fn tell_of_panics() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        before(info);
        COMMAND.with_borrow(|command| println!("\n{command}"));
        std::process::exit(1);
    }));
}

/// One line, drawn again and again.
fn show(progress: &Progress, elapsed: Duration, whole: Duration) {
    let (done, all) = (elapsed.as_secs_f64(), whole.as_secs_f64());
    let share = (done / all).min(1.0);
    let bar: String = (0..20)
        .map(|step| {
            if f64::from(step) < share * 20.0 {
                '#'
            } else {
                '.'
            }
        })
        .collect();
    let states = progress.states.load(Ordering::Relaxed);
    let days = progress.days.load(Ordering::Relaxed);
    let rate = states as f64 / done.max(1e-3);
    eprint!(
        "\r[{bar}] {:3.0} %, {} gone, {} left, {days} days, {states} states, {rate:.0}/s ",
        share * 100.0,
        clock(done),
        clock((all - done).max(0.0)),
    );
    let _ = io::stderr().flush();
}

fn clock(seconds: f64) -> String {
    let seconds = seconds as u64;
    format!(
        "{}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

fn summary(total: &Total, progress: &Progress) {
    let days = progress.days.load(Ordering::Relaxed);
    let states = progress.states.load(Ordering::Relaxed);
    let (starts, matrix) = (total.starts, &total.matrix);
    println!("{days} days, {states} crash states, {starts} starts judged\n{matrix}");
}
