//! The edges of `sendmail`: what it refuses and with which code, and what it makes of what it is given.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::harness::daemon::{Daemon, Setup, binary, free_address, scratch_dir};
use crate::harness::hop::Hop;
use crate::harness::mount::Mount;
use crate::harness::person;
use crate::harness::sendmail::{PROGRAM, program, said, sendmail, sendmail_by, zmailer};

fn content(hop: &Hop, count: usize) -> String {
    let mails = hop.wait_for_mails(count);
    String::from_utf8_lossy(&mails[count - 1].content).into_owned()
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

/// Nobody is there to take anything; `public/` and `router/` are, as a start leaves them.
fn without_daemon(setup: Setup) -> Daemon {
    let daemon = setup.prepare(scratch_dir());
    make_directories(&daemon.dir.path().join("postoffice"));
    daemon
}

fn make_directories(postoffice: &Path) {
    for name in ["public", "router"] {
        fs::create_dir_all(postoffice.join(name)).unwrap();
    }
}

fn assert_nothing_left(daemon: &Daemon) {
    for name in ["public", "router"] {
        let dir = daemon.dir.path().join("postoffice").join(name);
        assert_eq!(count(&dir), 0, "{name}/");
    }
}

/// One sentence, the code of sysexits, and nothing half-submitted.
fn assert_refused(daemon: &Daemon, arguments: &[&str], input: &[u8], code: i32, words: &str) {
    let output = sendmail(daemon, arguments, input);
    let text = said(&output);
    let start = String::from_utf8_lossy(input.get(..60).unwrap_or(input)).into_owned();
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?} {start:?}: {text}"
    );
    let good = text.contains(words) && text.lines().count() == 1;
    assert!(good, "{arguments:?} {start:?}: {text}");
    assert_nothing_left(daemon);
}

#[test]
fn addresses_that_nobody_can_use() {
    let daemon = without_daemon(Setup::relay_to(free_address()));
    let long = format!("{}@b.example", "a".repeat(300));
    for (arguments, input, code, words) in [
        // `a b@c.example` was sent to ab@c.example.
        (&["a b@c.example"][..], "\nx\n", 64, "a b@c.example"),
        (&["<a b@c.example>"], "\nx\n", 64, "no address"),
        (&["a@b@c.example"], "\nx\n", 64, "no address"),
        (&["a@b.example", &long], "\nx\n", 64, "no address"),
        (&["a\u{1}@b.example"], "\nx\n", 64, "no address"),
        (&["a@b..example"], "\nx\n", 64, "no address"),
        // Flags behind a recipient: what a web form puts there must not be taken for one.
        (&["a@b.example", "-f", "x@y.example"], "\nx\n", 64, "behind"),
        (&["a@b.example", "-odd@x.example"], "\nx\n", 64, "behind"),
        // The others of the list must not get it while this one does not.
        (&["-t"], "To: joe doe, a@b.example\n\nx\n", 65, "joe doe"),
        (
            &["-t"],
            "Cc: \"a\u{1}b\"@c.example\n\nx\n",
            65,
            "no address",
        ),
        (&["-t"], "To: Joe <a b@c.example>\n\nx\n", 65, "no address"),
        (
            &["-t"],
            "Subject: s\n\nTo: a@b.example\n",
            65,
            "no recipients",
        ),
        (
            &["-t"],
            "To: undisclosed-recipients:;\n\nx\n",
            65,
            "no recipients",
        ),
        (&["-t"], "", 65, "no recipients"),
    ] {
        assert_refused(&daemon, arguments, input.as_bytes(), code, words);
    }
}

#[test]
fn addresses_that_are_unusual() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let text = "To: friends: Ann <ann@a.example>, bob@b.example;,\n \"Joe Q\"@c.example (him),\n\
        \tdora @ d.example, J\u{f6}rg <joerg@e.example> <eve@e.example>\n\
        Cc: postmaster@f.example, -dash@g.example\nBcc: secret@h.example\n\nx\n";
    let output = sendmail(&daemon, &["-t", "-f", "<>"], text.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let mail = &hop.wait_for_mails(1)[0];
    assert_eq!(
        mail.recipients,
        [
            "ann@a.example",
            "bob@b.example",
            "\"Joe Q\"@c.example",
            "dora@d.example",
            "joerg@e.example",
            "eve@e.example",
            "postmaster@f.example",
            "-dash@g.example",
            "secret@h.example",
        ]
    );
    assert!(!content(&hop, 1).contains("secret"));
}

/// From the second 64 KiB of a line on addresses were lost, without a word; and 10,000 arguments.
#[test]
fn very_many_recipients() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let delivered = |count: usize| {
        crate::harness::wait_for(&format!("{count} recipients"), || {
            let mails = hop.mails();
            let total: usize = mails.iter().map(|mail| mail.recipients.len()).sum();
            (total >= count).then_some(total)
        })
    };
    let names: Vec<String> = (0..5000).map(|n| format!("user{n}@b.example")).collect();
    let header = format!("To: {}\nSubject: s\n\nx\n", names.join(", "));
    let output = sendmail(&daemon, &["-t"], header.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(delivered(5000), 5000);
    let names: Vec<String> = (0..10_000).map(|n| format!("u{n}@b.example")).collect();
    let arguments: Vec<&str> = names.iter().map(String::as_str).collect();
    let output = sendmail(&daemon, &arguments, b"Subject: s\n\nx\n");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(delivered(15_000), 15_000);
    daemon.wait_until_empty();
}

/// What the daemon would only put to `postman/` is refused while somebody can be told.
#[test]
fn limits_are_those_of_the_daemon() {
    let setup = Setup::relay_to(free_address())
        .with("smtpserver", "header_size_max = \"4KiB\"")
        .with("smtpserver", "message_size_max = \"64KiB\"");
    let daemon = without_daemon(setup);
    // 4080 bytes in the file; as it travels each line has one more.
    let near = format!("To: a@b.example\n{}\nx\n", "X-A: aa\n".repeat(508));
    assert_refused(
        &daemon,
        &["-t"],
        near.as_bytes(),
        65,
        "header is larger than 4096",
    );
    let loops = format!("To: a@b.example\n{}\nx\n", "Received: x\n".repeat(101));
    assert_refused(&daemon, &["-t"], loops.as_bytes(), 65, "mail loop");
    let large = format!("To: a@b.example\n\n{}", "x\n".repeat(30_000));
    assert_refused(&daemon, &["-t"], large.as_bytes(), 65, "larger than 65536");
    let header = [b"X: ".to_vec(), vec![b'a'; 10 << 20], b"\n\n".to_vec()].concat();
    assert_refused(&daemon, &["a@b.example"], &header, 65, "header is larger");
}

#[test]
fn limits_are_reached_exactly() {
    let hop = Hop::start();
    let setup = Setup::relay_to(hop.address)
        .with("smtpserver", "header_size_max = \"4KiB\"")
        .with("smtpserver", "message_size_max = \"64KiB\"");
    let daemon = setup.start();
    // A header of 4096 bytes and a message of 65536 as they travel; the daemon adds fields of its own.
    let header = format!(
        "To: a@b.example\n{}X-B: {}\n",
        "X-A: aa\n".repeat(450),
        "b".repeat(22)
    );
    let (lines, line) = (header.matches('\n').count(), "x".repeat(98) + "\n");
    assert_eq!(header.len() + lines, 4096);
    let rest = 65536 - 4096 - 2;
    let (whole, last) = (rest / 100, rest % 100);
    let text = format!("{header}\n{}{}\n", line.repeat(whole), "y".repeat(last - 2));
    let output = sendmail(&daemon, &["-t"], text.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let content = content(&hop, 1);
    assert!(content.ends_with(&format!("{}\r\n", "y".repeat(last - 2))));
}

#[test]
fn what_a_message_lacks_is_added() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    for (number, (arguments, text, expected)) in [
        // The name and the address of the command line, as cron and scripts mean them.
        (
            &["-F", "Cron Daemon", "-f", "cron@a.example"][..],
            "Subject: s\n\nx\n",
            &["From: Cron Daemon <cron@a.example>\r\n"][..],
        ),
        (
            &["-FJ\u{f6}rg B", "-f", "root"],
            "\nx\n",
            &["From: =?UTF-8?Q?J=C3=B6rg_B?= <root@mx.test.example>\r\n"],
        ),
        (
            &["-F", "a\"b\\", "-f", "<>"],
            "From: x@y.example\n\nx\n",
            &["From: x@y.example\r\n"],
        ),
        (
            &["-f", "me@a.example"],
            "Resent-To: a@b.example\nDate: yesterday\nFrom: x@y.example\nMessage-ID: <1@y>\n\nx\n",
            &[
                "Resent-Date: ",
                "Resent-From: ",
                "Resent-Message-Id: <",
                "Date: yesterday\r\n",
                "From: x@y.example\r\n",
                "Message-ID: <1@y>\r\n",
            ],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut arguments = arguments.to_vec();
        arguments.push("a@b.example");
        let output = sendmail(&daemon, &arguments, text.as_bytes());
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let content = content(&hop, number + 1);
        let head = &content[..content.find("\r\n\r\n").unwrap() + 2];
        for words in expected {
            assert_eq!(head.matches(words).count(), 1, "{words:?} in {head}");
        }
        for name in ["\r\nDate:", "\r\nFrom:", "\r\nMessage-I"] {
            assert_eq!(head.matches(name).count(), 1, "{name:?} in {head}");
        }
    }
}

#[test]
fn bodies_as_programs_write_them() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    for (number, (arguments, input, end)) in [
        // CR LF, lone dots in a row, the dot at the end of input, a NUL, a CR alone, nothing at all.
        (
            &["-i"][..],
            &b"Subject: s\r\n\r\nx\r\n.\r\ny\r\n"[..],
            "\r\n\r\nx\r\n.\r\ny\r\n",
        ),
        (&[], b"Subject: s\r\n\r\nx\r\n.\r\ny\r\n", "\r\n\r\nx\r\n"),
        (
            &["-oi"],
            b"Subject: s\n\n.\n..\n...\n.",
            "\r\n\r\n.\r\n..\r\n...\r\n.\r\n",
        ),
        (&[], b"Subject: s\n\nx\n.", "\r\n\r\nx\r\n"),
        (&[], b"Subject: s\n\na\0b\rc\n", "\r\n\r\nab c\r\n"),
        (&[], b"no header here\n", "\r\n\r\nno header here\r\n"),
        (&[], b"Subject: s", "\r\n\r\n"),
        (&[], b"", "\r\n\r\n"),
        (
            &[],
            b"Subject: \xfcber\n\n\xff\xfe\n",
            "\r\n\r\n\u{fffd}\u{fffd}\r\n",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut arguments = arguments.to_vec();
        arguments.push("a@b.example");
        let output = sendmail(&daemon, &arguments, input);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let content = content(&hop, number + 1);
        assert!(content.ends_with(end), "{input:?}: {content}");
    }
}

#[test]
fn verbose_says_what_becomes_of_it() {
    let hop = Hop::start();
    let mut daemon = Setup::relay_to(hop.address).start();
    let output = sendmail(&daemon, &["-v", "a@b.example", "c@b.example"], b"\nx\n");
    let text = said(&output);
    assert!(
        text.contains("for 2 recipients are on disk") && text.contains("has taken it"),
        "{text}"
    );
    let output = sendmail(&daemon, &["-v", "-q"], b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    daemon.stop();
    let output = sendmail(&daemon, &["-q"], b"");
    assert_eq!(output.status.code(), Some(69), "{}", said(&output));
    assert!(said(&output).contains("no daemon"), "{}", said(&output));
}

#[test]
fn input_that_is_none() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]);
        sendmail_by(command, &daemon, &["a@b.example"], b"")
    };
    let output = shell("exec \"$@\" </");
    assert_eq!(output.status.code(), Some(74), "{}", said(&output));
    assert!(said(&output).contains("directory"), "{}", said(&output));
    assert_nothing_left(&daemon);
    // A closed one reads as an empty one, for every sendmail.
    let output = shell("exec \"$@\" <&-");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    hop.wait_for_mails(1);
    // A writer that dies leaves an end of input: there is nothing else to see.
    let output =
        shell("(printf 'Subject: s\\n\\nhalf'; kill -9 $(exec sh -c 'echo $PPID')) | \"$@\"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(content(&hop, 2).ends_with("\r\n\r\nhalf\r\n"));
}

#[test]
fn settings_that_are_missing_or_broken() {
    let daemon = without_daemon(Setup::relay_to(free_address()));
    let missing = daemon.dir.path().join("missing.toml");
    assert_refused(
        &daemon,
        &["-C", missing.to_str().unwrap(), "a@b.example"],
        b"\nx\n",
        78,
        "missing.toml",
    );
    fs::write(daemon.config(), "[paths]\npostofice = \"x\"\n").unwrap();
    assert_refused(&daemon, &["a@b.example"], b"\nx\n", 78, "postofice");
}

#[test]
fn a_file_size_limit_ends_nothing() {
    let daemon = without_daemon(Setup::relay_to(free_address()));
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 8; exec \"$@\"", "sh"]);
    let text = format!("Subject: s\n\n{}", "x\n".repeat(50_000));
    let output = sendmail_by(limited, &daemon, &["a@b.example"], text.as_bytes());
    assert_eq!(output.status.code(), Some(73), "{}", said(&output));
    assert!(
        said(&output).contains("file too large"),
        "{}",
        said(&output)
    );
    assert_nothing_left(&daemon);
}

#[test]
fn a_full_disk_is_a_reason_to_try_later() {
    let daemon = Setup::relay_to(free_address()).prepare(scratch_dir());
    let Some(_mount) = Mount::at_postoffice(daemon.dir.path(), 4 << 20) else {
        return crate::harness::skip("a file system of its own needs root");
    };
    make_directories(&daemon.dir.path().join("postoffice"));
    let text = format!("Subject: s\n\n{}", "x".repeat(78) + "\n").repeat(70_000);
    assert_refused(
        &daemon,
        &["a@b.example"],
        text.as_bytes(),
        75,
        "No space left",
    );
    let smtp = format!(
        "EHLO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n{}.\r\nQUIT\r\n",
        text.replace('\n', "\r\n")
    );
    let output = sendmail(&daemon, &["-bs"], smtp.as_bytes());
    assert!(said(&output).contains("\r\n452 "), "{}", said(&output));
    assert_nothing_left(&daemon);
    let output = sendmail(&daemon, &["a@b.example"], b"Subject: s\n\nx\n");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn directories_that_are_not_ours_to_write() {
    let daemon = without_daemon(Setup::relay_to(free_address()));
    let public = daemon.dir.path().join("postoffice/public");
    let Some(_mount) = crate::harness::mount::read_only(&public) else {
        return crate::harness::skip("a read-only mount needs root");
    };
    assert_refused(&daemon, &["a@b.example"], b"\nx\n", 73, "Read-only");
    let Some(nobody) = person::as_nobody(&daemon) else {
        return;
    };
    drop(_mount);
    let output = sendmail_by(nobody, &daemon, &["a@b.example"], b"\nx\n");
    assert_eq!(output.status.code(), Some(73), "{}", said(&output));
    assert!(
        said(&output).contains("postoffice/public: Permission denied"),
        "{}",
        said(&output)
    );
}

/// All three are the same, and the first alone is enough to submit.
#[test]
fn the_small_program_the_whole_one_and_a_link_to_it() {
    let daemon = without_daemon(Setup::relay_to(free_address()));
    let bin = daemon.dir.path().join("elsewhere");
    fs::create_dir(&bin).unwrap();
    let (alone, link) = (bin.join("alone"), daemon.dir.path().join("sendmail"));
    fs::copy(PROGRAM, &alone).unwrap();
    std::os::unix::fs::symlink(binary().get_program(), &link).unwrap();
    let by_path = |path: &Path, arguments: &[&str]| {
        let mut command = Command::new(path);
        command.args(arguments);
        program(command, &daemon, b"")
    };
    let first = by_path(&alone, &["-f", "a@a.example", "b@b.example"]);
    let second = by_path(&link, &["-f", "a@a.example", "b@b.example"]);
    let third = zmailer(&daemon, &["sendmail", "-f", "a@a.example", "b@b.example"]);
    for output in [&first, &second, &third] {
        assert_eq!(output.status.code(), Some(0), "{}", said(output));
    }
    let router = daemon.dir.path().join("postoffice/router");
    let files = fs::read_dir(router).unwrap();
    let texts: Vec<String> = files
        .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    assert_eq!(texts.len(), 3);
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    // What it cannot do alone it does not do at all.
    let output = by_path(&alone, &["-bp"]);
    assert_eq!(output.status.code(), Some(69), "{}", said(&output));
    let wanted = format!("{}, which this needs", bin.join("zmailer").display());
    assert!(said(&output).contains(&wanted), "{}", said(&output));
}

/// The owner of the file is who has sent it, whatever he says; he needs no other right.
#[test]
fn another_user_is_who_he_is() {
    let hop = Hop::start();
    let mut daemon = Setup::relay_to(hop.address).prepare(scratch_dir());
    let Some(nobody) = person::as_nobody(&daemon) else {
        return;
    };
    let config = fs::read_to_string(daemon.config()).unwrap();
    fs::write(
        daemon.config(),
        config.replace("user = \"root\"", "user = \"daemon\""),
    )
    .unwrap();
    daemon.restart();
    let output = sendmail_by(nobody, &daemon, &["-pESMTP", "-v", "a@b.example"], b"\nx\n");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("has taken it"), "{}", said(&output));
    let mail = &hop.wait_for_mails(1)[0];
    assert_eq!(mail.sender, "nobody@mx.test.example");
    let text = content(&hop, 1);
    assert!(
        text.starts_with("Received: from STDIN (nobody@mx.test.example)"),
        "{text}"
    );
    // What waits is not everybody's to see or to hurry.
    for arguments in [&["-bp"][..], &["-q"]] {
        let nobody = person::as_nobody(&daemon).unwrap();
        let output = sendmail_by(nobody, &daemon, arguments, b"");
        assert_eq!(output.status.code(), Some(77), "{}", said(&output));
        assert!(said(&output).contains("only root"), "{}", said(&output));
    }
    daemon.stop();
    let nobody = person::as_nobody(&daemon).unwrap();
    let output = sendmail_by(nobody, &daemon, &["a@b.example"], b"\nx\n");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let router = daemon.dir.path().join("postoffice/router");
    let file = fs::read_dir(router).unwrap().next().unwrap().unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn smtp_on_a_pipe_answers_errors_and_forgets_what_is_cut_off() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let dialogue =
        b"HELO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<x y>\r\nRCPT TO:<b@y.example>\r\n\
        FOO\r\nDATA\r\nhalf of a message\r\n";
    let output = sendmail(&daemon, &["-bs"], dialogue);
    let text = said(&output);
    for reply in ["\r\n501 5.1.3", "\r\n500 5.5.2", "\r\n354 "] {
        assert!(text.contains(reply), "{reply:?} in {text}");
    }
    assert_nothing_left(&daemon);
    assert!(hop.mails().is_empty());
    let dialogue = b"EHLO x\r\nMAIL FROM:<a@x.example> ENVID=1 RET=HDRS\r\n\
        RCPT TO:<b@y.example> NOTIFY=NEVER ORCPT=rfc822;b@z.example\r\nDATA\r\n\r\nx\r\n.\r\n\
        MAIL FROM:<>\r\nRCPT TO:<c@y.example>\r\nDATA\r\n\r\ny\r\n.\r\nQUIT\r\n";
    let output = sendmail(&daemon, &["-bs"], dialogue);
    assert_eq!(
        said(&output).matches("\r\n250 2.0.0 ").count(),
        2,
        "{}",
        said(&output)
    );
    hop.wait_for_mails(2);
}
