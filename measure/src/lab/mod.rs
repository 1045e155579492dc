//! The laboratory: a hybrid cloud in network namespaces on one machine, real traffic through two real gateways,
//! and what becomes of it, measured between taps on both sides of the WAN.
//!
//! * [`records`] is what a run leaves behind: its settings, its accounts, its requests and flows
//! * [`cli`] turns arguments into an order, [`plan`] experiments into runs
//! * [`laboratory`] carries an order out, [`run`] makes one run
//! * [`testbed`] is the networks, of [`namespace`]s, with the [`queues`] of its routers
//! * [`gateways`], [`measuring`] and [`traffic`] are the programs of a run, each a [`process`] that somebody holds
//! * [`workload`] is what is asked for: mixes of requests, and how large a body is that makes so many packets
//! * [`driver`] asks for it, over real connections, and logs what it got; [`web`] answers
//! * [`background`] is what else is on the paths, [`emulator`] makes them longer and worse
//! * [`store`] writes records and reads them back
//! * [`join`] finds the flows of each request, [`analysis`] says what all of it means, [`report`] shows it
//! * [`scratch`] is where files are that are no result
//! * [`random`] is where chance comes from
//! * [`tools`] finds programs, [`interrupt`] hears signals, [`leftovers`] cleans up after who was killed
//! * [`machine`] is on what and of what all of it was made
//! * [`error`] is why something cannot go on

pub mod analysis;
pub mod background;
pub mod cli;
pub mod driver;
pub mod emulator;
pub mod error;
pub mod gateways;
pub mod interrupt;
pub mod join;
pub mod laboratory;
pub mod leftovers;
pub mod machine;
pub mod measuring;
pub mod namespace;
pub mod plan;
#[cfg(test)]
pub(crate) mod planted;
pub mod process;
pub mod queues;
pub mod random;
pub mod records;
pub mod report;
pub mod run;
pub mod scratch;
pub mod store;
pub mod testbed;
pub mod tools;
pub mod traffic;
pub mod web;
pub mod workload;
