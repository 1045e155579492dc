//! What the process may still do when it runs: as little as possible.
//!
//! Capabilities belong to threads, and a new thread has those of the thread that starts it. So the control
//! thread gives up first, when the ports are open, and each worker gives up the rest when it starts.
//!
//! | thread  | keeps                                                | because                               |
//! |---------|------------------------------------------------------|---------------------------------------|
//! | control | [`PORT_CAPABILITIES`](xdp::PORT_CAPABILITIES)        | it opens ports, when they return too  |
//! | worker  | none                                                 | its sockets are open                  |
//! | state   | none                                                 | it writes to a folder of its user's   |
//!
//! Everything else the running process does takes no capability at all: to read the configuration again it
//! needs the rights of its user, and to ask an interface for its MTU, to wake a socket, to close one and to
//! remove its own control socket not even those of root.
//!
//! **Invariant.** Nothing comes back: the bounding set and the ambient set are emptied, and no program that
//! this process might start gets more than it has (`no_new_privs`).

use caps::errors::CapsError;
use caps::{CapSet, CapsHashSet};

use crate::xdp;

/// Gives up what only the start needed, on the calling thread and the threads that it starts. Returns what
/// is kept.
///
/// # Errors
///
/// When the kernel refuses; it never refuses to take something away.
pub fn keep_what_ports_need() -> Result<Vec<String>, CapsError> {
    let held = caps::read(None, CapSet::Permitted)?;
    let kept = xdp::port_capabilities_in(&held);
    // This takes CAP_SETPCAP. Who starts us without it has chosen the bounding set himself.
    if held.contains(&caps::Capability::CAP_SETPCAP) {
        for capability in caps::read(None, CapSet::Bounding)? {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    keep(&kept)?;
    let mut names: Vec<String> = kept.iter().map(ToString::to_string).collect();
    names.sort();
    Ok(names)
}

/// Gives up everything, on the calling thread.
///
/// # Errors
///
/// When the kernel refuses; it never refuses to take something away.
pub fn keep_nothing() -> Result<(), CapsError> {
    keep(&CapsHashSet::new())
}

fn keep(kept: &CapsHashSet) -> Result<(), CapsError> {
    nix::sys::prctl::set_no_new_privs()
        .map_err(|errno| CapsError::from(format!("no_new_privs: {errno}")))?;
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Effective, kept)?;
    caps::set(None, CapSet::Permitted, kept)?;
    caps::clear(None, CapSet::Inheritable)
}
