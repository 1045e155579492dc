//! An IP packet in an untagged Ethernet frame, as the reference model reads and changes it.

use std::net::IpAddr;

use dataplane::lane::tunnel::Tunnel;
use dataplane::verdict::DropReason;

use super::IP;
use super::wire::{checksum_over, internet_sum};
use crate::model::{ipv4_at, ipv6_at, is_tag, is_walked, mark_ipv4, mark_ipv6, u16_at};

const TCP: u8 = 6;
const FRAGMENT: u8 = 44;

/// The frame: what is at hand, and its bytes on the wire.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    pub(super) wire_bytes: usize,
}

/// What is behind an IP header and its extension headers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Payload {
    pub(super) protocol: u8,
    pub(super) is_later_fragment: bool,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Why a header could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// It lies.
    Lies,
    /// It was not kept.
    Cut,
}

/// A header that reaches up to `end` must lie within `bound`, and must have been kept.
pub(super) fn reaches(end: usize, bound: usize, kept: &[u8]) -> Result<(), Unread> {
    if end > bound {
        Err(Unread::Lies)
    } else if end > kept.len() {
        Err(Unread::Cut)
    } else {
        Ok(())
    }
}

/// Reads the IP header at `at`, of this version, in something that ends at `end` on the wire.
pub(super) fn payload_of(
    bytes: &[u8],
    at: usize,
    end: usize,
    is_ipv4: bool,
) -> Result<Payload, Unread> {
    if is_ipv4 { ipv4_payload(bytes, at, end) } else { ipv6_payload(bytes, at, end) }
}

fn ipv4_payload(bytes: &[u8], at: usize, end: usize) -> Result<Payload, Unread> {
    reaches(at + 20, end, bytes)?;
    let header_bytes = usize::from(bytes[at] % 16) * 4;
    let total_bytes = usize::from(u16_at(bytes, at + 2));
    let is_sound = bytes[at] / 16 == 4 && header_bytes >= 20 && total_bytes >= header_bytes;
    if !is_sound || at + total_bytes > end {
        return Err(Unread::Lies);
    }
    Ok(Payload {
        protocol: bytes[at + 9],
        is_later_fragment: u16_at(bytes, at + 6) & 0x1fff != 0,
        start: at + header_bytes,
        end: at + total_bytes,
    })
}

fn ipv6_payload(bytes: &[u8], at: usize, end: usize) -> Result<Payload, Unread> {
    reaches(at + 40, end, bytes)?;
    let packet_end = at + 40 + usize::from(u16_at(bytes, at + 4));
    if bytes[at] / 16 != 6 || packet_end > end {
        return Err(Unread::Lies);
    }
    let mut payload = Payload {
        protocol: bytes[at + 6],
        is_later_fragment: false,
        start: at + 40,
        end: packet_end,
    };
    let mut walked = 0;
    while is_walked(payload.protocol) && !payload.is_later_fragment {
        walked += 1;
        if walked > 8 {
            return Err(Unread::Lies);
        }
        reaches(payload.start + 8, packet_end, bytes)?;
        let is_fragment = payload.protocol == FRAGMENT;
        let length = if is_fragment { 0 } else { usize::from(bytes[payload.start + 1]) };
        payload.is_later_fragment = is_fragment && u16_at(bytes, payload.start + 2) / 8 != 0;
        payload.protocol = bytes[payload.start];
        payload.start += 8 * (length + 1);
        if payload.start > packet_end {
            return Err(Unread::Lies);
        }
    }
    Ok(payload)
}

impl Packet {
    pub(super) fn is_ipv4(&self) -> bool {
        self.bytes.len() >= IP && u16_at(&self.bytes, 12) == 0x0800
    }

    pub(super) fn is_ipv6(&self) -> bool {
        self.bytes.len() >= IP && u16_at(&self.bytes, 12) == 0x86dd
    }

    /// Whether the fixed part of its IP header is at hand.
    pub(super) fn has_header(&self) -> bool {
        self.is_ipv4() && self.bytes.len() >= IP + 20
            || self.is_ipv6() && self.bytes.len() >= IP + 40
    }

    /// Whether all its tags are at hand, of a frame that has some.
    pub(super) fn has_whole_tags(&self) -> bool {
        let mut at = 12;
        while is_tag(u16_at(&self.bytes, at)) {
            if self.bytes.len() < at + 6 {
                return false;
            }
            at += 4;
        }
        true
    }

    pub(super) fn source(&self) -> IpAddr {
        match self.is_ipv4() {
            true => ipv4_at(&self.bytes, IP + 12).into(),
            false => ipv6_at(&self.bytes, IP + 8).into(),
        }
    }

    pub(super) fn destination(&self) -> IpAddr {
        match self.is_ipv4() {
            true => ipv4_at(&self.bytes, IP + 16).into(),
            false => ipv6_at(&self.bytes, IP + 24).into(),
        }
    }

    /// Bytes from the IP header on, by what that says.
    pub(super) fn ip_bytes(&self) -> usize {
        match self.is_ipv4() {
            true => usize::from(u16_at(&self.bytes, IP + 2)),
            false => 40 + usize::from(u16_at(&self.bytes, IP + 4)),
        }
    }

    pub(super) fn payload(&self) -> Result<Payload, Unread> {
        let wire_bytes = self.wire_bytes.max(self.bytes.len());
        payload_of(&self.bytes, IP, wire_bytes, self.is_ipv4())
    }

    /// What it would be if the frame went on for ever behind its end.
    pub(super) fn payload_unbounded(&self) -> Result<Payload, Unread> {
        payload_of(&self.bytes, IP, usize::MAX / 2, self.is_ipv4())
    }

    /// Whether its IP header agrees with the frame.
    pub(super) fn is_sound(&self) -> bool {
        (self.is_ipv4() || self.is_ipv6()) && self.has_header() && self.payload().is_ok()
    }

    pub(super) fn hops(&self) -> u8 {
        self.bytes[IP + if self.is_ipv4() { 8 } else { 7 }]
    }

    pub(super) fn take_hop(&mut self) {
        if self.is_ipv4() {
            self.change_word(IP + 8, IP + 10, |word| word - 0x100);
        } else {
            self.bytes[IP + 7] -= 1;
        }
    }

    pub(super) fn mark(&mut self, dscp: u8) {
        match self.is_ipv4() {
            true => mark_ipv4(&mut self.bytes[IP..], dscp),
            false => mark_ipv6(&mut self.bytes[IP..], dscp),
        }
    }

    /// Changes a word that a checksum is over, and the checksum as little: one that was wrong stays as wrong.
    fn change_word(&mut self, at: usize, checksum_at: usize, change: impl Fn(u16) -> u16) {
        let before = u16_at(&self.bytes, at);
        let after = change(before);
        if before == after {
            return;
        }
        self.bytes[at..at + 2].copy_from_slice(&after.to_be_bytes());
        let checksum = u64::from(u16_at(&self.bytes, checksum_at));
        // As in mark_ipv4: a sum modulo 65535.
        let checksum = (checksum + u64::from(before) + 65535 - u64::from(after)) % 65535;
        self.bytes[checksum_at..checksum_at + 2].copy_from_slice(&(checksum as u16).to_be_bytes());
    }

    /// Lowers every maximum segment size that a SYN announces to what fits packets of `mtu_bytes`.
    pub(super) fn clamp(&mut self, mtu_bytes: usize) -> bool {
        let Ok(payload) = self.payload() else { return false };
        let tcp = payload.start;
        if payload.protocol != TCP || payload.is_later_fragment {
            return false;
        }
        if reaches(tcp + 20, payload.end, &self.bytes).is_err() {
            return false;
        }
        let options_end = tcp + usize::from(self.bytes[tcp + 12] / 16) * 4;
        let is_syn = self.bytes[tcp + 13] & 2 != 0;
        if !is_syn || options_end < tcp + 20 || options_end > payload.end {
            return false;
        }
        let options_end = options_end.min(self.bytes.len());
        let headers_bytes = if self.is_ipv4() { 40 } else { 60 };
        let mss_bytes = mtu_bytes.saturating_sub(headers_bytes).min(0xffff) as u16;
        let mut is_changed = false;
        let mut at = tcp + 20;
        while at < options_end {
            let kind = self.bytes[at];
            if kind == 0 {
                break;
            }
            if kind == 1 {
                at += 1;
                continue;
            }
            if at + 1 >= options_end {
                break;
            }
            let length = usize::from(self.bytes[at + 1]);
            if length < 2 || at + length > options_end {
                break;
            }
            if kind == 2 && length == 4 && u16_at(&self.bytes, at + 2) > mss_bytes {
                self.set_tcp_word(tcp, at + 2, mss_bytes);
                is_changed = true;
            }
            at += length;
        }
        is_changed
    }

    /// The same as [`Packet::change_word`] for a word that may begin at an odd place of the segment.
    fn set_tcp_word(&mut self, tcp: usize, at: usize, value: u16) {
        let segment = |bytes: &[u8]| {
            // Only what changes matters: the words around the value, aligned as the sum has them.
            let start = at - (at - tcp) % 2;
            let mut window = bytes[start..(start + 4).min(bytes.len())].to_vec();
            window.resize(4, 0);
            u64::from(internet_sum(&window))
        };
        let before = segment(&self.bytes);
        self.bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
        let after = segment(&self.bytes);
        let checksum = u64::from(u16_at(&self.bytes, tcp + 16));
        let checksum = (checksum + before + 65535 - after) % 65535;
        self.bytes[tcp + 16..tcp + 18].copy_from_slice(&(checksum as u16).to_be_bytes());
    }

    /// RFC 791 section 3.2: pieces of at most `mtu_bytes`, in order.
    pub(super) fn pieces(&self, mtu_bytes: usize) -> Result<Vec<Packet>, DropReason> {
        if !self.is_ipv4() {
            return Err(DropReason::TooBig);
        }
        let payload = self.payload().map_err(|unread| match unread {
            Unread::Lies => DropReason::Malformed,
            Unread::Cut => DropReason::Truncated,
        })?;
        if self.bytes.len() < payload.end {
            return Err(DropReason::Truncated);
        }
        let header = &self.bytes[IP..payload.start];
        let data = &self.bytes[payload.start..payload.end];
        let flags = u16_at(&self.bytes, IP + 6);
        if flags & 0x4000 != 0 {
            return Err(DropReason::TooBig);
        }
        let first_unit = usize::from(flags % 0x2000);
        if first_unit * 8 + data.len() > 65535 {
            return Err(DropReason::Malformed);
        }
        if mtu_bytes < header.len() + 8 {
            return Err(DropReason::TooBig);
        }
        let mut pieces = Vec::new();
        let mut done = 0;
        while done < data.len() || pieces.is_empty() {
            let header = if pieces.is_empty() { header.to_vec() } else { header_of_later(header) };
            let room = mtu_bytes - header.len();
            let is_last = data.len() - done <= room;
            let count = if is_last { data.len() - done } else { room / 8 * 8 };
            let more = !is_last || flags & 0x2000 != 0;
            let field = flags & 0x8000 | u16::from(more) << 13 | (first_unit + done / 8) as u16;
            let mut piece = [&self.bytes[..IP], &header, &data[done..done + count]].concat();
            let total_bytes = (header.len() + count) as u16;
            piece[IP + 2..IP + 4].copy_from_slice(&total_bytes.to_be_bytes());
            piece[IP + 6..IP + 8].copy_from_slice(&field.to_be_bytes());
            piece[IP + 10..IP + 12].fill(0);
            let checksum = checksum_over(&piece[IP..IP + header.len()]);
            piece[IP + 10..IP + 12].copy_from_slice(&checksum.to_be_bytes());
            let wire_bytes = piece.len();
            pieces.push(Packet { bytes: piece, wire_bytes });
            done += count;
        }
        Ok(pieces)
    }

    /// ICMP unreachable, time exceeded or parameter problem, or one of ICMPv6's four errors, to the end of a tunnel.
    pub(super) fn is_icmp_error_to(&self, tunnels: &[Tunnel]) -> bool {
        if !self.has_header() {
            return false;
        }
        let destination = self.destination();
        if !tunnels.iter().any(|tunnel| tunnel.local == destination) {
            return false;
        }
        let ihl_bytes = usize::from(self.bytes[IP] % 16) * 4;
        // The version is the header's own word here, whatever the EtherType says.
        if self.bytes[IP] / 16 == 4 {
            let kind = self.bytes.get(IP + ihl_bytes);
            self.bytes[IP + 9] == 1 && matches!(kind, Some(3 | 11 | 12))
        } else {
            let kind = self.bytes.get(IP + 40);
            self.bytes[IP + 6] == 58 && matches!(kind, Some(1..=4))
        }
    }
}

/// Only options whose copied flag is set; anything that makes no sense ends the list.
fn header_of_later(header: &[u8]) -> Vec<u8> {
    let mut later = header[..20].to_vec();
    let mut at = 20;
    while at < header.len() && header[at] != 0 {
        let length = match header[at] {
            1 => 1,
            _ if at + 1 < header.len() => usize::from(header[at + 1]),
            _ => 0,
        };
        if length == 0 || header[at] != 1 && length < 2 || at + length > header.len() {
            break;
        }
        if header[at] >= 0x80 {
            later.extend(&header[at..at + length]);
        }
        at += length;
    }
    later.resize(later.len().next_multiple_of(4), 0);
    later[0] = 0x40 + (later.len() / 4) as u8;
    later
}
