//! What we send, as tshark reads it.

use std::process::Command;

use dataplane::lane::encapsulation::Encapsulator;
use dataplane::lane::sequence::Numbers;
use dataplane::lane::tunnel::Tunnel;
use dataplane::wire::buffer::Buffer;
use etherparse::PacketBuilder;

use super::{run, tshark_is_there, tunnel, write_capture};

const LINK: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0, 0];
const ENTROPY: u16 = 0x1abc;

/// What is asked of one packet.
#[derive(Debug, Clone, Copy)]
struct Asked {
    outer_is_v4: bool,
    inner_is_v4: bool,
    tunnel: Tunnel,
    /// Inner traffic class.
    traffic_class: u8,
    payload_bytes: usize,
}

/// Every combination of versions and options; DSCP, TTL, DF, ECN and length differ on the way.
fn combinations() -> Vec<Asked> {
    let combination = |index: u32| {
        let bit = |place: u32| index >> place & 1 == 1;
        let (local, remote) =
            if bit(0) { ("192.0.2.1", "198.51.100.1") } else { ("2001:db8:9::1", "2001:db8:9::2") };
        let plain = tunnel(local, remote, bit(2).then_some(0xdead_0000 + index), bit(5));
        let tunnel = Tunnel {
            sequence: bit(3),
            checksum: bit(4),
            ttl: 30 + index as u8,
            dscp: (!index.is_multiple_of(3)).then_some(index as u8 % 64),
            dont_fragment: !index.is_multiple_of(5),
            ..plain
        };
        Asked {
            outer_is_v4: bit(0),
            inner_is_v4: bit(1),
            tunnel,
            traffic_class: (index * 37) as u8,
            payload_bytes: 1 + (index as usize * 41) % 700,
        }
    };
    (0..64).map(combination).collect()
}

/// The frame that comes out when an inner packet built by etherparse goes in, as the third of its tunnel.
fn sent(asked: &Asked) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([9; 6], [9; 6]);
    let builder = if asked.inner_is_v4 {
        builder.ipv4([10, 0, 0, 1], [10, 1, 0, 1], 20)
    } else {
        builder.ipv6([0xfd; 16], [0xfe; 16], 20)
    };
    let payload = vec![0x77; asked.payload_bytes];
    builder.udp(1111, 2222).write(&mut frame, &payload).expect("a frame");
    if asked.inner_is_v4 {
        frame[15] = asked.traffic_class;
        let (mut header, _) = etherparse::Ipv4Header::from_slice(&frame[14..]).expect("IPv4");
        header.header_checksum = header.calc_header_checksum();
        frame[14..34].copy_from_slice(&header.to_bytes());
    } else {
        frame[14] |= asked.traffic_class >> 4;
        frame[15] |= asked.traffic_class << 4;
    }
    let encapsulator = Encapsulator::new(&asked.tunnel, Numbers::default());
    let mut out = Vec::new();
    for _ in 0..3 {
        let mut storage = [0xee; 2048];
        storage[..frame.len()].copy_from_slice(&frame);
        let mut buffer = Buffer::new(&mut storage, frame.len() + 3);
        encapsulator.encapsulate(&mut buffer, &LINK, ENTROPY).expect("it is encapsulated");
        out = buffer.to_vec();
    }
    out
}

const FIELDS: [&str; 26] = [
    "frame.protocols",
    "ip.src",
    "ip.dst",
    "ip.ttl",
    "ip.dsfield",
    "ip.len",
    "ip.flags.df",
    "ip.id",
    "ip.checksum.status",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.hlim",
    "ipv6.tclass",
    "ipv6.plen",
    "ipv6.flow",
    "gre.flags_and_version",
    "gre.proto",
    "gre.key",
    "gre.sequence_number",
    "gre.checksum.status",
    "udp.srcport",
    "udp.dstport",
    "udp.length",
    "udp.checksum.status",
    "eth.src",
    "eth.dst",
];

/// The values of a row, by name; those of outer and inner headers one after the other.
struct Row<'a>(Vec<&'a str>);

impl Row<'_> {
    fn values(&self, name: &str) -> Vec<&str> {
        let at = FIELDS.iter().position(|&field| field == name).expect("a field");
        self.0[at].split(',').filter(|value| !value.is_empty()).collect()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.values(name).first().map(|text| match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).expect("a number"),
            None => text.parse().expect("a number"),
        })
    }
}

#[test]
fn tshark_reads_every_combination_that_we_send() {
    if !tshark_is_there() {
        return;
    }
    let asked = combinations();
    let frames: Vec<Vec<u8>> = asked.iter().map(sent).collect();
    let path = write_capture("sending.pcap", &frames);
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(path).args(["-n", "-T", "fields", "-E", "separator=;"]);
    for check in ["ip.check_checksum:TRUE", "udp.check_checksum:TRUE"] {
        tshark.args(["-o", check]);
    }
    // The entropy is the source port: tshark would take it for a service it knows.
    tshark.args(["-d", "udp.port==4754,gre"]);
    for field in FIELDS {
        tshark.args(["-e", field]);
    }
    let text = run(&mut tshark);
    let rows: Vec<Row<'_>> = text.lines().map(|line| Row(line.split(';').collect())).collect();
    assert_eq!(rows.len(), asked.len());
    for ((asked, row), frame) in asked.iter().zip(&rows).zip(&frames) {
        check_outer(asked, row, frame.len());
        check_gre(asked, row);
    }
}

fn check_outer(asked: &Asked, row: &Row<'_>, frame_bytes: usize) {
    let tunnel = &asked.tunnel;
    let protocols = row.values("frame.protocols").concat();
    let ip = |is_v4| if is_v4 { "ip" } else { "ipv6" };
    let shim = if tunnel.udp { "udp:gre" } else { "gre" };
    let (outer, inner) = (ip(asked.outer_is_v4), ip(asked.inner_is_v4));
    let expected = format!("eth:ethertype:{outer}:{shim}:{inner}:udp");
    assert!(protocols.starts_with(&expected), "{protocols}, not {expected}: {asked:?}");
    assert_eq!(row.values("eth.dst"), ["02:00:00:00:00:01"]);
    assert_eq!(row.values("eth.src"), ["02:00:00:00:00:02"]);

    let dscp = tunnel.dscp.unwrap_or(asked.traffic_class >> 2);
    let traffic_class = u64::from(dscp << 2 | asked.traffic_class & 3);
    let packet_bytes = (frame_bytes - 14) as u64;
    if asked.outer_is_v4 {
        assert_eq!(row.values("ip.src")[0], tunnel.local.to_string());
        assert_eq!(row.values("ip.dst")[0], tunnel.remote.to_string());
        assert_eq!(row.number("ip.ttl"), Some(tunnel.ttl.into()));
        assert_eq!(row.number("ip.dsfield"), Some(traffic_class));
        assert_eq!(row.number("ip.len"), Some(packet_bytes));
        assert_eq!(row.number("ip.flags.df"), Some(tunnel.dont_fragment.into()));
        let identification = if tunnel.dont_fragment { 0 } else { 2 };
        assert_eq!(row.number("ip.id"), Some(identification));
    } else {
        assert_eq!(row.values("ipv6.src")[0], tunnel.local.to_string());
        assert_eq!(row.values("ipv6.dst")[0], tunnel.remote.to_string());
        assert_eq!(row.number("ipv6.hlim"), Some(tunnel.ttl.into()));
        assert_eq!(row.number("ipv6.tclass"), Some(traffic_class));
        assert_eq!(row.number("ipv6.plen"), Some(packet_bytes - 40));
        assert_ne!(row.number("ipv6.flow"), Some(0));
    }
    // 1 is good: the checksums of all IPv4 headers.
    assert!(row.values("ip.checksum.status").iter().all(|&status| status == "1"), "{asked:?}");
}

fn check_gre(asked: &Asked, row: &Row<'_>) {
    let tunnel = &asked.tunnel;
    let flags = u64::from(tunnel.checksum) << 15
        | u64::from(tunnel.key.is_some()) << 13
        | u64::from(tunnel.sequence) << 12;
    assert_eq!(row.number("gre.flags_and_version"), Some(flags));
    let protocol = if asked.inner_is_v4 { 0x0800 } else { 0x86dd };
    assert_eq!(row.number("gre.proto"), Some(protocol));
    assert_eq!(row.number("gre.key"), tunnel.key.map(u64::from));
    assert_eq!(row.number("gre.sequence_number"), tunnel.sequence.then_some(2));
    assert_eq!(row.number("gre.checksum.status"), tunnel.checksum.then_some(1), "{asked:?}");

    let inner_udp_bytes = (asked.payload_bytes + 8).to_string();
    let statuses = row.values("udp.checksum.status");
    if !tunnel.udp {
        assert_eq!(row.values("udp.length"), [&inner_udp_bytes[..]]);
        assert_eq!(statuses, ["1"]);
        return;
    }
    assert_eq!(row.values("udp.dstport"), ["4754", "2222"]);
    assert_eq!(row.number("udp.srcport"), Some(u64::from(0xc000 | ENTROPY)));
    assert_eq!(row.values("udp.length")[1], inner_udp_bytes);
    // 3 is none at all, which IPv4 may have.
    let expected = if asked.outer_is_v4 { ["3", "1"] } else { ["1", "1"] };
    assert_eq!(statuses, expected, "{asked:?}");
}
