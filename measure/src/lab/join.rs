//! Requests with their flows: what the load driver says of a request, beside what the taps saw of it.
//!
//! A request is one TCP connection, so it has two flows: the **bulk**, in the direction of its body, and the **back**
//! flow with acknowledgements. Both are known by the client's port, the server's being 443 or 80. Ports are used again:
//! of the flows with a request's port, those count that were there while it was, and the one that was there longest
//! of that time is its own. No flow is given away twice.
//!
//! Invariant: requests = with a bulk flow + without; flows of the server = bulk + back + without a request.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::records::{Bulk, RequestRecord};
use crate::flow::Direction;
use crate::flow_line::FlowLine;
use crate::source::Tap;

/// Ports of the server.
pub const SERVER_PORTS: [u16; 2] = [443, 80];

/// How many found each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounts {
    /// Requests.
    pub requests: u64,
    /// Those whose bulk was seen.
    pub with_flow: u64,
    /// Those whose bulk no tap saw.
    pub without_flow: u64,
    /// TCP flows from or to the server.
    pub server_flows: u64,
    /// Those of them that belong to a request, either way.
    pub with_request: u64,
    /// Those of them that belong to none.
    pub without_request: u64,
    /// All other flows, like the background.
    pub other_flows: u64,
}

impl Accounts {
    /// Those of another run, too.
    pub fn add(&mut self, other: &Accounts) {
        self.requests += other.requests;
        self.with_flow += other.with_flow;
        self.without_flow += other.without_flow;
        self.server_flows += other.server_flows;
        self.with_request += other.with_request;
        self.without_request += other.without_request;
        self.other_flows += other.other_flows;
    }
}

/// A request and what the taps saw of it.
#[derive(Debug, Clone, Copy)]
pub struct Joined<'r> {
    /// By the driver.
    pub request: &'r RequestRecord,
    /// The flow of its body.
    pub bulk: Option<&'r FlowLine>,
    /// The flow the other way.
    pub back: Option<&'r FlowLine>,
}

/// A port of the client, and whether packets go to it.
type End = (u16, bool);

/// Finds the flows of all requests.
pub fn join<'r>(
    requests: &'r [RequestRecord],
    flows: &'r [FlowLine],
) -> (Vec<Joined<'r>>, Accounts) {
    let mut by_end: HashMap<End, Vec<&FlowLine>> = HashMap::new();
    let mut accounts = Accounts { requests: requests.len() as u64, ..Accounts::default() };
    for flow in flows {
        match end(flow) {
            Some(end) => {
                accounts.server_flows += 1;
                by_end.entry(end).or_default().push(flow);
            }
            None => accounts.other_flows += 1,
        }
    }
    let ends_ns = ends(requests);
    let mut joined: Vec<Joined<'_>> =
        requests.iter().map(|request| Joined { request, bulk: None, back: None }).collect();
    // In the order of their beginnings, so that of two that use a port the earlier one chooses first.
    let mut order: Vec<usize> = (0..joined.len()).collect();
    order.sort_by_key(|&place| requests[place].started_ns);
    for place in order {
        let request = &requests[place];
        let Some(port) = request.port else { continue };
        let mut take = |to_client| {
            let found = by_end.get_mut(&(port, to_client))?;
            take_longest(found, request.started_ns, ends_ns[place])
        };
        let [to_client, to_server] = [true, false].map(&mut take);
        (joined[place].bulk, joined[place].back) = match request.bulk {
            Bulk::Download => (to_client, to_server),
            Bulk::Upload => (to_server, to_client),
        };
        let found = [joined[place].bulk, joined[place].back].iter().flatten().count();
        accounts.with_request += found as u64;
        accounts.with_flow += u64::from(joined[place].bulk.is_some());
    }
    accounts.without_flow = accounts.requests - accounts.with_flow;
    accounts.without_request = accounts.server_flows - accounts.with_request;
    (joined, accounts)
}

/// The client's end of a flow from or to the server.
fn end(flow: &FlowLine) -> Option<End> {
    match (SERVER_PORTS.contains(&flow.src_port), SERVER_PORTS.contains(&flow.dst_port)) {
        _ if flow.protocol != "tcp" => None,
        (true, false) => Some((flow.dst_port, true)),
        (false, true) => Some((flow.src_port, false)),
        _ => None,
    }
}

/// Until when each request had its port: its end, or else the beginning of the next that has the same.
fn ends(requests: &[RequestRecord]) -> Vec<u64> {
    let mut starts_ns: HashMap<u16, Vec<u64>> = HashMap::new();
    for request in requests {
        if let Some(port) = request.port {
            starts_ns.entry(port).or_default().push(request.started_ns);
        }
    }
    starts_ns.values_mut().for_each(|starts_ns| starts_ns.sort_unstable());
    let end = |request: &RequestRecord| {
        let starts_ns = request.port.and_then(|port| starts_ns.get(&port))?;
        let place = starts_ns.partition_point(|&ns| ns <= request.started_ns);
        starts_ns.get(place).copied()
    };
    requests
        .iter()
        .map(|request| request.finished_ns.or_else(|| end(request)).unwrap_or(u64::MAX))
        .collect()
}

/// The flow that was there longest of a time, which nobody else has then.
fn take_longest<'f>(
    flows: &mut Vec<&'f FlowLine>,
    from_ns: u64,
    until_ns: u64,
) -> Option<&'f FlowLine> {
    let there = |flow: &FlowLine| {
        let (first_ns, last_ns) = span(flow)?;
        let (from_ns, until_ns) = (from_ns.max(first_ns), until_ns.min(last_ns));
        until_ns.checked_sub(from_ns)
    };
    let longest = flows.iter().enumerate().filter_map(|(place, flow)| Some((there(flow)?, place)));
    // Of two that were there equally long, the earlier.
    let (_, place) = longest.max_by_key(|&(ns, place)| (ns, std::cmp::Reverse(place)))?;
    Some(flows.remove(place))
}

/// From when to when taps saw something of a flow.
fn span(flow: &FlowLine) -> Option<(u64, u64)> {
    let earliest = |times: [Option<u64>; 2]| times.into_iter().flatten().min();
    let first_ns = earliest([flow.first_ingress_ns, flow.first_egress_ns])?;
    let last_ns = [flow.last_ingress_ns, flow.last_egress_ns].into_iter().flatten().max()?;
    Some((first_ns, last_ns))
}

/// What the time of a request is made of, by both witnesses. All of it adds up:
/// `driver = before + forth + fct + after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witnesses {
    /// From connect to the last byte of the answer, by the driver's clock.
    pub driver_ns: i64,
    /// The bulk's completion time between the taps.
    pub fct_ns: i64,
    /// From the driver's start to the SYN at the client's tap: below zero only if clocks disagree.
    pub before_ns: i64,
    /// From the SYN at the client's tap to the bulk's first packet at the tap where it enters: of a download the way
    /// of the SYN and the server's answer, of an upload nothing.
    pub forth_ns: i64,
    /// From the bulk's last packet behind the WAN to the driver's end: below zero when that was the close of the
    /// connection.
    pub after_ns: i64,
    /// By how much the driver's handshake is longer than that at the client's tap: client, its LAN and its gateway,
    /// both ways. Below zero only if clocks disagree.
    pub handshake_ns: Option<i64>,
}

impl Joined<'_> {
    /// What both witnesses say, when both have seen all of it.
    pub fn witnesses(&self) -> Option<Witnesses> {
        let (bulk, back) = (self.bulk?, self.back?);
        let (to_server, to_client) = match self.request.bulk {
            Bulk::Download => (back, bulk),
            Bulk::Upload => (bulk, back),
        };
        let client = entry(to_server)?;
        let opened_ns = first_ns(to_server, client)?;
        let entered_ns = first_ns(bulk, entry(bulk)?)?;
        let left_ns = last_ns(bulk, entry(bulk)?.other())?;
        let difference = |from_ns: u64, to_ns: u64| to_ns.wrapping_sub(from_ns).cast_signed();
        let (started_ns, finished_ns) = (self.request.started_ns, self.request.finished_ns?);
        let handshake_ns = self.request.connected_ns.and_then(|connected_ns| {
            let answered_ns = first_ns(to_client, client)?;
            Some(difference(started_ns, connected_ns) - difference(opened_ns, answered_ns))
        });
        Some(Witnesses {
            driver_ns: difference(started_ns, finished_ns),
            fct_ns: difference(entered_ns, left_ns),
            before_ns: difference(started_ns, opened_ns),
            forth_ns: difference(opened_ns, entered_ns),
            after_ns: difference(left_ns, finished_ns),
            handshake_ns,
        })
    }
}

/// Where its packets enter.
fn entry(flow: &FlowLine) -> Option<Tap> {
    flow.direction.map(Direction::entry)
}

fn first_ns(flow: &FlowLine, tap: Tap) -> Option<u64> {
    match tap {
        Tap::Ingress => flow.first_ingress_ns,
        Tap::Egress => flow.first_egress_ns,
    }
}

fn last_ns(flow: &FlowLine, tap: Tap) -> Option<u64> {
    match tap {
        Tap::Ingress => flow.last_ingress_ns,
        Tap::Egress => flow.last_egress_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_700_000_000_000_000_000;

    fn request(number: u32, port: u16, from: u64, until: Option<u64>) -> RequestRecord {
        RequestRecord {
            number,
            kind: "listing".into(),
            bulk: Bulk::Download,
            packets: 5,
            bytes: 500,
            due_ns: T + from,
            started_ns: T + from,
            connected_ns: Some(T + from + 100),
            finished_ns: until.map(|until| T + until),
            port: Some(port),
            error: None,
        }
    }

    /// A flow to the client, or from it, with a way of 10 between the taps.
    fn flow(flow: u32, port: u16, to_client: bool, from: u64, until: u64) -> FlowLine {
        let enters = [Some(T + from), Some(T + until)];
        let leaves = [Some(T + from + 10), Some(T + until + 10)];
        let (ingress, egress) = if to_client { (leaves, enters) } else { (enters, leaves) };
        FlowLine {
            flow,
            src_port: if to_client { 443 } else { port },
            dst_port: if to_client { port } else { 443 },
            protocol: "tcp".into(),
            direction: Some(if to_client { Direction::Reverse } else { Direction::Forward }),
            first_ingress_ns: ingress[0],
            last_ingress_ns: ingress[1],
            first_egress_ns: egress[0],
            last_egress_ns: egress[1],
            fct_ns: Some(until + 10 - from),
            complete: true,
            ..FlowLine::default()
        }
    }

    fn bulks(joined: &[Joined<'_>]) -> Vec<Option<u32>> {
        joined.iter().map(|joined| joined.bulk.map(|flow| flow.flow)).collect()
    }

    #[test]
    fn a_port_used_again_gives_each_request_its_own_flow() {
        // The first connection's close is seen after the second request began.
        let requests = [
            request(0, 5000, 0, Some(1_000)),
            request(1, 5000, 1_100, Some(2_000)),
            request(2, 6000, 0, Some(900)),
        ];
        let flows = [
            flow(0, 5000, false, 20, 1_150),
            flow(1, 5000, true, 60, 1_140),
            flow(2, 5000, true, 1_180, 2_050),
            flow(3, 5000, false, 1_130, 2_060),
            flow(4, 6000, true, 50, 940),
        ];
        let (joined, accounts) = join(&requests, &flows);
        assert_eq!(bulks(&joined), [Some(1), Some(2), Some(4)]);
        assert_eq!(joined[0].back.unwrap().flow, 0);
        assert_eq!(joined[1].back.unwrap().flow, 3);
        assert!(joined[2].back.is_none());
        assert_eq!(
            (accounts.with_flow, accounts.with_request, accounts.without_request),
            (3, 5, 0)
        );
    }

    #[test]
    fn what_finds_nothing_is_counted() {
        let mut never_connected = request(1, 1, 50, None);
        never_connected.port = None;
        let requests = [request(0, 5000, 0, Some(1_000)), never_connected];
        let background = FlowLine { protocol: "udp".into(), ..flow(2, 7000, true, 0, 9_000) };
        let flows = [flow(0, 5000, true, 2_000, 2_500), flow(1, 6000, false, 0, 10), background];
        let (joined, accounts) = join(&requests, &flows);
        assert_eq!(bulks(&joined), [None, None]);
        let expected = Accounts {
            requests: 2,
            with_flow: 0,
            without_flow: 2,
            server_flows: 2,
            with_request: 0,
            without_request: 2,
            other_flows: 1,
        };
        assert_eq!(accounts, expected);
    }

    #[test]
    fn an_upload_has_its_bulk_on_the_way_to_the_server() {
        let upload = RequestRecord { bulk: Bulk::Upload, ..request(0, 5000, 0, Some(1_000)) };
        let flows = [flow(0, 5000, true, 60, 990), flow(1, 5000, false, 20, 980)];
        let requests = [upload];
        let (joined, _) = join(&requests, &flows);
        assert_eq!(joined[0].bulk.unwrap().flow, 1);
        let witnesses = joined[0].witnesses().unwrap();
        assert_eq!((witnesses.before_ns, witnesses.forth_ns, witnesses.fct_ns), (20, 0, 970));
    }

    #[test]
    fn a_request_that_never_ended_has_its_port_until_the_next() {
        let requests = [request(0, 5000, 0, None), request(1, 5000, 10_000, Some(20_000))];
        let flows = [flow(0, 5000, true, 50, 400), flow(1, 5000, true, 10_050, 19_900)];
        let (joined, _) = join(&requests, &flows);
        assert_eq!(bulks(&joined), [Some(0), Some(1)]);
    }

    #[test]
    fn the_times_of_both_witnesses_add_up() {
        let requests = [request(0, 5000, 0, Some(1_000))];
        let flows = [flow(0, 5000, false, 20, 1_030), flow(1, 5000, true, 70, 1_005)];
        let (joined, _) = join(&requests, &flows);
        let witnesses = joined[0].witnesses().unwrap();
        let expected = Witnesses {
            driver_ns: 1_000,
            fct_ns: 945,
            before_ns: 20,
            forth_ns: 50,
            after_ns: -15,
            // 100 by the driver; 20 to 80 at the client's tap.
            handshake_ns: Some(40),
        };
        assert_eq!(witnesses, expected);
        let Witnesses { driver_ns, fct_ns, before_ns, forth_ns, after_ns, .. } = witnesses;
        assert_eq!(driver_ns, before_ns + forth_ns + fct_ns + after_ns);
    }
}
