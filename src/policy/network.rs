//! Networks in CIDR notation.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Not a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadNetwork(String);

impl fmt::Display for BadNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a network; allowed: ADDRESS or ADDRESS/BITS without host bits",
            self.0
        )
    }
}

impl Network {
    /// Whether an address, IPv4-mapped ones already normalised, lies in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        prefix(address, self.bits) == prefix(self.address, self.bits)
    }
}

/// Family and leading bits.
fn prefix(address: IpAddr, bits: u8) -> (bool, u128) {
    let shift = |value: u128, width: u32| value.checked_shr(width - u32::from(bits)).unwrap_or(0);
    match address {
        IpAddr::V4(address) => (false, shift(u32::from(address).into(), 32)),
        IpAddr::V6(address) => (true, shift(address.into(), 128)),
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let bad = || BadNetwork(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(bits) if bits.len() <= 3 && bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().map_err(|_| bad())?
            }
            Some(_) => return Err(bad()),
        };
        // IPv4 networks are written as such; a mapped one would never match.
        let mapped = matches!(address, IpAddr::V6(six) if six.to_ipv4_mapped().is_some());
        if bits > width || mapped {
            return Err(bad());
        }
        let network = Self { address, bits };
        let host_bits = match address {
            IpAddr::V4(four) => u32::from(four).checked_shl(u32::from(bits)).unwrap_or(0) != 0,
            IpAddr::V6(six) => u128::from(six).checked_shl(u32::from(bits)).unwrap_or(0) != 0,
        };
        if host_bits { Err(bad()) } else { Ok(network) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership_is_by_prefix() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("::1", "::1", true),
            ("::1/128", "::2", false),
            ("127.0.0.1", "127.0.0.1", true),
        ];
        for (network, address, expected) in cases {
            let network: Network = network.parse().unwrap();
            assert_eq!(
                network.contains(address.parse().unwrap()),
                expected,
                "{network:?} {address}"
            );
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "x",
            "::ffff:10.0.0.0/104",
            "::/129",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
