//! Random numbers that a seed brings back, on every machine and with every version: SplitMix64 (Steele, Lea,
//! Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A sequence of random numbers.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// One of the independent sequences of a seed, by its name: what is drawn from one does not shift another.
    pub fn named(seed: u64, name: &str) -> Random {
        let mut random = Random(seed);
        for byte in name.bytes() {
            random.0 = random.bits() ^ u64::from(byte);
        }
        Random(random.bits())
    }

    /// All 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The time until the next of events that come independently, so many a second, in seconds.
    pub fn exponential(&mut self, per_s: f64) -> f64 {
        -(1.0 - self.unit()).ln() / per_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of seed 0, from the authors' C program.
    #[test]
    fn numbers_are_those_of_the_authors() {
        let mut random = Random::new(0);
        assert_eq!(random.bits(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.bits(), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(random.bits(), 0x06c4_5d18_8009_454f);
    }

    #[test]
    fn names_give_different_sequences() {
        let first = |name| Random::named(7, name).bits();
        assert_eq!(first("listing"), first("listing"));
        assert_ne!(first("listing"), first("listings"));
        assert_ne!(first("ab"), first("ba"));
    }

    #[test]
    fn times_between_events_are_exponential() {
        let mut random = Random::new(2);
        let mut times: Vec<f64> = (0..10_000).map(|_| random.exponential(20.0)).collect();
        times.sort_by(f64::total_cmp);
        // Kolmogorov and Smirnov: at this size one seed in a thousand is further off.
        let bound = 1.95 / (times.len() as f64).sqrt();
        for (index, time) in times.iter().enumerate() {
            let expected = 1.0 - (-20.0 * time).exp();
            let seen = index as f64 / times.len() as f64;
            assert!((seen - expected).abs() < bound, "{seen} instead of {expected} at {time}");
        }
    }
}
