//! Settings: `zmailer.toml` to typed values. One list (`knobs`) says what exists; parsing, defaults
//! and the reference are derived from it. All errors of a file are reported at once.

mod judge;
mod knob;
mod knobs;
mod parse;
pub mod reference;
mod route;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::policy::network::Network;
use crate::scheduler::Rule;
use parse::{Values, parse};

/// Something wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// File it stands in.
    pub file: String,
    /// Line, from 1; 0: the file as a whole.
    pub line: usize,
    /// What is wrong and what is allowed.
    pub text: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.file, self.text)
        } else {
            write!(f, "{}:{}: {}", self.file, self.line, self.text)
        }
    }
}

/// Where things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The spool and what stands around it.
    pub postoffice: PathBuf,
    /// The mail log.
    pub log_dir: PathBuf,
}

/// The process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Shards; 0: one a core.
    pub shards: usize,
    /// This host's name; none: the system's.
    pub hostname: Option<String>,
    /// Who to run as when started as root.
    pub user: Option<String>,
    /// Completions that a shard's ring holds.
    pub completion_entries: u32,
}

/// What a commit means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On disk before 250.
    Sync,
    /// Written, not synced: a power cut loses mail.
    None,
}

/// The spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// What a commit means.
    pub durability: Durability,
    /// Content in memory, a shard.
    pub memory_bytes: u64,
    /// Size of a segment.
    pub segment_bytes: u64,
    /// Segments of a shard.
    pub segments_max: u32,
    /// Segments kept for outcomes and reports.
    pub reserve_segments: u32,
    /// Messages that make a batch full.
    pub batch_messages: u32,
    /// Bytes that make a batch full.
    pub batch_bytes: u64,
    /// Longest wait for others; none: measured.
    pub commit_delay_ns: Option<u64>,
    /// Growth of the log between checkpoints.
    pub checkpoint_bytes: u64,
    /// Bytes to be left free; 0: automatic.
    pub min_free_bytes: u64,
    /// Inodes to be left free; 0: automatic.
    pub min_free_inodes: u64,
}

/// One set of listeners with its limits.
#[derive(Clone, Debug)]
pub struct Service {
    /// Addresses.
    pub listen: Vec<SocketAddr>,
    /// Clients that may relay.
    pub trusted_networks: Vec<Network>,
    /// These clients submit.
    pub submission: bool,
    /// Limits of a session; the host name is filled in at start.
    pub session: crate::protocol::server::Settings,
}

/// The receiving side.
#[derive(Clone, Debug)]
pub struct SmtpServer {
    /// Services, one at least.
    pub services: Vec<Service>,
    /// Clients of one shard at a time.
    pub sessions_max: u64,
}

/// Routing.
#[derive(Clone, Debug)]
pub struct Router {
    /// Routing script; none: the shipped ones.
    pub config: Option<PathBuf>,
    /// Where aliases, routes and other files of routing are.
    pub directory: PathBuf,
    /// Routing scripts may run programs.
    pub programs: bool,
    /// Longest time of such a program.
    pub program_time_ns: u64,
    /// Steps that the script may take for a message.
    pub steps_max: u64,
    /// Functions in functions.
    pub depth_max: usize,
    /// Bytes of texts and lists of the script for a message.
    pub memory_bytes: u64,
    /// Route of all that has none.
    pub default_route: String,
    /// Domains everybody may send to.
    pub local_domains: Vec<String>,
    /// Routes by domain.
    pub routes: Vec<(String, String)>,
    /// Users whose word is taken for who the sender is.
    pub trusted_users: Vec<String>,
    /// Routings of a shard that wait for something from outside, at most.
    pub waiting_max: usize,
}

/// The sending side.
#[derive(Clone, Debug)]
pub struct Smtp {
    /// Settings of a session; the host name is filled in at start.
    pub session: crate::protocol::client::Settings,
    /// Recipients in one transaction.
    pub recipients_max: usize,
}

/// Programs and files in the place of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The account in the place of root.
    pub user: String,
    /// Longest time of a program.
    pub timeout_ns: u64,
}

/// All settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[paths]`.
    pub paths: Paths,
    /// `[daemon]`.
    pub daemon: Daemon,
    /// `[spool]`.
    pub spool: Spool,
    /// `[smtpserver]`.
    pub smtpserver: SmtpServer,
    /// `[router]`.
    pub router: Router,
    /// `[[scheduler.rule]]`.
    pub rules: Vec<Rule>,
    /// `[transport.smtp]`.
    pub smtp: Smtp,
    /// `[transport.mailbox] path`: template of a mailbox's path; empty: there are no mailboxes here.
    pub mailboxes: String,
    /// `[transport.mailbox] format`: they are files of many messages.
    pub mbox: bool,
    /// `[transport.program]`.
    pub program: Program,
    /// `[dns] servers`; empty: the system's.
    pub dns_servers: Vec<SocketAddr>,
    /// `[admin] listen`; empty: off.
    pub admin: String,
}

impl Config {
    /// With paths of routing that are relative to the directory of the file.
    fn below(mut self, directory: &Path) -> Self {
        let router = &mut self.router;
        router.config = router.config.take().map(|path| directory.join(path));
        router.directory = match router.directory.as_os_str().is_empty() {
            true => directory.to_owned(),
            false => directory.join(&router.directory),
        };
        self
    }

    /// Tables and keys in which another configuration differs and that a running daemon cannot take.
    #[must_use]
    pub fn fixed_differences(&self, other: &Self) -> Vec<&'static str> {
        let listen = |config: &Self| -> Vec<SocketAddr> {
            let services = config.smtpserver.services.iter();
            services
                .flat_map(|service| service.listen.clone())
                .collect()
        };
        let all = [
            ("paths", self.paths != other.paths),
            ("daemon", self.daemon != other.daemon),
            ("spool", self.spool != other.spool),
            ("smtpserver.listen", listen(self) != listen(other)),
            (
                "smtpserver.sessions_max",
                self.smtpserver.sessions_max != other.smtpserver.sessions_max,
            ),
            (
                "transport.mailbox",
                (&self.mailboxes, self.mbox) != (&other.mailboxes, other.mbox),
            ),
            ("transport.program", self.program != other.program),
            ("dns", self.dns_servers != other.dns_servers),
        ];
        let changed = all.into_iter().filter(|(_, differs)| *differs);
        changed.map(|(name, _)| name).collect()
    }
}

/// Reads the settings: `path`, else `$ZMAILER_CONFIG`, else `/etc/zmailer/zmailer.toml` if it exists,
/// else the built-in ones.
///
/// # Errors
/// Everything that is wrong with them.
pub fn load(path: Option<&Path>) -> Result<Config, Vec<ConfigError>> {
    let named = path
        .map(Path::to_owned)
        .or_else(|| std::env::var_os("ZMAILER_CONFIG").map(Into::into));
    let usual = PathBuf::from("/etc/zmailer/zmailer.toml");
    let Some(path) = named.or_else(|| usual.exists().then_some(usual)) else {
        return from_text("", "built-in");
    };
    let file = path.display().to_string();
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => from_text(&text, &file).map(|config| config.below(directory)),
        Err(error) => Err(vec![ConfigError {
            file,
            line: 0,
            text: format!("cannot be read: {error}"),
        }]),
    }
}

/// The settings in `text`, named `file` in errors.
///
/// # Errors
/// Everything that is wrong with them.
pub fn from_text(text: &str, file: &str) -> Result<Config, Vec<ConfigError>> {
    let (values, mut errors) = parse(text, file);
    let config = build(&values);
    errors.extend(judge::faults(&config).into_iter().map(|fault| ConfigError {
        file: file.to_owned(),
        line: values.line_of(&fault.name),
        text: format!("{}: {}", fault.shown, fault.text),
    }));
    errors.sort_by_key(|error| error.line);
    if errors.is_empty() {
        Ok(config)
    } else {
        Err(errors)
    }
}

fn build(values: &Values) -> Config {
    let base = values.table("smtpserver");
    let services = values.tables("smtpserver.service");
    let services: Vec<Service> = if services.is_empty() {
        vec![service(base)]
    } else {
        services
            .into_iter()
            .map(|own| service(own.over(base)))
            .collect()
    };
    let paths = values.table("paths");
    let postoffice = PathBuf::from(paths.text("postoffice"));
    let log_dir = match paths.text("log_dir") {
        "" => postoffice.join("log"),
        dir => dir.into(),
    };
    let daemon = values.table("daemon");
    let optional = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let router = values.table("router");
    Config {
        paths: Paths {
            postoffice,
            log_dir,
        },
        daemon: Daemon {
            shards: daemon.number("shards") as usize,
            hostname: optional(daemon.text("hostname")),
            user: optional(daemon.text("user")),
            completion_entries: daemon.number("completion_entries") as u32,
        },
        spool: spool(values),
        smtpserver: SmtpServer {
            services,
            sessions_max: base.number("sessions_max"),
        },
        router: Router {
            config: optional(router.text("config")).map(PathBuf::from),
            directory: PathBuf::from(router.text("directory")),
            programs: router.flag("programs"),
            program_time_ns: router.number("program_time"),
            steps_max: router.number("steps_max"),
            depth_max: router.number("depth_max") as usize,
            memory_bytes: router.number("memory"),
            default_route: router.text("default_route").to_owned(),
            local_domains: router.list("local_domains"),
            routes: router.pairs("routes").to_vec(),
            trusted_users: router.list("trusted_users"),
            waiting_max: router.number("waiting_max") as usize,
        },
        rules: values
            .tables("scheduler.rule")
            .into_iter()
            .map(rule)
            .collect(),
        smtp: smtp(values),
        mailboxes: values.table("transport.mailbox").text("path").to_owned(),
        mbox: values.table("transport.mailbox").text("format") == "mbox",
        program: Program {
            user: values.table("transport.program").text("user").to_owned(),
            timeout_ns: values.table("transport.program").number("timeout"),
        },
        dns_servers: addresses(&values.table("dns").list("servers")),
        admin: values.table("admin").text("listen").to_owned(),
    }
}

fn spool(values: &Values) -> Spool {
    let spool = values.table("spool");
    let delay = spool.number("commit_delay");
    Spool {
        durability: if spool.text("durability") == "none" {
            Durability::None
        } else {
            Durability::Sync
        },
        memory_bytes: spool.number("memory"),
        segment_bytes: spool.number("segment_size"),
        segments_max: spool.number("segments_max") as u32,
        reserve_segments: spool.number("reserve_segments") as u32,
        batch_messages: spool.number("batch_messages") as u32,
        batch_bytes: spool.number("batch_size"),
        commit_delay_ns: (delay > 0).then_some(delay),
        checkpoint_bytes: spool.number("checkpoint"),
        min_free_bytes: spool.number("min_free"),
        min_free_inodes: spool.number("min_free_inodes"),
    }
}

fn service(own: parse::TableView<'_>) -> Service {
    Service {
        listen: addresses(&own.list("listen")),
        // The parser has accepted each of them.
        trusted_networks: own
            .list("trusted_networks")
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect(),
        submission: own.flag("submission"),
        session: crate::protocol::server::Settings {
            message_bytes_max: own.number("message_size_max"),
            recipients_max: own.number("recipients_max") as u32,
            errors_max: own.number("errors_max") as u32,
            line_bytes_max: own.number("line_size_max") as usize,
            header_bytes_max: own.number("header_size_max") as usize,
            received_max: own.number("received_max") as usize,
            idle_ns: own.number("idle_timeout"),
            total_ns: own.number("session_timeout"),
            ..crate::protocol::server::Settings::default()
        },
    }
}

fn addresses(texts: &[String]) -> Vec<SocketAddr> {
    // The parser has accepted each of them.
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn rule(own: parse::TableView<'_>) -> Rule {
    const MS: u64 = 1_000_000;
    Rule {
        pattern: own.text("match").to_owned(),
        max_connections: own.number("max_connections") as u32,
        retry_ms: own
            .numbers("retry")
            .iter()
            .map(|ns| (ns / MS).max(1))
            .collect(),
        expiry_ms: own.number("expiry") / MS,
        idle_ns: own.number("idle_timeout"),
        messages_per_connection: own.number("messages_per_connection") as u32,
    }
}

fn smtp(values: &Values) -> Smtp {
    let own = values.table("transport.smtp");
    let session = crate::protocol::client::Settings {
        connect_ns: own.number("connect_timeout"),
        greeting_ns: own.number("greeting_timeout"),
        final_ns: own.number("final_timeout"),
        chunking: own.flag("chunking"),
        pipelining: own.flag("pipelining"),
        ..crate::protocol::client::Settings::default()
    };
    Smtp {
        session,
        recipients_max: own.number("recipients_max") as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_settings_are_those_of_the_interface() {
        let config = from_text("", "built-in").unwrap();
        assert_eq!(
            config.smtpserver.services[0].listen,
            ["127.0.0.1:2525".parse().unwrap()]
        );
        assert_eq!(config.paths.postoffice, PathBuf::from("./postoffice"));
        assert_eq!(config.spool.memory_bytes, 64 << 20);
        assert_eq!(config.smtpserver.services[0].trusted_networks.len(), 2);
    }

    #[test]
    fn the_example_of_the_interface_is_accepted() {
        let text = include_str!("example.toml");
        let config = from_text(text, "example.toml").unwrap_or_else(|errors| panic!("{errors:?}"));
        let router = config.router.config.as_deref();
        assert_eq!(router, Some(Path::new("router.cf")));
        assert_eq!(
            config.rules[0].retry_ms,
            [60_000, 300_000, 900_000, 3_600_000]
        );
        assert_eq!(config.rules[0].expiry_ms, 5 * 86_400_000);
        assert_eq!(config.daemon.user.as_deref(), Some("zmailer"));
    }

    #[test]
    fn every_error_names_line_key_and_what_is_allowed() {
        let text = "[spool]\ndurability = \"maybe\"\nmemory = 64\nmemry = \"1MiB\"\n[daemon]\n\
                    shards = 5000\nshards2 = 1\n[smtpserver]\nlisten = [\"localhost\"]\n\
                    trusted_networks = [\"10.0.0.1/8\"]\n[nothing]\nx = 1\n[router]\ndefault_route = \"uucp!x\"\n\
                    routes = { \"b.example\" = \"nowhere\", \"c.example\" = \"smtp!\" }\n\
                    programs = \"yes\"\n[admin]\nlisten = \"nonsense\"\n\
                    [transport.mailbox]\nformat = \"mh\"\n";
        let errors = from_text(text, "z.toml").unwrap_err();
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        for (line, words) in [
            (2, "spool.durability \"sync\" \"none\""),
            (3, "spool.memory unit"),
            (4, "memry memory"),
            (6, "daemon.shards 1024"),
            (7, "shards2 shards"),
            (9, "smtpserver.listen localhost"),
            (10, "smtpserver.trusted_networks 10.0.0.1/8"),
            (11, "nothing"),
            (14, "router.default_route uucp smtp!NEXT-HOP"),
            (15, "router.routes.\"b.example\" nowhere smtp!NEXT-HOP"),
            (15, "router.routes.\"c.example\" smtp! [host]:port"),
            (16, "router.programs true false"),
            (18, "admin.listen nonsense later"),
            (20, "transport.mailbox.format \"mh\" \"maildir\" \"mbox\""),
        ] {
            let start = format!("z.toml:{line}: ");
            let found = all.iter().any(|error| {
                error.starts_with(&start) && words.split(' ').all(|word| error.contains(word))
            });
            assert!(found, "{start}{words} is missing in {all:#?}");
        }
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let cases = [
            (
                "[router.routes]\n\"a.example\" = \"smtp!a\"\n\"b.example\" = \"nowhere\"\n",
                "z.toml:3: router.routes.\"b.example\": ",
                "a route of a table has a line of its own",
            ),
            (
                "[spool]\nsegment_size = \"1500000B\"\n",
                "z.toml:2: spool.segment_size: 1500000B",
                "segments are written in blocks",
            ),
            (
                "[spool]\nsegments_max = 4\nreserve_segments = 4\n",
                "z.toml:3: spool.reserve_segments: 4",
                "no segment is left for mail",
            ),
            (
                "[spool]\nsegments_max = 4\nreserve_segments = 3\n",
                "",
                "one segment is left for mail",
            ),
            (
                "[smtpserver]\nrecipients_max = 40000\n",
                "z.toml:2: smtpserver.recipients_max: 40000",
                "the envelope of such a message would not fit",
            ),
            (
                "[spool]\nsegment_size = \"64MiB\"\n[smtpserver]\nrecipients_max = 100000\n",
                "",
                "it does in larger segments",
            ),
            (
                "[spool]\nsegment_size = \"1MiB\"\n",
                "",
                "the default number of recipients fits the smallest segment",
            ),
        ];
        for (text, start, reason) in cases {
            let found = from_text(text, "z.toml").err().unwrap_or_default();
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            if start.is_empty() {
                assert!(found.is_empty(), "{reason}: {found:?}");
            } else {
                let only = found.len() == 1 && found[0].starts_with(start);
                assert!(only, "{reason}: {found:?}");
            }
        }
    }

    #[test]
    fn services_inherit() {
        let text = "[smtpserver]\nrecipients_max = 7\n[[smtpserver.service]]\nlisten = [\"127.0.0.1:1\"]\n\
                    [[smtpserver.service]]\nlisten = [\"[::1]:2\"]\nrecipients_max = 9\n";
        let config = from_text(text, "z.toml").unwrap();
        let limits: Vec<u32> = config
            .smtpserver
            .services
            .iter()
            .map(|service| service.session.recipients_max)
            .collect();
        assert_eq!(limits, [7, 9]);
    }
}
