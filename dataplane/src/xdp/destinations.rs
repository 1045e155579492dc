//! What the XDP program of routed mode takes from the kernel: destinations, by longest prefix.
//!
//! ```text
//!   LAN   remote prefixes       forwarded       WAN   local prefixes     forwarded, when a lane has no tunnel
//!         own addresses         the kernel's          tunnel ends        their packets alone
//!                                                     own addresses      the kernel's
//! ```
//!
//! An own address is longer than any prefix around it, so it is the kernel's wherever it lies.
//! **Invariant:** a prefix is there once, and has no host bits.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Most destinations of each IP version on one port: `DESTINATIONS_MAX` of `routed.bpf.c`.
pub const DESTINATIONS_MAX: usize = 16384;

/// `FORWARDED` of `routed.bpf.c`.
const FORWARDED: u32 = 1;
/// `TUNNEL_GRE`.
const TUNNEL_GRE: u32 = 2;
/// `TUNNEL_UDP`.
const TUNNEL_UDP: u32 = 4;

/// Destinations of one port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Destinations {
    uses: BTreeMap<IpNet, u32>,
}

impl Destinations {
    /// Packets to this prefix are the worker's.
    pub fn forward(&mut self, prefix: IpNet) {
        self.uses.insert(prefix.trunc(), FORWARDED);
    }

    /// Packets to this address are the kernel's, unless it is an end of a tunnel.
    pub fn own(&mut self, address: IpAddr) {
        let tunnels = self.uses.entry(IpNet::from(address)).or_default();
        *tunnels &= TUNNEL_GRE | TUNNEL_UDP;
    }

    /// Packets of a GRE tunnel that ends at this address are the worker's; with `udp`, of GRE-in-UDP.
    pub fn tunnel(&mut self, local: IpAddr, udp: bool) {
        self.own(local);
        *self.uses.entry(IpNet::from(local)).or_default() |=
            if udp { TUNNEL_UDP } else { TUNNEL_GRE };
    }

    /// Prefixes of one IP version.
    pub(super) fn count(&self, is_ipv4: bool) -> usize {
        self.uses.keys().filter(|prefix| prefix.addr().is_ipv4() == is_ipv4).count()
    }

    /// Writes down what is in the map now.
    pub(super) fn note(&mut self, prefix: IpNet, uses: Option<u32>) {
        match uses {
            Some(uses) => self.uses.insert(prefix, uses),
            None => self.uses.remove(&prefix),
        };
    }

    /// What must be written and what removed to get here from `before`.
    pub(super) fn changes_since(&self, before: &Destinations) -> (Vec<(IpNet, u32)>, Vec<IpNet>) {
        let is_new = |(prefix, uses): &(&IpNet, &u32)| before.uses.get(prefix) != Some(uses);
        let written = self.uses.iter().filter(is_new).map(|(prefix, uses)| (*prefix, *uses));
        let removed = before.uses.keys().filter(|prefix| !self.uses.contains_key(prefix)).copied();
        (written.collect(), removed.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn an_own_address_is_the_kernels_in_whatever_order_it_is_named() {
        let mut one = Destinations::default();
        one.forward(net("10.0.0.1/32"));
        one.tunnel("192.0.2.1".parse().unwrap(), false);
        one.own("10.0.0.1".parse().unwrap());
        one.own("192.0.2.1".parse().unwrap());
        let mut other = Destinations::default();
        other.own("192.0.2.1".parse().unwrap());
        other.tunnel("192.0.2.1".parse().unwrap(), false);
        other.own("10.0.0.1".parse().unwrap());
        assert_eq!(one, other);
        assert_eq!(one.uses[&net("10.0.0.1/32")], 0);
        assert_eq!(one.uses[&net("192.0.2.1/32")], TUNNEL_GRE);
    }

    #[test]
    fn only_what_changed_is_written() {
        let mut before = Destinations::default();
        before.forward(net("10.0.0.0/8"));
        before.own("192.0.2.1".parse().unwrap());
        before.own("192.0.2.2".parse().unwrap());
        let mut after = Destinations::default();
        after.forward(net("10.0.0.0/8"));
        after.tunnel("192.0.2.2".parse().unwrap(), true);
        after.own("2001:db8::1".parse().unwrap());
        let (written, removed) = after.changes_since(&before);
        assert_eq!(written, [(net("192.0.2.2/32"), TUNNEL_UDP), (net("2001:db8::1/128"), 0)]);
        assert_eq!(removed, [net("192.0.2.1/32")]);
        assert_eq!((after.count(true), after.count(false)), (2, 1));
    }
}
