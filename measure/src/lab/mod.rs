//! The laboratory: a hybrid cloud in network namespaces on one machine, real traffic through two real gateways,
//! and what becomes of it, measured between taps on both sides of the WAN.
//!
//! * [`records`] is what a run leaves behind: its settings, its accounts, its requests and flows

pub mod records;
