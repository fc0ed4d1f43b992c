//! `zmailer route`: what the routing script decides about addresses, and why.

pub(super) mod desk;
mod diff;
mod explain;
mod outside;

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{ConfigArgument, exit};
use crate::config::Config;
use crate::router::message::{Probed, Way};
use desk::{Desk, Reply, Script};

/// Addresses and what is wanted.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Routes as with this sender, through crossbar too; '' or '<>' is the null sender.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<OsString>,
    /// Prints every function entered, label that fitted, look-up with its answer, and attributes.
    #[arg(long)]
    explain: bool,
    /// One line a result: address, channel, host, user, separated by tabs.
    #[arg(long, conflicts_with = "explain")]
    tsv: bool,
    /// Prints only addresses that two scripts route differently; `stock` names the shipped ones.
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with_all = ["explain", "tsv"])]
    diff: Option<Vec<PathBuf>>,
    /// Addresses; none: one a line from standard input.
    addresses: Vec<OsString>,
}

/// A line of the input that is longer is cut.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Routes; the exit code says what came of it.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, ExitCode> {
    let config = arguments.config.load()?;
    let sender = arguments.from.clone().map(|from| match from.into_vec() {
        from if from == b"<>" => Vec::new(),
        from => from,
    });
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = match arguments.diff.as_deref() {
        Some([old, new]) => {
            let mut pair = diff::Pair::open(open(&config, old)?, open(&config, new)?);
            let asked = each(&arguments.addresses, |address| {
                pair.compare(address, sender.as_deref(), &mut out)
            });
            asked.and_then(|()| pair.finish(&mut out))
        }
        _ => {
            let mut desk = opened(&config, Script::Configured)?;
            let mut worst = Worst::default();
            let asked = each(&arguments.addresses, |address| {
                let reply = desk.ask(address, sender.as_deref(), arguments.explain);
                worst.see(&reply);
                if arguments.tsv {
                    print_lines(address, &reply, &mut out)
                } else {
                    print(address, &reply, arguments.explain, &mut out)
                }
            });
            asked.map(|()| worst.code())
        }
    };
    let result = result.and_then(|code| out.flush().map(|()| code));
    result.map_err(|error| super::fail(exit::IO, error))
}

fn open(config: &Config, script: &std::path::Path) -> Result<Desk, ExitCode> {
    let shipped = script.as_os_str() == "stock" && !script.exists();
    let script = if shipped {
        Script::Shipped
    } else {
        Script::File(script.to_owned())
    };
    opened(config, script)
}

fn opened(config: &Config, script: Script) -> Result<Desk, ExitCode> {
    Desk::open(config, script).map_err(|error| {
        eprintln!("{error}");
        ExitCode::from(exit::CONFIG)
    })
}

/// Gives each address to `each`: those of the arguments, or the lines of the standard input.
fn each(addresses: &[OsString], mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    if !addresses.is_empty() {
        return addresses
            .iter()
            .try_for_each(|address| each(address.as_encoded_bytes()));
    }
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        if io::Read::take(&mut input, LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let address = line.strip_suffix(b"\n").unwrap_or(&line);
        let address = address.strip_suffix(b"\r").unwrap_or(address);
        if !address.is_empty() {
            each(address)?;
        }
    }
}

/// What the exit code is about.
#[derive(Default)]
struct Worst {
    failed: bool,
    waits: bool,
}

impl Worst {
    fn see(&mut self, reply: &Reply) {
        match &reply.result {
            Err(_) => self.waits = true,
            Ok(probed) => {
                self.failed |= probed.ways.iter().any(|way| way.channel == b"error");
                self.waits |= probed.ways.iter().any(|way| way.channel == b"hold");
            }
        }
    }

    fn code(&self) -> ExitCode {
        match (self.failed, self.waits) {
            (true, _) => ExitCode::from(exit::NO_USER),
            (false, true) => ExitCode::from(exit::TEMPORARY),
            (false, false) => ExitCode::SUCCESS,
        }
    }
}

/// A field between tabs: control characters would end it.
fn field(bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
    for byte in bytes {
        match byte {
            0..=31 | 127 => write!(out, "{}", byte.escape_ascii())?,
            byte => out.write_all(&[*byte])?,
        }
    }
    Ok(())
}

fn print_lines(address: &[u8], reply: &Reply, out: &mut impl Write) -> io::Result<()> {
    let stopped;
    let ways = match &reply.result {
        Ok(probed) => &probed.ways,
        Err(limit) => {
            stopped = vec![stopped_way(limit, address)];
            &stopped
        }
    };
    for way in ways {
        for part in [address, &way.channel, &way.host] {
            field(part, out)?;
            out.write_all(b"\t")?;
        }
        field(&way.user, out)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// A message with such an address waits for a better script.
fn stopped_way(limit: &str, address: &[u8]) -> Way {
    Way {
        channel: b"hold".to_vec(),
        host: format!("stopped: {limit}").into_bytes(),
        user: address.to_vec(),
        ..Way::default()
    }
}

fn print(address: &[u8], reply: &Reply, explained: bool, out: &mut impl Write) -> io::Result<()> {
    field(address, out)?;
    out.write_all(b"\n")?;
    if explained {
        out.write_all(explain::tree(&reply.events).as_bytes())?;
        if reply.dropped > 0 {
            writeln!(out, "  and {} more steps", reply.dropped)?;
        }
    }
    match &reply.result {
        Err(limit) => writeln!(out, "  stopped: {limit}"),
        Ok(probed) => print_ways(probed, explained, out),
    }
}

fn print_ways(probed: &Probed, explained: bool, out: &mut impl Write) -> io::Result<()> {
    for way in &probed.ways {
        out.write_all(b"  -> ")?;
        print_way(way, out)?;
        out.write_all(b"\n")?;
        if let Some(sender) = &way.sender {
            out.write_all(b"       sender ")?;
            field(if sender.is_empty() { b"<>" } else { sender }, out)?;
            if !way.rewriter.is_empty() {
                out.write_all(b", header by ")?;
                field(&way.rewriter, out)?;
            }
            out.write_all(b"\n")?;
        }
        if explained {
            for (name, value) in &way.attributes {
                out.write_all(b"       ")?;
                field(name, out)?;
                out.write_all(b" ")?;
                field(value, out)?;
                out.write_all(b"\n")?;
            }
        }
    }
    if probed.ways.is_empty() && probed.dropped == 0 {
        out.write_all(b"  -> nowhere\n")?;
    }
    if probed.dropped > 0 {
        writeln!(out, "  -> {} dropped by crossbar", probed.dropped)?;
    }
    if explained && !probed.printed.is_empty() {
        let printed = String::from_utf8_lossy(&probed.printed);
        writeln!(out, "     printed: {}", explain::shown(&printed))?;
    }
    Ok(())
}

fn print_way(way: &Way, out: &mut impl Write) -> io::Result<()> {
    for (number, part) in [&way.channel, &way.host, &way.user].into_iter().enumerate() {
        if number > 0 {
            out.write_all(b"  ")?;
        }
        field(if part.is_empty() { b"-" } else { part }, out)?;
    }
    Ok(())
}
