//! Flows: bounded state, with the time passed in.
//!
//! * [`key`] names a flow and a fragmented datagram
//! * [`secret`] hashes keys so that nobody outside can aim at a place in the table
//! * [`table`] holds the flows; [`slice`](mod@slice) takes them out and puts them back
//! * [`fragments`] remembers the class of fragmented datagrams
//! * [`classifier`] is the rule: what class is this packet
//! * [`observer`] is told of every packet of every flow

pub mod classifier;
pub mod fragments;
pub mod key;
pub mod observer;
pub mod secret;
pub mod slice;
pub mod table;
