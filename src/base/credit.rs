//! Lanes with credits: values one way, exactly one answer each back, and no answer ever waits.
//!
//! The sender counts what is outstanding and sends only while that is below the capacity of the
//! return queue, so the receiver always finds room for its answer. Two parties that are full
//! towards each other go on: each can still answer, and every answer frees a credit.

#[cfg(not(loom))]
use crossbeam_queue::ArrayQueue;
#[cfg(not(loom))]
use std::sync::Arc;

#[cfg(loom)]
use loom::sync::Arc;
#[cfg(loom)]
use stand_in::ArrayQueue;

/// Both queues of a lane.
#[derive(Debug)]
struct Queues<T, R> {
    forth: ArrayQueue<T>,
    back: ArrayQueue<R>,
}

/// The end that sends values and takes answers.
#[derive(Debug)]
pub struct LaneSender<T, R> {
    queues: Arc<Queues<T, R>>,
    capacity: usize,
    outstanding: usize,
}

/// The end that takes values and answers.
#[derive(Debug)]
pub struct LaneReceiver<T, R> {
    queues: Arc<Queues<T, R>>,
}

/// A lane on which at most `capacity` values are unanswered.
#[must_use]
pub fn lane<T, R>(capacity: usize) -> (LaneSender<T, R>, LaneReceiver<T, R>) {
    let queues = Arc::new(Queues {
        forth: ArrayQueue::new(capacity),
        back: ArrayQueue::new(capacity),
    });
    let sender = LaneSender {
        queues: Arc::clone(&queues),
        capacity,
        outstanding: 0,
    };
    (sender, LaneReceiver { queues })
}

impl<T, R> LaneSender<T, R> {
    /// Sends a value and reserves the place of its answer.
    ///
    /// # Errors
    /// Gives the value back when there is no credit.
    pub fn try_send(&mut self, value: T) -> Result<(), T> {
        if self.outstanding == self.capacity {
            return Err(value);
        }
        self.queues.forth.push(value)?;
        self.outstanding += 1;
        Ok(())
    }

    /// The next answer.
    pub fn poll_return(&mut self) -> Option<R> {
        let answer = self.queues.back.pop()?;
        self.outstanding -= 1;
        Some(answer)
    }

    /// Values that can be sent now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.capacity - self.outstanding
    }
}

impl<T, R> LaneReceiver<T, R> {
    /// The next value.
    pub fn receive(&mut self) -> Option<T> {
        self.queues.forth.pop()
    }

    /// Answers one value that was received.
    ///
    /// # Panics
    /// When there are more answers than values, which is a mistake of the caller.
    pub fn give_back(&mut self, answer: R) {
        let given = self.queues.back.push(answer);
        assert!(given.is_ok(), "one answer a value: its place was reserved");
    }
}

/// A queue that loom can look into, with the interface of the real one.
#[cfg(loom)]
mod stand_in {
    use std::collections::VecDeque;

    use loom::sync::Mutex as Cell;

    #[derive(Debug)]
    pub(super) struct ArrayQueue<T> {
        items: Cell<VecDeque<T>>,
        capacity: usize,
    }

    impl<T> ArrayQueue<T> {
        pub(super) fn new(capacity: usize) -> Self {
            Self {
                items: Cell::new(VecDeque::new()),
                capacity,
            }
        }

        pub(super) fn push(&self, item: T) -> Result<(), T> {
            let mut items = self.items.lock().unwrap();
            if items.len() == self.capacity {
                return Err(item);
            }
            items.push_back(item);
            Ok(())
        }

        pub(super) fn pop(&self) -> Option<T> {
            self.items.lock().unwrap().pop_front()
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;

    /// Two parties with room for one value each way, both sending as much as they can: both get all
    /// their answers.
    #[test]
    fn loom_two_full_parties_do_not_deadlock() {
        loom::model(|| {
            let (to_two, from_one) = lane::<u32, u32>(1);
            let (to_one, from_two) = lane::<u32, u32>(1);
            let other = loom::thread::spawn(move || party(to_one, from_one, 10));
            let mine = party(to_two, from_two, 20);
            assert_eq!((mine, other.join().unwrap()), (2, 2));
        });
    }

    /// Sends two values, answers two, counts its answers. The number of turns is bounded, so that
    /// a deadlock would fail instead of running for ever.
    fn party(mut out: LaneSender<u32, u32>, mut into: LaneReceiver<u32, u32>, base: u32) -> u32 {
        let (mut sent, mut answered, mut answers) = (0, 0, 0);
        while answered < 2 || answers < 2 {
            if sent < 2 && out.try_send(base + sent).is_ok() {
                sent += 1;
            }
            if let Some(value) = into.receive() {
                into.give_back(value);
                answered += 1;
            }
            if out.poll_return().is_some() {
                answers += 1;
            }
            loom::thread::yield_now();
        }
        answers
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_value_needs_a_credit_and_its_answer_frees_it() {
        let (mut sender, mut receiver) = lane(1);
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(
            sender.try_send(2),
            Err(2),
            "no credit while the first is unanswered"
        );
        assert_eq!(receiver.receive(), Some(1));
        assert_eq!(sender.try_send(2), Err(2), "taken is not answered");
        receiver.give_back("one");
        assert_eq!(sender.poll_return(), Some("one"));
        assert_eq!(sender.try_send(2), Ok(()));
    }
}
