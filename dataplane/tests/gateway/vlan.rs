//! A VLAN where the kernel may have no 802.1Q interfaces: a relay in user space that puts a tag on what
//! leaves a host and takes it off what arrives.
//!
//! ```text
//!     kernel's TCP -- vlan7 ==== untagged -- relay -- eth0 ---- with a tag ----> gateway
//!     10.7.0.x, fd07::x
//! ```
//!
//! The kernel hands a raw socket frames without their tag, so the relay knows what is for it by the
//! address; that the tags are on the cable is for a capture to show.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{MsgFlags, bind, recv, send, setsockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::lab::{Namespace, cable};
use crate::site::words;
use crate::traffic::{mac, raw_socket};

/// 802.1Q, priority 0, VLAN 7.
const TAG: [u8; 4] = [0x81, 0, 0, 7];
const ADDRESSES_BYTES: usize = 12;

/// One host's relay, until this is dropped.
pub struct Vlan {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Vlan {
    /// Gives a host the addresses 10.7.0.`number` and fd07::`number` on VLAN 7.
    pub fn join(host: &Namespace, number: u8) -> Vlan {
        // Each address is answered for on its own interface alone.
        host.run(&words("sysctl -q -w net.ipv4.conf.all.arp_ignore=1"));
        cable((host, "vlan7"), (host, "untagged"));
        host.address("vlan7", &format!("10.7.0.{number}/24"));
        host.address("vlan7", &format!("fd07::{number}/64"));
        let own = mac(&host.mac("vlan7"));
        let [inside, outside] =
            ["untagged", "eth0"].map(|interface| Arc::new(open(host, interface)));
        let stop = Arc::new(AtomicBool::new(false));
        let tag = |frame: &[u8]| {
            let (addresses, rest) = frame.split_at(ADDRESSES_BYTES);
            Some([addresses, &TAG, rest].concat())
        };
        let untag = move |frame: &[u8]| {
            let ours = frame[..6] == own || frame[0] & 1 == 1;
            ours.then(|| frame.to_vec())
        };
        let threads = vec![
            relay(Arc::clone(&inside), Arc::clone(&outside), Arc::clone(&stop), tag),
            relay(outside, inside, Arc::clone(&stop), untag),
        ];
        Vlan { stop, threads }
    }
}

impl Drop for Vlan {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn open(host: &Namespace, interface: &str) -> OwnedFd {
    let (socket, address) = raw_socket(host, interface);
    bind(socket.as_raw_fd(), &address).expect("root may");
    setsockopt(&socket, RcvBufForce, &(16 << 20)).expect("root may");
    setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(50)).expect("possible");
    socket
}

/// Sends what `from` receives and `change` lets pass. What cannot be sent is lost, as on any cable.
fn relay(
    from: Arc<OwnedFd>,
    to: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    change: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while !stop.load(Ordering::Relaxed) {
            let Ok(bytes) = recv(from.as_raw_fd(), &mut buffer, MsgFlags::empty()) else {
                continue;
            };
            if let Some(frame) = change(&buffer[..bytes]) {
                let _ = send(to.as_raw_fd(), &frame, MsgFlags::empty());
            }
        }
    })
}
