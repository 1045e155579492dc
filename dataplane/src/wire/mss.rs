//! The maximum segment size that a TCP peer announces (RFC 9293 section 3.7.1), lowered on its way to what
//! fits.
//!
//! It is only ever lowered, and an option that is not there is not put in: its sender then counts on 536
//! bytes over IPv4 and 1220 over IPv6, which fit every lane that is allowed.

use super::frame::Version;
use super::window::Window;
use super::{checksum, ipv4, ipv6, tcp};

const SYN: u8 = 0x02;
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const MSS_OPTION_BYTES: usize = 4;

/// Largest segment for packets of `mtu_bytes`: what is left behind both fixed headers. IP and TCP options are
/// for the sender to subtract (RFC 6691 section 2).
pub fn fitting(mtu_bytes: u16, version: Version) -> u16 {
    let headers = tcp::HEADER_BYTES
        + match version {
            Version::V4 => ipv4::HEADER_BYTES,
            Version::V6 => ipv6::HEADER_BYTES,
        };
    mtu_bytes.saturating_sub(headers as u16)
}

/// Lowers what a SYN, with or without ACK, announces to what fits packets of `mtu_bytes`. The IP header is at
/// `ip_offset`; `wire_bytes` were on the wire. True when the segment was changed; everything that is not such
/// a segment is left alone.
#[inline]
pub fn clamp(frame: &mut [u8], wire_bytes: usize, ip_offset: usize, mtu_bytes: u16) -> bool {
    let Some((version, start, end)) = segment(frame, wire_bytes, ip_offset) else {
        return false;
    };
    let end = end.min(frame.len());
    clamp_segment(&mut frame[start..end], fitting(mtu_bytes, version))
}

/// Where the TCP header is that the IP packet starts with, and where the segment ends on the wire.
#[inline(always)]
fn segment(frame: &[u8], wire_bytes: usize, ip_offset: usize) -> Option<(Version, usize, usize)> {
    let window = Window::new(frame, wire_bytes);
    let (version, protocol, is_later, start, end) = if frame.get(ip_offset)? >> 4 == 4 {
        let header = ipv4::parse(&window, ip_offset).ok()?;
        let (start, end) = (header.payload_offset, header.payload_end);
        (Version::V4, header.protocol, header.later_fragment, start, end)
    } else {
        let header = ipv6::parse(&window, ip_offset).ok()?;
        let (start, end) = (header.payload_offset, header.payload_end);
        (Version::V6, header.protocol, header.later_fragment, start, end)
    };
    if protocol != tcp::PROTOCOL || is_later {
        return None;
    }
    tcp::parse(&window, start, end).ok()?;
    Some((version, start, end))
}

/// The same for a segment whose fixed header is there and whose data offset was checked.
#[inline(always)]
fn clamp_segment(segment: &mut [u8], mss_bytes_max: u16) -> bool {
    if segment[13] & SYN == 0 {
        return false;
    }
    let end = (usize::from(segment[12] >> 4) * 4).min(segment.len());
    clamp_options(segment, end, mss_bytes_max)
}

/// Walks the options, of which a capture may not have kept all. One that cannot be, ends the walk.
fn clamp_options(segment: &mut [u8], end: usize, mss_bytes_max: u16) -> bool {
    let mut is_changed = false;
    let mut at = tcp::HEADER_BYTES;
    while at < end {
        match segment[at] {
            END_OF_OPTIONS => break,
            NO_OPERATION => at += 1,
            kind => {
                let Some(&length) = segment[..end].get(at + 1) else { break };
                let length = usize::from(length);
                if length < 2 || at + length > end {
                    break;
                }
                if kind == MSS && length == MSS_OPTION_BYTES {
                    is_changed |= lower(segment, at + 2, mss_bytes_max);
                }
                at += length;
            }
        }
    }
    is_changed
}

/// The value at `at`, and the checksum. A value that starts at an odd place lies across two words of the sum,
/// to which it adds as if its two bytes were swapped (RFC 1071 section 2(B)).
fn lower(segment: &mut [u8], at: usize, mss_bytes_max: u16) -> bool {
    let old = u16::from_be_bytes([segment[at], segment[at + 1]]);
    if old <= mss_bytes_max {
        return false;
    }
    segment[at..at + 2].copy_from_slice(&mss_bytes_max.to_be_bytes());
    let sum = u16::from_be_bytes([segment[16], segment[17]]);
    let (old, new) = if at.is_multiple_of(2) {
        (old, mss_bytes_max)
    } else {
        (old.swap_bytes(), mss_bytes_max.swap_bytes())
    };
    segment[16..18].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice};

    /// A segment built by etherparse, with these raw options.
    fn frame(version: Version, syn: bool, ack: bool, options: &[u8]) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([1; 6], [2; 6]);
        let ip = match version {
            Version::V4 => ethernet.ipv4([10, 0, 0, 1], [10, 1, 0, 1], 64),
            Version::V6 => ethernet.ipv6([1; 16], [2; 16], 64),
        };
        let mut tcp = ip.tcp(40000, 443, 7, 65535);
        if syn {
            tcp = tcp.syn();
        }
        if ack {
            tcp = tcp.ack(9);
        }
        let tcp = tcp.options_raw(options).expect("options");
        let mut frame = Vec::new();
        tcp.write(&mut frame, b"early data").expect("a frame");
        frame
    }

    fn clamped(frame: &[u8], mtu_bytes: u16) -> Option<Vec<u8>> {
        let mut copy = frame.to_vec();
        let wire_bytes = copy.len();
        clamp(&mut copy, wire_bytes, 14, mtu_bytes).then_some(copy)
    }

    /// What etherparse reads, with the checksum judged by it.
    fn announced(frame: &[u8]) -> (Option<u16>, bool) {
        let packet = SlicedPacket::from_ethernet(frame).expect("a frame");
        let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { panic!("TCP") };
        let mss = tcp.options_iterator().find_map(|option| match option {
            Ok(TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
            _ => None,
        });
        let header = tcp.to_header();
        let sum = match packet.net.as_ref().expect("IP") {
            etherparse::NetSlice::Ipv4(ip) => {
                header.calc_checksum_ipv4(&ip.header().to_header(), tcp.payload())
            }
            etherparse::NetSlice::Ipv6(ip) => {
                header.calc_checksum_ipv6(&ip.header().to_header(), tcp.payload())
            }
            _ => panic!("IP"),
        };
        (mss, sum.expect("a sum") == header.checksum)
    }

    #[test]
    fn a_larger_one_is_lowered_in_syn_and_syn_ack_of_both_versions() {
        for (version, expected) in [(Version::V4, 1436 - 40), (Version::V6, 1436 - 60)] {
            for ack in [false, true] {
                let before = frame(version, true, ack, &[2, 4, 0x05, 0xb4, 1, 1, 4, 2]);
                let after = clamped(&before, 1436).expect("it is lowered");
                assert_eq!(announced(&after), (Some(expected), true));
            }
        }
    }

    #[test]
    fn it_is_found_at_odd_places_too() {
        for padding in 0..4 {
            let mut options = vec![1; padding];
            options.extend([2, 4, 0x23, 0x05]);
            let before = frame(Version::V4, true, false, &options);
            let after = clamped(&before, 1400).expect("it is lowered");
            assert_eq!(announced(&after), (Some(1360), true), "{padding}");
        }
    }

    #[test]
    fn smaller_ones_and_absent_ones_and_other_segments_are_left_alone() {
        let small = frame(Version::V4, true, false, &[2, 4, 0x02, 0x18]);
        let without = frame(Version::V4, true, false, &[1, 1, 4, 2]);
        let data = frame(Version::V4, false, true, &[2, 4, 0x05, 0xb4]);
        for before in [small, without, data] {
            assert_eq!(clamped(&before, 1400), None);
        }
        let exact = frame(Version::V4, true, false, &[2, 4, 0x05, 0x50]);
        assert_eq!(clamped(&exact, 1400), None);
    }

    #[test]
    fn garbage_among_the_options_ends_the_walk_and_harms_nothing() {
        let mss = [2, 4, 0x05, 0xb4];
        // Length 0, length 1, past the end, end of options: what is behind is not looked at.
        for garbage in [[9, 0, 0, 0], [9, 1, 0, 0], [9, 200, 0, 0], [0, 0, 0, 0]] {
            let before = frame(Version::V4, true, false, &[garbage, mss].concat());
            assert_eq!(clamped(&before, 1400), None, "{garbage:?}");
        }
        let wrong_length = frame(Version::V4, true, false, &[2, 3, 0xff, 2, 4, 0x05, 0xb4, 0]);
        let after = clamped(&wrong_length, 1400).expect("the right one is found behind the wrong");
        assert_eq!(after[14 + 40 + 5..14 + 40 + 7], [0x05, 0x50]);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = frame(Version::V4, true, false, &[2, 4, 0x05, 0xb4, 1, 1, 4, 2]);
        for length in 0..whole.len() {
            for wire_bytes in [length, whole.len()] {
                clamp(&mut whole[..length].to_vec(), wire_bytes, 14, 1400);
            }
            for value in 0..=255 {
                let mut mutated = whole.clone();
                mutated[length] = value;
                clamp(&mut mutated, whole.len(), 14, 1400);
            }
        }
    }
}
