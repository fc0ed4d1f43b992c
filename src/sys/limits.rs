//! Limits of the process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one and gives it back.
#[must_use]
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_err() {
        return limit.current.unwrap_or(u64::MAX);
    }
    limit.maximum.unwrap_or(u64::MAX)
}

/// Raises the limit of locked memory: as root to none, else to the hard limit. Linux 6.14 and newer count
/// rings of unprivileged users towards it. What could not be raised shows when a ring is refused.
pub fn raise_locked_memory() {
    let none = Rlimit {
        current: None,
        maximum: None,
    };
    if setrlimit(Resource::Memlock, none).is_err() {
        let maximum = getrlimit(Resource::Memlock).maximum;
        let hard = Rlimit {
            current: maximum,
            maximum,
        };
        // Refused, the limit stays as it is.
        let _ = setrlimit(Resource::Memlock, hard);
    }
}

/// The limit of locked memory in bytes; none: unlimited.
#[must_use]
pub fn locked_memory() -> Option<u64> {
    getrlimit(Resource::Memlock).current
}

/// Processors this process may use.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
