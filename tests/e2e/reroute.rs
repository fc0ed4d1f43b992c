//! Mail that waits, and a router that says something else than before: `queue reroute`, holds, and what was set aside.

use std::fs;

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, Setup, free_address, scratch_dir};
use crate::harness::hop::{Hop, Mail};
use crate::harness::sendmail::{said, zmailer};
use crate::harness::wait_for;

const LETTER: &str = "From: a@a.example\r\nSubject: hello\r\n\r\ntext\r\n";

const HOUR: &str = "[[scheduler.rule]]\nmatch = \"*\"\nretry = [\"1h\"]\n";

/// A daemon with these files beside its configuration, whose default next hop is down.
fn with_files(files: &[(&str, &str)], router: &[&str], rules: &str) -> Daemon {
    with_shards(2, files, router, rules)
}

fn with_shards(shards: usize, files: &[(&str, &str)], router: &[&str], rules: &str) -> Daemon {
    let dir = scratch_dir();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let mut setup = Setup::relay_to(free_address()).shards(shards);
    for line in router {
        setup = setup.with("router", *line);
    }
    rules.clone_into(&mut setup.tail);
    let mut daemon = setup.prepare(dir);
    daemon.restart();
    daemon
}

fn write(daemon: &Daemon, name: &str, text: &str) {
    fs::write(daemon.dir.path().join(name), text).unwrap();
}

fn reload(daemon: &Daemon) {
    let output = zmailer(daemon, &["reload"]);
    assert!(output.status.success(), "{}", said(&output));
}

fn queue(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = zmailer(daemon, &[&["queue"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    said(&output)
}

/// New routes; waits until a dry run of `filter` says what they change.
fn route_anew(daemon: &Daemon, routes: &str, filter: &str, expected: &str) -> String {
    write(daemon, "routes", routes);
    reload(daemon);
    wait_for(expected, || {
        let text = queue(daemon, &["reroute", "--dry-run", "--where", filter]);
        text.contains(expected).then_some(text)
    })
}

fn wait_for_deferred(daemon: &Daemon, count: usize) {
    let expected = format!("{count} ");
    wait_for("the failed attempts", || {
        queue(daemon, &["count", "--where", "state = deferred"])
            .starts_with(&expected)
            .then_some(())
    });
}

fn got(mails: &[Mail]) -> Vec<String> {
    let mut all: Vec<String> = mails
        .iter()
        .flat_map(|mail| mail.recipients.clone())
        .collect();
    all.sort();
    all
}

fn conf(text: &str) -> u64 {
    let number = text.split("conf=").nth(1).expect("a configuration");
    let number = number.split_whitespace().next().unwrap_or_default();
    number.parse().expect("a number")
}

#[test]
fn waiting_mail_goes_the_new_way_and_the_rest_stays() {
    let hop = Hop::start();
    let mut daemon = with_files(&[("routes", "")], &[], HOUR);
    let submit = |to: &str| Client::submit(daemon.address, "a@a.example", &[to], LETTER);
    let id = submit("u@one.example");
    submit("u@two.example");
    wait_for_deferred(&daemon, 2);
    let before = conf(&queue(&daemon, &["list"]));
    let text = queue(&daemon, &["reroute", "--dry-run", "--where", ""]);
    assert!(
        text.starts_with("reroute would change 0 of 2 recipients of 2 messages"),
        "{text}"
    );

    let routes = format!("one.example smtp!{}\n", hop.address);
    let text = route_anew(&daemon, &routes, "", "would change 1 of 2 recipients");
    let to = format!(" -> smtp/{} <u@one.example>\n", hop.address);
    assert!(
        text.starts_with(&format!("{id} <u@one.example> smtp/")),
        "{text}"
    );
    assert!(
        text.contains(&to) && !text.contains("two.example"),
        "{text}"
    );
    assert!(hop.mails().is_empty(), "nothing has been done");
    let text = queue(&daemon, &["reroute", "--where", "domain = two.example"]);
    assert!(
        text.starts_with("reroute: 0 of 1 recipients of 1 messages; 1 stay"),
        "{text}"
    );
    let text = queue(&daemon, &["reroute", "--where", ""]);
    assert!(
        text.starts_with("reroute: 1 of 2 recipients of 2 messages; 1 stay"),
        "{text}"
    );
    assert_eq!(got(&hop.wait_for_mails(1)), ["u@one.example"]);

    wait_for("one to be left", || {
        let text = queue(&daemon, &["list"]);
        let left = !text.contains("one.example");
        left.then(|| assert!(text.contains("deferred, 1 attempt, next in "), "{text}"))
    });
    let after = conf(&queue(&daemon, &["list"]));
    assert!(after > before, "{after} routed what was routed by {before}");
    // The log is written every second.
    let by = format!("conf={after}");
    let life = wait_for("the delivery in the log", || {
        let life = said(&zmailer(&daemon, &["trace", &id]));
        let mut lines = life.lines();
        let delivered = lines.any(|line| line.contains("event=delivered") && line.contains(&by));
        delivered.then_some(life)
    });
    let routed = format!("event=routed id={id}");
    assert!(life.contains(&routed), "{life}");
    daemon.stop();
}

const ALIASES: &str = "team: ann@one.example, bob@two.example, carl@two.example\n";

const SETTLES: &str = "dora@one.example";

/// What one shard has recorded before this letter is on disk when the letter is.
fn settle(daemon: &Daemon) {
    Client::submit(daemon.address, "a@a.example", &[SETTLES], LETTER);
}

/// Of a list some have their mail; the others are sent another way twice, with a crash behind each.
#[test]
fn nobody_gets_a_list_twice_that_is_rerouted() {
    let hop = Hop::start();
    let dead = free_address();
    let routes = |two: &str| format!("one.example smtp!{}\ntwo.example {two}\n", hop.address);
    let files = [
        ("aliases", ALIASES),
        ("routes", &routes(&format!("smtp!{dead}"))),
    ];
    let mut daemon = with_shards(1, &files, &[], HOUR);
    let team = "team@mx.test.example";
    Client::submit(daemon.address, "a@a.example", &[team], LETTER);
    assert_eq!(got(&hop.wait_for_mails(1)), ["ann@one.example"]);
    wait_for_deferred(&daemon, 2);
    wait_for("ann to be finished", || {
        let text = queue(
            &daemon,
            &["count", "--where", "recipient = ann@one.example"],
        );
        text.starts_with("0 ").then_some(())
    });
    settle(&daemon);
    daemon.kill();
    daemon.restart();

    let next = free_address();
    let expected = "would change 2 of 2 recipients of 1 messages";
    route_anew(&daemon, &routes(&format!("smtp!{next}")), "", expected);
    let text = queue(&daemon, &["reroute", "--where", ""]);
    assert!(text.starts_with("reroute: 2 of 2"), "{text}");
    let there = format!("host = {next}");
    wait_for("the record of it", || {
        let text = queue(
            &daemon,
            &["count", "--where", &format!("{there} and state = deferred")],
        );
        text.starts_with("2 ").then_some(())
    });
    settle(&daemon);
    daemon.kill();
    // Where they went is recorded: the routes of now do not matter.
    write(&daemon, "routes", &routes("error!closed"));
    let late = Hop::start_on(next);
    daemon.restart();
    queue(&daemon, &["retry", "--where", ""]);
    daemon.wait_until_empty();
    let mut all: Vec<Mail> = [hop.mails(), late.mails()].concat();
    all.retain(|mail| mail.recipients != [SETTLES]);
    assert_eq!(
        got(&all),
        ["ann@one.example", "bob@two.example", "carl@two.example"]
    );
}

#[test]
fn what_has_no_way_any_more_is_returned() {
    let hop = Hop::start();
    let home = format!("a.example smtp!{}\n", hop.address);
    let daemon = with_files(&[("routes", &home)], &[], HOUR);
    Client::submit(daemon.address, "a@a.example", &["u@gone.example"], LETTER);
    wait_for_deferred(&daemon, 1);
    let routes = format!("{home}gone.example error!moved away\n");
    let text = route_anew(&daemon, &routes, "", "would change 1 of 1");
    assert!(text.contains(" -> error: 5."), "{text}");
    queue(&daemon, &["reroute", "--where", "domain = gone.example"]);
    let report = hop.wait_for_mails(1).remove(0);
    assert_eq!(
        (&*report.sender, &*report.recipients),
        ("", &["a@a.example".to_owned()][..])
    );
    let text = String::from_utf8_lossy(&report.content).into_owned();
    assert!(
        text.contains("Final-Recipient: rfc822; u@gone.example"),
        "{text}"
    );
    daemon.wait_until_empty();
}

/// By a file that may not be there: then nobody knows where mail goes.
const PLACES: &str = "relation -lmt unordered -f \"$MAILVAR/places\" places
router (address, attributes) {
	local place
	case \"$address\" in
	a@a.example)	returns (((smtp \"HOP\" \"$address\" $attributes))) ;;
	loop@*)	while true; do :; done ;;
	esac
	defer=
	place=$(places \"$address\") && returns (((smtp \"$place\" \"$address\" $attributes)))
	if [ \"$defer\" ]; then
		returns (((hold \"$defer\" \"$address\" $attributes)))
	fi
	returns (((error \"nobody knows\" \"$address\" $attributes)))
}
";

fn places(hop: &Hop) -> String {
    PLACES.replace("HOP", &hop.address.to_string())
}

#[test]
fn what_a_database_cannot_tell_waits_until_it_can() {
    let hop = Hop::start();
    let rules = "[[scheduler.rule]]\nmatch = \"hold/*\"\nretry = [\"1s\"]\n";
    let script = places(&hop);
    let mut daemon = with_files(
        &[("router.cf", &script)],
        &["config = \"router.cf\""],
        rules,
    );
    Client::submit(daemon.address, "a@a.example", &["u@far.example"], LETTER);
    let on_hold = |daemon: &Daemon| {
        wait_for("the hold", || {
            let text = queue(daemon, &["list", "--where", "channel = hold"]);
            text.contains("not routed yet: IO:error").then_some(())
        });
    };
    on_hold(&daemon);
    daemon.kill();
    daemon.restart();
    on_hold(&daemon);
    let text = queue(&daemon, &["reroute", "--where", ""]);
    assert!(
        text.contains("reroute: 0 of 1") && text.contains("cannot decide"),
        "{text}"
    );
    assert!(hop.mails().is_empty());
    write(
        &daemon,
        "places",
        &format!("u@far.example {}\n", hop.address),
    );
    assert_eq!(got(&hop.wait_for_mails(1)), ["u@far.example"]);
    daemon.wait_until_empty();
}

#[test]
fn what_nobody_can_tell_in_time_is_reported() {
    let hop = Hop::start();
    let rules = "[[scheduler.rule]]\nmatch = \"hold/*\"\nretry = [\"1s\"]\nexpiry = \"2s\"\n";
    let script = places(&hop);
    let daemon = with_files(
        &[("router.cf", &script)],
        &["config = \"router.cf\""],
        rules,
    );
    Client::submit(daemon.address, "a@a.example", &["u@far.example"], LETTER);
    let report = hop.wait_for_mails(1).remove(0);
    assert_eq!(
        (&*report.sender, &*report.recipients),
        ("", &["a@a.example".to_owned()][..])
    );
    let text = String::from_utf8_lossy(&report.content).into_owned();
    assert!(text.contains("not routed yet: IO:error"), "{text}");
    daemon.wait_until_empty();
}

/// A script that runs away leaves the message in a file with the reason. When the script has been put right, the file
/// is submitted, or goes where submitted mail comes from.
#[test]
fn what_was_set_aside_can_be_submitted_again() {
    let hop = Hop::start();
    let script = places(&hop);
    let daemon = with_files(
        &[("router.cf", &script), ("places", "")],
        &["config = \"router.cf\"", "steps_max = 200000"],
        HOUR,
    );
    for to in ["loop@one.example", "loop@two.example"] {
        Client::submit(daemon.address, "a@a.example", &[to], LETTER);
    }
    let deferred = daemon.dir.path().join("postoffice/deferred");
    let shown = |files: fs::ReadDir| -> Vec<std::path::PathBuf> {
        let paths = files.flatten().map(|file| file.path());
        paths.collect()
    };
    wait_for("two files in deferred/", || {
        let files = shown(fs::read_dir(&deferred).ok()?);
        (files.len() == 2).then_some(())
    });
    daemon.wait_until_empty();
    let files = shown(fs::read_dir(&deferred).unwrap());
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.contains("200000 steps"), "{text}");
    }
    let way = format!(
        "loop@*)	returns (((smtp \"{}\" \"$address\" $attributes))) ;;",
        hop.address
    );
    let right = script.replace("loop@*)	while true; do :; done ;;", &way);
    assert_ne!(right, script);
    write(&daemon, "router.cf", &right);
    reload(&daemon);
    let router = daemon.dir.path().join("postoffice/router");
    fs::rename(&files[0], router.join(files[0].file_name().unwrap())).unwrap();
    let name = files[1].to_str().unwrap();
    let output = zmailer(&daemon, &["spool", "import", name]);
    assert!(output.status.success(), "{}", said(&output));
    let mails = hop.wait_for_mails(2);
    assert_eq!(got(&mails), ["loop@one.example", "loop@two.example"]);
    for mail in mails {
        assert_eq!(mail.sender, "a@a.example");
        assert!(mail.content.ends_with(b"\r\ntext\r\n"));
    }
    daemon.wait_until_empty();
}
