//! Wire formats: bytes only, no state, no input or output.
//!
//! * [`frame`] walks an Ethernet frame down to its TCP header and says what it found
//! * [`buffer`] is a packet with room to grow
//! * [`window`] reads headers out of a frame, telling "the frame lies" from "the capture was cut"
//! * [`ethernet`], [`ipv4`], [`ipv6`], [`tcp`], [`udp`], [`gre`] know one header each
//! * [`checksum`] is the Internet checksum, updated in place
//! * [`hop`] is what a router does to TTL and hop limit, [`mss`] to what TCP peers announce
//! * [`icmp`], [`icmpv6`] write the errors that a router sends
//!
//! The contract, in one place: every header is read through [`window::Window`], which checks its length
//! first, so no accessor can read past what is there and none can panic.

pub mod buffer;
pub mod checksum;
pub mod ethernet;
pub mod frame;
pub mod gre;
pub mod hop;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod mss;
pub mod tcp;
pub mod udp;
pub mod window;
