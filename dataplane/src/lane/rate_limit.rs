//! A limit on how often something is done: a token bucket (RFC 4443 section 2.4(f)).
//!
//! It is kept as one time, that at which the bucket will be full again; a token is an interval.

/// At most so many in a burst, and so many a second after it.
#[derive(Debug, Clone, Copy)]
pub struct RateLimit {
    interval_ns: u64,
    burst_ns: u64,
    full_at_ns: u64,
}

impl RateLimit {
    /// A full bucket of `burst` tokens, refilled by `per_second`.
    ///
    /// # Panics
    ///
    /// When either is zero.
    pub fn new(per_second: u32, burst: u32) -> Self {
        assert!(per_second > 0 && burst > 0, "a limit of nothing would never let anything pass");
        let interval_ns = (1_000_000_000 / u64::from(per_second)).max(1);
        RateLimit { interval_ns, burst_ns: interval_ns * u64::from(burst), full_at_ns: 0 }
    }

    /// Takes a token, when there is one. Time never runs backwards here: an earlier one is the latest.
    #[inline]
    pub fn allows(&mut self, now_ns: u64) -> bool {
        let full_at_ns = self.full_at_ns.max(now_ns) + self.interval_ns;
        if full_at_ns - now_ns > self.burst_ns {
            return false;
        }
        self.full_at_ns = full_at_ns;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut limit = RateLimit::new(10, 5);
        let start_ns = 77 * SECOND_NS;
        assert_eq!((0..100).filter(|_| limit.allows(start_ns)).count(), 5);
        assert!(!limit.allows(start_ns + SECOND_NS / 10 - 1));
        assert!(limit.allows(start_ns + SECOND_NS / 10));
        assert!(!limit.allows(start_ns + SECOND_NS / 10));
    }

    #[test]
    fn in_the_long_run_it_is_the_rate_and_rest_gives_no_more_than_a_burst() {
        let mut limit = RateLimit::new(100, 20);
        let passed = (0..10_000_u64).filter(|step| limit.allows(step * SECOND_NS / 1000)).count();
        assert_eq!(passed, 20 + 999);
        let later_ns = 3600 * SECOND_NS;
        assert_eq!((0..100).filter(|_| limit.allows(later_ns)).count(), 20);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_away() {
        let mut limit = RateLimit::new(1, 1);
        assert!(limit.allows(10 * SECOND_NS));
        assert!(!limit.allows(9 * SECOND_NS));
        assert!(limit.allows(11 * SECOND_NS));
    }
}
