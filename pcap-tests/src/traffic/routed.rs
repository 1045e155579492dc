//! Random traffic of both sides of a routed gateway: [`Traffic`](super::Traffic) with addresses of the two sites, SYNs
//! with options, packets around every MTU; from the WAN in tunnels, damaged in every place, or without one.

use std::net::IpAddr;

use dataplane::batch::PortId;
use dataplane::lane::tunnel::Tunnel;

use super::{Options, Random, Traffic};
use crate::model::routed::in_tunnel;

const IP: usize = 14;
/// Where the headers of two IP packets in each other end, roughly.
const HEADERS_BYTES: usize = 130;

/// Hosts of this site: one that answers, one that does not.
const LOCAL_IPV4: [[u8; 4]; 2] = [[10, 1, 0, 9], [10, 1, 0, 77]];
const REMOTE_IPV4: [[u8; 4]; 2] = [[10, 2, 0, 7], [10, 2, 255, 8]];
/// Nobody's, our own, a tunnel's ends, and what no router forwards.
const ODD_IPV4: [[u8; 4]; 9] = [
    [10, 3, 0, 1],
    [10, 1, 0, 1],
    [192, 0, 2, 2],
    [198, 51, 100, 2],
    [224, 0, 0, 5],
    [0, 0, 0, 0],
    [127, 0, 0, 1],
    [255, 255, 255, 255],
    [192, 0, 2, 1],
];
const LOCAL_IPV6: [u16; 8] = [0x2001, 0xdb8, 1, 0, 0, 0, 0, 9];
const REMOTE_IPV6: [u16; 8] = [0x2001, 0xdb8, 2, 0, 0, 0, 0, 7];
const ODD_IPV6: [[u16; 8]; 7] = [
    [0x2001, 0xdb8, 7, 0, 0, 0, 0, 1],
    [0x2001, 0xdb8, 1, 0, 0, 0, 0, 1],
    [0x2001, 0xdb8, 9, 0, 0, 0, 0, 2],
    [0xff02, 0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 0, 0],
    [0xfe80, 0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 0, 1],
];
/// Around these many bytes packets begin to be too big for something.
const SIZES: [usize; 12] = [548, 556, 576, 600, 1400, 1420, 1424, 1432, 1468, 1476, 1500, 3000];

/// A frame that one of the ports receives.
#[derive(Debug, Clone)]
pub struct RoutedFrame {
    /// Which of them.
    pub ingress: PortId,
    /// The bytes at hand.
    pub kept: Vec<u8>,
    /// Its bytes on the wire.
    pub wire_bytes: u32,
    /// When it was received.
    pub received_ns: u64,
}

/// An endless sequence of frames.
#[derive(Debug)]
pub struct RoutedTraffic {
    random: Random,
    traffic: Traffic,
    tunnels: Vec<Tunnel>,
    sequence: u32,
}

impl RoutedTraffic {
    /// The traffic of this seed, between ends of these tunnels.
    pub fn new(seed: u64, tunnels: Vec<Tunnel>, options: Options) -> Self {
        let (random, traffic) = (Random::new(!seed), Traffic::new(seed, options));
        RoutedTraffic { random, traffic, tunnels, sequence: 0 }
    }

    /// The next frame.
    pub fn next_frame(&mut self) -> RoutedFrame {
        let ingress = if self.random.one_in(2) { PortId::Lan } else { PortId::Wan };
        let frame = self.traffic.next_frame();
        let received_ns = frame.received_ns;
        let mut bytes = frame.kept.to_vec();
        let mut wire_bytes = frame.wire_bytes as usize;
        let is_whole = bytes.len() == wire_bytes;
        if !self.random.one_in(10) {
            while bytes.len() >= 18 && [0x8100, 0x88a8, 0x9100].contains(&word(&bytes, 12)) {
                bytes.drain(12..16);
                wire_bytes -= 4;
            }
        }
        if self.random.one_in(8) {
            bytes = self.syn();
            wire_bytes = bytes.len();
        }
        self.settle_at(&mut bytes, ingress);
        if is_whole && self.random.one_in(12) {
            self.resize(&mut bytes);
            wire_bytes = bytes.len();
        }
        repair(&mut bytes, self.random.one_in(30));
        if ingress == PortId::Wan && bytes.len() == wire_bytes && !self.random.one_in(6) {
            bytes = match self.random.below(60) {
                0 => self.error_about_a_tunnel(bytes),
                1 => {
                    let once = self.through_a_tunnel(bytes);
                    self.through_a_tunnel(once)
                }
                _ => self.through_a_tunnel(bytes),
            };
            wire_bytes = bytes.len();
        }
        if self.random.one_in(15) {
            // A snap length.
            let kept = self.random.index(bytes.len().min(HEADERS_BYTES) + 1);
            bytes.truncate(kept);
        }
        let wire_bytes = wire_bytes.max(bytes.len()) as u32;
        RoutedFrame { ingress, kept: bytes, wire_bytes, received_ns }
    }

    /// Gives a packet the addresses of its direction, mostly, and hops left, mostly.
    fn settle_at(&mut self, bytes: &mut [u8], ingress: PortId) {
        let is_odd = [self.random.one_in(40), self.random.one_in(20)];
        let random = &mut self.random;
        if bytes.len() >= IP + 20 && word(bytes, 12) == 0x0800 {
            let mut ends = [random.pick(&LOCAL_IPV4), random.pick(&REMOTE_IPV4)];
            if ingress == PortId::Wan {
                ends.reverse();
                if !random.one_in(10) {
                    ends[1] = LOCAL_IPV4[0];
                }
            } else if !random.one_in(20) {
                ends[0] = LOCAL_IPV4[0];
            }
            for (at, (mut end, is_odd)) in
                [IP + 12, IP + 16].into_iter().zip(ends.into_iter().zip(is_odd))
            {
                if is_odd {
                    end = random.pick(&ODD_IPV4);
                }
                bytes[at..at + 4].copy_from_slice(&end);
            }
            bytes[IP + 8] = if random.one_in(30) { random.byte() % 3 } else { 64 };
            if word(bytes, IP + 6) & 0x3fff == 0 && random.one_in(2) {
                bytes[IP + 6] = 0x40;
            }
        } else if bytes.len() >= IP + 40 && word(bytes, 12) == 0x86dd {
            let mut ends = [LOCAL_IPV6, REMOTE_IPV6];
            if ingress == PortId::Wan {
                ends.reverse();
            }
            for (at, (mut end, is_odd)) in
                [IP + 8, IP + 24].into_iter().zip(ends.into_iter().zip(is_odd))
            {
                if is_odd {
                    end = random.pick(&ODD_IPV6);
                }
                let octets: Vec<u8> = end.iter().flat_map(|group| group.to_be_bytes()).collect();
                bytes[at..at + 16].copy_from_slice(&octets);
            }
            bytes[IP + 7] = if random.one_in(30) { random.byte() % 3 } else { 64 };
        }
    }

    /// Makes a packet as long as something, give or take a byte; padding goes.
    fn resize(&mut self, bytes: &mut Vec<u8>) {
        let size = self.random.pick(&SIZES) + self.random.index(5) - 2;
        let Some(header) = bytes.get(IP..IP + 40) else { return };
        let length = match header[0] >> 4 {
            4 if word(bytes, 12) == 0x0800 => size,
            6 if word(bytes, 12) == 0x86dd => size - 40,
            _ => return,
        };
        let at = if header[0] >> 4 == 4 { IP + 2 } else { IP + 4 };
        bytes[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
        bytes.resize(IP + size, 0x5a);
    }

    /// A SYN, or nearly one, with options of every kind.
    fn syn(&mut self) -> Vec<u8> {
        let mut options: Vec<u8> = Vec::new();
        while options.len() < 32 {
            let size = self.random.pick(&[536, 1220, 1360, 1400, 1412, 1432, 1460, 8960, 65535]);
            let [high, low] = u16::to_be_bytes(size);
            let option: &[u8] = match self.random.below(12) {
                0..5 => &[2, 4, high, low],
                5..8 => &[1],
                8 => &[3, 3, 7],
                9 => &[8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
                10 => &[4, 2],
                _ => &[self.random.byte(), self.random.byte()],
            };
            options.extend(option);
        }
        options.truncate(4 * self.random.index(9));
        let flags = self.random.pick(&[0x02, 0x12, 0x10, 0xc2]);
        let mut tcp = [self.random.word().to_be_bytes(), [1, 187]].concat();
        tcp.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50 + 4 * options.len() as u8, flags]);
        tcp.extend([0xff, 0xff, self.random.byte(), self.random.byte(), 0, 0]);
        tcp.extend(options);
        tcp.resize(tcp.len() + self.random.index(20), 0x77);
        let mut frame = vec![2; 12];
        if self.random.one_in(2) {
            frame.extend([8, 0, 0x45, self.random.byte()]);
            frame.extend((20 + tcp.len() as u16).to_be_bytes());
            frame.extend([0, 7, 0, 0, 64, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        } else {
            frame.extend([0x86, 0xdd, 0x60 + self.random.byte() % 16, self.random.byte(), 0, 1]);
            frame.extend((tcp.len() as u16).to_be_bytes());
            frame.extend([6, 64]);
            frame.extend([0; 32]);
        }
        frame.extend(tcp);
        frame
    }

    /// What the other end of a tunnel, or somebody like it, sends.
    fn through_a_tunnel(&mut self, frame: Vec<u8>) -> Vec<u8> {
        let Some(inner) = self.inner_of(&frame) else { return frame };
        if self.tunnels.is_empty() {
            return frame;
        }
        let random = &mut self.random;
        let mut tunnel = random.pick(&self.tunnels);
        (tunnel.local, tunnel.remote) = (tunnel.remote, tunnel.local);
        tunnel.checksum ^= random.one_in(4);
        tunnel.sequence ^= random.one_in(4);
        tunnel.udp ^= random.one_in(60);
        if random.one_in(60) {
            tunnel.key = Some(random.byte().into());
        }
        self.sequence = self.sequence.wrapping_add(u32::from(!random.one_in(10)));
        let mut outer = in_tunnel(&tunnel, &inner, self.sequence);
        // Any ECN field, whatever is inside.
        if random.one_in(2) {
            let ecn = random.byte();
            if outer[0] >> 4 == 4 {
                outer[1] = outer[1] & 0xfc | ecn & 3;
            } else {
                outer[1] = outer[1] & 0xcf | ecn & 0x30;
            }
        }
        let udp = if outer[0] >> 4 == 4 { 20 } else { 40 };
        if tunnel.udp && random.one_in(20) {
            outer[udp + 6..udp + 8].fill(0);
        }
        let ether_type: [u8; 2] = if outer[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
        let mut bytes = [&[2; 12][..], &ether_type, &outer].concat();
        repair(&mut bytes, random.one_in(60));
        if random.one_in(3) {
            let at = IP + random.index(bytes.len().min(HEADERS_BYTES) - IP);
            bytes[at] ^= if random.one_in(2) { random.byte() } else { 1 << random.below(8) };
            repair(&mut bytes, random.one_in(4));
        }
        if random.one_in(10) {
            bytes.resize(bytes.len() + random.index(20), 0xaa);
        }
        bytes
    }

    /// An ICMP message to our end of a tunnel, which quotes something that we did not send.
    fn error_about_a_tunnel(&mut self, quoted: Vec<u8>) -> Vec<u8> {
        let random = &mut self.random;
        if self.tunnels.is_empty() {
            return quoted;
        }
        let tunnel = random.pick(&self.tunnels);
        let kind = random.pick(&[3, 11, 12, 2, 1, 4, 0, 128]);
        let [high, low] = random.pick(&[0_u16, 600, 1280, 1300, 1499]).to_be_bytes();
        let mut icmp = vec![kind, random.byte() % 6, 0, 1, 0, 0, high, low];
        icmp.extend(&quoted[quoted.len().min(IP)..quoted.len().min(100)]);
        let mut frame = vec![2; 12];
        let length = icmp.len() as u16;
        match tunnel.local {
            IpAddr::V4(local) => {
                frame.extend([8, 0, 0x45, 0]);
                frame.extend((20 + length).to_be_bytes());
                frame.extend([0, 0, 0, 0, 60, 1, 0, 0, 203, 0, 113, 9]);
                frame.extend(local.octets());
            }
            IpAddr::V6(local) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(length.to_be_bytes());
                frame.extend([58, 60, 0x20, 1]);
                frame.extend([0; 14]);
                frame.extend(local.octets());
            }
        }
        frame.extend(icmp);
        repair(&mut frame, false);
        frame
    }

    /// The IP packet of a frame without its padding.
    fn inner_of(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let header = frame.get(IP..IP + 20)?;
        let length = match word(frame, 12) {
            0x0800 => usize::from(word(header, 2)),
            0x86dd => 40 + usize::from(word(header, 4)),
            _ => return None,
        };
        // Sometimes with what does not belong to it.
        let end = if self.random.one_in(20) { frame.len() } else { (IP + length).min(frame.len()) };
        Some(frame[IP..end.max(IP + 20)].to_vec())
    }
}

/// Makes the checksum of an IPv4 header right, or wrong.
fn repair(bytes: &mut [u8], is_wrong: bool) {
    if bytes.len() < IP + 20 || word(bytes, 12) != 0x0800 {
        return;
    }
    let end = IP + usize::from(bytes[IP] & 15) * 4;
    if end < IP + 20 || end > bytes.len() {
        return;
    }
    bytes[IP + 10..IP + 12].fill(0);
    let mut sum: u32 = bytes[IP..end].chunks(2).map(|pair| u32::from(word(pair, 0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !(sum as u16) ^ u16::from(is_wrong);
    bytes[IP + 10..IP + 12].copy_from_slice(&checksum.to_be_bytes());
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
