//! One direction of an emulated path: which frames are lost, and when the others go on.
//!
//! Time is an argument, chance a seed: nothing here waits or reads a clock.
//!
//! Invariant: received = sent + lost + full + refused + still held; oversize frames are not received.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::port::Frame;
use crate::lab::random::Random;

/// What is done to the frames of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Impairment {
    /// For how long a frame is held.
    pub delay: Duration,
    /// How much longer or shorter at most; every deviation is as likely.
    pub jitter: Duration,
    /// Share of frames that are lost, each by a chance of its own: 0 to 1.
    pub loss: f64,
    /// Whether a frame may overtake one that was to be held longer. If not, it waits for that one.
    pub reorders: bool,
}

/// What became of the frames of a direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Frames that came.
    pub received: u64,
    /// Those that went on.
    pub sent: u64,
    /// Those that were lost on purpose.
    pub lost: u64,
    /// Those for which there was no room.
    pub full: u64,
    /// Those that the interface did not take, for example because it was down.
    pub refused: u64,
    /// Those that were held yet when the end came.
    pub held: u64,
}

impl Account {
    /// Whether every frame is in one place.
    pub fn balances(&self) -> bool {
        self.received == self.sent + self.lost + self.full + self.refused + self.held
    }
}

/// One direction.
pub(super) struct Direction {
    impairment: Impairment,
    random: Random,
    frames_max: usize,
    held: BinaryHeap<Reverse<Held>>,
    /// When the frame before goes on.
    latest_ns: u64,
    account: Account,
}

/// A frame that waits.
pub(super) struct Held {
    /// When it goes on.
    pub(super) release_ns: u64,
    /// Of two with the same time, the one that came first goes first.
    number: u64,
    /// What goes on.
    pub(super) frame: Box<Frame>,
}

impl Direction {
    /// The chances of a name differ from those of another.
    pub(super) fn new(
        impairment: Impairment,
        frames_max: usize,
        seed: u64,
        name: &str,
    ) -> Direction {
        Direction {
            impairment,
            random: Random::named(seed, name),
            frames_max,
            held: BinaryHeap::new(),
            latest_ns: 0,
            account: Account::default(),
        }
    }

    /// Takes a frame that came at that time, unless it is lost or there is no room.
    pub(super) fn receive(&mut self, came_ns: u64, frame: Box<Frame>) -> Option<Box<Frame>> {
        let number = self.account.received;
        self.account.received += 1;
        // Both are drawn for every frame, so that no loss shifts the delays of the others.
        let (loss, deviation) = (self.random.unit(), self.random.unit() * 2.0 - 1.0);
        if loss < self.impairment.loss {
            self.account.lost += 1;
            return Some(frame);
        }
        if self.held.len() >= self.frames_max {
            self.account.full += 1;
            return Some(frame);
        }
        let Impairment { delay, jitter, reorders, .. } = self.impairment;
        let delay_ns = delay.as_nanos() as f64 + jitter.as_nanos() as f64 * deviation;
        let mut release_ns = came_ns + delay_ns.max(0.0) as u64;
        if !reorders {
            release_ns = release_ns.max(self.latest_ns);
            self.latest_ns = release_ns;
        }
        self.held.push(Reverse(Held { release_ns, number, frame }));
        None
    }

    /// The next frame whose time has come.
    pub(super) fn due(&mut self, now_ns: u64) -> Option<Held> {
        if self.next_ns()? > now_ns {
            return None;
        }
        self.held.pop().map(|Reverse(held)| held)
    }

    /// When the next frame goes on.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.held.peek().map(|Reverse(held)| held.release_ns)
    }

    /// Notes what became of frames that were due.
    pub(super) fn went_on(&mut self, sent: u64, refused: u64) {
        self.account.sent += sent;
        self.account.refused += refused;
    }

    /// What became of all frames so far.
    pub(super) fn account(&self) -> Account {
        Account { held: self.held.len() as u64, ..self.account }
    }
}

impl Held {
    fn key(&self) -> (u64, u64) {
        (self.release_ns, self.number)
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Held) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Held) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Held) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Held {}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const TEN: Impairment = Impairment {
        delay: Duration::from_millis(10),
        jitter: Duration::ZERO,
        loss: 0.0,
        reorders: false,
    };

    fn direction(impairment: Impairment) -> Direction {
        Direction::new(impairment, 100_000, 3, "forth")
    }

    /// Frames a microsecond apart: the times at which they go on, by number.
    fn releases(impairment: Impairment, frames: u64) -> Vec<(u64, u64)> {
        let mut direction = direction(impairment);
        for number in 0..frames {
            direction.receive(number * 1000, Box::default());
        }
        let due = std::iter::from_fn(|| direction.due(u64::MAX));
        due.map(|held| (held.number, held.release_ns)).collect()
    }

    #[test]
    fn a_frame_goes_on_when_its_delay_is_over_and_not_before() {
        let mut direction = direction(TEN);
        assert!(direction.receive(5, Box::default()).is_none());
        assert_eq!(direction.next_ns(), Some(10 * MS + 5));
        assert!(direction.due(10 * MS + 4).is_none());
        assert_eq!(direction.due(10 * MS + 5).map(|held| held.release_ns), Some(10 * MS + 5));
        assert!(direction.due(u64::MAX).is_none());
    }

    #[test]
    fn jitter_is_uniform_around_the_delay() {
        let jitter = Impairment { jitter: Duration::from_millis(4), reorders: true, ..TEN };
        let mut deviations: Vec<f64> = releases(jitter, 10_000)
            .iter()
            .map(|(number, release_ns)| (release_ns - number * 1000) as f64 / MS as f64 - 6.0)
            .collect();
        deviations.sort_by(f64::total_cmp);
        // Kolmogorov and Smirnov, one seed in a thousand.
        for (index, deviation) in deviations.iter().enumerate() {
            assert!((index as f64 / 10_000.0 - deviation / 8.0).abs() < 0.0195, "{deviation}");
        }
    }

    #[test]
    fn frames_keep_their_order_unless_they_may_overtake() {
        let jitter = Impairment { jitter: Duration::from_millis(4), ..TEN };
        let in_order = |releases: &[(u64, u64)]| releases.is_sorted_by_key(|(number, _)| *number);
        assert!(in_order(&releases(jitter, 10_000)));
        assert!(!in_order(&releases(Impairment { reorders: true, ..jitter }, 10_000)));
    }

    #[test]
    fn jitter_that_exceeds_the_delay_holds_no_frame_for_less_than_no_time() {
        let wild = Impairment { jitter: Duration::from_millis(40), reorders: true, ..TEN };
        for (number, release_ns) in releases(wild, 1000) {
            assert!(release_ns >= number * 1000);
        }
    }

    #[test]
    fn losses_have_their_share_and_the_others_their_delays_as_without_them() {
        let jitter = Impairment { jitter: Duration::from_millis(4), reorders: true, ..TEN };
        let lossy = releases(Impairment { loss: 0.1, ..jitter }, 10_000);
        // Four standard deviations of a binomial count.
        assert!((9_000 - 120..9_000 + 120).contains(&lossy.len()), "{}", lossy.len());
        let all = releases(jitter, 10_000);
        assert!(lossy.iter().all(|one| all.contains(one)));
    }

    #[test]
    fn every_frame_is_in_one_place() {
        let mut direction = Direction::new(Impairment { loss: 0.25, ..TEN }, 50, 3, "forth");
        let returned = (0..100).filter_map(|at| direction.receive(at, Box::default())).count();
        for _ in 0..20 {
            assert!(direction.due(u64::MAX).is_some());
        }
        direction.went_on(18, 2);
        let account = direction.account();
        assert!(account.balances(), "{account:?}");
        assert_eq!(account.lost + account.full, returned as u64);
        assert_eq!((account.sent, account.refused, account.held), (18, 2, 30));
        assert!(account.lost > 10 && account.full > 10, "{account:?}");
    }
}
