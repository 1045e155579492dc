//! AF_XDP: a [`Port`](crate::port::Port) on one queue of a network interface, without a copy in
//! user space.
//!
//! An [`Attachment`] puts the XDP program on an interface and belongs to the whole process.
//! [`open`] gives one worker its part: a socket on the same queue of both interfaces, and the
//! packet memory (UMEM) that the two share, so that a frame received on one is transmitted on the
//! other where it lies.
//!
//! ```text
//!     interface "lan"                      worker                       interface "wan"
//!   +------------------+        +-------------------------+         +------------------+
//!   | XDP program      |  ----> | XdpPort       XdpPort   |  <----  | XDP program      |
//!   | sockets by queue |  <---- |      XdpFrames          |  ---->  | sockets by queue |
//!   +------------------+        +-------------------------+         +------------------+
//!        Attachment                one thread, one queue                 Attachment
//! ```
//!
//! Each port has four rings of `ring_entries` entries. Who writes, who reads, and what lies in
//! them:
//!
//! | ring       | written by | read by | entries                                           |
//! |------------|------------|---------|---------------------------------------------------|
//! | fill       | worker     | kernel  | free frames to receive into                       |
//! | receive    | kernel     | worker  | frames with a packet in them                      |
//! | transmit   | worker     | kernel  | frames to send                                    |
//! | completion | kernel     | worker  | frames that were sent, whoever received them      |
//!
//! **Invariant.** Every frame is in one place: the free list, the fill or receive ring of a port,
//! the worker's hands, the transmit or completion ring of a port. A ledger notes the place of each
//! frame and believes no descriptor that contradicts it, so a token ([`XdpFrame`]) is the only way
//! to a frame's bytes.
//!
//! What ports do with rings and frames is written against [`Rings`] and [`Memory`], so that a simulated
//! kernel can drive it as well as a socket does.
//!
//! **When the process dies**, whatever killed it, its last descriptors close: the program is
//! detached and the kernel carries the packets again.

mod capabilities;
mod destinations;
mod error;
mod frames;
mod interface;
mod ledger;
pub mod object;
mod options;
mod port;
mod program;
mod rings;
mod settings;
mod socket;
mod statistics;
mod umem;

pub use capabilities::{PORT_CAPABILITIES, missing_capabilities, port_capabilities_in};
pub use destinations::{DESTINATIONS_MAX, Destinations};
pub use error::XdpError;
pub use frames::{Frame, Frames};
pub use interface::Interface;
pub use object::Mode;
pub use port::RingPort;
pub use program::{Attachment, KernelCounters, Role};
pub use rings::{Descriptor, Memory, Rings};
pub use settings::{Attach, CopyMode, ENCAPSULATION_BYTES_MAX, Settings, mtu_max};
pub use socket::{SocketRings, open};
pub use statistics::{SocketStatistics, WakeFailures};
pub use umem::Umem;

/// A port on an AF_XDP socket.
pub type XdpPort = RingPort<SocketRings>;

/// Frames of packet memory that the kernel knows.
pub type XdpFrames = Frames<Umem>;

/// A frame of such memory.
pub type XdpFrame = Frame<xsk_rs::FrameDesc>;
