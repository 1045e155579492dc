//! Routes, addresses and links that come, change and go.

use std::process::Command;

use dataplane::fib::Resolution;

use super::*;

#[test]
fn what_is_there_at_the_start_is_known() {
    let Some(lab) = Lab::new() else { return };
    let site = Site::new(&lab);
    site.gateway.run(&["ip", "route", "add", "10.2.0.0/16", "via", "192.0.2.1", "mtu", "1400"]);
    site.gateway.run(&["ip", "route", "add", "unreachable", "10.3.0.0/16"]);
    site.gateway.run(&["ip", "route", "add", "blackhole", "10.4.0.0/16"]);
    site.gateway.run(&["ip", "-6", "route", "add", "prohibit", "fd04::/64"]);
    site.gateway.run(&["ip", "-6", "route", "add", "fd03::/64", "via", "fd02::1"]);
    let mut watched = site.mirror();
    for own in ["10.1.0.1", "192.0.2.2", "fd01::1", "fd02::2", "127.0.0.1", "192.0.2.255"] {
        assert_eq!(watched.resolve(own), Resolution::Local, "{own}");
    }
    assert!(watched.fib.is_own(ip("192.0.2.2")) && !watched.fib.is_own(ip("192.0.2.1")));
    assert_eq!(watched.fib.ipv4_source(PortId::Lan).map(IpAddr::V4), Some(ip("10.1.0.1")));
    assert_eq!(watched.fib.ipv6_source(PortId::Wan).map(IpAddr::V6), Some(ip("fd02::2")));
    assert_eq!(watched.resolve("10.3.1.1"), Resolution::Unreachable);
    assert_eq!(watched.resolve("10.4.1.1"), Resolution::Blackhole);
    assert_eq!(watched.resolve("fd04::1"), Resolution::Prohibit);
    assert_eq!(watched.resolve("8.8.8.8"), Resolution::NoRoute);

    let wan = (&site.gateway, "wan");
    let expected = link(wan, (&site.peer, "eth0"), [0x08, 0x00]);
    assert_eq!(watched.until_it_is_sent("10.2.1.1"), expected);
    let sent = Resolution::Forward { port: PortId::Wan, link: expected, mtu_bytes: 1400 };
    assert_eq!(watched.resolve("10.2.1.1"), sent);
    let expected = link(wan, (&site.peer, "eth0"), [0x86, 0xdd]);
    assert_eq!(watched.until_it_is_sent("fd03::9"), expected);
    let expected = link((&site.gateway, "lan"), (&site.host, "eth0"), [0x08, 0x00]);
    assert_eq!(watched.until_it_is_sent("10.1.0.7"), expected);
}

#[test]
fn routes_are_added_replaced_and_deleted() {
    let Some(lab) = Lab::new() else { return };
    let site = Site::new(&lab);
    let mut watched = site.mirror();
    for (prefix, at, gateway, other) in [
        ("10.2.0.0/16", "10.2.1.1", "192.0.2.1", "192.0.2.77"),
        ("fd03::/64", "fd03::1", "fd02::1", "fd02::77"),
    ] {
        let ip = |words: &[&str]| site.gateway.run(&[&["ip", "route"], words].concat());
        ip(&["add", prefix, "via", gateway]);
        watched.until("the route", |fib| is_unresolved(fib, at, PortId::Wan, gateway));
        ip(&["replace", prefix, "via", other]);
        watched.until("the other", |fib| is_unresolved(fib, at, PortId::Wan, other));
        // Worse, and then alone.
        ip(&["add", prefix, "via", gateway, "metric", "2000"]);
        ip(&["del", prefix, "via", other]);
        watched.until("the worse", |fib| is_unresolved(fib, at, PortId::Wan, gateway));
        ip(&["del", prefix]);
        watched.until_it_is(at, Resolution::NoRoute);
    }
}

#[test]
fn an_ipv4_route_may_lead_to_an_ipv6_neighbour() {
    let Some(lab) = Lab::new() else { return };
    let site = Site::new(&lab);
    let mut watched = site.mirror();
    site.gateway.run(&[
        "ip",
        "route",
        "add",
        "10.2.0.0/16",
        "via",
        "inet6",
        "fd02::1",
        "dev",
        "wan",
    ]);
    watched.until("the route", |fib| is_unresolved(fib, "10.2.1.1", PortId::Wan, "fd02::1"));
    let expected = link((&site.gateway, "wan"), (&site.peer, "eth0"), [0x08, 0x00]);
    assert_eq!(watched.until_it_is_sent("10.2.1.1"), expected);
}

#[test]
fn flows_are_spread_over_the_hops_of_a_route() {
    let Some(lab) = Lab::new() else { return };
    let site = Site::new(&lab);
    let mut watched = site.mirror();
    for (prefix, at, hops) in [
        ("10.2.0.0/16", "10.2.1.1", ["192.0.2.1", "192.0.2.77"]),
        ("fd03::/64", "fd03::1", ["fd02::1", "fd02::77"]),
    ] {
        let [first, second] = hops;
        let route = ["nexthop", "via", first, "nexthop", "via", second];
        site.gateway.run(&[&["ip", "route", "add", prefix][..], &route].concat());
        let by = |fib: &Fib, hash| match fib.resolve(ip(at), hash) {
            Resolution::Unresolved { address, .. } => Some(address),
            Resolution::Forward { .. } => Some(ip(first)),
            _ => None,
        };
        watched.until("both hops", |fib| {
            by(fib, 0) == Some(ip(first)) && by(fib, u32::MAX) == Some(ip(second))
        });
        // The kernel says of the one hop that goes, not of what stays.
        if prefix.contains(':') {
            site.gateway.run(&["ip", "route", "del", prefix, "via", second]);
            watched.until("the hop that stays", |fib| by(fib, u32::MAX) == Some(ip(first)));
        }
        site.gateway.run(&["ip", "route", "del", prefix]);
        watched.until_it_is(at, Resolution::NoRoute);
    }
}

#[test]
fn a_route_by_a_next_hop_object_is_used_and_goes_with_it() {
    let Some(lab) = Lab::new() else { return };
    let site = Site::new(&lab);
    let mut watched = site.mirror();
    for mode in ["1", "0"] {
        let setting = format!("net.ipv4.nexthop_compat_mode={mode}");
        site.gateway.run(&["sysctl", "-q", "-w", &setting]);
        let ip = |words: &str| {
            let words: Vec<&str> = ["ip"].into_iter().chain(words.split(' ')).collect();
            site.gateway.run(&words);
        };
        ip("nexthop add id 5 via 192.0.2.1 dev wan");
        ip("nexthop add id 6 via 192.0.2.77 dev wan");
        ip("nexthop add id 7 group 5/6");
        ip("route add 10.2.0.0/16 nhid 5");
        ip("route add 10.3.0.0/16 nhid 7");
        watched.until("the object's hop", |fib| {
            is_unresolved(fib, "10.2.1.1", PortId::Wan, "192.0.2.1")
                && is_unresolved(fib, "10.3.1.1", PortId::Wan, "192.0.2.1")
        });
        ip("nexthop replace id 5 via 192.0.2.66 dev wan");
        watched.until("the object's other hop", |fib| {
            is_unresolved(fib, "10.2.1.1", PortId::Wan, "192.0.2.66")
        });
        // With it the kernel takes the routes away, and says nothing of those of IPv4.
        ip("nexthop del id 5");
        watched.until_it_is("10.2.1.1", Resolution::NoRoute);
        ip("nexthop del id 7");
        watched.until_it_is("10.3.1.1", Resolution::NoRoute);
        ip("nexthop del id 6");
    }
}

#[test]
fn addresses_come_and_go() {
    let Some(lab) = Lab::new() else { return };
    let site = Site::new(&lab);
    let mut watched = site.mirror();
    site.gateway.run(&["ip", "route", "add", "10.2.0.0/16", "via", "192.0.2.1", "src", "10.1.0.1"]);
    watched.until("the route", |fib| is_unresolved(fib, "10.2.1.1", PortId::Wan, "192.0.2.1"));
    site.gateway.address("wan", "198.51.100.5/24");
    site.gateway.address("wan", "fd09::5/64");
    watched
        .until("the addresses", |fib| fib.is_own(ip("198.51.100.5")) && fib.is_own(ip("fd09::5")));
    assert_eq!(watched.resolve("198.51.100.5"), Resolution::Local);
    for address in ["198.51.100.5/24", "10.1.0.1/24"] {
        let interface = if address.starts_with("10.") { "lan" } else { "wan" };
        site.gateway.run(&["ip", "address", "del", address, "dev", interface]);
    }
    watched.until("the addresses to go", |fib| {
        !fib.is_own(ip("198.51.100.5")) && !fib.is_own(ip("10.1.0.1"))
    });
    watched.until_it_is("198.51.100.5", Resolution::NoRoute);
    // Its source address went, and the kernel took it away without a word.
    watched.until_it_is("10.2.1.1", Resolution::NoRoute);
}

#[test]
fn a_link_that_goes_down_takes_its_routes_along_and_a_new_port_is_found() {
    let Some(lab) = Lab::new() else { return };
    let site = Site::new(&lab);
    let mut watched = site.mirror();
    let route = ["ip", "route", "add", "10.2.0.0/16", "via", "192.0.2.1"];
    site.gateway.run(&route);
    watched.until_it_is_sent("10.2.1.1");
    site.gateway.run(&["ip", "link", "set", "dev", "wan", "down"]);
    watched.until_it_is("10.2.1.1", Resolution::NoRoute);
    site.gateway.run(&["ip", "link", "set", "dev", "wan", "up"]);
    site.gateway.run(&route);
    watched.until_it_is_sent("10.2.1.1");

    site.gateway.run(&["ip", "link", "delete", "dev", "wan"]);
    watched.until("the port to go", |fib| fib.port(PortId::Wan).is_none());
    assert_eq!(watched.resolve("10.2.1.1"), Resolution::NoRoute);
    cable((&site.peer, "eth0"), (&site.gateway, "wan"));
    site.peer.address("eth0", "192.0.2.1/24");
    site.gateway.address("wan", "192.0.2.2/24");
    site.gateway.run(&route);
    let expected = link((&site.gateway, "wan"), (&site.peer, "eth0"), [0x08, 0x00]);
    assert_eq!(watched.until_it_is_sent("10.2.1.1"), expected);
}

#[test]
fn routes_by_other_interfaces_and_in_other_tables_are_told_apart() {
    let Some(lab) = Lab::new() else { return };
    let site = Site::new(&lab);
    cable((&site.host, "eth1"), (&site.gateway, "management"));
    site.gateway.address("management", "172.16.0.1/24");
    let mut watched = site.mirror();
    assert_eq!(watched.resolve("172.16.0.9"), Resolution::OtherInterface);
    assert_eq!(watched.resolve("172.16.0.1"), Resolution::Local);
    let route = ["ip", "route", "add", "10.2.0.0/16", "via", "192.0.2.1", "table", "100"];
    site.gateway.run(&route);
    site.gateway.run(&["ip", "route", "add", "10.3.0.0/16", "via", "172.16.0.9"]);
    watched.until_it_is("10.3.1.1", Resolution::OtherInterface);
    assert_eq!(watched.resolve("10.2.1.1"), Resolution::NoRoute);
}

#[test]
fn lost_news_are_made_good_by_asking_again() {
    let Some(lab) = Lab::new() else { return };
    let site = Site::new(&lab);
    let mut watched = site.mirror();
    // More changes than the socket holds, while nobody reads: 200 000 routes added, half of them deleted.
    let path = std::env::temp_dir().join(format!("lanesplit-routes-{}", std::process::id()));
    let prefix = |number: u32| {
        format!("10.{}.{}.{}/32", 64 + (number >> 16), number >> 8 & 255, number & 255)
    };
    let mut script = String::new();
    for number in 0..200_000 {
        script += &format!("route add {} via 192.0.2.1\n", prefix(number));
    }
    for number in (0..200_000).step_by(2) {
        script += &format!("route del {} via 192.0.2.1\n", prefix(number));
    }
    std::fs::write(&path, script).unwrap();
    let status = Command::new("ip")
        .args(["-netns", site.gateway.name(), "-batch"])
        .arg(&path)
        .status()
        .expect("ip is installed");
    std::fs::remove_file(&path).unwrap();
    assert!(status.success());

    let last = prefix(199_999);
    let last = last.trim_end_matches("/32");
    let took = watched.until("the last of them", |fib| {
        is_unresolved(fib, last, PortId::Wan, "192.0.2.1")
            && fib.resolve(ip("10.67.13.62"), 0) == Resolution::NoRoute
    });
    let statistics = watched.mirror.statistics();
    assert!(statistics.lost > 0, "nothing was lost: {statistics:?}");
    assert!(statistics.full_dumps >= 2, "{statistics:?}");
    assert!(statistics.routes > 100_000 && statistics.routes < 100_100, "{statistics:?}");
    eprintln!(
        "100 000 routes known {took:?} after 300 000 changes of which {} were heard",
        statistics.news
    );
}
