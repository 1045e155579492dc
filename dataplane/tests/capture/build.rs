//! Captures written by hand, byte by byte, in either byte order.

/// Byte order of what is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Little,
    Big,
}

pub(crate) const ORDERS: [Order; 2] = [Order::Little, Order::Big];

/// A capture that grows field by field.
pub(crate) struct Build {
    pub(crate) order: Order,
    pub(crate) bytes: Vec<u8>,
}

impl Build {
    pub(crate) fn new(order: Order) -> Self {
        Build { order, bytes: Vec::new() }
    }

    pub(crate) fn u16(mut self, value: u16) -> Self {
        self.bytes.extend(match self.order {
            Order::Little => value.to_le_bytes(),
            Order::Big => value.to_be_bytes(),
        });
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.bytes.extend(match self.order {
            Order::Little => value.to_le_bytes(),
            Order::Big => value.to_be_bytes(),
        });
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.bytes.extend(match self.order {
            Order::Little => value.to_le_bytes(),
            Order::Big => value.to_be_bytes(),
        });
        self
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Padding is 0xee, so that a copy that invents its own zeroes is found out.
    pub(crate) fn padded(self, bytes: &[u8]) -> Self {
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        self.raw(bytes).raw(&[0xee; 3][..padding])
    }

    pub(crate) fn pcap_header(self, magic: u32, link_type: u32) -> Self {
        self.u32(magic).u16(2).u16(4).u32(0).u32(0).u32(65_535).u32(link_type)
    }

    pub(crate) fn pcap_record(self, time: [u32; 2], original_bytes: u32, packet: &[u8]) -> Self {
        let captured_bytes = packet.len() as u32;
        self.u32(time[0]).u32(time[1]).u32(captured_bytes).u32(original_bytes).raw(packet)
    }

    pub(crate) fn block(self, block_type: u32, body: impl FnOnce(Build) -> Build) -> Self {
        let body = body(Build::new(self.order)).bytes;
        let length = body.len() as u32 + 12;
        self.u32(block_type).u32(length).raw(&body).u32(length)
    }

    pub(crate) fn option(self, code: u16, value: &[u8]) -> Self {
        self.u16(code).u16(value.len() as u16).padded(value)
    }

    pub(crate) fn section(self) -> Self {
        self.block(0x0a0d_0d0a, |body| {
            let body = body.u32(0x1a2b_3c4d).u16(1).u16(0).u64(u64::MAX);
            body.option(1, b"a comment on the section").u32(0)
        })
    }

    /// An interface with a name, and with the options given.
    pub(crate) fn interface(
        self,
        link_type: u16,
        snap_bytes: u32,
        options: &[(u16, &[u8])],
    ) -> Self {
        self.block(1, |body| {
            let mut body = body.u16(link_type).u16(0).u32(snap_bytes).option(2, b"tap 0");
            for (code, value) in options {
                body = body.option(*code, value);
            }
            body.u32(0)
        })
    }

    /// An Enhanced Packet Block with a comment.
    pub(crate) fn enhanced(
        self,
        interface: u32,
        units: u64,
        original_bytes: u32,
        packet: &[u8],
    ) -> Self {
        self.block(6, |body| {
            let body = body.u32(interface).u32((units >> 32) as u32).u32(units as u32);
            let body = body.u32(packet.len() as u32).u32(original_bytes).padded(packet);
            body.option(1, b"a comment").u32(0)
        })
    }

    /// The obsolete Packet Block, with a count of drops beside its interface.
    pub(crate) fn obsolete(
        self,
        interface: u16,
        units: u64,
        original_bytes: u32,
        packet: &[u8],
    ) -> Self {
        self.block(2, |body| {
            let body = body.u16(interface).u16(7).u32((units >> 32) as u32).u32(units as u32);
            body.u32(packet.len() as u32).u32(original_bytes).padded(packet)
        })
    }

    /// A Simple Packet Block; the packet is already cut to the snap length.
    pub(crate) fn simple(self, original_bytes: u32, packet: &[u8]) -> Self {
        self.block(3, |body| body.u32(original_bytes).padded(packet))
    }

    /// Name resolution, interface statistics, and a block of a type that nobody knows.
    pub(crate) fn other_blocks(self) -> Self {
        self.block(4, |body| {
            body.u16(1).u16(10).padded(&[192, 0, 2, 1, b'n', b'a', b'm', b'e', b's', 0]).u32(0)
        })
        .block(5, |body| body.u32(0).u32(0).u32(77).option(4, &[1; 8]).u32(0))
        .block(0x7fff_0001, |body| body.raw(&[0xaa; 16]))
    }
}

/// An Ethernet frame whose bytes tell its number.
pub(crate) fn frame(number: u8, bytes: usize) -> Vec<u8> {
    let mut frame = vec![number; bytes];
    let header = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
    let shared = bytes.min(header.len());
    frame[..shared].copy_from_slice(&header[..shared]);
    frame
}

/// A small pcap with packets of odd lengths, one of them cut and one empty.
pub(crate) fn small_pcap(order: Order, magic: u32) -> Vec<u8> {
    Build::new(order)
        .pcap_header(magic, 1)
        .pcap_record([1_700_000_000, 123_456], 61, &frame(1, 61))
        .pcap_record([1_700_000_000, 999_999], 1500, &frame(2, 50))
        .pcap_record([1_600_000_000, 0], 14, &[])
        .bytes
}

/// A small pcapng with every kind of packet block, several interfaces and two sections, the second
/// in the other byte order.
pub(crate) fn small_pcapng(order: Order) -> Vec<u8> {
    let other = if order == Order::Little { Order::Big } else { Order::Little };
    let first = Build::new(order)
        .section()
        .interface(1, 64, &[])
        .simple(1500, &frame(1, 64))
        .interface(1, 0, &[(9, &[9])])
        .other_blocks()
        .enhanced(1, 1_700_000_000_123_456_789, 1400, &frame(2, 61))
        .obsolete(0, 1_700_000_000_123_457, 62, &frame(3, 62))
        .simple(60, &frame(4, 60));
    let second = Build::new(other)
        .section()
        .interface(1, 0, &[(9, &[3])])
        .enhanced(0, 1_700_000_001_123, 63, &frame(5, 63))
        .other_blocks();
    [first.bytes, second.bytes].concat()
}
