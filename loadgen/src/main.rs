//! The load generator as a program of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    loadgen::main(std::env::args().skip(1).collect())
}
