//! Provided buffers: memory that the kernel picks for what arrives, so that an idle connection holds
//! none.
//!
//! A buffer belongs to the kernel from [`Buffers::give`] (and [`Buffers::hand_over`]) until a completion
//! names it, and to us from then until the next `give`. The kernel learns of a buffer through a ring that
//! is registered with it. That ring counts as locked memory; where RLIMIT_MEMLOCK has no room for it,
//! each buffer is an operation instead: more work, the same meaning.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{opcode, squeue};

use super::setup::SetupError;
use super::{NOBODY, Ring};

/// The one buffer group of a ring.
pub(super) const GROUP: u16 = 0;

/// The buffers of one ring.
pub struct Buffers {
    memory: Vec<u8>,
    count: u16,
    size: usize,
    way: Way,
}

/// How the kernel learns of a buffer.
enum Way {
    Registered(Registered),
    /// By an operation for each of these, with the next [`Buffers::hand_over`].
    Operations(Vec<u16>),
}

impl Buffers {
    /// Makes `count` (a power of two) buffers of `size` bytes for the ring.
    ///
    /// # Errors
    /// When the kernel refuses memory or registration.
    pub fn register(ring: &Ring, count: u16, size: usize) -> Result<Self, SetupError> {
        assert!(
            count.is_power_of_two() && count <= 32_768,
            "the kernel wants a power of two"
        );
        let way = match Registered::new(ring, count) {
            Ok(registered) => Way::Registered(registered),
            Err(error) if error.is_memory() => Way::Operations(Vec::with_capacity(count.into())),
            Err(error) => return Err(error),
        };
        let mut buffers = Self {
            memory: vec![0; usize::from(count) * size],
            count,
            size,
            way,
        };
        for id in 0..count {
            buffers.give(id);
        }
        Ok(buffers)
    }

    /// RLIMIT_MEMLOCK left no room for the registered ring.
    #[must_use]
    pub fn is_reduced(&self) -> bool {
        matches!(self.way, Way::Operations(_))
    }

    /// Gives buffer `id` to the kernel.
    pub fn give(&mut self, id: u16) {
        let start = usize::from(id) * self.size;
        let address = self.memory[start..start + self.size].as_mut_ptr();
        match &mut self.way {
            Way::Registered(ring) => ring.put(id, address, self.size),
            Way::Operations(ids) => {
                debug_assert!(ids.len() < usize::from(self.count), "given once");
                ids.push(id);
            }
        }
    }

    /// Tells the kernel of what was given, where it does not see that by itself. Before each wait.
    pub fn hand_over(&mut self, ring: &mut Ring) {
        let Way::Operations(ids) = &mut self.way else {
            return;
        };
        for id in ids.drain(..) {
            let start = usize::from(id) * self.size;
            let address = self.memory[start..start + self.size].as_mut_ptr();
            let entry = opcode::ProvideBuffers::new(address, self.size as i32, 1, GROUP, id)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(NOBODY);
            ring.push(&entry);
        }
    }

    /// The first `len` bytes of buffer `id`, which a completion has named.
    #[must_use]
    pub fn bytes(&self, id: u16, len: usize) -> &[u8] {
        let start = usize::from(id) * self.size;
        &self.memory[start..start + len.min(self.size)]
    }
}

/// The ring through which the kernel learns of buffers.
struct Registered {
    entries: *mut BufRingEntry,
    entries_bytes: usize,
    count: u16,
    tail: u16,
}

impl Registered {
    fn new(ring: &Ring, count: u16) -> Result<Self, SetupError> {
        let bytes = usize::from(count) * size_of::<BufRingEntry>();
        // SAFETY: a fresh anonymous mapping; nothing else refers to it.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(SetupError::new("mmap", io::Error::last_os_error()));
        }
        // SAFETY: the mapping is page-aligned, holds `count` entries and lives as long as `Buffers`,
        // which its owner drops after the ring.
        let registered = unsafe {
            ring.uring
                .submitter()
                .register_buf_ring_with_flags(address as u64, count, GROUP, 0)
        };
        if let Err(error) = registered {
            // SAFETY: the mapping made above, not registered.
            unsafe { libc::munmap(address, bytes) };
            return Err(SetupError::new("io_uring_register(PBUF_RING)", error));
        }
        Ok(Self {
            entries: address.cast::<BufRingEntry>(),
            entries_bytes: bytes,
            count,
            tail: 0,
        })
    }

    fn put(&mut self, id: u16, address: *mut u8, len: usize) {
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` is below `count`; the entry is ours until the tail passes it.
        let entry = unsafe { &mut *self.entries.add(slot) };
        entry.set_addr(address as u64);
        entry.set_len(len as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail field lies in the first entry of the mapping and is aligned; the kernel
        // reads it with acquire order, so the entry is complete before it is seen.
        unsafe {
            let tail = BufRingEntry::tail(self.entries)
                .cast_mut()
                .cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; the ring has been dropped before.
        unsafe { libc::munmap(self.entries.cast(), self.entries_bytes) };
    }
}
