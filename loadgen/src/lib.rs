//! Load generator for SMTP: a source, a sink, and a ledger between them.
//!
//! Shares no code with the server under test: it has its own small client and server. Every message
//! carries its number and the hash of its body in a header, so the ledger can prove that each
//! acknowledged message arrived once and unaltered.

#![forbid(unsafe_code)]

mod ledger;
mod message;
mod report;
mod run;
mod sink;
mod source;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "loadgen", version, about = "Source, sink and ledger for SMTP")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send messages and measure the time to each acknowledgement.
    Source(SourceArguments),
    /// Receive messages; misbehave by probability.
    Sink(SinkArguments),
    /// Source and sink in one process around a relay, with the ledger.
    Run(RunArguments),
}

#[derive(clap::Args, Clone)]
struct SourceArguments {
    /// Where to send.
    #[arg(long, value_name = "HOST:PORT")]
    to: SocketAddr,
    #[command(flatten)]
    load: Load,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What is sent.
#[derive(clap::Args, Clone, Debug)]
struct Load {
    /// Messages.
    #[arg(long, default_value_t = 10_000)]
    messages: u64,
    /// Bytes of a message, header included; LO-HI for a range.
    #[arg(long, default_value = "4096", value_parser = message::parse_size)]
    size: message::Size,
    /// Connections at a time.
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Recipients of a message.
    #[arg(long, default_value_t = 1)]
    recipients: usize,
    /// A new connection for each message.
    #[arg(long)]
    no_reuse: bool,
    /// Send MAIL, RCPT and DATA together.
    #[arg(long)]
    pipelining: bool,
    /// Send content by BDAT.
    #[arg(long)]
    bdat: bool,
}

#[derive(clap::Args, Clone, Debug)]
struct SinkArguments {
    /// Address to listen on; port 0: any.
    #[arg(long, value_name = "HOST:PORT")]
    listen: SocketAddr,
    #[command(flatten)]
    behaviour: Behaviour,
    /// End after this many seconds; 0: never.
    #[arg(long, default_value_t = 0)]
    seconds: u64,
}

/// How the sink answers.
#[derive(clap::Args, Clone, Debug, Default)]
struct Behaviour {
    /// Milliseconds before each final reply.
    #[arg(long, default_value_t = 0)]
    delay: u64,
    /// Share of final replies that are 4xx.
    #[arg(long, default_value_t = 0.0)]
    fail_4xx: f64,
    /// Share of final replies that are 5xx.
    #[arg(long, default_value_t = 0.0)]
    fail_5xx: f64,
    /// Share of messages at whose end the connection is dropped.
    #[arg(long, default_value_t = 0.0)]
    drop: f64,
    /// Offer CHUNKING.
    #[arg(long)]
    chunking: bool,
}

#[derive(clap::Args, Clone)]
struct RunArguments {
    /// The relay under test.
    #[arg(long, value_name = "HOST:PORT")]
    relay: SocketAddr,
    /// Where the relay's next hop listens: here.
    #[arg(long, value_name = "HOST:PORT")]
    sink: SocketAddr,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    behaviour: Behaviour,
    /// Show a progress bar.
    #[arg(long)]
    progress: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// The program; `arguments` without its name. Exit code 1: a message was lost, duplicated or
/// altered; 64: wrong arguments.
#[must_use]
pub fn main(arguments: Vec<String>) -> ExitCode {
    let words = std::iter::once("loadgen".to_owned()).chain(arguments);
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => {
            // A failure to print leaves nobody to tell.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    match cli.command {
        Command::Source(arguments) => run::source_alone(&arguments),
        Command::Sink(arguments) => run::sink_alone(&arguments),
        Command::Run(arguments) => run::around(&arguments),
    }
}
