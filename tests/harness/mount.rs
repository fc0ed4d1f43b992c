//! A file system of its own, for tests that fill or freeze one; none where mounting is not allowed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An ext4 file system in a file, mounted at `postoffice` below a directory.
pub struct Mount {
    point: PathBuf,
}

impl Mount {
    /// Makes and mounts one of `bytes` bytes.
    pub fn at_postoffice(dir: &Path, bytes: u64) -> Option<Self> {
        let (image, point) = (dir.join("image"), dir.join("postoffice"));
        fs::create_dir(&point).expect("a scratch directory");
        let file = fs::File::create(&image).expect("a scratch file");
        file.set_len(bytes).expect("a sparse file");
        let run = |program: &str, words: &[&OsStr]| {
            let output = Command::new(program).args(words).output();
            output.is_ok_and(|output| output.status.success())
        };
        let made = run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image.as_ref()]);
        let options: [&OsStr; 4] = [
            "-o".as_ref(),
            "loop".as_ref(),
            image.as_ref(),
            point.as_ref(),
        ];
        (made && run("mount", &options)).then_some(Self { point })
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
