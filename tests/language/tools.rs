//! `zmailer route`, `zmailer check`, `zmailer zmsh`: what they print and how they end.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::daemon::{binary, scratch_dir};
use crate::harness::installed;

/// Settings, aliases and routes of a small site; `more` goes to the end of `[router]`.
fn site(more: &str) -> tempfile::TempDir {
    let dir = scratch_dir();
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let text = format!(
        "[daemon]\nhostname = \"mx.example.org\"\nuser = {:?}\n[paths]\npostoffice = {:?}\n[transport.mailbox]\npath = \"/var/mail/{{user}}\"\n[router]\n\
         default_route = \"smtp!relay.example:25\"\nlocal_domains = [\"example.org\"]\n{more}\n",
        user.trim(),
        dir.path().join("postoffice")
    );
    fs::write(dir.path().join("zmailer.toml"), text).unwrap();
    fs::write(
        dir.path().join("aliases"),
        "staff: root, ann@far.example\nlost: nobodyatall\n",
    )
    .unwrap();
    fs::write(
        dir.path().join("routes"),
        ".hop.example smtp!relay.hop\nlater.example hold!soon\n",
    )
    .unwrap();
    dir
}

/// Exit code, standard output, standard error.
fn zmailer(dir: &Path, words: &[&str], input: &str) -> (i32, String, String) {
    let mut child = binary()
        .args(words)
        .env("ZMAILER_CONFIG", dir.join("zmailer.toml"))
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

#[test]
fn route_tells_where_an_address_goes() {
    let dir = site("");
    let (code, out, err) = zmailer(
        dir.path(),
        &["route", "--tsv", "a@x.hop.example", "b@elsewhere.example"],
        "",
    );
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (
            0,
            "a@x.hop.example\tsmtp\trelay.hop\ta@x.hop.example\n\
             b@elsewhere.example\tsmtp\trelay.example:25\tb@elsewhere.example\n",
            ""
        )
    );
    // One a line, the same.
    let lines = "a@x.hop.example\r\n\nb@elsewhere.example";
    assert_eq!(zmailer(dir.path(), &["route", "--tsv"], lines).1, out);
    // An alias has a line for each result.
    let (code, out, _) = zmailer(dir.path(), &["route", "--tsv", "staff@example.org"], "");
    assert_eq!((code, out.lines().count()), (0, 2), "{out}");
    assert!(out.contains("staff@example.org\tsmtp\trelay.example:25\tann@far.example\n"));
}

#[test]
fn route_says_why_a_database_does_not_answer() {
    let dir = site("");
    let aliases = dir.path().join("aliases");
    fs::write(&aliases, "staff ann@far.example\n").unwrap();
    let (code, out, err) = zmailer(dir.path(), &["route", "--tsv", "staff@example.org"], "");
    assert_eq!(code, 75, "{out}{err}");
    assert!(out.contains("\thold\t"), "{out}");
    let told = format!("{}:1:6: error: there is no colon", aliases.display());
    assert!(err.contains(&told), "{err}");
}

#[test]
fn the_exit_code_of_route_is_the_worst_result() {
    let dir = site("");
    for (addresses, wanted) in [
        (&["a@x.hop.example"][..], 0),
        (&["nobodyatall@example.org"], 67),
        (&["a@later.example"], 75),
        (
            &["a@later.example", "lost@example.org", "a@x.hop.example"],
            67,
        ),
    ] {
        let mut words = vec!["route"];
        words.extend(addresses);
        let (code, out, err) = zmailer(dir.path(), &words, "");
        assert_eq!(code, wanted, "{addresses:?}: {out}{err}");
    }
}

#[test]
fn hostile_addresses_stay_in_their_fields() {
    let dir = site("");
    let address = "a\tb$(touch owned)`touch owned`@x.hop.example";
    let (_, out, _) = zmailer(dir.path(), &["route", "--tsv", address], "");
    assert_eq!(out.lines().count(), 1, "{out}");
    assert_eq!(out.trim_end().split('\t').count(), 4, "{out}");
    assert!(!dir.path().join("owned").exists());
}

#[test]
fn explain_tells_functions_labels_lookups_and_attributes() {
    let dir = site("");
    let words = [
        "route",
        "--explain",
        "--from",
        "ann@far.example",
        "staff@example.org",
    ];
    let (code, out, err) = zmailer(dir.path(), &words, "");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for part in [
        "staff@example.org\n  router ",
        "route_address ",
        "router.cf:",
        " fits '",
        "aliases(staff) has 'root, ann@far.example'",
        "account root: root, user 0, home",
        "  -> smtp  relay.example:25  ann@far.example\n",
        "       privilege ",
        "       sender ann@far.example",
    ] {
        assert!(out.contains(part), "{part} is missing in\n{out}");
    }
    // Results of functions stand under their calls, one level deeper.
    let depth = |line: &str| line.len() - line.trim_start().len();
    let entered = out
        .lines()
        .find(|line| line.contains(": route_address "))
        .unwrap();
    let inside = out
        .lines()
        .skip_while(|line| *line != entered)
        .nth(1)
        .unwrap();
    assert!(depth(inside) > depth(entered), "{out}");
}

#[test]
fn diff_shows_what_another_script_changes() {
    let dir = site("");
    let script = |name: &str, host: &str| {
        let text = format!(
            "router (address, A) {{\n\tcase \"$address\" in\n\tbad*)\treturns (((error nosuchuser \"$address\" $A))) ;;\n\
             \t*@a)\treturns (((smtp {host} \"$address\" $A))) ;;\n\tesac\n\treturns (((smtp other \"$address\" $A)))\n}}\n"
        );
        fs::write(dir.path().join(name), text).unwrap();
    };
    script("old.cf", "one");
    script("new.cf", "two");
    let addresses = "x@a\nx@b\nbad@a\ny@a\n";
    let (code, out, _) = zmailer(
        dir.path(),
        &["route", "--diff", "old.cf", "new.cf"],
        addresses,
    );
    let attributes = "privilege=65534  type=recipient";
    let wanted = format!(
        "x@a\n  - smtp  one  x@a  {attributes}\n  + smtp  two  x@a  {attributes}\n\
         y@a\n  - smtp  one  y@a  {attributes}\n  + smtp  two  y@a  {attributes}\n2 of 4 addresses differ\n"
    );
    assert_eq!((code, out), (1, wanted));
    let same = zmailer(
        dir.path(),
        &["route", "--diff", "new.cf", "new.cf"],
        addresses,
    );
    assert_eq!((same.0, same.1.as_str()), (0, "0 of 4 addresses differ\n"));
    let stock = zmailer(
        dir.path(),
        &["route", "--diff", "stock", "stock", "x@hop.example"],
        "",
    );
    assert_eq!(stock.0, 0, "{stock:?}");
}

#[test]
fn check_reports_all_errors_and_warnings_of_scripts() {
    let dir = site("config = \"site.cf\"");
    let script = dir.path().join("site.cf");
    let other = dir.path().join("other.cf");
    fs::write(
        &script,
        format!(
            "f () {{\n\techo >\n}}\n. {}\nfor 1 in a; do :; done\n",
            other.display()
        ),
    )
    .unwrap();
    let (code, out, err) = zmailer(dir.path(), &["check"], "");
    assert_eq!((code, out.as_str()), (78, ""));
    assert!(
        err.contains("site.cf:2:8: a file name is expected"),
        "{err}"
    );
    assert!(
        err.contains("site.cf:5:5: a variable name is expected"),
        "{err}"
    );

    // What a script runs belongs to it.
    fs::write(
        &script,
        format!(
            ". {}\nrouter (address, A) {{\n\treturns (((smtp x \"$address\" $A)))\n\techo\n}}\n",
            other.display()
        ),
    )
    .unwrap();
    fs::write(&other, "if\n").unwrap();
    let (code, _, err) = zmailer(dir.path(), &["check"], "");
    assert_eq!(code, 78);
    assert_eq!(err.matches("other.cf:").count(), 1, "{err}");

    fs::write(&other, "g () { gg }\n").unwrap();
    let (code, out, err) = zmailer(dir.path(), &["check"], "");
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("configuration is good"), "{out}");
    assert!(
        err.contains("site.cf:4:2: warning: this is never reached: line 3"),
        "{err}"
    );
    assert!(
        err.contains("other.cf:1:8: warning: there is no function, relation or built-in 'gg'"),
        "{err}"
    );

    // Programs may have any name.
    let text = fs::read_to_string(dir.path().join("zmailer.toml")).unwrap();
    fs::write(dir.path().join("zmailer.toml"), text + "programs = true\n").unwrap();
    let (_, _, err) = zmailer(dir.path(), &["check"], "");
    assert!(!err.contains("'gg'"), "{err}");

    for (text, part) in [
        ("x=1\n", "defines no function router"),
        ("while true; do :; done\n", "more than"),
    ] {
        fs::write(&script, text).unwrap();
        let (code, _, err) = zmailer(dir.path(), &["check"], "");
        assert_eq!(code, 78);
        assert!(err.contains(part), "{err}");
    }
}

#[test]
fn the_shipped_scripts_are_good() {
    let dir = site("");
    fs::write(
        dir.path().join("site.cf"),
        "intercept (address) { return 1; echo }\n",
    )
    .unwrap();
    let (code, out, err) = zmailer(dir.path(), &["check"], "");
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("routing     the shipped scripts"), "{out}");
    // Only what the administrator wrote is judged.
    assert_eq!(err.matches("warning:").count(), 1, "{err}");
    assert!(
        err.contains("site.cf:1:33: warning: this is never reached"),
        "{err}"
    );
}

#[test]
fn programs_run_in_routing_scripts_when_they_are_allowed() {
    for (setting, wanted) in [("", 75), ("programs = true", 0)] {
        let dir = site(&format!("config = \"site.cf\"\n{setting}"));
        let text = "router (address, A) {\n\tlocal host\n\thost=$(/bin/echo relay) || return 1\n\treturns (((smtp \"$host\" \"$address\" $A)))\n}\n";
        fs::write(dir.path().join("site.cf"), text).unwrap();
        let (code, out, err) = zmailer(dir.path(), &["route", "--tsv", "a@b"], "");
        assert_eq!(code, wanted, "{out}{err}");
        assert_eq!(err.contains("router.programs"), wanted != 0, "{err}");
    }
}

#[test]
fn a_runaway_script_holds_the_address() {
    let dir = site("config = \"site.cf\"\nsteps_max = 100000");
    fs::write(
        dir.path().join("site.cf"),
        "router (address, A) { while true; do :; done }\n",
    )
    .unwrap();
    let (code, out, _) = zmailer(dir.path(), &["route", "--tsv", "a@b"], "");
    assert_eq!(
        (code, out.as_str()),
        (75, "a@b\thold\tstopped: more than 100000 steps\ta@b\n")
    );
}

#[test]
fn scripts_can_use_the_routing_configuration() {
    let dir = site("");
    let script = "router a@x.hop.example default_attributes\necho $# $1\nexit 3\n";
    fs::write(dir.path().join("s"), script).unwrap();
    let (code, out, err) = zmailer(dir.path(), &["zmsh", "--routing", "s", "one"], "");
    assert_eq!(code, 3, "{err}");
    assert_eq!(
        out,
        "(((smtp relay.hop a@x.hop.example default_attributes)))\n1 one\n"
    );
}

/// On a terminal: lines that belong together, an error, Ctrl-D and its trap, the history.
#[test]
fn commands_can_be_typed() {
    if !installed("script") {
        return;
    }
    let dir = scratch_dir();
    let typed = "x=1\nif [ \"$x\" ]; then\necho \"x is $x\"\nfi\n)\nPS1 () { echo -n \"[$x] \" }\ntrap 'echo bye' 0\nexit 5\n";
    let program = format!("{} zmsh", env!("CARGO_BIN_EXE_zmailer"));
    let mut child = Command::new("script")
        .args(["-qec", &program, "/dev/null"])
        .env("HOME", dir.path())
        .env("TERM", "dumb")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(typed.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(5), "{text}");
    for part in [
        "> ",
        "x is 1",
        "typed:1:1: ')' closes nothing",
        "[1] ",
        "bye",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let history = fs::read_to_string(dir.path().join(".zmsh_history")).unwrap();
    assert!(
        history.contains("x=1") && history.contains("echo \"x is"),
        "{history}"
    );
}
