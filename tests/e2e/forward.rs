//! `.forward` files: read with the rights of their owner by a daemon that has none, whatever stands in their place.

use std::fs;
use std::os::unix::fs::{chown, symlink};

use crate::harness::site::{JOE, Plan, ROB};

const LETTER: &str = "From: Ann <ann@a.example>\r\nSubject: hello\r\n\r\ntext\r\n";

#[test]
fn a_private_file_in_a_private_home_is_followed() {
    let Some(plan) = Plan::new() else { return };
    plan.file(
        "home/zmjoe/.forward",
        "\\zmjoe, far@far.example\n|\"BIN/with space\" joe\n",
        JOE,
        0o600,
    );
    let site = plan.start();
    site.send(&["zmjoe"], LETTER);
    let told = site.told("joe");
    assert!(
        told.starts_with(&format!("uid={JOE} gid={JOE} groups={JOE}\n")),
        "{told}"
    );
    let home = format!("HOME={}\n", site.path("home/zmjoe").display());
    assert!(
        told.contains(&home) && told.contains("\nINRCPT=zmjoe@home.example\n"),
        "{told}"
    );
    assert_eq!(
        site.hop.wait_for_mails(1)[0].recipients,
        ["far@far.example"]
    );
    site.daemon.wait_until_empty();
    assert_eq!(site.mails("zmjoe").len(), 1);
}

/// Nothing that a user puts in the place of his `.forward` keeps the daemon waiting, or shows him what he may not see.
#[test]
fn what_is_no_good_file_is_not_followed() {
    let Some(plan) = Plan::new() else { return };
    plan.file("secret", "spy@far.example\n", 0, 0o600);
    plan.file("others", "spy@far.example\n", JOE, 0o600);
    let site = plan.start();
    let forward = site.path("home/zmrob/.forward");
    let cases: &[(&str, &dyn Fn())] = &[
        ("a pipe", &|| {
            let made = std::process::Command::new("mkfifo").arg(&forward).status();
            assert!(made.unwrap().success());
            chown(&forward, Some(ROB), Some(ROB)).unwrap();
        }),
        ("a link to a file of root", &|| {
            symlink(site.path("secret"), &forward).unwrap()
        }),
        ("a link to a file of another user", &|| {
            symlink(site.path("others"), &forward).unwrap()
        }),
        ("a link to a device", &|| {
            symlink("/dev/zero", &forward).unwrap()
        }),
        ("a link to itself", &|| {
            symlink(".forward", &forward).unwrap()
        }),
        ("a directory", &|| fs::create_dir(&forward).unwrap()),
        ("a huge file", &|| {
            let file = fs::File::create(&forward).unwrap();
            file.set_len(1 << 30).unwrap();
            chown(&forward, Some(ROB), Some(ROB)).unwrap();
        }),
    ];
    for (number, (what, make)) in cases.iter().enumerate() {
        make();
        site.send(&["zmrob"], LETTER);
        site.daemon.wait_until_empty();
        assert_eq!(site.mails("zmrob").len(), number + 1, "{what}");
        if forward.is_dir() {
            fs::remove_dir(&forward).unwrap();
        } else {
            fs::remove_file(&forward).unwrap();
        }
    }
    assert!(site.hop.mails().is_empty(), "nothing has gone elsewhere");
}
