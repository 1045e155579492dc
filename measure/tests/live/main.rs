//! Live runs on real packets between network namespaces, beside programs that measure the same in their own way.
//!
//! * [`site`] a WAN with a tap at each end, and the program that listens to both
//! * [`packets`] per packet: mgen's logs, tcpdump on both taps joined by tshark's fields, d-itg
//! * [`flows`] per flow: iperf3 and curl
//! * [`troubles`] taps swapped, silent, down, gone; signals; what a veth's driver answers
//! * [`rig`] calibration, offloads, VLAN tags
//! * [`xdp`] taps by XDP, beside packet sockets
//!
//! Live, nothing is exact: two programs stamp one packet at two places. What must hold is the order of events, and
//! that is what is asserted; the differences are printed (`--nocapture`). `REQUIRE_NETNS=1` makes it a failure that
//! namespaces cannot be had, `REQUIRE_ORACLES=1` that an oracle is missing.

#![allow(unreachable_pub, reason = "a test has no users")]

#[path = "../../../dataplane/tests/lab/mod.rs"]
mod lab;

mod flows;
mod packets;
mod rig;
mod site;
mod troubles;
mod xdp;
