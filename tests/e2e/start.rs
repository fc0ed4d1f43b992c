//! What can be wrong at the start, and how the daemon says so.

use std::fs;
use std::process::Output;

use crate::harness::client::Client;
use crate::harness::daemon::{Setup, binary, free_address, scratch_dir};
use crate::harness::hop::Hop;
use crate::harness::wait_for;

fn run_with(text: &str) -> (Output, String) {
    let dir = scratch_dir();
    let config = dir.path().join("zmailer.toml");
    fs::write(&config, text).unwrap();
    let output = binary()
        .args(["run", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, errors)
}

#[test]
fn all_errors_of_a_configuration_are_named_at_once() {
    let text = "[daemon]\nshards = \"two\"\n[spool]\ndurability = \"maybe\"\n[smtpserver]\n\
                lissten = [\"127.0.0.1:2525\"]\nidle_timeout = 30\n";
    let (output, errors) = run_with(text);
    assert_eq!(output.status.code(), Some(78), "{errors}");
    for part in [
        "zmailer.toml:2",
        "shards",
        "zmailer.toml:4",
        "durability",
        "\"sync\"",
        "zmailer.toml:6",
        "lissten",
        "listen",
        "zmailer.toml:7",
        "idle_timeout",
    ] {
        assert!(errors.contains(part), "{part} is missing in:\n{errors}");
    }
}

#[test]
fn a_second_daemon_on_one_postoffice_is_refused() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let output = binary()
        .args(["run", "--config"])
        .arg(daemon.config())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{errors}");
    assert!(
        errors.contains(&daemon.pid().to_string()),
        "the pid is named: {errors}"
    );
    Client::submit(
        daemon.address,
        "a@a.example",
        &["b@b.example"],
        "Subject: x\r\n\r\n",
    );
    hop.wait_for_mails(1);
}

#[test]
fn a_port_in_use_is_refused_by_address() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let text = fs::read_to_string(daemon.config()).unwrap();
    let here = daemon.dir.path().display().to_string();
    let elsewhere = scratch_dir();
    let (output, errors) = run_with(&text.replace(&here, &elsewhere.path().display().to_string()));
    assert_eq!(output.status.code(), Some(69), "{errors}");
    assert!(errors.contains(&daemon.address.to_string()), "{errors}");
}

#[test]
fn root_without_a_user_is_refused() {
    let id = std::process::Command::new("id").arg("-u").output().unwrap();
    if id.stdout != b"0\n" {
        crate::harness::skip("this needs root");
        return;
    }
    let dir = scratch_dir();
    let text = format!(
        "[paths]\npostoffice = \"{0}/p\"\nlog_dir = \"{0}/l\"\n[smtpserver]\nlisten = [\"127.0.0.1:0\"]\n",
        dir.path().display()
    );
    let (output, errors) = run_with(&text);
    assert_eq!(output.status.code(), Some(78), "{errors}");
    assert!(errors.contains("daemon.user"), "{errors}");
}

#[test]
fn more_shards_then_fewer_then_more_lose_nothing() {
    let address = free_address();
    let mut setup = Setup::relay_to(address).shards(4);
    setup.tail = "[[scheduler.rule]]\nmatch = \"smtp/*\"\nretry = [\"1s\"]\n".to_owned();
    let mut daemon = setup.start();
    for number in 0..40 {
        let to = format!("u{number}@b.example");
        Client::submit(
            daemon.address,
            "a@a.example",
            &[&to],
            "Subject: x\r\n\r\ntext\r\n",
        );
    }
    for (from, to) in [(4, 1), (1, 3)] {
        daemon.stop();
        let text = fs::read_to_string(daemon.config()).unwrap();
        let changed = text.replace(&format!("shards = {from}"), &format!("shards = {to}"));
        fs::write(daemon.config(), changed).unwrap();
        daemon.restart();
        // It listens before all of a checkpoint is in.
        wait_for(&format!("all messages, {from} to {to} shards"), || {
            let count = daemon.status()["queue"]["messages"].as_u64();
            (count == Some(40)).then_some(())
        });
    }
    let hop = Hop::start_on(address);
    hop.wait_for_mails(40);
    daemon.wait_until_empty();
    assert_eq!(hop.mails().len(), 40);
}

#[test]
fn without_syncs_the_daemon_says_what_a_250_is_worth() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address)
        .with("spool", "durability = \"none\"")
        .start();
    let said = daemon.stderr();
    let warned = |line: &str| line.contains("WARN") && line.contains("durability = \"none\"");
    assert_eq!(
        said.lines().filter(|line| warned(line)).count(),
        1,
        "{said}"
    );
    assert!(said.contains("a 250 is not on disk"), "{said}");
    Client::submit(
        daemon.address,
        "a@a.example",
        &["b@b.example"],
        "Subject: x\r\n\r\n",
    );
    hop.wait_for_mails(1);
}

#[test]
fn the_limit_of_open_files_is_raised_and_what_follows_from_it_is_said() {
    let mut setup = Setup::relay_to(free_address()).shards(2);
    setup.prefix = ["prlimit", "--nofile=256:2512"].map(str::to_owned).to_vec();
    let works = std::process::Command::new("prlimit").arg("true").output();
    if !works.is_ok_and(|output| output.status.success()) {
        crate::harness::skip("no prlimit; raising the limit of open files is not tested");
        return;
    }
    let daemon = setup.start();
    let said = daemon.stderr();
    assert!(said.contains("open_files=2512"), "{said}");
    // 512 are kept for everything else; a session may need a connection to a next hop.
    assert!(said.contains("sessions_max=500"), "{said}");
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    assert_eq!(words[3..5], ["2512", "2512"]);
}
