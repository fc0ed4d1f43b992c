//! Stories of the running daemon, one file each.

mod bounce;
mod commands;
mod dialogs;
mod disk;
mod dns;
mod docs;
mod help;
mod kill;
mod large;
mod limits;
mod list;
mod local;
mod mail_log;
mod pickup;
mod pressure;
mod programs;
mod queue;
mod relay;
mod retry;
mod ring;
mod scenarios;
mod sendmail;
mod spool;
mod start;
mod stop;
mod submit;
