//! Lanesplit's dataplane: the splitter core, and what feeds it with packets.
//!

pub mod batch;
pub mod capture;
pub mod clock;
pub mod config;
pub mod control;
pub mod counters;
pub mod daemon;
pub mod flow;
pub mod gateway;
pub mod lane;
mod memory;
pub mod port;
pub mod preflight;
pub mod status;
pub mod verdict;
pub mod wire;
pub mod worker;
pub mod xdp;
