//! Sizes and counts by a law: a value depends on the seed and the message number alone, so the
//! source and the ledger agree about every message without telling each other.

use std::ops::RangeInclusive;

/// What a random number is drawn for; the draws of one purpose say nothing about another's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Size = 1,
    Recipients,
    Content,
    Arrival,
    Destination,
    RefusedRecipient,
    RefusedMessage,
    Session,
}

/// A stream of random numbers: splitmix64.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream of one message, or of whatever `number` counts.
    pub(crate) fn new(seed: u64, purpose: Purpose, number: u64) -> Self {
        Self(mix(mix(seed ^ mix(purpose as u64)) ^ number))
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Above 0 and up to 1, so that its logarithm exists.
    pub(crate) fn share(&mut self) -> f64 {
        ((self.draw() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Whether something of this probability happens.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.share() <= probability
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A law of whole numbers with its bounds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Distribution {
    law: Law,
    least: u64,
    most: u64,
}

#[derive(Clone, Debug, PartialEq)]
enum Law {
    Uniform,
    Exponential { mean: f64 },
    LogNormal { median: f64, sigma: f64 },
    Mix { parts: Vec<(u64, u64)>, total: u64 },
}

/// Bytes of a message.
pub(crate) const SIZES: RangeInclusive<u64> = 1..=1 << 30;

/// Recipients of a message.
pub(crate) const RECIPIENTS: RangeInclusive<u64> = 1..=10_000;

/// Parts of a mix.
const PARTS_MAX: usize = 100;

/// Parses a law of message sizes.
pub(crate) fn parse_size(text: &str) -> Result<Distribution, String> {
    Distribution::parse(text, SIZES)
}

/// Parses a law of recipients a message.
pub(crate) fn parse_recipients(text: &str) -> Result<Distribution, String> {
    Distribution::parse(text, RECIPIENTS)
}

impl Distribution {
    /// Parses `N`, `LOW-HIGH`, `exp:MEAN`, `lognormal:MEDIAN,SIGMA` or `mix:VALUE*WEIGHT,...`.
    fn parse(text: &str, range: RangeInclusive<u64>) -> Result<Self, String> {
        let value = |text: &str| whole(text, &range);
        let law = match text.split_once(':') {
            Some(("exp", mean)) => Law::Exponential {
                mean: value(mean)? as f64,
            },
            Some(("lognormal", parameters)) => log_normal(parameters, &range)?,
            Some(("mix", parts)) => mixture(parts, &range)?,
            Some((name, _)) => return Err(format!("{name:?}: exp, lognormal or mix is expected")),
            None => {
                let (least, most) = text.split_once('-').unwrap_or((text, text));
                let (least, most) = (value(least)?, value(most)?);
                if least > most {
                    return Err(format!("{text:?}: the range is empty"));
                }
                return Ok(Self {
                    law: Law::Uniform,
                    least,
                    most,
                });
            }
        };
        let (least, most) = range.into_inner();
        Ok(Self { law, least, most })
    }

    /// The value for this draw; what a law puts outside the bounds is put onto them.
    pub(crate) fn at(&self, mut random: Random) -> u64 {
        let value = match &self.law {
            Law::Uniform => return self.least + random.draw() % (self.most - self.least + 1),
            Law::Exponential { mean } => -random.share().ln() * mean,
            Law::LogNormal { median, sigma } => median * (sigma * normal(&mut random)).exp(),
            Law::Mix { parts, total } => return part(parts, random.draw() % total),
        };
        // A float beyond the integers saturates.
        (value.round() as u64).clamp(self.least, self.most)
    }
}

fn whole(text: &str, range: &RangeInclusive<u64>) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(value) if range.contains(&value) => Ok(value),
        _ => Err(format!(
            "{text:?}: a whole number from {} to {} is expected",
            range.start(),
            range.end()
        )),
    }
}

fn log_normal(text: &str, range: &RangeInclusive<u64>) -> Result<Law, String> {
    let Some((median, sigma)) = text.split_once(',') else {
        return Err(format!("{text:?}: MEDIAN,SIGMA is expected"));
    };
    let median = whole(median, range)? as f64;
    match sigma.parse::<f64>() {
        Ok(sigma) if (0.0..=10.0).contains(&sigma) => Ok(Law::LogNormal { median, sigma }),
        _ => Err(format!("{sigma:?}: a sigma from 0 to 10 is expected")),
    }
}

fn mixture(text: &str, range: &RangeInclusive<u64>) -> Result<Law, String> {
    let mut parts = Vec::new();
    let mut total = 0;
    for part in text.split(',') {
        let (value, weight) = part.split_once('*').unwrap_or((part, "1"));
        let weight = whole(weight, &(1..=1_000_000))?;
        parts.push((whole(value, range)?, weight));
        total += weight;
        if parts.len() > PARTS_MAX {
            return Err(format!("a mix has {PARTS_MAX} parts at most"));
        }
    }
    Ok(Law::Mix { parts, total })
}

/// The part of a mix in whose weight `at` falls.
fn part(parts: &[(u64, u64)], mut at: u64) -> u64 {
    for (value, weight) in parts {
        if at < *weight {
            return *value;
        }
        at -= weight;
    }
    // `at` is below the sum of the weights, so a part was found.
    unreachable!("weights do not add up")
}

/// A standard normal value by Box and Muller.
fn normal(random: &mut Random) -> f64 {
    let radius = (-2.0 * random.share().ln()).sqrt();
    radius * (std::f64::consts::TAU * random.share()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(text: &str, count: u64) -> Vec<u64> {
        let law = parse_size(text).unwrap();
        (0..count)
            .map(|number| law.at(Random::new(1, Purpose::Size, number)))
            .collect()
    }

    fn mean(values: &[u64]) -> f64 {
        values.iter().sum::<u64>() as f64 / values.len() as f64
    }

    #[test]
    fn a_number_is_itself_and_a_range_is_covered_to_both_ends() {
        assert!(draws("4096", 100).iter().all(|value| *value == 4096));
        let mut values = draws("10-12", 1000);
        values.sort_unstable();
        values.dedup();
        assert_eq!(values, [10, 11, 12]);
    }

    #[test]
    fn laws_have_the_moments_they_are_named_by() {
        let values = draws("exp:10000", 20_000);
        assert!(
            (mean(&values) - 10_000.0).abs() < 300.0,
            "{}",
            mean(&values)
        );
        let mut values = draws("lognormal:8000,1.5", 20_000);
        values.sort_unstable();
        let median = values[values.len() / 2];
        assert!(median.abs_diff(8000) < 400, "{median}");
        // At one sigma above the median stands e^sigma times the median.
        let upper = values[values.len() * 8413 / 10_000] as f64 / 8000.0;
        assert!((upper / 1.5f64.exp() - 1.0).abs() < 0.1, "{upper}");
    }

    #[test]
    fn a_mix_has_its_values_by_weight() {
        let values = draws("mix:4096*90,102400*9,1048576*1", 10_000);
        let count = |wanted| values.iter().filter(|value| **value == wanted).count();
        let counts = [count(4096), count(102_400), count(1_048_576)];
        assert_eq!(counts.iter().sum::<usize>(), 10_000);
        assert!(counts[0].abs_diff(9000) < 150 && counts[1].abs_diff(900) < 150);
        assert!(counts[2].abs_diff(100) < 50, "{counts:?}");
    }

    #[test]
    fn the_seed_decides_and_nothing_else() {
        let law = parse_size("1-1000000").unwrap();
        let at = |seed, number| law.at(Random::new(seed, Purpose::Size, number));
        assert_eq!(at(1, 5), at(1, 5));
        assert_ne!(at(1, 5), at(2, 5));
        assert_ne!(at(1, 5), at(1, 6));
    }

    #[test]
    fn extremes_stay_inside_the_bounds() {
        let law = parse_size("lognormal:1000000,10").unwrap();
        for number in 0..10_000 {
            let value = law.at(Random::new(3, Purpose::Size, number));
            assert!(SIZES.contains(&value));
        }
    }

    #[test]
    fn what_is_no_law_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "a whole number"),
            ("0", "from 1"),
            ("-5", "a whole number"),
            ("9-5", "empty"),
            ("10001", "to 10000"),
            ("exp:", "a whole number"),
            ("lognormal:5", "MEDIAN,SIGMA"),
            ("lognormal:5,nan", "sigma"),
            ("mix:", "a whole number"),
            ("mix:5*0", "a whole number"),
            ("mix:5*-1", "a whole number"),
            ("zipf:3", "exp, lognormal or mix"),
        ] {
            let error = parse_recipients(text).unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }
}
