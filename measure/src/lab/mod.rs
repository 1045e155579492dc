//! The laboratory: a hybrid cloud in network namespaces on one machine, real traffic through two real gateways,
//! and what becomes of it, measured between taps on both sides of the WAN.
//!
//! * [`records`] is what a run leaves behind: its settings, its accounts, its requests and flows
//! * [`store`] writes it and reads it back
//! * [`join`] finds the flows of each request, [`analysis`] says what all of it means, [`report`] shows it

pub mod analysis;
pub mod join;
#[cfg(test)]
pub(crate) mod planted;
pub mod records;
pub mod report;
pub mod store;
