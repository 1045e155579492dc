//! Lanesplit's ruler: one-way delay, jitter, loss and flow completion time between two taps.
//!
//! Packets come from two taps and are recognised at both:
//!
//! * [`source`] is where they come from: batches of stamped frames, from a capture [`source::file`] or from a
//!   network interface, a [`source::packet_socket`]
//! * [`identity`] is what a packet is known by, however it is tunnelled or marked; [`digest`] condenses it
//! * [`stream`] numbers addresses and ports, [`lane`] numbers lanes
//! * [`matcher`] joins the sightings of both taps and says what became of each packet
//!
//! What becomes of them is measured:
//!
//! * [`flow`] follows each flow, [`classes`] sorts flows by size
//! * [`measurement`] counts, and fills the series of [`statistics`] and [`over_time`]
//! * [`session`] is the run as a whole: batches in, everything found out
//!
//! And told:
//!
//! * [`results`] and [`flow_line`] are what is stored and shown, [`messages`] what the reader must know beside it
//! * [`export`] writes it to files, [`stored`] reads it back
//! * [`report`] draws it, [`compare`] sets two runs against each other, [`mod@bootstrap`] says how far chance goes
//! * [`calibration`] is how far a rig's times are off
//! * [`offline`] is a run over files from start to end, [`mod@bench`] says how fast that is
//! * [`live`] is a run over network interfaces
//! * [`lab`] builds networks to measure
//!
//! Invariant of the whole: every IP packet of a tap ends in exactly one class, and the accounts of both taps
//! balance ([`results::Results::balances`]).

pub mod bench;
pub mod bootstrap;
pub mod calibration;
pub mod classes;
pub mod compare;
pub mod digest;
pub mod export;
pub mod flow;
pub mod flow_line;
pub mod identity;
pub mod lab;
pub mod lane;
pub mod live;
pub mod matcher;
pub mod measurement;
pub mod messages;
pub mod offline;
pub mod over_time;
pub mod report;
pub mod results;
pub mod session;
pub mod source;
pub mod statistics;
pub mod stored;
pub mod stream;
