//! The reference model, sentence by sentence of the rule. Headers are etherparse's, so that the model
//! and what it reads do not share a mistake.

use std::net::IpAddr;

use dataplane::verdict::{Class, Outcome, Untouched};
use etherparse::{
    EtherType, Ethernet2Header, IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, Ipv4HeaderSlice,
    Ipv4Options, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, PacketBuilder, SingleVlanHeader,
    TcpHeader, VlanId, VlanPcp, ip_number,
};
use pcap_tests::model::{Counts, Ending, Model, Policy, Rule};

const SHORT: Outcome = Outcome::Classified(Class::Short);
const LONG: Outcome = Outcome::Classified(Class::Long);
const MALFORMED: Outcome = Outcome::Untouched(Untouched::Malformed);
const TRUNCATED: Outcome = Outcome::Untouched(Untouched::Truncated);
const FRAGMENT: Outcome = Outcome::Untouched(Untouched::Fragment);
const NON_TCP: Outcome = Outcome::Untouched(Untouched::NonTcp);
const NON_IP: Outcome = Outcome::Untouched(Untouched::NonIp);

const TIMEOUT_NS: u64 = 30_000_000_000;
/// Where the IP header begins in a frame without tags.
const IP: usize = 14;
/// Where the TCP header begins behind an IPv4 header without options.
const TCP: usize = IP + 20;

fn rule(threshold_packets: u32) -> Rule {
    Rule {
        policy: Policy::Split,
        threshold_packets,
        idle_timeout_ns: TIMEOUT_NS,
        restart_on_syn: true,
        short_dscp: 18,
        long_dscp: 10,
        fragmented_datagrams_max: 4,
    }
}

fn model(threshold_packets: u32) -> Model {
    Model::new(rule(threshold_packets))
}

/// The outcome for a whole frame; an untouched one must be left as it was.
fn outcome(model: &mut Model, frame: &[u8], received_ns: u64) -> Outcome {
    outcome_of_cut(model, frame, frame.len(), received_ns)
}

fn outcome_of_cut(model: &mut Model, kept: &[u8], wire_bytes: usize, received_ns: u64) -> Outcome {
    let answer = model.packet(kept, wire_bytes as u32, received_ns);
    assert_eq!(answer.frame.len(), kept.len());
    if let Outcome::Untouched(_) = answer.outcome {
        assert_eq!(answer.frame, kept);
    }
    answer.outcome
}

/// The outcome for a whole frame that is the first ever.
fn alone(frame: &[u8]) -> Outcome {
    outcome(&mut model(1), frame, 0)
}

// Frames.

enum Flags {
    Ack,
    Syn,
    SynAck,
}

fn tcp_header(source_port: u16, destination_port: u16, flags: Flags) -> TcpHeader {
    let mut header = TcpHeader::new(source_port, destination_port, 1, 1000);
    header.syn = matches!(flags, Flags::Syn | Flags::SynAck);
    header.ack = matches!(flags, Flags::Ack | Flags::SynAck);
    header
}

fn segment(flags: Flags) -> Vec<u8> {
    segment_between(1000, 2000, flags)
}

fn segment_between(source_port: u16, destination_port: u16, flags: Flags) -> Vec<u8> {
    let mut bytes = tcp_header(source_port, destination_port, flags).to_bytes().to_vec();
    bytes.extend(b"payload");
    bytes
}

fn ipv4_header(protocol: IpNumber) -> Ipv4Header {
    Ipv4Header::new(0, 64, protocol, [10, 0, 0, 1], [10, 0, 0, 2])
        .expect("no payload is not too big")
}

fn ipv4_packet(mut header: Ipv4Header, payload: &[u8]) -> Vec<u8> {
    header.set_payload_len(payload.len()).expect("small");
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes(), payload].concat()
}

/// The bytes behind IPv6's fixed header, of which `next_header` is the first.
fn ipv6_packet(next_header: IpNumber, payload: &[u8]) -> Vec<u8> {
    let mut header = Ipv6Header {
        next_header,
        hop_limit: 64,
        source: [0x20; 16],
        destination: [0x21; 16],
        ..Default::default()
    };
    header.set_payload_length(payload.len()).expect("small");
    [&header.to_bytes(), payload].concat()
}

fn ethernet(ip_packet: &[u8]) -> Vec<u8> {
    tagged(&[], ip_packet)
}

/// Tags outer to inner: type, priority, VLAN identifier.
fn tagged(tags: &[(u16, u8, u16)], ip_packet: &[u8]) -> Vec<u8> {
    let inner = if ip_packet[0] >> 4 == 4 { EtherType::IPV4 } else { EtherType::IPV6 };
    let type_at =
        |level: usize| tags.get(level).map_or(inner, |&(tag_type, ..)| EtherType(tag_type));
    let mut frame = Ethernet2Header {
        source: [2, 0, 0, 0, 0, 1],
        destination: [2, 0, 0, 0, 0, 2],
        ether_type: type_at(0),
    }
    .to_bytes()
    .to_vec();
    for (level, &(_, priority, vlan)) in tags.iter().enumerate() {
        let tag = SingleVlanHeader {
            pcp: VlanPcp::try_new(priority).expect("three bits"),
            drop_eligible_indicator: priority % 2 == 1,
            vlan_id: VlanId::try_new(vlan).expect("twelve bits"),
            ether_type: type_at(level + 1),
        };
        frame.extend(tag.to_bytes());
    }
    frame.extend(ip_packet);
    frame
}

fn frame(flags: Flags) -> Vec<u8> {
    ethernet(&ipv4_packet(ipv4_header(ip_number::TCP), &segment(flags)))
}

fn ack() -> Vec<u8> {
    frame(Flags::Ack)
}

/// A fragment of an IPv4 datagram, its offset in units of eight bytes.
fn ipv4_fragment(identification: u16, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut header = ipv4_header(ip_number::TCP);
    header.identification = identification;
    header.fragment_offset = IpFragOffset::try_new(offset).expect("thirteen bits");
    header.more_fragments = more;
    ipv4_packet(header, payload)
}

fn first_fragment(identification: u16) -> Vec<u8> {
    ethernet(&ipv4_fragment(identification, 0, true, &segment(Flags::Ack)))
}

fn later_fragment(identification: u16) -> Vec<u8> {
    ethernet(&ipv4_fragment(identification, 3, false, b"the rest"))
}

/// A fragment header and what follows it.
fn fragment_header(
    next_header: IpNumber,
    identification: u32,
    offset: u16,
    more: bool,
    rest: &[u8],
) -> Vec<u8> {
    let offset = IpFragOffset::try_new(offset).expect("thirteen bits");
    let header = Ipv6FragmentHeader::new(next_header, offset, more, identification);
    [&header.to_bytes(), rest].concat()
}

/// An extension header other than a fragment header, and what follows it.
fn extension(next_header: IpNumber, bytes: usize, rest: &[u8]) -> Vec<u8> {
    let content = vec![1; bytes - 2];
    let header = Ipv6RawExtHeader::new_raw(next_header, &content).expect("a multiple of eight");
    [&header.to_bytes(), rest].concat()
}

/// TCP behind `count` extension headers of eight bytes each, the kinds in turn.
fn chain(count: usize) -> Vec<u8> {
    let kinds = [
        ip_number::IPV6_HEADER_HOP_BY_HOP,
        ip_number::IPV6_ROUTE_HEADER,
        ip_number::IPV6_FRAGMENTATION_HEADER,
        ip_number::IPV6_DESTINATION_OPTIONS,
    ];
    let mut next_header = ip_number::TCP;
    let mut bytes = segment(Flags::Ack);
    for index in (0..count).rev() {
        let kind = kinds[index % 4];
        bytes = if kind == ip_number::IPV6_FRAGMENTATION_HEADER {
            fragment_header(next_header, 1, 0, false, &bytes)
        } else {
            extension(next_header, 8, &bytes)
        };
        next_header = kind;
    }
    ethernet(&ipv6_packet(next_header, &bytes))
}

fn set_word(frame: &mut [u8], at: usize, word: u16) {
    frame[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

// Flows and their counts.

#[test]
fn up_to_the_threshold_a_flow_is_short_and_above_it_long() {
    let mut model = model(3);
    let outcomes: Vec<_> = (0..5).map(|at_ns| outcome(&mut model, &ack(), at_ns)).collect();
    assert_eq!(outcomes, [SHORT, SHORT, SHORT, LONG, LONG]);
}

#[test]
fn threshold_of_zero_makes_every_packet_long() {
    let mut model = model(0);
    assert_eq!(outcome(&mut model, &frame(Flags::Syn), 5), LONG);
    assert_eq!(model.lives()[0].promoted_at_ns, Some(5));
}

#[test]
fn each_direction_is_a_flow_of_its_own() {
    let there = PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(1000, 2000, 1, 1);
    let back = PacketBuilder::ethernet2([2; 6], [1; 6])
        .ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64)
        .tcp(2000, 1000, 1, 1);
    let (mut one, mut other) = (Vec::new(), Vec::new());
    there.write(&mut one, &[]).expect("into memory");
    back.write(&mut other, &[]).expect("into memory");

    let mut model = model(1);
    assert_eq!(outcome(&mut model, &one, 0), SHORT);
    assert_eq!(outcome(&mut model, &other, 0), SHORT);
    assert_eq!(outcome(&mut model, &one, 0), LONG);
    assert_eq!(model.counts().created, 2);
}

#[test]
fn a_flow_is_told_by_every_part_of_its_tuple() {
    let ipv4 = |source: [u8; 4], destination: [u8; 4], source_port, destination_port| {
        let mut header = ipv4_header(ip_number::TCP);
        (header.source, header.destination) = (source, destination);
        let segment = segment_between(source_port, destination_port, Flags::Ack);
        ipv4_packet(header, &segment)
    };
    let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let plain = ipv4(a, b, 1, 2);
    let mut mapped = ipv6_packet(ip_number::TCP, &segment_between(1, 2, Flags::Ack));
    mapped[8..24].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
    mapped[24..40].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2]);

    let frames = [
        ethernet(&plain),
        ethernet(&ipv4(b, b, 1, 2)),
        ethernet(&ipv4(a, a, 1, 2)),
        ethernet(&ipv4(a, b, 2, 2)),
        ethernet(&ipv4(a, b, 1, 1)),
        ethernet(&ipv4(a, b, 2, 1)),
        ethernet(&mapped),
        tagged(&[(0x8100, 0, 0)], &plain),
        tagged(&[(0x8100, 0, 0), (0x8100, 0, 0)], &plain),
        tagged(&[(0x8100, 0, 1)], &plain),
        tagged(&[(0x8100, 0, 1), (0x8100, 0, 2)], &plain),
        tagged(&[(0x8100, 0, 2), (0x8100, 0, 1)], &plain),
    ];
    let mut model = model(1);
    for frame in &frames {
        assert_eq!(outcome(&mut model, frame, 0), SHORT);
    }
    for frame in &frames {
        assert_eq!(outcome(&mut model, frame, 0), LONG);
    }
    assert_eq!(model.lives().len(), frames.len());
}

#[test]
fn priority_and_tag_type_do_not_tell_flows_apart() {
    let packet = ipv4_packet(ipv4_header(ip_number::TCP), &segment(Flags::Ack));
    let mut model = model(1);
    assert_eq!(outcome(&mut model, &tagged(&[(0x8100, 0, 5), (0x8100, 1, 6)], &packet), 0), SHORT);
    assert_eq!(outcome(&mut model, &tagged(&[(0x88a8, 7, 5), (0x9100, 2, 6)], &packet), 0), LONG);
    assert_eq!(model.into_lives()[0].flow.vlans, [5, 6]);
}

#[test]
fn a_life_has_its_tuple_packets_wire_bytes_and_times() {
    let mut model = model(2);
    let frame = ack();
    outcome(&mut model, &frame, 10);
    outcome_of_cut(&mut model, &frame[..54], frame.len(), 20);
    outcome(&mut model, &frame, 30);
    outcome(&mut model, &frame, 40);
    let life = &model.lives()[0];
    assert_eq!(life.flow.source, IpAddr::from([10, 0, 0, 1]));
    assert_eq!(life.flow.destination, IpAddr::from([10, 0, 0, 2]));
    assert_eq!((life.flow.source_port, life.flow.destination_port), (1000, 2000));
    assert_eq!((life.packets, life.bytes), (4, 4 * frame.len() as u64));
    assert_eq!((life.first_ns, life.last_ns), (10, 40));
    assert_eq!((life.class, life.promoted_at_ns), (Class::Long, Some(30)));
}

// Silence.

#[test]
fn silence_of_exactly_the_idle_timeout_ends_nothing() {
    let mut model = model(1);
    assert_eq!(outcome(&mut model, &ack(), 7), SHORT);
    assert_eq!(outcome(&mut model, &ack(), 7 + TIMEOUT_NS), LONG);
    assert_eq!(outcome(&mut model, &ack(), 7 + 2 * TIMEOUT_NS), LONG);
}

#[test]
fn silence_of_one_nanosecond_more_starts_a_new_flow() {
    let mut model = model(1);
    outcome(&mut model, &ack(), 7);
    assert_eq!(outcome(&mut model, &ack(), 8), LONG);
    assert_eq!(outcome(&mut model, &ack(), 8 + TIMEOUT_NS + 1), SHORT);
    let lives = model.lives();
    assert_eq!((lives[0].ending, lives[0].packets), (Ending::Idle, 2));
    assert_eq!((lives[1].ending, lives[1].packets), (Ending::Open, 1));
}

#[test]
fn silence_is_broken_by_other_flows_of_no_one_but_themselves() {
    let other = ethernet(&ipv6_packet(ip_number::TCP, &segment(Flags::Ack)));
    let mut model = model(1);
    outcome(&mut model, &ack(), 0);
    for step in 0..=4 {
        outcome(&mut model, &other, step * TIMEOUT_NS / 4);
    }
    assert_eq!(outcome(&mut model, &ack(), TIMEOUT_NS + 1), SHORT);
}

#[test]
fn at_the_end_silence_is_measured_against_the_last_packet_of_any_kind() {
    let mut model = model(1);
    outcome(&mut model, &ack(), 0);
    outcome(&mut model, &[0; 5], TIMEOUT_NS);
    assert_eq!(model.counts(), Counts { created: 1, active: 1, ..Counts::default() });
    model.packet_from_wan(&[0; 5], TIMEOUT_NS + 1);
    assert_eq!(model.counts(), Counts { created: 1, expired: 1, ..Counts::default() });
}

// Starting afresh.

#[test]
fn syn_without_ack_starts_the_flow_afresh() {
    let mut model = model(1);
    outcome(&mut model, &ack(), 0);
    assert_eq!(outcome(&mut model, &ack(), 1), LONG);
    assert_eq!(outcome(&mut model, &frame(Flags::Syn), 2), SHORT);
    assert_eq!(outcome(&mut model, &ack(), 3), LONG);
    let expected = Counts { created: 2, promoted: 2, restarted: 1, active: 1, expired: 0 };
    assert_eq!(model.counts(), expected);
    assert_eq!(model.lives()[0].ending, Ending::Restarted);
}

#[test]
fn syn_with_ack_is_a_packet_like_any_other() {
    let mut model = model(1);
    outcome(&mut model, &ack(), 0);
    assert_eq!(outcome(&mut model, &frame(Flags::SynAck), 1), LONG);
    assert_eq!(model.counts().restarted, 0);
}

#[test]
fn syn_starts_afresh_whatever_the_other_flags() {
    for flags in 0..=255u8 {
        let mut model = model(1);
        outcome(&mut model, &ack(), 0);
        let mut frame = ack();
        frame[TCP + 13] = flags;
        let restarts = flags & 0x12 == 0x02;
        assert_eq!(outcome(&mut model, &frame, 1), if restarts { SHORT } else { LONG });
    }
}

#[test]
fn without_restart_on_syn_a_syn_counts_on() {
    let mut model = Model::new(Rule { restart_on_syn: false, ..rule(1) });
    outcome(&mut model, &ack(), 0);
    assert_eq!(outcome(&mut model, &frame(Flags::Syn), 1), LONG);
    assert_eq!(model.counts().created, 1);
}

#[test]
fn syn_after_too_long_a_silence_finds_the_flow_expired_not_restarted() {
    let mut model = model(1);
    outcome(&mut model, &ack(), 0);
    outcome(&mut model, &frame(Flags::Syn), TIMEOUT_NS + 1);
    assert_eq!(model.counts(), Counts { created: 2, expired: 1, active: 1, ..Counts::default() });
}

// Time.

#[test]
fn a_packet_stamped_earlier_than_the_last_is_handled_at_the_last_time() {
    let mut model = model(9);
    outcome(&mut model, &[0; 3], 100);
    outcome(&mut model, &ack(), 40);
    outcome(&mut model, &ack(), 100 + TIMEOUT_NS);
    let life = &model.lives()[0];
    assert_eq!((life.first_ns, life.last_ns, life.packets), (100, 100 + TIMEOUT_NS, 2));
}

// What is not classified.

#[test]
fn only_tcp_is_classified() {
    for protocol in (0..=255).filter(|&protocol| protocol != 6) {
        let packet = ipv4_packet(ipv4_header(IpNumber(protocol)), &segment(Flags::Ack));
        assert_eq!(alone(&ethernet(&packet)), NON_TCP, "IPv4 {protocol}");
        if ![0, 43, 44, 60].contains(&protocol) {
            let packet = ipv6_packet(IpNumber(protocol), &segment(Flags::Ack));
            assert_eq!(alone(&ethernet(&packet)), NON_TCP, "IPv6 {protocol}");
        }
    }
}

#[test]
fn any_other_ether_type_is_not_ip() {
    for ether_type in (0..=0xffff)
        .filter(|ether_type| ![0x0800, 0x86dd, 0x8100, 0x88a8, 0x9100].contains(ether_type))
    {
        let mut frame = ack();
        set_word(&mut frame, 12, ether_type);
        assert_eq!(alone(&frame), NON_IP, "{ether_type:#06x}");
    }
}

#[test]
fn two_tags_are_walked_and_a_third_makes_it_non_ip() {
    for packet in [
        ipv4_packet(ipv4_header(ip_number::TCP), &segment(Flags::Ack)),
        ipv6_packet(ip_number::TCP, &segment(Flags::Ack)),
    ] {
        for tag_type in [0x8100, 0x88a8, 0x9100] {
            let tag = (tag_type, 3, 9);
            assert_eq!(alone(&tagged(&[tag], &packet)), SHORT);
            assert_eq!(alone(&tagged(&[tag; 2], &packet)), SHORT);
            assert_eq!(alone(&tagged(&[tag; 3], &packet)), NON_IP);
        }
    }
    // The third need not even be there.
    let cut = &tagged(&[(0x8100, 0, 1); 3], &[0x45])[..22];
    assert_eq!(alone(cut), NON_IP);
}

#[test]
fn policy_none_looks_at_nothing() {
    let mut model = Model::new(Rule { policy: Policy::None, ..rule(1) });
    let expected = Outcome::Untouched(Untouched::Unclassified);
    assert_eq!(outcome(&mut model, &ack(), 0), expected);
    assert_eq!(outcome(&mut model, &[0; 3], 0), expected);
    assert_eq!(model.counts(), Counts::default());
}

// Lies.

#[test]
fn every_header_that_is_cut_off_on_the_wire_is_malformed() {
    let mut header = ipv4_header(ip_number::TCP);
    header.options = Ipv4Options::try_from(&[1u8; 8][..]).expect("eight bytes");
    let with_options = ipv4_packet(header, &segment(Flags::Ack));
    let frames = [
        tagged(&[(0x88a8, 0, 1), (0x8100, 0, 2)], &with_options),
        ethernet(&ipv6_packet(ip_number::TCP, &segment(Flags::Ack))),
        chain(8),
    ];
    for frame in frames {
        // A total or payload length behind the end is a lie wherever the end is.
        for length in 0..frame.len() {
            assert_eq!(alone(&frame[..length]), MALFORMED, "{length} of {}", frame.len());
        }
        assert_eq!(alone(&frame), SHORT);
    }
}

#[test]
fn a_wrong_version_is_malformed() {
    for (frame, right) in [(ack(), 4), (chain(0), 6)] {
        for version in (0..16).filter(|&version| version != right) {
            let mut frame = frame.clone();
            frame[IP] = version << 4 | frame[IP] & 0xf;
            assert_eq!(alone(&frame), MALFORMED);
        }
    }
}

#[test]
fn ipv4_header_length_lies_within_the_total_length() {
    for ihl in 0..16u8 {
        let mut frame = ack();
        frame[IP] = 0x40 | ihl;
        // 47 bytes in total: up to eleven words of header, but then no room for TCP.
        assert_eq!(alone(&frame) == SHORT, ihl == 5, "{ihl}");
        let mut frame = ethernet(&ipv4_packet(ipv4_header(ip_number::UDP), &segment(Flags::Ack)));
        frame[IP] = 0x40 | ihl;
        let expected = if (5..=11).contains(&ihl) { NON_TCP } else { MALFORMED };
        assert_eq!(alone(&frame), expected, "{ihl}");
    }
}

#[test]
fn ipv4_total_length_lies_within_the_frame_and_holds_tcp() {
    let right = 20 + segment(Flags::Ack).len() as u16;
    for total in 0..=right + 3 {
        let mut frame = ack();
        set_word(&mut frame, IP + 2, total);
        let expected = if (40..=right).contains(&total) { SHORT } else { MALFORMED };
        assert_eq!(alone(&frame), expected, "{total}");
    }
}

#[test]
fn padding_is_no_lie() {
    let mut frame = ack();
    frame.extend([0; 100]);
    assert_eq!(alone(&frame), SHORT);
    let mut frame = chain(3);
    frame.extend([0; 100]);
    assert_eq!(alone(&frame), SHORT);
}

#[test]
fn padding_is_no_part_of_a_header() {
    let mut frame = ethernet(&ipv4_packet(ipv4_header(ip_number::TCP), &[0x55; 19]));
    frame.extend([0x55; 60]);
    assert_eq!(alone(&frame), MALFORMED);
    let mut frame = ethernet(&ipv6_packet(ip_number::TCP, &[0x55; 19]));
    frame.extend([0x55; 60]);
    assert_eq!(alone(&frame), MALFORMED);
    let mut frame = ethernet(&ipv6_packet(ip_number::IPV6_DESTINATION_OPTIONS, &[6, 0, 1, 1]));
    frame.extend([0x55; 60]);
    assert_eq!(alone(&frame), MALFORMED);
}

#[test]
fn ipv4_options_are_legal() {
    for words in 0..=10 {
        let mut header = ipv4_header(ip_number::TCP);
        header.options = Ipv4Options::try_from(&vec![1; 4 * words][..]).expect("whole words");
        let packet = ipv4_packet(header, &segment(Flags::Ack));
        assert_eq!(alone(&ethernet(&packet)), SHORT);
    }
}

#[test]
fn data_offset_lies_within_the_ip_payload() {
    for (mut frame, tcp) in [(ack(), TCP), (chain(8), IP + 40 + 64)] {
        for words in 0..16u8 {
            frame[tcp + 12] = words << 4;
            // 27 bytes of payload.
            let expected = if (5..=6).contains(&words) { SHORT } else { MALFORMED };
            assert_eq!(alone(&frame), expected, "{words}");
        }
    }
}

#[test]
fn ipv6_payload_length_bounds_every_header() {
    let whole = chain(4);
    let right = (whole.len() - IP - 40) as u16;
    for payload in 0..=right + 3 {
        let mut frame = whole.clone();
        set_word(&mut frame, IP + 4, payload);
        let expected = if (32 + 20..=right).contains(&payload) { SHORT } else { MALFORMED };
        assert_eq!(alone(&frame), expected, "{payload}");
    }
}

#[test]
fn extension_header_length_lies_within_the_payload() {
    let rest = segment(Flags::Ack);
    let frame =
        ethernet(&ipv6_packet(ip_number::IPV6_ROUTE_HEADER, &extension(ip_number::UDP, 8, &rest)));
    // 8 + 27 bytes of payload.
    for units in 0..=255 {
        let mut frame = frame.clone();
        frame[IP + 41] = units;
        assert_eq!(alone(&frame), if units <= 3 { NON_TCP } else { MALFORMED });
    }
}

#[test]
fn eight_extension_headers_are_walked_and_a_ninth_is_malformed() {
    for count in 0..=8 {
        assert_eq!(alone(&chain(count)), SHORT, "{count}");
    }
    assert_eq!(alone(&chain(9)), MALFORMED);
    // It is malformed even if the ninth was not kept.
    let frame = chain(9);
    let mut model = model(1);
    let kept = &frame[..IP + 40 + 64];
    assert_eq!(outcome_of_cut(&mut model, kept, frame.len(), 0), MALFORMED);
}

#[test]
fn long_extension_headers_are_walked() {
    let chain = extension(ip_number::TCP, 2048, &segment(Flags::Ack));
    let chain = extension(ip_number::IPV6_HEADER_HOP_BY_HOP, 264, &chain);
    let frame = ethernet(&ipv6_packet(ip_number::IPV6_DESTINATION_OPTIONS, &chain));
    assert_eq!(alone(&frame), SHORT);
}

#[test]
fn any_other_header_ends_the_walk() {
    for other in [50, 51, 58, 59, 135, 139, 140, 253] {
        let inner = extension(ip_number::TCP, 8, &segment(Flags::Ack));
        let chain = extension(IpNumber(other), 8, &inner);
        let frame = ethernet(&ipv6_packet(ip_number::IPV6_DESTINATION_OPTIONS, &chain));
        assert_eq!(alone(&frame), NON_TCP);
    }
}

#[test]
fn a_malformed_packet_is_no_packet_of_its_flow() {
    let mut model = model(1);
    let mut lie = ack();
    lie[TCP + 12] = 0xf0;
    outcome(&mut model, &ack(), 0);
    assert_eq!(outcome(&mut model, &lie, TIMEOUT_NS), MALFORMED);
    assert_eq!(outcome(&mut model, &ack(), TIMEOUT_NS + 1), SHORT);
    assert_eq!(model.lives()[0].packets, 1);
}

// Records that were cut short.

#[test]
fn a_record_needs_every_byte_up_to_the_twentieth_of_tcp() {
    let mut header = ipv4_header(ip_number::TCP);
    header.options = Ipv4Options::try_from(&[1u8; 8][..]).expect("eight bytes");
    let with_options = ipv4_packet(header, &segment(Flags::Ack));
    let frames = [
        (ack(), TCP + 20),
        (tagged(&[(0x8100, 0, 1), (0x8100, 0, 1)], &with_options), 8 + TCP + 8 + 20),
        (chain(0), IP + 40 + 20),
        (chain(8), IP + 40 + 64 + 20),
    ];
    for (frame, needed) in frames {
        for kept in 0..=frame.len() {
            let mut model = model(1);
            let outcome = outcome_of_cut(&mut model, &frame[..kept], frame.len(), 0);
            assert_eq!(outcome, if kept < needed { TRUNCATED } else { SHORT }, "{kept}");
        }
    }
}

#[test]
fn tcp_options_need_not_be_kept_but_must_have_been_there() {
    let mut header = tcp_header(1, 2, Flags::Ack);
    header.set_options_raw(&[1; 12]).expect("three words");
    let mut frame = ethernet(&ipv4_packet(ipv4_header(ip_number::TCP), &header.to_bytes()));
    let length = frame.len();
    let mut model = model(1);
    assert_eq!(outcome_of_cut(&mut model, &frame[..TCP + 20], length, 0), SHORT);
    frame[TCP + 12] = 0x90;
    assert_eq!(outcome_of_cut(&mut model, &frame[..TCP + 20], length, 0), MALFORMED);
}

#[test]
fn the_content_of_an_extension_header_need_not_be_kept_to_end_the_walk() {
    let chain = extension(ip_number::UDP, 64, &[0; 8]);
    let frame = ethernet(&ipv6_packet(ip_number::IPV6_DESTINATION_OPTIONS, &chain));
    for kept in 0..frame.len() {
        let outcome = outcome_of_cut(&mut model(1), &frame[..kept], frame.len(), 0);
        assert_eq!(outcome, if kept < IP + 40 + 8 { TRUNCATED } else { NON_TCP });
    }
}

#[test]
fn a_lie_is_found_before_what_was_not_kept_is_missed() {
    // 19 bytes of TCP, of which none was kept.
    let frame = ethernet(&ipv4_packet(ipv4_header(ip_number::TCP), &[0; 19]));
    assert_eq!(outcome_of_cut(&mut model(1), &frame[..TCP], frame.len(), 0), MALFORMED);
    // Seven bytes of an extension header.
    let frame = ethernet(&ipv6_packet(ip_number::IPV6_DESTINATION_OPTIONS, &[0; 7]));
    assert_eq!(outcome_of_cut(&mut model(1), &frame[..IP + 40], frame.len(), 0), MALFORMED);
    // A runt of which nothing was kept.
    assert_eq!(outcome_of_cut(&mut model(1), &[], 13, 0), MALFORMED);
    assert_eq!(outcome_of_cut(&mut model(1), &[], 14, 0), TRUNCATED);
}

#[test]
fn the_original_length_rules_not_the_bytes_kept() {
    // 1400 bytes of payload on the wire.
    let mut frame = ack();
    set_word(&mut frame, IP + 2, 1440);
    assert_eq!(outcome_of_cut(&mut model(1), &frame, IP + 1440, 0), SHORT);
    assert_eq!(outcome_of_cut(&mut model(1), &frame, IP + 1439, 0), MALFORMED);
}

#[test]
fn a_truncated_packet_is_no_packet_of_its_flow() {
    let frame = ack();
    let mut model = model(1);
    assert_eq!(outcome_of_cut(&mut model, &frame[..TCP + 19], frame.len(), 0), TRUNCATED);
    assert_eq!(model.counts(), Counts::default());
}

// Fragments.

#[test]
fn fragment_without_its_first_is_short() {
    // Short for it travels in the short lane, untouched.
    assert_eq!(alone(&later_fragment(1)), FRAGMENT);
}

#[test]
fn first_fragment_is_a_packet_of_its_flow() {
    let mut model = model(1);
    assert_eq!(outcome(&mut model, &ack(), 0), SHORT);
    assert_eq!(outcome(&mut model, &first_fragment(1), 0), LONG);
    assert_eq!(model.lives()[0].packets, 2);
}

#[test]
fn later_fragments_take_the_class_of_the_first_and_do_not_count() {
    let mut model = model(1);
    assert_eq!(outcome(&mut model, &first_fragment(1), 0), SHORT);
    let before = model.lives().to_vec();
    for _ in 0..3 {
        assert_eq!(outcome(&mut model, &later_fragment(1), 5), SHORT);
    }
    assert_eq!(model.lives(), before);
    assert_eq!(outcome(&mut model, &first_fragment(2), 6), LONG);
    assert_eq!(outcome(&mut model, &later_fragment(1), 7), SHORT);
    assert_eq!(outcome(&mut model, &later_fragment(2), 7), LONG);
}

#[test]
fn later_fragments_do_not_keep_a_flow_alive() {
    let mut model = model(1);
    outcome(&mut model, &first_fragment(1), 0);
    outcome(&mut model, &later_fragment(1), TIMEOUT_NS);
    assert_eq!(outcome(&mut model, &ack(), TIMEOUT_NS + 1), SHORT);
}

#[test]
fn later_fragments_find_their_class_however_late() {
    let mut model = model(0);
    outcome(&mut model, &first_fragment(1), 0);
    assert_eq!(outcome(&mut model, &later_fragment(1), 1000 * TIMEOUT_NS), LONG);
}

#[test]
fn later_fragments_are_marked() {
    let mut model = model(1);
    outcome(&mut model, &first_fragment(1), 0);
    let frame = later_fragment(1);
    let answer = model.packet(&frame, frame.len() as u32, 0);
    let header = Ipv4HeaderSlice::from_slice(&answer.frame[IP..]).expect("IPv4");
    assert_eq!(header.dcp().value(), 18);
    assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
}

#[test]
fn a_datagram_is_told_by_vlans_addresses_protocol_and_identification() {
    let first = ipv4_fragment(7, 0, true, &segment(Flags::Ack));
    let later = ipv4_fragment(7, 3, false, b"the rest");
    let mut model = model(1);
    outcome(&mut model, &tagged(&[(0x8100, 0, 5)], &first), 0);

    assert_eq!(outcome(&mut model, &ethernet(&later), 0), FRAGMENT);
    assert_eq!(outcome(&mut model, &tagged(&[(0x8100, 0, 6)], &later), 0), FRAGMENT);
    let mut other = later.clone();
    other[19] ^= 1;
    assert_eq!(outcome(&mut model, &tagged(&[(0x8100, 0, 5)], &other), 0), FRAGMENT);
    let mut other = later.clone();
    other[15] ^= 1;
    assert_eq!(outcome(&mut model, &tagged(&[(0x8100, 0, 5)], &other), 0), FRAGMENT);
    let mut other = later.clone();
    other[5] ^= 1;
    assert_eq!(outcome(&mut model, &tagged(&[(0x8100, 0, 5)], &other), 0), FRAGMENT);
    let mut other = later.clone();
    other[9] = 17;
    assert_eq!(outcome(&mut model, &tagged(&[(0x8100, 0, 5)], &other), 0), NON_TCP);
    assert_eq!(outcome(&mut model, &tagged(&[(0x88a8, 7, 5)], &later), 0), SHORT);
}

#[test]
fn when_fragments_memory_is_full_the_oldest_datagram_is_forgotten() {
    let mut model = model(100);
    for identification in 1..=4 {
        outcome(&mut model, &first_fragment(identification), 0);
    }
    assert_eq!(outcome(&mut model, &later_fragment(1), 0), SHORT);
    outcome(&mut model, &first_fragment(5), 0);
    assert_eq!(outcome(&mut model, &later_fragment(1), 0), FRAGMENT);
    for identification in 2..=5 {
        assert_eq!(outcome(&mut model, &later_fragment(identification), 0), SHORT);
    }
}

#[test]
fn a_first_fragment_seen_again_overwrites_the_class_and_keeps_its_age() {
    let mut model = model(4);
    for identification in 1..=4 {
        outcome(&mut model, &first_fragment(identification), 0);
    }
    assert_eq!(outcome(&mut model, &first_fragment(1), 0), LONG);
    assert_eq!(outcome(&mut model, &later_fragment(1), 0), LONG);
    assert_eq!(outcome(&mut model, &later_fragment(2), 0), SHORT);
    outcome(&mut model, &first_fragment(5), 0);
    assert_eq!(outcome(&mut model, &later_fragment(1), 0), FRAGMENT);
    assert_eq!(outcome(&mut model, &later_fragment(2), 0), SHORT);
}

#[test]
fn without_memory_no_fragment_finds_its_first() {
    let mut model = Model::new(Rule { fragmented_datagrams_max: 0, ..rule(1) });
    assert_eq!(outcome(&mut model, &first_fragment(1), 0), SHORT);
    assert_eq!(outcome(&mut model, &later_fragment(1), 0), FRAGMENT);
}

#[test]
fn a_first_fragment_too_small_for_tcp_is_malformed_and_not_remembered() {
    let mut model = model(1);
    let tiny = ethernet(&ipv4_fragment(1, 0, true, &segment(Flags::Ack)[..16]));
    assert_eq!(outcome(&mut model, &tiny, 0), MALFORMED);
    assert_eq!(outcome(&mut model, &later_fragment(1), 0), FRAGMENT);
    // Nor does it undo what was remembered.
    outcome(&mut model, &first_fragment(1), 0);
    assert_eq!(outcome(&mut model, &tiny, 0), MALFORMED);
    assert_eq!(outcome(&mut model, &later_fragment(1), 0), SHORT);
}

#[test]
fn fragments_of_anything_else_are_non_tcp() {
    for (offset, more) in [(0, true), (3, true), (3, false)] {
        let mut packet = ipv4_fragment(1, offset, more, &segment(Flags::Ack));
        packet[9] = 17;
        assert_eq!(alone(&ethernet(&packet)), NON_TCP);
        let chain = fragment_header(ip_number::UDP, 1, offset, more, &segment(Flags::Ack));
        let packet = ipv6_packet(ip_number::IPV6_FRAGMENTATION_HEADER, &chain);
        assert_eq!(alone(&ethernet(&packet)), NON_TCP);
    }
}

#[test]
fn do_not_fragment_and_reserved_bits_make_no_fragment() {
    let mut frame = ack();
    for flags in [0x40, 0x80, 0xc0] {
        frame[IP + 6] = flags;
        assert_eq!(alone(&frame), SHORT);
    }
    let chain = fragment_header(ip_number::TCP, 1, 0, false, &segment(Flags::Ack));
    let mut frame = ethernet(&ipv6_packet(ip_number::IPV6_FRAGMENTATION_HEADER, &chain));
    frame[IP + 40 + 1] = 0xff;
    frame[IP + 40 + 3] = 0x06;
    let mut model = model(1);
    assert_eq!(outcome(&mut model, &frame, 0), SHORT);
    let chain = fragment_header(ip_number::TCP, 1, 5, false, b"the rest");
    let later = ethernet(&ipv6_packet(ip_number::IPV6_FRAGMENTATION_HEADER, &chain));
    assert_eq!(outcome(&mut model, &later, 0), FRAGMENT);
}

/// An IPv6 fragment, with eight bytes of destination options before its header.
fn ipv6_fragment(next: IpNumber, identification: u32, offset: u16, rest: &[u8]) -> Vec<u8> {
    let fragment = fragment_header(next, identification, offset, offset == 0, rest);
    let chain = extension(ip_number::IPV6_FRAGMENTATION_HEADER, 8, &fragment);
    ethernet(&ipv6_packet(ip_number::IPV6_DESTINATION_OPTIONS, &chain))
}

#[test]
fn ipv6_fragments_go_by_their_header() {
    let mut model = model(0);
    let first = ipv6_fragment(ip_number::TCP, 0x1_0001, 0, &segment(Flags::Ack));
    assert_eq!(outcome(&mut model, &first, 0), LONG);
    let later = |identification| ipv6_fragment(ip_number::TCP, identification, 8, b"the rest");
    assert_eq!(outcome(&mut model, &later(0x1_0001), 0), LONG);
    assert_eq!(outcome(&mut model, &later(0x0_0001), 0), FRAGMENT);
    assert_eq!(model.lives()[0].packets, 1);
}

#[test]
fn ipv6_datagram_protocol_is_what_the_fragment_header_says() {
    let options = ip_number::IPV6_DESTINATION_OPTIONS;
    let inner = extension(ip_number::TCP, 8, &segment(Flags::Ack));
    let mut model = model(1);
    assert_eq!(outcome(&mut model, &ipv6_fragment(options, 1, 0, &inner), 0), SHORT);
    let later = |next| ipv6_fragment(next, 1, 8, b"the rest");
    assert_eq!(outcome(&mut model, &later(options), 0), SHORT);
    assert_eq!(outcome(&mut model, &later(ip_number::TCP), 0), FRAGMENT);
    assert_eq!(outcome(&mut model, &later(ip_number::IPV6_ROUTE_HEADER), 0), FRAGMENT);
    assert_eq!(outcome(&mut model, &later(ip_number::UDP), 0), NON_TCP);
    assert_eq!(outcome(&mut model, &later(ip_number::AUTHENTICATION_HEADER), 0), NON_TCP);
}

#[test]
fn of_several_first_fragment_headers_the_last_counts() {
    let again = ip_number::IPV6_FRAGMENTATION_HEADER;
    let inner = fragment_header(ip_number::TCP, 2, 0, true, &segment(Flags::Ack));
    let mut model = model(1);
    assert_eq!(outcome(&mut model, &ipv6_fragment(again, 1, 0, &inner), 0), SHORT);
    let later = |next, identification| ipv6_fragment(next, identification, 8, b"the rest");
    assert_eq!(outcome(&mut model, &later(ip_number::TCP, 2), 0), SHORT);
    assert_eq!(outcome(&mut model, &later(again, 1), 0), FRAGMENT);
    // One that fragments nothing does not count.
    let inner = fragment_header(ip_number::TCP, 4, 0, false, &segment(Flags::Ack));
    assert_eq!(outcome(&mut model, &ipv6_fragment(again, 3, 0, &inner), 0), LONG);
    assert_eq!(outcome(&mut model, &later(again, 3), 0), LONG);
    assert_eq!(outcome(&mut model, &later(ip_number::TCP, 4), 0), FRAGMENT);
}

#[test]
fn a_later_fragment_header_ends_the_walk() {
    let again = ip_number::IPV6_FRAGMENTATION_HEADER;
    let inner = fragment_header(ip_number::TCP, 2, 8, false, &[0xff; 3]);
    let mut model = model(1);
    // The outer one is a first fragment, but what it holds is not, so nothing is remembered.
    assert_eq!(outcome(&mut model, &ipv6_fragment(again, 1, 0, &inner), 0), FRAGMENT);
    assert_eq!(outcome(&mut model, &ipv6_fragment(again, 1, 8, &inner), 0), FRAGMENT);
    // What follows is not looked at.
    let nothing = ipv6_fragment(ip_number::IPV6_ROUTE_HEADER, 5, 8, &[]);
    assert_eq!(outcome(&mut model, &nothing, 0), FRAGMENT);
}

#[test]
fn an_ipv6_fragment_header_that_fragments_nothing_is_an_ordinary_packet() {
    let atomic = fragment_header(ip_number::TCP, 1, 0, false, &segment(Flags::Ack));
    let atomic = ethernet(&ipv6_packet(ip_number::IPV6_FRAGMENTATION_HEADER, &atomic));
    let mut model = model(1);
    assert_eq!(outcome(&mut model, &atomic, 0), SHORT);
    let later = fragment_header(ip_number::TCP, 1, 8, false, b"the rest");
    let later = ethernet(&ipv6_packet(ip_number::IPV6_FRAGMENTATION_HEADER, &later));
    assert_eq!(outcome(&mut model, &later, 0), FRAGMENT);
    assert_eq!(outcome(&mut model, &chain(0), 0), LONG);
}

// Marking.

#[test]
fn ipv4_marking_changes_the_code_point_and_the_checksum_alone() {
    for threshold_packets in [0, 1] {
        let dscp = if threshold_packets == 0 { 10 } else { 18 };
        for type_of_service in 0..=255u8 {
            let mut header = ipv4_header(ip_number::TCP);
            header.dscp = IpDscp::try_new(type_of_service >> 2).expect("six bits");
            header.ecn = IpEcn::try_new(type_of_service & 3).expect("two bits");
            let before = ethernet(&ipv4_packet(header.clone(), &segment(Flags::Ack)));
            header.dscp = IpDscp::try_new(dscp).expect("six bits");
            let expected = ethernet(&ipv4_packet(header, &segment(Flags::Ack)));
            let after = model(threshold_packets).packet(&before, before.len() as u32, 0).frame;
            assert_eq!(after, expected, "{type_of_service:#04x}");
        }
    }
}

#[test]
fn ipv6_marking_changes_the_code_point_alone() {
    for traffic_class in 0..=255u8 {
        let mut header = Ipv6Header {
            traffic_class,
            flow_label: etherparse::Ipv6FlowLabel::try_new(0xf_1234).expect("twenty bits"),
            payload_length: 27,
            next_header: ip_number::TCP,
            hop_limit: 3,
            source: [1; 16],
            destination: [2; 16],
        };
        let packet = |header: &Ipv6Header| [&header.to_bytes()[..], &segment(Flags::Ack)].concat();
        let before = ethernet(&packet(&header));
        header.traffic_class = 18 << 2 | traffic_class & 3;
        let expected = ethernet(&packet(&header));
        assert_eq!(model(1).packet(&before, before.len() as u32, 0).frame, expected);
    }
}

#[test]
fn a_packet_that_is_marked_already_keeps_every_byte() {
    for checksum in [0x0000, 0xffff, 0x1234] {
        let mut before = ack();
        before[IP + 1] = 18 << 2 | 3;
        set_word(&mut before, IP + 10, checksum);
        assert_eq!(model(1).packet(&before, before.len() as u32, 0).frame, before);
    }
}

#[test]
fn every_checksum_right_or_wrong_is_updated_as_rfc_1624_says() {
    let mut before = ack();
    for type_of_service in [0x00, 0x2b, 0xff] {
        before[IP + 1] = type_of_service;
        for checksum in 0..=0xffffu16 {
            set_word(&mut before, IP + 10, checksum);
            let after = model(1).packet(&before, before.len() as u32, 0).frame;
            // HC' = ~(~HC + ~m + m')
            let old_word = u16::from_be_bytes([before[IP], before[IP + 1]]);
            let new_word = u16::from_be_bytes([after[IP], after[IP + 1]]);
            let mut sum = u32::from(!checksum) + u32::from(!old_word) + u32::from(new_word);
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            assert_eq!(after[IP + 10..IP + 12], (!(sum as u16)).to_be_bytes());
        }
    }
}
