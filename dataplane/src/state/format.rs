//! The bytes of a file of flows, and what can be wrong with them. All numbers are little-endian.
//!
//! ```text
//! header     magic (8) | version (4) | workers (4) | boot id (16) | boot time (8) | wall clock (8) | saved at (8)
//! counts     of each worker: IPv4 flows (8) | IPv6 flows (8)
//! flows      of each worker: its IPv4 flows, then its IPv6 flows, each:
//!              words of its key (2 x 8, or 5 x 8) | last packet (8) | packets (4) | long (1)
//! checksum   CRC-32 of everything before it (4)
//! ```
//!
//! `saved at` and the times of last packets are by one clock, of which nothing is known but that; how long ago the
//! former was, the three before it tell. So nothing has to be converted while flows are collected, and nothing is
//! rounded.
//!
//! **Invariant.** [`Saved::parse`] reads no further than there are bytes and reserves nothing for what a file only claims
//! to have: the counts must add up to its length. It takes a file as a whole: after it, no flow can be wrong.

use std::io::{self, Write};

use crc32fast::Hasher;

use super::moment::Moment;
use crate::flow::key::FlowKey;
use crate::flow::slice::KnownFlow;

/// No file is longer: 37 million IPv4 flows.
pub const FILE_BYTES_MAX: u64 = 1 << 30;

const MAGIC: &[u8; 8] = b"LSflows\n";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 56;
const COUNTS_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;
/// Last packet, packets, long.
const VALUE_BYTES: usize = 8 + 4 + 1;
const IPV4_BYTES: usize = 2 * 8 + VALUE_BYTES;
const IPV6_BYTES: usize = 5 * 8 + VALUE_BYTES;

/// What is wrong with a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Not even a header.
    #[error("its {0} bytes are too few for a file of flows")]
    TooShort(usize),
    /// Something else.
    #[error("it is not a file of flows: it begins otherwise")]
    Magic,
    /// Of another lanesplitd.
    #[error("it has version {0}, and this lanesplitd reads version {VERSION} only")]
    Version(u32),
    /// Cut off, or absurd counts.
    #[error("it has {found} bytes where its header promises {}", promised.map_or("too many".to_owned(), |bytes| bytes.to_string()))]
    Length {
        /// By its counts; none when they cannot be added up.
        promised: Option<u64>,
        /// Bytes there are.
        found: u64,
    },
    /// Other bytes than were written.
    #[error("it is damaged: its checksum is {found:08x} and its bytes make {computed:08x}")]
    Checksum {
        /// In the file.
        found: u32,
        /// Of its bytes.
        computed: u32,
    },
    /// The bytes are as they were written, and were wrong then.
    #[error("its flow number {0} is none that a gateway can know")]
    Flow(usize),
}

/// The flows of one worker, as bytes of a file. Those of IPv4 come first.
#[derive(Debug, Default)]
pub struct Section {
    counts: [u64; 2],
    bytes: Vec<u8>,
}

impl Section {
    /// Forgets its flows and keeps its memory.
    pub fn clear(&mut self) {
        self.counts = [0; 2];
        self.bytes.clear();
    }

    /// Adds a flow.
    ///
    /// # Panics
    ///
    /// When an IPv4 flow comes after one of IPv6.
    pub fn push(&mut self, flow: &KnownFlow) {
        let is_ipv6 = matches!(flow.key, FlowKey::V6(_));
        assert!(is_ipv6 || self.counts[1] == 0, "tables are walked in their order");
        self.counts[usize::from(is_ipv6)] += 1;
        for word in flow.key.words() {
            self.bytes.extend_from_slice(&word.to_le_bytes());
        }
        self.bytes.extend_from_slice(&flow.last_ns.to_le_bytes());
        self.bytes.extend_from_slice(&flow.packets.to_le_bytes());
        self.bytes.push(flow.long.into());
    }

    /// Flows in it.
    pub fn flows(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their length in a file, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Writes a file's bytes; returns how many. `saved_ns` is now, by the clock of the flows' times.
///
/// # Errors
///
/// Those of `out`.
pub fn write(
    mut out: impl Write,
    moment: &Moment,
    saved_ns: u64,
    sections: &[Section],
) -> io::Result<u64> {
    let mut head = Vec::with_capacity(HEADER_BYTES + sections.len() * COUNTS_BYTES);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&(sections.len() as u32).to_le_bytes());
    head.extend_from_slice(&moment.boot_id.to_le_bytes());
    for number in [moment.boottime_ns, moment.wall_ns, saved_ns] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    for count in sections.iter().flat_map(|section| section.counts) {
        head.extend_from_slice(&count.to_le_bytes());
    }
    let mut checksum = Hasher::new();
    let mut bytes = 0;
    for part in [&head].into_iter().chain(sections.iter().map(|section| &section.bytes)) {
        checksum.update(part);
        out.write_all(part)?;
        bytes += part.len();
    }
    out.write_all(&checksum.finalize().to_le_bytes())?;
    Ok((bytes + CHECKSUM_BYTES) as u64)
}

/// A file's bytes, found to be sound.
#[derive(Debug)]
pub struct Saved<'a> {
    /// When it was saved.
    pub moment: Moment,
    /// The same by the clock of the flows' times.
    pub saved_ns: u64,
    /// Of each worker: IPv4 and IPv6 flows.
    counts: Vec<[usize; 2]>,
    flows: &'a [u8],
}

impl<'a> Saved<'a> {
    /// Looks at everything once.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Damage> {
        let mut rest = bytes;
        if bytes.len() < HEADER_BYTES + CHECKSUM_BYTES {
            return Err(Damage::TooShort(bytes.len()));
        }
        if take::<8>(&mut rest) != *MAGIC {
            return Err(Damage::Magic);
        }
        let version = u32::from_le_bytes(take(&mut rest));
        if version != VERSION {
            return Err(Damage::Version(version));
        }
        let workers = u32::from_le_bytes(take(&mut rest)) as usize;
        let boot_id = u128::from_le_bytes(take(&mut rest));
        let [boottime_ns, wall_ns, saved_ns] =
            [(); 3].map(|()| u64::from_le_bytes(take(&mut rest)));
        let moment = Moment { boot_id, boottime_ns, wall_ns };
        let counts = read_counts(&mut rest, workers, bytes.len())?;
        let (flows, mut checksum) = rest.split_at(rest.len() - CHECKSUM_BYTES);
        let found = u32::from_le_bytes(take(&mut checksum));
        let computed = crc32fast::hash(&bytes[..bytes.len() - CHECKSUM_BYTES]);
        if found != computed {
            return Err(Damage::Checksum { found, computed });
        }
        let saved = Saved { moment, saved_ns, counts, flows };
        let unsound = saved.read().position(|(_, flow)| flow.is_none());
        unsound.map_or(Ok(saved), |number| Err(Damage::Flow(number)))
    }

    /// Every flow, with the number of its worker.
    pub fn flows(&self) -> impl Iterator<Item = (usize, KnownFlow)> {
        self.read().filter_map(|(worker, flow)| Some((worker, flow?)))
    }

    fn read(&self) -> impl Iterator<Item = (usize, Option<KnownFlow>)> {
        let (mut rest, saved_ns) = (self.flows, self.saved_ns);
        let kinds = self.counts.iter().enumerate().flat_map(|(worker, [ipv4, ipv6])| {
            let ipv4 = std::iter::repeat_n((worker, 2), *ipv4);
            ipv4.chain(std::iter::repeat_n((worker, 5), *ipv6))
        });
        kinds.map(move |(worker, words)| (worker, read_flow(&mut rest, words, saved_ns)))
    }
}

/// The counts of so many workers, when they agree with the length of the file.
fn read_counts(
    rest: &mut &[u8],
    workers: usize,
    file_bytes: usize,
) -> Result<Vec<[usize; 2]>, Damage> {
    let length = |promised| Damage::Length { promised, found: file_bytes as u64 };
    if workers > (rest.len() - CHECKSUM_BYTES) / COUNTS_BYTES {
        return Err(length(None));
    }
    let mut count = || u64::from_le_bytes(take(rest));
    let counts: Vec<[u64; 2]> = (0..workers).map(|_| [count(), count()]).collect();
    let promised = promised_bytes(&counts);
    if promised != Some(file_bytes as u64) {
        return Err(length(promised));
    }
    // They add up to the length, so they fit.
    Ok(counts.iter().map(|counts| counts.map(|count| count as usize)).collect())
}

/// Length of a file with so many flows of each worker.
fn promised_bytes(counts: &[[u64; 2]]) -> Option<u64> {
    let fixed = HEADER_BYTES + counts.len() * COUNTS_BYTES + CHECKSUM_BYTES;
    counts.iter().try_fold(fixed as u64, |sum, [ipv4, ipv6]| {
        let ipv4 = ipv4.checked_mul(IPV4_BYTES as u64)?;
        let ipv6 = ipv6.checked_mul(IPV6_BYTES as u64)?;
        sum.checked_add(ipv4)?.checked_add(ipv6)
    })
}

/// The next flow, whose key has so many words.
fn read_flow(rest: &mut &[u8], words: usize, saved_ns: u64) -> Option<KnownFlow> {
    let mut key = [0; 5];
    for word in &mut key[..words] {
        *word = u64::from_le_bytes(take(rest));
    }
    let last_ns = u64::from_le_bytes(take(rest));
    let packets = u32::from_le_bytes(take(rest));
    let [long] = take(rest);
    let is_sound = last_ns <= saved_ns && packets > 0 && long <= 1;
    let key = FlowKey::from_words(&key[..words]).filter(|_| is_sound)?;
    Some(KnownFlow { key, last_ns, packets, long: long == 1 })
}

/// The next bytes, which the caller knows to be there.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (bytes, behind) = rest.split_first_chunk().expect("the lengths were compared");
    *rest = behind;
    *bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Moment = Moment { boot_id: 0x1234 << 100, boottime_ns: 77, wall_ns: 99 };

    fn flow(number: u64, is_ipv6: bool) -> KnownFlow {
        // One VLAN tag with this identifier.
        let rest = number << 32 | 1 << 24 | (number & 0xfff);
        let words: &[u64] = if is_ipv6 { &[number, 1, 2, 3, rest] } else { &[number, rest] };
        let key = FlowKey::from_words(words).expect("a name");
        let long = number.is_multiple_of(3);
        KnownFlow { key, last_ns: 1000 + number, packets: number as u32 + 1, long }
    }

    /// A file of two workers, and what is in it.
    fn small_file() -> (Vec<u8>, Vec<(usize, KnownFlow)>) {
        let mut sections = [Section::default(), Section::default()];
        let flows: Vec<_> =
            [(0, 1, false), (0, 2, false), (0, 3, true), (1, 4, true), (1, 5, true)]
                .map(|(worker, number, is_ipv6)| (worker, flow(number, is_ipv6)))
                .into();
        flows.iter().for_each(|(worker, flow)| sections[*worker].push(flow));
        let mut bytes = Vec::new();
        let count = write(&mut bytes, &MOMENT, 2000, &sections).expect("memory takes everything");
        assert_eq!(count, bytes.len() as u64);
        assert_eq!(count, 56 + 2 * 16 + 2 * 29 + 3 * 53 + 4);
        (bytes, flows)
    }

    /// With the checksum that its bytes ask for.
    fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let end = bytes.len() - CHECKSUM_BYTES;
        let checksum = crc32fast::hash(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&checksum);
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        let (bytes, flows) = small_file();
        let saved = Saved::parse(&bytes).expect("it is sound");
        assert_eq!((saved.moment, saved.saved_ns), (MOMENT, 2000));
        assert_eq!(saved.flows().collect::<Vec<_>>(), flows);

        let mut nothing = Vec::new();
        write(&mut nothing, &MOMENT, 5, &[]).expect("memory takes everything");
        assert_eq!(Saved::parse(&nothing).expect("it is sound").flows().count(), 0);
    }

    /// The layout is what the head of this file says, so that a later version can tell it from its own.
    #[test]
    fn a_file_has_the_bytes_that_the_layout_promises() {
        let mut section = Section::default();
        let key = FlowKey::from_words(&[0x0a00_0001_0a00_0002, 0x1f90_01bb_0000_0000]);
        let key = key.expect("10.0.0.1:8080 to 10.0.0.2:443");
        section.push(&KnownFlow { key, last_ns: 0x0102, packets: 41, long: true });
        let mut bytes = Vec::new();
        let moment = Moment { boot_id: 1, boottime_ns: 2, wall_ns: 3 };
        write(&mut bytes, &moment, 0x0203, &[section]).expect("memory takes everything");
        let expected = b"LSflows\n\x01\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
            \x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x03\x02\0\0\0\0\0\0\
            \x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
            \x02\0\0\x0a\x01\0\0\x0a\0\0\0\0\xbb\x01\x90\x1f\x02\x01\0\0\0\0\0\0\x29\0\0\0\x01";
        assert_eq!(&bytes[..bytes.len() - 4], expected);
        // By Python: zlib.crc32() of those bytes.
        assert_eq!(bytes[bytes.len() - 4..], 0x1e98_4123_u32.to_le_bytes());
    }

    #[test]
    fn a_file_with_any_bits_of_any_byte_flipped_is_refused() {
        let (bytes, _) = small_file();
        for at in 0..bytes.len() {
            for flip in 1..=255 {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                assert!(Saved::parse(&bytes).is_err(), "byte {at} flipped by {flip:#x}");
            }
        }
    }

    #[test]
    fn a_file_cut_off_anywhere_or_longer_is_refused() {
        let (bytes, _) = small_file();
        for end in 0..bytes.len() {
            assert!(Saved::parse(&bytes[..end]).is_err(), "{end} bytes");
            if end >= HEADER_BYTES + CHECKSUM_BYTES {
                assert!(Saved::parse(&resealed(bytes[..end].to_vec())).is_err(), "{end} bytes");
            }
        }
        let longer = [&bytes[..], &[0; 29]].concat();
        assert!(Saved::parse(&resealed(longer)).is_err());
    }

    /// Whatever a file claims, with the checksum to it: nothing is reserved for it, nothing overflows.
    #[test]
    fn absurd_claims_are_refused() {
        let (bytes, _) = small_file();
        let with = |at: usize, part: &[u8]| {
            let mut bytes = bytes.clone();
            bytes[at..at + part.len()].copy_from_slice(part);
            Saved::parse(&resealed(bytes)).map(|_| ()).expect_err("it is absurd")
        };
        let all = &[0xff; 8];
        assert_eq!(with(0, b"LSFLOWS\n"), Damage::Magic);
        assert_eq!(with(8, &[2, 0, 0, 0]), Damage::Version(2));
        assert_eq!(with(12, &all[..4]), Damage::Length { promised: None, found: 309 });
        assert_eq!(with(56, all), Damage::Length { promised: None, found: 309 });
        assert_eq!(with(64, all), Damage::Length { promised: None, found: 309 });
        // Whose product with an entry's length is a small number again, were it not looked at.
        let wrapped = (u64::MAX / 29 + 3).to_le_bytes();
        assert_eq!(with(56, &wrapped), Damage::Length { promised: None, found: 309 });
        assert_eq!(with(56, &[3]), Damage::Length { promised: Some(309 + 29), found: 309 });
        // The first flow starts at 88: a third VLAN tag, a future packet, no packet, neither long nor short.
        assert_eq!(with(88 + 11, &[3]), Damage::Flow(0));
        assert_eq!(with(88 + 16, &2001_u64.to_le_bytes()), Damage::Flow(0));
        assert_eq!(with(88 + 29 + 24, &[0; 4]), Damage::Flow(1));
        assert_eq!(with(88 + 28, &[2]), Damage::Flow(0));
    }

    #[test]
    fn random_bytes_behind_a_good_header_never_panic() {
        let mut state = 5_u64;
        for _ in 0..20_000 {
            let mut bytes = small_file().0;
            for _ in 0..8 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 20) as u8;
            }
            if let Ok(saved) = Saved::parse(&resealed(bytes)) {
                assert_eq!(saved.flows().count(), 5);
                assert!(
                    saved
                        .flows()
                        .all(|(_, flow)| flow.packets > 0 && flow.last_ns <= saved.saved_ns)
                );
                // Every name can be taken apart.
                saved.flows().for_each(|(_, flow)| drop(flow.key.tuple()));
            }
        }
    }
}
