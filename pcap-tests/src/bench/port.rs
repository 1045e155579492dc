//! A port in memory: packets of random flows come in, what is sent is gone.
//!
//! Frames lie about as far apart as in a UMEM and begin with a cache line, as packets there do; and a frame that
//! comes in is written anew, as a NIC would: no packet is marked already. That costs time, and the figures
//! include it.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use dataplane::port::{Burst, FrameAccount, Port};
use dataplane::wire::buffer::Buffer;
use dataplane::wire::checksum;

use crate::traffic::Random;

/// Frames of both ports; more than are ever in process.
const FRAMES: usize = 4096;
/// Bytes of a frame. The allocator's own line between two of them keeps a burst's headers from falling into two
/// sets of the first-level cache, which AF_XDP cannot.
const FRAME_BYTES: usize = 2048;
/// Length of a packet.
pub(super) const PACKET_BYTES: usize = 64;

/// Ethernet, IPv4 and TCP with ACK set, from 10.0.0.0:1 to 192.0.2.1:443, padded. The IPv4 checksum is that of
/// the addresses shown; nobody verifies it, and the marker only updates it.
pub(super) const TEMPLATE: [u8; PACKET_BYTES] = {
    let header = *b"\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00\
        \x45\x00\x00\x32\x00\x00\x40\x00\x40\x06\x6e\xc5\x0a\x00\x00\x00\xc0\x00\x02\x01\
        \x00\x01\x01\xbb\x00\x00\x00\x01\x00\x00\x00\x01\x50\x10\xff\xff\x00\x00\x00\x00";
    let mut packet = [0; PACKET_BYTES];
    let mut at = 0;
    while at < header.len() {
        packet[at] = header[at];
        at += 1;
    }
    packet
};
/// Where the template has its source address.
pub(super) const SOURCE: usize = 26;

/// The free frames, used in turn as those of a UMEM are.
pub(super) struct Frames {
    free: VecDeque<MemoryFrame>,
}

/// The memory of a frame.
#[repr(align(64))]
struct Storage([u8; FRAME_BYTES]);

/// A frame with a packet in it; the token is the frame.
pub(super) struct MemoryFrame {
    storage: Box<Storage>,
    length: usize,
}

impl Frames {
    pub(super) fn new() -> Self {
        Frames { free: (0..FRAMES).map(|_| MemoryFrame::new()).collect() }
    }
}

impl MemoryFrame {
    fn new() -> Self {
        MemoryFrame { storage: Box::new(Storage([0; FRAME_BYTES])), length: 0 }
    }
}

/// One side.
pub(super) struct MemoryPort {
    /// Number of flows; `None` where nothing comes in.
    flows: Option<u32>,
    /// What comes in is [`TEMPLATE`]'s answer, and in a tunnel: outer headers in front of `ANSWER`.
    tunnel: Option<[u8; TUNNEL_PACKET_BYTES]>,
    random: Random,
}

/// The answer to [`TEMPLATE`]: from 192.0.2.1:443 to 10.0.0.0:1. The IPv4 checksum is of these addresses, and a
/// border verifies it.
pub(super) const ANSWER: [u8; PACKET_BYTES] = {
    let mut packet = TEMPLATE;
    let (mut at, source, destination, ports) = (0, SOURCE, SOURCE + 4, SOURCE + 8);
    while at < 4 {
        packet[source + at] = TEMPLATE[destination + at];
        packet[destination + at] = TEMPLATE[source + at];
        packet[ports + at] = TEMPLATE[ports + (at + 2) % 4];
        at += 1;
    }
    packet
};
/// From the end of a frame in a tunnel: where the answer's IPv4 header has its checksum and its destination,
/// when padding is gone.
const ANSWER_IP_BYTES: usize = 0x32;
/// Ethernet, outer IPv4, GRE with a key, and the answer.
pub(super) const TUNNEL_PACKET_BYTES: usize = 14 + 20 + 8 + ANSWER_IP_BYTES;
const CHECKSUM_AT: usize = 10;
const DESTINATION_AT: usize = 16;

impl MemoryPort {
    /// Packets come in as fast as they are taken, of this many flows at random.
    pub(super) fn receiving(flows: usize) -> Self {
        let flows =
            u32::try_from(flows).expect("the flows of a benchmark are fewer than addresses");
        MemoryPort { flows: Some(flows), tunnel: None, random: Random::new(2) }
    }

    /// The same of answers in a tunnel: `frame` is the first.
    pub(super) fn receiving_from_tunnel(flows: usize, frame: [u8; TUNNEL_PACKET_BYTES]) -> Self {
        MemoryPort { tunnel: Some(frame), ..MemoryPort::receiving(flows) }
    }

    /// Nothing comes in.
    pub(super) fn silent() -> Self {
        MemoryPort { flows: None, tunnel: None, random: Random::new(3) }
    }
}

impl Port for MemoryPort {
    type Frame = MemoryFrame;
    type Frames = Frames;
    type Statistics = ();

    #[inline(always)]
    fn receive(&mut self, frames: &mut Frames, burst: &mut Burst<MemoryFrame>, limit: usize) {
        let Some(flows) = self.flows else { return };
        if let Some(template) = &self.tunnel {
            for mut frame in frames.free.drain(..limit) {
                let flow = self.random.below(u64::from(flows)) as u32;
                frame.length = template.len();
                frame.storage.0[..TUNNEL_PACKET_BYTES].copy_from_slice(template);
                let inner = &mut frame.storage.0[template.len() - ANSWER_IP_BYTES..template.len()];
                address_answer(inner, flow);
                burst.push(frame);
            }
            return;
        }
        for mut frame in frames.free.drain(..limit) {
            frame.length = PACKET_BYTES;
            let packet = &mut frame.storage.0[..PACKET_BYTES];
            packet.copy_from_slice(&TEMPLATE);
            let flow = self.random.below(u64::from(flows)) as u32;
            packet[SOURCE..SOURCE + 4].copy_from_slice(&(0x0a00_0000 | flow).to_be_bytes());
            burst.push(frame);
        }
    }

    fn transmit_room(&self) -> usize {
        FRAMES
    }

    #[inline(always)]
    fn transmit(&mut self, frames: &mut Frames, burst: &mut Burst<MemoryFrame>) {
        frames.free.extend(burst.drain(..));
    }

    fn maintain(&mut self, _frames: &mut Frames) {}

    fn release(frames: &mut Frames, frame: MemoryFrame) {
        frames.free.push_back(frame);
    }

    fn take(frames: &mut Frames, bytes: usize) -> Option<MemoryFrame> {
        let mut frame = frames.free.pop_front().filter(|_| bytes <= FRAME_BYTES)?;
        frame.length = bytes;
        Some(frame)
    }

    #[inline(always)]
    fn buffer<'a>(_frames: &'a Frames, frame: &'a mut MemoryFrame) -> Buffer<'a> {
        Buffer::new(&mut frame.storage.0[..], frame.length)
    }

    #[inline(always)]
    fn set_length(_frames: &Frames, frame: &mut MemoryFrame, bytes: usize) {
        frame.length = bytes;
    }

    fn wait(_ports: &mut [Self; 2], _bell: Option<BorrowedFd<'_>>, _timeout: Duration) {}

    fn statistics(&self) {}

    fn account(_ports: &[Self; 2], frames: &Frames, in_process: usize) -> FrameAccount {
        FrameAccount {
            total: FRAMES,
            free: frames.free.len(),
            receiving: [0; 2],
            in_process,
            transmitting: [0; 2],
        }
    }
}

/// Sends an answer to the host of a flow, with a right checksum.
#[inline(always)]
fn address_answer(packet: &mut [u8], flow: u32) {
    let destination = 0x0a00_0000 | flow;
    packet[DESTINATION_AT..DESTINATION_AT + 4].copy_from_slice(&destination.to_be_bytes());
    let sum = u16::from_be_bytes([packet[CHECKSUM_AT], packet[CHECKSUM_AT + 1]]);
    let sum = checksum::update(sum, 0x0a00, (destination >> 16) as u16);
    let sum = checksum::update(sum, 0, destination as u16);
    packet[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
}
