//! ZMailer; what it is called as decides what it does. Only `sendmail` has a smaller binary besides.

#![deny(unsafe_code)]

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: zmailer::sys::allocator::Allocator = zmailer::sys::allocator::Allocator;

fn main() -> ExitCode {
    zmailer::commands::main()
}
