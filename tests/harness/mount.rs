//! A file system of its own, for tests that fill or freeze one; none where mounting is not allowed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::wait_for;

/// An ext4 file system in a file, mounted at `postoffice` below a directory.
pub struct Mount {
    image: PathBuf,
    point: PathBuf,
}

fn run(program: &str, words: &[&OsStr]) -> bool {
    let output = Command::new(program).args(words).output();
    output.is_ok_and(|output| output.status.success())
}

impl Mount {
    /// Makes and mounts one of `bytes` bytes.
    pub fn at_postoffice(dir: &Path, bytes: u64) -> Option<Self> {
        Self::with_inodes(dir, bytes, bytes >> 14)
    }

    /// Likewise, with so many inodes.
    pub fn with_inodes(dir: &Path, bytes: u64, inodes: u64) -> Option<Self> {
        let (image, point) = (dir.join("image"), dir.join("postoffice"));
        fs::create_dir(&point).expect("a scratch directory");
        let file = fs::File::create(&image).expect("a scratch file");
        file.set_len(bytes).expect("a sparse file");
        let inodes = inodes.to_string();
        let words = ["-q", "-F", "-N", &inodes].map(OsStr::new);
        let made = run("mkfs.ext4", &[&words[..], &[image.as_ref()]].concat());
        let mount = Self { image, point };
        (made && mount.mount()).then_some(mount)
    }

    fn mount(&self) -> bool {
        let words = ["-o", "loop,errors=remount-ro"].map(OsStr::new);
        let places: [&OsStr; 2] = [self.image.as_ref(), self.point.as_ref()];
        run("mount", &[words, places].concat())
    }

    /// An error of the file system makes it read only, as an operator meets it; false where the kernel
    /// cannot be asked for one.
    pub fn break_down(&self) -> bool {
        let output = Command::new("findmnt")
            .args(["-n", "-o", "SOURCE"])
            .arg(&self.point)
            .output();
        let device = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let device = device.unwrap_or_default();
        let name = device.trim().trim_start_matches("/dev/");
        fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "a test").is_ok()
    }

    /// Checks it and mounts it again.
    pub fn repair(&self) {
        // The agent of a daemon that was killed ends a moment after it.
        wait_for("nobody to use the file system", || {
            run("umount", &[self.point.as_ref()]).then_some(())
        });
        // Its exit code says that there was something to repair.
        run("e2fsck", &["-fy".as_ref(), self.image.as_ref()]);
        assert!(self.mount(), "it does not mount again");
    }

    /// From now on (until `false`) nothing is written.
    pub fn freeze(&self, on: bool) {
        let flag = if on { "-f" } else { "-u" };
        let status = Command::new("fsfreeze").arg(flag).arg(&self.point).status();
        assert!(status.expect("fsfreeze").success(), "fsfreeze {flag}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.point).output();
        let _ = Command::new("umount").arg("-l").arg(&self.point).output();
    }
}

/// A directory that is mounted on itself, read only.
pub struct ReadOnly {
    point: PathBuf,
}

/// Makes a directory read only for everybody, root included; none where mounting is not allowed.
pub fn read_only(dir: &Path) -> Option<ReadOnly> {
    let mount = |options: &str| {
        let output = Command::new("mount")
            .args(["-o", options])
            .arg(dir)
            .arg(dir)
            .output();
        output.is_ok_and(|output| output.status.success())
    };
    let point = dir.to_owned();
    mount("bind")
        .then(|| ReadOnly { point })
        .filter(|_| mount("remount,bind,ro"))
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.point).output();
    }
}
