//! The scenario file: TOML with a description and the tables `load`, `sink`, `zmailer`, `expect`.
//!
//! `load` and `sink` have the names of the command line's options and go through its parsers, so
//! there is nothing that only one of them knows. What is unknown is refused with file and key.

use std::net::SocketAddr;
use std::path::Path;

use clap::{ArgAction, Args};
use toml::{Table, Value};

use crate::options::{Behaviour, IDLE_MAX, Load, MESSAGES_MAX};
use crate::report::Report;

/// A scenario.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// The file's name without its ending.
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) load: Load,
    pub(crate) behaviour: Behaviour,
    pub(crate) expect: Expect,
    /// Settings of the relay.
    zmailer: Table,
}

/// Most there may be of each; what is not named may not be there at all.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expect {
    counts: [u64; COUNTS.len()],
    /// Largest memory of the relay, when it matters.
    rss_mib_max: Option<u64>,
}

const COUNTS: [&str; 6] = [
    "lost",
    "duplicated",
    "altered",
    "refused",
    "unreported",
    "idle-dropped",
];

/// What the runner sets, and a scenario may not.
const RUNNERS: [(&str, &str); 5] = [
    ("paths", "postoffice"),
    ("paths", "log_dir"),
    ("daemon", "user"),
    ("smtpserver", "listen"),
    ("router", "default_route"),
];

impl Scenario {
    /// Reads the text of `file`.
    ///
    /// # Errors
    /// With the file's name and the key that is wrong.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, String> {
        let at = |error: String| format!("{file}: {error}");
        let mut root: Table = text
            .parse()
            .map_err(|error: toml::de::Error| at(error.to_string()))?;
        let description = match root.remove("description") {
            Some(Value::String(text)) => text,
            _ => return Err(at("description: a text is expected".to_owned())),
        };
        let scenario = Self {
            name: name_of(file),
            description,
            load: options("load", &table(&mut root, "load").map_err(at)?).map_err(at)?,
            behaviour: options("sink", &table(&mut root, "sink").map_err(at)?).map_err(at)?,
            zmailer: table(&mut root, "zmailer").map_err(at)?,
            expect: Expect::parse(&table(&mut root, "expect").map_err(at)?).map_err(at)?,
        };
        if let Some(key) = root.keys().next() {
            let known = "description, load, sink, zmailer and expect are known";
            return Err(at(format!("{key}: no such table; {known}")));
        }
        for (table, key) in RUNNERS {
            if scenario
                .zmailer
                .get(table)
                .and_then(|table| table.get(key))
                .is_some()
            {
                return Err(at(format!("zmailer.{table}.{key}: the runner sets this")));
            }
        }
        Ok(scenario)
    }

    /// Makes the load larger or smaller.
    pub(crate) fn scale(&mut self, factor: f64) {
        // A float beyond the integers saturates.
        let scaled = |count: u64| ((count as f64 * factor).round() as u64).max(1);
        self.load.messages = scaled(self.load.messages).min(MESSAGES_MAX);
        if self.load.idle > 0 {
            self.load.idle = (scaled(self.load.idle as u64) as usize).min(IDLE_MAX);
        }
    }

    /// The relay's configuration.
    ///
    /// # Errors
    /// When something is no table that has to be one.
    pub(crate) fn relay_settings(
        &self,
        dir: &Path,
        relay: SocketAddr,
        sink: SocketAddr,
    ) -> Result<String, String> {
        let mut settings = self.zmailer.clone();
        let path = |name: &str| Value::from(dir.join(name).to_string_lossy().into_owned());
        set(&mut settings, "paths", "postoffice", path("postoffice"))?;
        set(&mut settings, "paths", "log_dir", path("log"))?;
        set(
            &mut settings,
            "smtpserver",
            "listen",
            Value::from(vec![relay.to_string()]),
        )?;
        let route = Value::from(format!("smtp!{sink}"));
        set(&mut settings, "router", "default_route", route)?;
        let named = settings
            .get("daemon")
            .and_then(|daemon| daemon.get("hostname"));
        if named.is_none() {
            set(
                &mut settings,
                "daemon",
                "hostname",
                Value::from("relay.example"),
            )?;
        }
        if rustix::process::geteuid().is_root() {
            set(&mut settings, "daemon", "user", Value::from("root"))?;
        }
        toml::to_string(&settings).map_err(|error| format!("zmailer: {error}"))
    }
}

fn name_of(file: &str) -> String {
    let stem = Path::new(file).file_stem();
    stem.map_or_else(
        || file.to_owned(),
        |stem| stem.to_string_lossy().into_owned(),
    )
}

fn table(root: &mut Table, name: &str) -> Result<Table, String> {
    match root.remove(name) {
        None => Ok(Table::new()),
        Some(Value::Table(table)) => Ok(table),
        Some(_) => Err(format!("{name}: a table is expected: [{name}]")),
    }
}

fn set(settings: &mut Table, table: &str, key: &str, value: Value) -> Result<(), String> {
    let entry = settings
        .entry(table)
        .or_insert_with(|| Value::Table(Table::new()));
    let Value::Table(entry) = entry else {
        return Err(format!("zmailer.{table}: a table is expected"));
    };
    entry.insert(key.to_owned(), value);
    Ok(())
}

/// The options of a table, by way of the words of a command line.
fn options<T: Args>(name: &str, table: &Table) -> Result<T, String> {
    let command = T::augment_args(clap::Command::new("scenario"))
        .no_binary_name(true)
        .disable_help_flag(true);
    let mut words = Vec::new();
    for (key, value) in table {
        let known = command
            .get_arguments()
            .find(|argument| argument.get_long() == Some(key));
        let Some(argument) = known else {
            return Err(format!("{name}.{key}: no such option"));
        };
        let is_flag = matches!(argument.get_action(), ArgAction::SetTrue);
        match (is_flag, value) {
            (true, Value::Boolean(true)) => words.push(format!("--{key}")),
            (true, Value::Boolean(false)) => {}
            (false, Value::Integer(number)) => words.push(format!("--{key}={number}")),
            (false, Value::Float(number)) => words.push(format!("--{key}={number}")),
            (false, Value::String(text)) => words.push(format!("--{key}={text}")),
            (true, _) => return Err(format!("{name}.{key}: true or false is expected")),
            (false, _) => return Err(format!("{name}.{key}: a number or a text is expected")),
        }
    }
    let matches = command
        .try_get_matches_from(words)
        .map_err(|error| format!("[{name}]: {}", first_line(&error)))?;
    T::from_arg_matches(&matches).map_err(|error| format!("[{name}]: {}", first_line(&error)))
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

impl Expect {
    fn parse(table: &Table) -> Result<Self, String> {
        let mut expect = Self::default();
        for (key, value) in table {
            let number = value
                .as_integer()
                .and_then(|number| u64::try_from(number).ok());
            let Some(number) = number else {
                return Err(format!("expect.{key}: a whole number is expected"));
            };
            if key == "rss-mib-max" {
                expect.rss_mib_max = Some(number);
            } else if let Some(at) = COUNTS.iter().position(|name| name == key) {
                expect.counts[at] = number;
            } else {
                let known = COUNTS.join(", ");
                return Err(format!(
                    "expect.{key}: no such key; {known} and rss-mib-max are known"
                ));
            }
        }
        Ok(expect)
    }

    /// What is not as expected.
    pub(crate) fn problems(&self, report: &Report, rss_mib: Option<u64>) -> Vec<String> {
        let balance = report.balance();
        let found = [
            balance.lost,
            balance.duplicated,
            balance.altered,
            balance.refused,
            balance.unreported,
            report.idle_dropped,
        ];
        let mut problems = Vec::new();
        for ((name, found), most) in COUNTS.iter().zip(found).zip(self.counts) {
            if found > most {
                problems.push(format!("{name} {found}, expected at most {most}"));
            }
        }
        if !problems.is_empty()
            && let Some(reply) = &report.summary.first_refusal
        {
            problems.push(format!("the first refusal: {reply}"));
        }
        if let (Some(most), Some(found)) = (self.rss_mib_max, rss_mib)
            && found > most
        {
            problems.push(format!("rss-mib-max {most}, the relay had {found}"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "description = \"x\"\n[load]\nmessages = 200\nsize = \"mix:100*1,9000*2\"\n\
        no-reuse = true\nbdat = false\nidle = 30\n[sink]\nfail-rcpt = 0.1\nchunking = true\n\
        [zmailer.smtpserver]\nsessions_max = 7\n[[zmailer.scheduler.rule]]\nretry = [\"1s\"]\n\
        [expect]\nrefused = 3\nrss-mib-max = 100\n";

    #[test]
    fn a_file_has_the_names_and_the_values_of_the_options() {
        let mut scenario = Scenario::parse("a/b/one.toml", GOOD).unwrap();
        assert_eq!(scenario.name, "one");
        assert!(scenario.load.no_reuse && !scenario.load.bdat);
        assert_eq!(scenario.load.connections, 50, "the option's own default");
        assert!(scenario.behaviour.chunking);
        assert!((scenario.behaviour.fail_rcpt - 0.1).abs() < 1e-9);
        assert_eq!(scenario.expect.rss_mib_max, Some(100));
        scenario.scale(0.1);
        assert_eq!((scenario.load.messages, scenario.load.idle), (20, 3));
        scenario.scale(1e-6);
        assert_eq!((scenario.load.messages, scenario.load.idle), (1, 1));
    }

    #[test]
    fn the_relays_settings_are_the_files_and_the_runners() {
        let scenario = Scenario::parse("one.toml", GOOD).unwrap();
        let (relay, sink) = (
            "127.0.0.1:1".parse().unwrap(),
            "127.0.0.1:2".parse().unwrap(),
        );
        let text = scenario
            .relay_settings(Path::new("x"), relay, sink)
            .unwrap();
        let settings: Table = text.parse().unwrap();
        assert_eq!(settings["smtpserver"]["sessions_max"].as_integer(), Some(7));
        assert_eq!(
            settings["smtpserver"]["listen"][0].as_str(),
            Some("127.0.0.1:1")
        );
        assert_eq!(
            settings["router"]["default_route"].as_str(),
            Some("smtp!127.0.0.1:2")
        );
        assert_eq!(
            settings["scheduler"]["rule"][0]["retry"][0].as_str(),
            Some("1s")
        );
        assert_eq!(
            settings["paths"]["postoffice"].as_str(),
            Some("x/postoffice")
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_key() {
        for (text, key) in [
            ("[load]\n", "description"),
            (
                "description = \"x\"\n[load]\nmessage = 1\n",
                "load.message:",
            ),
            (
                "description = \"x\"\n[load]\nmessages = \"many\"\n",
                "--messages",
            ),
            ("description = \"x\"\n[load]\nsize = \"exp:x\"\n", "--size"),
            (
                "description = \"x\"\n[load]\nno-reuse = 1\n",
                "load.no-reuse",
            ),
            (
                "description = \"x\"\n[load]\nmessages = [1]\n",
                "load.messages",
            ),
            (
                "description = \"x\"\n[sink]\nfail_4xx = 0.1\n",
                "sink.fail_4xx",
            ),
            ("description = \"x\"\n[sink]\nfail-4xx = 2\n", "--fail-4xx"),
            ("description = \"x\"\n[expect]\nlots = 0\n", "expect.lots"),
            ("description = \"x\"\n[expect]\nlost = -1\n", "expect.lost"),
            ("description = \"x\"\n[relay]\n", "relay"),
            ("description = \"x\"\nload = 3\n", "load"),
            (
                "description = \"x\"\n[zmailer.smtpserver]\nlisten = []\n",
                "smtpserver.listen",
            ),
            ("description = ", "line 1"),
        ] {
            let error = Scenario::parse("a/bad.toml", text).unwrap_err();
            assert!(
                error.starts_with("a/bad.toml: ") && error.contains(key),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn expectations_are_limits() {
        let load = crate::options::tests::load(&["--messages", "2"]).unwrap();
        let ledger = crate::ledger::Ledger::new(&load).unwrap();
        ledger.refused("451 later");
        let summary = ledger.summary();
        let report = Report::new(&load, summary, std::time::Duration::ZERO, true);
        let problems = |text: &str, rss| {
            let expect = Expect::parse(&text.parse::<Table>().unwrap()).unwrap();
            expect.problems(&report, rss)
        };
        assert_eq!(
            problems("", None),
            [
                "refused 1, expected at most 0",
                "the first refusal: 451 later"
            ]
        );
        assert!(problems("refused = 1\nrss-mib-max = 5", Some(5)).is_empty());
        assert_eq!(problems("refused = 1\nrss-mib-max = 5", Some(6)).len(), 1);
    }
}
