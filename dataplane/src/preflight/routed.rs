//! What routed mode needs of the machine besides its interfaces: addresses, and a kernel that routes when the gateway
//! does not run.
//!
//! What makes routed mode impossible is a problem. What makes it worse than it could be is a warning: another may
//! have set it so on purpose.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;

use crate::config::{Config, Located, Ports, Problem, Routed};
use crate::lane::tunnel::Tunnel;
use crate::xdp::Interface;

/// Addresses by interface, in the network namespace of the calling thread.
type Addresses = BTreeMap<String, Vec<IpAddr>>;

/// Everything that is wrong, and everything that could be better.
pub(super) fn look(
    config: &Config,
    routed: &Routed,
    ports: &Ports,
    interfaces: [Option<&Interface>; 2],
    problems: &mut Vec<Problem>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    match addresses() {
        Ok(addresses) => {
            problems.extend(missing_port_addresses(config, ports, interfaces, &addresses));
            problems.extend(missing_tunnel_ends(config, routed, &addresses));
        }
        Err(error) => {
            warnings.push(format!("the kernel does not say which addresses there are: {error}"))
        }
    }
    warnings.extend(forwarding_is_off(routed));
    warnings.extend(ports_filter_by_path(ports));
    warnings.extend(tunnels_larger_than_the_port(routed, interfaces[1]));
    warnings
}

fn addresses() -> nix::Result<Addresses> {
    let mut addresses = Addresses::new();
    for one in getifaddrs()? {
        let Some(address) = one.address else { continue };
        let ipv4 = address.as_sockaddr_in().map(|socket| IpAddr::V4(socket.ip()));
        let ipv6 = address.as_sockaddr_in6().map(|socket| IpAddr::V6(socket.ip()));
        if let Some(address) = ipv4.or(ipv6) {
            addresses.entry(one.interface_name).or_default().push(address);
        }
    }
    Ok(addresses)
}

/// A link-local address is not enough: nobody can route to it.
fn missing_port_addresses(
    config: &Config,
    ports: &Ports,
    interfaces: [Option<&Interface>; 2],
    addresses: &Addresses,
) -> Vec<Problem> {
    let is_routable = |address: &IpAddr| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    };
    let lacks = |(port, found): &(&Located<String>, Option<&Interface>)| {
        found.is_some()
            && !addresses.get(&port.value).is_some_and(|own| own.iter().any(is_routable))
    };
    let both = [&ports.lan, &ports.wan].into_iter().zip(interfaces).filter(lacks);
    let problem = |(port, _): (&Located<String>, _)| {
        let name = &port.value;
        let message = format!("{name} has no address, and a router needs one on each of its ports");
        let remedy = format!("give it one: `ip address add 192.0.2.1/24 dev {name}`");
        config.problem(port, message, &remedy)
    };
    both.map(problem).collect()
}

fn missing_tunnel_ends(config: &Config, routed: &Routed, addresses: &Addresses) -> Vec<Problem> {
    let is_missing = |local: IpAddr| !addresses.values().flatten().any(|own| *own == local);
    let tunnels = routed.tunnels().filter(|(_, tunnel)| is_missing(tunnel.local));
    let problem = |(lane, tunnel): (&Located<_>, &Tunnel)| {
        let local = tunnel.local;
        let message = format!("`local` of this tunnel, {local}, is not an address of this machine");
        let remedy = format!(
            "`ip -brief address` lists those there are; `ip address add {local} dev INTERFACE` adds one"
        );
        config.problem(lane, message, &remedy)
    };
    tunnels.map(problem).collect()
}

/// While the gateway does not run, or leaves something to the kernel, the kernel has to route.
fn forwarding_is_off(routed: &Routed) -> Vec<String> {
    let prefixes = || routed.local_prefixes.value.iter().chain(&routed.remote_prefixes.value);
    let is_ipv4 = |prefix: &IpNet| prefix.addr().is_ipv4();
    let wanted = [
        (prefixes().any(is_ipv4), "net.ipv4.ip_forward"),
        (prefixes().any(|prefix| !is_ipv4(prefix)), "net.ipv6.conf.all.forwarding"),
    ];
    let off = wanted.into_iter().filter(|(matters, key)| *matters && setting(key) == Some(0));
    let warning = |(_, key): (bool, &str)| {
        format!(
            "{key} is 0: while the gateway does not run, nothing is forwarded (`sysctl {key}=1` lets the kernel \
             carry on)"
        )
    };
    off.map(warning).collect()
}

/// `rp_filter`: the larger of an interface's and that of all is in force; 1 is strict.
fn ports_filter_by_path(ports: &Ports) -> Vec<String> {
    let filters = |name: &str| {
        let all = setting("net.ipv4.conf.all.rp_filter")?;
        let own =
            fs::read_to_string(Path::new("/proc/sys/net/ipv4/conf").join(name).join("rp_filter"));
        Some(all.max(own.ok()?.trim().parse().ok()?))
    };
    let strict = [&ports.lan.value, &ports.wan.value].into_iter();
    let strict = strict.filter(|name| filters(name) == Some(1));
    let warning = |name: &String| {
        format!(
            "{name} filters by reverse path strictly (rp_filter = 1): what it is left to forward is dropped when the \
             way back leads elsewhere (`sysctl net.ipv4.conf.{name}.rp_filter=2` is the loose check)"
        )
    };
    strict.map(warning).collect()
}

fn tunnels_larger_than_the_port(routed: &Routed, wan: Option<&Interface>) -> Vec<String> {
    let Some(wan) = wan else { return Vec::new() };
    let larger = routed.tunnels().filter_map(|(_, tunnel)| {
        tunnel.mtu_bytes.filter(|mtu| u32::from(*mtu) > wan.mtu).map(|mtu| (tunnel, mtu))
    });
    let warning = |(tunnel, mtu): (&Tunnel, u16)| {
        format!(
            "the tunnel to {} has an MTU of {mtu}, and {} one of {}: the lower counts",
            tunnel.remote, wan.name, wan.mtu
        )
    };
    larger.map(warning).collect()
}

/// A system setting of the calling thread's network namespace.
fn setting(key: &str) -> Option<u32> {
    let path = Path::new("/proc/sys").join(key.replace('.', "/"));
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
