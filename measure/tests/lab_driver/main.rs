//! What the laboratory is made of, each part alone, beside programs that see the same in their own way.
//!
//! * [`hosts`] is a client and a server, and what tcpdump and tshark saw between them
//! * [`background`] mgen's messages
//! * [`emulator`] ping and mgen over an emulated path
//! * [`requests`] the load driver and nginx
//!
//! `REQUIRE_NETNS=1` makes it a failure that namespaces cannot be had, `REQUIRE_ORACLES=1` that an oracle is missing.

#![allow(unreachable_pub, reason = "a test has no users")]

#[path = "../../../dataplane/tests/lab/mod.rs"]
mod lab;

mod background;
mod emulator;
mod hosts;
mod requests;
