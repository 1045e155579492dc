//! Packets, and what a gateway makes of them: a model of its own, with numbers instead of bytes.

use dataplane::batch::PortId;

pub(crate) const FLOWS: usize = 24;
/// Flows below this are UDP.
const UDP_FLOWS: usize = 2;
pub(crate) const THRESHOLD_PACKETS: u32 = 5;
pub(crate) const SHORT_DSCP: u8 = 18;
pub(crate) const LONG_DSCP: u8 = 10;
/// Longest frame that the WAN port sends.
pub(crate) const WAN_FRAME_BYTES_MAX: usize = 180;
/// Ethernet, IPv4 and TCP headers and the packet's number.
pub(crate) const PACKET_BYTES_MIN: usize = 14 + 20 + 20 + 8;
pub(crate) const PACKET_BYTES_MAX: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) number: u64,
    pub(crate) bytes: usize,
    pub(crate) flow: usize,
    /// A SYN.
    pub(crate) opens: bool,
    pub(crate) traffic_class: u8,
}

impl Packet {
    fn is_tcp(&self) -> bool {
        self.flow >= UDP_FLOWS
    }

    /// As it is on the wire, in the first `bytes` of the buffer.
    pub(crate) fn write<'a>(&self, buffer: &'a mut [u8; PACKET_BYTES_MAX]) -> &'a [u8] {
        let bytes = &mut buffer[..self.bytes];
        bytes[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
        let ip = &mut bytes[14..34];
        ip[..2].copy_from_slice(&[0x45, self.traffic_class]);
        ip[2..4].copy_from_slice(&(self.bytes as u16 - 14).to_be_bytes());
        ip[4..6].copy_from_slice(&(self.number as u16).to_be_bytes());
        ip[6..10].copy_from_slice(&[0x40, 0, 64, if self.is_tcp() { 6 } else { 17 }]);
        ip[10..12].fill(0);
        ip[12..20].copy_from_slice(&[10, 0, 0, self.flow as u8, 192, 0, 2, 1]);
        let sum: u32 =
            ip.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let tcp = &mut bytes[34..54];
        tcp.copy_from_slice(&[0x30, 0, 1, 0xbb, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, 0, 1, 0, 0, 0, 0, 0]);
        tcp[13] = if self.opens { 0x02 } else { 0x10 };
        bytes[54..62].copy_from_slice(&self.number.to_be_bytes());
        bytes[62..].fill(self.number as u8);
        bytes
    }
}

/// What a gateway should have counted, and how many packets of each flow it has seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    flows: [u32; FLOWS],
    pub(crate) received: u64,
    pub(crate) exceeds_mtu: u64,
    pub(crate) short: u64,
    pub(crate) long: u64,
    pub(crate) non_tcp: u64,
    pub(crate) unclassified: u64,
}

impl Model {
    /// The packet as it should leave; `None` when it should not.
    pub(crate) fn forward(&mut self, ingress: PortId, mut packet: Packet) -> Option<Packet> {
        self.received += 1;
        let mut long = false;
        if ingress == PortId::Lan && packet.is_tcp() {
            let count = &mut self.flows[packet.flow];
            *count = if packet.opens { 1 } else { *count + 1 };
            long = *count > THRESHOLD_PACKETS;
            let dscp = if long { LONG_DSCP } else { SHORT_DSCP };
            packet.traffic_class = dscp << 2 | packet.traffic_class & 3;
        }
        if ingress == PortId::Lan && packet.bytes > WAN_FRAME_BYTES_MAX {
            self.exceeds_mtu += 1;
            return None;
        }
        let counter = match (ingress, packet.is_tcp(), long) {
            (PortId::Wan, ..) => &mut self.unclassified,
            (_, false, _) => &mut self.non_tcp,
            (_, _, false) => &mut self.short,
            (_, _, true) => &mut self.long,
        };
        *counter += 1;
        Some(packet)
    }
}
