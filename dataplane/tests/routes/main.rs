//! The mirror of the kernel's routes, against a kernel: whatever `ip` and BIRD do shows in the next snapshot.
//!
//! ```text
//!    host ---- 10.1.0.1  lan | gateway | wan  192.0.2.2 ---- 192.0.2.1  peer
//!   10.1.0.7   fd01::1                        fd02::2          fd02::1
//! ```

#[path = "../lab/mod.rs"]
mod lab;

mod bgp;
mod changes;
mod neighbours;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::batch::PortId;
use dataplane::fib::{Fib, Resolution};
use dataplane::routes::Mirror;
use lab::{Lab, Namespace, cable};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

/// Nothing here takes longer, unless it never comes.
const BOUND: Duration = Duration::from_secs(20);

/// The three namespaces above, and the gateway's mirror.
struct Site {
    host: Namespace,
    gateway: Namespace,
    peer: Namespace,
}

impl Site {
    fn new(lab: &Lab) -> Site {
        let [host, gateway, peer] = ["host", "gateway", "peer"].map(|role| lab.namespace(role));
        cable((&host, "eth0"), (&gateway, "lan"));
        cable((&peer, "eth0"), (&gateway, "wan"));
        host.address("eth0", "10.1.0.7/24");
        gateway.address("lan", "10.1.0.1/24");
        gateway.address("lan", "fd01::1/64");
        gateway.address("wan", "192.0.2.2/24");
        gateway.address("wan", "fd02::2/64");
        peer.address("eth0", "192.0.2.1/24");
        peer.address("eth0", "fd02::1/64");
        Site { host, gateway, peer }
    }

    fn mirror(&self) -> Watched {
        let mirror = self.gateway.enter(|| Mirror::start(["lan", "wan"]));
        let mut mirror = mirror.unwrap_or_else(|error| panic!("{error}"));
        let fib = mirror.turn(Instant::now()).expect("the first snapshot is there at once");
        Watched { mirror, fib }
    }
}

/// A mirror and its newest snapshot.
struct Watched {
    mirror: Mirror,
    fib: Arc<Fib>,
}

impl Watched {
    fn resolve(&self, destination: &str) -> Resolution {
        self.fib.resolve(ip(destination), 0)
    }

    /// One turn, as the daemon would: when there is news or it is time.
    fn turn(&mut self) {
        let mut waited = [PollFd::new(self.mirror.as_fd(), PollFlags::POLLIN)];
        let longest = self.mirror.wait_max(Instant::now()).min(Duration::from_millis(50));
        poll(&mut waited, PollTimeout::try_from(longest).unwrap()).unwrap();
        if let Some(fib) = self.mirror.turn(Instant::now()) {
            self.fib = fib;
        }
    }

    /// Turns until the snapshot says so. Says how long that took.
    #[track_caller]
    fn until(&mut self, what: &str, mut condition: impl FnMut(&Fib) -> bool) -> Duration {
        let begun = Instant::now();
        while !condition(&self.fib) {
            let waited = begun.elapsed();
            assert!(waited < BOUND, "waited {waited:?} for {what}, in vain: {:?}", self.mirror);
            self.turn();
        }
        begun.elapsed()
    }

    #[track_caller]
    fn until_it_is(&mut self, destination: &str, expected: Resolution) {
        let address = ip(destination);
        self.until(&format!("{destination} to be {expected:?}"), |fib| {
            fib.resolve(address, 0) == expected
        });
    }

    /// Asks for the next hop's MAC address as the dataplane would, until there is one.
    #[track_caller]
    fn until_it_is_sent(&mut self, destination: &str) -> [u8; 14] {
        let begun = Instant::now();
        loop {
            match self.resolve(destination) {
                Resolution::Forward { link, .. } => return link,
                Resolution::Unresolved { port, address } => {
                    self.mirror.request(port, address, Instant::now());
                }
                _ => {}
            }
            let found = self.resolve(destination);
            assert!(begun.elapsed() < BOUND, "{destination} is {found:?} after {BOUND:?}");
            self.turn();
        }
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The Ethernet header from one interface to another.
fn link(from: (&Namespace, &str), to: (&Namespace, &str), ether_type: [u8; 2]) -> [u8; 14] {
    let mac = |(namespace, interface): (&Namespace, &str)| -> Vec<u8> {
        let text = namespace.mac(interface);
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    };
    [mac(to), mac(from), ether_type.to_vec()].concat().try_into().unwrap()
}

fn is_unresolved(fib: &Fib, destination: &str, port: PortId, next_hop: &str) -> bool {
    let sent = Resolution::Unresolved { port, address: ip(next_hop) };
    match fib.resolve(ip(destination), 0) {
        Resolution::Forward { port: by, .. } => by == port,
        other => other == sent,
    }
}
