//! Next-hop objects (`ip nexthop`, FRR), which routes may name instead of having hops of their own.
//!
//! The kernel adds the hops to its messages unless `net.ipv4.nexthop_compat_mode` is 0; then only the number is there.

use std::collections::HashMap;

use super::message::{NextHop, RouteSource};
use crate::fib::{Hop, Kind, Route};

/// Objects by number.
#[derive(Debug, Default)]
pub(super) struct NextHops {
    objects: HashMap<u32, NextHop>,
}

impl NextHops {
    /// Adds one. True when there was another with this number, which routes may have.
    pub(super) fn set(&mut self, id: u32, next_hop: NextHop) -> bool {
        let before = self.objects.insert(id, next_hop);
        before.is_some_and(|before| before != self.objects[&id])
    }

    /// A route with hops of its own.
    pub(super) fn expand(&self, source: RouteSource) -> Route {
        let RouteSource { mut route, next_hop } = source;
        let Some(id) = next_hop.filter(|_| route.kind == Kind::Unicast && route.hops.is_empty())
        else {
            return route;
        };
        match self.objects.get(&id) {
            Some(NextHop::Hop(hop)) => route.hops.push(*hop),
            Some(NextHop::Blackhole) => return Route::of_kind(Kind::Blackhole),
            Some(NextHop::Group(members)) => {
                let member = |(id, weight): &(u32, u32)| match self.objects.get(id)? {
                    NextHop::Hop(hop) => Some(Hop { weight: *weight, ..*hop }),
                    _ => None,
                };
                route.hops.extend(members.iter().filter_map(member));
            }
            // It went, and the route with it.
            None => {}
        }
        route
    }
}
