//! When messages are due. Closed loop: when a connection is free. Open loop: by the clock, whatever
//! the relay does, and latency counts from that moment on; so a relay that stalls does not also
//! keep the messages away that would have shown it (coordinated omission).

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::distribution::{Purpose, Random};
use crate::options::{Arrivals, Load};

/// The moments at which messages are due, from the start on, by message number.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    arrivals: Arrivals,
    rate: f64,
    seed: u64,
    number: u64,
    seconds: f64,
}

impl Schedule {
    pub(crate) fn new(arrivals: Arrivals, rate: f64, seed: u64) -> Self {
        Self {
            arrivals,
            rate,
            seed,
            number: 0,
            seconds: 0.0,
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let number = self.number;
        self.number += 1;
        match self.arrivals {
            // Not a sum, so that rounding does not add up.
            Arrivals::Even => self.seconds = number as f64 / self.rate,
            Arrivals::Poisson => {
                let mut random = Random::new(self.seed, Purpose::Arrival, number);
                self.seconds -= random.share().ln() / self.rate;
            }
        }
        Some(Duration::from_secs_f64(self.seconds))
    }
}

/// The turn of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) number: u64,
    /// When it was due; nothing in a closed loop.
    pub(crate) due: Option<Instant>,
}

/// Hands out message numbers in order, each when it is due.
#[derive(Debug)]
pub(crate) struct Turns {
    next: Cell<u64>,
    messages: u64,
    clock: Option<Clock>,
}

/// The open loop's clock: a thread that allows one message more at each moment of the schedule.
/// The timers of the event loop have a grain of a millisecond; a sleeping thread has not.
#[derive(Debug)]
struct Clock {
    start: Instant,
    schedule: RefCell<Schedule>,
    allowed: Arc<Semaphore>,
    stop: Arc<AtomicBool>,
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Turns {
    /// For a load that begins now.
    pub(crate) fn new(load: &Load) -> Self {
        let clock = load.rate.map(|rate| {
            let arrivals = load.arrivals.unwrap_or(Arrivals::Poisson);
            let schedule = Schedule::new(arrivals, rate, load.seed);
            Clock::start(schedule, load.messages, load.connections)
        });
        Self {
            next: Cell::new(0),
            messages: load.messages,
            clock,
        }
    }

    /// The next message, when it is due; nothing when there is none.
    pub(crate) async fn next(&self) -> Option<Turn> {
        if let Some(clock) = &self.clock {
            clock.allowed.acquire().await.ok()?.forget();
        }
        let number = self.next.get();
        if number >= self.messages {
            return None;
        }
        self.next.set(number + 1);
        let due = self.clock.as_ref().and_then(|clock| {
            let after = clock.schedule.borrow_mut().next()?;
            Some(clock.start + after)
        });
        Some(Turn { number, due })
    }
}

impl Clock {
    fn start(schedule: Schedule, messages: u64, connections: usize) -> Self {
        let clock = Self {
            start: Instant::now(),
            schedule: RefCell::new(schedule.clone()),
            allowed: Arc::new(Semaphore::new(0)),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let (start, allowed, stop) = (
            clock.start,
            Arc::clone(&clock.allowed),
            Arc::clone(&clock.stop),
        );
        thread::spawn(move || {
            for after in schedule.take(usize::try_from(messages).unwrap_or(usize::MAX)) {
                if !sleep_until(start + after, &stop) {
                    return;
                }
                allowed.add_permits(1);
            }
            // Whoever still waits learns that there is nothing more.
            allowed.add_permits(connections);
        });
        clock
    }
}

/// Whether the moment came before the stop.
fn sleep_until(moment: Instant, stop: &AtomicBool) -> bool {
    const NAP: Duration = Duration::from_millis(100);
    loop {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(NAP));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_arrivals_are_even_and_do_not_drift() {
        let schedule = Schedule::new(Arrivals::Even, 3.0, 1);
        let times: Vec<f64> = schedule.take(3001).map(|at| at.as_secs_f64()).collect();
        assert!((times[1] - 1.0 / 3.0).abs() < 1e-6);
        assert!((times[3000] - 1000.0).abs() < 1e-6);
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_and_are_repeatable() {
        let schedule = Schedule::new(Arrivals::Poisson, 100.0, 7);
        let times: Vec<f64> = schedule
            .clone()
            .take(20_000)
            .map(|at| at.as_secs_f64())
            .collect();
        assert!((times[19_999] - 200.0).abs() < 6.0, "{}", times[19_999]);
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap >= 0.0));
        // The spread of an exponential law equals its mean.
        let variance = gaps.iter().map(|gap| (gap - 0.01).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / 0.01 - 1.0).abs() < 0.05);
        assert!(schedule.clone().take(100).eq(schedule.take(100)));
    }

    #[test]
    fn a_closed_loop_hands_out_every_number_once_without_a_due_time() {
        let turns = Turns {
            next: Cell::new(0),
            messages: 2,
            clock: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let all: Vec<_> = (0..3).map(|_| runtime.block_on(turns.next())).collect();
        let turn = |number| Some(Turn { number, due: None });
        assert_eq!(all, [turn(0), turn(1), None]);
    }

    #[test]
    fn an_open_loop_gives_every_message_its_scheduled_time() {
        let schedule = Schedule::new(Arrivals::Poisson, 1e5, 3);
        let turns = Turns {
            next: Cell::new(0),
            messages: 50,
            clock: Some(Clock::start(schedule.clone(), 50, 4)),
        };
        let start = turns.clock.as_ref().unwrap().start;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        for (number, after) in (0..50).zip(schedule) {
            let due = Some(start + after);
            assert_eq!(runtime.block_on(turns.next()), Some(Turn { number, due }));
            // No message goes before its time.
            assert!(Instant::now() >= start + after);
        }
        for _ in 0..4 {
            assert_eq!(runtime.block_on(turns.next()), None);
        }
    }
}
