//! The examples of the manual print what stands behind them.

use super::{Evaluation, Limits, World, finish, load};

const MANUAL: &str = include_str!("../../LANGUAGE.md");

/// Each script with what it prints.
fn examples() -> Vec<(&'static str, &'static str)> {
    let parts: Vec<&str> = MANUAL.split("```").collect();
    let mut examples = Vec::new();
    for (at, part) in parts.iter().enumerate().filter(|(at, _)| at % 2 == 1) {
        let Some(script) = part.strip_prefix("zmsh\n") else {
            continue;
        };
        let output = parts
            .get(at + 2)
            .and_then(|output| output.strip_prefix("output\n"));
        examples.push((script, output.unwrap_or("an output block is missing\n")));
    }
    examples
}

#[test]
fn examples_print_what_the_manual_says() {
    let examples = examples();
    assert!(examples.len() >= 12, "{}", examples.len());
    for (script, expected) in examples {
        let mut evaluation = Evaluation::new(Limits::default());
        load(&mut evaluation, script);
        let mut world = World::default();
        assert_eq!(
            finish(&mut evaluation, &mut world).map(|_| ()),
            Ok(()),
            "{script}"
        );
        let errors = String::from_utf8_lossy(&world.errors);
        let output = String::from_utf8_lossy(&world.output);
        assert_eq!(output, expected, "\n{script}\n{errors}");
    }
}
