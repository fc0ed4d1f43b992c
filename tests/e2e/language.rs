//! The manual of the routing language says what the code does.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use zmailer::router::builtin::TABLE;

const BEGIN: &str = "<!-- built-ins: begin -->\n";
const END: &str = "<!-- built-ins: end -->";

fn manual() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/router/LANGUAGE.md")
}

/// The table of the built-ins as the manual shows it.
fn table() -> String {
    let mut table = String::from("| command | does |\n|---|---|\n");
    for builtin in TABLE {
        let usage = format!("{} {}", builtin.name, builtin.usage);
        let usage = usage.trim_end().replace('|', "\\|");
        let text = builtin.text.replace('|', "\\|");
        writeln!(table, "| `{usage}` | {text} |").unwrap();
    }
    table
}

/// `ZMAILER_WRITE_DOCS=1 cargo test --test integration built_ins_of_the_manual` writes the table anew.
#[test]
fn the_built_ins_of_the_manual_are_those_of_the_code() {
    let text = fs::read_to_string(manual()).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the mark of the table");
    let (found, after) = rest.split_once(END).expect("the mark of the table's end");
    if std::env::var_os("ZMAILER_WRITE_DOCS").is_some() {
        fs::write(manual(), format!("{before}{BEGIN}{}{END}{after}", table())).unwrap();
        return;
    }
    assert!(
        found == table(),
        "src/router/LANGUAGE.md shows other built-ins than the code has; to write its table anew:\n  \
         ZMAILER_WRITE_DOCS=1 cargo test --test integration built_ins_of_the_manual"
    );
}

/// Every link of the documents of the language leads to a file or a heading.
#[test]
fn links_of_the_manual_lead_somewhere() {
    let folder = manual().parent().unwrap().to_owned();
    for document in [
        "LANGUAGE.md",
        "DATABASES.md",
        "stock/README.md",
        "message/DIFFERENCES.md",
    ] {
        let text = fs::read_to_string(folder.join(document)).unwrap();
        let headings: Vec<String> = text
            .lines()
            .filter(|line| line.starts_with('#'))
            .map(|line| {
                line.trim_start_matches('#')
                    .trim()
                    .to_lowercase()
                    .replace(' ', "-")
            })
            .collect();
        for target in text.split("](").skip(1) {
            let target = target.split(')').next().unwrap();
            let there = match target.strip_prefix('#') {
                Some(heading) => headings.iter().any(|known| known == heading),
                None => folder
                    .join(document)
                    .parent()
                    .unwrap()
                    .join(target)
                    .exists(),
            };
            assert!(there, "{document}: {target}");
        }
    }
}
