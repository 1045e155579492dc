//! Routes to the tunnel ends by BGP: BIRD on both gateways and on the router of the long path, which announces a way
//! to the ends of the short lane too.

use std::path::Path;
use std::time::Instant;

use crate::daemon::{Outer, Plan, routed, start_both, stop_both};
use crate::lab::{CLIENT, Namespace, Process, SERVER, wait_for};
use crate::site::{BOUND, NETS, Site, on_sites, text, words};
use crate::stream::Stream;

#[test]
fn a_route_by_bgp_is_used_when_it_comes_and_gone_when_it_is_withdrawn() {
    on_sites(|site| {
        let daemons = start_both(site, &Plan::new(Outer::Ipv4).with_keys());
        let birds = [0, 1].map(|side| Bird::start(site, &site.gateways[side], &of_gateway(side)));
        let router = Bird::start(site, &site.routers[1], &of_router());
        for bird in &birds {
            wait_for("BGP to be established", BOUND, || {
                bird.tell("show protocols upstream").contains("Established")
            });
        }
        // From here on the ends of the short lane are nowhere, unless BGP says where.
        for side in [0, 1] {
            let route = format!("ip route delete {}1/32", NETS[1 - side][0]);
            site.gateways[side].run(&words(&route));
        }
        for _ in 0..2 {
            let before = daemons.each_ref().map(|daemon| daemon.status_at_rest().total);
            for (host, address) in [(&site.client, SERVER), (&site.server, CLIENT)] {
                let ping = ["ping", "-n", "-c", "1", "-W", "5", address];
                let said = host.try_run(&ping);
                let said = String::from_utf8_lossy(&said.stdout).into_owned();
                assert!(said.contains("Unreachable"), "without a route: {said}");
            }
            for (daemon, before) in daemons.iter().zip(&before) {
                let dropped = daemon.status_at_rest().total.dropped.no_route;
                assert_eq!(dropped, before.dropped.no_route + 1);
            }
            router.tell("enable shortcut");
            let announced = Instant::now();
            wait_for("the routes to be used", BOUND, || site.answers());
            eprintln!("announced, and an answer after {:?}", announced.elapsed());
            let through = forwarded(&site.routers[1]);
            let stream = Stream::start(site, true);
            stream.wait_for_progress();
            let record = stream.end();
            assert_eq!((record.lost(), record.doubled()), (0, 0), "of {}", record.sent);
            let crossed = forwarded(&site.routers[1]) - through;
            assert!(crossed >= u64::from(record.sent), "by the router that announced it");

            router.tell("disable shortcut");
            let withdrawn = Instant::now();
            wait_for("the kernels to forget the routes", BOUND, || {
                site.gateways.iter().all(|one| !one.run(&words("ip route")).contains("bird"))
            });
            wait_for("the routes to be gone", BOUND, || {
                let sent = |status| routed(&status).lanes[0].sent;
                let before = sent(daemons[0].status_at_rest());
                let answered = site.answers();
                !answered && sent(daemons[0].status_at_rest()) == before
            });
            eprintln!("withdrawn, and nothing sent any more after {:?}", withdrawn.elapsed());
        }
        for bird in birds {
            drop(bird);
        }
        stop_both(daemons);
    });
}

/// Packets that the router has sent to site b.
fn forwarded(router: &Namespace) -> u64 {
    let count = router.run(&words("cat /sys/class/net/b0/statistics/tx_packets"));
    count.trim().parse().expect("a number")
}

const COMMON: &str = "log stderr { error, fatal, bug };\n\
     protocol device { scan time 1; }\n\
     protocol kernel { ipv4 { export where source = RTS_BGP; }; }\n";
const TIMERS: &str = "direct; connect delay time 1; connect retry time 1; error wait time 1, 2;";

fn of_gateway(side: usize) -> String {
    let net = NETS[side][0];
    format!(
        "router id {net}2;\n{COMMON}\
         protocol bgp upstream {{ local {net}2 as 6500{}; neighbor {net}12 as 65009; {TIMERS}\n\
           ipv4 {{ import all; export none; }}; }}\n",
        side + 1
    )
}

fn of_router() -> String {
    let ends = NETS.map(|net| format!("route {}1/32 blackhole;", net[0])).concat();
    let session = |side: usize| {
        let (net, number) = (NETS[side][0], side + 1);
        let far = NETS[1 - side][0];
        format!(
            "protocol bgp site{number} {{ local {net}12 as 65009; neighbor {net}2 as 6500{number}; {TIMERS}\n\
               ipv4 {{ import none; export where source = RTS_STATIC && net = {far}1/32; next hop self; }}; }}\n"
        )
    };
    format!(
        "router id 192.0.2.12;\n{COMMON}\
         protocol static shortcut {{ disabled; ipv4; {ends} }}\n{}{}",
        session(0),
        session(1)
    )
}

/// A BIRD in a namespace, with its files in the site's folder.
struct Bird<'a> {
    namespace: &'a Namespace,
    socket: String,
    _process: Process,
}

impl<'a> Bird<'a> {
    fn start(site: &Site, namespace: &'a Namespace, configuration: &str) -> Bird<'a> {
        let file = |suffix: &str| {
            let path = site.folder.file(&format!("{}.{suffix}", namespace.name()));
            text(&path).to_owned()
        };
        let (configured, socket, pid) = (file("conf"), file("ctl"), file("pid"));
        std::fs::write(&configured, configuration).expect("the folder can be written to");
        let process =
            namespace.spawn(&["bird", "-f", "-c", &configured, "-s", &socket, "-P", &pid]);
        wait_for("BIRD to listen", BOUND, || Path::new(&socket).exists());
        Bird { namespace, socket, _process: process }
    }

    fn tell(&self, command: &str) -> String {
        let birdc = ["birdc", "-s", &self.socket];
        self.namespace.run(&[&birdc[..], &words(command)].concat())
    }
}
