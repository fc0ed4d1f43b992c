//! Databases of others, each with a real server: run with `--features sqlite,postgres,ldap,redis`. What is
//! not installed is skipped, loudly.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;
use zmailer::control::maps::{Answers, OwnAddresses};
use zmailer::control::resolver::Resolver;
use zmailer::router::relation::{Engine, Question, Reply};

use crate::harness::daemon::{free_address, scratch_dir};
use crate::harness::{installed, skip, wait_for};

/// A server of another package; killed with the value.
struct Server(Child);

impl Server {
    fn start(command: &mut Command, address: SocketAddr) -> Self {
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = Self(command.spawn().unwrap());
        wait_for("the server", || TcpStream::connect(address).ok());
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One who asks, with connections that live as long.
struct Asker {
    runtime: tokio::runtime::Runtime,
    answers: Answers,
    engine: Engine,
    config: PathBuf,
}

impl Asker {
    fn new(engine: Engine, dir: &TempDir, settings: &str) -> Self {
        let config = dir.path().join("settings");
        fs::write(&config, settings).unwrap();
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let nobody: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let resolver = Arc::new(Resolver::new(&[nobody], "mx.test.example"));
        Self {
            runtime: builder.enable_all().build().unwrap(),
            answers: Answers::new(resolver, OwnAddresses::default()),
            engine,
            config,
        }
    }

    /// The value, `-` when missing, `later` when nobody can say.
    fn ask(&self, section: &str, key: &[u8]) -> String {
        let question = Question::Engine {
            engine: self.engine,
            config: self.config.as_os_str().as_bytes().to_vec(),
            section: section.into(),
            key: key.to_vec(),
        };
        match self.runtime.block_on(self.answers.answer(&question)) {
            Reply::Text(value, _) => String::from_utf8(value).unwrap(),
            Reply::Missing(_) => "-".to_owned(),
            Reply::Later(reason) => {
                assert_eq!(reason, b"IO:error");
                "later".to_owned()
            }
            Reply::List(..) => panic!("a list"),
        }
    }

    fn check(&self, rows: &[(&str, &str, &str)]) {
        for (section, key, value) in rows {
            assert_eq!(self.ask(section, key.as_bytes()), *value, "{section} {key}");
        }
    }
}

/// Rows that every database with a query language has to get right: what is asked is never part of it.
const HOSTILE: &[(&str, &str, &str)] = &[
    ("", "x' OR '1'='1", "-"),
    ("", "*", "-"),
    ("", "jo%", "-"),
    ("", "joe)(uid=*", "-"),
    ("", "joe\r\nFLUSHALL\r\n", "-"),
    ("", "$(touch x)", "-"),
    ("", "joe", "joe@host"),
];

const TABLE: &str = "CREATE TABLE aliases (name text, value text);\n\
    INSERT INTO aliases VALUES ('joe', 'joe@host'), ('team', 'a@x'), ('team', 'b@y'), ('none', NULL);\n";

#[cfg(feature = "sqlite")]
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
    let sql = |text: &str| {
        let output = Command::new("sqlite3")
            .arg(&file)
            .arg(text)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    sql(TABLE);
    asker.check(HOSTILE);
    asker.check(&[
        ("", "team", "a@x, b@y"),
        ("", "none", "-"),
        ("COUNT", "x", "4"),
    ]);
    asker.check(&[("bad", "joe", "later"), ("nosuch", "joe", "later")]);
    assert_eq!(asker.ask("", b"\xff"), "-");
    sql("UPDATE aliases SET value = 'new@host' WHERE name = 'joe'");
    assert_eq!(asker.ask("", b"joe"), "new@host");
}

/// PostgreSQL refuses to run as root.
#[cfg(feature = "postgres")]
fn as_postgres(program: &Path) -> Command {
    let root =
        fs::metadata("/proc/self").is_ok_and(|is| std::os::unix::fs::MetadataExt::uid(&is) == 0);
    if !root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(program);
    command
}

#[cfg(feature = "postgres")]
#[test]
fn postgres() {
    let found = fs::read_dir("/usr/lib/postgresql")
        .ok()
        .and_then(|mut versions| versions.next());
    let Some(Ok(version)) = found else {
        return skip("postgresql is not installed");
    };
    let bin = version.path().join("bin");
    let dir = scratch_dir();
    let passable = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(dir.path(), passable).unwrap();
    let data = dir.path().join("data");
    let mut init = as_postgres(&bin.join("initdb"));
    let init = init
        .args(["-A", "trust", "-U", "mail", "--no-sync", "-E", "UTF8", "-D"])
        .arg(&data);
    let output = init.current_dir(dir.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let address = free_address();
    let serve = || {
        let mut command = as_postgres(&bin.join("postgres"));
        let port = address.port().to_string();
        let command = command
            .args(["-F", "-h", "127.0.0.1", "-p", &port, "-k", "", "-D"])
            .arg(&data);
        Server::start(command.current_dir(dir.path()), address)
    };
    let server = serve();
    let url = format!(
        "host=127.0.0.1 port={} user=mail dbname=postgres",
        address.port()
    );
    wait_for("the database", || {
        let mut psql = Command::new(bin.join("psql"));
        let output = psql.arg(&url).arg("-c").arg(TABLE).output().unwrap();
        output.status.success().then_some(())
    });
    let settings = format!(
        "connect {url}\nquery SELECT value FROM aliases WHERE name = $1 ORDER BY value\n\
         query.count SELECT count(*)::text FROM aliases WHERE $1 <> ''\nquery.bad SELECT nothing FROM nowhere\n"
    );
    let asker = Asker::new(Engine::Postgres, &dir, &settings);
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
    // One that went is missed until it is back.
    drop(server);
    wait_for("the port", || {
        TcpStream::connect(address).is_err().then_some(())
    });
    assert_eq!(asker.ask("", b"joe"), "later");
    // A postmaster that was killed leaves a lock which the next one takes over.
    let _server = serve();
    wait_for("an answer", || {
        (asker.ask("", b"joe") == "joe@host").then_some(())
    });
}

#[cfg(feature = "redis")]
#[test]
fn redis() {
    if !installed("redis-server") || !installed("redis-cli") {
        return;
    }
    let dir = scratch_dir();
    let address = free_address();
    let port = address.port().to_string();
    let serve = || {
        let mut command = Command::new("redis-server");
        let command = command.args(["--port", &port, "--bind", "127.0.0.1", "--save", ""]);
        Server::start(command.current_dir(dir.path()), address)
    };
    let fill = || {
        for words in [
            &["SET", "a:joe:x", "joe@host"][..],
            &["HSET", "users", "team", "a@x"],
        ] {
            let output = Command::new("redis-cli")
                .args(["-p", &port])
                .args(words)
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
        }
    };
    let server = serve();
    fill();
    let settings =
        format!("uri redis://{address}/0\nkey a:%s:x\nhash.users users\nkey.wrong users\n");
    let asker = Asker::new(Engine::Redis, &dir, &settings);
    asker.check(HOSTILE);
    asker.check(&[
        ("users", "team", "a@x"),
        ("users", "joe", "-"),
        ("wrong", "x", "later"),
    ]);
    assert_eq!(
        (asker.ask("", b"\xff\0"), asker.ask("nosuch", b"x")),
        ("-".into(), "later".into())
    );
    drop(server);
    assert_eq!(asker.ask("", b"joe"), "later");
    let _server = serve();
    fill();
    wait_for("an answer", || {
        (asker.ask("", b"joe") == "joe@host").then_some(())
    });
}

#[cfg(feature = "ldap")]
const SLAPD: &str = "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
    include /etc/ldap/schema/inetorgperson.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n\
    database mdb\nsuffix \"o=x\"\nrootdn \"cn=admin,o=x\"\nrootpw secret\n";

#[cfg(feature = "ldap")]
const ENTRIES: &str = "dn: o=x\nobjectClass: organization\no: x\n\n\
    dn: uid=joe,o=x\nobjectClass: inetOrgPerson\nuid: joe\ncn: Joe\nsn: X\nmail: joe@host\n\n\
    dn: uid=team,o=x\nobjectClass: inetOrgPerson\nuid: team\ncn: T\nsn: T\nmail: a@x\nmail: b@y\n\n\
    dn: uid=none,o=x\nobjectClass: inetOrgPerson\nuid: none\ncn: N\nsn: N\n\n";

#[cfg(feature = "ldap")]
#[test]
fn ldap() {
    if !installed("slapd") || !installed("slapadd") {
        return;
    }
    let dir = scratch_dir();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let conf = dir.path().join("slapd.conf");
    let files = format!(
        "directory {}\npidfile {}/pid\n",
        data.display(),
        dir.path().display()
    );
    fs::write(&conf, format!("{SLAPD}{files}")).unwrap();
    let mut add = Command::new("/usr/sbin/slapadd");
    let mut add = add
        .arg("-f")
        .arg(&conf)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    add.stdin
        .take()
        .unwrap()
        .write_all(ENTRIES.as_bytes())
        .unwrap();
    let output = add.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let address = free_address();
    let serve = || {
        let mut command = Command::new("/usr/sbin/slapd");
        let command = command
            .args(["-d", "0", "-h", &format!("ldap://{address}"), "-f"])
            .arg(&conf);
        Server::start(command, address)
    };
    let server = serve();
    let settings = format!(
        "# as ZMailer has it\nbase\to=x\nldaphost 127.0.0.1\nldapport {}\nprotocol 3\n\
         binddn cn=admin,o=x\npasswd secret\nfilter (&(objectClass=person)(uid=%s))\nattr mail\nscope sub\n",
        address.port()
    );
    let asker = Asker::new(Engine::Ldap, &dir, &settings);
    asker.check(HOSTILE);
    asker.check(&[
        ("", "team", "a@x, b@y"),
        ("", "none", "-"),
        ("", "JOE", "joe@host"),
    ]);
    assert_eq!(asker.ask("", b"\xff"), "-");
    // The file counts as it is at the question.
    fs::write(
        &asker.config,
        settings.replace("passwd secret", "passwd wrong"),
    )
    .unwrap();
    assert_eq!(asker.ask("", b"joe"), "later");
    fs::write(&asker.config, format!("{settings}start_tls yes\n")).unwrap();
    assert_eq!(asker.ask("", b"joe"), "later");
    fs::write(
        &asker.config,
        settings.replace("base\to=x", "base o=nowhere"),
    )
    .unwrap();
    assert_eq!(asker.ask("", b"joe"), "-");
    fs::write(&asker.config, settings).unwrap();
    assert_eq!(asker.ask("", b"joe"), "joe@host");
    drop(server);
    assert_eq!(asker.ask("", b"joe"), "later");
    let _server = serve();
    wait_for("an answer", || {
        (asker.ask("", b"joe") == "joe@host").then_some(())
    });
}

/// A database that takes the connection and says nothing must not hold mail for longer than its limit.
#[cfg(feature = "redis")]
#[test]
fn silence_ends() {
    let dir = scratch_dir();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let asker = Asker::new(
        Engine::Redis,
        &dir,
        &format!("timeout 1\nuri redis://{address}\nkey %s\n"),
    );
    assert_eq!(asker.ask("", b"joe"), "later");
}
