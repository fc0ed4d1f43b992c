//! What is wrong with settings that are good one by one: their relations to each other, and what this
//! version does not have yet.

use super::route::{BadRoute, bad_routes};
use super::{Config, Service};

/// Segments are written in blocks of this.
const BLOCK_BYTES: u64 = 4096;

/// What a recipient takes of a message's record: a path of RFC 5321 4.5.3.1 and an ORCPT.
const RECIPIENT_BYTES: u64 = 512;

/// Content that is in the record itself; larger content has a file of its own.
const CONTENT_BYTES: u64 = 256 << 10;

/// Everything else in a segment beside one record: headers of segment, commit and record, and the rest
/// of the envelope.
const OVERHEAD_BYTES: u64 = 64 << 10;

/// A fault and the setting it is a fault of.
pub(super) struct Fault {
    /// Dotted name, as the line is known by.
    pub(super) name: String,
    /// The same for people: names that have dots themselves are quoted.
    pub(super) shown: String,
    /// What is wrong and what is allowed.
    pub(super) text: String,
}

impl Fault {
    fn of(name: &str, text: String) -> Self {
        Self {
            name: name.to_owned(),
            shown: name.to_owned(),
            text,
        }
    }

    fn of_route(bad: BadRoute) -> Self {
        match bad.domain {
            None => Self::of("router.default_route", bad.text),
            Some(domain) => Self {
                name: format!("router.routes.{domain}"),
                shown: format!("router.routes.{domain:?}"),
                text: bad.text,
            },
        }
    }
}

/// All faults of a configuration.
pub(super) fn faults(config: &Config) -> Vec<Fault> {
    let routes = bad_routes(&config.router.default_route, &config.router.routes);
    let mut faults: Vec<Fault> = routes.into_iter().map(Fault::of_route).collect();
    faults.extend(spool(config));
    faults.extend(to_come(config));
    faults
}

fn spool(config: &Config) -> Vec<Fault> {
    let spool = &config.spool;
    let mut faults = Vec::new();
    if !spool.segment_bytes.is_multiple_of(BLOCK_BYTES) {
        let text = format!(
            "{}B is wrong; allowed: a multiple of {BLOCK_BYTES}B",
            spool.segment_bytes
        );
        faults.push(Fault::of("spool.segment_size", text));
    }
    if spool.reserve_segments >= spool.segments_max {
        let text = format!(
            "{} is wrong; allowed: less than segments_max, {}, or no mail is taken",
            spool.reserve_segments, spool.segments_max
        );
        faults.push(Fault::of("spool.reserve_segments", text));
    }
    let recipients = |service: &Service| u64::from(service.session.recipients_max);
    let services = &config.smtpserver.services;
    let wanted = services.iter().map(recipients).max().unwrap_or(0);
    let room = spool
        .segment_bytes
        .saturating_sub(CONTENT_BYTES + OVERHEAD_BYTES);
    let allowed = room / RECIPIENT_BYTES;
    if wanted > allowed {
        let text = format!(
            "{wanted} is wrong; allowed: at most {allowed} with spool.segment_size {}B, for an envelope is \
             in one segment",
            spool.segment_bytes
        );
        faults.push(Fault::of("smtpserver.recipients_max", text));
    }
    faults
}

/// Settings of later versions: whoever makes them expects something that would not happen.
fn to_come(config: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    if !config.admin.is_empty() {
        let text = format!(
            "{:?}: the admin page comes with a later version; allowed: \"\", off",
            config.admin
        );
        faults.push(Fault::of("admin.listen", text));
    }
    faults
}
