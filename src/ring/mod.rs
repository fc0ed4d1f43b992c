//! io_uring as the drivers use it: operations own their memory until the kernel has let go of it.
//!
//! A [`Ring`] is created on the thread that uses it. Every operation moves its buffer in and gives it
//! back with its completion, so nothing outside this module can free memory that the kernel still
//! writes to. Dropping the ring ends all operations before their memory goes (`Drop`).

#![allow(unsafe_code)]

mod buffers;
mod setup;

use std::ffi::CString;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use io_uring::{IoUring, opcode, squeue, types};
use socket2::SockAddr;
use spool::buffer::AlignedBuf;

pub use buffers::Buffers;
pub use setup::{SetupError, probe, setup};

/// Takes over a descriptor that a completion has brought.
#[must_use]
pub fn adopt(descriptor: u32) -> OwnedFd {
    // SAFETY: the kernel has just opened it for us and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) }
}

/// Memory of an operation in flight.
#[derive(Debug)]
pub enum Memory {
    /// None.
    None,
    /// Bytes to send or append.
    Bytes(Vec<u8>),
    /// A disk buffer.
    Aligned(AlignedBuf),
    /// The address to connect to.
    Address(Box<SockAddr>),
    /// The name of a file.
    Path(CString),
}

/// Names an operation in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flight(u64);

/// What the kernel answered.
#[derive(Debug)]
pub struct Completion {
    /// The operation's tag, as given by its caller.
    pub tag: u64,
    /// Non-negative result, or `Err(errno)`.
    pub result: Result<u32, i32>,
    /// More completions of this operation will follow.
    pub more: bool,
    /// The provided buffer that holds what was received.
    pub buffer: Option<u16>,
    /// The operation's memory; only with its last completion.
    pub memory: Memory,
}

struct Operation {
    tag: u64,
    memory: Memory,
}

/// Marks completions that nobody waits for.
const NOBODY: u64 = u64::MAX;

/// Completion value of doorbells.
pub const DOORBELL: u64 = u64::MAX - 1;

/// One ring with its operations in flight.
pub struct Ring {
    uring: IoUring,
    operations: Vec<Option<Operation>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    in_flight: usize,
    reduced: bool,
}

impl Ring {
    fn new(uring: IoUring, reduced: bool) -> Self {
        Self {
            uring,
            reduced,
            operations: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
        }
    }

    /// It is smaller than was asked for.
    #[must_use]
    pub fn is_reduced(&self) -> bool {
        self.reduced
    }

    /// The ring's own descriptor, for doorbells.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        use std::os::fd::AsRawFd;
        self.uring.as_raw_fd()
    }

    fn enter(&mut self, tag: u64, memory: Memory) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.operations.push(None);
            self.generations.push(0);
            (self.operations.len() - 1) as u32
        });
        self.operations[slot as usize] = Some(Operation { tag, memory });
        self.in_flight += 1;
        (u64::from(self.generations[slot as usize]) << 32) | u64::from(slot)
    }

    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: the memory that `entry` points to is owned by `self.operations` (or is a
            // provided buffer) and stays in place until the completion has been reaped.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return;
            }
            // The submission queue is full: hand it over. EBUSY means that completions have to be
            // reaped first; the kernel keeps them (NODROP), so flushing them makes room.
            if let Err(error) = self.uring.submit() {
                let busy = matches!(
                    error.raw_os_error(),
                    Some(libc::EBUSY | libc::EINTR | libc::EAGAIN)
                );
                assert!(busy, "io_uring_enter: {error}");
            }
        }
    }

    fn start(
        &mut self,
        tag: u64,
        memory: Memory,
        build: impl FnOnce(&mut Memory) -> squeue::Entry,
    ) -> Flight {
        let id = self.enter(tag, memory);
        let slot = (id & 0xffff_ffff) as usize;
        let Some(operation) = &mut self.operations[slot] else {
            unreachable!("entered above")
        };
        let entry = build(&mut operation.memory).user_data(id);
        self.push(&entry);
        Flight(id)
    }

    /// Accept connections until cancelled.
    pub fn accept(&mut self, listener: RawFd, tag: u64) -> Flight {
        self.start(tag, Memory::None, |_| {
            opcode::AcceptMulti::new(types::Fd(listener))
                .flags(libc::SOCK_CLOEXEC)
                .build()
        })
    }

    /// Receive into provided buffers until cancelled.
    pub fn receive(&mut self, socket: RawFd, tag: u64) -> Flight {
        self.start(tag, Memory::None, |_| {
            opcode::RecvMulti::new(types::Fd(socket), buffers::GROUP).build()
        })
    }

    /// Receive into one provided buffer, once.
    pub fn receive_once(&mut self, socket: RawFd, tag: u64) -> Flight {
        self.start(tag, Memory::None, |_| {
            opcode::Recv::new(types::Fd(socket), std::ptr::null_mut(), 0)
                .buf_group(buffers::GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        })
    }

    /// Send `bytes` from `offset` on.
    pub fn send(&mut self, socket: RawFd, bytes: Vec<u8>, offset: usize, tag: u64) -> Flight {
        self.start(tag, Memory::Bytes(bytes), |memory| {
            let Memory::Bytes(bytes) = memory else {
                unreachable!("given above")
            };
            let rest = &bytes[offset..];
            opcode::Send::new(types::Fd(socket), rest.as_ptr(), rest.len() as u32)
                .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
                .build()
        })
    }

    /// Connect.
    pub fn connect(&mut self, socket: RawFd, remote: SockAddr, tag: u64) -> Flight {
        self.start(tag, Memory::Address(Box::new(remote)), |memory| {
            let Memory::Address(address) = memory else {
                unreachable!("given above")
            };
            opcode::Connect::new(types::Fd(socket), address.as_ptr().cast(), address.len()).build()
        })
    }

    /// Write all of `buf`; with `sync` as one write that is on disk when it completes.
    pub fn write(
        &mut self,
        file: RawFd,
        buf: AlignedBuf,
        offset: u64,
        sync: bool,
        tag: u64,
    ) -> Flight {
        self.start(tag, Memory::Aligned(buf), |memory| {
            let Memory::Aligned(buf) = memory else {
                unreachable!("given above")
            };
            let flags = if sync { libc::RWF_DSYNC } else { 0 };
            opcode::Write::new(types::Fd(file), buf.as_ptr(), buf.len() as u32)
                .offset(offset)
                .rw_flags(flags)
                .build()
        })
    }

    /// Fill `buf`.
    pub fn read(&mut self, file: RawFd, buf: AlignedBuf, offset: u64, tag: u64) -> Flight {
        self.start(tag, Memory::Aligned(buf), |memory| {
            let Memory::Aligned(buf) = memory else {
                unreachable!("given above")
            };
            opcode::Read::new(types::Fd(file), buf.as_mut_ptr(), buf.len() as u32)
                .offset(offset)
                .build()
        })
    }

    /// Append `bytes` at the file's end (the descriptor is in append mode).
    pub fn append(&mut self, file: RawFd, bytes: Vec<u8>, tag: u64) -> Flight {
        self.start(tag, Memory::Bytes(bytes), |memory| {
            let Memory::Bytes(bytes) = memory else {
                unreachable!("given above")
            };
            opcode::Write::new(types::Fd(file), bytes.as_ptr(), bytes.len() as u32)
                .offset(u64::MAX)
                .build()
        })
    }

    /// Create and open a file that must not exist; the result is a descriptor, see [`adopt`].
    pub fn create(&mut self, dir: RawFd, name: CString, flags: i32, tag: u64) -> Flight {
        let always = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
        self.open_at(dir, name, always | flags, tag)
    }

    /// Open a file that exists, for reading and writing.
    pub fn open(&mut self, dir: RawFd, name: CString, flags: i32, tag: u64) -> Flight {
        self.open_at(dir, name, libc::O_RDWR | libc::O_CLOEXEC | flags, tag)
    }

    fn open_at(&mut self, dir: RawFd, name: CString, flags: i32, tag: u64) -> Flight {
        self.start(tag, Memory::Path(name), |memory| {
            let Memory::Path(name) = memory else {
                unreachable!("given above")
            };
            opcode::OpenAt::new(types::Fd(dir), name.as_ptr())
                .flags(flags)
                .mode(0o600)
                .build()
        })
    }

    /// Remove a file.
    pub fn remove(&mut self, dir: RawFd, name: CString, tag: u64) -> Flight {
        self.start(tag, Memory::Path(name), |memory| {
            let Memory::Path(name) = memory else {
                unreachable!("given above")
            };
            opcode::UnlinkAt::new(types::Fd(dir), name.as_ptr()).build()
        })
    }

    /// fsync.
    pub fn sync(&mut self, file: RawFd, tag: u64) -> Flight {
        self.start(tag, Memory::None, |_| {
            opcode::Fsync::new(types::Fd(file)).build()
        })
    }

    /// Wait until `descriptor` is readable, again and again.
    pub fn watch(&mut self, descriptor: RawFd, tag: u64) -> Flight {
        self.start(tag, Memory::None, |_| {
            opcode::PollAdd::new(types::Fd(descriptor), libc::POLLIN as u32)
                .multi(true)
                .build()
        })
    }

    /// Ask the kernel to end an operation; its own completion says how it ended.
    pub fn cancel(&mut self, flight: Flight) {
        let entry = opcode::AsyncCancel::new(flight.0).build().user_data(NOBODY);
        self.push(&entry);
    }

    /// Ring another ring's doorbell.
    pub fn message(&mut self, ring: RawFd) {
        let entry = opcode::MsgRingData::new(types::Fd(ring), 0, DOORBELL, None)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(NOBODY);
        self.push(&entry);
    }

    /// Hands over what was started and waits for a completion, `timeout_ns` at most.
    pub fn wait(&mut self, timeout_ns: Option<u64>) {
        // Waiting for one completion, even for no time, is what makes the kernel run the deferred work
        // that posts completions (DEFER_TASKRUN).
        let result = match timeout_ns {
            Some(ns) => {
                let time = types::Timespec::new()
                    .sec(ns / 1_000_000_000)
                    .nsec((ns % 1_000_000_000) as u32);
                self.uring
                    .submitter()
                    .submit_with_args(1, &types::SubmitArgs::new().timespec(&time))
            }
            None => self.uring.submit_and_wait(1),
        };
        if let Err(error) = result {
            let expected = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN];
            let known = error
                .raw_os_error()
                .is_some_and(|errno| expected.contains(&errno));
            assert!(known, "io_uring_enter: {error}");
        }
    }

    /// Takes the next completion. Doorbells come as completions with the tag [`DOORBELL`].
    pub fn reap(&mut self) -> Option<Completion> {
        loop {
            let entry = self.uring.completion().next()?;
            let result = u32::try_from(entry.result()).map_err(|_| -entry.result());
            let id = entry.user_data();
            if id == NOBODY {
                continue;
            }
            let more = io_uring::cqueue::more(entry.flags());
            let buffer = io_uring::cqueue::buffer_select(entry.flags());
            if id == DOORBELL {
                return Some(Completion {
                    tag: DOORBELL,
                    result,
                    more: false,
                    buffer: None,
                    memory: Memory::None,
                });
            }
            let slot = (id & 0xffff_ffff) as usize;
            assert_eq!(
                (id >> 32) as u32,
                self.generations[slot],
                "a completion of an ended operation"
            );
            let (tag, memory) = if more {
                let Some(operation) = &self.operations[slot] else {
                    unreachable!("in flight")
                };
                (operation.tag, Memory::None)
            } else {
                let Some(operation) = self.operations[slot].take() else {
                    unreachable!("in flight")
                };
                self.generations[slot] = self.generations[slot].wrapping_add(1);
                self.free.push(slot as u32);
                self.in_flight -= 1;
                (operation.tag, operation.memory)
            };
            return Some(Completion {
                tag,
                result,
                more,
                buffer,
                memory,
            });
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel may still write to memory of operations in flight: end them all first.
        let entry = opcode::AsyncCancel2::new(types::CancelBuilder::any())
            .build()
            .user_data(NOBODY);
        self.push(&entry);
        for _ in 0..1000 {
            if self.in_flight == 0 {
                return;
            }
            self.wait(Some(10_000_000));
            while self.reap().is_some() {}
        }
        // Memory that the kernel has not let go of is given up, not freed.
        std::mem::forget(std::mem::take(&mut self.operations));
    }
}
