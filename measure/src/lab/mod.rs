//! The laboratory: a hybrid cloud in network namespaces on one machine, real traffic through two real gateways,
//! and what becomes of it, measured between taps on both sides of the WAN.
//!
//! * [`records`] is what a run leaves behind: its settings, its accounts, its requests and flows
//! * [`workload`] is what is asked for: mixes of requests, and how large a body is that makes so many packets
//! * [`driver`] asks for it, over real connections, and logs what it got; [`web`] answers
//! * [`background`] is what else is on the paths
//! * [`emulator`] delays and loses what a path carries
//! * [`random`] is where chance comes from

pub mod background;
pub mod driver;
pub mod emulator;
pub mod random;
pub mod records;
pub mod web;
pub mod workload;
