//! The gateways are hops like any router: they take one off, and answer for what has none left.

use crate::daemon::{Outer, Plan, routed, start_both, stop_both};
use crate::lab::{Namespace, SERVER, SERVER_V6};
use crate::site::{on_sites, words};
use crate::traffic::{Injector, mac};

#[test]
fn both_gateways_answer_for_packets_whose_hops_ran_out() {
    on_sites(|site| {
        for outer in [Outer::Ipv4, Outer::Ipv6] {
            let [a, b] = start_both(site, &Plan::new(outer).with_keys());
            for (hops, ipv4, ipv6) in [("1", "10.1.0.1", "fd01::1"), ("2", "10.2.0.1", "fd02::1")] {
                for (address, gateway) in [(SERVER, ipv4), (SERVER_V6, ipv6)] {
                    let said = ping(&site.client, address, hops);
                    let has_answered = said.contains(&format!("From {gateway} "))
                        || said.contains(&format!("From {gateway}: "));
                    assert!(has_answered && said.contains(" 0 received"), "{outer:?}: {said}");
                    assert!(said.contains("exceeded"), "{said}");
                }
            }
            for address in [SERVER, SERVER_V6] {
                let said = ping(&site.client, address, "3");
                assert!(said.contains(" 1 received"), "two gateways are two hops: {said}");
            }
            for status in stop_both([a, b]) {
                assert_eq!(routed(&status).icmp.time_exceeded, 2, "{outer:?}");
                assert_eq!(status.total.dropped.hop_limit, 2, "{outer:?}");
            }
        }
    });
}

#[test]
fn a_flood_of_packets_without_hops_is_not_answered_one_by_one() {
    const FLOOD: u64 = 3000;
    on_sites(|site| {
        let [a, b] = start_both(site, &Plan::new(Outer::Ipv4).with_keys());
        let before = routed(&a.status()).icmp;
        let frame = dying_frame(mac(&site.gateways[0].mac("lan")), mac(&site.client.mac("eth0")));
        let injector = Injector::new(&site.client);
        let begun = std::time::Instant::now();
        for _ in 0..FLOOD {
            injector.send(&frame);
        }
        let flooded = a.wait_for("the flood to be over", |now| {
            now.total.dropped.hop_limit + crate::daemon::missed(now) >= FLOOD
        });
        let elapsed_ms = begun.elapsed().as_millis() as u64;
        let icmp = routed(&flooded).icmp;
        let (sent, withheld) =
            (icmp.time_exceeded - before.time_exceeded, icmp.withheld - before.withheld);
        assert_eq!(sent + withheld, flooded.total.dropped.hop_limit);
        // A burst of fifty, and one a millisecond.
        assert!(sent >= 50 && sent <= 51 + elapsed_ms, "{sent} in {elapsed_ms} ms");
        stop_both([a, b]);
    });
}

fn ping(host: &Namespace, address: &str, hops: &str) -> String {
    let ping = words("ping -n -c 1 -W 5 -t");
    let output = host.try_run(&[&ping[..], &[hops, address]].concat());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A datagram from the client to the server with a TTL of 1.
fn dying_frame(gateway: [u8; 6], client: [u8; 6]) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2(client, gateway)
        .ipv4([10, 1, 0, 2], [10, 2, 0, 2], 1)
        .udp(5000, 5001);
    let mut frame = Vec::new();
    builder.write(&mut frame, &[0; 32]).expect("there is room");
    frame
}
