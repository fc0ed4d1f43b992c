//! The allocator of the process: mimalloc where a process serves for long, the system's where it ends at
//! once. Setting mimalloc up costs more than a third of what `sendmail` needs in all.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU8, Ordering};

use mimalloc::MiMalloc;

/// Commands that serve.
const SERVING: [&[u8]; 3] = [b"run", b"agent", b"demo"];

const UNDECIDED: u8 = 0;
const SHORT: u8 = 1;
const LONG: u8 = 2;

static KIND: AtomicU8 = AtomicU8::new(UNDECIDED);

/// Chosen once a process, at its first allocation.
pub struct Allocator;

fn is_long() -> bool {
    match KIND.load(Ordering::Relaxed) {
        UNDECIDED => decide(),
        kind => kind == LONG,
    }
}

/// Reads the command line without allocating. The first allocation comes before any thread is started, so
/// nobody else decides at the same time.
#[cold]
fn decide() -> bool {
    let mut buf = [0; 256];
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let mode = rustix::fs::Mode::empty();
    let count = rustix::fs::open(c"/proc/self/cmdline", flags, mode)
        .and_then(|file| rustix::io::read(&file, &mut buf))
        .unwrap_or(0);
    let mut words = buf
        .get(..count)
        .unwrap_or_default()
        .split(|byte| *byte == 0);
    let command = words.nth(1).unwrap_or_default();
    let long = SERVING.contains(&command);
    KIND.store(if long { LONG } else { SHORT }, Ordering::Relaxed);
    long
}

// SAFETY: every call goes to the same one of two allocators for the life of the process, each of which
// keeps the contract for what it was given.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        unsafe {
            if is_long() {
                MiMalloc.alloc(layout)
            } else {
                System.alloc(layout)
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        unsafe {
            if is_long() {
                MiMalloc.alloc_zeroed(layout)
            } else {
                System.alloc_zeroed(layout)
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on, to the allocator that gave the block.
        unsafe {
            if is_long() {
                MiMalloc.dealloc(block, layout);
            } else {
                System.dealloc(block, layout);
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise is passed on, to the allocator that gave the block.
        unsafe {
            if is_long() {
                MiMalloc.realloc(block, layout, size)
            } else {
                System.realloc(block, layout, size)
            }
        }
    }
}
