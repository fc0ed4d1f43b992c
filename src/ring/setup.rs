//! Creating a ring, and saying what is missing where that fails.

use std::fmt;
use std::io;

use io_uring::IoUring;

use super::Ring;

/// The kernel refused a ring; the text names the call, the cause and the cure.
#[derive(Debug)]
pub struct SetupError {
    call: &'static str,
    error: io::Error,
    /// Content of `kernel.io_uring_disabled`, if it can be read.
    disabled: Option<String>,
}

impl SetupError {
    pub(super) fn new(call: &'static str, error: io::Error) -> Self {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
        Self {
            call,
            error,
            disabled: disabled.map(|text| text.trim().to_owned()),
        }
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = self.error.raw_os_error().unwrap_or(0);
        write!(f, "{} failed: {} (errno {errno}); ", self.call, self.error)?;
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

/// A ring of the calling thread, with `entries` submissions and `completions` completions.
///
/// # Errors
/// When the kernel refuses it.
pub fn setup(entries: u32, completions: u32) -> Result<Ring, SetupError> {
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
    let uring = build(true).or_else(|_| build(false));
    uring
        .map(Ring::new)
        .map_err(|error| SetupError::new("io_uring_setup", error))
}
