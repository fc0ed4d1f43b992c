//! The provided-buffer ring: memory that the kernel picks for what arrives, so that an idle
//! connection holds none.
//!
//! A buffer belongs to the kernel from [`Buffers::give`] until a completion names it, and to us from
//! then until the next `give`.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::Ring;
use super::setup::SetupError;

/// The one buffer group of a ring.
pub(super) const GROUP: u16 = 0;

/// The buffers of one ring.
pub struct Buffers {
    entries: *mut BufRingEntry,
    entries_bytes: usize,
    memory: Vec<u8>,
    count: u16,
    size: usize,
    tail: u16,
}

impl Buffers {
    /// Registers `count` (a power of two) buffers of `size` bytes with the ring.
    ///
    /// # Errors
    /// When the kernel refuses memory or registration.
    pub fn register(ring: &Ring, count: u16, size: usize) -> Result<Self, SetupError> {
        assert!(
            count.is_power_of_two() && count <= 32_768,
            "the kernel wants a power of two"
        );
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
        let entries = address.cast::<BufRingEntry>();
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
        let memory = vec![0; usize::from(count) * size];
        let mut buffers = Self {
            entries,
            entries_bytes: bytes,
            memory,
            count,
            size,
            tail: 0,
        };
        for id in 0..count {
            buffers.give(id);
        }
        Ok(buffers)
    }

    /// Gives buffer `id` to the kernel.
    pub fn give(&mut self, id: u16) {
        let slot = usize::from(self.tail & (self.count - 1));
        let start = usize::from(id) * self.size;
        let address = self.memory[start..start + self.size].as_mut_ptr();
        // SAFETY: `slot` is below `count`; the entry is ours until the tail passes it.
        let entry = unsafe { &mut *self.entries.add(slot) };
        entry.set_addr(address as u64);
        entry.set_len(self.size as u32);
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

    /// The first `len` bytes of buffer `id`, which a completion has named.
    #[must_use]
    pub fn bytes(&self, id: u16, len: usize) -> &[u8] {
        let start = usize::from(id) * self.size;
        &self.memory[start..start + len.min(self.size)]
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `register`; the ring has been dropped before.
        unsafe { libc::munmap(self.entries.cast(), self.entries_bytes) };
    }
}
