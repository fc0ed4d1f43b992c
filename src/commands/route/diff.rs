//! `zmailer route --diff`: what would change with another script.

use std::io::{self, Write};
use std::process::ExitCode;

use super::desk::{Desk, Reply};
use super::{field, print_way, stopped_way};
use crate::router::message::Way;

/// Two configurations, and how many addresses were asked of them.
pub(super) struct Pair {
    old: Desk,
    new: Desk,
    asked: u64,
    differ: u64,
}

/// Some address is routed differently.
const DIFFERENT: u8 = 1;

impl Pair {
    pub(super) fn open(old: Desk, new: Desk) -> Self {
        Self {
            old,
            new,
            asked: 0,
            differ: 0,
        }
    }

    /// Prints both results when they differ.
    pub(super) fn compare(
        &mut self,
        address: &[u8],
        sender: Option<&[u8]>,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let old = ways(self.old.ask(address, sender, false), address);
        let new = ways(self.new.ask(address, sender, false), address);
        self.asked += 1;
        if old == new {
            return Ok(());
        }
        self.differ += 1;
        field(address, out)?;
        out.write_all(b"\n")?;
        for (mark, ways, others) in [(b"  - ", &old, &new), (b"  + ", &new, &old)] {
            for way in ways.iter().filter(|way| !others.contains(way)) {
                out.write_all(mark)?;
                print_more(way, out)?;
                out.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    /// The count.
    pub(super) fn finish(&self, out: &mut impl Write) -> io::Result<ExitCode> {
        writeln!(out, "{} of {} addresses differ", self.differ, self.asked)?;
        Ok(ExitCode::from(if self.differ > 0 { DIFFERENT } else { 0 }))
    }
}

fn ways(reply: Reply, address: &[u8]) -> Vec<Way> {
    match reply.result {
        Ok(probed) => probed.ways,
        Err(limit) => vec![stopped_way(&limit, address)],
    }
}

/// With what else can differ.
fn print_more(way: &Way, out: &mut impl Write) -> io::Result<()> {
    print_way(way, out)?;
    if let Some(sender) = &way.sender {
        out.write_all(b"  from ")?;
        field(if sender.is_empty() { b"<>" } else { sender }, out)?;
    }
    if !way.rewriter.is_empty() {
        out.write_all(b"  header by ")?;
        field(&way.rewriter, out)?;
    }
    for (name, value) in &way.attributes {
        out.write_all(b"  ")?;
        field(name, out)?;
        out.write_all(b"=")?;
        field(value, out)?;
    }
    Ok(())
}
