//! The routing script at work: what an administrator who writes `routes` and `aliases` sees.

use std::fs;

use crate::harness::client::Client;
use crate::harness::daemon::{Daemon, Setup, scratch_dir};
use crate::harness::hop::Hop;
use crate::harness::sendmail::{said, zmailer};
use crate::harness::wait_for;

const LETTER: &str = "From: a@a.example\r\nSubject: hello\r\n\r\ntext\r\n";

/// A daemon with these files beside its configuration.
fn with_files(hop: &Hop, files: &[(&str, String)], router: &[&str]) -> Daemon {
    let dir = scratch_dir();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let mut setup = Setup::relay_to(hop.address).shards(2);
    for line in router {
        setup = setup.with("router", *line);
    }
    let mut daemon = setup.prepare(dir);
    daemon.restart();
    daemon
}

fn recipients(hop: &Hop, count: usize) -> Vec<String> {
    let mut all: Vec<String> = hop
        .wait_for_mails(count)
        .into_iter()
        .flat_map(|mail| mail.recipients)
        .collect();
    all.sort();
    all
}

#[test]
fn routes_and_aliases_are_all_that_is_needed() {
    let (hop, other) = (Hop::start(), Hop::start());
    let routes = format!(
        "# by domain\nspecial.example smtp!{}\n.closed.example error!closed\n",
        other.address
    );
    let aliases = "# names\nsales: ann@far.example, bob@special.example\nchain: sales\npostmaster: ann@far.example\n";
    let daemon = with_files(
        &hop,
        &[("routes", routes), ("aliases", aliases.to_owned())],
        &[],
    );
    Client::submit(
        daemon.address,
        "a@a.example",
        &["chain@mx.test.example"],
        LETTER,
    );
    assert_eq!(recipients(&hop, 1), ["ann@far.example"]);
    assert_eq!(recipients(&other, 1), ["bob@special.example"]);
    daemon.wait_until_empty();

    let output = zmailer(
        &daemon,
        &["route", "--tsv", "x@a.closed.example", "x@special.example"],
    );
    let text = said(&output);
    assert!(text.contains("x@a.closed.example\terror\t"), "{text}");
    let hit = format!(
        "x@special.example\tsmtp\t{}\tx@special.example",
        other.address
    );
    assert!(text.contains(&hit), "{text}");
}

#[test]
fn a_changed_file_counts_without_a_restart() {
    let hop = Hop::start();
    let daemon = with_files(
        &hop,
        &[("aliases", "one: first@far.example\n".to_owned())],
        &[],
    );
    Client::submit(
        daemon.address,
        "a@a.example",
        &["one@mx.test.example"],
        LETTER,
    );
    assert_eq!(recipients(&hop, 1), ["first@far.example"]);
    fs::write(
        daemon.dir.path().join("aliases"),
        "one: second@far.example\n",
    )
    .unwrap();
    wait_for("the new alias", || {
        let before = hop.mails().len();
        Client::submit(
            daemon.address,
            "a@a.example",
            &["one@mx.test.example"],
            LETTER,
        );
        let mails = hop.wait_for_mails(before + 1);
        mails
            .last()
            .is_some_and(|mail| mail.recipients == ["second@far.example"])
            .then_some(())
    });
}

const ROUTER: &str = "router (address, attributes) {
	case \"$address\" in
	loop@*)	while true; do :; done ;;
	deep@*)	router \"$address\" $attributes ;;
	two@*)	returns (((smtp \"HOP\" \"x@far.example\" $attributes)) ((smtp \"HOP\" \"y@far.example\" $attributes))) ;;
	esac
	returns (((smtp \"HOP\" \"$address\" $attributes)))
}
";

fn script(hop: &Hop) -> String {
    ROUTER.replace("HOP", &hop.address.to_string())
}

#[test]
fn a_script_that_runs_away_is_stopped_and_the_rest_flows_on() {
    let hop = Hop::start();
    let files = [("router.cf", script(&hop))];
    let daemon = with_files(
        &hop,
        &files,
        &["config = \"router.cf\"", "steps_max = 200000"],
    );
    for name in ["loop", "deep"] {
        let to = format!("{name}@far.example");
        Client::submit(daemon.address, "a@a.example", &[&to], LETTER);
    }
    Client::submit(daemon.address, "a@a.example", &["two@far.example"], LETTER);
    assert_eq!(recipients(&hop, 1), ["x@far.example", "y@far.example"]);
    let deferred = daemon.dir.path().join("postoffice/deferred");
    let texts = wait_for("two messages in deferred/", || {
        let files = fs::read_dir(&deferred).unwrap().flatten();
        let texts: Vec<String> = files
            .filter_map(|file| fs::read_to_string(file.path()).ok())
            .collect();
        (texts.len() == 2).then_some(texts)
    });
    let all = texts.concat();
    assert!(
        all.contains("200000 steps") && all.contains("levels deep"),
        "{all}"
    );
    daemon.wait_until_empty();

    let output = zmailer(&daemon, &["resubmit", "nosuchid"]);
    assert_eq!(output.status.code(), Some(66), "{}", said(&output));
    let healed = "router (address, attributes) {\n\treturns (((smtp \"HOP\" \"$address\" $attributes)))\n}\n";
    let healed = healed.replace("HOP", &hop.address.to_string());
    fs::write(daemon.dir.path().join("router.cf"), healed).unwrap();
    let output = zmailer(&daemon, &["reload"]);
    assert!(output.status.success(), "{}", said(&output));
    let name = fs::read_dir(&deferred).unwrap().flatten().next().unwrap();
    let name = name.file_name().into_string().unwrap();
    let id = name.split('.').next().unwrap();
    let output = zmailer(&daemon, &["resubmit", id]);
    assert_eq!(output.stdout, format!("{name}\n").into_bytes());
    hop.wait_for_mails(2);
    let output = zmailer(&daemon, &["resubmit"]);
    assert!(output.status.success(), "{}", said(&output));
    let mails = hop.wait_for_mails(3);
    let mut again: Vec<&str> = mails[1..]
        .iter()
        .map(|mail| mail.recipients[0].as_str())
        .collect();
    again.sort_unstable();
    assert_eq!(again, ["deep@far.example", "loop@far.example"]);
    assert!(mails[1..].iter().all(|mail| mail.sender == "a@a.example"));
    assert_eq!(fs::read_dir(&deferred).unwrap().count(), 0);
}

#[test]
fn a_wrong_script_at_reload_leaves_the_old_one() {
    let hop = Hop::start();
    let daemon = with_files(
        &hop,
        &[("router.cf", script(&hop))],
        &["config = \"router.cf\""],
    );
    fs::write(
        daemon.dir.path().join("router.cf"),
        "router () {\n\tif true; then\n}\n",
    )
    .unwrap();
    let output = zmailer(&daemon, &["reload"]);
    assert!(!output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("router.cf:3:1: 'fi' expected"),
        "{}",
        said(&output)
    );
    let log = daemon.stderr();
    assert!(log.contains("router.cf:3:1: 'fi' expected"), "{log}");
    Client::submit(daemon.address, "a@a.example", &["two@far.example"], LETTER);
    assert_eq!(recipients(&hop, 1), ["x@far.example", "y@far.example"]);

    let changed = script(&hop).replace("y@far.example", "z@far.example");
    fs::write(daemon.dir.path().join("router.cf"), changed).unwrap();
    let output = zmailer(&daemon, &["reload"]);
    assert!(output.status.success(), "{}", said(&output));
    wait_for("the new script", || {
        let before = hop.mails().len();
        Client::submit(daemon.address, "a@a.example", &["two@far.example"], LETTER);
        let mails = hop.wait_for_mails(before + 1);
        mails
            .last()
            .is_some_and(|mail| mail.recipients.contains(&"z@far.example".to_owned()))
            .then_some(())
    });
}

/// An alias file that an editor left half written stopped the mail of every alias at the next start or reload.
#[test]
fn broken_aliases_leave_what_was_there() {
    let hop = Hop::start();
    let good = "one: first@far.example\n".to_owned();
    let mut daemon = with_files(&hop, &[("aliases", good)], &[]);
    let submit = |daemon: &Daemon, count: usize| {
        let to = ["one@mx.test.example"];
        Client::submit(daemon.address, "a@a.example", &to, LETTER);
        assert_eq!(recipients(&hop, count), vec!["first@far.example"; count]);
    };
    submit(&daemon, 1);
    let aliases = daemon.dir.path().join("aliases");
    let told = format!("{}:1:4: error: there is no colon", aliases.display());
    fs::write(&aliases, "one second@far.example\n").unwrap();
    let output = zmailer(&daemon, &["reload"]);
    assert!(output.status.success(), "{}", said(&output));
    submit(&daemon, 2);
    let output = zmailer(&daemon, &["check"]);
    assert_eq!(output.status.code(), Some(65));
    assert!(said(&output).contains(&told), "{}", said(&output));

    daemon.stop();
    fs::write(&aliases, "one: first@far.example\n").unwrap();
    let output = zmailer(&daemon, &["newaliases"]);
    assert!(output.status.success(), "{}", said(&output));
    let compiled = fs::File::options()
        .append(true)
        .open(daemon.dir.path().join("aliases.cdb"))
        .unwrap();
    compiled.set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::write(&aliases, "one third@far.example\n").unwrap();
    daemon.restart();
    submit(&daemon, 3);
    let log = daemon.stderr();
    assert!(log.contains(&told), "{log}");
    assert!(log.contains("aliases.cdb is used instead"), "{log}");
}

#[test]
fn unknown_users_are_refused_at_the_door_and_aliases_are_not() {
    let hop = Hop::start();
    let dir = scratch_dir();
    fs::write(dir.path().join("aliases"), "sales: ann@far.example\n").unwrap();
    fs::create_dir_all(dir.path().join("mail/joe")).unwrap();
    let path = format!(
        "[transport.mailbox]\nformat = \"maildir\"\npath = \"{}/mail/{{user}}\"\n",
        dir.path().display()
    );
    let mut setup = Setup::relay_to(hop.address)
        .shards(1)
        .with("router", "local_domains = [\"test.example\"]");
    setup.tail = path;
    let mut daemon = setup.prepare(dir);
    daemon.restart();
    let mut client = Client::connect(daemon.address);
    client.hello();
    client.expect("MAIL FROM:<a@a.example>", "250");
    client.expect("RCPT TO:<nobody-here@test.example>", "550 5.1.1");
    client.expect("RCPT TO:<sales@test.example>", "250");
    client.expect("RCPT TO:<joe@test.example>", "250");
    client.expect("RCPT TO:<x@far.example>", "250");
    client.expect("QUIT", "221");
    Client::submit(
        daemon.address,
        "a@a.example",
        &["sales@test.example", "joe@test.example"],
        LETTER,
    );
    assert_eq!(recipients(&hop, 1), ["ann@far.example"]);
    let new = daemon.dir.path().join("mail/joe/new");
    wait_for("mail for joe", || {
        let files = fs::read_dir(&new).ok()?;
        (files.count() == 1).then_some(())
    });
}
