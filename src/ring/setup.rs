//! Creating a ring, and saying what is missing where that fails.

use std::fmt;
use std::io;

use io_uring::IoUring;

use super::Ring;
use crate::sys::limits;

/// Entries of the ring that [`probe`] asks for.
const PROBE_ENTRIES: u32 = 8;

/// Fewer completions than this are no ring to work with.
const COMPLETIONS_MIN: u32 = 128;

/// The kernel refused a ring; the text names the call, the cause and the cure.
#[derive(Debug)]
pub struct SetupError {
    call: &'static str,
    error: io::Error,
    /// Content of `kernel.io_uring_disabled`, if it can be read.
    disabled: Option<String>,
    /// Bytes of memory that may be locked; none: as many as there are.
    locked_bytes_max: Option<u64>,
}

impl SetupError {
    /// `call` failed with `error`.
    #[must_use]
    pub fn new(call: &'static str, error: io::Error) -> Self {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
        Self {
            call,
            error,
            disabled: disabled.map(|text| text.trim().to_owned()),
            locked_bytes_max: limits::locked_memory(),
        }
    }

    /// The kernel had no memory for us, most likely because of RLIMIT_MEMLOCK.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        self.error.raw_os_error() == Some(libc::ENOMEM)
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = self.error.raw_os_error().unwrap_or(0);
        write!(f, "{} failed: {} (errno {errno}); ", self.call, self.error)?;
        if let (true, Some(bytes)) = (self.is_memory(), self.locked_bytes_max) {
            return write!(
                f,
                "RLIMIT_MEMLOCK = {bytes} bytes is too small for rings: raise it (ulimit -l; systemd: \
                 LimitMEMLOCK=64M; a container: --ulimit memlock=-1) or grant CAP_IPC_LOCK"
            );
        }
        match self.disabled.as_deref() {
            Some("0") => write!(f, "kernel.io_uring_disabled = 0, ")?,
            Some(value) => write!(f, "kernel.io_uring_disabled = {value} (must be 0), ")?,
            None => write!(f, "kernel.io_uring_disabled cannot be read, ")?,
        }
        write!(
            f,
            "Linux 6.1 or newer is needed; in a container allow io_uring_setup, io_uring_enter and \
             io_uring_register (Docker: --security-opt seccomp=PROFILE)"
        )
    }
}

impl std::error::Error for SetupError {}

/// Asks for a small ring and gives it back: says what is missing before any thread depends on one.
///
/// # Errors
/// When the kernel refuses it.
pub fn probe() -> Result<(), SetupError> {
    build(PROBE_ENTRIES, 2 * PROBE_ENTRIES)
        .map(drop)
        .map_err(|error| SetupError::new("io_uring_setup", error))
}

/// A ring of the calling thread, with `entries` submissions and `completions` completions; with fewer
/// when RLIMIT_MEMLOCK does not allow more: slower, and [`Ring::is_reduced`].
///
/// # Errors
/// When the kernel refuses it.
pub fn setup(entries: u32, completions: u32) -> Result<Ring, SetupError> {
    let (mut entries, mut wanted) = (entries, completions);
    loop {
        match build(entries, wanted) {
            Ok(uring) => return Ok(Ring::new(uring, wanted < completions)),
            Err(error) => {
                let error = SetupError::new("io_uring_setup", error);
                if !error.is_memory() || wanted <= COMPLETIONS_MIN {
                    return Err(error);
                }
                (entries, wanted) = ((entries / 2).max(1), wanted / 2);
            }
        }
    }
}

fn build(entries: u32, completions: u32) -> io::Result<IoUring> {
    let build = |no_array: bool| {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(completions);
        if no_array {
            builder.setup_no_sqarray();
        }
        builder.build(entries)
    };
    // NO_SQARRAY came with 6.6; without it the ring works the same with one indirection more.
    build(true).or_else(|_| build(false))
}
