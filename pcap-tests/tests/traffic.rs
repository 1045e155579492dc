//! The random traffic is what it claims to be: etherparse reads it as the model does, it comes again
//! with its seed, and it goes wherever the rule has a corner.

use std::collections::HashSet;
use std::net::IpAddr;

use dataplane::verdict::{Outcome, Untouched};
use etherparse::{
    IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6RawExtHeaderSlice, LaxLinkExtSlice,
    LaxNetSlice, LaxSlicedPacket, TcpSlice, ip_number,
};
use pcap_tests::model::{Ending, Flow, Model, Rule};
use pcap_tests::traffic::{Options, Traffic};

fn rule() -> Rule {
    Rule { threshold_packets: 3, fragmented_datagrams_max: 16, ..Rule::default() }
}

/// Extension headers that are walked.
const WALKED: [IpNumber; 4] = [
    ip_number::IPV6_HEADER_HOP_BY_HOP,
    ip_number::IPV6_ROUTE_HEADER,
    ip_number::IPV6_FRAGMENTATION_HEADER,
    ip_number::IPV6_DESTINATION_OPTIONS,
];

/// What etherparse makes of a well-formed frame.
#[derive(Debug, PartialEq, Eq)]
enum Reading {
    NotIp,
    NotTcp,
    LaterFragment,
    Tcp { flow: Flow, starts: bool },
}

fn etherparse_reads(frame: &[u8]) -> Reading {
    let packet = LaxSlicedPacket::from_ethernet(frame).expect("an Ethernet header");
    let mut vlans = Vec::new();
    for extension in &packet.link_exts {
        if let LaxLinkExtSlice::Vlan(tag) = extension {
            vlans.push(tag.vlan_identifier().value());
        }
    }
    match packet.net {
        Some(LaxNetSlice::Ipv4(ip)) if vlans.len() <= 2 => {
            let header = ip.header();
            let protocol = header.protocol();
            if protocol == ip_number::TCP && header.fragments_offset().value() != 0 {
                return Reading::LaterFragment;
            }
            let ends = (header.source_addr().into(), header.destination_addr().into());
            read_transport(vlans, ends, protocol, ip.payload().payload)
        }
        Some(LaxNetSlice::Ipv6(ip)) if vlans.len() <= 2 => {
            let header = ip.header();
            let start = 14 + 4 * vlans.len() + 40;
            let mut rest = &frame[start..start + usize::from(header.payload_length())];
            let mut next = header.next_header();
            // Header by header: etherparse as a whole wants hop-by-hop options to be first.
            while WALKED.contains(&next) {
                if next == ip_number::IPV6_FRAGMENTATION_HEADER {
                    let fragment = Ipv6FragmentHeaderSlice::from_slice(rest).expect("it is whole");
                    next = fragment.next_header();
                    if fragment.fragment_offset().value() != 0 {
                        let walked = next == ip_number::TCP || WALKED.contains(&next);
                        return if walked { Reading::LaterFragment } else { Reading::NotTcp };
                    }
                    rest = &rest[fragment.slice().len()..];
                } else {
                    let extension = Ipv6RawExtHeaderSlice::from_slice(rest).expect("it is whole");
                    next = extension.next_header();
                    rest = &rest[extension.slice().len()..];
                }
            }
            let ends = (header.source_addr().into(), header.destination_addr().into());
            read_transport(vlans, ends, next, rest)
        }
        _ => Reading::NotIp,
    }
}

fn read_transport(
    vlans: Vec<u16>,
    (source, destination): (IpAddr, IpAddr),
    protocol: IpNumber,
    payload: &[u8],
) -> Reading {
    if protocol != ip_number::TCP {
        return Reading::NotTcp;
    }
    let tcp = TcpSlice::from_slice(payload).expect("a TCP header");
    let flow = Flow {
        vlans,
        source,
        destination,
        source_port: tcp.source_port(),
        destination_port: tcp.destination_port(),
    };
    Reading::Tcp { flow, starts: tcp.syn() && !tcp.ack() }
}

#[test]
fn etherparse_reads_well_formed_frames_as_the_model_does() {
    let mut traffic = Traffic::new(1, Options::default());
    let mut compared = 0;
    for number in 0..200_000 {
        let frame = traffic.next_frame();
        if !frame.well_formed {
            continue;
        }
        assert_eq!(frame.kept.len(), frame.wire_bytes as usize);
        let reading = etherparse_reads(frame.kept);
        compared += 1;

        // The flow the model found: a second packet tells whether a SYN without ACK restarts it.
        let mut model = Model::new(rule());
        let outcome = model.packet(frame.kept, frame.wire_bytes, 0).outcome;
        model.packet(frame.kept, frame.wire_bytes, 0);
        let found = match outcome {
            Outcome::Untouched(Untouched::NonIp) => Reading::NotIp,
            Outcome::Untouched(Untouched::NonTcp) => Reading::NotTcp,
            Outcome::Untouched(Untouched::Fragment) => Reading::LaterFragment,
            Outcome::Untouched(other) => panic!("frame {number} is {other:?}: {:02x?}", frame.kept),
            Outcome::Classified(_) => {
                let life = &model.lives()[0];
                Reading::Tcp { flow: life.flow.clone(), starts: life.ending == Ending::Restarted }
            }
        };
        assert_eq!(found, reading, "frame {number}: {:02x?}", frame.kept);
    }
    assert!(compared > 100_000, "{compared} compared");
}

#[test]
fn marking_leaves_a_right_checksum_right_and_a_wrong_one_as_wrong() {
    /// The one's complement sum of the header: 0xffff if the checksum is right.
    fn sum(frame: &[u8], ip: usize) -> u16 {
        let mut header = Ipv4HeaderSlice::from_slice(&frame[ip..]).expect("IPv4").to_header();
        let given = header.header_checksum;
        header.header_checksum = 0;
        let sum = u32::from(!header.calc_header_checksum()) + u32::from(given);
        (sum % 0x10000 + sum / 0x10000) as u16
    }
    let mut traffic = Traffic::new(2, Options::default());
    let mut model = Model::new(rule());
    let (mut right, mut wrong) = (0, 0);
    for _ in 0..100_000 {
        let frame = traffic.next_frame();
        let answer = model.packet(frame.kept, frame.wire_bytes, frame.received_ns);
        if !frame.well_formed || answer.frame == frame.kept {
            continue;
        }
        let Ok(packet) = LaxSlicedPacket::from_ethernet(frame.kept) else { continue };
        let Some(LaxNetSlice::Ipv4(_)) = packet.net else { continue };
        let ip = 14 + 4 * packet.link_exts.len();
        let (before, after) = (sum(frame.kept, ip), sum(&answer.frame, ip));
        // The two zeros of one's complement are one number.
        assert_eq!(before % 0xffff, after % 0xffff);
        if before == 0xffff { right += 1 } else { wrong += 1 }
    }
    assert!(right > 10_000 && wrong > 500, "{right} right, {wrong} wrong");
}

#[test]
fn a_seed_brings_back_its_frames() {
    let mut one = Traffic::new(3, Options::default());
    let mut same = Traffic::new(3, Options::default());
    let mut other = Traffic::new(4, Options::default());
    let mut differing = 0;
    for _ in 0..10_000 {
        let (a, b, c) = (one.next_frame(), same.next_frame(), other.next_frame());
        assert_eq!((a.kept, a.wire_bytes, a.received_ns), (b.kept, b.wire_bytes, b.received_ns));
        differing += u32::from(a.kept != c.kept);
    }
    assert!(differing > 9_000);
}

#[test]
fn traffic_goes_wherever_the_rule_has_a_corner() {
    let options = Options::default();
    let timeout_ns = options.idle_timeout_ns;
    let mut traffic = Traffic::new(5, options);
    let mut model = Model::new(rule());
    let mut outcomes = HashSet::new();
    let mut lengths = HashSet::new();
    let mut cuts = HashSet::new();
    let (mut backwards, mut latest_ns) = (0, 0);
    for _ in 0..500_000 {
        let frame = traffic.next_frame();
        assert!(frame.kept.len() <= frame.wire_bytes as usize);
        lengths.insert(frame.kept.len());
        if frame.kept.len() < frame.wire_bytes as usize {
            cuts.insert(frame.kept.len());
        }
        backwards += u32::from(frame.received_ns < latest_ns);
        latest_ns = latest_ns.max(frame.received_ns);
        let answer = model.packet(frame.kept, frame.wire_bytes, frame.received_ns);
        outcomes.insert(format!("{:?}", answer.outcome));
    }
    // Short, long, and all that is untouched but Unclassified.
    assert_eq!(outcomes.len(), 7, "{outcomes:?}");
    assert!((0..150).all(|length| lengths.contains(&length)), "{lengths:?}");
    assert!((0..150).all(|length| cuts.contains(&length)), "{cuts:?}");
    assert!(backwards > 1000);

    let counts = model.counts();
    assert!(
        counts.promoted > 1000 && counts.expired > 1000 && counts.restarted > 1000,
        "{counts:?}"
    );
    assert!(counts.active > 10, "{counts:?}");
    assert_eq!(counts.created, counts.expired + counts.restarted + counts.active);

    // Some ended after one nanosecond too much.
    let mut latest = std::collections::HashMap::new();
    let mut closest = 0;
    for life in model.lives() {
        if let Some((Ending::Idle, last_ns)) =
            latest.insert(&life.flow, (life.ending, life.last_ns))
        {
            closest += u32::from(life.first_ns - last_ns == timeout_ns + 1);
        }
    }
    assert!(closest > 100, "{closest}");
}
