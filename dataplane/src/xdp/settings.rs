//! What can be chosen about ports.
//!
//! **Invariant.** [`Settings::check`] has passed before any of it reaches the kernel, so sizes are
//! powers of two and products of them fit their types.

use super::error::XdpError;

/// Bytes that the kernel keeps at the head of each frame.
const HEADROOM_BYTES: u32 = 256;

/// Bytes that a frame carries besides the MTU: an Ethernet header and one VLAN tag.
const LINK_HEADER_BYTES: u32 = 14 + 4;

/// Most bytes that encapsulation adds to a packet: IPv6 header, UDP header, GRE header with checksum, key and
/// sequence number. `ENCAPSULATION_BYTES_MAX` of `routed.bpf.c`.
pub const ENCAPSULATION_BYTES_MAX: u32 = 40 + 8 + 16;

/// How the XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attach {
    /// Native, and generic with a warning where the driver cannot.
    Auto,
    /// In the driver.
    Native,
    /// After the kernel has built an sk_buff: works with every driver, slower.
    Generic,
}

/// How packets get between driver and packet memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyMode {
    /// Zero-copy, and copy with a warning where the driver cannot.
    Auto,
    /// The driver receives into packet memory and sends from it.
    ZeroCopy,
    /// The kernel copies: works with every driver.
    Copy,
}

/// The same for both ports and all queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How the XDP program is attached.
    pub attach: Attach,
    /// How packets get between driver and packet memory.
    pub copy: CopyMode,
    /// Bytes of a frame of packet memory, 2048 or 4096. A packet may have 256 less.
    pub frame_bytes: u32,
    /// Entries of each ring, a power of two from 64 to 32768. A worker has four times as many
    /// frames.
    pub ring_entries: u32,
    /// Packets that a round of kernel busy polling may handle; 0 switches it off.
    pub busy_poll_budget: u32,
}

impl Settings {
    /// Frames of one worker: enough to fill the receive side and the transmit side of both ports.
    pub fn frames(&self) -> u32 {
        4 * self.ring_entries
    }

    pub(super) fn check(&self) -> Result<(), XdpError> {
        check_frame_bytes(self.frame_bytes)?;
        if !self.ring_entries.is_power_of_two() || !(64..=32768).contains(&self.ring_entries) {
            return Err(XdpError::Setting {
                name: "ring_entries",
                value: self.ring_entries,
                expected: "a power of two from 64 to 32768",
            });
        }
        if self.busy_poll_budget > u32::from(u16::MAX) {
            return Err(XdpError::Setting {
                name: "busy_poll_budget",
                value: self.busy_poll_budget,
                expected: "a number of packets from 0 to 65535",
            });
        }
        Ok(())
    }
}

pub(super) fn check_frame_bytes(frame_bytes: u32) -> Result<(), XdpError> {
    if matches!(frame_bytes, 2048 | 4096) {
        return Ok(());
    }
    Err(XdpError::Setting { name: "frame_bytes", value: frame_bytes, expected: "2048 or 4096" })
}

/// Largest MTU of a port whose every packet fits a frame of packet memory, with one VLAN tag.
pub fn mtu_max(frame_bytes: u32) -> u32 {
    frame_bytes - HEADROOM_BYTES - LINK_HEADER_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        attach: Attach::Auto,
        copy: CopyMode::Auto,
        frame_bytes: 2048,
        ring_entries: 2048,
        busy_poll_budget: 0,
    };

    #[test]
    fn a_frame_of_2048_takes_an_mtu_of_1774() {
        assert_eq!(mtu_max(2048), 1774);
        assert_eq!(mtu_max(4096), 3822);
    }

    #[test]
    fn ring_entries_must_be_a_power_of_two_in_range() {
        for good in [64, 128, 32768] {
            assert!(Settings { ring_entries: good, ..SETTINGS }.check().is_ok(), "{good}");
        }
        for bad in [0, 32, 65, 100, 65536, u32::MAX] {
            assert!(Settings { ring_entries: bad, ..SETTINGS }.check().is_err(), "{bad}");
        }
    }

    #[test]
    fn frame_bytes_must_be_2048_or_4096() {
        for bad in [0, 1024, 2047, 3000, 8192] {
            assert!(Settings { frame_bytes: bad, ..SETTINGS }.check().is_err(), "{bad}");
        }
    }
}
