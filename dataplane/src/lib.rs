//! Lanesplit's dataplane: the splitter core, and what feeds it with packets.
//!

pub mod batch;
pub mod capture;
pub mod config;
pub mod counters;
pub mod flow;
pub mod gateway;
pub mod lane;
mod memory;
pub mod port;
pub mod verdict;
pub mod wire;
pub mod xdp;
