//! Message ids: shard, boot epoch and sequence; never reused, unchanged when a message is copied.

use core::fmt;
use core::str::FromStr;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Digits of the text form: 128 bits need 22 of base 62.
const TEXT_LEN: usize = 22;

/// 62 to the power of ten.
const TEN_DIGITS: u128 = 62u128.pow(10);

/// Bits of a sequence.
const SEQUENCE_BITS: u32 = 48;

/// Names a message for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpoolId {
    /// The shard that received it.
    pub shard: u16,
    /// Random number of the daemon's run.
    pub epoch: u64,
    /// Counts messages of the run; 48 bits.
    pub sequence: u64,
}

impl SpoolId {
    /// All parts in one number.
    #[must_use]
    pub fn bits(self) -> u128 {
        (u128::from(self.shard) << 112)
            | (u128::from(self.epoch) << SEQUENCE_BITS)
            | u128::from(self.sequence)
    }

    /// The inverse of [`Self::bits`].
    #[must_use]
    pub fn from_bits(bits: u128) -> Self {
        Self {
            shard: (bits >> 112) as u16,
            epoch: (bits >> SEQUENCE_BITS) as u64,
            sequence: (bits & ((1 << SEQUENCE_BITS) - 1)) as u64,
        }
    }
}

impl fmt::Display for SpoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [b'0'; TEXT_LEN];
        let mut bits = self.bits();
        // Ten digits at a time fit into 64 bits, and division of 128 bits is slow.
        for digits in text.rchunks_mut(10) {
            let mut part = (bits % TEN_DIGITS) as u64;
            bits /= TEN_DIGITS;
            for digit in digits.iter_mut().rev() {
                *digit = DIGITS.get((part % 62) as usize).copied().unwrap_or(b'0');
                part /= 62;
            }
        }
        f.write_str(core::str::from_utf8(&text).unwrap_or_default())
    }
}

/// The text is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadId;

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a message id has {TEXT_LEN} letters and digits")
    }
}

impl FromStr for SpoolId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        if text.len() != TEXT_LEN {
            return Err(BadId);
        }
        let mut bits: u128 = 0;
        for byte in text.bytes() {
            let digit = DIGITS
                .iter()
                .position(|digit| *digit == byte)
                .ok_or(BadId)?;
            bits = bits
                .checked_mul(62)
                .and_then(|bits| bits.checked_add(digit as u128))
                .ok_or(BadId)?;
        }
        Ok(Self::from_bits(bits))
    }
}
