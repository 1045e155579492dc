//! The way out of a lane: what its configuration and the routes of this moment come to.

use std::net::IpAddr;

use super::express::Express;
use crate::batch::PortId;
use crate::fib::{Fib, LINK_HEADER_BYTES, Resolution};
use crate::lane::Lane;
use crate::lane::encapsulation::Encapsulator;
use crate::lane::mark::Mark;
use crate::lane::path_mtu::{LaneMtu, PathMtus};
use crate::lane::sequence::Numbers;
use crate::verdict::DropReason;

/// Where packets go next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Out of this port, with this Ethernet header, if they have no more bytes from their IP header on.
    Known { port: PortId, link: [u8; LINK_HEADER_BYTES], mtu_bytes: u32 },
    /// The next hop's MAC address is not known.
    Unresolved { port: PortId, address: IpAddr },
    /// To the kernel, or nowhere.
    Nowhere(DropReason),
}

/// A lane, ready for packets.
#[derive(Debug)]
pub(super) enum Way {
    /// Packets keep their destination.
    Plain { next_hop: Option<IpAddr>, mark: Option<Mark> },
    /// Packets get outer headers.
    Tunnel(Box<TunnelWay>),
}

/// A tunnel's way out.
#[derive(Debug)]
pub(super) struct TunnelWay {
    pub(super) encapsulator: Encapsulator,
    pub(super) remote: IpAddr,
    /// Its path MTU.
    pub(super) path: LaneMtu,
    /// To the other end, by the routes of this moment.
    pub(super) next: Next,
}

impl Way {
    pub(super) fn new(
        lane: &Lane,
        number: usize,
        numbers: &Numbers,
        path_mtus: &PathMtus,
        fib: &Fib,
    ) -> Self {
        match *lane {
            Lane::Mark(mark) => Way::Plain { next_hop: None, mark: Some(mark) },
            Lane::NextHop { address, mark } => Way::Plain { next_hop: Some(address), mark },
            Lane::Gre(tunnel) => Way::Tunnel(Box::new(TunnelWay {
                encapsulator: Encapsulator::new(&tunnel, numbers.clone()),
                path: path_mtus.of_lane(number),
                remote: tunnel.remote,
                next: Next::to(fib, tunnel.remote, 0),
            })),
        }
    }

    /// The shorter way of plain packets, if it is a tunnel that has one.
    pub(super) fn express(&self) -> Option<Express> {
        match self {
            Way::Tunnel(way) => Express::of(way),
            Way::Plain { .. } => None,
        }
    }

    /// Takes other routes into account.
    pub(super) fn follow(&mut self, fib: &Fib) {
        if let Way::Tunnel(tunnel) = self {
            tunnel.next = Next::to(fib, tunnel.remote, 0);
        }
    }
}

impl Next {
    /// By the route to `destination`.
    #[inline]
    pub(super) fn to(fib: &Fib, destination: IpAddr, flow_hash: u32) -> Self {
        Next::of(fib.resolve(destination, flow_hash))
    }

    /// By a lane's next hop, if it has one, else by the route to `destination`.
    pub(super) fn via(
        fib: &Fib,
        next_hop: Option<IpAddr>,
        destination: IpAddr,
        flow_hash: u32,
    ) -> Self {
        match next_hop {
            Some(address) => Next::of(fib.resolve_via(address, destination, flow_hash)),
            None => Next::to(fib, destination, flow_hash),
        }
    }

    #[inline]
    fn of(resolution: Resolution) -> Self {
        match resolution {
            Resolution::Forward { port, link, mtu_bytes } => Next::Known { port, link, mtu_bytes },
            Resolution::Unresolved { port, address } => Next::Unresolved { port, address },
            Resolution::Local => Next::Nowhere(DropReason::LeftToKernel),
            Resolution::NoRoute
            | Resolution::OtherInterface
            | Resolution::Unreachable
            | Resolution::Blackhole
            | Resolution::Prohibit => Next::Nowhere(DropReason::NoRoute),
        }
    }
}
