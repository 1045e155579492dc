//! The ICMP errors that we send, as tshark reads them.

use std::process::Command;

use dataplane::wire::{icmp, icmpv6};
use etherparse::PacketBuilder;

use super::{run, tshark_is_there, write_capture};

const LINK: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0, 0];

/// Type, code and MTU of an error.
type Expected = (&'static str, &'static str, &'static str);

/// About an IPv4 packet of so many bytes behind its UDP header.
fn about_ipv4(error: icmp::Error, payload_bytes: usize) -> Vec<u8> {
    let mut offender = Vec::new();
    let builder = PacketBuilder::ipv4([10, 0, 0, 7], [10, 1, 0, 1], 1).udp(40001, 40002);
    builder.write(&mut offender, &vec![3; payload_bytes]).expect("a packet");
    let mut frame = vec![0; icmp::FRAME_BYTES_MAX];
    let source = [192, 0, 2, 9].into();
    let length = icmp::write(error, &LINK, source, &offender, &mut frame).expect("an error");
    frame.truncate(length);
    frame
}

fn about_ipv6(error: icmpv6::Error, payload_bytes: usize) -> Vec<u8> {
    let mut offender = Vec::new();
    let builder = PacketBuilder::ipv6([0xfd; 16], [0xfc; 16], 1).udp(40001, 40002);
    builder.write(&mut offender, &vec![3; payload_bytes]).expect("a packet");
    let mut frame = vec![0; icmpv6::FRAME_BYTES_MAX];
    let source = "2001:db8::9".parse().expect("an address");
    let length = icmpv6::write(error, &LINK, source, &offender, &mut frame).expect("an error");
    frame.truncate(length);
    frame
}

fn check(name: &str, protocol: &str, frames: &[Vec<u8>], expected: &[Expected]) {
    let path = write_capture(name, frames);
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(path).args(["-n", "-T", "fields", "-E", "separator=;"]);
    tshark.args(["-o", "ip.check_checksum:TRUE", "-E", "occurrence=f"]);
    for field in ["type", "code", "mtu", "checksum.status"] {
        tshark.arg("-e").arg(format!("{protocol}.{field}"));
    }
    for field in ["ip.checksum.status", "udp.dstport", "_ws.malformed", "frame.len"] {
        tshark.args(["-e", field]);
    }
    let text = run(&mut tshark);
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!(rows.len(), expected.len());
    for ((row, &(kind, code, mtu)), frame) in rows.iter().zip(expected).zip(frames) {
        // 1 is good; an IPv6 header has no checksum. The port is the quoted packet's.
        let header = if protocol == "icmp" { "1" } else { "" };
        let length = frame.len();
        assert_eq!(*row, format!("{kind};{code};{mtu};1;{header};40002;;{length}"), "{name}");
    }
}

#[test]
fn tshark_reads_every_error_that_we_send() {
    if !tshark_is_there() {
        return;
    }
    let ipv4 = [
        (icmp::Error::TimeExceeded, ("11", "0", "")),
        (icmp::Error::FragmentationNeeded { mtu_bytes: 1368 }, ("3", "4", "1368")),
        (icmp::Error::NetworkUnreachable, ("3", "0", "")),
        (icmp::Error::HostUnreachable, ("3", "1", "")),
    ];
    let ipv6 = [
        (icmpv6::Error::TimeExceeded, ("3", "0", "")),
        (icmpv6::Error::PacketTooBig { mtu_bytes: 1368 }, ("2", "0", "1368")),
        (icmpv6::Error::NoRoute, ("1", "0", "")),
        (icmpv6::Error::AddressUnreachable, ("1", "3", "")),
    ];
    // Odd and even, quoted whole and in part.
    let lengths = [0, 1, 33, 548, 1300, 1401];
    let frames: Vec<Vec<u8>> = ipv4
        .iter()
        .flat_map(|(error, _)| lengths.map(|length| about_ipv4(*error, length)))
        .collect();
    let expected: Vec<Expected> = ipv4.iter().flat_map(|&(_, row)| lengths.map(|_| row)).collect();
    check("errors.pcap", "icmp", &frames, &expected);
    let frames: Vec<Vec<u8>> = ipv6
        .iter()
        .flat_map(|(error, _)| lengths.map(|length| about_ipv6(*error, length)))
        .collect();
    let expected: Vec<Expected> = ipv6.iter().flat_map(|&(_, row)| lengths.map(|_| row)).collect();
    check("errors-v6.pcap", "icmpv6", &frames, &expected);
}
