//! What is read is what the file says.

use std::io::Cursor;

use dataplane::capture::{CHUNK_RECORDS_MAX, Chunk, Format, LinkType, Reader};
use pcap_file::pcapng::{Block, PcapNgReader};

use crate::build::{Build, ORDERS, Order, frame, small_pcap, small_pcapng};
use crate::{Random, Seen, assert_tshark_agrees, folder, read_bytes, read_intact};

fn seen(time_ns: u64, original_bytes: u32, ids: [u32; 2], packet: Vec<u8>) -> Seen {
    Seen { time_ns, original_bytes, interface: ids[0], section: ids[1], packet }
}

#[test]
fn pcap_is_read_in_both_orders_and_resolutions() {
    for order in ORDERS {
        for (magic, ns_per_fraction) in [(0xa1b2_c3d4, 1_000), (0xa1b2_3c4d, 1)] {
            let capture = small_pcap(order, magic);
            let packets = read_intact(&capture);
            let second = 1_700_000_000_000_000_000;
            let expected = [
                seen(second + 123_456 * ns_per_fraction, 61, [0, 0], frame(1, 61)),
                seen(second + 999_999 * ns_per_fraction, 1500, [0, 0], frame(2, 50)),
                seen(1_600_000_000_000_000_000, 14, [0, 0], vec![]),
            ];
            assert_eq!(packets, expected, "{order:?} {magic:x}");

            let path = folder(&format!("pcap_{order:?}_{magic:x}")).join("in");
            std::fs::write(&path, &capture).unwrap();
            assert_tshark_agrees(&path, &packets);
            assert_eq!(Reader::open(&path).unwrap().format(), Format::Pcap);
        }
    }
}

#[test]
fn pcapng_is_read_with_all_packet_blocks_and_sections() {
    for order in ORDERS {
        let capture = small_pcapng(order);
        let packets = read_intact(&capture);
        let expected = [
            seen(0, 1500, [0, 0], frame(1, 64)),
            seen(1_700_000_000_123_456_789, 1400, [1, 0], frame(2, 61)),
            seen(1_700_000_000_123_457_000, 62, [0, 0], frame(3, 62)),
            seen(1_700_000_000_123_457_000, 60, [0, 0], frame(4, 60)),
            seen(1_700_000_001_123_000_000, 63, [0, 1], frame(5, 63)),
        ];
        assert_eq!(packets, expected, "{order:?}");

        let path = folder(&format!("pcapng_{order:?}")).join("in");
        std::fs::write(&path, &capture).unwrap();
        assert_tshark_agrees(&path, &packets);
        assert_eq!(Reader::open(&path).unwrap().format(), Format::Pcapng);
    }
}

/// Resolution, offset in seconds, time stamp, and the nanoseconds since 1970 worked out by hand.
const TIMES: [(u8, i64, u64, u64); 12] = [
    (0, 0, 1_700_000_000, 1_700_000_000_000_000_000),
    (3, 0, 1_700_000_000_123, 1_700_000_000_123_000_000),
    (6, 0, 1_700_000_000_123_456, 1_700_000_000_123_456_000),
    (9, 0, 1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
    // 10^-12 reaches 213 days: 1 000 000 s and 12 345 678 999 ps, the last 999 of them dropped.
    (12, 0, 1_000_000_012_345_678_999, 1_000_000_012_345_678),
    (12, 1_699_000_000, 1_000_000_012_345_678_999, 1_700_000_000_012_345_678),
    (0x80, 0, 1_700_000_000, 1_700_000_000_000_000_000),
    // 2^-20: 1 700 000 000 s and 524 289 units of 953.67431640625 ns = 500 000 953.67 ns.
    (0x80 | 20, 0, (1_700_000_000 << 20) + 524_289, 1_700_000_000_500_000_953),
    // 2^-32: half a second and one unit of 0.23 ns.
    (0x80 | 32, 0, (1_700_000_000 << 32) + (1 << 31) + 1, 1_700_000_000_500_000_000),
    (6, 1_700_000_000, 1, 1_700_000_000_000_001_000),
    (6, -1_000_000, 1_701_000_000_000_001, 1_700_000_000_000_001_000),
    (3, -1_700_000_000, 1_700_000_000_000, 0),
];

#[test]
fn times_are_exact_in_every_resolution_and_offset() {
    for order in ORDERS {
        let mut capture = Build::new(order).section();
        for (resolution, offset, ..) in TIMES {
            let offset = Build::new(order).u64(offset as u64).bytes;
            capture = capture.interface(1, 0, &[(9, &[resolution]), (14, &offset)]);
        }
        for (interface, (_, _, units, _)) in TIMES.iter().enumerate() {
            capture = capture.enhanced(interface as u32, *units, 60, &frame(0, 60));
        }
        let packets = read_intact(&capture.bytes);
        let times: Vec<u64> = packets.iter().map(|seen| seen.time_ns).collect();
        assert_eq!(times, TIMES.map(|(_, _, _, time_ns)| time_ns), "{order:?}");

        let path = folder(&format!("times_{order:?}")).join("in.pcapng");
        std::fs::write(&path, &capture.bytes).unwrap();
        assert_tshark_agrees(&path, &packets);
    }
}

#[test]
fn interfaces_tell_their_names_and_the_unit_of_their_stamps() {
    let units = [(0, 1_000_000_000), (3, 1_000_000), (6, 1_000), (9, 1), (12, 1), (127, 1)];
    let binary = [(0x80, 1_000_000_000), (0x80 | 20, 954), (0x80 | 32, 1), (0x80 | 127, 1)];
    for order in ORDERS {
        let mut capture = Build::new(order).section().interface(105, 0, &[]);
        for (resolution, _) in units.iter().chain(&binary) {
            capture = capture.interface(1, 0, &[(9, &[*resolution])]);
        }
        let mut reader = Reader::from_stream("memory", Cursor::new(capture.bytes)).unwrap();
        assert!(reader.interfaces().is_empty());
        while reader.read(&mut Chunk::new()).unwrap() {}
        let interfaces = reader.interfaces();
        let found: Vec<u64> = interfaces.iter().map(|interface| interface.resolution_ns).collect();
        let expected = units.iter().chain(&binary).map(|(_, resolution_ns)| *resolution_ns);
        assert_eq!(found, [1_000].into_iter().chain(expected).collect::<Vec<u64>>());
        assert!(interfaces.iter().all(|interface| interface.name.as_deref() == Some("tap 0")));
        let link_types = [interfaces[0].link_type, interfaces[1].link_type];
        assert_eq!(link_types, [LinkType(105), LinkType::ETHERNET]);

        for (magic, resolution_ns) in [(0xa1b2_c3d4, 1_000), (0xa1b2_3c4d, 1)] {
            let capture = Cursor::new(small_pcap(order, magic));
            let [interface] = &Reader::from_stream("memory", capture).unwrap().interfaces()[..]
            else {
                panic!("a pcap file has one interface");
            };
            assert_eq!((interface.resolution_ns, &interface.name), (resolution_ns, &None));
        }
    }
}

#[test]
fn resolutions_beyond_every_use_are_still_floored() {
    let cases: [(u8, u64); 5] = [
        (28, 1), // 2^64 - 1 units of 10^-28 s are 1.8 ns
        (29, 0),
        (127, 0),
        (0x80 | 63, 1_999_999_999),
        (0x80 | 127, 0),
    ];
    for (resolution, time_ns) in cases {
        let capture = Build::new(Order::Big)
            .section()
            .interface(1, 0, &[(9, &[resolution])])
            .enhanced(0, u64::MAX, 60, &frame(0, 60));
        assert_eq!(read_intact(&capture.bytes)[0].time_ns, time_ns, "{resolution}");
    }
}

#[test]
fn a_name_that_is_not_utf8_or_an_option_without_end_is_no_obstacle() {
    let capture = Build::new(Order::Little)
        .section()
        .block(1, |body| body.u16(1).u16(0xffff).u32(0).option(2, &[0xff, 0xfe]).option(9, &[9]))
        .enhanced(0, 5, 60, &frame(0, 60));
    assert_eq!(read_intact(&capture.bytes)[0].time_ns, 5);
}

#[test]
fn bits_about_the_frame_check_sequence_are_not_the_link_type() {
    for order in ORDERS {
        let capture = Build::new(order).pcap_header(0xa1b2_c3d4, 0x2400_0001).pcap_record(
            [1, 2],
            60,
            &frame(0, 60),
        );
        assert_eq!(read_intact(&capture.bytes).len(), 1);
    }
}

#[test]
fn an_interface_that_is_not_ethernet_may_be_described_if_it_saw_nothing() {
    let capture = Build::new(Order::Little)
        .section()
        .interface(113, 0, &[])
        .interface(1, 0, &[])
        .enhanced(1, 0, 60, &frame(0, 60));
    assert_eq!(read_intact(&capture.bytes).len(), 1);
}

#[test]
fn a_chunk_is_one_batch_and_keeps_the_order() {
    let count = CHUNK_RECORDS_MAX as u32 * 2 + 3;
    let mut capture = Build::new(Order::Little).pcap_header(0xa1b2_3c4d, 1);
    for number in 0..count {
        capture = capture.pcap_record([0, number], 60, &frame(number as u8, 60));
    }
    let mut reader = Reader::from_stream("memory", Cursor::new(capture.bytes)).unwrap();
    let (mut chunk, mut lengths, mut next) = (Chunk::new(), Vec::new(), 0);
    while reader.read(&mut chunk).unwrap() {
        lengths.push(chunk.len());
        for (record, packet) in chunk.iter_mut() {
            assert_eq!((record.time_ns, packet[59]), (next, next as u8));
            next += 1;
        }
    }
    assert_eq!(lengths, [CHUNK_RECORDS_MAX, CHUNK_RECORDS_MAX, 3]);
}

#[test]
fn pcap_file_reads_the_same_from_random_sections() {
    for seed in 0..200 {
        let capture = random_pcapng(&mut Random(seed));
        let packets = read_intact(&capture);
        let expected = read_with_pcap_file(&capture);
        assert_eq!(packets, expected, "seed {seed}");
    }
}

fn random_pcapng(random: &mut Random) -> Vec<u8> {
    let mut capture = Vec::new();
    for _ in 0..1 + random.below(3) {
        let mut section = Build::new(ORDERS[random.below(2)]).section();
        let interfaces = 1 + random.below(4);
        for _ in 0..interfaces {
            let resolution = [0, 3, 6, 7, 9, 0x80 | 10, 0x80 | 20][random.below(7)];
            section = section.interface(1, 0, &[(9, &[resolution])]);
        }
        for _ in 0..random.below(40) {
            let packet = frame(random.next() as u8, random.below(1600));
            let original_bytes = (packet.len() + random.below(3)) as u32;
            // 2^33 is within all resolutions' range.
            let units = random.next() >> 31;
            let interface = random.below(interfaces) as u32;
            section = match random.below(8) {
                0 => section.other_blocks(),
                _ => section.enhanced(interface, units, original_bytes, &packet),
            };
        }
        capture.extend(section.bytes);
    }
    capture
}

fn read_with_pcap_file(capture: &[u8]) -> Vec<Seen> {
    let mut reader = PcapNgReader::new(capture).unwrap();
    let (mut packets, mut section) = (Vec::new(), 0);
    while let Some(block) = reader.next_block() {
        match block.unwrap().0 {
            Block::SectionHeader(_) => section += 1,
            Block::EnhancedPacket(packet) => packets.push(Seen {
                time_ns: packet.timestamp.as_nanos() as u64,
                original_bytes: packet.original_len,
                interface: packet.interface_id,
                section,
                packet: packet.data.into_owned(),
            }),
            _ => {}
        }
    }
    packets
}

#[test]
fn a_capture_without_packets_is_a_capture() {
    let pcap = Build::new(Order::Little).pcap_header(0xa1b2_c3d4, 1).bytes;
    let pcapng = Build::new(Order::Big).section().other_blocks().bytes;
    for capture in [pcap, pcapng] {
        let whole = read_bytes(&capture);
        assert!(whole.packets.is_empty() && whole.error.is_none() && whole.bytes == capture);
    }
}
