//! What files mean, and what is wrong with those that mean nothing.

use crate::batch::PortId;
use crate::fib::Resolution;
use crate::lane::tunnel::Tunnel;

use super::*;
use crate::xdp::Destinations;

const PORTS: &str = "[ports]\nlan = \"a\"\nwan = \"b\"\n";

/// What is wrong with a file: its messages, each with its remedy and the text it points at.
fn problems(text: &str) -> Vec<(String, String, String)> {
    match Config::parse("test.toml", text) {
        Ok(_) => Vec::new(),
        Err(ConfigError::Unreadable { .. }) => unreachable!("nothing was read from a file"),
        Err(ConfigError::Problems(problems)) => problems
            .into_iter()
            .map(|problem| {
                let start = problem.span.offset();
                let place = text[start..start + problem.span.len()].to_owned();
                (problem.message, problem.remedy, place)
            })
            .collect(),
    }
}

#[track_caller]
fn assert_refused(text: &str, message: &str, remedy: &str, place: &str) {
    let found = problems(text);
    let [(said, advised, pointed)] = &found[..] else {
        panic!("expected one problem in {text:?}, found {found:?}");
    };
    assert!(said.contains(message), "{said:?} does not say {message:?}");
    assert!(advised.contains(remedy), "{advised:?} does not advise {remedy:?}");
    assert_eq!(pointed, place);
}

#[test]
fn the_default_file_means_what_it_says() {
    let config = Config::defaults();
    assert!(config.ports.is_none());
    assert_eq!(config.rule.policy, Policy::Split);
    assert_eq!(config.rule.threshold_packets, 40);
    assert_eq!(config.rule.idle_timeout_ns, 30_000_000_000);
    assert!(config.rule.restart_on_syn);
    assert_eq!(config.lanes.short.dscp(), 18);
    assert_eq!(config.lanes.long.dscp(), 10);
    assert_eq!(config.poll, Poll::Adaptive);
    assert_eq!(config.control_socket, Path::new("/run/lanesplit/control.sock"));
    assert!(config.state.is_none());
}

#[test]
fn flows_are_saved_where_and_when_the_file_says() {
    let with = |text: &str| Config::parse("test.toml", &format!("{PORTS}[state]\n{text}")).unwrap();
    let state = with("file = \"/var/lib/lanesplit/flows\"").state.unwrap();
    assert_eq!(state.file.value, Path::new("/var/lib/lanesplit/flows"));
    assert_eq!(state.interval, Duration::from_secs(5));
    assert_eq!(
        with("file = \"/a\"\ninterval = \"100ms\"").state.unwrap().interval.as_millis(),
        100
    );
    assert!(with("file = \"\"\ninterval = \"1h\"").state.is_none());

    for path in ["flows", "./flows", "/", "/folder/", "/folder/.."] {
        let text = format!("{PORTS}[state]\nfile = {path:?}");
        assert_refused(
            &text,
            "is no absolute path",
            "/var/lib/lanesplit/flows",
            &format!("{path:?}"),
        );
    }
    for interval in ["\"99ms\"", "\"61min\"", "\"soon\"", "5"] {
        let text = format!("{PORTS}[state]\ninterval = {interval}");
        assert_refused(&text, "`state.interval`", "from 100ms to 1h", interval);
    }
    let before = with("file = \"/a\"");
    assert_eq!(before.differs_in_fixed_keys(&with("file = \"/b\"")), ["state.file"]);
    let slower = with("file = \"/a\"\ninterval = \"6s\"");
    assert_eq!(before.differs_in_fixed_keys(&slower), ["state.interval"]);
}

#[test]
fn two_interfaces_are_enough() {
    let ports = Config::parse("test.toml", PORTS).unwrap().ports.unwrap();
    assert_eq!((ports.lan.value.as_str(), ports.wan.value.as_str()), ("a", "b"));
}

#[test]
fn what_a_file_says_goes_before_the_default() {
    let text = "[classifier]\nthreshold_packets = 0x10\nidle_timeout = \"1min 500ms\"\npolicy = \"ecmp\"\n\
                [lanes.short]\ndscp = 46\n[workers]\ncores = [3, 1]\npoll = \"busy\"";
    let config = Config::parse("test.toml", text).unwrap();
    assert_eq!(config.rule.threshold_packets, 16);
    assert_eq!(config.rule.idle_timeout_ns, 60_500_000_000);
    assert_eq!(config.rule.policy, Policy::Ecmp);
    assert_eq!(config.lanes.short.dscp(), 46);
    assert_eq!(config.lanes.long.dscp(), 10);
    assert_eq!(config.cores.value, [3, 1]);
    assert_eq!(config.poll, Poll::Busy);
}

#[test]
fn every_mistake_is_named_with_its_place_and_remedy() {
    let rows = [
        (
            "[classifier]\ntreshold_packets = 4",
            "unknown key `classifier.treshold_packets`",
            "did you mean `threshold_packets`",
            "treshold_packets",
        ),
        ("[lane]\nx = 1", "unknown key `lane`", "did you mean `lanes`", "lane"),
        ("[lanes.middle]\ndscp = 1", "unknown key `lanes.middle`", "long, short", "middle"),
        ("[classifier]\nthreshold_packets = 0", "0 is out of range", "1 to 4294967295", "0"),
        ("[classifier]\nthreshold_packets = -3", "-3 is out of range", "1 to 4294967295", "-3"),
        ("[classifier]\nthreshold_packets = \"many\"", "found string", "whole number", "\"many\""),
        ("[classifier]\nidle_timeout = \"30\"", "time unit needed", "like \"30s\"", "\"30\""),
        ("[classifier]\nidle_timeout = \"0s\"", "out of range", "above 0", "\"0s\""),
        ("[classifier]\nidle_timeout = 30", "found integer", "like \"30s\"", "30"),
        ("[classifier]\nrestart_on_syn = 1", "found integer", "true or false", "1"),
        (
            "[classifier]\npolicy = \"fast\"",
            "none of its values",
            "\"split\", \"ecmp\", \"spray\", \"none\"",
            "\"fast\"",
        ),
        ("[lanes.long]", "the lane `lanes.long` has no mark", "dscp = \"AF21\"", "[lanes.long]"),
        ("[lanes.long]\ndscp = \"AF44\"", "no such DSCP", "AF11 to AF43", "\"AF44\""),
        ("[lanes.long]\ndscp = 64", "64 is out of range", "0 to 63", "64"),
        ("lanes = 3", "found integer", "a table", "3"),
        ("[ports]\nlan = \"a\"\nwan = \"a\"", "both \"a\"", "two different ones", "\"a\""),
        ("[ports]\nlan = \"a\"", "only one of", "name the other", "\"a\""),
        (
            "[ports]\nlan = \"a\"\nwan = \"an interface's name\"",
            "1 to 15 characters",
            "ip link",
            "\"an interface's name\"",
        ),
        ("[ports]\nframe_bytes = 3000", "not a power of two", "2048 or 4096", "3000"),
        ("[ports]\nring_entries = 65536", "out of range", "64 to 32768", "65536"),
        ("[workers]\ncores = [1, 1]", "core 1 is named twice", "of its own", "[1, 1]"),
        ("[workers]\ncores = 2", "found integer", "[2, 3]", "2"),
        ("mode = \"bridged\"", "none of its values", "\"inline\", \"routed\"", "\"bridged\""),
        ("[control]\nsocket = \"\"", "1 to 107 bytes", "shorter path", "\"\""),
    ];
    for (text, message, remedy, place) in rows {
        assert_refused(text, message, remedy, place);
    }
}

#[test]
fn all_mistakes_are_found_at_once() {
    let text =
        "[classifier]\nthreshold_packets = 0\nbogus = 1\n[lanes.short]\n[workers]\npoll = \"lazy\"";
    assert_eq!(problems(text).len(), 4);
}

#[test]
fn what_is_not_toml_is_refused_with_its_place() {
    let found = problems("[ports\nlan = \"a\"");
    assert!(!found.is_empty());
    assert!(found.iter().all(|(message, ..)| message.starts_with("not TOML")), "{found:?}");
}

#[test]
fn every_name_of_the_dscp_registry_is_known() {
    let named = |name: &str| {
        let text = format!("[lanes.short]\ndscp = \"{name}\"");
        Config::parse("test.toml", &text).map(|config| config.lanes.short.dscp()).ok()
    };
    for (name, dscp) in [
        ("CS0", 0),
        ("LE", 1),
        ("CS1", 8),
        ("AF11", 10),
        ("AF12", 12),
        ("AF13", 14),
        ("CS2", 16),
        ("AF21", 18),
        ("AF22", 20),
        ("AF23", 22),
        ("CS3", 24),
        ("AF31", 26),
        ("AF32", 28),
        ("AF33", 30),
        ("CS4", 32),
        ("AF41", 34),
        ("AF42", 36),
        ("AF43", 38),
        ("CS5", 40),
        ("VA", 44),
        ("EF", 46),
        ("CS6", 48),
        ("CS7", 56),
    ] {
        assert_eq!(named(name), Some(dscp), "{name}");
    }
    for name in ["CS8", "AF01", "AF14", "AF51", "AF1", "AF111", "af11", "", "CS", "AFé"] {
        assert_eq!(named(name), None, "{name}");
    }
}

#[test]
fn a_changed_fixed_key_is_named() {
    let before = Config::parse("test.toml", PORTS).unwrap();
    let with = |more: &str| Config::parse("test.toml", &format!("{PORTS}{more}")).unwrap();
    let free = "[classifier]\nthreshold_packets = 3\npolicy = \"none\"\n[lanes.short]\ndscp = 0";
    assert_eq!(before.differs_in_fixed_keys(&with(free)), [""; 0]);
    let fixed = with("ring_entries = 64\n[workers]\npoll = \"busy\"");
    assert_eq!(before.differs_in_fixed_keys(&fixed), ["ports.ring_entries", "workers.poll"]);
}

const ROUTED: &str = "mode = \"routed\"\n[routed]\nlocal_prefixes = [\"10.1.0.0/16\"]\n\
                      remote_prefixes = [\"10.2.0.0/16\", \"2001:db8:2::/48\"]\n";

fn tunnel(lane: &str, more: &str) -> String {
    format!("[lanes.{lane}.gre]\nlocal = \"192.0.2.2\"\nremote = \"198.51.100.2\"\n{more}\n")
}

fn routed(text: &str) -> Routed {
    match Config::parse("test.toml", &format!("{ROUTED}{text}")) {
        Ok(config) => config.routed.expect("the mode is routed"),
        Err(_) => panic!("{text}: {:?}", problems(&format!("{ROUTED}{text}"))),
    }
}

#[test]
fn the_example_of_a_routed_gateway_is_right() {
    let text = include_str!("../../../configs/routed.toml");
    let routed = Config::parse("configs/routed.toml", text).unwrap().routed.unwrap();
    let tunnels: Vec<_> = routed.tunnels().map(|(_, tunnel)| *tunnel).collect();
    assert_eq!(tunnels.iter().map(|one| one.key).collect::<Vec<_>>(), [Some(1), Some(2)]);
    assert_eq!(tunnels.iter().map(|one| one.dscp).collect::<Vec<_>>(), [Some(18), Some(10)]);
    assert!(tunnels.iter().all(|one| one.sequence && !one.checksum && one.dont_fragment));
    assert!(!routed.has_plain_lane());
}

#[test]
fn inline_has_nothing_of_routed_mode_and_routed_has_it_all() {
    assert!(Config::parse("test.toml", "").unwrap().routed.is_none());
    let routed = routed("");
    let remote: Vec<String> =
        routed.remote_prefixes.value.iter().map(|one| one.to_string()).collect();
    assert_eq!(remote, ["10.2.0.0/16", "2001:db8:2::/48"]);
    assert_eq!(routed.lanes[0].value, Lane::Mark(Mark::new(18).unwrap()));
    assert_eq!(routed.lanes[1].value, Lane::Mark(Mark::new(10).unwrap()));
    assert!(routed.has_plain_lane() && routed.fixed.is_none());
}

#[test]
fn a_tunnel_is_what_its_lane_says_then_what_all_tunnels_say_then_the_default() {
    let text = format!(
        "[gre]\nttl = 9\nudp = true\nmtu = 1400\n{}",
        tunnel("long", "key = 0xffffffff\nudp = false\nchecksum = true\ndscp = \"EF\"")
    );
    let routed = routed(&text);
    let expected = Tunnel {
        local: "192.0.2.2".parse().unwrap(),
        remote: "198.51.100.2".parse().unwrap(),
        key: Some(u32::MAX),
        sequence: false,
        checksum: true,
        ttl: 9,
        dscp: Some(46),
        dont_fragment: true,
        mtu_bytes: Some(1400),
        udp: false,
    };
    assert_eq!(routed.lanes[1].value, Lane::Gre(expected));
    assert_eq!(routed.lanes[0].value, Lane::Mark(Mark::new(18).unwrap()));
}

#[test]
fn a_next_hop_has_a_mark_only_when_it_says_so() {
    let routed = routed(
        "[lanes.short]\nnext_hop = \"192.0.2.1\"\n[lanes.long]\nnext_hop = \"fd00::1\"\ndscp = 10",
    );
    let address = "192.0.2.1".parse().unwrap();
    assert_eq!(routed.lanes[0].value, Lane::NextHop { address, mark: None });
    let address = "fd00::1".parse().unwrap();
    assert_eq!(routed.lanes[1].value, Lane::NextHop { address, mark: Mark::new(10) });
}

#[test]
fn what_a_capture_file_cannot_know_is_told() {
    let fixed = routed(
        "[routed.static_ports.lan]\nmac = \"02:00:00:00:00:01\"\naddresses = [\"10.1.0.1/16\"]\nmtu = 1500\n\
         [routed.static_ports.wan]\nmac = \"02:00:00:00:00:02\"\naddresses = [\"192.0.2.2/30\"]\nmtu = 1400\n\
         [[routed.static_neighbours]]\nport = \"wan\"\naddress = \"192.0.2.1\"\nmac = \"02:00:00:00:00:03\"\n\
         [[routed.static_routes]]\nprefix = \"0.0.0.0/0\"\nnext_hop = \"192.0.2.1\"\nport = \"wan\"\n",
    )
    .fixed
    .unwrap();
    let mut link = [0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 8, 0];
    link[..6].copy_from_slice(&[2, 0, 0, 0, 0, 3]);
    assert_eq!(
        fixed.snapshot().unwrap().resolve("8.8.8.8".parse().unwrap(), 0),
        Resolution::Forward { port: PortId::Wan, link, mtu_bytes: 1400 }
    );
}

#[test]
fn every_mistake_of_routed_mode_is_named_with_its_place_and_remedy() {
    let short = tunnel("short", "");
    let rows = [
        (
            "[lanes.short]\nnexthop = \"192.0.2.1\"\ndscp = 1".to_owned(),
            "unknown key `lanes.short.nexthop`",
            "did you mean `next_hop`",
            "nexthop",
        ),
        (
            tunnel("short", "sequnce = true"),
            "unknown key `lanes.short.gre.sequnce`",
            "did you mean `sequence`",
            "sequnce",
        ),
        ("[gre]\nlocal = 1".to_owned(), "unknown key `gre.local`", "the keys here are", "local"),
        (
            "[lanes.short.gre]\nlocal = \"192.0.2.2\"".to_owned(),
            "`lanes.short.gre.remote` is missing",
            "needs both ends",
            "[lanes.short.gre]",
        ),
        (
            "[lanes.short.gre]\nlocal = \"192.0.2.2\"\nremote = \"2001:db8::1\"".to_owned(),
            "an IPv4 and an IPv6 address",
            "the same IP version",
            "\"2001:db8::1\"",
        ),
        (
            "[lanes.short.gre]\nlocal = \"192.0.2.2\"\nremote = \"192.0.2.2\"".to_owned(),
            "from 192.0.2.2 to itself",
            "the other gateway",
            "\"192.0.2.2\"",
        ),
        (
            "[lanes.short.gre]\nlocal = \"192.0.2.2\"\nremote = \"224.0.0.1\"".to_owned(),
            "the address of a group",
            "of one host",
            "\"224.0.0.1\"",
        ),
        (
            format!("{short}{}", tunnel("long", "")),
            "could not be told apart",
            "different keys",
            "[lanes.long.gre]",
        ),
        (format!("[lanes.short]\ndscp = 1\n{short}"), "is a tunnel", "`lanes.short.gre.dscp`", "1"),
        (tunnel("short", "ttl = 0"), "0 is out of range", "1 to 255", "0"),
        (tunnel("short", "key = 4294967296"), "out of range", "0 to 4294967295", "4294967296"),
        (
            "[lanes.short.gre]\n\
             local = \"fd00::1\"\n\
             remote = \"fd00::2\"\n\
             mtu = 1279"
                .to_owned(),
            "1279 for a tunnel over IPv6",
            "at least 1280",
            "1279",
        ),
        (
            "[lanes.short]\nnext_hop = \"nowhere\"".to_owned(),
            "\"nowhere\" is no IP address",
            "of one host",
            "\"nowhere\"",
        ),
        (
            "[routed.static_ports.lan]\n\
             mac = \"01:00:00:00:00:01\"\n\
             addresses = []\n\
             mtu = 1500\n\
             [routed.static_ports.wan]\n\
             mac = \"02:00:00:00:00:01\"\n\
             addresses = []\n\
             mtu = 1500"
                .to_owned(),
            "no MAC address of one host",
            "the first is even",
            "\"01:00:00:00:00:01\"",
        ),
        (
            "[[routed.static_neighbours]]\nport = \"lan\"\naddress = \"10.1.0.7\"".to_owned(),
            "`mac` is missing",
            "static_ports",
            "[[routed.static_neighbours]]",
        ),
    ];
    for (text, message, remedy, place) in rows {
        let text = format!("{ROUTED}{text}");
        assert_refused(&text, message, remedy, place);
    }
}

#[test]
fn prefixes_are_needed_without_host_bits_and_on_one_side() {
    let with = |local: &str, remote: &str| {
        format!("mode = \"routed\"\n[routed]\nlocal_prefixes = {local}\nremote_prefixes = {remote}")
    };
    let good = "[\"10.1.0.0/16\"]";
    assert_refused(&with(good, "[]"), "`routed.remote_prefixes` is empty", "name them", "[]");
    let both = with(good, good);
    let place = &both[both.rfind('[').unwrap()..];
    assert_refused(&both, "10.1.0.0/16 is in `routed.local_prefixes`", "one of the two", place);
    let bits = with(good, "[\"10.2.0.1/16\"]");
    assert_refused(&bits, "behind its first 16", "\"10.2.0.0/16\"", "[\"10.2.0.1/16\"]");
    assert_eq!(problems("mode = \"routed\"").len(), 2);
}

#[test]
fn keys_of_routed_mode_do_nothing_inline_and_are_refused() {
    for (text, key) in [
        (tunnel("short", ""), "lanes.short.gre"),
        ("[lanes.long]\nnext_hop = \"192.0.2.1\"".to_owned(), "lanes.long.next_hop"),
        ("[routed]\nlocal_prefixes = [\"10.0.0.0/8\"]".to_owned(), "routed.local_prefixes"),
        ("[[routed.static_routes]]\nport = \"lan\"".to_owned(), "routed.static_routes"),
    ] {
        let found = problems(&text);
        let message = format!("`{key}` does nothing in inline mode");
        assert!(matches!(&found[..], [(said, ..)] if *said == message), "{found:?}");
    }
}

#[test]
fn what_a_port_takes_from_the_kernel_changes_only_with_a_restart() {
    let parse = |text: &str| Config::parse("test.toml", &format!("{ROUTED}{text}")).unwrap();
    let before = parse(&tunnel("long", "key = 2"));
    let same = parse(&format!("{}[lanes.short]\ndscp = 3", tunnel("long", "key = 2")));
    assert_eq!(before.differs_in_fixed_keys(&same), [""; 0]);
    let other = parse(&tunnel("long", "key = 3"));
    assert_eq!(before.differs_in_fixed_keys(&other), ["lanes.long"]);
    let inline = Config::parse("test.toml", "").unwrap();
    let all = ["mode", "routed.local_prefixes", "routed.remote_prefixes", "lanes.long"];
    assert_eq!(before.differs_in_fixed_keys(&inline), all);
}

#[test]
fn a_port_takes_from_the_kernel_what_its_side_of_the_lanes_needs() {
    let own = ["10.1.0.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
    let both = routed(&format!("{}{}", tunnel("short", "key = 1"), tunnel("long", "udp = true")));
    let mut lan = Destinations::default();
    lan.forward("10.2.0.0/16".parse().unwrap());
    lan.forward("2001:db8:2::/48".parse().unwrap());
    own.iter().for_each(|address| lan.own(*address));
    assert_eq!(both.destinations(PortId::Lan, &own), lan);
    let mut wan = Destinations::default();
    own.iter().for_each(|address| wan.own(*address));
    wan.tunnel(own[1], false);
    wan.tunnel(own[1], true);
    assert_eq!(both.destinations(PortId::Wan, &own), wan);
    let mut plain = Destinations::default();
    plain.forward("10.1.0.0/16".parse().unwrap());
    own.iter().for_each(|address| plain.own(*address));
    assert_eq!(routed("").destinations(PortId::Wan, &own), plain);

    assert_eq!(both.role(PortId::Lan), Role::Routed { encapsulates: true });
    assert_eq!(both.role(PortId::Wan), Role::Routed { encapsulates: false });
    assert_eq!(routed("").role(PortId::Lan), Role::Routed { encapsulates: false });
    assert_eq!(Config::defaults().role(PortId::Lan), Role::Inline);
}
