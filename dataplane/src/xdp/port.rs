//! A port: frames go round between the rings of one queue of one interface and the worker.
//!
//! **Invariants.**
//!
//! - `receiving` frames are in the fill and receive rings, never more than a ring has entries.
//! - `transmitting` frames are in the transmit and completion rings, never more than a ring has
//!   entries; so every completion has room. A frame completes after the call, or the driver's
//!   round, that read its transmit entry, so transmitting never fails either.
//! - While frames wait in the transmit ring and the kernel wants to be called for them, `maintain`
//!   calls it: no frame waits for ever.
//!
//! | ring       | producer              | consumer   | wake-up                            |
//! |------------|-----------------------|------------|------------------------------------|
//! | fill       | `receive`, `maintain` | kernel     | `recv`, when its flag asks         |
//! | receive    | kernel                | `receive`  | `wait` sleeps until it has a frame |
//! | transmit   | `transmit`            | kernel     | `send`, when its flag asks         |
//! | completion | kernel                | `maintain` | none: looked at every round        |

#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::frames::{Frame, Frames, UmemId};
use super::ledger::Received;
use super::rings::{DescriptorOf, Rings};
use super::statistics::SocketStatistics;
use crate::batch::PortId;
use crate::port::{BURST_MAX, Burst, FrameAccount, Port};
use crate::wire::buffer::Buffer;

/// Longest sleep while the rings are not at rest: nothing wakes a sleeper when transmissions
/// complete or the fill ring has room.
const RESTLESS_WAIT_MAX: Duration = Duration::from_millis(1);

/// One queue of one interface, as a [`Port`].
pub struct RingPort<R: Rings> {
    port: PortId,
    umem: UmemId,
    rings: R,
    ring_entries: usize,
    /// Frames in the fill and receive rings.
    receiving: usize,
    /// Frames in the transmit and completion rings.
    transmitting: usize,
    /// Our own counters; the kernel's are asked for.
    counted: SocketStatistics,
    /// Descriptors on their way between a ring and the tokens.
    descriptors: Box<[DescriptorOf<R>; BURST_MAX]>,
}

impl<R: Rings> RingPort<R> {
    /// A port on rings that were opened on the packet memory of `frames`. The kernel gets frames to
    /// receive into.
    pub fn new(port: PortId, rings: R, frames: &mut Frames<R::Memory>) -> Self {
        let mut opened = RingPort {
            port,
            umem: frames.id(),
            ring_entries: rings.entries(),
            rings,
            receiving: 0,
            transmitting: 0,
            counted: SocketStatistics::default(),
            descriptors: Box::new([DescriptorOf::<R>::default(); BURST_MAX]),
        };
        opened.fill(frames);
        opened
    }

    /// Which side.
    pub fn port(&self) -> PortId {
        self.port
    }

    pub(super) fn rings(&self) -> &R {
        &self.rings
    }

    /// Gives the kernel frames to receive into, until a ring of them is receiving.
    fn fill(&mut self, frames: &mut Frames<R::Memory>) {
        while self.receiving < self.ring_entries {
            let wanted = (self.ring_entries - self.receiving).min(BURST_MAX);
            // The kernel hands over what it received before it says which entries it has read, so
            // the ring may look full for a moment: the next round fills the rest.
            let room = self.rings.fill_room(wanted).min(wanted);
            let mut given = 0;
            for descriptor in &mut self.descriptors[..room] {
                let Some(free) = frames.fill(self.port) else { break };
                *descriptor = free;
                given += 1;
            }
            // SAFETY: `frames` has just noted these free frames of this socket's UMEM as receiving,
            // so there is no token for them and none is in another ring.
            let produced = unsafe { self.rings.fill(&self.descriptors[..given]) };
            assert_eq!(produced, given, "the fill ring had room");
            self.receiving += given;
            self.counted.frames_short += u64::from(given < room);
            if given < wanted {
                return;
            }
        }
    }

    /// Takes back the frames that were sent.
    fn reclaim(&mut self, frames: &mut Frames<R::Memory>) {
        while self.transmitting > 0 {
            let taken = self.rings.complete(&mut self.descriptors[..]);
            for descriptor in &self.descriptors[..taken] {
                if frames.completed(self.port, *descriptor) {
                    self.transmitting -= 1;
                } else {
                    self.counted.faulty_descriptors += 1;
                }
            }
            if taken < BURST_MAX {
                return;
            }
        }
    }

    /// Has the kernel look at the transmit ring, if it wants to be called for that.
    fn wake_transmit(&mut self) {
        if self.rings.transmit_needs_wakeup()
            && let Err(errno) = self.rings.wake_transmit()
        {
            self.counted.wake_failures.count(errno);
        }
    }

    /// Has the kernel look at the fill ring, if it wants to be called for that.
    fn wake_receive(&mut self) {
        if self.rings.receive_needs_wakeup()
            && let Err(errno) = self.rings.wake_receive()
        {
            self.counted.wake_failures.count(errno);
        }
    }

    /// Whether frames wait that only a call of ours gets sent. In copy mode a frame that has left
    /// the transmit ring completes by itself; a zero-copy driver may want a call for completions
    /// too.
    fn transmit_waits(&mut self) -> bool {
        self.transmitting > 0 && (self.rings.zero_copy() || self.rings.transmit_unread() > 0)
    }

    /// Whether nothing but a packet can give this port work.
    fn at_rest(&self) -> bool {
        self.transmitting == 0 && self.receiving == self.ring_entries
    }

    fn check(&self, frames: &Frames<R::Memory>) {
        assert_eq!(self.umem, frames.id(), "port and frames were not opened together");
    }
}

impl<R: Rings> Port for RingPort<R> {
    type Frame = Frame<DescriptorOf<R>>;
    type Frames = Frames<R::Memory>;
    type Statistics = SocketStatistics;

    #[inline]
    fn receive(&mut self, frames: &mut Self::Frames, burst: &mut Burst<Self::Frame>, limit: usize) {
        self.check(frames);
        let limit = limit.min(BURST_MAX);
        let taken = self.rings.receive(&mut self.descriptors[..limit]);
        for descriptor in &self.descriptors[..taken] {
            let (received, frame) = frames.received(self.port, *descriptor);
            self.receiving -= usize::from(received != Received::NoFrame);
            self.counted.faulty_descriptors += u64::from(received != Received::Packet);
            burst.extend(frame);
        }
        self.fill(frames);
        if taken == 0 {
            self.wake_receive();
        }
    }

    #[inline]
    fn transmit_room(&self) -> usize {
        self.ring_entries - self.transmitting
    }

    #[inline]
    fn transmit(&mut self, frames: &mut Self::Frames, burst: &mut Burst<Self::Frame>) {
        self.check(frames);
        assert!(burst.len() <= self.transmit_room(), "the burst is longer than the room");
        let count = burst.len();
        if count == 0 {
            return;
        }
        for (descriptor, frame) in self.descriptors.iter_mut().zip(burst.drain(..)) {
            *descriptor = frames.transmit(self.port, frame);
        }
        // SAFETY: the tokens of these frames, of this socket's UMEM, have just been consumed.
        let produced = unsafe { self.rings.transmit(&self.descriptors[..count]) };
        assert_eq!(produced, count, "the transmit ring holds fewer frames than it has entries");
        self.transmitting += count;
        self.wake_transmit();
    }

    #[inline]
    fn maintain(&mut self, frames: &mut Self::Frames) {
        self.check(frames);
        if self.transmit_waits() {
            self.wake_transmit();
        }
        self.reclaim(frames);
        self.fill(frames);
    }

    #[inline]
    fn release(frames: &mut Self::Frames, frame: Self::Frame) {
        frames.release(frame);
    }

    #[inline]
    fn take(frames: &mut Self::Frames, bytes: usize) -> Option<Self::Frame> {
        frames.take(bytes)
    }

    #[inline]
    fn buffer<'a>(frames: &'a Self::Frames, frame: &'a mut Self::Frame) -> Buffer<'a> {
        frames.buffer(frame)
    }

    #[inline]
    fn set_length(frames: &Self::Frames, frame: &mut Self::Frame, bytes: usize) {
        frames.set_length(frame, bytes);
    }

    fn wait(ports: &mut [Self; 2], bell: Option<BorrowedFd<'_>>, timeout: Duration) {
        let at_rest = ports.iter().all(RingPort::at_rest);
        let timeout = if at_rest { timeout } else { timeout.min(RESTLESS_WAIT_MAX) };
        // A packet that cannot be taken, because the ring that it should leave by is full (its link may be
        // down for hours), must not end every sleep at once.
        let [lan, wan] = ports.each_ref().map(|port| port.transmit_room() > 0);
        R::wait(ports.each_mut().map(|port| &mut port.rings), [wan, lan], bell, timeout);
    }

    /// One system call.
    fn statistics(&self) -> SocketStatistics {
        let SocketStatistics { faulty_descriptors, frames_short, wake_failures, .. } = self.counted;
        SocketStatistics {
            faulty_descriptors,
            frames_short,
            wake_failures,
            ..self.rings.statistics()
        }
    }

    fn account(ports: &[Self; 2], frames: &Self::Frames, in_process: usize) -> FrameAccount {
        FrameAccount {
            total: frames.total(),
            free: frames.free(),
            receiving: [ports[0].receiving, ports[1].receiving],
            in_process,
            transmitting: [ports[0].transmitting, ports[1].transmitting],
        }
    }
}

impl<R: Rings + fmt::Debug> fmt::Debug for RingPort<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RingPort")
            .field("port", &self.port)
            .field("rings", &self.rings)
            .field("receiving", &self.receiving)
            .field("transmitting", &self.transmitting)
            .finish_non_exhaustive()
    }
}
