//! Files and streams arrive whole through every kind of tunnel, and every packet took the path of its lane.

use dataplane::status::Status;

use crate::daemon::{Outer, Plan, frames_sent, missed, routed, start_both, stop_both};
use crate::lab::{Namespace, SERVER, SERVER_V6, wait_for};
use crate::site::{BOUND, NETS, Site, on_sites};
use crate::sniffer::{Capture, Sniffer};
use crate::web::{Nginx, SIZES, download, upload};

/// Options of both tunnels. Every two of them are together, apart and absent in some row.
#[derive(Debug, Clone, Copy)]
struct Options {
    outer: Outer,
    key: bool,
    sequence: bool,
    checksum: bool,
    udp: bool,
    dont_fragment: bool,
}

const fn options(outer: Outer, [key, sequence, checksum, udp, dont_fragment]: [u8; 5]) -> Options {
    Options {
        outer,
        key: key == 1,
        sequence: sequence == 1,
        checksum: checksum == 1,
        udp: udp == 1,
        dont_fragment: dont_fragment == 1,
    }
}

const ROWS: [Options; 6] = [
    options(Outer::Ipv4, [0, 0, 0, 0, 0]),
    options(Outer::Ipv6, [1, 0, 1, 0, 1]),
    options(Outer::Ipv6, [0, 1, 0, 1, 1]),
    options(Outer::Ipv6, [0, 0, 1, 1, 0]),
    options(Outer::Ipv4, [1, 1, 1, 0, 1]),
    options(Outer::Ipv4, [1, 1, 0, 1, 0]),
];

impl Options {
    fn plan(self) -> Plan {
        let plan = Plan::new(self.outer)
            .with("gre.sequence", &self.sequence.to_string())
            .with("gre.checksum", &self.checksum.to_string())
            .with("gre.udp", &self.udp.to_string())
            .with("gre.dont_fragment", &self.dont_fragment.to_string());
        if self.key { plan.with_keys() } else { plan }
    }
}

#[test]
fn every_two_options_together_carry_files_and_streams_and_each_lane_takes_its_path() {
    on_sites(|site| {
        for options in ROWS {
            let sniffers = Sniffers::start(site, 4000);
            let daemons = start_both(site, &options.plan());
            files_arrive(site, &SIZES[..4]);
            streams_arrive(site);
            site.wait_for_silence();
            let seen = sniffers.finish(site);
            let last = stop_both(daemons);
            assert_eq!(last.each_ref().map(missed), [0, 0], "{options:?}");
            seen.agree_with(&last, options);
            for (lane, path) in seen.paths.iter().enumerate() {
                let sent = [0, 1].map(|side| routed(&last[side]).lanes[lane].sent_bytes);
                assert_headers(path, options, lane, sent);
            }
        }
    });
}

#[test]
fn large_files_arrive_whole_over_both_families_of_tunnels() {
    on_sites(|site| {
        for (options, size) in [(ROWS[4], SIZES[5]), (ROWS[2], SIZES[4])] {
            let sniffers = Sniffers::start(site, 100);
            let daemons = start_both(site, &options.plan());
            files_arrive(site, &[size]);
            site.wait_for_silence();
            let seen = sniffers.finish(site);
            let last = stop_both(daemons);
            assert_eq!(last.each_ref().map(missed), [0, 0], "{options:?}");
            seen.agree_with(&last, options);
        }
    });
}

/// Both ways, over both families, byte by byte the same.
fn files_arrive(site: &Site, sizes: &[usize]) {
    let nginx = Nginx::start(site, &site.server);
    for size in sizes {
        let name = nginx.serve(*size);
        for address in [SERVER, SERVER_V6] {
            download(site, &site.client, &nginx, address, &name);
            upload(&site.client, &nginx, address, &name);
        }
    }
}

/// iperf3 both ways, over both families, TCP and UDP.
fn streams_arrive(site: &Site) {
    let _server = site.server.spawn(&["iperf3", "--server", "--logfile", "/dev/null"]);
    wait_for("iperf3 to listen", BOUND, || listens(&site.server, 5201));
    for (address, way, kind) in [
        (SERVER, "--client", &["--bytes", "4M"][..]),
        (SERVER_V6, "--reverse", &["--bytes", "4M"][..]),
        (
            SERVER_V6,
            "--client",
            &["--udp", "--bitrate", "20M", "--bytes", "1M", "--length", "1200"],
        ),
        (SERVER, "--reverse", &["--udp", "--bitrate", "20M", "--bytes", "1M", "--length", "1200"]),
    ] {
        let mut command = vec!["iperf3", "--client", address, "--json"];
        if way == "--reverse" {
            command.push(way);
        }
        let report: serde_json::Value =
            serde_json::from_str(&site.client.run(&[&command, kind].concat())).expect("JSON");
        let end = &report["end"];
        let arrived = if kind.contains(&"--udp") {
            assert_eq!(end["sum"]["lost_packets"].as_u64(), Some(0), "{end}");
            &end["sum"]["bytes"]
        } else {
            &end["sum_received"]["bytes"]
        };
        assert!(arrived.as_u64().is_some_and(|bytes| bytes >= 1 << 20), "{end}");
    }
}

fn listens(host: &Namespace, port: u16) -> bool {
    !host.run(&["ss", "-Hltn", &format!("sport = :{port}")]).is_empty()
}

/// Sniffers on both paths, and on the gateways' cables.
struct Sniffers<'a> {
    paths: [Sniffer<'a>; 2],
    /// LAN and WAN of gateway A.
    cables: [Sniffer<'a>; 2],
}

/// What they saw.
struct Seen {
    paths: [Capture; 2],
    cables: [Capture; 2],
    /// Gateway A's MAC addresses, LAN and WAN.
    macs: [String; 2],
}

impl<'a> Sniffers<'a> {
    fn start(site: &'a Site, kept_bytes: usize) -> Sniffers<'a> {
        let start =
            |namespace, interface| Sniffer::start_with(site, namespace, interface, kept_bytes);
        Sniffers {
            paths: site.routers.each_ref().map(|router| start(router, "a0")),
            cables: [start(&site.client, "eth0"), start(&site.segments[0], "p0")],
        }
    }

    fn finish(self, site: &Site) -> Seen {
        let macs = ["lan", "wan"].map(|port| site.gateways[0].mac(port));
        Seen {
            paths: self.paths.map(Sniffer::finish),
            cables: self.cables.map(Sniffer::finish),
            macs,
        }
    }
}

impl Seen {
    /// The lanes' counters are what was seen on their paths, exactly, and every frame that gateway A says it sent
    /// was on one of its cables.
    fn agree_with(&self, last: &[Status; 2], options: Options) {
        let [a, b] = last.each_ref().map(|status| routed(status).lanes);
        for (lane, path) in self.paths.iter().enumerate() {
            let [out, back] = [0, 1].map(|side| path.count(&tunnel(options, side, lane)));
            let counted = [a[lane].sent, b[lane].received, b[lane].sent, a[lane].received];
            assert_eq!(counted, [out, out, back, back], "lane {lane}, {options:?}");
            assert!(out > 20 && back > 20, "{options:?}");
            assert_eq!(
                path.count("proto 47 or udp port 4754"),
                out + back,
                "another's: {options:?}"
            );
            let sequence = [a[lane].sequence, b[lane].sequence];
            let expected = if options.sequence { [back, out] } else { [0, 0] };
            assert_eq!(sequence.map(|one| one.received), expected, "{options:?}");
            assert_eq!(sequence.map(|one| one.lost + one.reordered + one.duplicates), [0, 0]);
        }
        let sent: u64 = self
            .cables
            .iter()
            .zip(&self.macs)
            .map(|(cable, mac)| {
                cable.count(&format!("ether src {mac} and (ip or ip6) and not {NEIGHBOURS}"))
            })
            .sum();
        assert_eq!(frames_sent(&last[0]), sent, "{options:?}: {:?}", last[0].total);
    }
}

/// What kernels say to their neighbours: discovery and multicast listeners.
const NEIGHBOURS: &str = "(ip6 multicast or (ip6[6] == 58 and ip6[40] >= 130))";

/// tcpdump's filter for the tunnel packets that the gateway of a site sends in a lane.
fn tunnel(options: Options, side: usize, lane: usize) -> String {
    let [from, to] = [side, 1 - side].map(|side| NETS[side][options.outer as usize]);
    let kind = if options.udp { "udp dst port 4754" } else { "proto 47" };
    format!("src host {from}{0} and dst host {to}{0} and {kind}", lane + 1)
}

/// tshark finds in every outer header what the options say, and right checksums; the bytes add up.
fn assert_headers(path: &Capture, options: Options, lane: usize, sent_bytes: [u64; 2]) {
    const FIELDS: [&str; 10] = [
        "ip.src",
        "ipv6.src",
        "ip.len",
        "ipv6.plen",
        "ip.flags.df",
        "gre.key",
        "gre.sequence_number",
        "gre.checksum",
        "gre.checksum.status",
        "ip.checksum.status",
    ];
    let mut bytes = [0, 0];
    for row in path.fields("gre", &FIELDS) {
        let first = |at: usize| row[at].split(',').next().unwrap_or_default();
        let is_ipv4 = options.outer == Outer::Ipv4;
        let source = if is_ipv4 { first(0) } else { first(1) };
        let side =
            usize::from(source != format!("{}{}", NETS[0][options.outer as usize], lane + 1));
        let length = |text: &str| text.parse::<u64>().expect("a number");
        bytes[side] += if is_ipv4 { length(first(2)) } else { length(first(3)) + 40 };
        if is_ipv4 {
            let df = matches!(first(4), "1" | "True");
            assert_eq!(df, options.dont_fragment, "{row:?}");
        }
        let key = if options.key { format!("0x{:08x}", lane + 1) } else { String::new() };
        assert_eq!(row[5], key, "{options:?}");
        assert_eq!(!row[6].is_empty(), options.sequence, "{row:?}");
        assert_eq!(!row[7].is_empty(), options.checksum, "{row:?}");
        if options.checksum {
            assert_eq!(row[8], "1", "a right checksum: {row:?}");
        }
        assert!(row[9].split(',').all(|status| matches!(status, "" | "1" | "Good")), "{row:?}");
    }
    assert_eq!(bytes, sent_bytes, "{options:?}");
}
