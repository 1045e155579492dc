//! What this process is not allowed to do.
//!
//! **Invariant.** Only effective capabilities count: what the kernel would look at, not the user's
//! number.

use std::fs;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

/// Number and name, from linux/capability.h, in the order in which they are reported.
const NET_ADMIN: (u32, &str) = (12, "CAP_NET_ADMIN");
const NET_RAW: (u32, &str) = (13, "CAP_NET_RAW");
const IPC_LOCK: (u32, &str) = (14, "CAP_IPC_LOCK");
const SYS_ADMIN: (u32, &str) = (21, "CAP_SYS_ADMIN");
const BPF: (u32, &str) = (39, "CAP_BPF");

/// Capabilities that opening ports takes and this process does not have:
///
/// - `CAP_NET_ADMIN` to attach the XDP program and to size the sockets' buffers,
/// - `CAP_BPF` to load it (`CAP_SYS_ADMIN` contains it),
/// - `CAP_NET_RAW` to create AF_XDP sockets,
/// - `CAP_IPC_LOCK` to pin packet memory, unless the limit of locked memory (`ulimit -l`) is off.
pub fn missing_capabilities() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory_limited =
        getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft != RLIM_INFINITY);
    missing(effective(&status), memory_limited)
}

/// The mask of effective capabilities; a status that cannot be read grants none.
fn effective(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

fn missing(effective: u64, memory_limited: bool) -> Vec<&'static str> {
    let has = |(number, _): (u32, &str)| effective & (1 << number) != 0;
    let mut missing = Vec::new();
    for (needed, granted) in [
        (NET_ADMIN, has(NET_ADMIN)),
        (BPF, has(BPF) || has(SYS_ADMIN)),
        (NET_RAW, has(NET_RAW)),
        (IPC_LOCK, has(IPC_LOCK) || !memory_limited),
    ] {
        if !granted {
            missing.push(needed.1);
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_missing_with_all_capabilities() {
        let mask = effective("Name:\tx\nCapPrm:\t0\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n");
        assert_eq!(missing(mask, true), [""; 0]);
    }

    #[test]
    fn an_ordinary_user_lacks_all_four() {
        let mask = effective("CapEff:\t0000000000000000\n");
        let all = ["CAP_NET_ADMIN", "CAP_BPF", "CAP_NET_RAW", "CAP_IPC_LOCK"];
        assert_eq!(missing(mask, true), all);
    }

    #[test]
    fn sys_admin_stands_in_for_bpf_and_an_open_limit_for_ipc_lock() {
        let mask = 1 << NET_ADMIN.0 | 1 << NET_RAW.0 | 1 << SYS_ADMIN.0;
        assert_eq!(missing(mask, false), [""; 0]);
    }

    #[test]
    fn an_unreadable_status_grants_nothing() {
        assert_eq!(effective(""), 0);
        assert_eq!(effective("CapEff:\tnonsense\n"), 0);
    }
}
