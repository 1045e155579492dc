//! Frames: written byte by byte into one buffer, then perhaps damaged.

mod damage;

use super::Random;
use super::flows::Tuple;

const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

const TAG_TYPES: [u16; 3] = [0x8100, 0x88a8, 0x9100];

/// Protocols that are not TCP. Authentication (51), HIP (139), mobility (135) and Shim6 (140) headers
/// could be walked and are not; 59 is "no next header".
const OTHER_PROTOCOLS: [u8; 18] =
    [1, 2, 4, 5, 7, 17, 41, 47, 50, 51, 58, 59, 89, 132, 135, 139, 140, 255];
/// In IPv4 these are protocols like any other.
const IPV6_EXTENSIONS: [u8; 4] = [HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS];

/// Most bytes of a frame that are written; what is longer on the wire is not kept.
const CAPACITY: usize = 1024;

/// Whether a packet is a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fragment {
    No,
    First,
    Later,
}

/// The first fragment of a datagram.
#[derive(Debug, Clone, Copy)]
struct First {
    tuple: Tuple,
    identification: u32,
    /// What an IPv6 fragment header says comes next.
    next: u8,
}

/// Most first fragments that later ones may follow.
const FIRSTS_MAX: usize = 128;

/// Where things are in the frame just built; zero where they are not.
#[derive(Debug, Default)]
struct Places {
    ip: usize,
    /// Length octets of extension headers.
    extension_lengths: [usize; 9],
    extensions: usize,
    tcp: usize,
    /// End of the IP packet, where padding begins.
    end: usize,
}

/// Builds one frame after the other in one buffer.
#[derive(Debug)]
pub(super) struct Builder {
    bytes: Vec<u8>,
    places: Places,
    wire_bytes: u32,
    well_formed: bool,
    dscps: [u8; 2],
    /// First fragments of late, overwritten in turn.
    firsts: Vec<First>,
    firsts_count: usize,
    /// What the fragment being built has in common with its siblings.
    identification: u32,
    next: u8,
    /// The IP payload ends within the TCP header.
    is_tiny: bool,
    /// What payloads are made of.
    noise: [u8; 256],
}

impl Builder {
    pub(super) fn new(random: &mut Random, dscps: [u8; 2]) -> Self {
        let mut noise = [0; 256];
        noise.fill_with(|| random.byte());
        Builder {
            bytes: Vec::with_capacity(CAPACITY),
            places: Places::default(),
            wire_bytes: 0,
            well_formed: true,
            dscps,
            firsts: Vec::with_capacity(FIRSTS_MAX),
            firsts_count: 0,
            identification: 0,
            next: TCP,
            is_tiny: false,
            noise,
        }
    }

    /// The frame just built, as far as it was kept.
    pub(super) fn kept(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn wire_bytes(&self) -> u32 {
        self.wire_bytes
    }

    pub(super) fn is_well_formed(&self) -> bool {
        self.well_formed
    }

    /// A frame that has to do with this flow, or with none, and may be damaged.
    pub(super) fn anything(&mut self, random: &mut Random, tuple: &Tuple) {
        match random.below(200) {
            0..150 => self.packet(random, tuple),
            150..165 => self.first_fragment(random, tuple),
            165..180 => self.later_fragment(random, tuple),
            180..190 => self.not_tcp(random, tuple),
            190..196 => self.not_ip(random, tuple),
            196..198 => self.runt(random),
            _ => self.garbage(random),
        }
        self.damage(random);
    }

    /// A packet of this flow, not a fragment, without fault.
    pub(super) fn packet(&mut self, random: &mut Random, tuple: &Tuple) {
        self.ip(random, tuple, TCP, Fragment::No);
    }

    /// A first fragment of this flow, which may be too small.
    fn first_fragment(&mut self, random: &mut Random, tuple: &Tuple) {
        self.is_tiny = random.one_in(8);
        self.whole_first_fragment(random, tuple);
        self.is_tiny = false;
    }

    /// A first fragment of this flow without fault.
    pub(super) fn whole_first_fragment(&mut self, random: &mut Random, tuple: &Tuple) {
        self.identification = identification(random);
        self.ip(random, tuple, TCP, Fragment::First);
        self.note_first(tuple);
    }

    fn note_first(&mut self, tuple: &Tuple) {
        let first = First { tuple: *tuple, identification: self.identification, next: self.next };
        if self.firsts.len() < FIRSTS_MAX {
            self.firsts.push(first);
        } else {
            self.firsts[self.firsts_count % FIRSTS_MAX] = first;
        }
        self.firsts_count += 1;
    }

    /// A later fragment of any datagram begun of late, or of one that this flow never began.
    fn later_fragment(&mut self, random: &mut Random, tuple: &Tuple) {
        if self.firsts.is_empty() || random.one_in(4) {
            self.identification = identification(random);
            self.next = if random.one_in(2) { TCP } else { random.pick(&IPV6_EXTENSIONS) };
            self.ip(random, tuple, TCP, Fragment::Later);
        } else {
            // The latest most often.
            let length = self.firsts.len();
            let back = 1 + random.index(length).min(random.index(length));
            let first = self.firsts[(self.firsts_count - back) % FIRSTS_MAX];
            self.follow(random, first);
        }
    }

    /// A later fragment of a datagram this flow began of late, if it did.
    pub(super) fn later_fragment_of(&mut self, random: &mut Random, tuple: &Tuple) {
        match self.firsts.iter().find(|first| first.tuple == *tuple) {
            Some(&first) => self.follow(random, first),
            None => self.later_fragment(random, tuple),
        }
    }

    fn follow(&mut self, random: &mut Random, first: First) {
        self.identification = first.identification;
        self.next = first.next;
        self.ip(random, &first.tuple, TCP, Fragment::Later);
    }

    fn not_tcp(&mut self, random: &mut Random, tuple: &Tuple) {
        let protocol = if !tuple.is_ipv6 && random.one_in(4) {
            random.pick(&IPV6_EXTENSIONS)
        } else {
            random.pick(&OTHER_PROTOCOLS)
        };
        self.identification = identification(random);
        self.next = protocol;
        let fragment = match random.below(4) {
            0 => Fragment::First,
            1 => Fragment::Later,
            _ => Fragment::No,
        };
        self.ip(random, tuple, protocol, fragment);
    }

    /// ARP, a length instead of a type, any other type, or too many tags.
    fn not_ip(&mut self, random: &mut Random, tuple: &Tuple) {
        if random.one_in(3) {
            self.packet(random, tuple);
            while tags_of(&self.bytes) < 3 {
                self.insert_tag(random);
            }
            self.finish(random);
            return;
        }
        self.begin();
        let ether_type = match random.below(4) {
            0 => 0x0806,
            1 => random.below(1536) as u16,
            2 => random.pick(&[0x0801, 0x0008, 0xdd86, 0x8847, 0x8863, 0x88cc, 0x88e5, 0x9200]),
            // Any, but not one that has a meaning to a flow.
            _ => random.word() | 0x00ff,
        };
        self.ethernet(random, tuple.vlans, ether_type);
        self.noise(random, 64);
        self.finish(random);
    }

    /// Puts one more tag outside all others.
    fn insert_tag(&mut self, random: &mut Random) {
        let control = random.word().to_be_bytes();
        let tag_type = random.pick(&TAG_TYPES).to_be_bytes();
        let tag = [tag_type[0], tag_type[1], control[0], control[1]];
        self.bytes.splice(12..12, tag);
        self.places.ip += 4;
        self.places.end += 4;
        if self.places.tcp != 0 {
            self.places.tcp += 4;
        }
        for place in &mut self.places.extension_lengths {
            *place += 4;
        }
    }

    /// Shorter than an Ethernet header.
    fn runt(&mut self, random: &mut Random) {
        self.begin();
        self.noise(random, 13);
        self.finish(random);
        self.well_formed = false;
    }

    /// Only the EtherType makes sense.
    fn garbage(&mut self, random: &mut Random) {
        self.begin();
        let ether_type = random.pick(&[0x0800, 0x86dd, 0x8100, 0x88a8, 0x9100]);
        self.ethernet(random, &[], ether_type);
        for _ in 0..random.index(12) {
            let bits = random.bits();
            self.bytes.extend(bits.to_be_bytes());
        }
        if self.bytes.len() > 14 && random.one_in(2) {
            let version = if ether_type == 0x86dd { 0x60 } else { 0x45 };
            self.bytes[14] = version;
        }
        self.finish(random);
        self.well_formed = false;
    }

    // From here on, well-formed frames, layer by layer.

    fn begin(&mut self) {
        self.bytes.clear();
        self.places = Places::default();
        self.well_formed = true;
    }

    fn finish(&mut self, random: &mut Random) {
        self.places.end = self.bytes.len();
        if random.one_in(3) {
            // Up to the least that Ethernet carries, or a little more than there is.
            if self.bytes.len() < 60 && self.bytes.len() >= 14 {
                self.bytes.resize(60, 0);
            } else if self.bytes.len() >= 14 {
                self.noise(random, 12);
            }
        }
        self.wire_bytes = self.bytes.len() as u32;
    }

    fn word(&mut self, word: u16) {
        self.bytes.extend_from_slice(&word.to_be_bytes());
    }

    fn set_word(&mut self, at: usize, word: u16) {
        self.bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
    }

    fn word_at(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    /// Up to `bytes_max` bytes of no meaning.
    fn noise(&mut self, random: &mut Random, bytes_max: usize) {
        let length = random.index(bytes_max + 1);
        self.noise_of(random, length);
    }

    fn noise_of(&mut self, random: &mut Random, length: usize) {
        let start = random.index(self.noise.len() - length);
        self.bytes.extend_from_slice(&self.noise[start..start + length]);
    }

    fn ethernet(&mut self, random: &mut Random, vlans: &[u16], ether_type: u16) {
        self.noise_of(random, 12);
        for vlan in vlans {
            let tag_type = random.pick(&TAG_TYPES);
            self.word(tag_type);
            // Priority and drop eligibility belong to the packet, not to the flow.
            self.word(vlan | (random.word() & 0xf000));
        }
        self.word(ether_type);
    }

    fn ip(&mut self, random: &mut Random, tuple: &Tuple, protocol: u8, fragment: Fragment) {
        self.begin();
        self.ethernet(random, tuple.vlans, if tuple.is_ipv6 { 0x86dd } else { 0x0800 });
        self.places.ip = self.bytes.len();
        if tuple.is_ipv6 {
            self.ipv6(random, tuple, protocol, fragment);
        } else {
            self.ipv4(random, tuple, protocol, fragment);
        }
        self.finish(random);
    }

    fn type_of_service(&mut self, random: &mut Random) -> u8 {
        if random.one_in(8) {
            // Marked already.
            random.pick(&self.dscps) << 2 | random.below(4) as u8
        } else {
            random.byte()
        }
    }

    fn ipv4(&mut self, random: &mut Random, tuple: &Tuple, protocol: u8, fragment: Fragment) {
        let ip = self.places.ip;
        let options_words = if random.one_in(5) { 1 + random.index(10) } else { 0 };
        let type_of_service = self.type_of_service(random);
        self.bytes.push(0x45 + options_words as u8);
        self.bytes.push(type_of_service);
        self.word(0);
        let identification = match fragment {
            Fragment::No => identification(random),
            Fragment::First | Fragment::Later => self.identification,
        };
        self.word(identification as u16);
        let flags_and_offset = match fragment {
            // The reserved bit and "don't fragment" may be set.
            Fragment::No => random.word() & 0xc000,
            Fragment::First => (random.word() & 0xc000) | 0x2000,
            Fragment::Later => (random.word() & 0xe000) | offset(random),
        };
        self.word(flags_and_offset);
        self.bytes.push(random.byte());
        self.bytes.push(protocol);
        self.word(0);
        self.bytes.extend_from_slice(&tuple.source[..4]);
        self.bytes.extend_from_slice(&tuple.destination[..4]);
        self.noise_of(random, 4 * options_words);

        self.transport(random, tuple, protocol, fragment);
        let total = (self.bytes.len() - ip) as u16;
        self.set_word(ip + 2, total);
        self.ipv4_checksum(random);
    }

    /// Right, or for the arithmetic's sake not.
    fn ipv4_checksum(&mut self, random: &mut Random) {
        let ip = self.places.ip;
        self.set_word(ip + 10, 0);
        let first = self.word_at(ip);
        let checksum = match random.below(40) {
            0 => 0x0000,
            1 => 0xffff,
            2 => random.word(),
            // One that a new code point turns into one of the zeros.
            3 => {
                let tos = random.pick(&self.dscps) << 2 | (first & 3) as u8;
                ((first & 0xff00) | u16::from(tos)).wrapping_sub(first)
            }
            // One that is right and zero: the identification makes it so.
            4 => {
                let missing = self.header_checksum();
                let identification = u32::from(self.word_at(ip + 4)) + u32::from(missing);
                let identification = identification % 65536 + identification / 65536;
                self.set_word(ip + 4, identification as u16);
                0
            }
            _ => self.header_checksum(),
        };
        self.set_word(ip + 10, checksum);
    }

    /// RFC 1071, the checksum field being zero.
    fn header_checksum(&self) -> u16 {
        let ip = self.places.ip;
        let header_bytes = usize::from(self.bytes[ip] & 0xf) * 4;
        let mut sum = 0u32;
        for word in self.bytes[ip..ip + header_bytes].chunks_exact(2) {
            sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    fn ipv6(&mut self, random: &mut Random, tuple: &Tuple, protocol: u8, fragment: Fragment) {
        let ip = self.places.ip;
        let type_of_service = self.type_of_service(random);
        self.bytes.push(0x60 | type_of_service >> 4);
        self.bytes.push(type_of_service << 4 | random.byte() & 0xf);
        self.word(random.word());
        self.word(0);

        // One of the headers makes it a fragment.
        let mut headers = [0; 9];
        let mut count = if random.one_in(3) { random.index(10) } else { 0 };
        if fragment != Fragment::No && count == 0 {
            count = 1;
        }
        for header in &mut headers {
            *header = random.pick(&IPV6_EXTENSIONS);
        }
        let fragments = random.index(count.max(1));
        if fragment != Fragment::No {
            headers[fragments] = FRAGMENT;
        }
        if count > 8 {
            self.well_formed = false;
        }

        self.bytes.push(if count > 0 { headers[0] } else { protocol });
        self.bytes.push(random.byte());
        self.bytes.extend_from_slice(&tuple.source);
        self.bytes.extend_from_slice(&tuple.destination);
        for index in 0..count {
            let next = if index + 1 < count { headers[index + 1] } else { protocol };
            if headers[index] != FRAGMENT {
                self.extension(random, next);
            } else if fragment == Fragment::No || index != fragments {
                // Of no effect, or, in a fragment, sometimes one more first fragment.
                let also = fragment != Fragment::No && random.one_in(3);
                let also = if also { Fragment::First } else { Fragment::No };
                let identification = identification(random);
                self.fragment_header(random, next, also, identification);
            } else if fragment == Fragment::First {
                self.next = next;
                self.fragment_header(random, next, fragment, self.identification);
            } else {
                self.fragment_header(random, self.next, fragment, self.identification);
                // Whatever comes now is not looked at.
                break;
            }
        }
        self.transport(random, tuple, protocol, fragment);
        let payload = (self.bytes.len() - ip - 40) as u16;
        self.set_word(ip + 4, payload);
    }

    fn extension(&mut self, random: &mut Random, next: u8) {
        let units = if random.one_in(5) { random.index(4) } else { 0 };
        self.bytes.push(next);
        self.places.extension_lengths[self.places.extensions] = self.bytes.len();
        self.places.extensions += 1;
        self.bytes.push(units as u8);
        self.noise_of(random, 6 + 8 * units);
    }

    fn fragment_header(
        &mut self,
        random: &mut Random,
        next: u8,
        fragment: Fragment,
        identification: u32,
    ) {
        self.bytes.push(next);
        // Reserved: not a length, whatever it holds.
        self.bytes.push(random.byte());
        let reserved = random.word() & 0b110;
        let offset_and_more = match fragment {
            Fragment::No => 0,
            Fragment::First => 1,
            Fragment::Later => offset(random) << 3 | (random.word() & 1),
        };
        self.word(offset_and_more | reserved);
        self.bytes.extend_from_slice(&identification.to_be_bytes());
    }

    fn transport(&mut self, random: &mut Random, tuple: &Tuple, protocol: u8, fragment: Fragment) {
        if protocol != TCP || fragment == Fragment::Later {
            self.noise(random, 40);
            return;
        }
        let tcp = self.bytes.len();
        self.places.tcp = tcp;
        self.word(tuple.source_port);
        self.word(tuple.destination_port);
        // Sequence and acknowledgement.
        let numbers = random.bits();
        self.bytes.extend_from_slice(&numbers.to_be_bytes());
        let options_words = if random.one_in(3) { random.index(11) } else { 0 };
        self.bytes.push(((5 + options_words) << 4) as u8 | random.byte() & 0xf);
        let flags = match random.below(100) {
            0..70 => 0x10,
            70..74 => 0x02,
            74..78 => 0x12,
            78..83 => 0x11,
            83..86 => 0x04,
            // Each of the others, with and without SYN.
            _ => random.byte(),
        };
        self.bytes.push(flags);
        // Window, checksum, urgent pointer.
        self.noise_of(random, 6);
        self.noise_of(random, 4 * options_words);
        self.noise(random, 24);
        if self.is_tiny {
            let length = random.index(20 + 4 * options_words);
            self.bytes.truncate(tcp + length);
            self.places.tcp = 0;
            self.well_formed = false;
        }
    }
}

/// Tags in a row after the MAC addresses.
fn tags_of(bytes: &[u8]) -> usize {
    bytes[12..]
        .chunks_exact(4)
        .take_while(|tag| TAG_TYPES.contains(&u16::from_be_bytes([tag[0], tag[1]])))
        .count()
}

/// Few, and some that differ only in what a narrow memory would forget.
fn identification(random: &mut Random) -> u32 {
    random.below(4) as u32 | random.pick(&[0, 0, 0, 0x100, 0x1_0000, 0x8000_0000])
}

/// Any but zero, in units of eight bytes, often small.
fn offset(random: &mut Random) -> u16 {
    if random.one_in(2) { 1 + random.below(4) as u16 } else { 1 + random.below(0x1fff) as u16 }
}
