//! Lanesplit's dataplane: the splitter core, and what feeds it with packets.
//!
//! The core decides. It is safe code without input, output or a clock:
//!
//! * [`wire`] reads and updates headers: bytes only
//! * [`flow`] holds the flows, bounded, and the classification rule
//! * [`lane`] is what a class does to a packet
//! * [`fib`] says where packets go next: routes and neighbours as they were at one moment
//! * [`router`] is what a gateway in routed mode does with a class: lanes, border, ICMP; what it makes or has to
//!   wait for goes to its [`outbox`]
//! * [`gateway`] joins them: a [`batch`] of packets goes in, a [`verdict`] for each comes out, and [`counters`]
//!   say what happened
//!
//! Packets come from somewhere and go somewhere:
//!
//! * [`port`] says what a place for packets must be able to do
//! * [`xdp`] is such a place: AF_XDP sockets and the XDP program in front of them
//! * [`memory`] asks for huge pages and cache lines
//! * [`capture`] reads capture files and writes them back
//! * [`worker`] is the loop that joins a gateway with two ports, by its own [`clock`]
//!
//! Around them stands `lanesplitd`:
//!
//! * [`config`] is the configuration file, [`preflight`] what only this machine can say of it
//! * [`daemon`] starts the workers and listens to signals, and to [`links`] that go and come back
//! * [`routes`] mirrors what the kernel knows of routes and neighbours
//! * [`privileges`] are given up when they are no longer needed; a worker runs in a [`sandbox`]
//! * [`state`] saves the flows for the next start, and takes them over
//! * [`control`] answers questions with a [`status`]
//!
//! Imports go one way, and a test checks it: the core knows nothing of what is around it.

pub mod batch;
pub mod capture;
pub mod clock;
pub mod config;
pub mod control;
pub mod counters;
pub mod daemon;
pub mod fib;
pub mod flow;
pub mod gateway;
pub mod lane;
pub mod links;
pub mod memory;
pub mod outbox;
pub mod port;
pub mod preflight;
pub mod privileges;
pub mod router;
pub mod routes;
pub mod sandbox;
pub mod state;
pub mod status;
pub mod verdict;
pub mod wire;
pub mod worker;
pub mod xdp;
