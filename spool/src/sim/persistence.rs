//! Who decides what a power cut leaves of everything that was not durable.

use super::rng::{Rng, mix};

/// One candidate for a place: which write it belongs to and which part of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) order: u64,
    pub(super) part: usize,
    pub(super) parts: usize,
}

/// The decisions of one power cut after another.
///
/// A place (a sector, a name) had several contents since it was last durable; the decision says
/// which of them, or the durable one, is found.
#[derive(Clone, Debug)]
pub struct Persistence(Kind);

#[derive(Clone, Debug)]
enum Kind {
    All,
    Nothing,
    Seeded { rng: Rng, mode: Mode },
    Every(Odometer),
}

/// Independent decisions alone would nearly never keep a large write whole, or keep one write and
/// lose its neighbour; so each cut has a temper.
#[derive(Clone, Copy, Debug)]
enum Mode {
    /// Each candidate survives with so many chances in eight; any survivor may be found.
    Parts { chances: u64 },
    /// Writes survive whole or not at all.
    Writes { salt: u64 },
    /// All writes before `limit` survive, that one is torn, none after it survives.
    Prefix { limit: u64, salt: u64 },
    /// Every write in a prefix of its own parts.
    Torn { salt: u64 },
}

impl Persistence {
    /// Everything kept, each place with its newest content.
    #[must_use]
    pub fn keep_all() -> Self {
        Self(Kind::All)
    }

    /// Only what is durable.
    #[must_use]
    pub fn drop_all() -> Self {
        Self(Kind::Nothing)
    }

    /// Kept, dropped, torn and reordered, depending on `seed` only.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Kind::Seeded {
            rng: Rng::new(seed),
            mode: Mode::Parts { chances: 4 },
        })
    }

    /// Every possible outcome, one after the other: cut, then [`Self::advance`], until it says no.
    /// For small cases; the number of outcomes is a product over all places.
    #[must_use]
    pub fn exhaustive() -> Self {
        Self(Kind::Every(Odometer::default()))
    }

    /// Goes on to the next outcome; `false` after the last, and for all other kinds.
    pub fn advance(&mut self) -> bool {
        match &mut self.0 {
            Kind::Every(odometer) => odometer.advance(),
            _ => false,
        }
    }

    /// A cut begins; `orders` are the moments of all writes that are not durable, ascending.
    pub(super) fn begin(&mut self, orders: &[u64]) {
        match &mut self.0 {
            Kind::All | Kind::Nothing => {}
            Kind::Every(odometer) => odometer.place = 0,
            Kind::Seeded { rng, mode } => {
                let salt = rng.next_u64();
                *mode = match rng.below(4) {
                    0 => Mode::Parts {
                        chances: 1 + rng.below(7),
                    },
                    1 => Mode::Writes { salt },
                    2 => {
                        let limit = rng.index(orders.len() + 1);
                        let limit = orders.get(limit).copied().unwrap_or(u64::MAX);
                        Mode::Prefix { limit, salt }
                    }
                    _ => Mode::Torn { salt },
                };
            }
        }
    }

    /// Which of the contents since the durable one is found; `None`: the durable one.
    pub(super) fn version(&mut self, marks: &[Mark]) -> Option<usize> {
        match &mut self.0 {
            Kind::All => marks.len().checked_sub(1),
            Kind::Nothing => None,
            Kind::Every(odometer) => odometer.choose(marks.len() + 1).checked_sub(1),
            Kind::Seeded {
                rng,
                mode: Mode::Parts { chances },
            } => {
                let kept: Vec<usize> = (0..marks.len())
                    .filter(|_| rng.below(8) < *chances)
                    .collect();
                if kept.is_empty() {
                    None
                } else {
                    Some(kept[rng.index(kept.len())])
                }
            }
            Kind::Seeded { mode, .. } => marks.iter().rposition(|mark| mode.keeps(mark)),
        }
    }

    /// How many of `steps` steps of a growing file are found.
    pub(super) fn size(&mut self, steps: usize) -> usize {
        match &mut self.0 {
            Kind::All => steps,
            Kind::Nothing => 0,
            Kind::Every(odometer) => odometer.choose(steps + 1),
            Kind::Seeded { rng, .. } => match rng.below(4) {
                0 => 0,
                1 => rng.index(steps + 1),
                _ => steps,
            },
        }
    }
}

impl Mode {
    fn keeps(self, mark: &Mark) -> bool {
        let torn = |salt: u64| {
            let kept = mix(salt ^ mix(mark.order)) % (mark.parts as u64 + 1);
            (mark.part as u64) < kept
        };
        match self {
            // Drawn per candidate where the generator is at hand.
            Self::Parts { .. } => false,
            Self::Writes { salt } => mix(salt ^ mix(mark.order)) & 1 == 0,
            Self::Prefix { limit, salt } => {
                mark.order < limit || (mark.order == limit && torn(salt))
            }
            Self::Torn { salt } => torn(salt),
        }
    }
}

/// Counts through all sequences of choices: digits of different bases, the last one fastest.
#[derive(Clone, Debug, Default)]
struct Odometer {
    /// Chosen number and count of choices.
    digits: Vec<(usize, usize)>,
    place: usize,
}

impl Odometer {
    fn choose(&mut self, count: usize) -> usize {
        if self.place == self.digits.len() {
            self.digits.push((0, count));
        }
        let (chosen, known) = self.digits[self.place];
        assert_eq!(
            known, count,
            "the same state of the disk asks the same questions"
        );
        self.place += 1;
        chosen
    }

    fn advance(&mut self) -> bool {
        while let Some((chosen, count)) = self.digits.pop() {
            if chosen + 1 < count {
                self.digits.push((chosen + 1, count));
                return true;
            }
        }
        false
    }
}
