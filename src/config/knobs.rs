//! The list of all settings. Everything about a setting stands here and nowhere else.

use super::knob::Item::{Address, Domain, Duration as Durations, Login, Network};
use super::knob::Kind::{Count, Duration, Flag, List, Pairs, Size, Text, Word};
use super::knob::{Kind, Knob};

const fn knob(
    table: &'static str,
    key: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Knob {
    Knob {
        table,
        key,
        kind,
        default,
        doc,
    }
}

/// Tables that may be given several times.
pub(super) const REPEATED: &[&str] = &["smtpserver.service", "scheduler.rule"];

/// A repeated table whose keys are those of another one.
pub(super) const INHERITS: (&str, &str) = ("smtpserver.service", "smtpserver");

/// All settings, by table.
pub(super) const KNOBS: &[Knob] = &[
    knob(
        "paths",
        "postoffice",
        Text,
        "./postoffice",
        "The spool and the directories around it.",
    ),
    knob(
        "paths",
        "log_dir",
        Text,
        "",
        "The mail log; empty: log/ in the postoffice.",
    ),
    knob(
        "daemon",
        "shards",
        Count { min: 0, max: 1024 },
        "0",
        "Shards; 0: one a core.",
    ),
    knob(
        "daemon",
        "hostname",
        Text,
        "",
        "This host's name; empty: the system's.",
    ),
    knob(
        "daemon",
        "user",
        Text,
        "",
        "Who to run as; required when started as root.",
    ),
    knob(
        "daemon",
        "completion_entries",
        Count {
            min: 64,
            max: 65536,
        },
        "8192",
        "Completions a shard's ring holds; fewer cost speed, not mail.",
    ),
    knob(
        "spool",
        "durability",
        Word(&["sync", "none"]),
        "sync",
        "sync: a 250 means on disk. none: a power cut loses mail.",
    ),
    knob(
        "spool",
        "memory",
        Size {
            min: 1 << 20,
            max: 1 << 40,
        },
        "64MiB",
        "Content in memory, a shard; above it clients wait.",
    ),
    knob(
        "spool",
        "segment_size",
        Size {
            min: 1 << 20,
            max: 1 << 30,
        },
        "16MiB",
        "Size of a log segment, a multiple of 4KiB.",
    ),
    knob(
        "spool",
        "segments_max",
        Count {
            min: 4,
            max: 1_000_000,
        },
        "4096",
        "Segments of a shard, the reserve included.",
    ),
    knob(
        "spool",
        "reserve_segments",
        Count { min: 1, max: 64 },
        "2",
        "Free segments that only outcomes and reports may use; fewer than segments_max.",
    ),
    knob(
        "spool",
        "batch_messages",
        Count { min: 1, max: 4096 },
        "24",
        "Messages that make a commit full.",
    ),
    knob(
        "spool",
        "batch_size",
        Size {
            min: 4096,
            max: 16 << 20,
        },
        "256KiB",
        "Bytes that make a commit full.",
    ),
    knob(
        "spool",
        "commit_delay",
        Duration {
            min: "0ns",
            max: "1s",
        },
        "0ns",
        "Longest wait of a message for others to share its commit; 0: twice the measured latency, 100us to 2ms.",
    ),
    knob(
        "spool",
        "checkpoint",
        Size {
            min: 0,
            max: 16 << 30,
        },
        "64MiB",
        "A checkpoint is made when the log has grown by this, or by four times its size; 0: never.",
    ),
    knob(
        "spool",
        "min_free",
        Size {
            min: 0,
            max: 1 << 50,
        },
        "0B",
        "Space kept free on the spool's file system; below it mail gets 452. 0B: 64MiB, at most 5 % of it.",
    ),
    knob(
        "spool",
        "min_free_inodes",
        Count {
            min: 0,
            max: 1 << 50,
        },
        "0",
        "Inodes kept free likewise. 0: 1000, at most 5 % of them.",
    ),
    knob(
        "smtpserver",
        "listen",
        List(Address),
        "127.0.0.1:2525",
        "Addresses; [::] is IPv6 only.",
    ),
    knob(
        "smtpserver",
        "trusted_networks",
        List(Network),
        "127.0.0.0/8 ::1/128",
        "Clients that may relay.",
    ),
    knob(
        "smtpserver",
        "submission",
        Flag,
        "false",
        "Trusted clients submit (RFC 6409): what a header lacks is added, Bcc is removed; otherwise mail passes as it is.",
    ),
    knob(
        "smtpserver",
        "message_size_max",
        Size {
            min: 1 << 10,
            max: 1 << 30,
        },
        "10MiB",
        "Largest message.",
    ),
    knob(
        "smtpserver",
        "recipients_max",
        Count {
            min: 1,
            max: 100_000,
        },
        "1000",
        "Recipients of a message.",
    ),
    knob(
        "smtpserver",
        "errors_max",
        Count {
            min: 1,
            max: 1_000_000,
        },
        "20",
        "Refused commands before 421.",
    ),
    knob(
        "smtpserver",
        "line_size_max",
        Size {
            min: 998,
            max: 1 << 20,
        },
        "64KiB",
        "Line of content.",
    ),
    knob(
        "smtpserver",
        "header_size_max",
        Size {
            min: 1 << 10,
            max: 14 << 20,
        },
        "256KiB",
        "Header of a message.",
    ),
    knob(
        "smtpserver",
        "received_max",
        Count { min: 1, max: 1000 },
        "100",
        "Received lines before a message loops.",
    ),
    knob(
        "smtpserver",
        "idle_timeout",
        Duration {
            min: "1s",
            max: "1d",
        },
        "5m",
        "Silence of a client before 421.",
    ),
    knob(
        "smtpserver",
        "session_timeout",
        Duration {
            min: "1s",
            max: "7d",
        },
        "4h",
        "Whole session.",
    ),
    knob(
        "smtpserver",
        "sessions_max",
        Count {
            min: 1,
            max: 1_000_000,
        },
        "10000",
        "Clients of a shard at a time.",
    ),
    knob(
        "router",
        "config",
        Text,
        "",
        "Routing script, from the directory of this file on; empty: the built-in ones.",
    ),
    knob(
        "router",
        "directory",
        Text,
        "",
        "Where aliases, routes and the other files of routing are, $MAILVAR; empty: the directory of this file.",
    ),
    knob(
        "router",
        "programs",
        Flag,
        "false",
        "Whether routing scripts may run programs.",
    ),
    knob(
        "router",
        "program_time",
        Duration {
            min: "1s",
            max: "1h",
        },
        "30s",
        "Longest time of a program that a routing script runs.",
    ),
    knob(
        "router",
        "steps_max",
        Count {
            min: 10_000,
            max: 1_000_000_000_000,
        },
        "50000000",
        "Steps that the routing script may take for a message.",
    ),
    knob(
        "router",
        "depth_max",
        Count {
            min: 20,
            max: 10_000,
        },
        "200",
        "Functions in functions of the routing script.",
    ),
    knob(
        "router",
        "memory",
        Size {
            min: 1 << 20,
            max: 64 << 30,
        },
        "128MiB",
        "Texts and lists of the routing script for a message.",
    ),
    knob(
        "router",
        "default_route",
        Text,
        "smtp!127.0.0.1:2600",
        "channel!next-hop for all without a route.",
    ),
    knob(
        "router",
        "local_domains",
        List(Domain),
        "",
        "Domains everybody may send to; .example.org: all below it.",
    ),
    knob(
        "router",
        "routes",
        Pairs,
        "",
        "channel!next-hop by domain; .example.org: all below it.",
    ),
    knob(
        "router",
        "trusted_users",
        List(Login),
        "",
        "Users of this host, besides root and the daemon's, whose word is taken for who the sender is.",
    ),
    knob(
        "router",
        "waiting_max",
        Count {
            min: 1,
            max: 100_000,
        },
        "1024",
        "Messages of a shard that wait for names, files or databases to be routed; of as many more mail is refused for now.",
    ),
    knob(
        "scheduler.rule",
        "match",
        Text,
        "*",
        "channel/host, * for any text.",
    ),
    knob(
        "scheduler.rule",
        "max_connections",
        Count {
            min: 1,
            max: 100_000,
        },
        "50",
        "Connections to one next hop.",
    ),
    knob(
        "scheduler.rule",
        "retry",
        List(Durations),
        "1m 5m 15m 1h",
        "Delays between attempts; the last repeats.",
    ),
    knob(
        "scheduler.rule",
        "expiry",
        Duration {
            min: "1s",
            max: "100d",
        },
        "5d",
        "Age at which mail is given up.",
    ),
    knob(
        "scheduler.rule",
        "idle_timeout",
        Duration {
            min: "0ns",
            max: "1s",
        },
        "500ms",
        "An unused connection is kept so long.",
    ),
    knob(
        "scheduler.rule",
        "messages_per_connection",
        Count {
            min: 1,
            max: 1_000_000_000,
        },
        "10000",
        "Transactions on one connection.",
    ),
    knob(
        "transport.smtp",
        "recipients_max",
        Count {
            min: 1,
            max: 100_000,
        },
        "100",
        "Recipients of one transaction.",
    ),
    knob(
        "transport.smtp",
        "connect_timeout",
        Duration {
            min: "1s",
            max: "1h",
        },
        "30s",
        "To connect.",
    ),
    knob(
        "transport.smtp",
        "greeting_timeout",
        Duration {
            min: "1s",
            max: "1h",
        },
        "5m",
        "RFC 5321 4.5.3.2.1.",
    ),
    knob(
        "transport.smtp",
        "final_timeout",
        Duration {
            min: "1s",
            max: "1h",
        },
        "10m",
        "RFC 5321 4.5.3.2.6.",
    ),
    knob(
        "transport.smtp",
        "pipelining",
        Flag,
        "true",
        "Use PIPELINING where offered.",
    ),
    knob(
        "transport.smtp",
        "chunking",
        Flag,
        "true",
        "Use CHUNKING where offered.",
    ),
    knob(
        "transport.mailbox",
        "format",
        Word(&["maildir", "mbox"]),
        "maildir",
        "Form of mailboxes: a directory with a file for each message, or one file of many.",
    ),
    knob(
        "transport.mailbox",
        "path",
        Text,
        "",
        "Where a mailbox is, with {user}, {domain}, {home}; empty: local_domains have none here and go on.",
    ),
    knob(
        "transport.program",
        "user",
        Text,
        "nobody",
        "Account for programs and files that aliases and lists of root name; must not be root.",
    ),
    knob(
        "transport.program",
        "timeout",
        Duration {
            min: "1s",
            max: "1h",
        },
        "5m",
        "Longest time of a program that takes a message; it is ended then and tried again later.",
    ),
    knob(
        "dns",
        "servers",
        List(Address),
        "",
        "Name servers; empty: those of the system.",
    ),
    knob(
        "admin",
        "listen",
        Text,
        "",
        "Address of the admin page; comes with a later version, must be empty: off.",
    ),
];
