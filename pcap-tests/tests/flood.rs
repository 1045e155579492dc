//! Floods of new flows: by number, and by tuples that somebody chose who knows the code and not the secret.
//!
//! Whatever comes, known flows keep their lane and their count, every packet is forwarded, and no memory is
//! allocated. How long that takes is measured by `lanesplit-replay bench --flood`, not here.

// The allocator that counts is an unsafe trait.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use dataplane::batch::{BATCH_MAX, Batch, Packet, PortId};
use dataplane::config::Config;
use dataplane::counters::Counters;
use dataplane::flow::classifier::Capacity;
use dataplane::flow::key::{Ipv4Key, Ipv6Key};
use dataplane::flow::observer::{FlowPacket, Observer, Unobserved};
use dataplane::flow::secret::Secret;
use dataplane::gateway::{Gateway, Settings};
use dataplane::verdict::{Class, Outcome, Verdict};
use dataplane::wire::frame::{Frame, Version};
use etherparse::PacketBuilder;
use pcap_tests::model::{Model, Rule};
use pcap_tests::traffic::Random;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are the system allocator's terms.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the system allocator's terms.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What can be chosen in a flow. IPv4 takes the last word of each address, in its low half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Tuple {
    v6: bool,
    source: [u64; 2],
    destination: [u64; 2],
    ports: u32,
}

/// Somebody's SYN, from 10.0.0.1 or 2001:db8::1 unless said otherwise, to a server.
const SOMEBODY: Tuple = Tuple {
    v6: false,
    source: [0x2001_0db8 << 32, 0x0a00_0001],
    destination: [0x2001_0db8 << 32 | 1, 0xc000_0201],
    ports: 1000 << 16 | 443,
};

impl Tuple {
    /// The hash by which a table with this secret finds it.
    fn hash(&self, secret: &Secret) -> u64 {
        let ports_and_vlans = u64::from(self.ports) << 32;
        let mut frame = Frame { ports_and_vlans, ..Frame::default() };
        if self.v6 {
            frame.version = Version::V6;
            let ([s0, s1], [d0, d1]) = (self.source, self.destination);
            frame.addresses = [s0, s1, d0, d1];
            return secret.hash(&Ipv6Key::of(&frame));
        }
        frame.addresses[0] = self.source[1] << 32 | self.destination[1] & 0xffff_ffff;
        secret.hash(&Ipv4Key::of(&frame))
    }
}

/// Frames to fill in, as SYN or as ACK.
struct Frames {
    v4: Vec<u8>,
    v6: Vec<u8>,
}

impl Frames {
    fn new() -> Self {
        let bytes = |builder: etherparse::PacketBuilderStep<etherparse::IpHeaders>| {
            let mut bytes = Vec::new();
            builder.tcp(1, 2, 3, 4).write(&mut bytes, &[]).expect("into memory");
            bytes
        };
        let ethernet = || PacketBuilder::ethernet2([2; 6], [4; 6]);
        Frames {
            v4: bytes(ethernet().ipv4([0; 4], [0; 4], 64)),
            v6: bytes(ethernet().ipv6([0; 16], [0; 16], 64)),
        }
    }

    /// Nobody verifies the checksums.
    fn write(&self, buffer: &mut Vec<u8>, tuple: &Tuple, syn: bool) {
        buffer.clear();
        buffer.extend(if tuple.v6 { &self.v6 } else { &self.v4 });
        let tcp = if tuple.v6 {
            for (at, word) in [(22, tuple.source), (38, tuple.destination)] {
                buffer[at..at + 8].copy_from_slice(&word[0].to_be_bytes());
                buffer[at + 8..at + 16].copy_from_slice(&word[1].to_be_bytes());
            }
            54
        } else {
            for (at, word) in [(26, tuple.source[1]), (30, tuple.destination[1])] {
                buffer[at..at + 4].copy_from_slice(&(word as u32).to_be_bytes());
            }
            34
        };
        buffer[tcp..tcp + 4].copy_from_slice(&tuple.ports.to_be_bytes());
        buffer[tcp + 13] = if syn { 0x02 } else { 0x10 };
    }
}

/// A gateway, its model for known flows, and room for a batch.
struct Site {
    gateway: Gateway,
    frames: Frames,
    buffers: Vec<Vec<u8>>,
    now_ns: u64,
}

const THRESHOLD_PACKETS: u32 = 5;

impl Site {
    fn new(flows_max: usize, secret: Secret) -> Self {
        let config = Config::defaults();
        let mut rule = config.rule;
        rule.threshold_packets = THRESHOLD_PACKETS;
        let settings = Settings { rule, lanes: config.lanes, frame_bytes_max: [u32::MAX; 2] };
        let capacity = Capacity {
            ipv4_flows_max: flows_max,
            ipv6_flows_max: flows_max,
            fragmented_datagrams_max: 16,
        };
        Site {
            gateway: Gateway::new(settings, capacity, secret),
            frames: Frames::new(),
            buffers: (0..BATCH_MAX).map(|_| Vec::with_capacity(128)).collect(),
            now_ns: 0,
        }
    }

    /// Sends a batch of (tuple, SYN) a microsecond apart; hands every packet over with its place. Nothing is
    /// dropped and nothing allocated.
    fn send<O: Observer>(
        &mut self,
        packets: &[(Tuple, bool)],
        observer: &mut O,
        mut see: impl FnMut(usize, &Packet<'_>),
    ) {
        let Site { gateway, frames, buffers, now_ns } = self;
        let mut batch: Batch<'_> = buffers
            .iter_mut()
            .zip(packets)
            .map(|(buffer, (tuple, syn))| {
                frames.write(buffer, tuple, *syn);
                *now_ns += 1000;
                Packet::new(buffer, PortId::Lan, *now_ns)
            })
            .collect();
        let before = ALLOCATIONS.with(Cell::get);
        gateway.process(&mut batch, observer);
        gateway.tick(*now_ns);
        assert_eq!(ALLOCATIONS.with(Cell::get), before, "memory was allocated");
        for (place, packet) in batch.iter().enumerate() {
            assert_eq!(packet.verdict, Verdict::Transmit(PortId::Wan));
            see(place, packet);
        }
    }

    /// Sends these SYNs in full batches; every one of them is short.
    fn flood(&mut self, tuples: impl Iterator<Item = Tuple>) -> Counters {
        let mut tuples = tuples.map(|tuple| (tuple, true));
        loop {
            let batch: Vec<_> = tuples.by_ref().take(BATCH_MAX).collect();
            if batch.is_empty() {
                break;
            }
            self.send(&batch, &mut Unobserved, |_, packet| {
                assert_eq!(packet.outcome, Outcome::Classified(Class::Short));
            });
        }
        let counters = self.gateway.counters();
        assert!(counters.balances(), "{counters:?}");
        counters
    }
}

/// Lives of known flows that began.
#[derive(Default)]
struct Begun(u64);

impl Observer for Begun {
    fn packet(&mut self, packet: FlowPacket<'_>) {
        let tuple = packet.key.tuple();
        let ports = (tuple.source_port, tuple.destination_port);
        self.0 += u64::from(packet.begins && ports == KNOWN_PORTS);
    }
}

/// Source and destination port of known flows, and of no other: not even the random ones hit on both.
const KNOWN_PORTS: (u16, u16) = (2001, 8443);

/// The `n`th tuple of a kind.
type Chosen = fn(u64) -> Tuple;

/// Different tuples of each kind that an attacker may think of.
const FAMILIES: [(&str, Chosen); 16] = [
    ("random", |n| {
        let mut random = Random::new(n.wrapping_mul(7));
        Tuple { source: [0, random.bits() >> 32], ports: random.bits() as u32, ..SOMEBODY }
    }),
    ("random IPv6", |n| {
        let mut random = Random::new(n.wrapping_mul(7));
        let source = [random.bits(), random.bits()];
        Tuple { v6: true, source, ports: random.bits() as u32, ..SOMEBODY }
    }),
    ("sequential source ports and addresses", |n| {
        let source = [0, 0x0a00_0000 + (n >> 16)];
        Tuple { source, ports: (n as u32) << 16 | 443, ..SOMEBODY }
    }),
    ("sequential destination ports and addresses", |n| {
        let destination = [0, 0xc000_0200 + (n >> 16)];
        Tuple { destination, ports: n as u32 & 0xffff, ..SOMEBODY }
    }),
    ("sequential source addresses", |n| Tuple { source: [0, 0x0a00_0000 + n], ..SOMEBODY }),
    ("sequential destination addresses", |n| Tuple {
        destination: [0, 0x0a00_0000 + n],
        ..SOMEBODY
    }),
    ("source addresses in steps of a large power of two", |n| {
        let source = [0, (n & 0xfff) << 20 | 1];
        Tuple { source, ports: (n as u32 >> 12) << 16, ..SOMEBODY }
    }),
    ("an arithmetic progression over addresses and ports at once", |n| {
        let source = [0, (n * 0x0001_0001) & 0xffff_ffff];
        Tuple { source, ports: (n as u32).wrapping_mul(0x1000_1001), ..SOMEBODY }
    }),
    // The halves of the product that hashes an IPv4 key are (addresses) and (ports, VLANs).
    ("addresses up as ports go down", |n| {
        let source = [0, 0x8000_0000 + n];
        Tuple { source, ports: 0x8000_0000_u32.wrapping_sub(n as u32), ..SOMEBODY }
    }),
    ("the same in addresses and ports", |n| Tuple { source: [0, n], ports: n as u32, ..SOMEBODY }),
    ("top bits of both words, and a counter below them", |n| {
        let source = [0, (n & 3) << 30 | n >> 4];
        Tuple { source, ports: ((n >> 2) as u32 & 3) << 30 | 443, ..SOMEBODY }
    }),
    ("a bit pattern that is linear in its number", |n| {
        let gray = n ^ n >> 1;
        Tuple {
            source: [0, (gray * 0x0101) & 0xffff_ffff],
            ports: (gray as u32).rotate_left(13),
            ..SOMEBODY
        }
    }),
    ("one /64", |n| Tuple { v6: true, source: [0x2001_0db8 << 32, n], ..SOMEBODY }),
    ("every /64 of a /40", |n| Tuple { v6: true, source: [0x2001_0db8 << 32 | n, 1], ..SOMEBODY }),
    ("top bits of IPv6 words, and a counter below them", |n| {
        let top = |bit: u32| (n >> bit & 1) << 63;
        let source = [top(0) | 1, top(1) | n >> 5];
        let destination = [top(2) | 1, top(3) | 1];
        Tuple { v6: true, source, destination, ports: (n as u32 >> 4 & 1) << 31 | 443 }
    }),
    ("one word of each IPv6 pair up as the other goes down", |n| {
        let source = [n, n.wrapping_neg()];
        let destination = [n << 32, (n << 32).wrapping_neg()];
        Tuple { v6: true, source, destination, ..SOMEBODY }
    }),
];

/// The `n`th known flow, over IPv4 and IPv6 in turn.
fn known(n: u64) -> Tuple {
    let source = [SOMEBODY.source[0], 0xac10_0000 + n];
    let (from, to) = KNOWN_PORTS;
    Tuple { v6: n % 2 == 1, source, ports: u32::from(from) << 16 | u32::from(to), ..SOMEBODY }
}

#[test]
fn known_flows_keep_lane_and_count_in_a_flood_of_ten_tables() {
    const FLOWS_MAX: usize = 2000;
    // Half of what each table is made for; a table has two entries for each of those.
    const KNOWN: u64 = 2000;
    const FLOOD: u64 = 10 * 2 * FLOWS_MAX as u64;
    for (index, (name, tuple)) in FAMILIES.into_iter().enumerate() {
        let mut site = Site::new(FLOWS_MAX, Secret::from_seed(index as u64));
        let mut model =
            Model::new(Rule { threshold_packets: THRESHOLD_PACKETS, ..Rule::default() });
        let mut begun = Begun::default();
        let mut random = Random::new(index as u64);
        let mut frame = Vec::new();
        let mut flooded = 0;
        let mut long = 0;
        let mut send = |site: &mut Site, packets: &[(Tuple, bool)]| {
            let start_ns = site.now_ns;
            let frames = Frames::new();
            site.send(packets, &mut begun, |place, packet| {
                let (tuple, syn) = packets[place];
                // Known flows opened before anybody looked; a flood is of SYNs.
                if syn {
                    assert_eq!(packet.outcome, Outcome::Classified(Class::Short), "{name}");
                    return;
                }
                // The model knows nothing of the flood: it must not show.
                frames.write(&mut frame, &tuple, syn);
                let now_ns = start_ns + 1000 * (place as u64 + 1);
                let answer = model.packet(&frame, frame.len() as u32, now_ns);
                assert_eq!(packet.outcome, answer.outcome, "{name}: {tuple:?}");
                assert_eq!(packet.bytes[..], answer.frame[..], "{name}: {tuple:?}");
                long += u64::from(answer.outcome == Outcome::Classified(Class::Long));
            });
        };

        // From one packet to twice the threshold each, so that some are long and others about to be.
        for round in 0..2 * u64::from(THRESHOLD_PACKETS) {
            let talking: Vec<_> =
                (0..KNOWN).filter(|n| n % 10 >= round).map(|n| (known(n), false)).collect();
            talking.chunks(BATCH_MAX).for_each(|batch| send(&mut site, batch));
        }
        assert_eq!(site.gateway.counters().flows.table_full, 0);
        while flooded < FLOOD {
            let batch: Vec<_> = (0..BATCH_MAX)
                .map(|_| {
                    if random.one_in(4) {
                        return (known(random.below(KNOWN)), false);
                    }
                    flooded += 1;
                    (tuple(flooded), true)
                })
                .collect();
            send(&mut site, &batch);
        }
        // Everyone once more: nobody was forgotten.
        let all: Vec<_> = (0..KNOWN).map(|n| (known(n), false)).collect();
        all.chunks(BATCH_MAX).for_each(|batch| send(&mut site, batch));

        let counters = site.gateway.counters();
        assert!(counters.balances(), "{name}: {counters:?}");
        assert_eq!(counters.forwarded, counters.received, "{name}");
        assert_eq!(counters.long, long, "{name}");
        assert_eq!(counters.untouched.total(), 0, "{name}");
        assert!(counters.flows.table_full > FLOOD / 2, "{name}: {counters:?}");
        assert!(counters.flows.active <= 4 * FLOWS_MAX as u64, "{name}: {counters:?}");
        assert_eq!(begun.0, KNOWN, "{name}: no known flow began again");
    }
}

/// Flows each table is made for, and tuples of each family: ten million in total.
const FLOWS_MAX: u64 = 50_000;
const CHOSEN: u64 = 10_000_000 / FAMILIES.len() as u64;

/// Buckets in which hashes are counted, by their low half and by their high half.
const CELLS: u64 = 1 << 16;

#[test]
fn chosen_tuples_spread_over_the_table_as_random_ones_do() {
    // Chi-squared over so many cells has about this mean and this deviation.
    let mean = CELLS as f64;
    let deviation = (2.0 * mean).sqrt();
    for (index, (name, tuple)) in FAMILIES.into_iter().enumerate() {
        for seed in 0..3 {
            let secret = Secret::from_seed(100 * seed + index as u64);
            let mut cells = [vec![0_u32; CELLS as usize], vec![0_u32; CELLS as usize]];
            let mut pairs = vec![0_u32; CELLS as usize];
            for n in 0..CHOSEN {
                let hash = tuple(n).hash(&secret);
                cells[0][(hash >> 16 & 0xffff) as usize] += 1;
                cells[1][(hash >> 48) as usize] += 1;
                // Eight bits of each half: both choices together.
                pairs[(hash >> 24 & 0xff | hash >> 48 & 0xff00) as usize] += 1;
            }
            for (what, cells) in [("first", &cells[0]), ("second", &cells[1]), ("both", &pairs)] {
                let expected = CHOSEN as f64 / mean;
                let off = |&cell: &u32| (f64::from(cell) - expected).powi(2) / expected;
                let chi_squared: f64 = cells.iter().map(off).sum();
                let deviations = (chi_squared - mean) / deviation;
                assert!(deviations < 6.0, "{name}, seed {seed}, {what}: {deviations}");
                // 9.5 are expected; of random ones the fullest has 24 to 31.
                let most = cells.iter().max().expect("there are cells");
                assert!(*most < 40, "{name}, seed {seed}, {what}: {most}");
            }
        }
    }
}

#[test]
fn chosen_tuples_find_as_much_room_as_random_ones() {
    for (index, (name, tuple)) in FAMILIES.into_iter().enumerate() {
        let mut site = Site::new(FLOWS_MAX as usize, Secret::from_seed(index as u64 + 1000));
        let full = |site: &mut Site, range: std::ops::Range<u64>| {
            site.flood(range.map(tuple)).flows.table_full
        };
        let at_size = full(&mut site, 0..FLOWS_MAX);
        let at_three_halves = full(&mut site, FLOWS_MAX..FLOWS_MAX * 3 / 2);
        full(&mut site, FLOWS_MAX * 3 / 2..CHOSEN);
        let active = site.gateway.counters().flows.active;
        // Random ones are refused 100 to 150 times on the way from half full to three quarters full.
        assert!(at_size <= 2, "{name}: {at_size} refused");
        assert!(at_three_halves < 200, "{name}: {at_three_halves} refused");
        assert!(active * 100 >= 2 * FLOWS_MAX * 99, "{name}: {active} found room in the end");
    }
}

/// Tuples that all fall into an eighth of a table twice, for whoever knows its secret.
#[test]
fn tuples_that_collide_under_one_secret_do_not_under_another() {
    const AIMED: usize = 4 * FLOWS_MAX as usize;
    let known = Secret::from_seed(77);
    let aimed: Vec<Tuple> = (0..)
        .map(FAMILIES[0].1)
        .filter(|tuple| {
            let hash = tuple.hash(&known);
            hash as u32 >> 29 == 0 && hash >> 61 == 0
        })
        .take(AIMED)
        .collect();
    let active = |secret| {
        let mut site = Site::new(FLOWS_MAX as usize, secret);
        site.flood(aimed.iter().copied()).flows.active
    };
    let eighth = 3 * FLOWS_MAX / 8;
    let hit = active(known);
    assert!(hit <= eighth + 2, "{hit} of {eighth}: the tuples hit where they were aimed");
    let random = {
        let mut site = Site::new(FLOWS_MAX as usize, Secret::from_seed(78));
        site.flood((0..AIMED as u64).map(FAMILIES[0].1)).flows.active
    };
    for secret in [Secret::from_seed(79), Secret::random()] {
        let missed = active(secret);
        assert!(missed * 100 >= random * 99, "{missed}, of random ones {random}");
    }
}
