//! Every command says what it does, how it ends and how it is used.

use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::process::Command;

use zmailer::scheduler::filter::Filter;

use crate::harness::daemon::{binary, scratch_dir};
use crate::harness::sendmail::PROGRAM;

fn help_of(mut command: Command, words: &[&str]) -> String {
    let output = command.args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The names below `Commands:`.
fn commands_in(help: &str) -> Vec<String> {
    let list = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let lines = list.lines().take_while(|line| !line.is_empty());
    // A text that goes on in a second line is indented further.
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

fn judge(what: &str, help: &str) {
    for section in ["FILES:\n", "EXIT STATUS:\n", "EXAMPLES:\n"] {
        assert!(help.contains(section), "{what}: no {section}{help}");
    }
    let examples = help.split("EXAMPLES:\n").nth(1).unwrap();
    for part in examples.split("--where '").skip(1) {
        let text = part.split('\'').next().unwrap();
        assert!(Filter::parse(text).is_ok(), "{what}: {text}");
    }
}

#[test]
fn every_command_says_how_it_ends_and_how_it_is_used() {
    let top = help_of(binary(), &["--help"]);
    judge("zmailer", &top);
    let mut count = 0;
    for command in commands_in(&top) {
        let own = help_of(binary(), &[&command, "--help"]);
        judge(&command, &own);
        judge(&command, &help_of(binary(), &["help", &command]));
        count += 1;
        for act in commands_in(&own) {
            let help = help_of(binary(), &[&command, &act, "--help"]);
            judge(&format!("{command} {act}"), &help);
            let same = help_of(binary(), &["help", &command, &act]);
            judge(&format!("{command} {act}"), &same);
            count += 1;
        }
    }
    assert!(count >= 27, "{count} commands were found");
}

#[test]
fn the_programs_help_too() {
    let dir = scratch_dir();
    let small = OsStr::new(PROGRAM);
    for (name, program) in [("sendmail", small), ("mailq", binary().get_program())] {
        let path = dir.path().join(name);
        symlink(program, &path).unwrap();
        let help = help_of(Command::new(&path), &["--help"]);
        judge(name, &help);
        assert!(help.contains("Usage: "), "{help}");
    }
}
