//! The command line. The tables of a scenario file have the same names and the same parsers.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::distribution::{self, Distribution, Purpose, Random};

#[derive(Parser)]
#[command(name = "loadgen", version, about = "Source, sink and ledger for SMTP")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Send messages and measure the time to each acknowledgement.
    Source(SourceArguments),
    /// Receive messages; misbehave on request.
    Sink(SinkArguments),
    /// Source and sink in one process around a relay, with the ledger.
    Run(Box<RunArguments>),
    /// Fill a relay's queue as fast as possible: pipelined, by BDAT where offered, without a sink.
    SpoolFill(SourceArguments),
    /// Run scenario files against a relay that is started for each, or against one that runs.
    Scenario(ScenarioArguments),
}

#[derive(clap::Args, Clone)]
pub(crate) struct SourceArguments {
    /// The relay's address.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) to: SocketAddr,
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct SinkArguments {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) behaviour: Behaviour,
    /// Seed of what the sink does by probability.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// End after this many seconds; 0 never ends.
    #[arg(long, default_value_t = 0)]
    pub(crate) seconds: u64,
}

#[derive(clap::Args, Clone)]
pub(crate) struct RunArguments {
    /// The relay under test.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) relay: SocketAddr,
    /// Where the relay's next hop listens, which is this sink.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) sink: SocketAddr,
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) behaviour: Behaviour,
    /// Show a progress bar when standard error is a terminal.
    #[arg(long)]
    pub(crate) progress: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(clap::Args, Clone)]
pub(crate) struct ScenarioArguments {
    /// Scenario files.
    #[arg(value_name = "FILE", required_unless_present = "all")]
    pub(crate) files: Vec<PathBuf>,
    /// Run every scenario that is built in.
    #[arg(long)]
    pub(crate) all: bool,
    /// The relay's program; it is started as `PROGRAM run --config FILE` for each scenario.
    #[arg(long, value_name = "PROGRAM", required_unless_present = "relay", conflicts_with_all = ["relay", "sink"])]
    pub(crate) command: Option<PathBuf>,
    /// A relay that runs already; the `[zmailer]` tables are ignored then.
    #[arg(long, value_name = "HOST:PORT", requires = "sink")]
    pub(crate) relay: Option<SocketAddr>,
    /// Where that relay delivers to.
    #[arg(long, value_name = "HOST:PORT", requires = "relay")]
    pub(crate) sink: Option<SocketAddr>,
    /// Where to work; each scenario has a directory of its own below it, removed when it was green.
    #[arg(long, default_value = "target")]
    pub(crate) dir: PathBuf,
    /// Multiplies the numbers of messages and of idle connections; at least one remains.
    #[arg(long, default_value_t = 1.0, value_parser = parse_scale)]
    pub(crate) scale: f64,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// How the result is shown.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Output {
    /// Print one JSON object (an array of them for scenarios).
    #[arg(long)]
    pub(crate) json: bool,
    /// Also write a page with charts of latency and throughput; it needs no other file.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// What is sent.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Load {
    /// Number of messages.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=MESSAGES_MAX))]
    pub(crate) messages: u64,
    /// Bytes of a message, header included: N, LOW-HIGH, exp:MEAN, lognormal:MEDIAN,SIGMA or
    /// mix:SIZE*WEIGHT,...
    #[arg(long, default_value = "4096", value_parser = distribution::parse_size)]
    pub(crate) size: Distribution,
    /// Recipients of a message: N, LOW-HIGH, exp:MEAN, lognormal:MEDIAN,SIGMA or
    /// mix:COUNT*WEIGHT,...
    #[arg(long, default_value = "1", value_parser = distribution::parse_recipients)]
    pub(crate) recipients: Distribution,
    /// Spread recipients over this many domains, d0.example and so on, instead of sink.example.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) destinations: Option<u64>,
    /// Seed of sizes, recipients, content and arrivals; the same seed sends the same mail.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Connections that send.
    #[arg(long, default_value_t = 50, value_parser = connections)]
    pub(crate) connections: usize,
    /// Open loop: messages a second, sent when they are due and not when the last one is done;
    /// latency counts from then. Without it each connection sends the next message after a reply.
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate)]
    pub(crate) rate: Option<f64>,
    /// How messages of the open loop arrive [default: poisson].
    #[arg(long, value_enum, requires = "rate")]
    pub(crate) arrivals: Option<Arrivals>,
    /// Use a new connection for each message.
    #[arg(long)]
    pub(crate) no_reuse: bool,
    /// Send MAIL, RCPT and DATA without waiting for each reply.
    #[arg(long)]
    pub(crate) pipelining: bool,
    /// Send content by BDAT where the relay offers CHUNKING.
    #[arg(long)]
    pub(crate) bdat: bool,
    /// More connections that say EHLO and then nothing until the end; losing one is a failure.
    #[arg(long, default_value_t = 0, value_parser = idle_connections)]
    pub(crate) idle: usize,
    /// Seconds of silence after which the relay may close an idle connection (RFC 5321 4.5.3.2.7).
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) idle_limit: u64,
    /// Seconds without any progress after which what is missing counts as lost.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) patience: u64,
}

/// How the messages of an open loop are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrivals {
    /// Independent of each other, as from many senders.
    Poisson,
    /// In equal steps.
    Even,
}

/// How the sink answers.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Behaviour {
    /// Milliseconds before each final reply.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) delay: u64,
    /// Share of final replies that are 4xx, by chance at each attempt.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    pub(crate) fail_4xx: f64,
    /// Share of messages whose final reply is 5xx, the same ones at each attempt.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    pub(crate) fail_5xx: f64,
    /// Share of recipients that are refused with 5xx, the same ones at each attempt.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    pub(crate) fail_rcpt: f64,
    /// Share of messages at whose end the connection is dropped, by chance at each attempt.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    pub(crate) drop: f64,
    /// Share of connections that are accepted and never answered, not even with a greeting.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    pub(crate) mute: f64,
    /// Bytes a second that are read from a connection; 0 is as fast as they come.
    #[arg(long, value_name = "BYTES_PER_S", default_value_t = 0)]
    pub(crate) read_rate: u64,
    /// Seconds at the start during which connections are refused.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) down_for: u64,
    /// Connections at a time; one above it gets 421. 0 is any number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) max_connections: usize,
    /// Offer CHUNKING.
    #[arg(long)]
    pub(crate) chunking: bool,
}

/// Messages of one run.
pub(crate) const MESSAGES_MAX: u64 = 100_000_000;

/// An address pair has 65535 ports; some are in use.
pub(crate) const IDLE_MAX: usize = 60_000;

impl Load {
    /// Bytes of a message.
    pub(crate) fn size_of(&self, number: u64) -> u64 {
        self.size.at(self.random(Purpose::Size, number))
    }

    /// Recipients of a message.
    pub(crate) fn recipients_of(&self, number: u64) -> u32 {
        let count = self.recipients.at(self.random(Purpose::Recipients, number));
        // The parser has bounded it.
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Domain of a recipient.
    pub(crate) fn domain_of(&self, number: u64, index: u32) -> String {
        let Some(destinations) = self.destinations else {
            return "sink.example".to_owned();
        };
        let mut random = self.random(Purpose::Destination, (number << 16) | u64::from(index));
        format!("d{}.example", random.draw() % destinations)
    }

    fn random(&self, purpose: Purpose, number: u64) -> Random {
        Random::new(self.seed, purpose, number)
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share from 0 to 1 is expected".to_owned()),
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e6).contains(&rate) => Ok(rate),
        _ => Err("a rate from 0.001 to 1000000 is expected".to_owned()),
    }
}

fn parse_scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if (1e-6..=1e6).contains(&scale) => Ok(scale),
        _ => Err("a factor from 0.000001 to 1000000 is expected".to_owned()),
    }
}

fn connections(text: &str) -> Result<usize, String> {
    match idle_connections(text) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("a number of connections from 1 to 60000 is expected".to_owned()),
    }
}

fn idle_connections(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(count) if count <= IDLE_MAX => Ok(count),
        _ => Err("a number of connections up to 60000 is expected".to_owned()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn load(words: &[&str]) -> Result<Load, clap::Error> {
        #[derive(Parser)]
        struct Only {
            #[command(flatten)]
            load: Load,
        }
        Only::try_parse_from([&["x"], words].concat()).map(|only| only.load)
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_same_seed_means_the_same_mail() {
        let words = [
            "--size",
            "exp:9000",
            "--recipients",
            "1-10",
            "--destinations",
            "7",
        ];
        let (one, same) = (load(&words).unwrap(), load(&words).unwrap());
        let other = load(&[&words[..], &["--seed", "2"]].concat()).unwrap();
        let mail = |load: &Load| -> Vec<(u64, u32, String)> {
            let one = |number| {
                (
                    load.size_of(number),
                    load.recipients_of(number),
                    load.domain_of(number, 0),
                )
            };
            (0..50).map(one).collect()
        };
        assert_eq!(mail(&one), mail(&same));
        assert_ne!(mail(&one), mail(&other));
        assert!(
            mail(&one)
                .iter()
                .all(|(_, count, _)| (1..=10).contains(count))
        );
    }

    #[test]
    fn arrivals_without_a_rate_make_no_sense() {
        assert!(load(&["--arrivals", "even"]).is_err());
        assert!(load(&["--arrivals", "even", "--rate", "10"]).is_ok());
        assert!(load(&["--rate", "0"]).is_err());
        assert!(load(&["--messages", "0"]).is_err());
        assert!(load(&["--connections", "0"]).is_err());
    }
}
