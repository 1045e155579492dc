//! What a gateway has to send besides the packets it was given, and what it has to wait for.
//!
//! ```text
//!   Gateway::process --> frames it made: ICMP errors, fragments  --> the worker copies and sends them
//!                   \--> packets that wait for a next hop         --> the worker keeps their frames
//!                   \--> next hops to be asked for                --> the worker passes them on
//! ```
//!
//! All memory is taken at the start. Who gives the gateway a batch empties the outbox after it, before the next.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use crate::batch::{BATCH_MAX, PortId};

/// Longest frame that is made, in bytes: what a frame of 4096 bytes of packet memory holds.
pub const FRAME_BYTES_MAX: usize = 4096 - 256;
/// Most frames that are made for one batch.
pub const FRAMES_MAX: usize = 128;
/// Most different next hops that are asked for in one batch.
const ASKED_MAX: usize = 16;

/// A frame that the gateway made.
#[derive(Debug, Clone, Copy)]
struct Made {
    port: PortId,
    bytes: usize,
    wire_bytes: u32,
}

/// A packet that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Which packet of the batch.
    pub position: usize,
    /// The port it will leave by.
    pub port: PortId,
    /// The next hop, whose MAC address is not known.
    pub address: IpAddr,
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    storage: Box<[[u8; FRAME_BYTES_MAX]]>,
    made: ArrayVec<Made, FRAMES_MAX>,
    waits: ArrayVec<Wait, BATCH_MAX>,
    wait_room: usize,
    asked: ArrayVec<(PortId, IpAddr), ASKED_MAX>,
}

impl Outbox {
    /// Empty. Packets are not let wait until [`Outbox::set_wait_room`].
    pub fn new() -> Self {
        Outbox {
            storage: vec![[0; FRAME_BYTES_MAX]; FRAMES_MAX].into_boxed_slice(),
            made: ArrayVec::new(),
            waits: ArrayVec::new(),
            wait_room: 0,
            asked: ArrayVec::new(),
        }
    }

    /// How many packets of the next batch may wait.
    pub fn set_wait_room(&mut self, packets: usize) {
        self.wait_room = packets.min(BATCH_MAX);
    }

    /// The frames that were made, in order: the port each leaves by, its bytes, and how many it has on the wire,
    /// which are more when it was made of a cut capture record.
    pub fn frames(&self) -> impl Iterator<Item = (PortId, &[u8], u32)> {
        let bytes = self.made.iter().zip(&self.storage);
        bytes.map(|(made, slot)| (made.port, &slot[..made.bytes], made.wire_bytes))
    }

    /// The packets that wait, in order.
    pub fn waits(&self) -> &[Wait] {
        &self.waits
    }

    /// Next hops whose MAC addresses the kernel should find out, each once.
    pub fn asked(&self) -> &[(PortId, IpAddr)] {
        &self.asked
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.made.is_empty() && self.waits.is_empty() && self.asked.is_empty()
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.made.clear();
        self.waits.clear();
        self.asked.clear();
    }

    /// Frames that can still be made.
    pub(crate) fn room(&self) -> usize {
        self.made.remaining_capacity()
    }

    /// Where the next frame goes; none when there is no room.
    pub(crate) fn next(&mut self) -> Option<&mut [u8; FRAME_BYTES_MAX]> {
        self.storage.get_mut(self.made.len())
    }

    /// The frame in [`Outbox::next`] has `bytes` and leaves by `port`.
    pub(crate) fn push(&mut self, port: PortId, bytes: usize, wire_bytes: u32) {
        self.made.push(Made { port, bytes, wire_bytes });
    }

    /// Has a packet wait; false when there is no room. The next hop is asked for either way.
    pub(crate) fn wait(&mut self, wait: Wait) -> bool {
        self.ask(wait.port, wait.address);
        if self.waits.len() >= self.wait_room {
            return false;
        }
        self.waits.push(wait);
        true
    }

    /// The packet does not wait after all, if it was the last one to.
    pub(crate) fn forget_wait(&mut self, position: usize) {
        if self.waits.last().is_some_and(|wait| wait.position == position) {
            self.waits.pop();
        }
    }

    /// Asks for a next hop. One that finds no room is asked for again by the next packet to it.
    pub(crate) fn ask(&mut self, port: PortId, address: IpAddr) {
        if !self.asked.contains(&(port, address)) {
            let _ = self.asked.try_push((port, address));
        }
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Outbox::new()
    }
}
