//! A short list of address prefixes, IPv4 and IPv6: who may speak through a tunnel, and to whom.
//!
//! It is looked through from front to back. It is meant for the few networks of a site, and bounded.

use std::net::IpAddr;

/// Most prefixes of one list.
pub const PREFIXES_MAX: usize = 64;

/// Prefixes. An empty list contains no address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefixes {
    /// Network and mask.
    ipv4: Vec<(u32, u32)>,
    ipv6: Vec<(u128, u128)>,
}

/// Why a list cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// More bits than the address has.
    #[error("the prefix {address}/{bits} is longer than its address, which has {bits_max} bits")]
    TooLong {
        /// The network.
        address: IpAddr,
        /// The prefix length given.
        bits: u8,
        /// The longest there is.
        bits_max: u8,
    },
    /// More than [`PREFIXES_MAX`].
    #[error(
        "{count} prefixes are more than the {PREFIXES_MAX} that one list may have: aggregate them"
    )]
    TooMany {
        /// How many were given.
        count: usize,
    },
}

impl Prefixes {
    /// From networks and their prefix lengths in bits. Bits of an address behind its prefix do not matter.
    pub fn new(prefixes: &[(IpAddr, u8)]) -> Result<Self, PrefixError> {
        if prefixes.len() > PREFIXES_MAX {
            return Err(PrefixError::TooMany { count: prefixes.len() });
        }
        let mut list = Prefixes::default();
        for &(address, bits) in prefixes {
            let bits_max: u32 = if address.is_ipv4() { 32 } else { 128 };
            let Some(host_bits) = bits_max.checked_sub(u32::from(bits)) else {
                return Err(PrefixError::TooLong { address, bits, bits_max: bits_max as u8 });
            };
            match address {
                IpAddr::V4(address) => {
                    let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
                    list.ipv4.push((address.to_bits() & mask, mask));
                }
                IpAddr::V6(address) => {
                    let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                    list.ipv6.push((address.to_bits() & mask, mask));
                }
            }
        }
        Ok(list)
    }

    /// Whether one of them contains this IPv4 address.
    #[inline(always)]
    pub fn contains_ipv4(&self, address: u32) -> bool {
        self.ipv4.iter().any(|&(network, mask)| address & mask == network)
    }

    /// Whether one of them contains this IPv6 address.
    #[inline(always)]
    pub fn contains_ipv6(&self, address: u128) -> bool {
        self.ipv6.iter().any(|&(network, mask)| address & mask == network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(prefixes: &[(&str, u8)]) -> Prefixes {
        let parsed: Vec<(IpAddr, u8)> = prefixes
            .iter()
            .map(|&(text, bits)| (text.parse().expect("an address"), bits))
            .collect();
        Prefixes::new(&parsed).expect("a list")
    }

    fn contains(list: &Prefixes, address: &str) -> bool {
        match address.parse().expect("an address") {
            IpAddr::V4(address) => list.contains_ipv4(address.to_bits()),
            IpAddr::V6(address) => list.contains_ipv6(address.to_bits()),
        }
    }

    #[test]
    fn the_edges_of_a_prefix_are_inside_and_their_neighbours_are_not() {
        let list = list(&[("10.1.2.99", 23), ("fd00:2::", 31)]);
        for inside in ["10.1.2.0", "10.1.3.255", "fd00:2::", "fd00:3:ffff::1"] {
            assert!(contains(&list, inside), "{inside}");
        }
        for outside in ["10.1.1.255", "10.1.4.0", "fd00:1:ffff::", "fd00:4::"] {
            assert!(!contains(&list, outside), "{outside}");
        }
    }

    #[test]
    fn no_bits_contain_everything_of_one_version_and_an_empty_list_nothing() {
        assert!(contains(&list(&[("0.0.0.0", 0)]), "255.1.2.3"));
        assert!(!contains(&list(&[("0.0.0.0", 0)]), "::"));
        assert!(contains(&list(&[("::", 0)]), "ffff::1"));
        assert!(!contains(&list(&[]), "0.0.0.0"));
        assert!(contains(&list(&[("10.0.0.1", 32)]), "10.0.0.1"));
    }

    #[test]
    fn a_prefix_longer_than_its_address_is_named() {
        let error = Prefixes::new(&[("10.0.0.0".parse().expect("an address"), 33)]);
        let text = error.expect_err("33 bits").to_string();
        assert!(text.contains("10.0.0.0/33") && text.contains("32"), "{text}");
        let many = vec![("10.0.0.0".parse().expect("an address"), 8); PREFIXES_MAX + 1];
        assert_eq!(Prefixes::new(&many), Err(PrefixError::TooMany { count: PREFIXES_MAX + 1 }));
    }
}
