//! The rules of CONVENTIONS.md as a test: layers, sizes, where unsafe, locks and clocks may stand.
//! Each check names the file and the cure.

use std::fs;
use std::path::{Path, PathBuf};

/// Layers from the bottom up; a module uses lower layers only, and `pairs` inside its own.
const LAYERS: &[(&str, u8)] = &[
    ("base", 1),
    ("sys", 1),
    ("mail", 2),
    ("protocol", 3),
    ("router", 3),
    ("scheduler", 3),
    ("policy", 3),
    ("config", 4),
    ("observe", 4),
    ("ring", 5),
    ("io", 6),
    ("control", 7),
    ("shard", 8),
    ("agents", 8),
    ("commands", 9),
];

/// Files that may be longer than 800 lines, because they are lists of like entries.
const LONG_FILES: &[&str] = &["src/config/knobs.rs"];

const FILE_LINES_MAX: usize = 800;
const TOO_LONG_FUNCTIONS: usize = 0;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(below: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("a directory entry can be read").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is text");
                let name = path.strip_prefix(root()).expect("below the root");
                found.push((name.to_string_lossy().into_owned(), text));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no source below {below}");
    found
}

fn all_sources() -> Vec<(String, String)> {
    ["src", "spool", "loadgen", "bench", "tests"]
        .iter()
        .flat_map(|dir| sources(dir))
        .collect()
}

/// Text without comments and without test modules in the same file.
fn code(text: &str) -> String {
    let text = text
        .split("\n#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or("");
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""))
        .collect();
    lines.join("\n")
}

fn layer_of(module: &str) -> Option<u8> {
    LAYERS
        .iter()
        .find(|(name, _)| *name == module)
        .map(|(_, layer)| *layer)
}

fn top_module(file: &str) -> Option<&str> {
    file.strip_prefix("src/")?.split('/').next()
}

/// The names behind `crate::` in a piece of code.
fn used_modules(code: &str) -> Vec<String> {
    code.match_indices("crate::")
        .map(|(at, prefix)| {
            code[at + prefix.len()..]
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect()
        })
        .collect()
}

fn fail_with(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn a_module_uses_lower_layers_only() {
    let mut problems = Vec::new();
    for (file, text) in sources("src") {
        let Some(module) = top_module(&file) else {
            continue;
        };
        let Some(layer) = layer_of(module) else {
            if !["lib.rs", "main.rs", "bin"].contains(&module) {
                problems.push(format!(
                    "{file}: module {module} has no layer; add it to LAYERS"
                ));
            }
            continue;
        };
        for used in used_modules(&code(&text)) {
            let Some(used_layer) = layer_of(&used) else {
                continue;
            };
            if used != module && used_layer >= layer {
                problems.push(format!(
                    "{file}: layer {layer} uses {used} of layer {used_layer}"
                ));
            }
        }
    }
    fail_with(&problems);
}

#[test]
fn the_pure_core_has_no_io_no_clock_no_threads_and_no_log() {
    let forbidden = [
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "std::thread",
        "std::time",
        "Instant::now",
        "SystemTime",
        "tracing::",
        "println!",
        "eprintln!",
        "crate::sys",
    ];
    let mut problems = Vec::new();
    let core = [
        "src/protocol",
        "src/router",
        "src/scheduler",
        "src/policy",
        "src/mail",
    ];
    let engine = sources("spool/src")
        .into_iter()
        .filter(|(file, _)| !file.contains("blocking"));
    for (file, text) in core.iter().flat_map(|dir| sources(dir)).chain(engine) {
        if file.ends_with("tests.rs") || file.contains("/tests/") || file.contains("/bin/") {
            continue;
        }
        for word in forbidden {
            if code(&text).contains(word) {
                problems.push(format!("{file}: {word} in the pure core; pass a value in"));
            }
        }
    }
    fail_with(&problems);
}

#[test]
fn no_lock_stands_on_the_message_path() {
    let words = ["Mutex", "RwLock", "Condvar", "mpsc"];
    let folders = [
        "src/protocol",
        "src/scheduler",
        "src/ring",
        "src/io",
        "src/shard",
        "src/router",
        "src/policy",
        "src/base",
        "spool/src",
    ];
    let mut problems = Vec::new();
    for (file, text) in folders.iter().flat_map(|dir| sources(dir)) {
        if file.ends_with("tests.rs") || file.contains("/tests/") {
            continue;
        }
        // A stand-in for loom's eyes only is not on any path.
        let text = text
            .split("#[cfg(loom)]\nmod stand_in")
            .next()
            .unwrap_or("")
            .to_owned();
        for word in words {
            if code(&text).contains(word) {
                problems.push(format!("{file}: {word} on the message path"));
            }
        }
    }
    fail_with(&problems);
}

#[test]
fn unsafe_code_stands_in_ring_and_sys_only() {
    let mut problems = Vec::new();
    for (file, text) in all_sources() {
        let allowed = file.starts_with("src/ring/") || file.starts_with("src/sys/");
        let code = code(&text);
        let uses =
            code.contains(concat!("unsafe", " {")) || code.contains(concat!("unsafe", " fn"));
        let allows = code.contains(concat!("allow(", "unsafe_code)"));
        if !allowed && (uses || allows) && file != "tests/tidy.rs" {
            problems.push(format!("{file}: unsafe code outside ring and sys"));
        }
    }
    fail_with(&problems);
}

#[test]
fn files_begin_with_what_they_are_and_stay_short() {
    let mut problems = Vec::new();
    for (file, text) in all_sources() {
        if !text.starts_with("//!") && !text.starts_with("#![") {
            problems.push(format!("{file}: does not begin with //! and what it is"));
        }
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX && !LONG_FILES.contains(&file.as_str()) {
            problems.push(format!("{file}: {lines} lines; split it by topic"));
        }
        if text
            .lines()
            .any(|line| line.trim_start().starts_with("// TODO"))
        {
            problems.push(format!("{file}: a TODO; finish it or file an issue"));
        }
    }
    fail_with(&problems);
}

/// Clippy denies functions above 70 lines; each exception is an expectation that names its reason.
#[test]
fn long_functions_do_not_become_more() {
    let marker = concat!("clippy::", "too_many_lines");
    let count: usize = all_sources()
        .iter()
        .map(|(_, text)| text.matches(marker).count())
        .sum::<usize>();
    assert_eq!(
        count, TOO_LONG_FUNCTIONS,
        "{count} functions are excused from the length limit; {TOO_LONG_FUNCTIONS} are known"
    );
}

#[test]
fn every_file_is_declared_by_a_module() {
    let mut problems = Vec::new();
    for (file, _) in sources("src") {
        let path = Path::new(&file);
        let stem = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        let (Some(stem), Some(parent)) = (stem, path.parent()) else {
            continue;
        };
        let owner = match stem.as_str() {
            "lib" | "main" => continue,
            _ if parent.ends_with("bin") => continue,
            "mod" => parent.parent().map(Path::to_path_buf),
            _ => Some(parent.to_path_buf()),
        };
        let Some(owner) = owner else { continue };
        let name = if stem == "mod" {
            parent
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
        } else {
            stem
        };
        let candidates = [
            owner.join("mod.rs"),
            owner.join("lib.rs"),
            owner.join("main.rs"),
            owner.with_extension("rs"),
        ];
        let declared = candidates.iter().any(|candidate| {
            fs::read_to_string(root().join(candidate))
                .is_ok_and(|text| text.contains(&format!("mod {name};")))
        });
        if !declared {
            problems.push(format!(
                "{file}: no module declares it; remove it or add `mod {name};`"
            ));
        }
    }
    fail_with(&problems);
}

#[test]
fn the_architecture_names_every_directory() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md exists");
    let missing: Vec<String> = LAYERS
        .iter()
        .filter(|(module, _)| !text.contains(&format!("`{module}`")))
        .map(|(module, _)| format!("ARCHITECTURE.md: no invariant for `{module}`"))
        .collect();
    fail_with(&missing);
}

#[test]
fn no_absolute_path_of_a_machine_is_in_the_tree() {
    let mut problems = Vec::new();
    for (file, text) in all_sources() {
        for word in [
            concat!("/ho", "me/"),
            concat!("/wo", "rk/"),
            concat!("/ro", "ot/"),
        ] {
            if text.contains(word) {
                problems.push(format!("{file}: the path {word}"));
            }
        }
    }
    fail_with(&problems);
}
