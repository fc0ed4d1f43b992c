//! The pick-up of `router/`: hostile files, crashes, many and large files.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::daemon::{Daemon, Setup, free_address};
use crate::harness::hop::Hop;
use crate::harness::person;
use crate::harness::sendmail::{sendmail, zmailer};
use crate::harness::{skip, wait_for};

fn postoffice(daemon: &Daemon) -> PathBuf {
    daemon.dir.path().join("postoffice")
}

fn router(daemon: &Daemon) -> PathBuf {
    postoffice(daemon).join("router")
}

fn names(dir: &str, daemon: &Daemon) -> Vec<String> {
    let entries =
        fs::read_dir(postoffice(daemon).join(dir)).expect("a directory of the postoffice");
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Puts a file there as submitters do.
fn put(daemon: &Daemon, name: impl AsRef<Path>, bytes: &[u8]) {
    let hidden = postoffice(daemon).join("public/under-way");
    fs::write(&hidden, bytes).unwrap();
    fs::rename(hidden, router(daemon).join(name)).unwrap();
}

fn wait_for_postman(daemon: &Daemon, count: usize) -> Vec<String> {
    wait_for(&format!("{count} odd files"), || {
        let mut found = names("postman", daemon);
        found.sort();
        (found.len() == count).then_some(found)
    })
}

#[test]
fn hostile_files_go_to_postman_and_harm_nobody() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let (router, secret) = (router(&daemon), daemon.dir.path().join("secret"));
    fs::write(&secret, "to <thief@x.example>\nenv-end\n\nsecret\n").unwrap();
    symlink(&secret, router.join("1")).unwrap();
    fs::hard_link(&secret, router.join("2")).unwrap();
    fs::create_dir(router.join("dir")).unwrap();
    let made = Command::new("mkfifo").arg(router.join("fifo")).status();
    assert!(made.unwrap().success());
    fs::write(router.join("3"), "from <a@x.example>\nfrm <b@x>\nenv-end\n").unwrap();
    fs::write(router.join("4"), "from <a@x.example>\nto <b@").unwrap();
    fs::write(
        router.join("5"),
        "from <a@x.example>\nenv-end\nSubject: nobody\n\n",
    )
    .unwrap();
    fs::write(
        router.join("6"),
        "to <good@x.example>\nenv-end\nSubject: s\n\ntext\n",
    )
    .unwrap();
    // Of somebody the system does not know.
    let foreign = postoffice(&daemon).join("public/8");
    fs::write(&foreign, "to <foreign@x.example>\nenv-end\n\nx\n").unwrap();
    let is_foreign = std::os::unix::fs::chown(&foreign, Some(64_321), None).is_ok();
    if is_foreign {
        fs::rename(foreign, router.join("8")).unwrap();
    }
    // Not seen: a name that begins with a dot is being written.
    fs::write(
        router.join(".7"),
        "to <hidden@x.example>\nenv-end\n\ntext\n",
    )
    .unwrap();
    let mut found = wait_for_postman(&daemon, 7 + usize::from(is_foreign));
    if is_foreign {
        assert_eq!(found.remove(5), "rtr.8.noowner");
    }
    assert_eq!(
        found,
        [
            "rtr.1.notafile",
            "rtr.2.linked",
            "rtr.3.badenvelope",
            "rtr.4.badenvelope",
            "rtr.5.badenvelope",
            "rtr.dir.notafile",
            "rtr.fifo.notafile"
        ]
    );
    assert_eq!(hop.wait_for_mails(1)[0].recipients, ["good@x.example"]);
    daemon.wait_until_empty();
    assert_eq!(hop.mails().len(), 1);
    assert!(secret.exists());
    assert!(
        daemon.stderr().contains("frm"),
        "the reason is told: {}",
        daemon.stderr()
    );
}

/// The limits of SMTP hold for files as well: size, and hosts passed.
#[test]
fn files_beyond_the_limits_go_to_postman() {
    let daemon = Setup::relay_to(free_address())
        .with("smtpserver", "message_size_max = \"1MiB\"")
        .start();
    let envelope = "to <a@x.example>\nenv-end\n";
    let big = "0123456\n".repeat(1 << 18);
    put(
        &daemon,
        "big",
        format!("{envelope}Subject: s\n\n{big}").as_bytes(),
    );
    let passed = "Received: from a by b; Thu, 1 Jan 1970 00:00:00 +0000\n".repeat(1000);
    put(
        &daemon,
        "loop",
        format!("{envelope}{passed}\nx\n").as_bytes(),
    );
    let found = wait_for_postman(&daemon, 2);
    assert_eq!(found, ["rtr.big.toolarge", "rtr.loop.badmessage"]);
}

/// A file that was committed and not yet removed when the power failed must not become a second
/// message. The crash is a kill -9 with the files put back, which is what an unsynced removal is.
#[test]
fn a_file_that_was_taken_before_a_crash_is_only_removed() {
    let mut daemon = Setup::relay_to(([127, 0, 0, 1], 9).into()).start();
    daemon.stop();
    let kept = daemon.dir.path().join("kept");
    fs::create_dir(&kept).unwrap();
    for number in 0..10 {
        sendmail(
            &daemon,
            &[&format!("u{number}@b.example")],
            b"Subject: s\n\ntext\n",
        );
    }
    let files: Vec<String> = names("router", &daemon);
    assert_eq!(files.len(), 10);
    // A directory in which nothing can be removed: what a cut before the removal leaves behind.
    let _mount = match crate::harness::mount::read_only(&router(&daemon)) {
        Some(mount) => mount,
        None => return skip("a read-only mount needs root"),
    };
    daemon.restart();
    wait_for("ten messages", || {
        (daemon.status()["queue"]["messages"] == 10).then_some(())
    });
    daemon.kill();
    drop(_mount);
    daemon.restart();
    wait_for("an empty router/", || {
        names("router", &daemon).is_empty().then_some(())
    });
    assert_eq!(daemon.status()["queue"]["messages"], 10);
    daemon.stop();
}

/// The envelope of a file goes into commands to the next hop: nothing in it may become another command
/// or another parameter.
#[test]
fn envelopes_that_would_say_something_else_at_the_next_hop() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    for (number, file) in [
        &b"to \"a\n RCPT TO:<thief@x.example>\n\"@y.example\nenv-end\n\nx\n"[..],
        b"to <a\x01@y.example>\nenv-end\n\nx\n",
        b"to <a b@y.example>\nenv-end\n\nx\n",
        b"envid x AUTH=<>\nto <a@y.example>\nenv-end\n\nx\n",
        b"todsn ORCPT=rfc822;a\x0bb\nto <a@y.example>\nenv-end\n\nx\n",
        b"env-end\nTo: joe doe, a@y.example\n\nx\n",
        b"user no-such-user\nto <a@y.example>\nenv-end\n\nx\n",
    ]
    .into_iter()
    .enumerate()
    {
        put(&daemon, number.to_string(), file);
    }
    let found = wait_for_postman(&daemon, 7);
    assert!(
        found.iter().all(|name| name.ends_with(".badenvelope")),
        "{found:?}"
    );
    assert!(hop.mails().is_empty());
}

#[test]
fn odd_names_and_odd_things() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let good = b"to <a@x.example>\nenv-end\nSubject: s\n\nx\n";
    // Names say nothing: these are good files.
    put(&daemon, OsStr::from_bytes(b"\xff\x01\n \xfe"), good);
    put(&daemon, "n".repeat(255), good);
    hop.wait_for_mails(2);
    let _socket = UnixListener::bind(router(&daemon).join("socket")).unwrap();
    symlink("/nonexistent", router(&daemon).join("dangling")).unwrap();
    symlink(".", router(&daemon).join("loop")).unwrap();
    put(&daemon, "empty", b"");
    put(&daemon, "n".repeat(255), b"nonsense\n");
    put(&daemon, OsStr::from_bytes(b"\xff\n"), b"nonsense\n");
    let made = Command::new("mknod")
        .arg(router(&daemon).join("null"))
        .args(["c", "1", "3"])
        .status();
    let devices = usize::from(made.is_ok_and(|status| status.success()));
    let found = wait_for_postman(&daemon, 6 + devices);
    let long = format!("rtr.{}.badenvelope", "n".repeat(200));
    for name in [
        "rtr.socket.notafile",
        "rtr.dangling.notafile",
        "rtr.loop.notafile",
        "rtr.empty.badenvelope",
        &long,
    ] {
        assert!(
            found.iter().any(|found| found == name),
            "{name} in {found:?}"
        );
    }
    // The same names again: nothing there is overwritten.
    put(&daemon, "empty", b"other\n");
    let found = wait_for_postman(&daemon, 7 + devices);
    assert!(
        found.iter().any(|name| name == "rtr.empty.badenvelope.1"),
        "{found:?}"
    );
    assert_eq!(hop.mails().len(), 2);
}

/// What was lost: a file that was renamed over one that had been taken and not yet removed went with it,
/// unread. Here the daemon may not remove anything until the second one is there.
#[test]
fn a_name_that_is_used_again_is_another_file() {
    let hop = Hop::start();
    let mut daemon = Setup::relay_to(hop.address).prepare(crate::harness::daemon::scratch_dir());
    if person::as_nobody(&daemon).is_none() {
        return;
    }
    let config = fs::read_to_string(daemon.config()).unwrap();
    let config = config.replace("user = \"root\"", "user = \"daemon\"");
    fs::write(daemon.config(), config).unwrap();
    daemon.restart();
    let owner = fs::metadata(router(&daemon)).unwrap();
    let give = |uid| std::os::unix::fs::chown(router(&daemon), Some(uid), None).unwrap();
    let mode = |mode| fs::set_permissions(router(&daemon), Permissions::from_mode(mode)).unwrap();
    give(0);
    mode(0o755);
    put(&daemon, "same", b"to <one@x.example>\nenv-end\n\nx\n");
    hop.wait_for_mails(1);
    wait_for("a removal that fails", || {
        daemon.stderr().contains("cannot be removed").then_some(())
    });
    put(&daemon, "same", b"to <two@x.example>\nenv-end\n\nx\n");
    give(owner.uid());
    mode(owner.mode());
    assert_eq!(hop.wait_for_mails(2)[1].recipients, ["two@x.example"]);
    daemon.wait_until_empty();
    assert_eq!(names("router", &daemon), [""; 0]);
    assert_eq!(hop.mails().len(), 2);
}

/// A program that does not know of `public/` writes in place. What it has not finished makes no sense
/// yet, and went to postman/ under its hands.
#[test]
fn a_file_that_is_still_being_written_is_left_until_it_makes_sense() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let began = Instant::now();
    let mut file = fs::File::create(router(&daemon).join("1")).unwrap();
    file.write_all(b"to <slow@x.example").unwrap();
    // Names are read in one go, so the other has been looked at before this one arrives.
    put(&daemon, "2", b"to <fast@x.example>\nenv-end\n\nx\n");
    hop.wait_for_mails(1);
    if began.elapsed() > Duration::from_millis(1500) {
        return skip("this machine is too slow to show what is still being written");
    }
    file.write_all(b">\nenv-end\n\nx\n").unwrap();
    drop(file);
    let mails = hop.wait_for_mails(2);
    assert_eq!(mails[1].recipients, ["slow@x.example"]);
    assert!(names("postman", &daemon).is_empty());
}

/// Things of other users, with a daemon that is not root: what it cannot move away it complains about
/// once, and serves the others.
#[test]
fn what_other_users_put_there() {
    let hop = Hop::start();
    let mut daemon = Setup::relay_to(hop.address).prepare(crate::harness::daemon::scratch_dir());
    let Some(mut nobody) = person::as_nobody(&daemon) else {
        return;
    };
    let config = fs::read_to_string(daemon.config()).unwrap();
    fs::write(
        daemon.config(),
        config.replace("user = \"root\"", "user = \"daemon\""),
    )
    .unwrap();
    daemon.restart();
    let claims = "rcvdfrom bank.example ([192.0.2.7])\nwith ESMTP\nuser root\nfrom <me@a.example>\n\
        to <a@x.example>\nenv-end\n\nx\n";
    let script = format!(
        "cd '{}'; mkdir dir; touch dir/file; echo 'to <x@y>' >.u; chmod 0 .u; mv .u unreadable; \
         printf '{claims}' >../public/c; mv ../public/c claims; ln -s /etc/passwd link; mkfifo fifo",
        router(&daemon).display(),
    );
    assert!(
        nobody
            .args(["sh", "-c", &script])
            .status()
            .unwrap()
            .success()
    );
    let mail = &hop.wait_for_mails(1)[0];
    // `from` is everybody's to name, the rest is not; the owner is told in any case.
    assert_eq!(mail.sender, "me@a.example");
    let text = String::from_utf8_lossy(&mail.content).into_owned();
    assert!(
        text.starts_with("Received: from STDIN (nobody@mx.test.example)"),
        "{text}"
    );
    wait_for("its line in the log", || {
        let line = "client=local helo=nobody proto=STDIN";
        daemon.mail_log().contains(line).then_some(())
    });
    let found = wait_for_postman(&daemon, 3);
    assert_eq!(
        found,
        [
            "rtr.fifo.notafile",
            "rtr.link.notafile",
            "rtr.unreadable.unreadable"
        ]
    );
    // Each submission makes it look again; the directory that it cannot move is known.
    for _ in 0..20 {
        sendmail(&daemon, &["b@x.example"], b"\nx\n");
    }
    hop.wait_for_mails(21);
    // A message may be delivered before its file is removed.
    wait_for("the directory to be all that is left", || {
        (names("router", &daemon) == ["dir"]).then_some(())
    });
    let complaints = daemon.stderr().matches("it is left alone").count();
    assert_eq!(complaints, 1, "{}", daemon.stderr());
}

#[test]
fn a_trusted_owner_may_say_where_it_came_from_and_for_whom() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let claims = |more: &str| {
        format!(
            "{more}rcvdfrom mx.a.example ([192.0.2.7])\nwith ESMTP\nto <a@x.example>\nenv-end\n\nx\n"
        )
    };
    put(&daemon, "1", claims("").as_bytes());
    hop.wait_for_mails(1);
    put(&daemon, "2", claims("external\n").as_bytes());
    hop.wait_for_mails(2);
    put(&daemon, "3", claims("user daemon\n").as_bytes());
    let mails = hop.wait_for_mails(3);
    let log = wait_for("three lines", || {
        let log = daemon.mail_log();
        (log.matches("event=accepted").count() == 3).then_some(log)
    });
    assert_eq!(log.matches("client=192.0.2.7 ").count(), 2, "{log}");
    assert_eq!(log.matches("proto=ESMTP ").count(), 2, "{log}");
    for mail in mails.iter().take(2) {
        let text = String::from_utf8_lossy(&mail.content).into_owned();
        let trace =
            "Received: from mx.a.example ([192.0.2.7])\r\n\tby mx.test.example with ESMTP id ";
        assert!(text.starts_with(trace), "{text}");
        assert!(text.contains("\r\n\tfor <a@x.example>; "), "{text}");
    }
    let text = String::from_utf8_lossy(&mails[2].content).into_owned();
    if text.contains("(root@") {
        assert_eq!(mails[2].sender, "daemon@mx.test.example");
    }
    assert!(text.contains("(daemon@mx.test.example)"), "{text}");
}

/// Between the commit of a message and the removal of its file a crash must neither lose nor double
/// it. Several crashes at different moments of 2,000 files.
#[test]
fn a_crash_during_pick_up_neither_loses_nor_doubles() {
    const FILES: usize = 2000;
    let mut setup = Setup::relay_to(free_address());
    setup.tail = "[[scheduler.rule]]\nmatch = \"*\"\nretry = [\"1h\"]\n".to_owned();
    let mut daemon = setup.start();
    daemon.stop();
    for number in 0..FILES {
        let text =
            format!("from <a@x.example>\nto <u{number}@y.example>\nenv-end\nSubject: s\n\nx\n");
        put(&daemon, number.to_string(), text.as_bytes());
    }
    for round in 0..6 {
        daemon.spawn();
        let enough = FILES * (5 - round) / 6;
        wait_for("some files to be taken", || {
            (names("router", &daemon).len() <= enough).then_some(())
        });
        daemon.kill();
    }
    daemon.restart();
    wait_for("an empty router/", || {
        names("router", &daemon).is_empty().then_some(())
    });
    let output = zmailer(&daemon, &["queue", "list", "--json"]);
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    let entries = object["entries"].as_array().unwrap();
    let recipients: BTreeSet<&str> = entries
        .iter()
        .filter_map(|entry| entry["recipients"][0]["recipient"].as_str())
        .collect();
    assert_eq!((entries.len(), recipients.len()), (FILES, FILES));
    assert!(names("postman", &daemon).is_empty());
}

/// Many large files wait: they are read one by one. All at a time would be 320 MiB and more.
#[test]
fn large_files_are_read_one_at_a_time() {
    const FILES: usize = 16;
    let hop = Hop::start();
    hop.script.lock().unwrap().forget_content = true;
    let mut daemon = Setup::relay_to(hop.address)
        .with("smtpserver", "message_size_max = \"64MiB\"")
        .start();
    daemon.stop();
    let line = "x".repeat(79) + "\n";
    let text = format!(
        "to <a@y.example>\nenv-end\nSubject: s\n\n{}",
        line.repeat((40 << 20) / 80)
    );
    for number in 0..FILES {
        put(&daemon, number.to_string(), text.as_bytes());
    }
    daemon.restart();
    hop.wait_for_mails(FILES);
    daemon.wait_until_empty();
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak_kib: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    // One is read and one is on its way to the spool, each as it was and as it is sent, and the allocator keeps some of
    // those before: far less than all of them.
    assert!(peak_kib < 384 << 10, "{peak_kib} KiB at the most");
}

/// What a power cut leaves where only the new name of a renamed file was synced: both.
#[test]
fn a_file_whose_name_in_public_came_back_is_taken() {
    let hop = Hop::start();
    let daemon = Setup::relay_to(hop.address).start();
    let public = postoffice(&daemon).join("public");
    fs::write(public.join("other"), "to <other@x.example>\n").unwrap();
    fs::write(public.join("old"), "to <b@x.example>\nenv-end\n\nx\n").unwrap();
    fs::hard_link(public.join("old"), router(&daemon).join("new")).unwrap();
    let mails = hop.wait_for_mails(1);
    assert_eq!(mails[0].recipients, ["b@x.example"]);
    daemon.wait_until_empty();
    assert_eq!(names("public", &daemon), ["other"]);
    assert!(names("router", &daemon).is_empty());
}
