//! Where each frame of a UMEM is.
//!
//! ```text
//!            fill              received               transmit
//!   Free ---------> Receiving ---------> Worker ------------------> Transmitting
//!    ^ |                                   ^ | release                   |
//!    | +------------------------- take ----+ |                           |
//!    +---------------------------------------+---------------------------+  completed
//! ```
//!
//! **Invariant.** A frame changes place along these arrows alone. The worker's side of them is our
//! own code, where another way is a bug and panics; the kernel's side (`received`, `completed`)
//! comes from shared memory, where another way is refused and nothing changes.

use crate::batch::PortId;

/// Shortest packet: an Ethernet header.
pub(super) const PACKET_BYTES_MIN: usize = 14;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Free,
    /// In the fill or receive ring of a port.
    Receiving(PortId),
    /// In the worker's hands.
    Worker,
    /// In the transmit or completion ring of a port.
    Transmitting(PortId),
}

/// What a descriptor from a receive ring stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// A packet: its frame is the worker's.
    Packet,
    /// A frame without a usable packet: it is free again.
    NoPacket,
    /// No frame that this ring could have had: nothing has changed.
    NoFrame,
}

/// The place of every frame. Addresses are bytes from the start of the UMEM, anywhere within a
/// frame.
#[derive(Debug)]
pub(super) struct Ledger {
    frame_bytes: usize,
    places: Box<[Place]>,
}

impl Ledger {
    /// All frames are free.
    pub(super) fn new(frames: usize, frame_bytes: usize) -> Ledger {
        Ledger { frame_bytes, places: vec![Place::Free; frames].into_boxed_slice() }
    }

    pub(super) fn frames(&self) -> usize {
        self.places.len()
    }

    pub(super) fn fill(&mut self, port: PortId, address: usize) {
        self.go(address, Place::Free, Place::Receiving(port));
    }

    /// A usable packet is a whole one within its frame that can be transmitted as it is: the kernel
    /// would neither send nor complete one that is empty or has options.
    pub(super) fn received(
        &mut self,
        port: PortId,
        address: usize,
        packet_bytes: usize,
        options: u32,
    ) -> Received {
        if !self.follow(address, Place::Receiving(port), Place::Worker) {
            return Received::NoFrame;
        }
        let room = self.frame_bytes - address % self.frame_bytes;
        if (PACKET_BYTES_MIN..=room).contains(&packet_bytes) && options == 0 {
            return Received::Packet;
        }
        self.release(address);
        Received::NoPacket
    }

    pub(super) fn transmit(&mut self, port: PortId, address: usize) {
        self.go(address, Place::Worker, Place::Transmitting(port));
    }

    /// False when the completion ring of `port` could not have had this frame.
    pub(super) fn completed(&mut self, port: PortId, address: usize) -> bool {
        self.follow(address, Place::Transmitting(port), Place::Free)
    }

    pub(super) fn take(&mut self, address: usize) {
        self.go(address, Place::Free, Place::Worker);
    }

    pub(super) fn release(&mut self, address: usize) {
        self.go(address, Place::Worker, Place::Free);
    }

    fn go(&mut self, address: usize, from: Place, to: Place) {
        assert!(self.follow(address, from, to), "the frame at {address} is not {from:?}");
    }

    fn follow(&mut self, address: usize, from: Place, to: Place) -> bool {
        match self.places.get_mut(address / self.frame_bytes) {
            Some(place) if *place == from => {
                *place = to;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PortId::{Lan, Wan};
    use super::*;

    /// Four frames of 2048 bytes; the second, at 2048, is in the LAN port's fill ring.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(4, 2048);
        ledger.fill(Lan, 2048 + 256);
        ledger
    }

    #[test]
    fn a_frame_goes_round() {
        let mut ledger = ledger();
        assert_eq!(ledger.received(Lan, 2048 + 256, 60, 0), Received::Packet);
        ledger.transmit(Wan, 2048 + 256);
        assert!(ledger.completed(Wan, 2048 + 256));
        ledger.fill(Wan, 2048 + 256);
        assert_eq!(ledger.received(Wan, 2048 + 256, 1792, 0), Received::Packet);
        ledger.release(2048 + 256);
        ledger.fill(Lan, 2048 + 256);
    }

    #[test]
    fn a_descriptor_is_believed_once() {
        let mut ledger = ledger();
        assert_eq!(ledger.received(Lan, 2048, 60, 0), Received::Packet);
        assert_eq!(ledger.received(Lan, 2048, 60, 0), Received::NoFrame);
        ledger.transmit(Wan, 2048);
        assert!(ledger.completed(Wan, 2048));
        assert!(!ledger.completed(Wan, 2048));
    }

    #[test]
    fn a_descriptor_of_another_ring_is_refused() {
        let mut ledger = ledger();
        assert_eq!(ledger.received(Wan, 2048, 60, 0), Received::NoFrame);
        assert!(!ledger.completed(Lan, 2048));
        assert_eq!(ledger.received(Lan, 0, 60, 0), Received::NoFrame, "a free frame");
        assert_eq!(ledger.received(Lan, 2048, 60, 0), Received::Packet, "nothing had changed");
        ledger.transmit(Wan, 2048);
        assert!(!ledger.completed(Lan, 2048), "it was transmitted by the other port");
    }

    #[test]
    fn an_address_outside_of_memory_is_refused() {
        let mut ledger = ledger();
        for address in [4 * 2048, 1 << 48, usize::MAX] {
            assert_eq!(ledger.received(Lan, address, 60, 0), Received::NoFrame, "{address}");
            assert!(!ledger.completed(Wan, address), "{address}");
        }
    }

    #[test]
    fn bytes_past_the_end_of_the_frame_are_no_packet() {
        for (address, packet_bytes, options, expected) in [
            (2048 + 256, 1792, 0, Received::Packet),
            (2048 + 256, 1793, 0, Received::NoPacket),
            (2048 + 2034, 14, 0, Received::Packet),
            (2048 + 2035, 14, 0, Received::NoPacket),
            (2048 + 256, usize::MAX, 0, Received::NoPacket),
            (2048 + 256, 13, 0, Received::NoPacket),
            (2048 + 256, 0, 0, Received::NoPacket),
            (2048 + 256, 60, 1, Received::NoPacket),
        ] {
            let mut ledger = ledger();
            let received = ledger.received(Lan, address, packet_bytes, options);
            assert_eq!(received, expected, "{address} {packet_bytes} {options}");
            if expected == Received::NoPacket {
                ledger.fill(Wan, address);
            }
        }
    }

    #[test]
    #[should_panic(expected = "is not Worker")]
    fn what_is_not_the_workers_cannot_be_transmitted() {
        ledger().transmit(Wan, 2048);
    }
}
