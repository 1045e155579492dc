//! The express in: the way of nearly all packets from the WAN, plain TCP over IPv4 out of a tunnel, to a next hop that
//! packets of the same [`Stretch`] took before.
//!
//! It does what [`Router::inbound`](super::Router::inbound) does for such a packet, without looking for what such a
//! packet cannot be. Whatever it does not take is left as it was, counted nowhere, and goes the long way.

use super::header::flow_hash;
use super::{IP, Router};
use crate::batch::{Packet, PortId};
use crate::fib::{Fib, Stretch};

/// How many stretches are remembered, each for the /16 networks that share its place.
const STRETCHES: usize = 64;
/// One of so many packets whose stretch is not known has it looked for, which takes a few times as long as the packet
/// itself: destinations that change their stretch all the time cost little more than without.
const MISSES_A_LOOK: u32 = 8;

/// Stretches that packets went to, of one snapshot.
#[derive(Debug)]
pub(super) struct Stretches {
    slots: [Stretch; STRETCHES],
    misses: u32,
}

impl Stretches {
    /// None yet: for another snapshot.
    pub(super) fn new() -> Self {
        Stretches { slots: [Stretch::default(); STRETCHES], misses: 0 }
    }

    #[inline(always)]
    fn of(&self, address: u32) -> Option<&Stretch> {
        let stretch = &self.slots[place(address)];
        stretch.contains(address).then_some(stretch)
    }

    #[cold]
    fn miss(&mut self, fib: &Fib, address: u32) {
        let is_looked_for = self.misses.is_multiple_of(MISSES_A_LOOK);
        self.misses = self.misses.wrapping_add(1);
        if is_looked_for && let Some(stretch) = fib.stretch_around(address) {
            self.slots[place(address)] = stretch;
        }
    }
}

impl Router {
    /// The port by which the packet leaves, decapsulated, with one hop less; none when it has to go the long way.
    #[inline(always)]
    pub(super) fn arrive(&mut self, packet: &mut Packet<'_>) -> Option<PortId> {
        let plain = self.border.plain(&packet.bytes)?;
        let Some(stretch) = self.stretches.of(plain.destination) else {
            self.stretches.miss(&self.fib, plain.destination);
            return None;
        };
        let hop = self.fib.hop(stretch, plain.destination)?;
        let bytes = u32::from(plain.bytes);
        if bytes > hop.mtu_bytes {
            return None;
        }
        self.border.let_in(&mut packet.bytes, &plain);
        let macs: &mut [u8; 12] = packet.bytes.first_chunk_mut().expect("what was let in is whole");
        macs[..6].copy_from_slice(hop.mac);
        macs[6..].copy_from_slice(hop.source_mac);
        packet.wire_bytes = IP as u32 + bytes;
        packet.flow_hash = Some(flow_hash(plain.source, plain.destination, plain.ports));
        let lane = &mut self.counters.lanes[self.lane_of_tunnel[plain.lane]];
        lane.received += 1;
        lane.received_bytes += u64::from(bytes);
        Some(hop.port)
    }
}

#[inline(always)]
fn place(address: u32) -> usize {
    (address >> 16) as usize % STRETCHES
}
