//! A keyed hash: somebody who knows this code but not the secret cannot choose flows that collide.
//!
//! The first layer is NH, the almost-universal hash of UMAC (Black, Halevi, Krawczyk, Krovetz, Rogaway,
//! "UMAC: Fast and Secure Message Authentication", CRYPTO 1999, section 4): words are taken in pairs, a secret
//! word is added to each, and the pairs' products are summed. For 64-bit words two different keys collide
//! in its 128 bits with probability 2^-64. The second layer is one more NH over those 128 bits with secrets
//! of its own, whose halves are folded, so that every bit of the result depends on every bit of the key.
//! Two multiplications an IPv4 key, four an IPv6 key.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::key::Key;

/// Most words of a key.
const WORDS_MAX: usize = 6;

/// The secret of one hash function.
#[derive(Clone)]
pub struct Secret {
    words: [u64; WORDS_MAX],
    fold: [u64; 2],
}

impl Secret {
    /// A secret nobody knows, from the system's random numbers.
    pub fn random() -> Self {
        // Each RandomState has keys of its own; its SipHash turns them into words.
        Secret::from_words(|_| RandomState::new().build_hasher().finish())
    }

    /// The same secret for the same seed, for runs that must repeat.
    pub fn from_seed(seed: u64) -> Self {
        // SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
        Secret::from_words(|index| {
            let mut word = seed.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ (word >> 31)
        })
    }

    fn from_words(mut word: impl FnMut(u64) -> u64) -> Self {
        let mut next = 0;
        let mut draw = || {
            next += 1;
            word(next)
        };
        Secret { words: std::array::from_fn(|_| draw()), fold: std::array::from_fn(|_| draw()) }
    }

    /// The hash of a key; all 64 bits are good.
    #[inline(always)]
    pub fn hash<const W: usize>(&self, key: &Key<W>) -> u64 {
        const { assert!(W.is_multiple_of(2) && W <= WORDS_MAX) };
        let mut sum: u128 = 0;
        for pair in 0..W / 2 {
            let [a, b] = [2 * pair, 2 * pair + 1].map(|w| key.0[w].wrapping_add(self.words[w]));
            sum = sum.wrapping_add(u128::from(a) * u128::from(b));
        }
        let low = (sum as u64).wrapping_add(self.fold[0]);
        let high = ((sum >> 64) as u64).wrapping_add(self.fold[1]);
        let folded = u128::from(low) * u128::from(high);
        folded as u64 ^ (folded >> 64) as u64
    }
}

/// Never shows the secret.
impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chi-squared of `count` hashes over 1024 cells; its mean is 1023, its deviation about 45.
    fn chi_squared(hashes: impl Iterator<Item = u64>, shift: u32) -> f64 {
        let mut cells = [0_u32; 1024];
        let mut count = 0_u32;
        for hash in hashes {
            cells[(hash >> shift) as usize & 1023] += 1;
            count += 1;
        }
        let expected = f64::from(count) / 1024.0;
        cells.iter().map(|&cell| (f64::from(cell) - expected).powi(2) / expected).sum()
    }

    #[test]
    fn keys_that_differ_in_few_bits_spread_evenly_over_high_and_low_bits() {
        for seed in 0..8 {
            let secret = Secret::from_seed(seed);
            for shift in [0, 22, 32, 54] {
                let ports =
                    (0..200_000_u64).map(|n| secret.hash(&Key([0x0a00_0001_0a00_0002, n << 32])));
                let spread = chi_squared(ports, shift);
                assert!((800.0..1250.0).contains(&spread), "seed {seed} shift {shift}: {spread}");
                let hosts = (0..200_000_u64).map(|n| secret.hash(&Key([1, 2, 3, n, n * n, 0])));
                let spread = chi_squared(hosts, shift);
                assert!((800.0..1250.0).contains(&spread), "seed {seed} shift {shift}: {spread}");
            }
        }
    }

    #[test]
    fn another_secret_is_another_function() {
        let key = Key([1, 2]);
        assert_ne!(Secret::from_seed(1).hash(&key), Secret::from_seed(2).hash(&key));
        assert_ne!(Secret::random().hash(&key), Secret::random().hash(&key));
        assert_eq!(Secret::from_seed(3).hash(&key), Secret::from_seed(3).hash(&key));
    }
}
