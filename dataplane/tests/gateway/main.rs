//! The gateway program on real packets: `lanesplitd` runs in a network namespace between two hosts
//! with the kernel's own TCP, and programs that know nothing of it say whether it does what it claims.
//!
//! * [`site`] three namespaces, a folder, and nothing left behind
//! * [`daemon`] the program: started, asked, held to its accounts
//! * [`traffic`], [`stream`], [`web`], [`vlan`] what is sent
//! * [`sniffer`] what was seen on the cables
//!
//! and the claims:
//!
//! * [`tcp`] files arrive as they were sent
//! * [`marking`] each packet has the DSCP that the rule gives it
//! * [`reload`] a new configuration costs no packet
//! * [`stop`], [`fail_open`] the end, wished for or not, costs next to none
//! * [`handover`] a gateway goes on with the flows of the one before it
//! * [`faults`], [`ports_that_leave`] what goes wrong around it costs no more than it must
//! * [`status`] what it says of itself, whoever asks
//! * [`modes`] the ways to attach, copy and wait
//! * [`odd_frames`] frames it cannot carry, or does not understand
//! * [`queues`] two workers
//! * [`refusals`] what it will not start with

#![allow(unreachable_pub, reason = "a test has no users")]

#[path = "../lab/mod.rs"]
mod lab;

mod daemon;
mod fail_open;
mod faults;
mod handover;
mod marking;
mod modes;
mod odd_frames;
mod ports_that_leave;
mod queues;
mod refusals;
mod reload;
mod site;
mod sniffer;
mod status;
mod stop;
mod stream;
mod tcp;
mod traffic;
mod vlan;
mod web;
