//! Recorded scripts: the program gives what the original gave, or differs for a reason that is written down.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::harness::wait_for;

const FOLDERS: [&str; 2] = ["open", "more"];

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/zmsh")
}

/// `folder/name`, sorted.
fn cases() -> Vec<String> {
    let mut cases = Vec::new();
    for folder in FOLDERS {
        for entry in fs::read_dir(base().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if let Some(name) = name.strip_suffix(".zmsh") {
                cases.push(format!("{folder}/{name}"));
            }
        }
    }
    cases.sort();
    cases
}

/// Case and reason.
fn deviations() -> BTreeMap<String, String> {
    let text = fs::read_to_string(base().join("deviations.tsv")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (case, reason) = line.split_once('\t').unwrap();
            assert!(reason.len() > 20, "{case} differs without a reason");
            (case.to_owned(), reason.to_owned())
        })
        .collect()
}

/// Status and output of a script.
#[derive(PartialEq, Eq)]
struct Result {
    status: i32,
    output: Vec<u8>,
}

fn recorded(case: &str) -> Result {
    let file = |ending: &str| base().join(format!("{case}.{ending}"));
    let status = fs::read_to_string(file("rc")).map_or(0, |text| text.trim().parse().unwrap());
    Result {
        status,
        output: fs::read(file("out")).unwrap(),
    }
}

/// In a directory of its own, with an empty environment, as the original was run.
fn ours(case: &str) -> Result {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    for entry in fs::read_dir(base().join("open/data")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), data.join(entry.file_name())).unwrap();
    }
    File::create(dir.path().join("empty.cf")).unwrap();
    let out = dir.path().join("out");
    let mut child = Command::new(env!("CARGO_BIN_EXE_zmailer"))
        .arg("zmsh")
        .current_dir(dir.path())
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C")
        .stdin(File::open(base().join(format!("{case}.zmsh"))).unwrap())
        .stdout(File::create(&out).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = wait_for(&format!("the end of {case}"), || child.try_wait().unwrap());
    Result {
        status: status.code().unwrap_or(-1),
        output: fs::read(&out).unwrap(),
    }
}

/// What is wrong with a case; none: all is as it should be.
fn judge(case: &str, deviates: bool) -> Option<String> {
    let (wanted, found) = (recorded(case), ours(case));
    match (wanted == found, deviates) {
        (true, false) | (false, true) => None,
        (true, true) => Some(format!(
            "{case} is as recorded: take it out of deviations.tsv"
        )),
        (false, false) => Some(format!(
            "{case}: status {} instead of {}\n--- wanted\n{}--- found\n{}",
            found.status,
            wanted.status,
            String::from_utf8_lossy(&wanted.output),
            String::from_utf8_lossy(&found.output)
        )),
    }
}

#[test]
fn scripts_do_what_was_recorded() {
    let deviations = deviations();
    let cases = cases();
    assert!(cases.len() > 800, "{} cases were found", cases.len());
    for case in deviations.keys() {
        assert!(cases.contains(case), "{case} deviates but does not exist");
    }
    let waiting = Mutex::new(cases);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(case) = waiting.lock().unwrap().pop() else {
                        return;
                    };
                    if let Some(text) = judge(&case, deviations.contains_key(&case)) {
                        wrong.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
