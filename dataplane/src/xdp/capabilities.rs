//! What this process is not allowed to do.
//!
//! **Invariant.** Only effective capabilities count: what the kernel would look at, not the user's
//! number.

use caps::Capability::{CAP_BPF, CAP_IPC_LOCK, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN};
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

/// Capabilities that opening ports takes:
///
/// - `CAP_NET_ADMIN` to attach the XDP program and to size the sockets' buffers,
/// - `CAP_BPF` to load it (`CAP_SYS_ADMIN` contains it),
/// - `CAP_NET_RAW` to create AF_XDP sockets,
/// - `CAP_IPC_LOCK` to pin packet memory, unless the limit of locked memory (`ulimit -l`) is off.
pub const PORT_CAPABILITIES: [Capability; 4] = [CAP_NET_ADMIN, CAP_BPF, CAP_NET_RAW, CAP_IPC_LOCK];

/// Those of [`PORT_CAPABILITIES`] that this process does not have, in words.
pub fn missing_capabilities() -> Vec<String> {
    // What cannot be read grants nothing.
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    let memory_limited =
        getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft != RLIM_INFINITY);
    missing(&effective, memory_limited).iter().map(ToString::to_string).collect()
}

/// What of `held` opening ports takes: `CAP_SYS_ADMIN` only where it has to stand in for `CAP_BPF`.
pub fn port_capabilities_in(held: &CapsHashSet) -> CapsHashSet {
    let stand_in = (!held.contains(&CAP_BPF)).then_some(CAP_SYS_ADMIN);
    PORT_CAPABILITIES.into_iter().chain(stand_in).filter(|one| held.contains(one)).collect()
}

fn missing(effective: &CapsHashSet, memory_limited: bool) -> Vec<Capability> {
    let granted = |capability: &Capability| {
        effective.contains(capability)
            || match capability {
                CAP_BPF => effective.contains(&CAP_SYS_ADMIN),
                CAP_IPC_LOCK => !memory_limited,
                _ => false,
            }
    };
    PORT_CAPABILITIES.into_iter().filter(|capability| !granted(capability)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_missing_with_all_capabilities() {
        assert_eq!(missing(&caps::all(), true), []);
    }

    #[test]
    fn an_ordinary_user_lacks_all_four() {
        assert_eq!(missing(&CapsHashSet::new(), true), PORT_CAPABILITIES);
    }

    #[test]
    fn sys_admin_stands_in_for_bpf_and_an_open_limit_for_ipc_lock() {
        let held = CapsHashSet::from([CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN]);
        assert_eq!(missing(&held, false), []);
        assert_eq!(port_capabilities_in(&held), held);
    }

    #[test]
    fn of_all_capabilities_ports_need_four() {
        assert_eq!(port_capabilities_in(&caps::all()), CapsHashSet::from(PORT_CAPABILITIES));
    }
}
