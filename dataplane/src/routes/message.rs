//! Messages of rtnetlink (linux/rtnetlink.h, neighbour.h, if_addr.h, nexthop.h), read and written.
//!
//! By hand, because the kept crate (`netlink-packet-route` 0.34) does not know next-hop objects, which FRR uses, and
//! fails on a whole message for one attribute that is new; here what is unknown says nothing. What is read is five
//! fixed structures and their attributes. **Invariant:** nothing is read past a length that the message itself
//! has, and a message cut short is no message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::fib::{Health, Hop, Kind, Neighbour, Route, RouteKey, Table};

/// `struct nlmsghdr`: length, type, flags, sequence, port.
const HEADER_BYTES: usize = 16;

/// `NLMSG_ERROR`.
pub(super) const TYPE_ERROR: u16 = 2;
/// `NLMSG_DONE`.
pub(super) const TYPE_DONE: u16 = 3;

/// `RTM_GETLINK`; the others the same.
pub(super) const GET_LINK: u16 = 18;
pub(super) const GET_ADDRESS: u16 = 22;
pub(super) const GET_ROUTE: u16 = 26;
pub(super) const GET_NEIGHBOUR: u16 = 30;
pub(super) const GET_NEXT_HOP: u16 = 106;

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const NEW_NEIGHBOUR: u16 = 28;
const DELETE_NEIGHBOUR: u16 = 29;
const NEW_NEXT_HOP: u16 = 104;
const DELETE_NEXT_HOP: u16 = 105;

/// `NLM_F_REQUEST`.
const FLAG_REQUEST: u16 = 1;
/// `NLM_F_DUMP_INTR`: what was dumped changed meanwhile.
pub(super) const FLAG_DUMP_INTERRUPTED: u16 = 0x10;
/// `NLM_F_ROOT | NLM_F_MATCH`.
const FLAG_DUMP: u16 = 0x300;
/// `NLM_F_CREATE`.
const FLAG_CREATE: u16 = 0x400;
/// `NLM_F_REPLACE`.
const FLAG_REPLACE: u16 = 0x100;
/// `NLM_F_APPEND`.
const FLAG_APPEND: u16 = 0x800;

/// Neighbours that have a MAC address: `NUD_REACHABLE`, `STALE`, `DELAY`, `PROBE`, `NOARP`, `PERMANENT`.
const NEIGHBOUR_VALID: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;
/// `NUD_STALE`.
const NEIGHBOUR_STALE: u16 = 0x04;
/// `NTF_USE`: as if the kernel had a packet for it.
const NEIGHBOUR_USE: u8 = 0x01;
/// `NTF_PROXY`: not a neighbour, but an address that this machine answers for.
const NEIGHBOUR_PROXY: u8 = 0x08;

/// One message, of which only the header has been read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    Link { interface: u32, link: Link },
    LinkGone { interface: u32 },
    Address { address: crate::fib::Address },
    AddressGone { interface: u32, address: IpAddr },
    Route { key: RouteKey, route: RouteSource, how: How },
    RouteGone { key: RouteKey, route: RouteSource },
    Neighbour { interface: u32, address: IpAddr, neighbour: Neighbour },
    NeighbourGone { interface: u32, address: IpAddr },
    NextHop { id: u32, next_hop: NextHop },
    NextHopGone,
}

/// How a route came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Beside others, if there are any.
    Added,
    /// Instead of another, or with all its hops.
    Whole,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) mac: Option<[u8; 6]>,
    pub(super) mtu_bytes: u32,
    /// `IFF_UP`, `IFF_RUNNING`, `IFF_LOWER_UP`.
    pub(super) state: u32,
}

/// A route, with its hops or with the number of the object that has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RouteSource {
    pub(super) route: Route,
    pub(super) next_hop: Option<u32>,
}

/// A next-hop object (`ip nexthop`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NextHop {
    Hop(Hop),
    Blackhole,
    /// Number and weight of each.
    Group(Vec<(u32, u32)>),
}

/// The messages of a datagram.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = datagram.get(..HEADER_BYTES)?;
        let length = read_u32(header, 0)? as usize;
        let body = datagram.get(HEADER_BYTES..length)?;
        let message = Message {
            kind: read_u16(header, 4)?,
            flags: read_u16(header, 6)?,
            sequence: read_u32(header, 8)?,
            body,
        };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

impl Message<'_> {
    /// What it says; none when it is about something that does not matter here.
    pub(super) fn event(&self) -> Option<Event> {
        match self.kind {
            NEW_LINK | DELETE_LINK => self.link(),
            NEW_ADDRESS | DELETE_ADDRESS => self.address(),
            NEW_ROUTE | DELETE_ROUTE => self.route(),
            NEW_NEIGHBOUR | DELETE_NEIGHBOUR => self.neighbour(),
            NEW_NEXT_HOP => self.next_hop(),
            DELETE_NEXT_HOP => Some(Event::NextHopGone),
            _ => None,
        }
    }

    /// The kernel's error number of an error message; 0 is a confirmation.
    pub(super) fn errno(&self) -> i32 {
        read_u32(self.body, 0).map_or(libc::EBADMSG, |code| -code.cast_signed())
    }

    /// `struct ifinfomsg`: family, type, index, flags, change.
    fn link(&self) -> Option<Event> {
        let (fixed, attributes) = self.body.split_at_checked(16)?;
        // A bridge says the same, in its own family, of a port of it.
        if fixed[0] != libc::AF_UNSPEC as u8 {
            return None;
        }
        let interface = read_u32(fixed, 4)?;
        if self.kind == DELETE_LINK {
            return Some(Event::LinkGone { interface });
        }
        const STATE: u32 = (libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_LOWER_UP) as u32;
        let state = read_u32(fixed, 8)? & STATE;
        let mut link = Link { name: String::new(), mac: None, mtu_bytes: 0, state };
        for (kind, value) in self::attributes(attributes) {
            match kind {
                1 => link.mac = value.try_into().ok(),
                3 => link.name = String::from_utf8_lossy(value.strip_suffix(&[0])?).into_owned(),
                4 => link.mtu_bytes = read_u32(value, 0)?,
                _ => {}
            }
        }
        Some(Event::Link { interface, link })
    }

    /// `struct ifaddrmsg`: family, prefix length, flags, scope, index.
    fn address(&self) -> Option<Event> {
        /// `IFA_F_SECONDARY`, `IFA_F_DADFAILED`, `IFA_F_DEPRECATED`, `IFA_F_TENTATIVE`.
        const SECOND_CHOICE: u32 = 0x01 | 0x08 | 0x20 | 0x40;
        let (fixed, attributes) = self.body.split_at_checked(8)?;
        let interface = read_u32(fixed, 4)?;
        let (mut flags, mut peer, mut local) = (u32::from(fixed[2]), None, None);
        for (kind, value) in self::attributes(attributes) {
            match kind {
                1 => peer = read_address(value),
                2 => local = read_address(value),
                8 => flags = read_u32(value, 0)?,
                _ => {}
            }
        }
        // On a point-to-point link the first is the peer's.
        let address = local.or(peer)?;
        if self.kind == DELETE_ADDRESS {
            return Some(Event::AddressGone { interface, address });
        }
        let is_secondary = flags & SECOND_CHOICE != 0;
        Some(Event::Address { address: crate::fib::Address { interface, is_secondary, address } })
    }

    /// `struct ndmsg`: family, index, state, flags, type.
    fn neighbour(&self) -> Option<Event> {
        let (fixed, attributes) = self.body.split_at_checked(12)?;
        let interface = read_u32(fixed, 4)?;
        let state = read_u16(fixed, 8)?;
        let family = i32::from(fixed[0]);
        if fixed[10] & NEIGHBOUR_PROXY != 0 || family != libc::AF_INET && family != libc::AF_INET6 {
            return None;
        }
        let (mut address, mut mac) = (None, None);
        for (kind, value) in self::attributes(attributes) {
            match kind {
                1 => address = read_address(value),
                2 => mac = value.try_into().ok(),
                _ => {}
            }
        }
        let address = address?;
        if self.kind == DELETE_NEIGHBOUR {
            return Some(Event::NeighbourGone { interface, address });
        }
        let mac = mac.filter(|_| state & NEIGHBOUR_VALID != 0);
        let neighbour = Neighbour { mac, is_stale: state & NEIGHBOUR_STALE != 0 };
        Some(Event::Neighbour { interface, address, neighbour })
    }

    /// `struct rtmsg`: family, lengths of destination and source, type of service, table, protocol, scope, type,
    /// flags. What is not looked up here says nothing: other tables, routes by source or type of service, copies
    /// that the kernel made for one destination (`RTM_F_CLONED`), and networks of link-local addresses.
    fn route(&self) -> Option<Event> {
        const CLONED: u32 = 0x200;
        let (fixed, attributes) = self.body.split_at_checked(12)?;
        let (family, length, source, service) = (fixed[0], fixed[1], fixed[2], fixed[3]);
        let flags = read_u32(fixed, 8)?;
        if source != 0 || service != 0 || flags & CLONED != 0 {
            return None;
        }
        let mut read = RouteAttributes { table: fixed[4].into(), ..RouteAttributes::default() };
        self::attributes(attributes).try_for_each(|(kind, value)| read.read(kind, value))?;
        let table = match read.table {
            255 => Table::Local,
            254 => Table::Main,
            _ => return None,
        };
        let any = match i32::from(family) {
            libc::AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            libc::AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let prefix = IpNet::new(read.destination.unwrap_or(any), length).ok()?.trunc();
        if let IpAddr::V6(network) = prefix.addr()
            && network.is_unicast_link_local()
        {
            return None;
        }
        let key = RouteKey { table, prefix, metric: read.metric };
        let next_hop = read.next_hop;
        let route = RouteSource { route: read.route(fixed[7], flags)?, next_hop };
        if self.kind == DELETE_ROUTE {
            return Some(Event::RouteGone { key, route });
        }
        // Of an IPv6 route the kernel tells all hops when one was added.
        let is_whole = self.flags & FLAG_REPLACE != 0
            || self.flags & FLAG_APPEND != 0 && family == libc::AF_INET6 as u8;
        let how = if is_whole { How::Whole } else { How::Added };
        Some(Event::Route { key, route, how })
    }

    /// `struct nhmsg`: family, scope, protocol, reserved, flags.
    fn next_hop(&self) -> Option<Event> {
        let (fixed, attributes) = self.body.split_at_checked(8)?;
        let mut hop = Hop { interface: 0, gateway: None, weight: 1, health: health(fixed[4]) };
        let (mut id, mut blackhole, mut group, mut encapsulated) = (None, false, None, false);
        for (kind, value) in self::attributes(attributes) {
            match kind {
                1 => id = read_u32(value, 0),
                2 => group = Some(read_group(value)),
                4 => blackhole = true,
                5 => hop.interface = read_u32(value, 0)?,
                6 => hop.gateway = read_address(value),
                7 | 8 => encapsulated = true,
                _ => {}
            }
        }
        if encapsulated {
            hop.interface = 0;
        }
        let next_hop = match group {
            Some(members) => NextHop::Group(members),
            None if blackhole => NextHop::Blackhole,
            None => NextHop::Hop(hop),
        };
        Some(Event::NextHop { id: id?, next_hop })
    }
}

#[derive(Default)]
struct RouteAttributes {
    table: u32,
    destination: Option<IpAddr>,
    interface: u32,
    gateway: Option<IpAddr>,
    metric: u32,
    mtu_bytes: Option<u32>,
    hops: Vec<Hop>,
    next_hop: Option<u32>,
    /// Packets would be given headers that are not made here (`RTA_ENCAP`).
    encapsulated: bool,
}

impl RouteAttributes {
    fn read(&mut self, kind: u16, value: &[u8]) -> Option<()> {
        match kind {
            1 => self.destination = Some(read_address(value)?),
            4 => self.interface = read_u32(value, 0)?,
            5 => self.gateway = Some(read_address(value)?),
            6 => self.metric = read_u32(value, 0)?,
            // RTA_METRICS, in it RTAX_MTU.
            8 => {
                let mtu = attributes(value).find(|(kind, _)| *kind == 2);
                self.mtu_bytes = mtu.and_then(|(_, value)| read_u32(value, 0));
            }
            9 => self.hops = read_hops(value)?,
            15 => self.table = read_u32(value, 0)?,
            18 => self.gateway = Some(read_via(value)?),
            21 | 22 => self.encapsulated = true,
            30 => self.next_hop = read_u32(value, 0),
            _ => {}
        }
        Some(())
    }

    /// `RTN_UNICAST` to `RTN_THROW`.
    fn route(self, kind: u8, flags: u32) -> Option<Route> {
        let kind = match kind {
            1 => Kind::Unicast,
            2..=5 => Kind::Local,
            6 => Kind::Blackhole,
            7 => Kind::Unreachable,
            8 => Kind::Prohibit,
            9 => Kind::Throw,
            _ => return None,
        };
        if kind != Kind::Unicast {
            return Some(Route::of_kind(kind));
        }
        let mut hops = self.hops;
        if hops.is_empty() && (self.interface != 0 || self.gateway.is_some()) {
            let interface = if self.encapsulated { 0 } else { self.interface };
            let health = health(flags as u8);
            hops.push(Hop { interface, gateway: self.gateway, weight: 1, health });
        }
        Some(Route { kind, hops, mtu_bytes: self.mtu_bytes })
    }
}

/// `struct rtnexthop`: length, flags, weight less one, interface; its own attributes behind it.
fn read_hops(mut bytes: &[u8]) -> Option<Vec<Hop>> {
    let mut hops = Vec::new();
    while !bytes.is_empty() {
        let length = usize::from(read_u16(bytes, 0)?);
        let this = bytes.get(..length)?;
        let (fixed, attributes) = this.split_at_checked(8)?;
        let mut hop = Hop {
            interface: read_u32(fixed, 4)?,
            gateway: None,
            weight: u32::from(fixed[3]) + 1,
            health: health(fixed[2]),
        };
        for (kind, value) in self::attributes(attributes) {
            match kind {
                5 => hop.gateway = Some(read_address(value)?),
                18 => hop.gateway = Some(read_via(value)?),
                21 | 22 => hop.interface = 0,
                _ => {}
            }
        }
        hops.push(hop);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(hops)
}

/// `struct nexthop_grp`: number, weight less one, its high byte, reserved.
fn read_group(bytes: &[u8]) -> Vec<(u32, u32)> {
    let member = |entry: &[u8]| {
        let weight = u32::from(entry[5]) << 8 | u32::from(entry[4]);
        Some((read_u32(entry, 0)?, weight + 1))
    };
    bytes.chunks_exact(8).filter_map(member).collect()
}

/// `RTNH_F_DEAD`, `RTNH_F_LINKDOWN`.
fn health(flags: u8) -> Health {
    match flags {
        _ if flags & 1 != 0 => Health::Dead,
        _ if flags & 16 != 0 => Health::NoLink,
        _ => Health::Live,
    }
}

/// `struct rtattr`: length, type. The two high bits of the type say how the value is made.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(bytes, 0)?);
        let kind = read_u16(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// `struct rtvia`: family, address.
fn read_via(value: &[u8]) -> Option<IpAddr> {
    read_address(value.get(2..)?)
}

fn read_address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(value) {
        return Some(bytes.into());
    }
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}

fn read_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

fn read_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

/// Asks for everything of a kind: one of the `GET_` constants.
pub(super) fn dump(kind: u16, family: i32, sequence: u32) -> Vec<u8> {
    // Each structure begins with the family, and the rest may be zero.
    let fixed_bytes = match kind {
        GET_LINK => 16,
        GET_ROUTE | GET_NEIGHBOUR => 12,
        _ => 8,
    };
    let mut fixed = vec![0; fixed_bytes];
    fixed[0] = family as u8;
    request(kind, FLAG_REQUEST | FLAG_DUMP, sequence, &fixed)
}

/// Has the kernel find out a neighbour's MAC address, or confirm it, as if it had a packet for it.
pub(super) fn use_neighbour(interface: u32, address: IpAddr, sequence: u32) -> Vec<u8> {
    let (family, bytes) = match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let mut body = vec![family as u8, 0, 0, 0];
    body.extend(interface.to_ne_bytes());
    body.extend([0, 0, NEIGHBOUR_USE, 0]);
    body.extend((4 + bytes.len() as u16).to_ne_bytes());
    body.extend(1_u16.to_ne_bytes());
    body.extend(bytes);
    request(NEW_NEIGHBOUR, FLAG_REQUEST | FLAG_CREATE, sequence, &body)
}

fn request(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend(((HEADER_BYTES + body.len()) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// 10.1.0.0/16, metric 20, by two hops: 192.0.2.1 on 3, weight 2; fe80::1 on 4, without link.
    fn multipath() -> Vec<u8> {
        let via = [&[10, 0][..], &"fe80::1".parse::<Ipv6Addr>().unwrap().octets()].concat();
        let hop = |flags: u8, weight: u8, interface: u32, attribute: Vec<u8>| {
            let mut hop = (8 + attribute.len() as u16).to_ne_bytes().to_vec();
            hop.extend([flags, weight - 1]);
            hop.extend(interface.to_ne_bytes());
            hop.extend(attribute);
            hop
        };
        let hops =
            [hop(0, 2, 3, attribute(5, &[192, 0, 2, 1])), hop(16, 1, 4, attribute(18, &via))];
        let mut body = vec![2, 16, 0, 0, 254, 186, 0, 1, 0, 0, 0, 0];
        body.extend(attribute(1, &[10, 1, 0, 0]));
        body.extend(attribute(6, &20_u32.to_ne_bytes()));
        body.extend(attribute(8, &attribute(2, &1400_u32.to_ne_bytes())));
        body.extend(attribute(9, &hops.concat()));
        request(NEW_ROUTE, 0, 7, &body)
    }

    #[test]
    fn a_route_by_two_hops_of_both_versions_is_read() {
        let bytes = multipath();
        let all: Vec<_> = messages(&bytes).collect();
        let [message] = all[..] else { panic!("{all:?}") };
        let hop = |interface, gateway: &str, weight, health| Hop {
            interface,
            gateway: Some(gateway.parse().unwrap()),
            weight,
            health,
        };
        let hops = vec![hop(3, "192.0.2.1", 2, Health::Live), hop(4, "fe80::1", 1, Health::NoLink)];
        let route = Route { kind: Kind::Unicast, hops, mtu_bytes: Some(1400) };
        let prefix = "10.1.0.0/16".parse().unwrap();
        let key = RouteKey { table: Table::Main, prefix, metric: 20 };
        let route = RouteSource { route, next_hop: None };
        assert_eq!(message.event(), Some(Event::Route { key, route, how: How::Added }));
    }

    #[test]
    fn what_is_cut_short_or_lies_about_its_length_ends() {
        let whole = multipath();
        for bytes in 0..whole.len() {
            assert_eq!(messages(&whole[..bytes]).count(), 0);
        }
        for at in (0..whole.len()).step_by(2) {
            for lie in [0_u16, 1, 3, 4, 7, 15, 0x7fff, 0xffff] {
                let mut bytes = whole.clone();
                bytes[at..at + 2].copy_from_slice(&lie.to_ne_bytes());
                // What it says does not matter, only that it says it and ends.
                let said = messages(&bytes).filter_map(|message| message.event()).count();
                assert!(said <= 1);
            }
        }
    }
}
