//! The commands: source alone, sink alone, both around a relay.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tokio_uring::net::TcpListener;

use crate::ledger::Ledger;
use crate::report::Report;
use crate::{Behaviour, Load, RunArguments, SinkArguments, SourceArguments, sink, source};

/// Without progress for so long the run is over.
const PATIENCE: Duration = Duration::from_secs(30);

const FAILURE: u8 = 1;
const UNAVAILABLE: u8 = 69;

fn fail(what: impl std::fmt::Display) -> ExitCode {
    eprintln!("loadgen: {what}");
    ExitCode::from(UNAVAILABLE)
}

pub(crate) fn source_alone(arguments: &SourceArguments) -> ExitCode {
    let ledger = Arc::new(Ledger::new(
        arguments.load.messages,
        arguments.load.recipients,
    ));
    let start = Instant::now();
    if let Err(error) = send(arguments.to, &arguments.load, &ledger) {
        return fail(error);
    }
    let report = Report::new(arguments.load.messages, &ledger, start.elapsed());
    if arguments.json {
        println!("{}", report.json());
    } else {
        println!("{}", report.text());
    }
    ExitCode::SUCCESS
}

pub(crate) fn sink_alone(arguments: &SinkArguments) -> ExitCode {
    let ledger = Arc::new(Ledger::new(0, 1));
    let address = match start_sink(arguments.listen, arguments.behaviour.clone(), &ledger) {
        Ok(address) => address,
        Err(error) => return fail(error),
    };
    println!("ready {address}");
    let start = Instant::now();
    while arguments.seconds == 0 || start.elapsed().as_secs() < arguments.seconds {
        thread::sleep(Duration::from_millis(200));
    }
    println!("delivered {}", ledger.progress().1);
    ExitCode::SUCCESS
}

pub(crate) fn around(arguments: &RunArguments) -> ExitCode {
    let load = &arguments.load;
    let ledger = Arc::new(Ledger::new(load.messages, load.recipients));
    if let Err(error) = start_sink(arguments.sink, arguments.behaviour.clone(), &ledger) {
        return fail(error);
    }
    eprintln!("ready");
    let start = Instant::now();
    let sender = {
        let (relay, load, ledger) = (arguments.relay, load.clone(), Arc::clone(&ledger));
        thread::spawn(move || send(relay, &load, &ledger))
    };
    let bar = arguments.progress && io::stderr().is_terminal();
    watch(load, &ledger, &sender, bar);
    let elapsed = start.elapsed();
    if let Ok(Err(error)) = sender.join() {
        return fail(format!("source: {error}"));
    }
    let report = Report::new(load.messages, &ledger, elapsed);
    if arguments.json {
        println!("{}", report.json());
    } else {
        println!("{}", report.text());
    }
    let balance = &report.balance;
    let good = balance.lost == 0 && balance.duplicated == 0 && balance.altered == 0;
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILURE)
    }
}

/// Waits until all that was acknowledged has arrived, or nothing has moved for [`PATIENCE`].
fn watch(load: &Load, ledger: &Ledger, sender: &thread::JoinHandle<io::Result<()>>, bar: bool) {
    let recipients = load.recipients as u64;
    let (mut last, mut moved_at) = ((0, 0), Instant::now());
    loop {
        let progress = ledger.progress();
        if progress != last {
            (last, moved_at) = (progress, Instant::now());
        }
        if bar {
            draw(progress.1, load.messages * recipients);
        }
        let complete = sender.is_finished() && progress.1 >= progress.0 * recipients;
        if complete || moved_at.elapsed() > PATIENCE {
            break;
        }
        thread::sleep(Duration::from_millis(2));
    }
    if bar {
        eprintln!();
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

fn send(to: SocketAddr, load: &Load, ledger: &Arc<Ledger>) -> io::Result<()> {
    let (load, ledger) = (load.clone(), Arc::clone(ledger));
    tokio_uring::start(source::send(to, load, ledger))
}

/// Starts the sink on a thread of its own; gives back the address it listens on.
fn start_sink(
    listen: SocketAddr,
    behaviour: Behaviour,
    ledger: &Arc<Ledger>,
) -> io::Result<SocketAddr> {
    let (sender, receiver) = mpsc::channel();
    let ledger = Arc::clone(ledger);
    thread::spawn(move || {
        tokio_uring::start(async move {
            let bound = TcpListener::bind(listen).and_then(|listener| {
                let address = listener.local_addr()?;
                Ok((listener, address))
            });
            match bound {
                Ok((listener, address)) => {
                    // Nobody waits any more only when the process ends.
                    let _ = sender.send(Ok(address));
                    sink::serve(listener, behaviour, ledger).await;
                }
                Err(error) => {
                    let _ = sender.send(Err(error));
                }
            }
        });
    });
    receiver.recv().map_err(io::Error::other)?
}
