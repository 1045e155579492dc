//! Why a port could not be opened, and what to do about it.
//!
//! **Invariant.** Every message names the interface (and the queue where there is one), what was
//! tried, the kernel's reason and a remedy. Nothing of this happens per packet: faults there are
//! counted.

use std::io;

use super::capabilities::missing_capabilities;
use super::destinations::DESTINATIONS_MAX;

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// A setting is outside its range.
    #[error("{name} = {value}: expected {expected}")]
    Setting {
        /// Its key.
        name: &'static str,
        /// The value found.
        value: u32,
        /// What would have been right.
        expected: &'static str,
    },

    /// The interface does not exist or cannot be asked.
    #[error(
        "{interface}: {operation}: {cause}. `ip link show` lists the interfaces of this namespace"
    )]
    Interface {
        /// Its name.
        interface: String,
        /// What was asked.
        operation: &'static str,
        /// The kernel's reason.
        cause: io::Error,
    },

    /// Packets as long as the MTU allows do not fit a frame.
    #[error(
        "{interface}: its MTU is {mtu}, but a frame of {frame_bytes} bytes has room for an MTU of \
         {mtu_max}. Lower it (`ip link set dev {interface} mtu {mtu_max}`){larger}"
    )]
    Mtu {
        /// Its name.
        interface: String,
        /// Its MTU.
        mtu: u32,
        /// Bytes of a frame.
        frame_bytes: u32,
        /// The largest MTU that fits.
        mtu_max: u32,
        /// The other remedy, where there is one.
        larger: &'static str,
    },

    /// Another XDP program is on the interface.
    #[error(
        "{interface}: another XDP program is attached already{program}. If nothing needs it, \
         remove it: `ip link set dev {interface} xdp off` (`xdpgeneric off` if it is generic). If a \
         running process holds it by a BPF link (`bpftool link`), stop that process"
    )]
    Occupied {
        /// Its name.
        interface: String,
        /// Its number, where the kernel tells.
        program: String,
    },

    /// The queue has no place in the map of sockets.
    #[error(
        "{interface}, queue {queue}: attached for {queues} queues only. `ethtool -l {interface}` \
         shows how many it has; there must be one worker for each"
    )]
    Queue {
        /// Its name.
        interface: String,
        /// The queue asked for.
        queue: u32,
        /// Queues that the attachment serves.
        queues: u32,
    },

    /// The two ports disagree with the settings about the size of frames.
    #[error(
        "{interface}: attached for frames of {attached} bytes, opened for {opened}: use the same \
         `frame_bytes` for both"
    )]
    FrameBytes {
        /// Its name.
        interface: String,
        /// Size at attaching.
        attached: u32,
        /// Size at opening.
        opened: u32,
    },

    /// More destinations than the program's maps hold.
    #[error(
        "{interface}: {count} prefixes and own addresses of one IP version, and there is room for \
         {DESTINATIONS_MAX}. Join prefixes (`routed.local_prefixes`, `routed.remote_prefixes`), or remove addresses"
    )]
    Destinations {
        /// Its name.
        interface: String,
        /// How many there are.
        count: usize,
    },

    /// The kernel refused.
    #[error("{subject}: {operation}: {cause}. {remedy}")]
    Kernel {
        /// Interface, and queue where there is one.
        subject: String,
        /// What was tried.
        operation: String,
        /// The kernel's reason.
        cause: io::Error,
        /// What to do.
        remedy: String,
    },
}

impl XdpError {
    pub(super) fn kernel(
        subject: impl Into<String>,
        operation: impl Into<String>,
        cause: io::Error,
    ) -> XdpError {
        let remedy = remedy(&cause);
        XdpError::Kernel { subject: subject.into(), operation: operation.into(), cause, remedy }
    }

    /// What was tried and why it failed, for a warning: there is nothing to do when something else works.
    pub(super) fn without_remedy(&self) -> String {
        match self {
            XdpError::Kernel { subject, operation, cause, .. } => {
                format!("{subject}: {operation}: {cause}")
            }
            other => other.to_string(),
        }
    }

    /// The kernel's error number, where it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            XdpError::Kernel { cause, .. } | XdpError::Interface { cause, .. } => {
                cause.raw_os_error()
            }
            _ => None,
        }
    }
}

/// What to do about a refusal; each errno has one common meaning in these calls.
fn remedy(cause: &io::Error) -> String {
    let remedy = match cause.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => return permission_remedy(),
        Some(libc::EBUSY) => {
            "Another AF_XDP socket serves this queue (`ss --xdp` shows it): stop its process"
        }
        Some(libc::EINVAL) => {
            "The interface may not have this queue: `ethtool -l` shows how many there are"
        }
        Some(libc::EOPNOTSUPP) => {
            "The driver cannot: use copy = \"copy\", attach = \"generic\", or \"auto\" for both"
        }
        Some(libc::ENOBUFS | libc::ENOMEM) => {
            "Not enough memory may be locked: grant CAP_IPC_LOCK or raise the limit (`ulimit -l`, \
             LimitMEMLOCK=infinity), or use fewer ring_entries"
        }
        Some(libc::ERANGE | libc::E2BIG) => {
            "The driver refuses XDP at this MTU or offload setting: lower the MTU, or use attach = \
             \"generic\""
        }
        Some(libc::ENODEV | libc::ENXIO) => "The interface is gone: `ip link show`",
        _ => "The kernel's log (`dmesg`) may say more",
    };
    remedy.to_owned()
}

fn permission_remedy() -> String {
    let missing = missing_capabilities();
    if missing.is_empty() {
        return "This process has the capabilities it needs; a security policy or a user namespace \
                forbids it"
            .to_owned();
    }
    format!(
        "This process lacks {}: run it as root, or grant them (AmbientCapabilities= in its unit, \
         or `setcap`)",
        missing.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_subject_operation_reason_and_remedy() {
        let cause = io::Error::from_raw_os_error(libc::EBUSY);
        let text = XdpError::kernel("eth1, queue 3", "binding a socket (copy)", cause).to_string();
        for part in ["eth1, queue 3", "binding a socket (copy)", "busy", "ss --xdp"] {
            assert!(text.contains(part), "{part:?} is missing in {text:?}");
        }
    }
}
