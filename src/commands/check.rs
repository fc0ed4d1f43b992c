//! `zmailer check`: the configuration, judged as a start would judge it.

use std::process::ExitCode;

use super::exit;
use super::route::desk::{Desk, Script};
use crate::config::{Config, reference as config_reference};

/// Loading has already found it good in form; this says what it means.
pub(super) fn run(config: &Config) -> ExitCode {
    let start = super::run::validate(config).map(|_| ());
    let routing = routing(config);
    if let Err(code) = start.and(routing) {
        return code;
    }
    let listen: Vec<String> = config
        .smtpserver
        .services
        .iter()
        .flat_map(|service| &service.listen)
        .map(ToString::to_string)
        .collect();
    println!("configuration is good");
    println!("listen      {}", listen.join(" "));
    println!("postoffice  {}", config.paths.postoffice.display());
    println!("durability  {:?}", config.spool.durability);
    println!("default     {}", config.router.default_route);
    match &config.router.config {
        Some(script) => println!("routing     {}", script.display()),
        None => println!("routing     the shipped scripts"),
    }
    ExitCode::SUCCESS
}

/// The routing scripts, which are run as at a start; warnings do not make them wrong.
fn routing(config: &Config) -> Result<(), ExitCode> {
    match Desk::open(config, Script::Configured) {
        Ok(desk) => {
            for warning in desk.warnings(config) {
                eprintln!("{warning}");
            }
            let bad = desk.bad_maps();
            for problem in &bad {
                eprintln!("{problem}");
            }
            if bad.is_empty() {
                Ok(())
            } else {
                Err(ExitCode::from(exit::DATA))
            }
        }
        Err(error) => {
            eprintln!("{error}");
            Err(ExitCode::from(exit::CONFIG))
        }
    }
}

/// Prints every setting.
pub(super) fn reference() -> ExitCode {
    print!("{}", config_reference::text());
    ExitCode::SUCCESS
}
