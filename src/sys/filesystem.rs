//! What the spool stands on.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{StatVfsMountFlags, statfs, statvfs, syncfs};

/// File systems whose way to the disk is known: a sync of a file takes its new name along, one of the whole takes all.
const SYNCED_WHOLE: [&str; 3] = ["ext4", "xfs", "btrfs"];

/// A file system as the spool sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Its name.
    pub name: String,
    /// What an operator should know.
    pub warning: Option<&'static str>,
}

impl FileSystem {
    /// Whether nobody but this host is known to write to it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let local = ["ext4", "xfs", "btrfs", "tmpfs", "ramfs", "overlay", "zfs"];
        local.contains(&self.name.as_str())
    }
}

/// What a file system has left for who is not root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes.
    pub free_bytes: u64,
    /// Of so many.
    pub total_bytes: u64,
    /// Inodes.
    pub free_inodes: u64,
    /// Of so many; 0: it does not count them.
    pub total_inodes: u64,
    /// Nothing can be written.
    pub is_read_only: bool,
}

/// What the file system of a directory has left.
///
/// # Errors
/// Those of statvfs.
pub fn space(dir: &Path) -> io::Result<Space> {
    let found = statvfs(dir)?;
    Ok(Space {
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        free_inodes: found.f_favail,
        total_inodes: found.f_files,
        is_read_only: found.f_flag.contains(StatVfsMountFlags::RDONLY),
    })
}

/// Makes the name of a renamed file durable without opening its directory: on the named file systems
/// a sync of the file commits the transaction of its rename.
///
/// # Errors
/// Those of the sync.
pub fn sync_renamed(file: &File, dir: &Path) -> io::Result<()> {
    let found = of(dir)?;
    if SYNCED_WHOLE.contains(&found.name.as_str()) {
        file.sync_all()
    } else {
        Ok(syncfs(file)?)
    }
}

/// Whether [`sync_whole`] is known to make everything on the file system of a directory durable, names included.
#[must_use]
pub fn syncs_whole(dir: &Path) -> bool {
    of(dir).is_ok_and(|found| SYNCED_WHOLE.contains(&found.name.as_str()))
}

/// Makes everything durable that has been written to the file system of a file.
///
/// # Errors
/// Those of the syncs: among them errors of what others have written.
pub fn sync_whole(file: &File) -> io::Result<()> {
    syncfs(file)?;
    // ext4 without a journal writes directories and inodes behind the flush of syncfs itself. The file is clean: its
    // sync is a flush of the device.
    file.sync_data()
}

/// Whether nothing that was written back to disk for a file has failed, as far as it has been written.
///
/// # Errors
/// That of the disk.
#[allow(unsafe_code)]
pub fn was_written(file: &File) -> io::Result<()> {
    // SAFETY: numbers only; the descriptor lives as long as the borrow of the file.
    let result =
        unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WAIT_BEFORE) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The file system of a directory.
///
/// # Errors
/// Those of statfs.
pub fn of(dir: &Path) -> io::Result<FileSystem> {
    const VOID: &str = "it is in memory: sync is void, a power cut loses mail";
    const BARE: &str = "it has no journal: a power cut in the middle of a change of a directory can lose what was synced";
    let kind = statfs(dir)?.f_type;
    let (name, warning) = match kind {
        0xef53 => ("ext4", is_bare_ext4(dir).then_some(BARE)),
        0x5846_5342 => ("xfs", None),
        0x9123_683e => (
            "btrfs",
            Some("segments should not be copied on write: chattr +C"),
        ),
        0x0102_1994 => ("tmpfs", Some(VOID)),
        0x8584_58f6 => ("ramfs", Some(VOID)),
        0x794c_7630 => ("overlay", Some("a volatile overlay makes sync void")),
        0x6969 => ("nfs", Some("sync depends on the server")),
        0x6573_5546 => ("fuse", Some("sync depends on the file system behind it")),
        0x2fc1_2fc1 => ("zfs", Some("sync is as good as its log device")),
        other => {
            return Ok(FileSystem {
                name: format!("{other:#x}"),
                warning: None,
            });
        }
    };
    Ok(FileSystem {
        name: name.to_owned(),
        warning,
    })
}

/// Whether a directory is known to be on an ext4 file system without a journal.
fn is_bare_ext4(dir: &Path) -> bool {
    let writer = || {
        let device = fs::metadata(dir)?.dev();
        let (major, minor) = (libc::major(device), libc::minor(device));
        let device = fs::read_link(format!("/sys/dev/block/{major}:{minor}"))?;
        let name = device.file_name().unwrap_or_default();
        // The process that writes the journal.
        fs::read_to_string(Path::new("/sys/fs/ext4").join(name).join("journal_task"))
    };
    writer().is_ok_and(|writer: String| writer.trim() == "<none>")
}

/// Median time of `rounds` small writes with fdatasync in `dir`, in nanoseconds.
///
/// # Errors
/// Those of the file operations.
pub fn flush_ns(dir: &Path, rounds: usize) -> io::Result<u64> {
    let path = dir.join(".flush");
    let measured = measure(&path, rounds);
    fs::remove_file(&path)?;
    measured
}

fn measure(path: &Path, rounds: usize) -> io::Result<u64> {
    let mut file = File::create(path)?;
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(start.elapsed().as_nanos() as u64);
    }
    times.sort_unstable();
    Ok(times.get(times.len() / 2).copied().unwrap_or(0))
}
