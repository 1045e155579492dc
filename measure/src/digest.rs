//! A keyed digest of 128 bits over 64-bit words.
//!
//! Each half is NH, the almost-universal hash of UMAC (Black, Halevi, Krawczyk, Krovetz, Rogaway, "UMAC: Fast
//! and Secure Message Authentication", CRYPTO 1999, section 4), with keys of its own, folded by one more NH.
//! Two different lists of words of one length agree in a half with a probability near 2^-63, in both near
//! 2^-126, for whoever does not know the keys. Lists of different lengths are told apart by the caller, who
//! puts lengths among the words.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Most words of a list.
pub const WORDS_MAX: usize = 44;

/// The words of one packet, filled anew for each.
#[derive(Debug, Clone)]
pub struct Words {
    words: [u64; WORDS_MAX],
    count: usize,
}

impl Default for Words {
    fn default() -> Self {
        Words { words: [0; WORDS_MAX], count: 0 }
    }
}

impl Words {
    /// Starts an empty list.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// Appends a word. Panics when there are [`WORDS_MAX`].
    #[inline(always)]
    pub fn push(&mut self, word: u64) {
        self.words[self.count] = word;
        self.count += 1;
    }

    /// Appends bytes, eight a word, the last word filled up with zeros.
    #[inline(always)]
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        let (whole, rest) = bytes.as_chunks::<8>();
        for chunk in whole {
            self.push(u64::from_le_bytes(*chunk));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.push(u64::from_le_bytes(last));
        }
    }
}

/// The keys of one run.
#[derive(Clone)]
pub struct Digester {
    keys: [[u64; WORDS_MAX]; 2],
    folds: [[u64; 2]; 2],
}

impl Digester {
    /// Keys that nobody knows, from the system's random numbers.
    pub fn random() -> Self {
        // Each RandomState has keys of its own; its SipHash turns them into words.
        let word = || RandomState::new().build_hasher().finish();
        Digester {
            keys: std::array::from_fn(|_| std::array::from_fn(|_| word())),
            folds: std::array::from_fn(|_| std::array::from_fn(|_| word())),
        }
    }

    /// The digest. An odd list gets a zero at its end.
    #[inline(always)]
    pub fn digest(&self, words: &mut Words) -> [u64; 2] {
        if !words.count.is_multiple_of(2) {
            words.push(0);
        }
        let pairs = words.words[..words.count].as_chunks::<2>().0;
        let mut sums = [0_u128; 2];
        for (sum, keys) in sums.iter_mut().zip(&self.keys) {
            for ([a, b], [key_a, key_b]) in pairs.iter().zip(keys.as_chunks::<2>().0) {
                let product =
                    u128::from(a.wrapping_add(*key_a)) * u128::from(b.wrapping_add(*key_b));
                *sum = sum.wrapping_add(product);
            }
        }
        std::array::from_fn(|half| {
            let low = (sums[half] as u64).wrapping_add(self.folds[half][0]);
            let high = ((sums[half] >> 64) as u64).wrapping_add(self.folds[half][1]);
            let folded = u128::from(low) * u128::from(high);
            folded as u64 ^ (folded >> 64) as u64
        })
    }
}

/// Never shows the keys.
impl std::fmt::Debug for Digester {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Digester")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(digester: &Digester, list: &[u64]) -> [u64; 2] {
        let mut words = Words::default();
        list.iter().for_each(|&word| words.push(word));
        digester.digest(&mut words)
    }

    #[test]
    fn one_bit_anywhere_changes_both_halves() {
        let digester = Digester::random();
        let list: Vec<u64> = (0..10).map(|word| word * 0x0123_4567_89ab_cdef).collect();
        let before = digest(&digester, &list);
        for bit in 0..640 {
            let mut changed = list.clone();
            changed[bit / 64] ^= 1 << (bit % 64);
            let after = digest(&digester, &changed);
            assert!(before[0] != after[0] && before[1] != after[1], "bit {bit}");
        }
    }

    #[test]
    fn a_million_neighbours_do_not_collide_in_either_half() {
        let digester = Digester::random();
        for half in 0..2 {
            let mut seen: Vec<u64> =
                (0..1_000_000).map(|n| digest(&digester, &[1, n, n >> 10, 0])[half]).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 1_000_000);
        }
    }

    #[test]
    fn bytes_fill_up_with_zeros_and_odd_lists_too() {
        let digester = Digester::random();
        let mut words = Words::default();
        words.push_bytes(&[1, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(digester.digest(&mut words), digest(&digester, &[1, 2]));
        assert_eq!(digest(&digester, &[1, 2, 3]), digest(&digester, &[1, 2, 3, 0]));
    }

    #[test]
    fn other_keys_are_another_function() {
        assert_ne!(digest(&Digester::random(), &[1, 2]), digest(&Digester::random(), &[1, 2]));
    }
}
