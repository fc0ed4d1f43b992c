//! `sendmail` as a program of its own: small, since a process that lives for two syncs should not pay
//! for the start of a mail system. Everything but a submission is left to `zmailer`, which has to stand
//! in the same directory and can be called as `sendmail` too.

#![deny(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    zmailer::commands::sendmail_main()
}
