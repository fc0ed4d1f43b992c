//! Programs and files in the place of users: whose rights they have, what their end means, what stands in files.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};

use crate::harness::client::Client;
use crate::harness::daemon::{Setup, free_address, scratch_dir};
use crate::harness::site::{JOE, NOBODY, Plan, ROBOT, Site};
use crate::harness::wait_for;

const LETTER: &str = "From: Ann <ann@a.example>\r\nSubject: hello\r\n\r\n.dot\r\nFrom here\r\n";

const PROGRAMS_OF: &str = "[transport.program]\nuser = \"zmrobot\"\n";

/// A host with these aliases, which are root's.
fn with_aliases(aliases: &str) -> Option<Site> {
    let plan = Plan::new()?.with(PROGRAMS_OF);
    plan.file("aliases", aliases, 0, 0o644);
    Some(plan.start())
}

/// What an administrator writes into his first aliases file, and expects.
#[test]
fn an_aliases_file_does_what_an_administrator_expects() {
    let Some(plan) = Plan::new() else { return };
    let plan = plan.with(PROGRAMS_OF);
    plan.file("routes", "gone.example error!nosuchuser\n", 0, 0o644);
    plan.file(
        "members",
        "zmjoe\nfar@far.example\n\"|BIN/take member\"\n",
        JOE,
        0o644,
    );
    plan.file("desks", "desk@far.example\n", 0, 0o644);
    plan.file(
        "aliases",
        "postmaster: root\nlist: :include:SITE/members\nstaff: :include:SITE/desks\nrobot: \"|BIN/take robot\"\narchive: OUT/archive\n",
        0,
        0o644,
    );
    let site = plan.start();
    site.send(&["postmaster", "list", "staff", "robot", "archive"], LETTER);
    let robot = site.told("robot");
    let expected = format!("uid={ROBOT} gid={ROBOT} groups={ROBOT}\nwords=1\nword=robot\ndir=/\n");
    assert!(robot.starts_with(&expected), "{robot}");
    for line in [
        "USER=zmrobot",
        "SENDER=ann@a.example",
        "INRCPT=robot@home.example",
        "SHELL=/bin/sh",
    ] {
        assert!(
            robot.lines().any(|found| found == line),
            "{line} in {robot}"
        );
    }
    let (_, mail) = robot.split_once("\n\n").unwrap();
    assert!(mail.starts_with("From ann@a.example "), "{mail}");
    assert!(
        mail.contains("\nReturn-Path: <ann@a.example>\nDelivered-To: robot@home.example\n"),
        "{mail}"
    );
    assert!(
        mail.ends_with("\n\n.dot\nFrom here\n") && !mail.contains('\r'),
        "{mail}"
    );
    assert!(
        site.told("member").starts_with(&format!("uid={JOE} ")),
        "a list has its owner's rights"
    );
    wait_for("members of both lists elsewhere", || {
        let mails = site.hop.mails();
        let recipients = mails.iter().flat_map(|mail| &mail.recipients);
        let mut recipients: Vec<&str> = recipients.map(String::as_str).collect();
        recipients.sort_unstable();
        (recipients == ["desk@far.example", "far@far.example"]).then_some(())
    });
    site.daemon.wait_until_empty();
    assert_eq!(
        (site.mails("root").len(), site.mails("zmjoe").len()),
        (1, 1)
    );
    let archive = fs::read_to_string(site.path("out/archive")).unwrap();
    assert!(
        archive.starts_with("From ann@a.example ") && archive.ends_with("\n\n.dot\n>From here\n\n"),
        "{archive}"
    );
    assert_eq!(fs::metadata(site.path("out/archive")).unwrap().uid(), ROBOT);
    assert!(!site.path("out/archive.lock").exists());
}

/// Exit statuses by sysexits.h: which are final, which are tried again, and what the sender is told.
#[test]
fn the_end_of_a_program_decides() {
    let rows: &[(&str, &str, &str)] = &[
        ("0", "event=delivered", "250 2.0.0"),
        ("1", "event=deferred", "451 4.3.0"),
        ("64", "event=deferred", "451 4.3.0"),
        ("65", "event=failed", "554 5.6.0"),
        ("67", "event=failed", "550 5.1.1"),
        ("68", "event=failed", "550 5.1.2"),
        ("69", "event=failed", "554 5.3.0"),
        ("75", "event=deferred", "451 4.3.0"),
        ("77", "event=failed", "550 5.7.1"),
    ];
    let mut aliases: String = rows
        .iter()
        .map(|(code, ..)| format!("e{code}: \"|BIN/say {code}\"\n"))
        .collect();
    aliases += "crash: \"|BIN/crash\"\ngone: \"|BIN/gone\"\nshell: \"|echo $HOME; exit 69\"\nleave: \"|BIN/leave\"\n";
    let Some(site) = with_aliases(&aliases) else {
        return;
    };
    for (code, event, reply) in rows {
        site.send(&[&format!("e{code}")], LETTER);
        let status = format!("[exit status {code}]");
        let line = site.logged(&[&status]);
        assert!(
            line.contains(event) && line.contains(reply),
            "{code}: {line}"
        );
        assert!(line.contains("I do not 'want' it"), "{code}: {line}");
    }
    let reports = site.hop.wait_for_mails(5);
    let text = String::from_utf8_lossy(&reports[0].content).into_owned();
    assert!(
        text.contains("I do not 'want' it") && text.contains("Status: 5.6.0"),
        "{text}"
    );
    assert!(
        text.contains("e65@home.example") && !text.contains("/bin/say"),
        "{text}"
    );
    site.send(&["crash"], LETTER);
    site.logged(&["event=deferred", "[signal 11]"]);
    site.send(&["gone"], LETTER);
    site.logged(&["event=deferred", "the program cannot be run"]);
    site.send(&["shell"], LETTER);
    let home = site.path("home/zmrobot").display().to_string();
    site.logged(&["event=failed", &home]);
    // More than a pipe holds, for a program that reads none of it.
    let large = LETTER.to_owned() + &"0123456789\r\n".repeat(100_000);
    site.send(&["leave"], &large);
    site.logged(&["event=delivered", "leave@home.example"]);
}

#[test]
fn a_program_that_takes_too_long_is_ended_with_all_it_has_started() {
    let Some(plan) = Plan::new() else { return };
    let plan = plan.with(&format!("{PROGRAMS_OF}timeout = \"1s\"\n"));
    plan.file("aliases", "hang: \"|BIN/hang\"\n", 0, 0o644);
    let site = plan.start();
    // Its pipe is full when its time is over.
    let large = LETTER.to_owned() + &"0123456789\r\n".repeat(100_000);
    site.send(&["hang"], &large);
    site.logged(&["event=deferred", "more than 1 s, ended"]);
    let child = wait_for("the number of the child", || {
        let text = fs::read_to_string(site.path("out/hang")).ok()?;
        text.strip_suffix('\n').map(str::to_owned)
    });
    wait_for("the end of the child", || {
        let stat = fs::read_to_string(format!("/proc/{child}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z "))
            .then_some(())
    });
}

/// What runs when the daemon ends, ends with it: its mail will be delivered again.
#[test]
fn programs_end_with_the_daemon() {
    let Some(mut site) = with_aliases("hang: \"|BIN/hang\"\n") else {
        return;
    };
    site.send(&["hang"], LETTER);
    let child = wait_for("the number of the child", || {
        let text = fs::read_to_string(site.path("out/hang")).ok()?;
        text.strip_suffix('\n').map(str::to_owned)
    });
    site.daemon.kill();
    wait_for("the end of the child", || {
        let stat = fs::read_to_string(format!("/proc/{child}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z "))
            .then_some(())
    });
}

/// The rights of a program are those of whoever can write to the file that names it.
#[test]
fn rights_follow_the_file() {
    for (user, mode, expected) in [
        (JOE, 0o644, JOE),
        (JOE, 0o666, NOBODY),
        (0, 0o664, NOBODY),
        (0, 0o600, ROBOT),
    ] {
        let Some(plan) = Plan::new() else { return };
        let plan = plan.with(PROGRAMS_OF);
        // The daemon's user reads it; that he has no rights to write there is what counts.
        plan.file("aliases", "robot: \"|BIN/take robot\"\n", user, mode);
        if mode == 0o600 {
            chown(plan.path("aliases"), Some(0), Some(1)).unwrap();
            let readable = std::os::unix::fs::PermissionsExt::from_mode(0o640);
            fs::set_permissions(plan.path("aliases"), readable).unwrap();
        }
        let site = plan.start();
        site.send(&["robot"], LETTER);
        let told = site.told("robot");
        assert!(
            told.starts_with(&format!("uid={expected} ")),
            "{user} {mode:o}: {told}"
        );
    }
}

#[test]
fn words_of_a_command_are_taken_apart_and_addresses_are_none_of_them() {
    let Some(plan) = Plan::new() else { return };
    let plan = plan.with(PROGRAMS_OF);
    plan.file(
        "aliases",
        "one: \"|\\\"BIN/with space\\\" one 'b c'\"\ntwo: |\"BIN/with space\" two arg\nthree: \"|BIN/take $USER\"\n",
        0,
        0o644,
    );
    plan.file(
        "fqdnaliases",
        "@virt.example: \"|BIN/take four %1\"\n",
        0,
        0o644,
    );
    let site = plan.start();
    site.send(&["one", "two", "three"], LETTER);
    let one = site.told("one");
    assert!(one.contains("\nwords=2\nword=one\nword=b c\n"), "{one}");
    let two = site.told("two");
    assert!(two.contains("\nwords=2\nword=two\nword=arg\n"), "{two}");
    assert!(site.told("zmrobot").contains("\nword=zmrobot\n"));
    let pwned = "\"$(touch x);`id`|y\"";
    let to = format!("{pwned}@virt.example");
    Client::submit(
        site.daemon.address,
        &format!("{pwned}@a.example"),
        &[&to],
        LETTER,
    );
    let four = site.told("four");
    assert!(
        four.contains("\nwords=2\n") && four.contains(&format!("SENDER={pwned}@a.example\n")),
        "{four}"
    );
    assert!(
        four.contains("\nword=__") && !four.contains("word=\"$"),
        "{four}"
    );
}

#[test]
fn strangers_name_no_programs_and_no_files() {
    let Some(site) = with_aliases("x: zmjoe\n") else {
        return;
    };
    let mut client = Client::connect(site.daemon.address);
    client.command("EHLO c.example");
    client.command("MAIL FROM:<ann@a.example>");
    for to in ["\"|id\"", "|id", "/etc/passwd", "\"/etc/pass wd\""] {
        let said = client.command(&format!("RCPT TO:<{to}@home.example>"));
        assert!(said.starts_with("550 5"), "{to}: {said}");
    }
}

#[test]
fn files_are_locked_appended_to_and_never_left_with_half_a_message() {
    let aliases = "archive: OUT/archive\nlink: OUT/link\npipe: OUT/pipe\nhard: OUT/hard\nnull: /dev/null\nfull: SITE/full/f\n";
    let Some(site) = with_aliases(aliases) else {
        return;
    };
    let path = site.path("out/archive");
    fs::write(&path, "no line end").unwrap();
    chown(&path, Some(ROBOT), Some(ROBOT)).unwrap();
    let file = fs::File::options().append(true).open(&path).unwrap();
    assert!(zmailer::sys::lock::try_exclusive(&file).unwrap());
    site.send(&["archive"], LETTER);
    wait_for("the agent, which waits for our lock behind its own", || {
        site.path("out/archive.lock").exists().then_some(())
    });
    std::io::Write::write_all(&mut &file, b", then ours").unwrap();
    drop(file);
    site.daemon.wait_until_empty();
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.starts_with("no line end, then ours\n\nFrom ann@a.example "),
        "{text}"
    );
    assert!(!site.path("out/archive.lock").exists());

    symlink("archive", site.path("out/link")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(site.path("out/pipe"))
        .status();
    assert!(made.unwrap().success());
    fs::write(site.path("out/hard"), "").unwrap();
    fs::hard_link(site.path("out/hard"), site.path("out/other")).unwrap();
    for name in ["pipe", "hard"] {
        chown(site.path("out").join(name), Some(ROBOT), Some(ROBOT)).unwrap();
    }
    for (name, why) in [
        ("link", "it is a symbolic link"),
        ("pipe", "it is no regular file"),
        ("hard", "it has more than one name"),
    ] {
        site.send(&[name], LETTER);
        site.logged(&["event=failed", why]);
    }
    site.send(&["null"], LETTER);
    site.logged(&["event=delivered", "null@home.example"]);

    site.send(&["full"], LETTER);
    site.logged(&["event=delivered", "full@home.example"]);
    let seen = format!(
        "/proc/{}/root{}",
        site.daemon.pid(),
        site.path("full/f").display()
    );
    let before = fs::read(&seen).unwrap();
    let large = LETTER.to_owned() + &"0123456789\r\n".repeat(10_000);
    site.send(&["full"], &large);
    site.logged(&["event=deferred", "451 4.3.1"]);
    assert_eq!(
        fs::read(&seen).unwrap(),
        before,
        "the rest of what did not fit is gone"
    );
}

#[test]
fn mailboxes_can_be_files_of_many_messages() {
    let Some(plan) = Plan::new() else { return };
    let plan = plan.with("format = \"mbox\"\n");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    fs::set_permissions(plan.path("mail"), open).unwrap();
    let site = plan.start();
    site.send(&["zmjoe"], LETTER);
    site.send(&["zmjoe", "zmrob"], LETTER);
    site.daemon.wait_until_empty();
    let text = fs::read_to_string(site.path("mail/zmjoe")).unwrap();
    let starts = text
        .split("\n\n")
        .filter(|part| part.starts_with("From ann@a.example "));
    assert_eq!(starts.count(), 2, "{text}");
    assert_eq!(text.matches("\n>From here\n\n").count(), 2, "{text}");
    let metadata = fs::metadata(site.path("mail/zmjoe")).unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o777), (JOE, 0o600));
}

/// A daemon that was not started as root has its own rights only: others' programs wait, with the reason.
#[test]
fn without_roots_rights_the_programs_of_others_wait() {
    let Some(plan) = Plan::new() else { return };
    drop(plan);
    let mut setup =
        Setup::relay_to(free_address()).with("router", "local_domains = [\"home.example\"]");
    let dir = scratch_dir();
    let path = dir.path().to_owned();
    fs::write(
        path.join("aliases"),
        format!("own: \"|id -u > {}/own\"\n", path.display()),
    )
    .unwrap();
    fs::write(path.join("roots"), "|id\n").unwrap();
    let include = format!("roots: :include:{}/roots\n", path.display());
    let aliases = fs::read_to_string(path.join("aliases")).unwrap() + &include;
    fs::write(path.join("aliases"), aliases).unwrap();
    chown(path.join("aliases"), Some(1), Some(1)).unwrap();
    chown(&path, Some(1), Some(1)).unwrap();
    setup.prefix = ["setpriv", "--reuid=1", "--regid=1", "--clear-groups"]
        .map(str::to_owned)
        .to_vec();
    let mut daemon = setup.prepare(dir);
    fs::write(path.join("stderr"), "").unwrap();
    daemon.restart();
    let to = ["own@mx.test.example", "roots@mx.test.example"];
    Client::submit(daemon.address, "ann@a.example", &to, LETTER);
    wait_for("what has its own rights", || {
        let text = fs::read_to_string(path.join("own")).ok()?;
        (text == "1\n").then_some(())
    });
    wait_for("the reason why the other waits", || {
        let log = daemon.mail_log();
        let why = "the daemon was not started as root";
        log.lines()
            .any(|line| line.contains("event=deferred") && line.contains(why))
            .then_some(())
    });
}

/// What could be lost: the copy for somebody's own mailbox, which the original takes for a circle.
#[test]
fn a_name_among_its_own_addresses_is_the_mailbox() {
    let aliases =
        "zmjoe: \\zmjoe, far@far.example\nzmrob: zmrob, near@far.example\nstaff: \\zmjoe\n";
    let Some(site) = with_aliases(aliases) else {
        return;
    };
    site.send(&["zmjoe", "zmrob"], LETTER);
    site.send(&["staff"], LETTER);
    wait_for("the members elsewhere", || {
        let mails = site.hop.mails();
        let recipients = mails.iter().flat_map(|mail| &mail.recipients);
        let mut recipients: Vec<&str> = recipients.map(String::as_str).collect();
        recipients.sort_unstable();
        (recipients == ["far@far.example", "near@far.example"]).then_some(())
    });
    site.daemon.wait_until_empty();
    assert_eq!(site.mails("zmrob").len(), 1);
    assert_eq!(site.mails("zmjoe").len(), 2, "one as himself, one of staff");
}
