//! `zmailer check`: the configuration, judged as a start would judge it.

use std::process::ExitCode;

use crate::config::{Config, reference as config_reference};

/// Loading has already found it good in form; this says what it means.
pub(super) fn run(config: &Config) -> ExitCode {
    if let Err(code) = super::run::validate(config) {
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
    ExitCode::SUCCESS
}

/// Prints every setting.
pub(super) fn reference() -> ExitCode {
    print!("{}", config_reference::text());
    ExitCode::SUCCESS
}
