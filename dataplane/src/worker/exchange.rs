//! Handing packets over between workers.
//!
//! What leaves a tunnel may have arrived all on one queue: a NIC that hashes outer headers alone sees one flow.
//! So the worker that took a packet out of a tunnel hands it to the worker of its inner flow, which sends it:
//!
//! ```text
//!   worker 0   tunnel -> inner flow -> its own: sent
//!                                   \-> worker 1's:  parcel ----bounded queue----> worker 1 sends it
//!                                                      ^                              |
//!                                                      +-------- empty parcels -------+
//! ```
//!
//! A parcel is a copy: the frame goes back to its owner's free ones at once, because the sockets of another
//! worker cannot send from it. **Invariant:** between two workers, one queue one way: packets of a flow stay in
//! order. Parcels are made at the start, and each goes round between its two workers; when none is empty the
//! packet is dropped and counted.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel::{Receiver, Sender, bounded};
use nix::sys::eventfd::{EfdFlags, EventFd};
use serde::{Deserialize, Serialize};

use crate::batch::PortId;
use crate::outbox::FRAME_BYTES_MAX;

/// Parcels from one worker to another.
const PARCELS: usize = 256;

/// A packet between two workers.
struct Parcel {
    port: PortId,
    bytes: usize,
    storage: [u8; FRAME_BYTES_MAX],
}

/// Wakes a worker that sleeps.
#[derive(Debug)]
struct Bell {
    event: EventFd,
    asleep: AtomicBool,
}

impl Bell {
    fn new() -> nix::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Bell { event, asleep: AtomicBool::new(false) })
    }

    /// One system call, and only for a sleeper.
    fn ring(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // It can only be full of rings already.
            let _ = self.event.write(1);
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// What a worker handed over and was handed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverCounters {
    /// To other workers.
    pub given: u64,
    /// By other workers, and sent.
    pub taken: u64,
    /// To other workers that could not keep up: dropped, and counted as such.
    pub full: u64,
    /// By other workers, and dropped for lack of a free frame.
    pub no_frame: u64,
}

impl HandoverCounters {
    /// Adds those of another worker.
    pub fn add(&mut self, other: &HandoverCounters) {
        let HandoverCounters { given, taken, full, no_frame } = other;
        self.given += given;
        self.taken += taken;
        self.full += full;
        self.no_frame += no_frame;
    }
}

/// The way to one other worker.
struct Outlet {
    parcels: Sender<Box<Parcel>>,
    empty: Receiver<Box<Parcel>>,
    bell: Arc<Bell>,
}

/// The way from one other worker.
struct Inlet {
    parcels: Receiver<Box<Parcel>>,
    empty: Sender<Box<Parcel>>,
}

/// One worker's ways to and from all others.
pub struct Exchange {
    /// Its number.
    own: usize,
    /// By worker; none to itself.
    outlets: Vec<Option<Outlet>>,
    inlets: Vec<Inlet>,
    bell: Arc<Bell>,
    /// Whose bells were not rung yet.
    owed: Vec<bool>,
    /// What it came to.
    pub counters: HandoverCounters,
}

impl Exchange {
    /// One for each of so many workers, in their order.
    ///
    /// # Errors
    ///
    /// When the system gives no event descriptors.
    pub fn between(workers: usize) -> nix::Result<Vec<Exchange>> {
        let bells: Vec<_> =
            (0..workers).map(|_| Bell::new().map(Arc::new)).collect::<Result<_, _>>()?;
        let mut exchanges: Vec<Exchange> = bells
            .iter()
            .enumerate()
            .map(|(own, bell)| Exchange {
                own,
                outlets: (0..workers).map(|_| None).collect(),
                inlets: Vec::new(),
                bell: Arc::clone(bell),
                owed: vec![false; workers],
                counters: HandoverCounters::default(),
            })
            .collect();
        for from in 0..workers {
            for to in (0..workers).filter(|&to| to != from) {
                let (parcels, inbox) = bounded(PARCELS);
                let (give_back, empty) = bounded(PARCELS);
                for _ in 0..PARCELS {
                    let parcel =
                        Parcel { port: PortId::Lan, bytes: 0, storage: [0; FRAME_BYTES_MAX] };
                    give_back.send(Box::new(parcel)).expect("there is room for all of them");
                }
                let bell = Arc::clone(&bells[to]);
                exchanges[from].outlets[to] = Some(Outlet { parcels, empty, bell });
                exchanges[to].inlets.push(Inlet { parcels: inbox, empty: give_back });
            }
        }
        Ok(exchanges)
    }

    /// The worker whose flows have this hash, unless it is this one.
    #[inline]
    pub(super) fn other_for(&self, flow_hash: u32) -> Option<usize> {
        let worker = ((u64::from(flow_hash) * self.outlets.len() as u64) >> 32) as usize;
        (worker != self.own).then_some(worker)
    }

    /// Gives a packet that is to leave by `port` to another worker; false when that cannot keep up.
    pub(super) fn give(&mut self, worker: usize, port: PortId, packet: &[u8]) -> bool {
        let outlet = self.outlets[worker].as_ref().expect("a worker gives itself nothing");
        let Ok(mut parcel) = outlet.empty.try_recv() else {
            self.counters.full += 1;
            return false;
        };
        parcel.port = port;
        parcel.bytes = packet.len();
        parcel.storage[..packet.len()].copy_from_slice(packet);
        // There are as many places as parcels. Only a worker that has ended takes none.
        if outlet.parcels.try_send(parcel).is_err() {
            self.counters.full += 1;
            return false;
        }
        self.owed[worker] = true;
        self.counters.given += 1;
        true
    }

    /// Wakes those that were given something and sleep.
    pub(super) fn ring(&mut self) {
        for (owed, outlet) in self.owed.iter_mut().zip(&self.outlets) {
            if std::mem::take(owed)
                && let Some(outlet) = outlet
            {
                outlet.bell.ring();
            }
        }
    }

    /// Hands each packet that was given to this worker to `send`, with its port, until that says there is no
    /// room. Returns how many.
    pub(super) fn take(&mut self, mut send: impl FnMut(PortId, &[u8]) -> Sent) -> usize {
        let mut packets = 0;
        for inlet in &self.inlets {
            // As many as there are now, so that a round ends.
            for _ in 0..inlet.parcels.len() {
                let Ok(parcel) = inlet.parcels.try_recv() else { break };
                match send(parcel.port, &parcel.storage[..parcel.bytes]) {
                    Sent::Yes => self.counters.taken += 1,
                    Sent::No => self.counters.no_frame += 1,
                }
                packets += 1;
                let _ = inlet.empty.try_send(parcel);
            }
        }
        packets
    }

    /// From now on others ring, until [`Exchange::wake`]; false when something has arrived meanwhile.
    pub(super) fn doze(&self) -> bool {
        self.bell.asleep.store(true, Ordering::SeqCst);
        self.inlets.iter().all(|inlet| inlet.parcels.is_empty())
    }

    /// Awake again.
    pub(super) fn wake(&self) {
        self.bell.asleep.store(false, Ordering::SeqCst);
        // Nothing to read is no error: it was not the bell.
        let _ = self.bell.event.read();
    }

    /// What others ring.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The descriptors that the worker reads and writes: its own bell, and those of the others.
    pub fn descriptors(&self) -> (BorrowedFd<'_>, impl Iterator<Item = BorrowedFd<'_>>) {
        (self.bell(), self.outlets.iter().flatten().map(|outlet| outlet.bell.as_fd()))
    }
}

/// What became of a packet that another worker had given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Yes,
    /// There was no frame, or no room in the transmit ring.
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_arrives_in_order_and_a_full_queue_is_counted() {
        let mut exchanges = Exchange::between(2).expect("event descriptors");
        let mut second = exchanges.pop().expect("two");
        let mut first = exchanges.pop().expect("two");
        for n in 0..PARCELS + 3 {
            assert_eq!(first.give(1, PortId::Lan, &n.to_be_bytes()), n < PARCELS, "{n}");
        }
        let mut seen = Vec::new();
        let taken = second.take(|port, packet| {
            assert_eq!(port, PortId::Lan);
            seen.push(usize::from_be_bytes(packet.try_into().expect("eight bytes")));
            if seen.len() == 7 { Sent::No } else { Sent::Yes }
        });
        assert_eq!(taken, PARCELS);
        assert!(seen.iter().copied().eq(0..PARCELS));
        assert_eq!((first.counters.given, first.counters.full), (PARCELS as u64, 3));
        assert_eq!((second.counters.taken, second.counters.no_frame), (PARCELS as u64 - 1, 1));
        assert!(first.give(1, PortId::Wan, b"empty parcels have come back"));
    }

    #[test]
    fn a_sleeper_is_rung_once_and_does_not_sleep_over_a_parcel() {
        let mut exchanges = Exchange::between(2).expect("event descriptors");
        let (mut first, second) = (exchanges.remove(0), exchanges.remove(0));
        assert!(second.doze());
        first.give(1, PortId::Lan, b"wake up");
        first.ring();
        assert_eq!(second.bell.event.read().expect("it was rung"), 1);
        first.give(1, PortId::Lan, b"awake already");
        first.ring();
        second.bell.event.read().expect_err("not rung again");
        assert!(!second.doze(), "parcels wait");
        second.wake();
    }

    #[test]
    fn every_worker_has_its_share_of_flows() {
        let exchanges = Exchange::between(3).expect("event descriptors");
        let hashes = (0..3000_u32).map(|n| n.wrapping_mul(0x9e37_79b9));
        let mut counts = [0; 3];
        for hash in hashes {
            let other = exchanges[0].other_for(hash).unwrap_or(0);
            assert!(
                exchanges[1..]
                    .iter()
                    .all(|exchange| { exchange.other_for(hash).unwrap_or(exchange.own) == other })
            );
            counts[other] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }
}
