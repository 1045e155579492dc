//! What whoever waits for a live run sees meanwhile.
//!
//! Percentiles are of the packets that left the matcher since the last look, so they lag by the window and say how
//! it is now, not how it was on average.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use hdrhistogram::Histogram;

use crate::export::table::time;
use crate::flow::{Direction, Flows};
use crate::lane::Lanes;
use crate::matcher::{Class, Outcome};
use crate::measurement::Rows;
use crate::session::Session;
use crate::source::Tap;

/// Since the last look.
#[derive(Debug)]
pub(super) struct Recent {
    matched: u64,
    /// Since the beginning.
    single: u64,
    delay: Histogram<u64>,
}

/// Passes rows on, and notes what progress shows.
pub struct Watch {
    recent: Arc<Mutex<Recent>>,
    rows: Option<Box<dyn Rows + Send>>,
}

impl Watch {
    /// In front of `rows`.
    pub fn new(rows: Option<Box<dyn Rows + Send>>) -> Self {
        // A minute; what takes longer counts as a minute.
        let delay = Histogram::new_with_bounds(1, 60_000_000_000, 2).expect("two digits are fine");
        let recent = Recent { matched: 0, single: 0, delay };
        Watch { recent: Arc::new(Mutex::new(recent)), rows }
    }

    pub(super) fn recent(&self) -> Arc<Mutex<Recent>> {
        self.recent.clone()
    }
}

impl Rows for Watch {
    #[inline]
    fn row(
        &mut self,
        outcome: &Outcome,
        direction: Option<Direction>,
        flows: &Flows,
        lanes: &Lanes,
    ) {
        let recent = &mut *self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if outcome.class[0] == Class::Matched {
            recent.matched += 1;
            let delay_ns = outcome.time_ns[1].abs_diff(outcome.time_ns[0]);
            recent.delay.saturating_record(delay_ns);
        } else {
            recent.single +=
                outcome.class.iter().filter(|&&class| class == Class::Single).count() as u64;
        }
        if let Some(rows) = &mut self.rows {
            rows.row(outcome, direction, flows, lanes);
        }
    }

    fn finish(self: Box<Self>, lanes: &Lanes) -> io::Result<()> {
        self.rows.map_or(Ok(()), |rows| rows.finish(lanes))
    }
}

/// How a run goes.
#[derive(Debug)]
pub struct Progress {
    recent: Arc<Mutex<Recent>>,
    elapsed: Duration,
    frames: [u64; 2],
    drops: [u64; 2],
    /// Packets seen at one tap only.
    single: u64,
    /// Frames a second of each tap.
    rates: [f64; 2],
    /// Of the packets that left the matcher, those seen at both taps.
    matched_share: Option<f64>,
    p50_ns: Option<u64>,
    p99_ns: Option<u64>,
}

impl Progress {
    pub(super) fn new(recent: Arc<Mutex<Recent>>) -> Self {
        Progress {
            recent,
            elapsed: Duration::ZERO,
            frames: [0; 2],
            drops: [0; 2],
            single: 0,
            rates: [0.0; 2],
            matched_share: None,
            p50_ns: None,
            p99_ns: None,
        }
    }

    pub(super) fn take(&mut self, session: &Session, elapsed: Duration, drops: [u64; 2]) {
        let seconds = (elapsed - self.elapsed).as_secs_f64();
        for tap in Tap::BOTH {
            let frames = session.tap(tap).frames;
            let before = std::mem::replace(&mut self.frames[tap.index()], frames);
            self.rates[tap.index()] = frames.saturating_sub(before) as f64 / seconds;
        }
        (self.elapsed, self.drops) = (elapsed, drops);
        let recent = &mut *self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever was seen at one tap only waits in the late memory until there is no more room.
        let single = recent.single + session.late() as u64;
        let lost = single.saturating_sub(std::mem::replace(&mut self.single, single));
        let all = recent.matched + lost;
        self.matched_share = (all > 0).then(|| recent.matched as f64 / all as f64);
        let at = |quantile| (recent.matched > 0).then(|| recent.delay.value_at_quantile(quantile));
        (self.p50_ns, self.p99_ns) = (at(0.5), at(0.99));
        recent.matched = 0;
        recent.delay.reset();
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [ingress, egress] = self.rates;
        let seconds = self.elapsed.as_secs();
        write!(out, "{seconds:>5} s  ingress {ingress:>8.0}/s  egress {egress:>8.0}/s")?;
        match self.matched_share {
            Some(share) => write!(out, "  matched {:>6.2} %", 100.0 * share)?,
            None => write!(out, "  matched      -  ")?,
        }
        let show = |ns: Option<u64>| ns.map_or("-".into(), |ns| time(ns as f64));
        write!(out, "  delay p50 {:>8} p99 {:>8}", show(self.p50_ns), show(self.p99_ns))?;
        write!(out, "  capture drops {}", self.drops.iter().sum::<u64>())
    }
}
