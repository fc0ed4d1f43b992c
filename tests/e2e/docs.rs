//! What the README shows works as it stands there; other people's tools talk to us.

use std::fs;
use std::process::Command;

use crate::harness::client::Client;
use crate::harness::daemon::{Setup, binary, scratch_dir};
use crate::harness::hop::Hop;
use crate::harness::installed;
use crate::harness::sendmail::{said, sendmail};

fn readme() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

/// The code blocks of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut parts = text.split("```");
    parts.next();
    parts
        .step_by(2)
        .filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'))
        .map(str::to_owned)
        .collect()
}

/// The laptop of the README: mail for a user of this host, and for the smarthost.
#[test]
fn the_laptop_of_the_readme_delivers_here_and_there() {
    let hop = Hop::start();
    let setup = Setup::relay_to(hop.address);
    let address = setup.address;
    let mut daemon = setup.prepare(scratch_dir());
    let dir = daemon.dir.path().to_owned();
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let config = blocks(&readme(), "toml").remove(1);
    assert!(config.lines().count() <= 10, "ten lines are promised");
    let text = config
        .replace("/var/spool", &dir.display().to_string())
        .replace("/var/log/zmailer", &dir.join("log").display().to_string())
        .replace("\"mail\"", &format!("{:?}", user.trim()))
        .replace("smarthost.example.net", &hop.address.to_string())
        // The home of who runs the test is left alone.
        .replace("{home}/Maildir", &dir.join("{user}").display().to_string());
    let text = format!("{text}[smtpserver]\nlisten = [\"{address}\"]\n");
    fs::write(daemon.config(), text).unwrap();
    daemon.restart();
    let here = user.trim();
    let output = sendmail(
        &daemon,
        &[here, "far@example.net"],
        b"Subject: hello\n\ntext\n",
    );
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(hop.wait_for_mails(1)[0].recipients, ["far@example.net"]);
    daemon.wait_until_empty();
    assert_eq!(fs::read_dir(dir.join(here).join("new")).unwrap().count(), 1);
}

#[test]
fn the_example_configuration_is_good() {
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/zmailer.toml");
    let parsed = zmailer::config::load(Some(std::path::Path::new(text)));
    assert!(parsed.is_ok(), "{parsed:?}");
}

#[test]
fn the_configuration_of_the_readme_relays() {
    let hop = Hop::start();
    let setup = Setup::relay_to(hop.address);
    let address = setup.address;
    let mut daemon = setup.prepare(scratch_dir());
    let user = Command::new("id").arg("-un").output().unwrap().stdout;
    let config = blocks(&readme(), "toml").remove(0);
    let text = config
        .replace("./", &format!("{}/", daemon.dir.path().display()))
        .replace(
            "\"root\"",
            &format!("{:?}", String::from_utf8(user).unwrap().trim()),
        )
        .replace("127.0.0.1:2525", &address.to_string())
        .replace("127.0.0.1:2600", &hop.address.to_string());
    fs::write(daemon.config(), text).unwrap();
    let run = |command: &str| {
        let output = binary()
            .args([command, "--config"])
            .arg(daemon.config())
            .output();
        let output = output.unwrap();
        assert!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    run("check");
    daemon.restart();
    Client::submit(
        address,
        "ann@example.org",
        &["bob@example.net"],
        "Subject: x\r\n\r\n",
    );
    hop.wait_for_mails(1);
    let run = |command: &str| {
        let output = binary()
            .args([command, "--config"])
            .arg(daemon.config())
            .output();
        assert!(output.unwrap().status.success(), "{command}");
    };
    run("status");
    run("kill");
    assert_eq!(daemon.wait_exit(), Some(0));
}

#[test]
fn the_commands_of_the_readme_exist() {
    let shown = blocks(&readme(), "sh").join("\n");
    let known = ["check", "run", "status", "kill", "demo"];
    let ours = shown.lines().filter_map(|line| {
        let at = line.find("release/zmailer ").map(|at| at + 16);
        let at = at.or_else(|| line.find("--release -- ").map(|at| at + 13))?;
        line.get(at..)?.split(' ').next()
    });
    let mut count = 0;
    for command in ours {
        assert!(known.contains(&command), "{command}");
        count += 1;
    }
    assert!(count >= 5, "{count} commands are shown");
}

#[test]
fn swaks_gets_its_mail_through() {
    if !installed("swaks") {
        return;
    }
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    for extra in [&[][..], &["--pipeline"][..], &["--attach-body", "text"][..]] {
        let status = Command::new("swaks")
            .args(["--server", &daemon.address.to_string()])
            .args([
                "--from",
                "ann@example.org",
                "--to",
                "bob@example.net",
                "--hide-all",
            ])
            .args(extra)
            .status()
            .unwrap();
        assert!(status.success(), "{extra:?}");
    }
    let mails = hop.wait_for_mails(3);
    assert!(
        mails
            .iter()
            .all(|mail| mail.recipients == ["bob@example.net"])
    );
}

#[test]
fn smtp_source_gets_its_mail_through() {
    if !installed("smtp-source") {
        return;
    }
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    for flags in [&["-d"][..], &[][..]] {
        let status = Command::new("smtp-source")
            .env("PATH", &path)
            .args([
                "-s",
                "20",
                "-m",
                "500",
                "-l",
                "3000",
                "-f",
                "a@a.example",
                "-t",
                "b@b.example",
            ])
            .args(flags)
            .arg(daemon.address.to_string())
            .status()
            .unwrap();
        assert!(status.success(), "{flags:?}");
    }
    let mails = hop.wait_for_mails(1000);
    assert_eq!(mails.len(), 1000);
}
