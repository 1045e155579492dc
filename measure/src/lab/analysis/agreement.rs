//! Two witnesses: the load driver's own clock and the taps'.
//!
//! Both are the same machine's wall clock, read by different programs at different places. So their times differ by
//! what lies between the places, and an order must hold: a request is started before its SYN is at the client's tap,
//! and the SYN-ACK is there before the driver knows of the connection. A **violation** breaks it by more than the
//! stated error of the taps.
//!
//! The order alone bounds a difference between the clocks from both sides, as NTP's exchange does: if the driver's were
//! ahead by more than the shortest time from its start to the SYN, that request would have started after its SYN; if
//! it were behind by more than the shortest time from the SYN-ACK to the driver's connection, the driver would have
//! known too soon. That is the **offset**. Times after the handshake are not checked one by one: the last packet of a
//! bulk may be seen before or after the driver's end.

use serde::{Deserialize, Serialize};

use super::observed::Observed;
use crate::lab::join::Witnesses;
use crate::statistics::{Summary, summary_of};

/// The stated error of the taps, unless they were calibrated. It is an assumption, and none of this machine's.
pub const ERROR_NS: u64 = 25_000;

/// Over all requests that both have seen whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// The stated error of a time of the taps.
    pub error_ns: u64,
    /// Whether it was calibrated for these taps.
    pub is_calibrated: bool,
    /// Requests.
    pub requests: u64,
    /// Requests whose order is broken by more than the stated error.
    pub violations: u64,
    /// By how much the driver's clock may be behind that of the taps, negative, and ahead of it, at most.
    pub offset_ns: Option<(i64, i64)>,
    /// The driver's time less the completion time between the taps. It is the sum of the next three.
    pub difference_ns: Summary,
    /// From the driver's start to the SYN at the client's tap.
    pub before_ns: Summary,
    /// From there to the bulk's first packet where it enters: the way of the SYN, and the server's answer.
    pub forth_ns: Summary,
    /// From the bulk's last packet behind the WAN to the driver's end.
    pub after_ns: Summary,
    /// The driver's handshake less that at the client's tap.
    pub handshake_ns: Summary,
    /// How much later than due requests were started: the driver keeps up, or not.
    pub late_ns: Summary,
}

pub(super) fn of(observed: &[Observed]) -> Option<Agreement> {
    let witnesses = || {
        let all = observed.iter().flat_map(|run| &run.observations);
        all.filter_map(|one| one.witnesses.as_ref())
    };
    witnesses().next()?;
    let bounds: Vec<Option<u64>> = observed.iter().map(|run| run.error_bound_ns).collect();
    let is_calibrated = bounds.iter().all(Option::is_some);
    let error_ns = match is_calibrated {
        true => bounds.into_iter().flatten().max().unwrap_or(ERROR_NS),
        false => ERROR_NS,
    };
    let least = -error_ns.cast_signed();
    let behind_ns = |one: &Witnesses| Some(one.handshake_ns? - one.before_ns);
    let breaks = |one: &&Witnesses| {
        one.before_ns < least || behind_ns(one).is_some_and(|behind_ns| behind_ns < least)
    };
    let shortest_before_ns = witnesses().map(|one| one.before_ns).min();
    let shortest_behind_ns = witnesses().filter_map(behind_ns).min();
    let of = |part: fn(&Witnesses) -> Option<i64>| summary_of(witnesses().filter_map(part));
    let all = observed.iter().flat_map(|run| &run.observations);
    Some(Agreement {
        error_ns,
        is_calibrated,
        requests: witnesses().count() as u64,
        violations: witnesses().filter(breaks).count() as u64,
        offset_ns: shortest_behind_ns
            .zip(shortest_before_ns)
            .map(|(behind_ns, before_ns)| (-behind_ns, before_ns)),
        difference_ns: of(|one| Some(one.driver_ns - one.fct_ns)),
        before_ns: of(|one| Some(one.before_ns)),
        forth_ns: of(|one| Some(one.forth_ns)),
        after_ns: of(|one| Some(one.after_ns)),
        handshake_ns: of(|one| one.handshake_ns),
        late_ns: summary_of(all.map(|one| one.late_ns.cast_signed())),
    })
}
