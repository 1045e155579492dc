//! What the machine says of a configuration of routed mode.

mod lab;

use dataplane::config::Config;
use dataplane::preflight;
use lab::{Lab, Line};

const ROUTED: &str = "mode = \"routed\"\n[ports]\nlan = \"lan\"\nwan = \"wan\"\n[workers]\ncores = []\n[routed]\n\
                      local_prefixes = [\"10.0.0.0/25\"]\nremote_prefixes = [\"10.2.0.0/16\", \"fd02::/64\"]\n\
                      [lanes.short.gre]\nlocal = \"192.0.2.2\"\nremote = \"198.51.100.2\"\nmtu = 1501\n";

/// Warnings, or problems.
fn plan(line: &Line) -> Result<Vec<String>, Vec<String>> {
    let config = Config::parse("test.toml", ROUTED).unwrap_or_else(|error| panic!("{error:?}"));
    line.gateway.enter(|| match preflight::plan_start(&config) {
        Ok(plan) => Ok(plan.warnings),
        Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
    })
}

#[track_caller]
fn assert_said(said: &[String], expected: &[&str]) {
    assert_eq!(said.len(), expected.len(), "{said:?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.contains(expected), "{said:?} does not say {expected:?}");
    }
}

#[test]
fn a_router_without_addresses_is_refused_and_one_that_could_be_better_is_told() {
    let Some(lab) = Lab::new() else { return };
    let line = Line::new(&lab);
    let set = |setting: &str| line.gateway.run(&["sysctl", "-q", "-w", setting]);
    line.gateway.run(&["ip", "link", "set", "dev", "lan", "mtu", "1711"]);
    let problems = plan(&line).expect_err("nothing has an address");
    let expected = [
        "lan: its MTU of 1711 does not fit `frame_bytes = 2048`, which has room for 1710 beside",
        "lan has no address",
        "wan has no address",
        "192.0.2.2, is not an address of this machine",
    ];
    assert_said(&problems, &expected);

    line.gateway.run(&["ip", "link", "set", "dev", "lan", "mtu", "1500"]);
    line.gateway.address("lan", "10.0.0.100/25");
    line.gateway.address("wan", "fd00::100/64");
    assert_said(
        &plan(&line).expect_err("the tunnel has no end"),
        &["192.0.2.2, is not an address"],
    );

    line.gateway.address("lo", "192.0.2.2/32");
    set("net.ipv4.ip_forward=0");
    set("net.ipv6.conf.all.forwarding=0");
    set("net.ipv4.conf.wan.rp_filter=1");
    set("net.ipv4.conf.lan.rp_filter=2");
    let warnings = plan(&line).expect("it can run");
    let expected = [
        "net.ipv4.ip_forward is 0",
        "net.ipv6.conf.all.forwarding is 0",
        "wan filters by reverse path strictly",
        "the tunnel to 198.51.100.2 has an MTU of 1501",
    ];
    assert_said(&warnings, &expected);

    set("net.ipv4.ip_forward=1");
    set("net.ipv6.conf.all.forwarding=1");
    set("net.ipv4.conf.wan.rp_filter=0");
    assert_said(&plan(&line).expect("it can run"), &["an MTU of 1501"]);
}
