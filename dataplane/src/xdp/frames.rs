//! A worker's frames, shared by its two ports.
//!
//! **Invariant.** There is an [`Frame`] for a frame exactly while the [`Ledger`] has it in the
//! worker's hands, and never a second one: that makes the bytes behind a token exclusive. The free
//! list has exactly the frames that the ledger has as free.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use super::ledger::{Ledger, PACKET_BYTES_MIN, Received};
use super::rings::{Descriptor, Memory};
use crate::batch::PortId;
use crate::wire::buffer::Buffer;

/// Which packet memory: unique in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UmemId(u64);

impl UmemId {
    fn next() -> UmemId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        UmemId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A frame with a packet in it, in the worker's hands.
///
/// A token: there is one for each such frame and it cannot be cloned. [`Port::transmit`] and
/// [`Port::release`] consume it; one that is merely dropped is lost until the ports are opened
/// again, and [`FrameAccount`](crate::port::FrameAccount) shows it.
///
/// [`Port::transmit`]: crate::port::Port::transmit
/// [`Port::release`]: crate::port::Port::release
#[derive(Debug)]
#[must_use = "a frame that is dropped is lost: transmit or release it"]
pub struct Frame<D> {
    /// Its length means nothing while the token lives.
    descriptor: D,
    /// Of the packet.
    bytes: usize,
    umem: UmemId,
}

/// One worker's packet memory and its free frames.
#[derive(Debug)]
pub struct Frames<M: Memory> {
    memory: M,
    id: UmemId,
    /// Used from the end: the frame freed last is still in the cache.
    free: Vec<M::Descriptor>,
    ledger: Ledger,
}

impl<M: Memory> Frames<M> {
    /// All frames of `memory`, free; `free` has a descriptor for each.
    ///
    /// # Panics
    ///
    /// When there are more or fewer descriptors than frames.
    pub fn new(memory: M, free: Vec<M::Descriptor>) -> Self {
        assert_eq!(free.len(), memory.frames(), "one descriptor for each frame");
        let ledger = Ledger::new(free.len(), memory.frame_bytes());
        Frames { memory, id: UmemId::next(), free, ledger }
    }

    pub(super) fn id(&self) -> UmemId {
        self.id
    }

    pub(super) fn memory(&self) -> &M {
        &self.memory
    }

    /// All frames there are.
    pub fn total(&self) -> usize {
        self.ledger.frames()
    }

    /// Frames in the free list.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Moves a free frame to the fill ring of `port`.
    #[inline]
    pub(super) fn fill(&mut self, port: PortId) -> Option<M::Descriptor> {
        let descriptor = self.free.pop()?;
        self.ledger.fill(port, descriptor.address());
        Some(descriptor)
    }

    /// Takes a descriptor from the receive ring of `port`. There is a frame exactly with
    /// [`Received::Packet`].
    #[inline]
    pub(super) fn received(
        &mut self,
        port: PortId,
        descriptor: M::Descriptor,
    ) -> (Received, Option<Frame<M::Descriptor>>) {
        let (address, packet_bytes) = (descriptor.address(), descriptor.packet_bytes());
        let received = self.ledger.received(port, address, packet_bytes, descriptor.options());
        match received {
            Received::Packet => {
                (received, Some(Frame { descriptor, bytes: packet_bytes, umem: self.id }))
            }
            Received::NoPacket => {
                self.free.push(descriptor);
                (received, None)
            }
            Received::NoFrame => (received, None),
        }
    }

    /// Moves a frame to the transmit ring of `port`.
    #[inline]
    pub(super) fn transmit(&mut self, port: PortId, frame: Frame<M::Descriptor>) -> M::Descriptor {
        self.check(&frame);
        let Frame { mut descriptor, bytes, .. } = frame;
        // SAFETY: the token was the only way to this frame of this memory.
        unsafe { self.memory.set_packet_bytes(&mut descriptor, bytes) };
        self.ledger.transmit(port, descriptor.address());
        descriptor
    }

    /// Takes a free frame into the worker's hands, to write a packet of `bytes` into it. None when there is
    /// no free frame, or none so large.
    #[inline]
    pub(super) fn take(&mut self, bytes: usize) -> Option<Frame<M::Descriptor>> {
        let descriptor = *self.free.last()?;
        let room = self.memory.frame_bytes() - descriptor.address() % self.memory.frame_bytes();
        if !(PACKET_BYTES_MIN..=room).contains(&bytes) {
            return None;
        }
        self.free.pop();
        self.ledger.take(descriptor.address());
        Some(Frame { descriptor, bytes, umem: self.id })
    }

    /// Takes a descriptor from the completion ring of `port`; false when it named no frame that the
    /// ring could have had.
    #[inline]
    pub(super) fn completed(&mut self, port: PortId, descriptor: M::Descriptor) -> bool {
        let believed = self.ledger.completed(port, descriptor.address());
        if believed {
            self.free.push(descriptor);
        }
        believed
    }

    /// Returns a frame to the free list.
    #[inline]
    pub(super) fn release(&mut self, frame: Frame<M::Descriptor>) {
        self.check(&frame);
        self.ledger.release(frame.descriptor.address());
        self.free.push(frame.descriptor);
    }

    /// The packet in a frame, and the room behind it.
    #[inline]
    pub(super) fn buffer<'a>(&'a self, frame: &'a mut Frame<M::Descriptor>) -> Buffer<'a> {
        self.check(frame);
        // SAFETY: the ledger has checked that the descriptor lies within a frame of this memory and
        // has believed it once: the token, borrowed mutably, is the only way to that frame.
        let storage = unsafe { self.memory.storage(&mut frame.descriptor) };
        // SAFETY: the bytes are mapped while `self` is borrowed and exclusive while `frame` is:
        // both for 'a.
        Buffer::new(unsafe { &mut *storage }, frame.bytes)
    }

    /// Says how long the packet in a frame is now.
    ///
    /// # Panics
    ///
    /// When that is more than its storage, or less than an Ethernet header.
    #[inline]
    pub(super) fn set_length(&self, frame: &mut Frame<M::Descriptor>, bytes: usize) {
        self.check(frame);
        let room =
            self.memory.frame_bytes() - frame.descriptor.address() % self.memory.frame_bytes();
        assert!((PACKET_BYTES_MIN..=room).contains(&bytes), "{bytes} bytes do not fit the frame");
        frame.bytes = bytes;
    }

    /// A frame's descriptor means something in its own memory only.
    fn check(&self, frame: &Frame<M::Descriptor>) {
        assert_eq!(frame.umem, self.id, "the frame is of other packet memory");
    }
}
