//! What we fragment, put together again by scapy.

use dataplane::lane::fragmentation::Fragments;
use etherparse::{IpNumber, Ipv4Header};

use super::{from_hex, run, scapy_is_there, script, write_capture};

/// A frame with an IPv4 packet that may be fragmented, with options that are copied and others.
fn frame(identification: u16, data_bytes: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..data_bytes).map(|at| (at * 31 + at / 256) as u8).collect();
    let mut header =
        Ipv4Header::new(0, 60, IpNumber(253), [10, 0, 0, 1], [10, 1, 0, 1]).expect("IPv4");
    header.identification = identification;
    header.dont_fragment = false;
    if identification % 2 == 1 {
        header.options = [0x94, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0].into();
    }
    header.total_len = (header.header_len() + data.len()) as u16;
    header.header_checksum = header.calc_header_checksum();
    let mut frame = [&[2; 12][..], &[8, 0]].concat();
    header.write(&mut frame).expect("IPv4");
    frame.extend(data);
    frame
}

fn cut(frame: &[u8], mtu_bytes: usize) -> Vec<Vec<u8>> {
    let mut fragments = Fragments::new(frame, frame.len(), mtu_bytes).expect("fragments");
    let mut into = vec![0; 14 + mtu_bytes];
    let mut written = Vec::new();
    while let Some(length) = fragments.write_next(&mut into) {
        written.push(into[..length].to_vec());
    }
    written
}

#[test]
fn scapy_puts_fragments_and_their_fragments_together_again() {
    if !scapy_is_there() {
        return;
    }
    let mut originals = Vec::new();
    let mut frames = Vec::new();
    for (number, (data_bytes, mtu_bytes)) in
        [(1500, 1400), (1501, 1400), (4000, 1376), (65_000, 1480), (577, 576), (8000, 68)]
            .into_iter()
            .enumerate()
    {
        for twice in [false, true] {
            let identification = (2 * number + usize::from(twice)) as u16;
            let original = frame(identification, data_bytes);
            let once = cut(&original, mtu_bytes);
            assert!(once.len() > 1);
            originals.push((identification, original[14..].to_vec()));
            if twice {
                frames.extend(once.iter().flat_map(|fragment| cut(fragment, mtu_bytes / 2 + 20)));
            } else {
                frames.extend(once);
            }
        }
    }
    let path = write_capture("fragments.pcap", &frames);
    let text = run(script("reassemble.py").arg(path));
    let mut found: Vec<(u16, Vec<u8>)> = text
        .lines()
        .map(|line| {
            let (identification, data) = line.split_once(' ').expect("two columns");
            (identification.parse().expect("a number"), from_hex(data))
        })
        .collect();
    found.sort();
    assert_eq!(found.len(), originals.len());
    for ((identification, packet), (found_identification, data)) in originals.iter().zip(&found) {
        let header_bytes = usize::from(packet[0] & 15) * 4;
        assert_eq!(identification, found_identification);
        assert!(packet[header_bytes..] == data[..], "datagram {identification}");
    }
}
