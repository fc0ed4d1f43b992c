//! Doorbells: how a sleeping shard learns that one of its queues has something.
//!
//! The bell is a hint. A shard looks at its queues every turn and once more after it has announced
//! sleep, so a ring that comes too early finds it awake and a ring that comes too late finds the
//! flag. Rings are coalesced until the shard wakes.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crossbeam_utils::CachePadded;
use rustix::event::{EventfdFlags, eventfd};

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// The two flags of one shard; the protocol itself.
#[derive(Debug)]
pub struct Bell {
    rung: AtomicBool,
    asleep: AtomicBool,
}

impl Default for Bell {
    fn default() -> Self {
        Self {
            rung: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
        }
    }
}

impl Bell {
    /// After something was put into a queue: says whether the shard has to be woken.
    pub fn ring(&self) -> bool {
        let first = !self.rung.swap(true, Ordering::AcqRel);
        // With the fence in `announce_sleep`: either this sees `asleep`, or the shard's check after
        // announcing sleep sees `rung`. Without them both could miss.
        fence(Ordering::SeqCst);
        first && self.asleep.load(Ordering::Acquire)
    }

    /// Before waiting: says whether the shard may wait.
    pub fn announce_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        !self.rung.load(Ordering::Acquire)
    }

    /// After waiting: says whether the bell was rung.
    pub fn wake(&self) -> bool {
        self.asleep.store(false, Ordering::Release);
        self.rung.swap(false, Ordering::AcqRel)
    }
}

/// An event counter in the byte order of the machine, whichever it is: every byte is one.
const ONE: [u8; 8] = [1; 8];

/// The doorbells of all shards.
#[derive(Debug)]
pub struct Doorbells {
    bells: Vec<CachePadded<Bell>>,
    /// Descriptors of the shards' rings; negative: not started.
    rings: Vec<std::sync::atomic::AtomicI32>,
    /// For those without a ring of their own.
    eventfds: Vec<OwnedFd>,
}

impl Doorbells {
    /// For `shards` shards.
    ///
    /// # Errors
    /// When the kernel gives no event descriptors.
    pub fn new(shards: usize) -> std::io::Result<Self> {
        let eventfds = (0..shards)
            .map(|_| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            bells: (0..shards)
                .map(|_| CachePadded::new(Bell::default()))
                .collect(),
            rings: (0..shards)
                .map(|_| std::sync::atomic::AtomicI32::new(-1))
                .collect(),
            eventfds,
        })
    }

    /// The shard's ring can be rung from now on.
    pub fn register(&self, shard: usize, ring: RawFd) {
        self.rings[shard].store(ring, Ordering::Release);
    }

    /// From another shard: the ring that has to get a message, if its shard sleeps.
    #[must_use]
    pub fn ring_from_shard(&self, shard: usize) -> Option<RawFd> {
        if !self.bells[shard].ring() {
            return None;
        }
        let ring = self.rings[shard].load(Ordering::Acquire);
        (ring >= 0).then_some(ring)
    }

    /// From a thread without a ring.
    pub fn ring_from_outside(&self, shard: usize) {
        if self.bells[shard].ring() {
            // A full counter means that the shard has not read it: it is woken already.
            let _ = rustix::io::write(&self.eventfds[shard], &ONE);
        }
    }

    /// The descriptor that [`Self::ring_from_outside`] makes readable.
    #[must_use]
    pub fn eventfd(&self, shard: usize) -> RawFd {
        self.eventfds[shard].as_raw_fd()
    }

    /// Makes it quiet again.
    pub fn clear_eventfd(&self, shard: usize) {
        let mut counter = [0; 8];
        // Nothing to read: somebody was faster; nothing is lost.
        let _ = rustix::io::read(&self.eventfds[shard], &mut counter);
    }

    /// Before waiting: whether the shard may.
    #[must_use]
    pub fn announce_sleep(&self, shard: usize) -> bool {
        self.bells[shard].announce_sleep()
    }

    /// After waiting: whether it was rung.
    #[must_use]
    pub fn wake(&self, shard: usize) -> bool {
        self.bells[shard].wake()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_sleep_forbids_it_and_one_during_sleep_wakes() {
        let bell = Bell::default();
        assert!(!bell.ring(), "an awake shard needs no message");
        assert!(!bell.announce_sleep());
        assert!(bell.wake());
        assert!(bell.announce_sleep());
        assert!(bell.ring());
        assert!(!bell.ring(), "rings are coalesced");
        assert!(bell.wake());
        assert!(!bell.wake());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;

    use super::*;

    /// Whatever the order, a shard that went to sleep after something was put into its queue gets a
    /// message, or did not go to sleep.
    #[test]
    fn loom_no_wake_up_is_lost() {
        loom::model(|| {
            let bell = Arc::new(Bell::default());
            let queue = Arc::new(AtomicUsize::new(0));
            let (other_bell, other_queue) = (Arc::clone(&bell), Arc::clone(&queue));
            let sender = loom::thread::spawn(move || {
                other_queue.store(1, Ordering::Release);
                other_bell.ring()
            });
            let sleeps = bell.announce_sleep();
            let seen = queue.load(Ordering::Acquire) == 1;
            let woken = sender.join().unwrap();
            assert!(
                seen || !sleeps || woken,
                "asleep with something in the queue and no message"
            );
        });
    }
}
