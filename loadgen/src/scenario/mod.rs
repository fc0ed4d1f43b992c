//! Scenarios: a load, a sink, a relay's settings and what is expected, in one file.
//!
//! Each runs alone: a fresh directory, a relay of its own, free ports. It is green when the ledger
//! and the relay's memory are as expected, red when not, and the directory of a red one is kept.

mod built_in;
mod file;
mod relay;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::html::Section;
use crate::options::ScenarioArguments;
use crate::report::Report;
use crate::run::{self, Plan};
use file::Scenario;
use relay::{Relay, free_address};

pub(crate) fn main(arguments: &ScenarioArguments) -> ExitCode {
    let scenarios = match gather(arguments) {
        Ok(scenarios) => scenarios,
        Err(error) => return run::refuse(error),
    };
    let mut outcomes = Vec::new();
    for scenario in &scenarios {
        let outcome = perform(scenario, arguments);
        if !arguments.output.json {
            println!("{}", outcome.line(scenario));
        }
        outcomes.push(outcome);
    }
    if arguments.output.json {
        let rows = scenarios.iter().zip(&outcomes);
        let rows: Vec<Value> = rows
            .map(|(scenario, outcome)| outcome.json(scenario))
            .collect();
        println!("{}", Value::Array(rows));
    }
    if let Err(error) = write_page(arguments, &scenarios, &outcomes) {
        return run::fail(error);
    }
    run::verdict(outcomes.iter().all(|outcome| outcome.problems.is_empty()))
}

/// The scenarios that were asked for, scaled.
fn gather(arguments: &ScenarioArguments) -> Result<Vec<Scenario>, String> {
    let mut scenarios = Vec::new();
    for path in &arguments.files {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        scenarios.push(Scenario::parse(&name, &text)?);
    }
    if arguments.all {
        for (name, text) in built_in::FILES {
            scenarios.push(Scenario::parse(name, text)?);
        }
    }
    for scenario in &mut scenarios {
        scenario.scale(arguments.scale);
    }
    Ok(scenarios)
}

/// How a scenario went.
struct Outcome {
    report: Option<Report>,
    rss_mib: Option<u64>,
    problems: Vec<String>,
}

fn perform(scenario: &Scenario, arguments: &ScenarioArguments) -> Outcome {
    let measured = match (&arguments.command, arguments.relay, arguments.sink) {
        (Some(command), ..) => with_child(scenario, command, &arguments.dir),
        (None, Some(relay), Some(sink)) => run::measure(&plan(scenario, relay, sink), || Ok(None)),
        // The command line demands one of them.
        _ => Err("neither --command nor --relay and --sink".to_owned()),
    };
    match measured {
        Ok((report, rss_mib)) => Outcome {
            problems: scenario.expect.problems(&report, rss_mib),
            report: Some(report),
            rss_mib,
        },
        Err(error) => Outcome {
            report: None,
            rss_mib: None,
            problems: vec![error],
        },
    }
}

fn plan(scenario: &Scenario, relay: SocketAddr, sink: SocketAddr) -> Plan {
    Plan {
        relay,
        sink: Some((sink, scenario.behaviour.clone())),
        load: scenario.load.clone(),
        bar: false,
    }
}

fn with_child(
    scenario: &Scenario,
    command: &Path,
    base: &Path,
) -> Result<(Report, Option<u64>), String> {
    let dir = base.join(format!("scenario.{}.{}", std::process::id(), scenario.name));
    let kept = |error: String| format!("{error}; see {}", dir.display());
    let (address, sink) = (free_address()?, free_address()?);
    let settings = scenario.relay_settings(&dir, address, sink)?;
    let relay = Relay::start(command, &dir, address, &settings).map_err(kept)?;
    let measured = run::measure(&plan(scenario, address, sink), || relay.stop().map(Some));
    let (report, rss_mib) = measured.map_err(kept)?;
    if scenario.expect.problems(&report, rss_mib).is_empty() {
        fs::remove_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    Ok((report, rss_mib))
}

impl Outcome {
    fn word(&self) -> &'static str {
        if self.problems.is_empty() {
            "green"
        } else {
            "RED"
        }
    }

    fn line(&self, scenario: &Scenario) -> String {
        let mut line = format!("{:<16} {:<6}", scenario.name, self.word());
        if let Some(report) = &self.report {
            line += &summary(report);
        }
        if let Some(rss_mib) = self.rss_mib {
            line += &format!(", {rss_mib} MiB");
        }
        for problem in &self.problems {
            line += &format!("\n    {problem}");
        }
        line
    }

    fn json(&self, scenario: &Scenario) -> Value {
        let mut row = self.report.as_ref().map_or_else(|| json!({}), Report::json);
        row["scenario"] = json!(scenario.name);
        row["green"] = json!(self.problems.is_empty());
        row["problems"] = json!(self.problems);
        row["rss_mib"] = json!(self.rss_mib);
        row
    }
}

fn summary(report: &Report) -> String {
    let balance = report.balance();
    let latencies = &report.summary.latencies;
    format!(
        "{} acknowledged, {} delivered, {:.0}/s, p50 {} us, p99 {} us, \
         lost {}, duplicated {}, altered {}",
        balance.acknowledged,
        balance.delivered,
        report.rate(),
        latencies.at(0.5),
        latencies.at(0.99),
        balance.lost,
        balance.duplicated,
        balance.altered
    )
}

fn write_page(
    arguments: &ScenarioArguments,
    scenarios: &[Scenario],
    outcomes: &[Outcome],
) -> Result<(), String> {
    let sections: Vec<Section<'_>> = scenarios
        .iter()
        .zip(outcomes)
        .map(|(scenario, outcome)| Section {
            title: format!("{}: {}", scenario.name, outcome.word()),
            text: scenario.description.clone(),
            problems: &outcome.problems,
            report: outcome.report.as_ref(),
        })
        .collect();
    run::write_page(
        arguments.output.html.as_deref(),
        "loadgen scenarios",
        &sections,
    )
}
