//! Where packets come from and go to.
//!
//! A worker owns two ports and the frames they share. A frame is a token: it cannot be cloned, and every
//! way it can go consumes it, so at every moment each frame is in exactly one place:
//!
//! ```text
//!            supply                receive               transmit
//!   free ------------> fill ring ----------> in process ----------> transmit ring
//!    ^ |               receive ring           ^  |                  completion ring
//!    | +---------------------------- take ----+  | release                |
//!    +-------------------------------------------+------------------------+  reclaim
//! ```
//!
//! [`FrameAccount`] is that picture in numbers.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use arrayvec::ArrayVec;

use crate::wire::buffer::Buffer;

/// Most frames that one receive call hands over.
pub const BURST_MAX: usize = 64;

/// Frames on their way through a worker, in order of arrival.
pub type Burst<F> = ArrayVec<F, BURST_MAX>;

/// One of a worker's two ports: the receive and transmit side of one queue of one interface.
pub trait Port: Sized {
    /// Token for one packet buffer with a packet in it.
    type Frame;

    /// The packet memory that both ports of a worker share, with its free frames.
    type Frames;

    /// What the port itself counts.
    type Statistics: Clone + Default + Send + 'static;

    /// Takes up to `limit` received frames, in order, and appends them to `burst`; gives the kernel free
    /// frames to receive into. `limit` is at most the room left in `burst`.
    fn receive(&mut self, frames: &mut Self::Frames, burst: &mut Burst<Self::Frame>, limit: usize);

    /// Frames that [`Port::transmit`] is sure to accept now.
    fn transmit_room(&self) -> usize;

    /// Sends every frame of `burst`, in order, and leaves it empty.
    ///
    /// # Panics
    ///
    /// When the burst is longer than [`Port::transmit_room`].
    fn transmit(&mut self, frames: &mut Self::Frames, burst: &mut Burst<Self::Frame>);

    /// Takes back frames whose transmission has completed, and wakes the kernel where it asked for that.
    /// Called once per round of the worker's loop, so that nothing given to the kernel waits for ever.
    fn maintain(&mut self, frames: &mut Self::Frames);

    /// Returns a frame unsent.
    fn release(frames: &mut Self::Frames, frame: Self::Frame);

    /// A free frame for a packet of `bytes`, whose content is left over from another. None when no frame is
    /// free, or none is so large.
    fn take(frames: &mut Self::Frames, bytes: usize) -> Option<Self::Frame>;

    /// The packet in a frame, and the room behind it.
    fn buffer<'a>(frames: &'a Self::Frames, frame: &'a mut Self::Frame) -> Buffer<'a>;

    /// Says how long the packet in a frame is now: it grew or shrank in its [`Port::buffer`].
    ///
    /// # Panics
    ///
    /// When the frame is not so large.
    fn set_length(frames: &Self::Frames, frame: &mut Self::Frame, bytes: usize);

    /// Sleeps until a packet arrives on a port whose opposite has room to send it, `bell` can be read, `timeout`
    /// passes or a signal interrupts.
    fn wait(ports: &mut [Self; 2], bell: Option<BorrowedFd<'_>>, timeout: Duration);

    /// What it has counted until now.
    fn statistics(&self) -> Self::Statistics;

    /// Where all frames are now, `in_process` of them in the caller's hands.
    fn account(ports: &[Self; 2], frames: &Self::Frames, in_process: usize) -> FrameAccount;
}

/// Where a worker's frames are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FrameAccount {
    /// All frames there are.
    pub total: usize,
    /// Waiting in the worker's free list.
    pub free: usize,
    /// In the fill or receive ring of each port, [`PortId`](crate::batch::PortId) order.
    pub receiving: [usize; 2],
    /// Taken by the worker, not yet sent or released.
    pub in_process: usize,
    /// In the transmit or completion ring of each port.
    pub transmitting: [usize; 2],
}

impl FrameAccount {
    /// Whether every frame is somewhere, and none is in two places.
    pub fn balances(&self) -> bool {
        self.free
            + self.receiving.iter().sum::<usize>()
            + self.in_process
            + self.transmitting.iter().sum::<usize>()
            == self.total
    }
}
