//! What a route is: where it applies, and what happens to packets there.

use std::net::IpAddr;

use ipnet::IpNet;

/// Routing tables of the kernel, in the order in which its default rules ask them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// What belongs to this machine (255).
    Local,
    /// Everything else (254).
    Main,
}

/// What tells routes apart. Of routes to one prefix in one table, that with the lowest metric is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// The table it is in.
    pub table: Table,
    /// Destinations, without host bits.
    pub prefix: IpNet,
    /// The kernel's "metric" or "priority".
    pub metric: u32,
}

/// What happens to packets on a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// They are sent to one of its hops.
    Unicast,
    /// They are this machine's: local, broadcast, anycast and multicast routes.
    Local,
    /// They are refused: ICMP host unreachable.
    Unreachable,
    /// They vanish.
    Blackhole,
    /// They are refused: ICMP administratively prohibited.
    Prohibit,
    /// The look-up goes on in the next table.
    Throw,
}

/// A route without its destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// What happens.
    pub kind: Kind,
    /// Where packets are sent; empty unless `kind` is unicast.
    pub hops: Vec<Hop>,
    /// Most bytes of a packet on it, from its IP header on; none takes the interface's MTU.
    pub mtu_bytes: Option<u32>,
}

/// One way that a route may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hop {
    /// Number of the interface; 0 is none of ours.
    pub interface: u32,
    /// Who takes the packets, of either IP version; none when the destination itself does.
    pub gateway: Option<IpAddr>,
    /// Share of the flows, 1 to 65536.
    pub weight: u32,
    /// What the kernel knows of its state.
    pub health: Health,
}

/// Whether a hop can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// It can.
    Live,
    /// Its interface has no link (`RTNH_F_LINKDOWN`): used when no other is better.
    NoLink,
    /// Its interface is down (`RTNH_F_DEAD`): never used.
    Dead,
}

impl Route {
    /// A route by one hop.
    pub fn via(interface: u32, gateway: Option<IpAddr>) -> Route {
        let hop = Hop { interface, gateway, weight: 1, health: Health::Live };
        Route { kind: Kind::Unicast, hops: vec![hop], mtu_bytes: None }
    }

    /// A route without hops.
    pub fn of_kind(kind: Kind) -> Route {
        Route { kind, hops: Vec::new(), mtu_bytes: None }
    }

    /// The best health of its hops decides which of them are used; none are when all are dead.
    pub(super) fn used_hops(&self) -> impl Iterator<Item = &Hop> {
        let best = self.hops.iter().map(|hop| hop.health).min().unwrap_or(Health::Dead);
        self.hops.iter().filter(move |hop| hop.health == best && best != Health::Dead)
    }

    /// Whether the kernel would consider it at all.
    pub(super) fn is_usable(&self) -> bool {
        self.kind != Kind::Unicast || self.used_hops().next().is_some()
    }
}
