//! A datagram a millisecond, each with its number and the times it was sent and arrived: the ruler for
//! interruptions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::lab::wait_for;
use crate::site::{BOUND, Site};
use crate::traffic::udp_pair;

const PACE: Duration = Duration::from_millis(1);

/// A stream that runs until it is ended.
pub struct Stream {
    stop: Arc<AtomicBool>,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    sender: JoinHandle<u32>,
    receiver: JoinHandle<()>,
}

/// A datagram that arrived.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    number: u32,
    at: Instant,
}

impl Stream {
    /// From the datacenter to the far host, or the other way.
    pub fn start(site: &Site, outbound: bool) -> Stream {
        let (sender, receiver) = udp_pair(site, outbound);

        let stop = Arc::new(AtomicBool::new(false));
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::clone(&stop);
        let sender = thread::spawn(move || {
            let mut number: u32 = 0;
            let mut next = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                // A send that fails is lost like one that is dropped on its way.
                let _ = sender.send(&number.to_be_bytes());
                number += 1;
                next += PACE;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            number
        });
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&arrivals));
        let receiver = thread::spawn(move || {
            let mut number = [0; 4];
            // After the end, one silence: what has not come by then does not come.
            loop {
                match receiver.recv(&mut number) {
                    Ok(_) => {
                        let arrival =
                            Arrival { number: u32::from_be_bytes(number), at: Instant::now() };
                        noted.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
                    }
                    Err(_) if stopped.load(Ordering::Relaxed) => return,
                    Err(_) => {}
                }
            }
        });
        let stream = Stream { stop, arrivals, sender, receiver };
        stream.wait_for_progress();
        stream
    }

    fn arrived(&self) -> usize {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits until thirty more have arrived.
    pub fn wait_for_progress(&self) {
        let goal = self.arrived() + 30;
        wait_for("the stream to go on", BOUND, || self.arrived() >= goal);
    }

    /// Ends it.
    pub fn end(self) -> Record {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("it went well");
        self.receiver.join().expect("it went well");
        let arrivals =
            std::mem::take(&mut *self.arrivals.lock().unwrap_or_else(PoisonError::into_inner));
        Record { sent, arrivals }
    }
}

/// What became of a stream.
pub struct Record {
    /// Datagrams sent.
    pub sent: u32,
    /// In order of arrival.
    arrivals: Vec<Arrival>,
}

impl Record {
    /// Arrivals of a datagram that was there already.
    pub fn doubled(&self) -> usize {
        let mut numbers: Vec<u32> = self.arrivals.iter().map(|arrival| arrival.number).collect();
        numbers.sort_unstable();
        numbers.windows(2).filter(|pair| pair[0] == pair[1]).count()
    }

    /// Sent and never arrived.
    pub fn lost(&self) -> usize {
        self.sent as usize + self.doubled() - self.arrivals.len()
    }

    /// Longest time without an arrival among those that lie between `start` and `end`.
    pub fn longest_gap_within(&self, start: Instant, end: Instant) -> Duration {
        let first = self.arrivals.partition_point(|arrival| arrival.at < start);
        let past_last = self.arrivals.partition_point(|arrival| arrival.at <= end);
        let gaps = self.arrivals[first..past_last].windows(2).map(|pair| pair[1].at - pair[0].at);
        gaps.max().unwrap_or(end - start)
    }

    /// Longest time without an arrival that touches the time from `start` to `end`.
    pub fn longest_gap(&self, start: Instant, end: Instant) -> Duration {
        let first = self.arrivals.partition_point(|arrival| arrival.at < start).saturating_sub(1);
        let past_last = self.arrivals.partition_point(|arrival| arrival.at <= end);
        let touched = &self.arrivals[first..(past_last + 1).min(self.arrivals.len())];
        let gaps = touched.windows(2).map(|pair| pair[1].at - pair[0].at);
        gaps.max().unwrap_or(end - start)
    }
}

/// Times in order, for people.
pub struct Distribution(Vec<Duration>);

impl Distribution {
    /// Of these.
    pub fn new(times: impl IntoIterator<Item = Duration>) -> Distribution {
        let mut times: Vec<Duration> = times.into_iter().collect();
        times.sort_unstable();
        Distribution(times)
    }

    fn milliseconds(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).clamp(1, self.0.len());
        self.0[rank - 1].as_secs_f64() * 1000.0
    }
}

impl std::fmt::Display for Distribution {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [half, most, all] = [50, 99, 100].map(|percent| self.milliseconds(percent));
        let count = self.0.len();
        write!(formatter, "p50 {half:.1} ms, p99 {most:.1} ms, max {all:.1} ms ({count})")
    }
}
