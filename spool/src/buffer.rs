//! Page-aligned memory that direct I/O accepts. A buffer has one owner at a time: the engine, or
//! the disk it was handed to inside an [`Op`](crate::op::Op).

use core::ops::{Deref, DerefMut};

/// Alignment of every buffer and every offset in a segment: at least the logical block size of any
/// disk in use.
pub const ALIGN_BYTES: usize = 4096;

/// Memory whose first byte stands on a multiple of [`ALIGN_BYTES`]; its length is fixed.
#[derive(Debug)]
pub struct AlignedBuf {
    /// Never grown after construction, so the start stays aligned.
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// Zeroed memory of `len` bytes.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let memory = vec![0; len + ALIGN_BYTES];
        let start = memory.as_ptr().align_offset(ALIGN_BYTES);
        assert!(
            start < ALIGN_BYTES,
            "alignment of a byte buffer can always be reached"
        );
        Self { memory, start, len }
    }

    /// The same memory seen as its first `len` bytes; the rest stays allocated and can be seen
    /// again by a later call.
    ///
    /// # Panics
    /// When `len` exceeds [`Self::capacity`].
    pub fn resize(&mut self, len: usize) {
        assert!(len <= self.capacity(), "an aligned buffer never grows");
        self.len = len;
    }

    /// The number of bytes that [`Self::resize`] can show.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.len() - ALIGN_BYTES
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}
