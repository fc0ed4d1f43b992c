//! The load generator's scenarios against the real daemon, at a small scale.

use std::process::Output;

use crate::harness::daemon::{Setup, binary, free_address, scratch_dir};
use crate::harness::wait_for;

fn loadgen(words: &[&str]) -> Output {
    let output = binary().arg("loadgen").args(words).output();
    output.expect("the binary starts")
}

#[test]
fn every_built_in_scenario_is_green() {
    let dir = scratch_dir();
    let output = loadgen(&[
        "scenario",
        "--all",
        "--json",
        "--scale",
        "0.05",
        "--command",
        env!("CARGO_BIN_EXE_zmailer"),
        "--dir",
        dir.path().to_str().expect("the build directory is text"),
    ]);
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&said).expect("an array of results");
    assert!(rows.len() >= 8, "{said}");
    for row in &rows {
        assert_eq!(row["green"], true, "{row}\n{errors}");
        for key in ["lost", "duplicated", "altered", "refused"] {
            assert_eq!(row[key], 0, "{key} in {row}");
        }
        assert_eq!(row["acknowledged"], row["messages"], "{row}");
    }
    assert!(output.status.success(), "{errors}");
    let left = std::fs::read_dir(dir.path()).expect("the scratch directory");
    assert_eq!(left.count(), 0, "a green scenario leaves nothing behind");
}

#[test]
fn a_relay_that_refuses_its_settings_is_a_red_scenario_that_says_why() {
    let dir = scratch_dir();
    let file = dir.path().join("odd.toml");
    let text = "description = \"x\"\n[zmailer.smtpserver]\nno_such_setting = 1\n";
    std::fs::write(&file, text).expect("a scratch file");
    let output = loadgen(&[
        "scenario",
        file.to_str().expect("the build directory is text"),
        "--command",
        env!("CARGO_BIN_EXE_zmailer"),
        "--dir",
        dir.path().to_str().expect("the build directory is text"),
    ]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.starts_with("odd") && said.contains("RED") && said.contains("no_such_setting"),
        "{said}"
    );
}

#[test]
fn spool_fill_leaves_its_messages_in_the_queue() {
    let daemon = Setup::relay_to(free_address()).start();
    let to = daemon.address.to_string();
    let output = loadgen(&[
        "spool-fill",
        "--to",
        &to,
        "--messages",
        "300",
        "--destinations",
        "5",
        "--connections",
        "4",
        "--json",
    ]);
    assert!(output.status.success());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(report["acknowledged"], 300);
    assert!(report["lost"].is_null(), "nobody knows without a sink");
    // The counts of a status are a moment old.
    wait_for("300 messages in the queue", || {
        (daemon.status()["queue"]["messages"] == 300).then_some(())
    });
}
