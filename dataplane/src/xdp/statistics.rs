//! What a socket counts.
//!
//! **Invariant.** Numbers only grow while the port is open. The kernel's keep the kernel's names.

/// Counters of one port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SocketStatistics {
    /// Kernel: received packets dropped for reasons that have no counter of their own.
    pub rx_dropped: u64,
    /// Kernel: descriptors of the fill ring that it refused.
    pub rx_invalid_descs: u64,
    /// Kernel: descriptors of the transmit ring that it refused.
    pub tx_invalid_descs: u64,
    /// Kernel: received packets dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Kernel: times it found no frame in the fill ring.
    pub rx_fill_ring_empty_descs: u64,
    /// Kernel: times it found the transmit ring empty.
    pub tx_ring_empty_descs: u64,
    /// Descriptors from the kernel that named no frame it could have had, or more bytes than a
    /// frame has.
    pub faulty_descriptors: u64,
    /// Times the fill ring wanted frames and none was free.
    pub frames_short: u64,
    /// Calls that wake the kernel, and failed.
    pub wake_failures: WakeFailures,
}

/// Wake-up calls that failed, by reason. None is fatal: the call is repeated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WakeFailures {
    /// EAGAIN: more to send than one call may, or the send buffer is full.
    pub again: u64,
    /// EBUSY: the driver's queue is full, or a packet was dropped there.
    pub busy: u64,
    /// ENOBUFS: no memory for a packet, or the completion ring is full.
    pub no_buffers: u64,
    /// ENETDOWN: the interface is down.
    pub network_down: u64,
    /// Anything else; ENXIO when the interface is gone.
    pub other: u64,
}

impl WakeFailures {
    pub(super) fn count(&mut self, errno: nix::errno::Errno) {
        use nix::errno::Errno;
        let counter = match errno {
            Errno::EAGAIN => &mut self.again,
            Errno::EBUSY => &mut self.busy,
            Errno::ENOBUFS => &mut self.no_buffers,
            Errno::ENETDOWN => &mut self.network_down,
            _ => &mut self.other,
        };
        *counter += 1;
    }
}

impl std::ops::AddAssign for SocketStatistics {
    fn add_assign(&mut self, other: SocketStatistics) {
        // Taken apart, so that a new counter cannot be forgotten.
        let SocketStatistics {
            rx_dropped,
            rx_invalid_descs,
            tx_invalid_descs,
            rx_ring_full,
            rx_fill_ring_empty_descs,
            tx_ring_empty_descs,
            faulty_descriptors,
            frames_short,
            wake_failures: WakeFailures { again, busy, no_buffers, network_down, other: any },
        } = other;
        self.rx_dropped += rx_dropped;
        self.rx_invalid_descs += rx_invalid_descs;
        self.tx_invalid_descs += tx_invalid_descs;
        self.rx_ring_full += rx_ring_full;
        self.rx_fill_ring_empty_descs += rx_fill_ring_empty_descs;
        self.tx_ring_empty_descs += tx_ring_empty_descs;
        self.faulty_descriptors += faulty_descriptors;
        self.frames_short += frames_short;
        self.wake_failures.again += again;
        self.wake_failures.busy += busy;
        self.wake_failures.no_buffers += no_buffers;
        self.wake_failures.network_down += network_down;
        self.wake_failures.other += any;
    }
}
