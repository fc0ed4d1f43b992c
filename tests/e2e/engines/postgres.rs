//! PostgreSQL, with a server of its own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use zmailer::router::relation::Engine;

use super::tls::{Certificates, PASSWORD};
use super::{Asker, HOSTILE, Server, TABLE, run, secret};
use crate::harness::daemon::{free_address, scratch_dir};
use crate::harness::{installed, skip, wait_for};

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &Path) -> Command {
    let root = fs::metadata("/proc/self").is_ok_and(|is| is.uid() == 0);
    if !root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(program);
    command
}

/// Where the server's programs are.
fn programs() -> Option<PathBuf> {
    let found = fs::read_dir("/usr/lib/postgresql").ok();
    let Some(Ok(version)) = found.and_then(|mut versions| versions.next()) else {
        skip("postgresql is not installed");
        return None;
    };
    Some(version.path().join("bin"))
}

struct Site {
    bin: PathBuf,
    dir: TempDir,
    port: u16,
    /// Further words of the server.
    words: Vec<String>,
}

impl Site {
    fn new(bin: PathBuf) -> Self {
        let dir = scratch_dir();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let site = Self {
            bin,
            dir,
            port: free_address().port(),
            words: Vec::new(),
        };
        let mut init = as_postgres(&site.bin.join("initdb"));
        let words = "-A scram-sha-256 -U mail --no-sync -E UTF8 --pwfile password -D data";
        let init = init.args(words.split(' ')).current_dir(site.dir.path());
        fs::write(site.dir.path().join("password"), PASSWORD).unwrap();
        run(init, "");
        site
    }

    fn serve(&self) -> Server {
        let mut command = as_postgres(&self.bin.join("postgres"));
        let port = self.port.to_string();
        let command = command
            .args(["-F", "-h", "127.0.0.1", "-p", &port, "-k", ""])
            .args(["-D", "data"])
            .args(&self.words);
        let address = ([127, 0, 0, 1], self.port).into();
        Server::start(command.current_dir(self.dir.path()), address)
    }

    /// Where the database is; `localhost` is in certificates.
    fn place(&self) -> String {
        let port = self.port;
        format!("host=localhost port={port} user=mail dbname=postgres")
    }

    fn fill(&self) {
        wait_for("the database", || {
            let mut psql = Command::new(self.bin.join("psql"));
            let psql = psql.arg(self.place()).arg("-c").arg(TABLE);
            let output = psql.env("PGPASSWORD", PASSWORD).output().unwrap();
            output.status.success().then_some(())
        });
    }
}

const QUERY: &str = "query SELECT value FROM aliases WHERE name = $1 ORDER BY value\n";

#[test]
fn postgres() {
    let Some(bin) = programs() else { return };
    let site = Site::new(bin);
    let server = site.serve();
    site.fill();
    let place = site.place();
    let settings = format!(
        "connect {place} password={PASSWORD}\n{QUERY}\
         query.count SELECT count(*)::text FROM aliases WHERE $1 <> ''\nquery.bad SELECT nothing FROM nowhere\n"
    );
    let asker = Asker::new(Engine::Postgres, &site.dir, &settings);
    asker.check(HOSTILE);
    asker.check(&[
        ("", "team", "a@x, b@y"),
        ("", "none", "-"),
        ("count", "x", "4"),
        ("bad", "x", "later"),
    ]);
    assert_eq!(
        (asker.ask("", b"\xff"), asker.ask("", b"a\0b")),
        ("-".into(), "-".into())
    );
    asker.set(&settings.replace(&format!("={PASSWORD}"), "=wrong"));
    asker.check(&[("", "joe", "later")]);
    // A server without certificates.
    asker.set(&settings.replace("connect ", "connect sslmode=require "));
    asker.check(&[("", "joe", "later")]);
    assert!(asker.log.text().contains("TLS"), "{}", asker.log.text());
    asker.set(&settings);
    // A postmaster that was killed leaves a lock which the next one takes over.
    asker.check_outage(server, || site.serve());
    assert!(!asker.log.text().contains(PASSWORD));
}

#[test]
fn postgres_encrypted() {
    let Some(bin) = programs().filter(|_| installed("openssl")) else {
        return;
    };
    let mut site = Site::new(bin);
    let certificates = Certificates::new(site.dir.path(), as_postgres);
    for (word, name) in [
        ("ssl_cert_file", "server.pem"),
        ("ssl_key_file", "server.key"),
    ] {
        let path = certificates.path(name);
        site.words.push(format!("--{word}={path}"));
    }
    site.words.push("--ssl=on".to_owned());
    // Only what is encrypted gets in.
    let rules = site.dir.path().join("data/pg_hba.conf");
    fs::write(rules, "hostssl all all all scram-sha-256\n").unwrap();
    let server = site.serve();
    site.fill();
    let file = secret(site.dir.path(), PASSWORD);
    let place = site.place();
    let settings = format!("connect {place}\npasswd_file {}\n{QUERY}", file.display());
    let asker = Asker::new(Engine::Postgres, &site.dir, &settings);
    asker.check(&[("", "joe", "later")]);
    let settings = settings.replace("connect ", "connect sslmode=require ");
    certificates.check(&asker, &settings);
    asker.check_outage(server, || site.serve());
}
