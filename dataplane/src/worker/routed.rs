//! The part of a worker that only routed mode needs.
//!
//! ```text
//!   receive -> Gateway::process -> by verdict:  out of either port | wait | back to the free frames
//!                             \--> outbox: frames made, copied into free ones and sent; next hops asked for
//! ```
//!
//! A packet that waits keeps its frame. There are at most [`WAITING_MAX`] of them, for at most [`WAIT_MAX_NS`]; the
//! account of frames has them as in process.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use super::exchange::{Exchange, Sent};
use super::{Worker, batch_of};
use crate::batch::{Packet, PortId};
use crate::flow::observer::Unobserved;
use crate::port::{BURST_MAX, Burst, Port};
use crate::verdict::{Outcome, Verdict};

/// Most packets of a worker that wait for a next hop: a burst.
const WAITING_MAX: usize = BURST_MAX;
/// Longest wait: as long as the kernel tries, three times a second apart.
const WAIT_MAX_NS: u64 = 3_000_000_000;

/// A next hop whose MAC address is wanted, and the port it is at.
pub type Ask = (PortId, IpAddr);

/// Packets that wait, in order of arrival.
pub(super) type Waiting<F> = ArrayVec<Waiter<F>, WAITING_MAX>;

/// A packet that waits.
pub(super) struct Waiter<F> {
    frame: F,
    port: PortId,
    address: IpAddr,
    since_ns: u64,
    outcome: Outcome,
    wire_bytes: u32,
}

/// Packets that are copied into free frames and sent, as many as possible at once: each call of
/// [`Port::transmit`] may be a system call.
struct Copies<'a, P: Port> {
    ports: &'a mut [P; 2],
    frames: &'a mut P::Frames,
    outgoing: [Burst<P::Frame>; 2],
}

impl<'a, P: Port> Copies<'a, P> {
    fn new(ports: &'a mut [P; 2], frames: &'a mut P::Frames) -> Self {
        Copies { ports, frames, outgoing: [Burst::new(), Burst::new()] }
    }

    /// Copies a packet that is to leave by `port`; false when there is no room in its transmit ring, or no frame.
    fn add(&mut self, port: PortId, packet: &[u8]) -> bool {
        let (burst, port) = (&mut self.outgoing[port.index()], &mut self.ports[port.index()]);
        if burst.is_full() {
            port.transmit(self.frames, burst);
        }
        if burst.len() >= port.transmit_room() {
            return false;
        }
        let Some(mut frame) = P::take(self.frames, packet.len()) else { return false };
        P::buffer(self.frames, &mut frame).copy_from_slice(packet);
        burst.push(frame);
        true
    }

    /// Sends what was not sent yet.
    fn transmit(mut self) {
        for (port, burst) in self.ports.iter_mut().zip(&mut self.outgoing) {
            port.transmit(self.frames, burst);
        }
    }
}

/// What was decided of a packet, when its bytes are no longer borrowed.
#[derive(Clone, Copy)]
struct Fate {
    verdict: Verdict,
    outcome: Outcome,
    bytes: u32,
    wire_bytes: u32,
    /// Of what came out of a tunnel.
    flow_hash: Option<u32>,
}

impl<P: Port> Worker<P> {
    /// One burst from one port. It is no larger than the room of either port, for it may leave by either.
    pub(super) fn forward_routed(&mut self, ingress: PortId, now_ns: u64) -> usize {
        let [lan, wan] = &self.ports;
        let room = lan.transmit_room().min(wan.transmit_room()).min(BURST_MAX);
        let mut burst: Burst<P::Frame> = Burst::new();
        self.ports[ingress.index()].receive(&mut self.frames, &mut burst, room);
        if burst.is_empty() {
            return 0;
        }
        let packets = burst.len();
        match self.decide(&mut burst, ingress, now_ns) {
            (lengths, None) => {
                for (frame, length) in burst.iter_mut().zip(lengths) {
                    P::set_length(&self.frames, frame, length as usize);
                }
                self.ports[ingress.opposite().index()].transmit(&mut self.frames, &mut burst);
            }
            (_, Some(fates)) => self.sort_out(burst, &fates, now_ns),
        }
        self.empty_outbox();
        packets
    }

    /// Each packet of a burst to where it goes.
    #[inline(never)]
    fn sort_out(&mut self, mut burst: Burst<P::Frame>, fates: &[Fate], now_ns: u64) {
        let mut outgoing: [Burst<P::Frame>; 2] = [Burst::new(), Burst::new()];
        let mut waits = 0;
        for (mut frame, &fate) in burst.drain(..).zip(fates) {
            match fate.verdict {
                Verdict::Transmit(port)
                    if let Some(worker) = other_for(self.exchange.as_ref(), fate.flow_hash) =>
                {
                    self.hand_over(worker, port, frame, fate);
                }
                Verdict::Transmit(port) => {
                    P::set_length(&self.frames, &mut frame, fate.bytes as usize);
                    outgoing[port.index()].push(frame);
                }
                Verdict::Drop(_) | Verdict::Replace => P::release(&mut self.frames, frame),
                Verdict::Wait => {
                    P::set_length(&self.frames, &mut frame, fate.bytes as usize);
                    self.keep(frame, fate, waits, now_ns);
                    waits += 1;
                }
            }
        }
        for (port, burst) in self.ports.iter_mut().zip(&mut outgoing) {
            port.transmit(&mut self.frames, burst);
        }
        if let Some(exchange) = &mut self.exchange {
            exchange.ring();
        }
    }

    /// To the worker of its flow; the frame is free again at once.
    fn hand_over(&mut self, worker: usize, port: PortId, mut frame: P::Frame, fate: Fate) {
        P::set_length(&self.frames, &mut frame, fate.bytes as usize);
        let exchange = self.exchange.as_mut().expect("there is another worker");
        if !exchange.give(worker, port, &P::buffer(&self.frames, &mut frame)) {
            self.gateway.count_not_handed_over(fate.outcome, fate.wire_bytes);
        }
        P::release(&mut self.frames, frame);
    }

    /// Sends what other workers have handed over; returns how many packets that were.
    pub(super) fn take_over(&mut self) -> usize {
        let Some(exchange) = &mut self.exchange else { return 0 };
        let mut copies = Copies::new(&mut self.ports, &mut self.frames);
        let packets = exchange.take(|port, packet| match copies.add(port, packet) {
            true => Sent::Yes,
            false => Sent::No,
        });
        copies.transmit();
        packets
    }

    /// Has the gateway decide. When all packets leave by the other port, as in nearly all bursts, the burst goes as a
    /// whole and their lengths are all that is to be known; else each has its fate.
    #[inline(always)]
    fn decide(
        &mut self,
        burst: &mut Burst<P::Frame>,
        ingress: PortId,
        now_ns: u64,
    ) -> (ArrayVec<u32, BURST_MAX>, Option<ArrayVec<Fate, BURST_MAX>>) {
        let mut batch = batch_of::<P>(&self.frames, burst, ingress, now_ns);
        if let Some(router) = self.gateway.router() {
            router.outbox().set_wait_room(self.waiting.remaining_capacity());
        }
        self.gateway.process(&mut batch, &mut Unobserved);
        let exchange = self.exchange.as_ref();
        let crosses = |packet: &Packet<'_>| {
            packet.verdict == Verdict::Transmit(ingress.opposite())
                && other_for(exchange, packet.flow_hash).is_none()
        };
        if batch.iter().all(crosses) {
            return (batch.iter().map(|packet| packet.bytes.len() as u32).collect(), None);
        }
        let fate = |packet: &Packet<'_>| Fate {
            verdict: packet.verdict,
            outcome: packet.outcome,
            bytes: packet.bytes.len() as u32,
            wire_bytes: packet.wire_bytes,
            flow_hash: packet.flow_hash,
        };
        (ArrayVec::new(), Some(batch.iter().map(fate).collect()))
    }

    /// Keeps the packet that is the `number`-th to wait of its batch.
    fn keep(&mut self, frame: P::Frame, fate: Fate, number: usize, now_ns: u64) {
        let router = self.gateway.router().expect("only a router has packets wait");
        let wait = router.outbox().waits()[number];
        let Fate { outcome, wire_bytes, .. } = fate;
        let (port, address) = (wait.port, wait.address);
        self.waiting.push(Waiter { frame, port, address, since_ns: now_ns, outcome, wire_bytes });
    }

    /// Sends what the gateway made and passes on what it asks.
    fn empty_outbox(&mut self) {
        let Some(router) = self.gateway.router() else { return };
        if router.outbox().is_empty() {
            return;
        }
        let mut not_sent = 0;
        let mut copies = Copies::new(&mut self.ports, &mut self.frames);
        for (port, bytes, _) in router.outbox().frames() {
            not_sent += u64::from(!copies.add(port, bytes));
        }
        copies.transmit();
        if let Some(asks) = &self.asks {
            for ask in router.outbox().asked() {
                // Should too many be asked for at once, the next packet asks again.
                let _ = asks.try_send(*ask);
            }
        }
        router.outbox().clear();
        router.count_not_sent(not_sent);
    }

    /// Sends the waiting packets whose next hop is known by now, and gives up those that waited too long.
    pub(super) fn send_waiting(&mut self, now_ns: u64) {
        for waiter in std::mem::take(&mut self.waiting) {
            let router = self.gateway.router().expect("only a router has packets wait");
            let link = router.link_to(waiter.port, waiter.address);
            let port = &mut self.ports[waiter.port.index()];
            match link.filter(|_| port.transmit_room() > 0) {
                Some(link) => {
                    let Waiter { mut frame, outcome, wire_bytes, .. } = waiter;
                    // The EtherType is there already.
                    P::buffer(&self.frames, &mut frame)[..12].copy_from_slice(&link[..12]);
                    port.transmit(&mut self.frames, &mut Burst::from_iter([frame]));
                    self.gateway.count_waited(outcome, wire_bytes, true);
                }
                None => self.waiting.push(waiter),
            }
        }
        self.give_up_waiting(now_ns.saturating_sub(WAIT_MAX_NS));
    }

    /// Drops the packets that have waited since before `horizon_ns`.
    pub(super) fn give_up_waiting(&mut self, horizon_ns: u64) {
        for waiter in std::mem::take(&mut self.waiting) {
            if waiter.since_ns >= horizon_ns {
                self.waiting.push(waiter);
                continue;
            }
            self.gateway.count_waited(waiter.outcome, waiter.wire_bytes, false);
            P::release(&mut self.frames, waiter.frame);
        }
    }
}

/// The worker of a flow, when it is not this one.
#[inline]
fn other_for(exchange: Option<&Exchange>, flow_hash: Option<u32>) -> Option<usize> {
    exchange?.other_for(flow_hash?)
}
