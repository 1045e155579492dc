//! Routed mode on real packets: two `lanesplitd` in network namespaces, one for each site, and between them
//! two paths of kernel routers. The hosts have the kernel's own TCP, and programs that know nothing of ours say
//! whether the gateways do what they claim.
//!
//! * [`site`] the namespaces, a folder, and nothing left behind
//! * [`daemon`] the program: configured, started, asked, held to its accounts
//! * [`sniffer`] what was seen on each path
//! * [`traffic`], [`web`] what is sent; the same as for the inline gateway
//! * [`scapy`] who forges packets
//!
//! and the claims:
//!
//! * [`tunnels`] files and streams arrive whole through every kind of tunnel, and each lane took its path
//! * [`path_mtu`] packets of the right size, found out, told and kept to
//! * [`hops`] what a router says when hops run out
//! * [`openvswitch`] a tunnel end that is not ours
//! * [`next_hops`] lanes without tunnels
//! * [`faults`] what goes wrong around the gateways
//! * [`bgp`] routes that somebody announces
//! * [`fail_open`] the end of a gateway that nobody wished for
//! * [`policies`] which lane packets take
//! * [`queues`] several workers
//! * [`own_traffic`] what the kernel keeps

#![allow(unreachable_pub, reason = "a test has no users")]

mod bgp;
mod daemon;
mod fail_open;
mod faults;
mod hops;
mod lab;
mod next_hops;
mod openvswitch;
mod own_traffic;
mod path_mtu;
mod policies;
mod queues;
mod scapy;
mod site;
mod sniffer;
mod tunnels;

#[allow(dead_code, reason = "routed mode needs a part of it")]
#[path = "../gateway/stream.rs"]
mod stream;
#[allow(dead_code, reason = "routed mode needs a part of it")]
#[path = "../gateway/traffic.rs"]
mod traffic;
#[path = "../gateway/web.rs"]
mod web;
