//! Neighbours that answer, move, and fall silent.

use dataplane::fib::Resolution;

use super::*;

#[test]
fn the_gateway_of_a_route_is_resolved_before_anybody_asks() {
    let Some(lab) = Lab::new() else { return };
    let site = Site::new(&lab);
    let mut watched = site.mirror();
    site.gateway.run(&["ip", "route", "add", "10.2.0.0/16", "via", "192.0.2.1"]);
    let expected = link((&site.gateway, "wan"), (&site.peer, "eth0"), [0x08, 0x00]);
    let sent = Resolution::Forward { port: PortId::Wan, link: expected, mtu_bytes: 1500 };
    watched.until_it_is("10.2.1.1", sent);
}

#[test]
fn a_static_neighbour_is_used_and_a_changed_one_at_once() {
    let Some(lab) = Lab::new() else { return };
    let site = Site::new(&lab);
    let mut watched = site.mirror();
    for last in ["01", "02"] {
        let mac = format!("02:00:00:00:99:{last}");
        let mut neighbour = vec!["ip", "neigh", "replace", "10.1.0.99", "lladdr", &mac];
        neighbour.extend(["dev", "lan", "nud", "permanent"]);
        site.gateway.run(&neighbour);
        watched.until("the neighbour", |fib| match fib.resolve(ip("10.1.0.99"), 0) {
            Resolution::Forward { link, .. } => link[4..6] == [0x99, last.parse().unwrap()],
            _ => false,
        });
    }
    site.gateway.run(&["ip", "neigh", "del", "10.1.0.99", "dev", "lan"]);
    let unresolved = Resolution::Unresolved { port: PortId::Lan, address: ip("10.1.0.99") };
    watched.until_it_is("10.1.0.99", unresolved);
}

#[test]
fn a_neighbour_that_moves_to_another_mac_address_and_says_so_is_followed() {
    let Some(lab) = Lab::new() else { return };
    let site = Site::new(&lab);
    let mut watched = site.mirror();
    let before = watched.until_it_is_sent("10.1.0.7");
    site.host.run(&["ip", "link", "set", "dev", "eth0", "address", "02:00:00:00:77:07"]);
    // Whoever it speaks to learns where it is now.
    site.host.run(&["ping", "-n", "-q", "-c", "1", "-W", "5", "10.1.0.1"]);
    let after = link((&site.gateway, "lan"), (&site.host, "eth0"), [0x08, 0x00]);
    assert_ne!(before, after);
    let sent = Resolution::Forward { port: PortId::Lan, link: after, mtu_bytes: 1500 };
    watched.until_it_is("10.1.0.7", sent);
}

#[test]
fn a_stale_neighbour_is_confirmed_though_the_kernel_sends_it_nothing() {
    let Some(lab) = Lab::new() else { return };
    let site = Site::new(&lab);
    let mut watched = site.mirror();
    watched.until_it_is_sent("10.1.0.7");
    let mac = site.host.mac("eth0");
    let stale =
        ["ip", "neigh", "replace", "10.1.0.7", "lladdr", &mac, "dev", "lan", "nud", "stale"];
    site.gateway.run(&stale);
    let state = || site.gateway.run(&["ip", "neigh", "show", "to", "10.1.0.7", "dev", "lan"]);
    assert!(state().contains("STALE"), "{}", state());
    watched.until("the kernel to ask again", |_| {
        let state = state();
        ["DELAY", "PROBE", "REACHABLE"].iter().any(|good| state.contains(good))
    });
    assert!(matches!(watched.resolve("10.1.0.7"), Resolution::Forward { .. }));
}
