//! Nothing more than it needs: what a running gateway may do, and what it costs after hours.
//!
//! * [`misdeeds`] a thread in the sandbox does one thing that it may or may not do
//! * [`daemon`] the running program: its threads' rights, its descriptors and its memory

#![allow(unreachable_pub, reason = "a test has no users")]

#[path = "../lab/mod.rs"]
mod lab;

mod daemon;
mod misdeeds;
