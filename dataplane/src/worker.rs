//! A worker: one thread, one queue of each port, one gateway, and the loop that joins them.
//!
//! ```text
//! +-> receive a burst -> Gateway::process -> transmit -> tick --+
//! |      (LAN to WAN, then WAN to LAN; the clock read once)     |
//! +-------------------------------------------------------------+
//! ```
//!
//! A burst is never larger than the transmit ring has room for, so a packet that was received can always be
//! sent: when the far side is slow, packets wait, and are in the end dropped, in the kernel's receive ring,
//! which counts them (`rx_ring_full`, `rx_dropped`). The worker itself drops only what the gateway says.
//!
//! In routed mode a packet may leave by the port it came in on, or wait until its next hop is known; frames that
//! the gateway makes are copied into free ones. `routed` has that part.
//!
//! Nothing is shared with other threads on the way of a packet. Orders come in, and what was counted goes
//! out, once a tick.

mod exchange;
mod export;
mod routed;

use std::ops::AddAssign;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use arrayvec::ArrayVec;
use crossbeam::channel::{Receiver, Sender, TryRecvError};
use serde::{Deserialize, Serialize};

use crate::batch::{Packet, PortId};
use crate::clock::Clock;
use crate::config::Poll;
use crate::counters::Counters;
use crate::fib::Fib;
use crate::flow::observer::Unobserved;
use crate::gateway::{Gateway, Settings};
use crate::memory;
use crate::port::{BURST_MAX, Burst, FrameAccount, Port};
use crate::verdict::Verdict;
pub use exchange::{Exchange, HandoverCounters};
pub use export::Export;
pub use routed::Ask;
use routed::Waiting;

/// Time between two ticks.
pub const TICK_NS: u64 = 10_000_000;
/// Rounds without a packet after which an adaptive worker sleeps: some tens of microseconds.
const SPIN_ROUNDS: u32 = 256;
/// Longest sleep, so that ticks go on.
const SLEEP_MAX: Duration = Duration::from_nanos(TICK_NS);
/// How long a stopping worker waits for packets in flight.
const DRAIN_MAX_NS: u64 = 500_000_000;

/// What a worker is told.
#[derive(Debug)]
pub enum Order {
    /// Other settings from the next packet on.
    Reload(Settings),
    /// In routed mode: other routes from the next packet on. Who sends them keeps a reference to each, so that
    /// the worker never frees one.
    Routes(Arc<Fib>),
    /// Send what was received, then stop. The ports receive nothing new any more.
    Stop,
}

/// What a worker says of itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WorkerReport<S> {
    /// What its gateway counted.
    pub counters: Counters,
    /// Where its frames are.
    pub frames: FrameAccount,
    /// Whether every frame was accounted for whenever that was checked.
    pub frames_balance: bool,
    /// Settings it was given since it started.
    pub reloads: u64,
    /// Packets that it handed over to other workers, and they to it.
    #[serde(default)]
    pub handover: HandoverCounters,
    /// What its ports counted, in [`PortId`] order.
    pub ports: [S; 2],
}

impl<S: AddAssign + Clone> WorkerReport<S> {
    /// The same after an earlier part of the same worker's life, with other ports: what those counted is
    /// added. The gateway's counters went on anyway, and each pair of ports has frames of its own.
    pub fn after(mut self, past: &WorkerReport<S>) -> WorkerReport<S> {
        self.frames_balance &= past.frames_balance;
        self.reloads += past.reloads;
        self.handover.add(&past.handover);
        for (port, past) in self.ports.iter_mut().zip(&past.ports) {
            *port += past.clone();
        }
        self
    }
}

/// Where a worker leaves its report, for whoever asks.
pub type Published<S> = Arc<Mutex<WorkerReport<S>>>;

/// Ports, packet memory and gateway of one thread.
pub struct Worker<P: Port> {
    ports: [P; 2],
    frames: P::Frames,
    gateway: Gateway,
    /// Packets whose next hop is not known, in order of arrival.
    waiting: Waiting<P::Frame>,
    /// Where next hops are asked for.
    asks: Option<Sender<Ask>>,
    /// To and from other workers, when there are any.
    exchange: Option<Exchange>,
    /// Where flows go that are saved.
    export: Option<Export>,
    poll: Poll,
    orders: Receiver<Order>,
    published: Published<P::Statistics>,
    clock: Clock,
    ticked_ns: u64,
    frames_balance: bool,
    reloads: u64,
}

impl<P: Port> Worker<P> {
    /// Ready to run, and its first report published.
    pub fn new(
        ports: [P; 2],
        frames: P::Frames,
        gateway: Gateway,
        poll: Poll,
        orders: Receiver<Order>,
        published: Published<P::Statistics>,
    ) -> Self {
        let mut worker = Worker {
            ports,
            frames,
            gateway,
            waiting: Waiting::new(),
            asks: None,
            exchange: None,
            export: None,
            poll,
            orders,
            published,
            clock: Clock::start(),
            ticked_ns: 0,
            frames_balance: true,
            reloads: 0,
        };
        // Whoever asks before the first tick gets an answer too.
        worker.publish();
        worker
    }

    /// The same by a clock that runs already. A gateway's time never runs backwards: one that changes its
    /// ports keeps its clock.
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The same with somebody to ask for next hops, in routed mode.
    pub fn with_asks(mut self, asks: Sender<Ask>) -> Self {
        self.asks = Some(asks);
        self
    }

    /// The same with other workers to hand packets over to, in routed mode.
    pub fn with_exchange(mut self, exchange: Exchange) -> Self {
        self.exchange = Some(exchange);
        self
    }

    /// Its ways to other workers.
    pub fn exchange(&self) -> Option<&Exchange> {
        self.exchange.as_ref()
    }

    /// The same with somebody who saves its flows.
    pub fn with_export(mut self, export: Export) -> Self {
        self.export = Some(export);
        self
    }

    /// Closes the ports; what is left can go on with others.
    pub fn into_gateway(self) -> (Gateway, Clock) {
        (self.gateway, self.clock)
    }

    /// Forwards packets until it is told to stop, or nobody is left to tell it. Ports and memory stay open:
    /// closing them takes system calls that a worker's thread may not make.
    pub fn run(&mut self) -> WorkerReport<P::Statistics> {
        let mut idle_rounds: u32 = 0;
        loop {
            let now_ns = self.clock.now_ns();
            if self.round(now_ns) > 0 {
                idle_rounds = 0;
            } else {
                idle_rounds = idle_rounds.saturating_add(1);
            }
            if now_ns - self.ticked_ns >= TICK_NS && self.tick(now_ns).is_break() {
                break;
            }
            if self.poll == Poll::Adaptive && idle_rounds >= SPIN_ROUNDS {
                self.sleep();
            }
        }
        self.drain();
        self.give_up_waiting(u64::MAX);
        self.gateway.settle();
        self.report()
    }

    fn sleep(&mut self) {
        let Some(exchange) = &self.exchange else {
            return P::wait(&mut self.ports, None, SLEEP_MAX);
        };
        if exchange.doze() {
            P::wait(&mut self.ports, Some(exchange.bell()), SLEEP_MAX);
        }
        exchange.wake();
    }

    /// Both directions once; returns how many packets there were.
    pub fn round(&mut self, now_ns: u64) -> usize {
        let mut packets = 0;
        for ingress in PortId::ALL {
            packets += self.forward(ingress, now_ns);
        }
        packets += self.take_over();
        for port in &mut self.ports {
            port.maintain(&mut self.frames);
        }
        packets
    }

    #[inline(always)]
    fn forward(&mut self, ingress: PortId, now_ns: u64) -> usize {
        if self.gateway.router().is_some() {
            return self.forward_routed(ingress, now_ns);
        }
        let egress = ingress.opposite();
        let room = self.ports[egress.index()].transmit_room().min(BURST_MAX);
        let mut burst: Burst<P::Frame> = Burst::new();
        self.ports[ingress.index()].receive(&mut self.frames, &mut burst, room);
        if burst.is_empty() {
            return 0;
        }
        let packets = burst.len();
        let drops = self.process(&mut burst, ingress, now_ns);
        for position in drops.into_iter().rev() {
            P::release(&mut self.frames, burst.remove(position));
        }
        self.ports[egress.index()].transmit(&mut self.frames, &mut burst);
        packets
    }

    /// Has the gateway decide; returns the positions of what it dropped.
    #[inline(always)]
    fn process(
        &mut self,
        burst: &mut Burst<P::Frame>,
        ingress: PortId,
        now_ns: u64,
    ) -> ArrayVec<usize, BURST_MAX> {
        let mut batch = batch_of::<P>(&self.frames, burst, ingress, now_ns);
        self.gateway.process(&mut batch, &mut Unobserved);
        let dropped = |packet: &Packet<'_>| matches!(packet.verdict, Verdict::Drop(_));
        batch.iter().enumerate().filter(|(_, packet)| dropped(packet)).map(|(at, _)| at).collect()
    }

    /// What is done now and then: ages flows, hands some to whoever saves them, publishes a report, takes orders. Breaks when it is time to
    /// stop.
    pub fn tick(&mut self, now_ns: u64) -> std::ops::ControlFlow<()> {
        self.ticked_ns = now_ns;
        self.gateway.tick(now_ns);
        if let Some(export) = &self.export {
            export.turn(&self.gateway);
        }
        self.publish();
        if !self.waiting.is_empty() {
            // The other port may have room again, and nothing waits for ever.
            self.send_waiting(now_ns);
        }
        loop {
            match self.orders.try_recv() {
                Ok(Order::Reload(settings)) => {
                    self.gateway.reload(settings);
                    self.reloads += 1;
                }
                Ok(Order::Routes(fib)) => {
                    if let Some(router) = self.gateway.router() {
                        router.set_fib(fib);
                    }
                    self.send_waiting(now_ns);
                }
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => {
                    return std::ops::ControlFlow::Break(());
                }
                Err(TryRecvError::Empty) => return std::ops::ControlFlow::Continue(()),
            }
        }
    }

    /// A reader may hold the report at this moment; the next tick brings a newer one.
    fn publish(&mut self) {
        let report = self.report();
        match self.published.try_lock() {
            Ok(mut published) => *published = report,
            Err(TryLockError::Poisoned(poisoned)) => *poisoned.into_inner() = report,
            Err(TryLockError::WouldBlock) => {}
        }
    }

    /// What it has come to.
    pub fn report(&mut self) -> WorkerReport<P::Statistics> {
        let frames = P::account(&self.ports, &self.frames, self.waiting.len());
        debug_assert!(frames.balances(), "a frame is lost or doubled: {frames:?}");
        self.frames_balance &= frames.balances();
        WorkerReport {
            counters: self.gateway.counters(),
            frames,
            frames_balance: self.frames_balance,
            reloads: self.reloads,
            handover: self.exchange.as_ref().map(|exchange| exchange.counters).unwrap_or_default(),
            ports: self.ports.each_ref().map(P::statistics),
        }
    }

    /// Sends what is in the receive rings and waits until it is sent. A port that sends nothing, because its
    /// link is down, is waited for no longer than a moment.
    fn drain(&mut self) {
        let start_ns = self.clock.now_ns();
        loop {
            let now_ns = self.clock.now_ns();
            let packets = self.round(now_ns);
            let in_flight = P::account(&self.ports, &self.frames, 0).transmitting != [0, 0];
            if packets == 0 && !in_flight || now_ns - start_ns > DRAIN_MAX_NS {
                return;
            }
        }
    }
}

/// The packets of a burst, on their way to the gateway.
#[inline(always)]
fn batch_of<'a, P: Port>(
    frames: &'a P::Frames,
    burst: &'a mut Burst<P::Frame>,
    ingress: PortId,
    now_ns: u64,
) -> ArrayVec<Packet<'a>, BURST_MAX> {
    let packet = |frame: &'a mut P::Frame| {
        let bytes = P::buffer(frames, frame);
        // Where packets are copied, another core has just written them. Fetching a whole burst at once costs
        // little more than fetching one.
        if let Some(first) = bytes.first() {
            memory::prefetch(first);
        }
        Packet::new(bytes, ingress, now_ns)
    };
    burst.iter_mut().map(packet).collect()
}
