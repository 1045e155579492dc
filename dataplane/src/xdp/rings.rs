//! What a port needs of the kernel: four rings, two calls that wake it, and packet memory.
//!
//! Above this line is our own logic, [`RingPort`](super::RingPort) and [`Frames`](super::Frames); below it
//! are an AF_XDP socket and its UMEM, or a simulation of the kernel.
//!
//! ```text
//!                RingPort<R>                       Frames<M>
//!    fill |  receive ^  transmit |  complete ^       | packet
//!   ------v----------|-----------v-----------|-------v---------
//!                 R: Rings                       M: Memory
//! ```
//!
//! **Invariant.** What comes out of [`Rings::receive`] and [`Rings::complete`] may be anything: whoever
//! writes to shared memory is not believed.

#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;

use super::statistics::SocketStatistics;

/// An entry of a ring.
pub trait Descriptor: Copy + Default {
    /// Where the packet starts, in bytes from the start of packet memory; anywhere within a frame.
    fn address(&self) -> usize;

    /// The packet's length; 0 in fill and completion rings.
    fn packet_bytes(&self) -> usize;

    /// Flags of the packet, linux/if_xdp.h.
    fn options(&self) -> u32;
}

/// Packet memory: `frames` frames of `frame_bytes` each, the first at address 0.
///
/// # Safety
///
/// Every frame stays mapped where it is as long as the memory lives, whoever owns it, and overlaps no
/// other; [`Memory::frame_bytes`] and [`Memory::frames`] never change.
pub unsafe trait Memory {
    /// Names packets in it.
    type Descriptor: Descriptor;

    /// Bytes of a frame.
    fn frame_bytes(&self) -> usize;

    /// How many frames there are.
    fn frames(&self) -> usize;

    /// The bytes from where the descriptor's packet starts to the end of its frame. The length in the
    /// descriptor is lost: [`Memory::set_packet_bytes`] says it again.
    ///
    /// # Safety
    ///
    /// The packet starts within a frame of this memory, and nobody else accesses that frame as long as
    /// the result is used.
    unsafe fn storage(&self, descriptor: &mut Self::Descriptor) -> *mut [u8];

    /// Says how long the descriptor's packet is, in bytes; no more than its storage has.
    ///
    /// # Safety
    ///
    /// The packet starts within a frame of this memory that nobody else accesses at this moment.
    unsafe fn set_packet_bytes(&self, descriptor: &mut Self::Descriptor, bytes: usize);
}

/// The rings of one queue of one interface, each of as many entries.
pub trait Rings: Sized {
    /// The packet memory whose frames go round in them.
    type Memory: Memory;

    /// Entries of each ring.
    fn entries(&self) -> usize;

    /// Whether the driver itself reads the transmit ring: then it may want a wake-up for completions
    /// too.
    fn zero_copy(&self) -> bool;

    /// Entries free in the fill ring: at least `wanted`, or all that are.
    fn fill_room(&mut self, wanted: usize) -> usize;

    /// Gives the kernel frames to receive into: all, or none when there is less room; returns how many.
    ///
    /// # Safety
    ///
    /// Their frames belong to the memory that these rings were opened on; there is no token for them,
    /// and none is in another ring.
    unsafe fn fill(&mut self, frames: &[DescriptorOf<Self>]) -> usize;

    /// Takes what was received, oldest first; returns how many.
    fn receive(&mut self, packets: &mut [DescriptorOf<Self>]) -> usize;

    /// Gives the kernel packets to send, in order: all, or none when there is less room; returns how
    /// many.
    ///
    /// # Safety
    ///
    /// As for [`Rings::fill`].
    unsafe fn transmit(&mut self, packets: &[DescriptorOf<Self>]) -> usize;

    /// Entries of the transmit ring that the kernel has not read.
    fn transmit_unread(&mut self) -> usize;

    /// Takes back what was sent; returns how many.
    fn complete(&mut self, frames: &mut [DescriptorOf<Self>]) -> usize;

    /// Whether the kernel wants to be called for the receive side: it has run out of frames, or never
    /// receives otherwise.
    fn receive_needs_wakeup(&self) -> bool;

    /// Whether the kernel wants to be called for the transmit side.
    fn transmit_needs_wakeup(&self) -> bool;

    /// Has the kernel look at the fill ring.
    ///
    /// # Errors
    ///
    /// The kernel's, none of them fatal.
    fn wake_receive(&mut self) -> Result<(), Errno>;

    /// Has the kernel look at the transmit ring.
    ///
    /// # Errors
    ///
    /// The kernel's, none of them fatal.
    fn wake_transmit(&mut self) -> Result<(), Errno>;

    /// Sleeps until a packet was received in any of them that is `wanted`, `bell` can be read, `timeout` passes
    /// or a signal interrupts.
    fn wait(
        rings: [&mut Self; 2],
        wanted: [bool; 2],
        bell: Option<BorrowedFd<'_>>,
        timeout: Duration,
    );

    /// What the kernel counts; everything else is 0.
    fn statistics(&self) -> SocketStatistics;
}

/// What these rings' entries are.
pub(super) type DescriptorOf<R> = <<R as Rings>::Memory as Memory>::Descriptor;
