//! `makedb`, `newaliases`, `zmailer newdb`: what they write, say, and leave alone.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;
use zmailer::router::relation::{Compiled, Map};

use crate::harness::daemon::{binary, scratch_dir};
use crate::harness::{installed, skip};

/// Status, standard output, standard error.
fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

/// Runs a program in a directory that is $MAILVAR too.
fn run_in(dir: &Path, mut command: Command) -> (i32, String, String) {
    let command = command
        .env("MAILVAR", dir)
        .env_remove("DBTYPE")
        .current_dir(dir);
    said(&command.output().unwrap())
}

fn zmailer(mailvar: &Path, words: &[&str]) -> (i32, String, String) {
    let mut command = binary();
    command.args(words);
    run_in(mailvar, command)
}

/// Runs a program to its end with this input.
fn fed(command: &mut Command, input: &str) -> (i32, String, String) {
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    said(&child.wait_with_output().unwrap())
}

/// A directory with this file of aliases.
fn with_aliases(text: &str) -> (TempDir, PathBuf) {
    let dir = scratch_dir();
    let file = dir.path().join("aliases");
    fs::write(&file, text).unwrap();
    (dir, file)
}

fn value(map: &Path, key: &str) -> Option<String> {
    let map = Compiled::new(fs::read(map).unwrap()).unwrap();
    let value = map.get(key.as_bytes())?.into_owned();
    Some(String::from_utf8(value).unwrap())
}

const ALIASES: &str = "postmaster: root\nTeam: bob@far.example.com,\n\tcarol@far.example.com\n";

#[test]
fn aliases_are_compiled() {
    let (dir, _) = with_aliases(ALIASES);
    let map = dir.path().join("aliases.cdb");
    let good = (
        0,
        "2 aliases, longest 42 bytes, 46 bytes total\n".to_owned(),
        String::new(),
    );
    assert_eq!(zmailer(dir.path(), &["newaliases"]), good);
    let team = "bob@far.example.com, carol@far.example.com";
    assert_eq!(value(&map, "team").as_deref(), Some(team));
    let silent = (0, String::new(), String::new());
    assert_eq!(zmailer(dir.path(), &["newaliases", "-s"]), silent);
    // A second file stands behind the first; what both have is told.
    fs::write(dir.path().join("aliases.private"), "joe: joe@x\nTEAM: y\n").unwrap();
    let (code, out, err) = zmailer(dir.path(), &["newaliases"]);
    assert_eq!(
        (code, out.as_str()),
        (0, "3 aliases, longest 42 bytes, 51 bytes total\n")
    );
    let told = "aliases.private:2:1: warning: team is in line 2 of the source before already";
    assert!(err.contains(told), "{err}");
    assert_eq!(value(&map, "joe").as_deref(), Some("joe@x"));
    assert_eq!(value(&map, "team").as_deref(), Some(team));
}

#[test]
fn aliases_are_looked_for_where_the_daemon_does() {
    let dir = scratch_dir();
    let (elsewhere, files) = (dir.path().join("elsewhere"), dir.path().join("files"));
    for directory in [&elsewhere, &files] {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join("aliases"), ALIASES).unwrap();
    }
    let config = dir.path().join("zmailer.toml");
    let named = ["newaliases", "-s", "--config", config.to_str().unwrap()];
    fs::write(&config, "[router]\ndirectory = \"files\"\n").unwrap();
    let silent = (0, String::new(), String::new());
    assert_eq!(zmailer(&elsewhere, &named), silent);
    assert!(files.join("aliases.cdb").exists());
    assert!(!elsewhere.join("aliases.cdb").exists());
    fs::write(&config, "[router]\ndirectoy = \"files\"\n").unwrap();
    let (code, _, err) = zmailer(&elsewhere, &named);
    assert_eq!(code, 78);
    assert!(err.contains("zmailer.toml:2: router.directoy"), "{err}");
}

#[test]
fn the_tools_have_names_of_their_own() {
    let dir = scratch_dir();
    fs::create_dir(dir.path().join("db")).unwrap();
    fs::write(dir.path().join("db/aliases"), ALIASES).unwrap();
    let map = dir.path().join("db/aliases.cdb");
    let calls: [(&str, &[&str]); 3] = [
        ("newaliases", &[]),
        ("sendmail", &["-bi"]),
        ("makedb", &["-al", "cdb", "db/aliases", "db/aliases"]),
    ];
    for (name, words) in calls {
        let program = dir.path().join(name);
        symlink(binary().get_program(), &program).unwrap();
        let mut command = Command::new(&program);
        command.args(words);
        let (code, out, err) = run_in(dir.path(), command);
        assert_eq!((code, err.as_str()), (0, ""), "{name}");
        assert!(out.starts_with("2 aliases, "), "{name}: {out}");
        assert_eq!(value(&map, "postmaster").as_deref(), Some("root"), "{name}");
        fs::remove_file(&map).unwrap();
    }
}

/// ZMailer's newaliases gave 0 whatever happened, so nobody saw that the aliases were not those of the file.
#[test]
fn an_error_is_named_and_leaves_the_old_map() {
    let (dir, file) = with_aliases(ALIASES);
    assert_eq!(zmailer(dir.path(), &["newaliases"]).0, 0);
    let map = dir.path().join("aliases.cdb");
    let old = fs::read(&map).unwrap();
    fs::write(&file, "good: a\nbad line\nb: c\n  d\n").unwrap();
    let (code, out, err) = zmailer(dir.path(), &["newaliases"]);
    assert_eq!((code, out.as_str()), (65, ""));
    assert!(
        err.contains("aliases:2:4: error: there is no colon"),
        "{err}"
    );
    assert!(err.contains("aliases:4:1: error: the line before"), "{err}");
    assert_eq!(fs::read(&map).unwrap(), old);
    let rows: [(&[&str], i32, &str); 7] = [
        (&["newaliases", "nosuch"], 66, "nosuch: No such file"),
        (
            &["makedb", "cdb", "/nosuch/dir/map", "open"],
            65,
            "nothing was compiled",
        ),
        (
            &["makedb", "-s", "cdb", "/nosuch/dir/map", "/dev/null"],
            73,
            "/nosuch/dir/map.cdb",
        ),
        (&["makedb", "nosuch", "map"], 64, "type nosuch"),
        (&["makedb", "-lu", "cdb", "map"], 64, "cannot be used"),
        (&["makedb", "cdb"], 64, "required"),
        (&["newdb"], 66, "dbases.conf"),
    ];
    fs::write(dir.path().join("open"), "\"open x\n").unwrap();
    for (words, wanted, text) in rows {
        let (code, _, err) = zmailer(dir.path(), words);
        assert_eq!(code, wanted, "{words:?}: {err}");
        assert!(err.contains(text), "{words:?}: {err}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}

/// What aliases name runs with the rights of the map's owner, so root may not own what joe wrote.
#[test]
fn a_map_belongs_to_who_owns_its_source() {
    let (dir, file) = with_aliases(ALIASES);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    if chown(&file, Some(2001), Some(2002)).is_err() {
        return skip("giving files away needs root");
    }
    assert_eq!(zmailer(dir.path(), &["newaliases"]).0, 0);
    let is = fs::metadata(dir.path().join("aliases.cdb")).unwrap();
    assert_eq!((is.uid(), is.gid(), is.mode() & 0o777), (2001, 2002, 0o640));
    fs::write(dir.path().join("aliases.private"), "x: y\n").unwrap();
    let (code, _, err) = zmailer(dir.path(), &["newaliases"]);
    assert_eq!(code, 77, "{err}");
    assert!(err.contains("belongs to somebody else"), "{err}");
}

#[test]
fn keyed_sources_and_other_readers() {
    let dir = scratch_dir();
    let base = dir.path().join("routes");
    let text = "Example.org smtp!gw one\n.org error!no\nexample.ORG two\nalone\n";
    let mut makedb = binary();
    let (code, out, _) = fed(makedb.args(["makedb", "-Al", "btree"]).arg(&base), text);
    assert_eq!(
        (code, out.as_str()),
        (0, "3 entries, longest 16 bytes, 24 bytes total\n")
    );
    let map = dir.path().join("routes.db");
    assert_eq!(
        value(&map, "example.org").as_deref(),
        Some("smtp!gw one, two")
    );
    assert_eq!(value(&map, "alone").as_deref(), Some(""));
    if !installed("cdb") {
        return;
    }
    let output = Command::new("cdb")
        .arg("-q")
        .arg(&map)
        .arg(".org")
        .output()
        .unwrap();
    assert_eq!(said(&output).1, "error!no");
    let theirs = dir.path().join("theirs.cdb");
    let mut cdb = Command::new("cdb");
    let (code, ..) = fed(cdb.args(["-c", "-m"]).arg(&theirs), "k1 v1\nk2 v2 x\n");
    assert_eq!(code, 0);
    assert_eq!(value(&theirs, "k2").as_deref(), Some("v2 x"));
}

const DBASES: &str = "#| comment\n\
    aliases $DBTYPE 0:0:600 -la $MAILVAR/db/aliases -lm\n\
    aliases NONE - - - -\n\
    routesdb $DBTYPE - -l $MAILVAR/db/routes -lm%:d pathalias\n\
    mem incore - - $MAILVAR/db/words -l\n\
    thishost bind,mxlocal - - - -ld pathalias\n";

#[test]
fn databases_of_a_file_are_compiled_and_defined() {
    let dir = scratch_dir();
    let db = dir.path().join("db");
    fs::create_dir(&db).unwrap();
    fs::write(db.join("dbases.conf"), DBASES).unwrap();
    fs::write(db.join("aliases"), ALIASES).unwrap();
    fs::write(db.join("routes"), "a.example smtp!b\n").unwrap();
    fs::write(db.join("words"), "it's $(rm -rf x)\n").unwrap();
    let (code, out, err) = zmailer(dir.path(), &["newdb"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.contains("db/aliases.cdb: 2 aliases, ") && out.contains("zmailer reload"),
        "{out}"
    );
    assert_eq!(
        value(&db.join("routes.cdb"), "a.example").as_deref(),
        Some("smtp!b")
    );
    assert_eq!(
        fs::metadata(db.join("aliases.cdb")).unwrap().mode() & 0o777,
        0o600
    );
    let script = fs::read_to_string(db.join("routesdb.zmsh")).unwrap();
    let line = "relation -lm%:d pathalias -t $DBTYPE -f \"$MAILVAR/db/routes$DBEXT\" routesdb_1\n";
    assert!(script.contains(line), "{script}");
    let script = fs::read_to_string(db.join("mem.zmsh")).unwrap();
    assert!(
        script.contains("db add mem_1 'it'\\''s' '$(rm -rf x)'\n"),
        "{script}"
    );
    // The same once more changes no definition.
    assert!(!zmailer(dir.path(), &["newdb"]).1.contains("reload"));
    // An error in one source leaves that relation alone and no other.
    fs::write(db.join("aliases"), "broken\n").unwrap();
    fs::write(db.join("routes"), "a.example smtp!c\n").unwrap();
    let (code, _, err) = zmailer(dir.path(), &["newdb"]);
    assert_eq!(code, 65, "{err}");
    assert!(
        err.contains("aliases:1:7: error: ") && err.contains("relation aliases stays"),
        "{err}"
    );
    assert_eq!(
        value(&db.join("aliases.cdb"), "postmaster").as_deref(),
        Some("root")
    );
    assert_eq!(
        value(&db.join("routes.cdb"), "a.example").as_deref(),
        Some("smtp!c")
    );
    assert_eq!(
        zmailer(dir.path(), &["newdb", "-s", "routesdb"]),
        (0, String::new(), String::new())
    );
    assert_eq!(zmailer(dir.path(), &["newdb", "nosuch"]).0, 64);
    fs::write(db.join("dbases.conf"), "a nosuch - - - -\n").unwrap();
    let (code, _, err) = zmailer(dir.path(), &["newdb"]);
    assert_eq!(code, 78);
    assert!(
        err.contains("dbases.conf:1:3: error: relation: type nosuch"),
        "{err}"
    );
}

#[test]
fn a_reader_never_sees_half_a_map() {
    let text: String = (0..20_000)
        .map(|at| format!("user{at}: mailbox{at}@example.org\n"))
        .collect();
    let (dir, _) = with_aliases(&text);
    assert_eq!(zmailer(dir.path(), &["newaliases", "-s"]).0, 0);
    let map = dir.path().join("aliases.cdb");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(
                    value(&map, "user19999").unwrap(),
                    "mailbox19999@example.org"
                );
                reads += 1;
            }
            reads
        });
        for _ in 0..20 {
            assert_eq!(zmailer(dir.path(), &["newaliases", "-s"]).0, 0);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}
