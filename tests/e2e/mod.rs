//! Stories of the running daemon, one file each.

mod agent;
mod bounce;
mod checkpoint;
mod commands;
mod database;
mod dialogs;
mod disk;
mod dns;
mod docs;
#[cfg(any(
    feature = "sqlite",
    feature = "postgres",
    feature = "ldap",
    feature = "redis"
))]
mod engines;
mod forward;
mod help;
mod kill;
mod language;
mod large;
mod limits;
mod list;
mod local;
mod mail_log;
mod maps;
mod origin;
mod pickup;
mod power;
mod pressure;
mod programs;
mod queue;
mod relay;
mod reroute;
mod rest;
mod retry;
mod ring;
mod routing;
mod scenarios;
mod sendmail;
mod spool;
mod start;
mod stop;
mod submit;
mod targets;
