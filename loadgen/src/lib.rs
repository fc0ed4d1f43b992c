//! Load generator.
/// The program.
pub fn main(_arguments: Vec<String>) -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
