//! The one binary of ZMailer; what it is called as decides what it does.

#![deny(unsafe_code)]

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    zmailer::commands::main()
}
