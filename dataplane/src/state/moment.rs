//! A moment that another process can place, after a restart of the program or of the machine.
//!
//! While the machine runs, `CLOCK_BOOTTIME` says how long ago something was, whatever happens to the clock on the wall.
//! It starts anew with the machine; then the wall clock is all there is, and the time the machine has run is the least
//! it can have been.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Which run of the machine; 0 when the kernel does not say.
    pub boot_id: u128,
    /// Nanoseconds that the machine has run, sleep included.
    pub boottime_ns: u64,
    /// Nanoseconds since 1970.
    pub wall_ns: u64,
}

/// A moment that lies in the future.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it was saved later than now, so nobody can say how old its flows are (was the clock set back?)"
)]
pub struct InTheFuture;

impl Moment {
    /// This one.
    pub fn now() -> Self {
        let boottime = clock_gettime(ClockId::CLOCK_BOOTTIME);
        let boottime = boottime.expect("a kernel with AF_XDP has this clock");
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment {
            boot_id: boot_id().unwrap_or(0),
            boottime_ns: boottime.tv_sec() as u64 * 1_000_000_000 + boottime.tv_nsec() as u64,
            wall_ns: wall.as_nanos() as u64,
        }
    }

    /// Time from an earlier moment to this one, in nanoseconds.
    ///
    /// # Errors
    ///
    /// When that seems to be later.
    pub fn since_ns(&self, earlier: &Moment) -> Result<u64, InTheFuture> {
        if self.boot_id != 0 && self.boot_id == earlier.boot_id {
            return self.boottime_ns.checked_sub(earlier.boottime_ns).ok_or(InTheFuture);
        }
        let wall_ns = self.wall_ns.checked_sub(earlier.wall_ns).ok_or(InTheFuture)?;
        let is_another_run = self.boot_id != 0 && earlier.boot_id != 0;
        Ok(if is_another_run { wall_ns.max(self.boottime_ns) } else { wall_ns })
    }
}

/// random(4): a UUID that is new with each start of the machine.
fn boot_id() -> Option<u128> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    u128::from_str_radix(&text.trim().replace('-', ""), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLIER: Moment = Moment { boot_id: 7, boottime_ns: 100, wall_ns: 1000 };

    #[test]
    fn within_one_run_of_the_machine_the_wall_clock_does_not_matter() {
        let now = Moment { boottime_ns: 130, wall_ns: 5, ..EARLIER };
        assert_eq!(now.since_ns(&EARLIER), Ok(30));
        assert_eq!(EARLIER.since_ns(&now), Err(InTheFuture));
    }

    #[test]
    fn after_a_reboot_it_is_the_wall_clock_and_at_least_the_time_since() {
        let now = Moment { boot_id: 8, boottime_ns: 20, wall_ns: 1050 };
        assert_eq!(now.since_ns(&EARLIER), Ok(50));
        assert_eq!(Moment { boottime_ns: 90, ..now }.since_ns(&EARLIER), Ok(90));
        assert_eq!(Moment { wall_ns: 999, ..now }.since_ns(&EARLIER), Err(InTheFuture));
    }

    #[test]
    fn without_the_kernels_word_only_the_wall_clock_counts() {
        let now = Moment { boot_id: 0, boottime_ns: 90, wall_ns: 1050 };
        assert_eq!(now.since_ns(&EARLIER), Ok(50));
        assert_eq!(now.since_ns(&Moment { boot_id: 0, ..EARLIER }), Ok(50));
    }

    #[test]
    fn now_is_not_before_an_earlier_now() {
        let earlier = Moment::now();
        assert_ne!(earlier.boot_id, 0);
        assert!(Moment::now().since_ns(&earlier).is_ok_and(|ns| ns < 60_000_000_000));
    }
}
