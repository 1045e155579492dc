//! Lanes without tunnels: each class of packets has a router of its own, and a mark.

use crate::daemon::{Plan, frames_sent, missed, routed, start_both, stop_both};
use crate::lab::{SERVER, SERVER_V6};
use crate::site::on_sites;
use crate::sniffer::Sniffer;
use crate::web::{Nginx, download, upload};

#[test]
fn each_lane_takes_its_router_and_carries_its_mark() {
    on_sites(|site| {
        let sniffers = site.routers.each_ref().map(|router| Sniffer::start(site, router, "a0"));
        let daemons = start_both(site, &Plan::next_hops());
        let nginx = Nginx::start(site, &site.server);
        for size in [1_000, 1_000_000] {
            let name = nginx.serve(size);
            for address in [SERVER, SERVER_V6] {
                download(site, &site.client, &nginx, address, &name);
                upload(&site.client, &nginx, address, &name);
            }
        }
        drop(nginx);
        site.wait_for_silence();
        let paths = sniffers.map(Sniffer::finish);
        let last = stop_both(daemons);
        assert_eq!(last.each_ref().map(missed), [0, 0]);
        let [a, b] = last.each_ref().map(routed);
        for (lane, (path, dscp)) in paths.iter().zip([18, 10]).enumerate() {
            // Between the hosts, of TCP with the lane's mark.
            let traffic_class = format!(
                "((ip and ip[1] >> 2 == {dscp}) or (ip6 and ip6[0:2] >> 6 & 0x3f == {dscp}))"
            );
            let from = |net: usize, filter: &str| {
                let nets = format!("(src net 10.{net}.0.0/24 or src net fd0{net}::/64)");
                path.count(&format!("{nets} and ({filter})"))
            };
            let is_tcp = "(tcp or ip6[6] == 6)";
            for (net, gateway, status) in [(1, &a, &last[0]), (2, &b, &last[1])] {
                let sent = gateway.lanes[lane].sent;
                let marked = from(net, &format!("{is_tcp} and {traffic_class}"));
                assert_eq!(marked, [status.total.short, status.total.long][lane]);
                assert_eq!(from(net, is_tcp), marked, "no other mark on this path");
                // The rest, in the short lane, is ping's.
                assert_eq!(from(net, "ip or ip6"), sent, "lane {lane}");
                assert!(marked > 50, "lane {lane}");
            }
        }
        assert_eq!(a.plain_in, b.lanes[0].sent + b.lanes[1].sent);
        assert_eq!(b.plain_in, a.lanes[0].sent + a.lanes[1].sent);
        assert_eq!(frames_sent(&last[0]), a.plain_in + b.plain_in);
    });
}
