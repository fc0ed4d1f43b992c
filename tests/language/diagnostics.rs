//! What is said about wrong scripts: `NAME.cf` and, in `NAME.txt`, the text of its errors and warnings.

use std::fs;
use std::path::{Path, PathBuf};

use zmailer::router::check::{self, Known, Script};
use zmailer::router::diagnostic::Source;
use zmailer::router::syntax;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/diagnostics")
}

/// Errors, or warnings when there are none.
fn said(name: &str, text: &[u8]) -> String {
    let source = Source::new(name, text);
    let said = match syntax::parse(&source) {
        Err(errors) => errors,
        Ok(parsed) => {
            let known = Known {
                defined: &|_| false,
                programs: false,
            };
            check::check(&[Script { source, parsed }], known)
        }
    };
    let lines = said.iter().map(|diagnostic| format!("{diagnostic}\n"));
    lines.collect()
}

#[test]
fn diagnostics_say_what_is_recorded() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "cf") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let found = said(&name, &fs::read(&path).unwrap());
        let wanted = fs::read_to_string(path.with_extension("txt")).unwrap();
        if found != wanted {
            wrong.push(format!("{name}\n--- wanted\n{wanted}--- found\n{found}"));
        }
        count += 1;
    }
    assert!(count > 50, "{count} scripts were found");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What is shipped is good; names of relations are known only when it is loaded.
#[test]
fn the_shipped_scripts_have_no_warnings() {
    let scripts = zmailer::router::stock::FILES.map(|(name, text)| {
        let source = Source::new(name, text.as_bytes());
        let parsed = syntax::parse(&source).unwrap_or_else(|errors| panic!("{}", errors[0]));
        Script { source, parsed }
    });
    let known = Known {
        defined: &|_| false,
        programs: true,
    };
    let warnings = check::check(&scripts, known);
    let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert!(texts.is_empty(), "\n{}", texts.join("\n"));
}
