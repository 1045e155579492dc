//! Routed mode: prefixes, lanes and what a gateway without a kernel has to be told.
//!
//! A lane is of one kind: a `[lanes.NAME.gre]` makes it a tunnel, a `next_hop` sends it to a neighbour, and with
//! neither it is a mark on the packet's own route. What a tunnel leaves out is taken from the user's `[gre]`, and then
//! from that of the default file.

use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::DeValue;

use super::values::{self, Bad, boolean, number, one_of, wrong_type};
use super::{Located, Reader, Value, find};
use crate::batch::PortId;
use crate::fib::{Fixed, FixedPort};
use crate::lane::Lane;
use crate::lane::mark::Mark;
use crate::lane::tunnel::Tunnel;
use crate::xdp::{Destinations, Role};

/// Keys of routed mode without a default, by section; the default file shows them in comments.
pub(super) const OPTIONAL: [(&str, &[&str]); 4] = [
    ("lanes.short.", &["next_hop", "gre"]),
    ("lanes.long.", &["next_hop", "gre"]),
    ("gre.", &["dscp", "mtu"]),
    ("routed.", &["static_ports", "static_neighbours", "static_routes"]),
];
const TUNNEL_KEYS: [&str; 10] = [
    "local",
    "remote",
    "key",
    "sequence",
    "checksum",
    "ttl",
    "dscp",
    "dont_fragment",
    "mtu",
    "udp",
];

/// Least and most bytes of a tunnel's packets. IPv6 in it needs more than the least: RFC 8200 section 5, 1280 and
/// the headers of the tunnel.
const TUNNEL_MTU: (u64, u64) = (576, 9216);
/// Most static neighbours and routes each: they are for captures and tests.
const STATIC_MAX: usize = 4096;

/// What only routed mode has.
#[derive(Debug, Clone)]
pub struct Routed {
    /// Networks behind the LAN port: where decapsulated packets may go, and where inner packets sent may come from.
    pub local_prefixes: Located<Vec<IpNet>>,
    /// Networks at other sites: packets to them are the gateway's.
    pub remote_prefixes: Located<Vec<IpNet>>,
    /// Short, then long.
    pub lanes: [Located<Lane>; 2],
    /// What a gateway without a kernel knows, lanesplit-replay's: none unless `static_ports` tells its ports.
    pub fixed: Option<Fixed>,
}

impl Routed {
    /// Tunnels of both lanes, each with its lane.
    pub fn tunnels(&self) -> impl Iterator<Item = (&Located<Lane>, &Tunnel)> {
        self.lanes.iter().filter_map(|lane| Some((lane, lane.value.tunnel()?)))
    }

    /// Whether packets leave or come without a tunnel in some lane.
    pub fn has_plain_lane(&self) -> bool {
        self.tunnels().count() < self.lanes.len()
    }

    /// What a port is for.
    pub fn role(&self, port: PortId) -> Role {
        Role::Routed { encapsulates: port == PortId::Lan && self.tunnels().next().is_some() }
    }

    /// What a port takes from the kernel on a machine that has these addresses. Packets without a tunnel come in
    /// on the WAN port only when a lane of the other site may send them so: it is taken to have the same lanes.
    pub fn destinations(&self, port: PortId, own: &[IpAddr]) -> Destinations {
        let mut destinations = Destinations::default();
        let prefixes = match port {
            PortId::Lan => &self.remote_prefixes.value[..],
            PortId::Wan if self.has_plain_lane() => &self.local_prefixes.value[..],
            PortId::Wan => &[],
        };
        prefixes.iter().for_each(|prefix| destinations.forward(*prefix));
        if port == PortId::Wan {
            self.tunnels().for_each(|(_, tunnel)| destinations.tunnel(tunnel.local, tunnel.udp));
        }
        own.iter().for_each(|address| destinations.own(*address));
        destinations
    }
}

impl<'a> Reader<'a> {
    /// Refuses, in inline mode, what would do nothing there. The default file itself may be somebody's file, so
    /// its own empty lists are none of it, nor is `[gre]`.
    pub(super) fn refuse_routed_keys(&mut self) {
        let keys = [
            "routed.local_prefixes",
            "routed.remote_prefixes",
            "routed.static_ports",
            "routed.static_neighbours",
            "routed.static_routes",
            "lanes.short.gre",
            "lanes.short.next_hop",
            "lanes.long.gre",
            "lanes.long.next_hop",
        ];
        let is_empty =
            |value: &Value| matches!(value.get_ref(), DeValue::Array(array) if array.is_empty());
        for key in keys {
            if let Some(value) = find(self.user, key).filter(|value| !is_empty(value)) {
                self.report(
                    value.span(),
                    "this needs routed mode",
                    format!("`{key}` does nothing in inline mode"),
                    "set mode = \"routed\", or leave it out",
                );
            }
        }
    }

    pub(super) fn routed(&mut self) -> Routed {
        let lanes = ["lanes.short", "lanes.long"].map(|path| self.routed_lane(path));
        let routed = Routed {
            local_prefixes: self.located("routed.local_prefixes", values::prefixes),
            remote_prefixes: self.located("routed.remote_prefixes", values::prefixes),
            lanes,
            fixed: self.fixed(),
        };
        self.check_prefixes(&routed);
        self.check_tunnels(&routed);
        routed
    }

    fn check_prefixes(&mut self, routed: &Routed) {
        let (local, remote) = (&routed.local_prefixes, &routed.remote_prefixes);
        for (key, prefixes) in [("local_prefixes", local), ("remote_prefixes", remote)] {
            let path = format!("routed.{key}");
            let is_said = find(self.user, &path).is_some();
            if prefixes.value.is_empty() && (prefixes.span != (0..0) || !is_said) {
                let whose = if key == "local_prefixes" { "this site" } else { "the other sites" };
                self.report(
                    prefixes.span.clone(),
                    "no prefix",
                    format!("`{path}` is empty: routed mode needs the networks of {whose}"),
                    &format!("name them, for example:\n\n[routed]\n{key} = [\"10.1.0.0/16\"]"),
                );
            }
        }
        if let Some(both) = remote.value.iter().find(|prefix| local.value.contains(prefix)) {
            self.report(
                remote.span.clone(),
                "also a local prefix",
                format!("{both} is in `routed.local_prefixes` and in `routed.remote_prefixes`"),
                "a network is at this site or at another: name it in one of the two",
            );
        }
    }

    /// A lane that the user names is the user's own: nothing is added to it from the default lane.
    fn routed_lane(&mut self, path: &str) -> Located<Lane> {
        let mark = self.lane(path);
        let Some(lane) = find(self.user, path) else {
            return Located { value: Lane::Mark(mark), span: 0..0 };
        };
        let span = lane.span();
        let found = |key: &str| find(self.user, &format!("{path}.{key}"));
        let (dscp, next_hop, gre) = (found("dscp"), found("next_hop"), found("gre"));
        if let (Some(gre), Some(other)) = (gre, dscp.or(next_hop)) {
            let remedy = match dscp {
                Some(_) => format!("the mark of the outer header is `{path}.gre.dscp`"),
                None => {
                    "the tunnel takes the route to its `remote`: leave `next_hop` out".to_owned()
                }
            };
            let message = format!("the lane `{path}` is a tunnel, and this is not one of its keys");
            self.report(other.span(), "beside `gre`", message, &remedy);
            return Located { value: Lane::Mark(mark), span: gre.span() };
        }
        let value = if let Some(gre) = gre {
            let span = gre.span();
            return match self.tunnel(&format!("{path}.gre"), gre) {
                Some(tunnel) => Located { value: Lane::Gre(tunnel), span },
                None => Located { value: Lane::Mark(mark), span },
            };
        } else if let Some(next_hop) = next_hop {
            let parsed = values::host_address(next_hop);
            match self.or_report(&format!("{path}.next_hop"), next_hop, parsed) {
                Some(address) => Lane::NextHop { address, mark: dscp.map(|_| mark) },
                None => Lane::Mark(mark),
            }
        } else {
            Lane::Mark(mark)
        };
        Located { value, span }
    }

    fn tunnel(&mut self, path: &str, gre: &Value) -> Option<Tunnel> {
        match gre.get_ref() {
            DeValue::Table(table) => self.refuse_others(&format!("{path}."), table, &TUNNEL_KEYS),
            other => {
                let parsed = Err(wrong_type("a table with `local` and `remote`", other));
                return self.or_report(path, gre, parsed);
            }
        }
        let [local, remote] = ["local", "remote"].map(|end| {
            let path = format!("{path}.{end}");
            let Some(value) = find(self.user, &path) else {
                self.report(
                    gre.span(),
                    "this tunnel",
                    format!("`{path}` is missing"),
                    "a tunnel needs both ends: local = \"192.0.2.1\", an address of this machine, and remote, \
                     that of the other gateway",
                );
                return None;
            };
            let address = self.or_report(&path, value, values::host_address(value))?;
            Some(Located { value: address, span: value.span() })
        });
        let (dscp, _) = self.of_tunnel(path, "dscp", values::dscp_mark);
        let (mtu_bytes, mtu_span) =
            self.of_tunnel(path, "mtu", |value| number::<u16>(value, TUNNEL_MTU.0, TUNNEL_MTU.1));
        let key = format!("{path}.key");
        let key = find(self.user, &key)
            .and_then(|value| self.or_report(&key, value, number(value, 0, u32::MAX.into())));
        let sequence = self.of_every_tunnel(path, "sequence", boolean);
        let checksum = self.of_every_tunnel(path, "checksum", boolean);
        let ttl = self.of_every_tunnel(path, "ttl", |value| number(value, 1, 255));
        let dont_fragment = self.of_every_tunnel(path, "dont_fragment", boolean);
        let udp = self.of_every_tunnel(path, "udp", boolean);
        let (local, remote) = (local?, remote?);
        self.check_ends(&local, &remote, mtu_bytes, mtu_span);
        let dscp = dscp.map(Mark::dscp);
        let (local, remote) = (local.value, remote.value);
        Some(Tunnel {
            local,
            remote,
            key,
            sequence,
            checksum,
            ttl,
            dscp,
            dont_fragment,
            mtu_bytes,
            udp,
        })
    }

    fn check_ends(
        &mut self,
        local: &Located<IpAddr>,
        remote: &Located<IpAddr>,
        mtu_bytes: Option<u16>,
        mtu_span: Range<usize>,
    ) {
        if local.value.is_ipv4() != remote.value.is_ipv4() {
            let message = format!(
                "the ends of a tunnel are {} and {}: an IPv4 and an IPv6 address",
                local.value, remote.value
            );
            let remedy = "both ends need addresses of the same IP version; what travels inside may be of either";
            self.report(remote.span.clone(), "of the other version", message, remedy);
        } else if local.value == remote.value {
            let message = format!("a tunnel from {} to itself", local.value);
            let remedy = "`local` is an address of this machine, `remote` one of the other gateway";
            self.report(remote.span.clone(), "the same address", message, remedy);
        }
        if let Some(mtu) = mtu_bytes
            && local.value.is_ipv6()
            && mtu < 1280
        {
            let message = format!("an MTU of {mtu} for a tunnel over IPv6");
            self.report(mtu_span, "this value", message, "IPv6 needs at least 1280 (RFC 8200)");
        }
    }

    /// A value of one tunnel, else of all tunnels of the user's; where, for a message.
    fn of_tunnel<T>(
        &mut self,
        path: &str,
        key: &str,
        parse: impl Fn(&Value) -> Result<T, Bad>,
    ) -> (Option<T>, Range<usize>) {
        for path in [format!("{path}.{key}"), format!("gre.{key}")] {
            if let Some(value) = find(self.user, &path) {
                return (self.or_report(&path, value, parse(value)), value.span());
            }
        }
        (None, 0..0)
    }

    /// The same with a default.
    fn of_every_tunnel<T>(
        &mut self,
        path: &str,
        key: &str,
        parse: impl Fn(&Value) -> Result<T, Bad>,
    ) -> T {
        let own = format!("{path}.{key}");
        if let Some(value) = find(self.user, &own)
            && let Some(parsed) = self.or_report(&own, value, parse(value))
        {
            return parsed;
        }
        self.value(&format!("gre.{key}"), parse)
    }

    fn check_tunnels(&mut self, routed: &Routed) {
        let tunnels: Vec<_> = routed.tunnels().collect();
        for (lane, tunnel) in &tunnels {
            let leads_to = |(_, other): &(_, &Tunnel)| other.local == tunnel.remote;
            if tunnel.local != tunnel.remote && tunnels.iter().any(leads_to) {
                let message =
                    format!("the tunnel leads to {}, which is our own end", tunnel.remote);
                let remedy = "`remote` is an address of the other gateway";
                self.report(lane.span.clone(), "this tunnel", message, remedy);
            }
        }
        if let [(_, short), (lane, long)] = tunnels[..]
            && (short.local, short.remote, short.key, short.udp)
                == (long.local, long.remote, long.key, long.udp)
        {
            let key = match long.key {
                Some(key) => format!("with the key {key}"),
                None => "without a key".to_owned(),
            };
            let message = format!(
                "both lanes are tunnels from {} to {} {key}: what arrives could not be told apart",
                long.local, long.remote
            );
            let remedy = "give the lanes different keys (key = 1, key = 2) or different addresses";
            self.report(lane.span.clone(), "the same tunnel", message, remedy);
        }
    }

    /// What a gateway without a kernel has to be told.
    fn fixed(&mut self) -> Option<Fixed> {
        let ports = ["lan", "wan"].map(|port| self.fixed_port(port));
        let mut neighbours = Vec::new();
        for [port, address, mac] in
            self.tables("routed.static_neighbours", ["port", "address", "mac"])
        {
            let port = self.required("port", &port, port_id);
            let address = self.required("address", &address, values::host_address);
            let mac = self.required("mac", &mac, values::mac_address);
            if let (Some(port), Some(address), Some(mac)) = (port, address, mac) {
                neighbours.push((port, address, mac));
            }
        }
        let mut routes = Vec::new();
        for [port, prefix, next_hop] in
            self.tables("routed.static_routes", ["port", "prefix", "next_hop"])
        {
            let port = self.required("port", &port, port_id);
            let prefix = self.required("prefix", &prefix, values::prefix);
            let gateway = next_hop
                .value
                .and_then(|_| self.required("next_hop", &next_hop, values::host_address));
            if let (Some(port), Some(prefix)) = (port, prefix) {
                routes.push((prefix, gateway, port));
            }
        }
        match ports {
            [Some(lan), Some(wan)] => Some(Fixed { ports: [lan, wan], routes, neighbours }),
            [None, None] => None,
            _ => {
                self.want_both_ports();
                None
            }
        }
    }

    /// One that is there and wrong has been reported.
    fn want_both_ports(&mut self) {
        let [lan, wan] = ["lan", "wan"]
            .map(|port| find(self.user, &format!("routed.static_ports.{port}")).map(Spanned::span));
        let (span, lacks) = match (lan, wan) {
            (Some(span), None) => (span, "wan"),
            (None, Some(span)) => (span, "lan"),
            _ => return,
        };
        self.report(
            span,
            "only this one",
            format!("`routed.static_ports.{lacks}` is missing"),
            "tell both ports: mac, addresses, mtu",
        );
    }

    fn fixed_port(&mut self, port: &str) -> Option<FixedPort> {
        let path = format!("routed.static_ports.{port}");
        let value = find(self.user, &path)?;
        let DeValue::Table(table) = value.get_ref() else {
            let parsed = Err(wrong_type("a table with `mac`, `addresses`, `mtu`", value.get_ref()));
            return self.or_report(&path, value, parsed);
        };
        let keys = ["mac", "addresses", "mtu"];
        self.refuse_others(&format!("{path}."), table, &keys);
        let [mac, addresses, mtu] = keys.map(|key| Entry { value: table.get(key), table: value });
        let mac = self.required("mac", &mac, values::mac_address);
        let addresses = self.required("addresses", &addresses, values::networks);
        let mtu_bytes = self.required("mtu", &mtu, |value| number(value, 576, 9216));
        Some(FixedPort { mac: mac?, mtu_bytes: mtu_bytes?, addresses: addresses? })
    }

    /// The entries of a list of tables, each with the values of these keys.
    fn tables<const KEYS: usize>(
        &mut self,
        path: &str,
        keys: [&str; KEYS],
    ) -> Vec<[Entry<'a>; KEYS]> {
        let Some(value) = find(self.user, path) else { return Vec::new() };
        let what = format!("a list of tables ([[{path}]])");
        let DeValue::Array(array) = value.get_ref() else {
            let parsed = Err(wrong_type(&what, value.get_ref()));
            return self.or_report(path, value, parsed).unwrap_or_default();
        };
        if array.len() > STATIC_MAX {
            let message = format!("`{path}`: {} entries", array.len());
            let remedy = format!("there is room for {STATIC_MAX}");
            self.report(value.span(), "too many", message, &remedy);
        }
        let mut entries = Vec::new();
        for entry in array.iter().take(STATIC_MAX) {
            let DeValue::Table(table) = entry.get_ref() else {
                let parsed = Err(wrong_type(&what, entry.get_ref()));
                self.or_report::<()>(path, entry, parsed);
                continue;
            };
            self.refuse_others(&format!("{path}."), table, &keys);
            entries.push(keys.map(|key| Entry { value: table.get(key), table: entry }));
        }
        entries
    }

    fn required<T>(
        &mut self,
        key: &str,
        entry: &Entry,
        parse: impl Fn(&Value) -> Result<T, Bad>,
    ) -> Option<T> {
        match entry.value {
            Some(value) => self.or_report(key, value, parse(value)),
            None => {
                let message = format!("`{key}` is missing");
                let remedy = "see `static_ports` and what follows it in configs/default.toml";
                self.report(entry.table.span(), "here", message, remedy);
                None
            }
        }
    }
}

/// A value of a table, and the table itself for when there is none.
struct Entry<'a> {
    value: Option<&'a Value<'a>>,
    table: &'a Value<'a>,
}

fn port_id(value: &Value) -> Result<PortId, Bad> {
    one_of(value, &[("lan", PortId::Lan), ("wan", PortId::Wan)])
}
