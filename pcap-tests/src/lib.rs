//! The splitter core fed from capture files: what would splitting do to this traffic?
//!
//! * [`replay`] runs a capture through the gateway
//! * [`lives`] lists every life of every flow
//! * [`sweep`] compares thresholds
//! * [`mod@bench`] measures the way of a packet
//! * [`model`] is the rule again, slow and obvious, to hold the gateway against
//! * [`traffic`] makes random frames for that
//! * [`fuzz`] is what fuzzers call with bytes of their own making

pub mod bench;
pub mod fuzz;
pub mod lives;
pub mod model;
pub mod replay;
pub mod sweep;
pub mod traffic;
