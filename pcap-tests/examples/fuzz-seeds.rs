//! Where the corpus began: random traffic in the form the fuzzers take.
//!
//!     cargo run -p pcap-tests --example fuzz-seeds FOLDER        writes FOLDER/parse/*, process/*, routed/*

use std::fs;
use std::io;
use std::path::Path;

use pcap_tests::fuzz::{CONFIGURATIONS, configuration, parse_seed, process_seed, routed_seed};
use pcap_tests::traffic::{Options, Random, RoutedTraffic, Traffic};

fn main() -> io::Result<()> {
    let folder = std::env::args().nth(1).expect("the folder to write to");
    let folder = Path::new(&folder);
    let mut traffic = Traffic::new(11, Options { flows: 16, ..Options::default() });
    let mut random = Random::new(12);
    for name in ["parse", "process", "routed"] {
        fs::create_dir_all(folder.join(name))?;
    }
    for number in 0..2000 {
        let parse = parse_seed(&traffic.next_frame());
        fs::write(folder.join(format!("parse/{number}")), parse)?;
        let frames = 1 + random.index(20);
        let process = process_seed(&mut random, &mut traffic, frames);
        fs::write(folder.join(format!("process/{number}")), process)?;
    }
    for number in 0..CONFIGURATIONS {
        let routed = configuration(number).routed.expect("the mode is routed");
        let tunnels = routed.tunnels().map(|(_, tunnel)| *tunnel).collect();
        let mut traffic = RoutedTraffic::new(number as u64, tunnels, Options::default());
        for seed in 0..200 {
            let frames = 1 + random.index(12);
            let script = routed_seed(&mut random, number, &mut traffic, frames);
            fs::write(folder.join(format!("routed/{number}-{seed}")), script)?;
        }
    }
    Ok(())
}
