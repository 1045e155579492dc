//! Fragmentation of an inner IPv4 packet that does not fit its lane and allows it (RFC 791 section 3.2), before
//! it is encapsulated: the peer then forwards fragments and need not reassemble anything.
//!
//! ```text
//!   Ethernet | IPv4 with all options       | data, a multiple of 8 bytes | more fragments
//!   Ethernet | IPv4 with copied options    | data, a multiple of 8 bytes | more fragments
//!   Ethernet | IPv4 with copied options    | the rest                    | as the packet had it
//! ```
//!
//! The identification stays: its sender, who left DF clear, chose it for this (RFC 6864 section 4.2). A packet
//! that is a fragment already is cut into smaller ones of the same datagram. IPv6 is never fragmented by a
//! router (RFC 8200 section 5).

use crate::wire::window::{Unparsed, Window};
use crate::wire::{checksum, ethernet, ipv4};

const IP: usize = ethernet::HEADER_BYTES;
const HEADER_BYTES_MAX: usize = 60;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
/// Fragments start at multiples of this many bytes.
const UNIT_BYTES: usize = 8;

/// Why a packet cannot be fragmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not IPv4, or lengths that contradict each other.
    Malformed,
    /// A capture record that did not keep all of it.
    Truncated,
    /// Its sender forbids it.
    DontFragment,
    /// The largest packet allowed has no room for a header and 8 bytes of data.
    TooSmall,
}

/// A packet that is being cut up. It borrows the frame and copies out of it.
#[derive(Debug)]
pub struct Fragments<'a> {
    link: &'a [u8; IP],
    /// Of the fragment that is written next, with all that the first or the later ones have in common.
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    /// The header of later fragments: only options that are copied.
    later: [u8; HEADER_BYTES_MAX],
    later_bytes: usize,
    /// What has not been written yet.
    data: &'a [u8],
    /// Where that starts in its datagram.
    offset_units: u16,
    /// Whether the packet's own last byte is not the datagram's.
    more_follow: bool,
    mtu_bytes: usize,
}

impl<'a> Fragments<'a> {
    /// Cuts the untagged frame's IPv4 packet into packets of at most `mtu_bytes`, IP header included. One that
    /// fits stays whole.
    pub fn new(frame: &'a [u8], wire_bytes: usize, mtu_bytes: usize) -> Result<Self, Refusal> {
        let window = Window::new(frame, wire_bytes);
        let link = window.header::<IP>(0, window.end())?;
        let parsed = ipv4::parse(&window, IP)?;
        let packet = window.bytes(IP, parsed.payload_end)?;
        let (bytes, data) = packet.split_at(parsed.payload_offset - IP);
        let field = u16::from_be_bytes([bytes[6], bytes[7]]);
        let fits = packet.len() <= mtu_bytes;
        if !fits && field & DONT_FRAGMENT != 0 {
            return Err(Refusal::DontFragment);
        }
        let offset_units = field & OFFSET;
        // The last unit must still have an offset that can be written: otherwise the packet lies.
        if usize::from(offset_units) * UNIT_BYTES + data.len() > 0xffff {
            return Err(Refusal::Malformed);
        }
        if !fits && mtu_bytes < bytes.len() + UNIT_BYTES {
            return Err(Refusal::TooSmall);
        }
        let mut header = [0; HEADER_BYTES_MAX];
        header[..bytes.len()].copy_from_slice(bytes);
        let (later, later_bytes) = later_header(bytes);
        Ok(Fragments {
            link,
            header,
            header_bytes: bytes.len(),
            later,
            later_bytes,
            data,
            offset_units,
            more_follow: field & MORE_FRAGMENTS != 0,
            mtu_bytes,
        })
    }

    /// Writes the next fragment as a frame into `into`, with the MAC addresses of the original. Returns its
    /// bytes, or none when the last one was written.
    ///
    /// # Panics
    ///
    /// When `into` has not the bytes of an Ethernet header and the MTU.
    pub fn write_next(&mut self, into: &mut [u8]) -> Option<usize> {
        if self.header_bytes == 0 {
            return None;
        }
        let room = self.mtu_bytes - self.header_bytes;
        let is_last = self.data.len() <= room;
        let count = if is_last { self.data.len() } else { room - room % UNIT_BYTES };
        let (data, rest) = self.data.split_at(count);
        let header = &mut self.header[..self.header_bytes];
        let kept = u16::from_be_bytes([header[6], header[7]]) & !(MORE_FRAGMENTS | OFFSET);
        let more = if is_last && !self.more_follow { 0 } else { MORE_FRAGMENTS };
        let total_bytes = (header.len() + count) as u16;
        header[2..4].copy_from_slice(&total_bytes.to_be_bytes());
        header[6..8].copy_from_slice(&(kept | more | self.offset_units).to_be_bytes());
        header[10..12].fill(0);
        let sum = checksum::sum(header);
        header[10..12].copy_from_slice(&(!sum).to_be_bytes());
        let length = IP + usize::from(total_bytes);
        let data_offset = IP + header.len();
        into[..IP].copy_from_slice(self.link);
        into[IP..data_offset].copy_from_slice(header);
        into[data_offset..length].copy_from_slice(data);
        self.data = rest;
        self.offset_units += (count / UNIT_BYTES) as u16;
        self.header = self.later;
        self.header_bytes = if is_last { 0 } else { self.later_bytes };
        Some(length)
    }
}

impl From<Unparsed> for Refusal {
    fn from(unparsed: Unparsed) -> Self {
        match unparsed {
            Unparsed::Truncated => Refusal::Truncated,
            Unparsed::Malformed | Unparsed::NonIp | Unparsed::NonTcp => Refusal::Malformed,
        }
    }
}

/// The header with only those options whose copied flag is set, padded to whole words with ends of options.
fn later_header(header: &[u8]) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut later = [0; HEADER_BYTES_MAX];
    later[..ipv4::HEADER_BYTES].copy_from_slice(&header[..ipv4::HEADER_BYTES]);
    let mut end = ipv4::HEADER_BYTES;
    let mut rest = &header[ipv4::HEADER_BYTES..];
    while let Some(bytes) = option_bytes(rest) {
        let (option, behind) = rest.split_at(bytes);
        if option[0] & 0x80 != 0 {
            later[end..end + bytes].copy_from_slice(option);
            end += bytes;
        }
        rest = behind;
    }
    let end = end.next_multiple_of(4);
    later[0] = 0x40 | (end / 4) as u8;
    (later, end)
}

/// Bytes of the option that the list starts with; none at its end, or where it makes no sense any more.
fn option_bytes(options: &[u8]) -> Option<usize> {
    match options {
        [] | [0, ..] => None,
        [1, ..] => Some(1),
        [_, length, ..] => {
            Some(usize::from(*length)).filter(|&bytes| bytes >= 2 && bytes <= options.len())
        }
        [_] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpFragOffset, IpNumber, Ipv4Header, defrag::IpDefragPool};

    fn frame(header: &Ipv4Header, data: &[u8]) -> Vec<u8> {
        let mut frame = [&[2; 12][..], &[8, 0]].concat();
        header.write(&mut frame).expect("a header");
        frame.extend_from_slice(data);
        frame
    }

    fn header(data: &[u8]) -> Ipv4Header {
        let mut header =
            Ipv4Header::new(data.len() as u16, 60, IpNumber::UDP, [10, 0, 0, 1], [10, 1, 0, 1])
                .expect("a header");
        header.identification = 4711;
        header.dont_fragment = false;
        header
    }

    fn data(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|n| (n * 7 + n / 251) as u8).collect()
    }

    fn cut(frame: &[u8], mtu_bytes: usize) -> Result<Vec<Vec<u8>>, Refusal> {
        let mut fragments = Fragments::new(frame, frame.len(), mtu_bytes)?;
        let mut written = Vec::new();
        let mut into = vec![0xee; IP + mtu_bytes.max(frame.len())];
        while let Some(length) = fragments.write_next(&mut into) {
            written.push(into[..length].to_vec());
        }
        Ok(written)
    }

    /// The data, as etherparse puts it together, after it has checked every header.
    fn reassembled(fragments: &[Vec<u8>], mtu_bytes: usize) -> Vec<u8> {
        let mut pool = IpDefragPool::<(), ()>::new();
        let mut whole = None;
        for fragment in fragments {
            assert!(whole.is_none(), "complete before the last");
            assert!(fragment.len() <= IP + mtu_bytes);
            assert_eq!(fragment[..IP], [&[2; 12][..], &[8, 0]].concat());
            let (header, _) = Ipv4Header::from_slice(&fragment[IP..]).expect("a header");
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!((header.identification, header.time_to_live), (4711, 60));
            let packet = etherparse::SlicedPacket::from_ethernet(fragment).expect("a frame");
            if let Some(payload) = pool.process_sliced_packet(&packet, (), ()).expect("in order") {
                whole = Some(payload.payload);
            }
        }
        whole.expect("all of it")
    }

    #[test]
    fn etherparse_puts_every_packet_together_again() {
        for bytes in [9, 100, 1376, 1377, 1481, 4000, 9000] {
            for mtu_bytes in [28, 68, 576, 1280, 1400, 1401, 1407] {
                let data = data(bytes);
                if data.len() + 20 <= mtu_bytes {
                    continue;
                }
                let fragments = cut(&frame(&header(&data), &data), mtu_bytes).expect("fragments");
                assert!(reassembled(&fragments, mtu_bytes) == data, "{bytes} in {mtu_bytes}");
            }
        }
    }

    #[test]
    fn one_that_fits_stays_whole_even_with_df() {
        let data = data(100);
        let mut header = header(&data);
        header.dont_fragment = true;
        let mut whole = frame(&header, &data);
        assert_eq!(cut(&whole, 120), Ok(vec![whole.clone()]));
        assert_eq!(cut(&whole, 119), Err(Refusal::DontFragment));
        let without_padding = whole.clone();
        whole.extend([0; 20]);
        assert_eq!(cut(&whole, 120), Ok(vec![without_padding]));
    }

    #[test]
    fn a_fragment_of_a_fragment_keeps_its_place_and_who_follows() {
        let data = data(3000);
        for (more, bytes) in [(true, 1480), (false, 1487)] {
            let mut later = header(&data[..bytes]);
            later.more_fragments = more;
            later.fragment_offset = IpFragOffset::try_new(185).expect("an offset");
            let fragments = cut(&frame(&later, &data[..bytes]), 576).expect("fragments");
            let headers: Vec<Ipv4Header> = fragments
                .iter()
                .map(|frame| Ipv4Header::from_slice(&frame[IP..]).expect("a header").0)
                .collect();
            let offsets: Vec<u16> = headers.iter().map(|h| h.fragment_offset.value()).collect();
            assert_eq!(offsets, [185, 185 + 69, 185 + 138]);
            let flags: Vec<bool> = headers.iter().map(|h| h.more_fragments).collect();
            assert_eq!(flags, [true, true, more]);
            let cut_data: Vec<u8> =
                fragments.iter().flat_map(|frame| frame[IP + 20..].to_vec()).collect();
            assert_eq!(cut_data, data[..bytes]);
        }
    }

    #[test]
    fn options_go_where_their_copied_flag_says() {
        let data = data(2000);
        let mut header = header(&data);
        // No operation, record route (not copied), router alert (copied), timestamp (not copied), end.
        let options = [1, 7, 3, 4, 0x94, 4, 0, 0, 0x44, 4, 5, 0, 0, 0, 0, 0];
        header.options = options[..].try_into().expect("options");
        header.total_len += options.len() as u16;
        let fragments = cut(&frame(&header, &data), 576).expect("fragments");
        let found: Vec<Vec<u8>> = fragments
            .iter()
            .map(|frame| Ipv4Header::from_slice(&frame[IP..]).expect("a header").0.options.to_vec())
            .collect();
        assert_eq!(found[0], options);
        assert!(found[1..].iter().all(|options| options[..] == [0x94, 4, 0, 0]), "{found:?}");
        assert!(reassembled(&fragments, 576) == data);
    }

    #[test]
    fn garbage_among_the_options_ends_the_copying() {
        let data = data(2000);
        for garbage in [[0x94, 0, 0, 0], [0x94, 1, 0, 0], [0x94, 9, 0, 0], [1, 1, 1, 0x94]] {
            let mut header = header(&data);
            header.options = garbage[..].try_into().expect("options");
            header.total_len += garbage.len() as u16;
            let fragments = cut(&frame(&header, &data), 576).expect("fragments");
            assert_eq!(fragments[1][IP], 0x45);
            assert!(reassembled(&fragments, 576) == data);
        }
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        let data = data(2000);
        let whole = frame(&header(&data), &data);
        assert_eq!(cut(&whole, 27), Err(Refusal::TooSmall));
        assert_eq!(cut(&whole[..1000], 576), Err(Refusal::Malformed));
        let cut_record = Fragments::new(&whole[..1000], whole.len(), 576);
        assert_eq!(cut_record.err(), Some(Refusal::Truncated));
        let mut past_the_end = header(&data);
        past_the_end.fragment_offset = IpFragOffset::try_new(0x1fff).expect("an offset");
        assert_eq!(cut(&frame(&past_the_end, &data), 576), Err(Refusal::Malformed));
        let mut ipv6 = whole;
        ipv6[IP] = 0x60;
        assert_eq!(cut(&ipv6, 576), Err(Refusal::Malformed));
    }

    #[test]
    fn no_bytes_make_it_panic_or_lose_data() {
        let data = data(200);
        let mut header = header(&data);
        header.options = [1, 0x94, 4, 0, 0, 0x44, 3, 0].into();
        header.total_len += 8;
        let whole = frame(&header, &data);
        for at in 0..IP + 28 {
            for value in 0..=255 {
                let mut mutated = whole.clone();
                mutated[at] = value;
                let Ok(fragments) = cut(&mutated, 76) else { continue };
                let header_bytes = |frame: &[u8]| usize::from(frame[IP] & 15) * 4;
                let cut_data = fragments.iter().flat_map(|f| f[IP + header_bytes(f)..].to_vec());
                let total = usize::from(u16::from_be_bytes([mutated[16], mutated[17]]));
                let expected = &mutated[IP + header_bytes(&mutated)..IP + total];
                assert!(cut_data.eq(expected.iter().copied()), "{at} {value}");
            }
        }
    }
}
