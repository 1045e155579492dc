//! mgen sends both ways, and tcpdump counts.

use std::fs;
use std::time::Duration;

use measure::lab::background::{Background, command};

use crate::hosts::Hosts;
use crate::lab::{CLIENT, Process, SERVER};

#[test]
fn a_load_has_its_rate_in_both_directions_at_once() {
    let Some(hosts) = Hosts::new() else { return };
    let load = Background { rate_mbit_per_s: 100, percent: 40, duration: Duration::from_secs(4) };
    let mut capture = hosts.capture();
    let ends: Vec<Process> = [(&hosts.server, CLIENT), (&hosts.client, SERVER)]
        .map(|(host, peer)| {
            let script = load.script(peer.parse().expect("it is an address"));
            let file = hosts.file(&format!("to-{peer}.mgn"));
            fs::write(&file, script.expect("there is a load")).expect("the folder is there");
            let command = command(&file);
            host.spawn(&command.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .into();
    hosts.client_is_silent();
    let packets = capture.fields("udp.dstport == 5000", &["ip.src", "frame.len"]);
    drop(ends);

    let expected = load.packets_per_s() * load.duration.as_secs_f64();
    for source in [CLIENT, SERVER] {
        let lengths: Vec<&str> =
            packets.iter().filter(|p| p[0] == source).map(|packet| packet[1].as_str()).collect();
        assert!(lengths.iter().all(|length| *length == "1514"));
        // Five standard deviations of a Poisson count.
        let deviation = (lengths.len() as f64 - expected) / expected.sqrt();
        eprintln!("from {source}: {} packets, expected {expected:.0}", lengths.len());
        assert!(deviation.abs() < 5.0, "{} packets instead of {expected}", lengths.len());
    }
}

#[test]
fn a_load_ends_by_its_count_when_its_time_does_not_end_it() {
    let Some(hosts) = Hosts::new() else { return };
    let load = Background { rate_mbit_per_s: 10, percent: 100, duration: Duration::from_secs(1) };
    let script = load.script(SERVER.parse().expect("it is an address")).expect("a load");
    let (endless, _) = script.split_once("1.000 OFF").expect("the last line");
    let file = hosts.file("endless.mgn");
    fs::write(&file, endless).expect("the folder is there");
    let mut capture = hosts.capture();
    let command = command(&file);
    let _mgen = hosts.client.spawn(&command.iter().map(String::as_str).collect::<Vec<_>>());
    let most = load.packets_max();
    hosts.client_is_silent();
    let packets = capture.fields("udp.dstport == 5000", &["frame.len"]);
    let packets = packets.len() as u64;
    assert!((most..most + most / 10).contains(&packets), "{packets} instead of {most}");
}
