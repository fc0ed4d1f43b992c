//! SQLite, a library; its command writes the files. And answers that a daemon remembers.

use std::fs;
use std::path::Path;
use std::process::Command;

use zmailer::router::relation::Engine;

use super::{Asker, HOSTILE, TABLE, run};
use crate::harness::client::Client;
use crate::harness::daemon::{Setup, scratch_dir};
use crate::harness::hop::Hop;
use crate::harness::sendmail::{said, zmailer};
use crate::harness::{installed, wait_for};

fn sql(file: &Path, text: &str) {
    run(Command::new("sqlite3").arg(file).arg(text), "");
}

#[test]
fn sqlite() {
    if !installed("sqlite3") {
        return;
    }
    let dir = scratch_dir();
    let file = dir.path().join("db");
    let settings = format!(
        "file {}\nquery SELECT value FROM aliases WHERE name = ?1 ORDER BY value\n\
         query.count SELECT count(*) FROM aliases WHERE ?1 <> ''\nquery.bad SELECT nothing FROM nowhere\n",
        file.display()
    );
    let asker = Asker::new(Engine::Sqlite, &dir, &settings);
    assert_eq!(asker.ask("", b"joe"), "later", "there is no file yet");
    sql(&file, TABLE);
    asker.check(HOSTILE);
    asker.check(&[
        ("", "team", "a@x, b@y"),
        ("", "none", "-"),
        ("COUNT", "x", "4"),
        ("bad", "joe", "later"),
        ("nosuch", "joe", "later"),
    ]);
    assert_eq!(asker.ask("", b"\xff"), "-");
    sql(
        &file,
        "UPDATE aliases SET value = 'new@host' WHERE name = 'joe'",
    );
    assert_eq!(asker.ask("", b"joe"), "new@host");
}

const ROUTER: &str = "relation -Nt sqlite -C SETTINGS -s 100 -e 100000 users
router (address, attributes) {
	new=$(users \"$address\")
	returns (((smtp \"HOP\" \"${new:-nobody@far.example}\" $attributes)))
}
";

/// A second message asked the database again, because what the first one was told ended with it.
#[test]
fn a_daemon_remembers_answers_until_it_reloads() {
    if !installed("sqlite3") {
        return;
    }
    let hop = Hop::start();
    let dir = scratch_dir();
    let path = |name: &str| dir.path().join(name);
    let (file, settings) = (path("db"), path("settings"));
    sql(&file, TABLE);
    let query = "query SELECT value FROM aliases WHERE name = ?1";
    fs::write(&settings, format!("file {}\n{query}\n", file.display())).unwrap();
    let script = ROUTER
        .replace("SETTINGS", &settings.display().to_string())
        .replace("HOP", &hop.address.to_string());
    fs::write(path("script"), script).unwrap();
    let config = format!("config = \"{}\"", path("script").display());
    let setup = Setup::relay_to(hop.address).shards(1);
    let mut daemon = setup.with("router", config).prepare(dir);
    daemon.restart();
    let became = |address: &str| {
        let before = hop.mails().len();
        Client::submit(daemon.address, "a@a.example", &[address], "\r\n");
        let mails = hop.wait_for_mails(before + 1);
        mails[before].recipients[0].clone()
    };
    let add = |name: &str, value: &str| {
        let gone = format!("DELETE FROM aliases WHERE name = '{name}'");
        sql(&file, &gone);
        let new = format!("INSERT INTO aliases VALUES ('{name}', '{value}')");
        sql(&file, &new);
    };
    add("joe@x.example", "first@far.example");
    let both = || (became("joe@x.example"), became("ann@x.example"));
    let first = ("first@far.example".into(), "nobody@far.example".into());
    assert_eq!(both(), first);
    add("joe@x.example", "second@far.example");
    add("ann@x.example", "ann@far.example");
    assert_eq!(
        both(),
        first,
        "a value and the absence of one are remembered"
    );
    let output = zmailer(&daemon, &["reload"]);
    assert!(output.status.success(), "{}", said(&output));
    wait_for("the new answers", || {
        (both() == ("second@far.example".into(), "ann@far.example".into())).then_some(())
    });
}
