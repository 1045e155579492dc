//! The other side of the rings: a kernel that is as slow, forgetful and dishonest as it is told to be.
//!
//! ```text
//!   wire ---> (held) ---> receive ring ---> worker ---> transmit ring ---> sending ---> completion ring
//!               ^                             |                                               |
//!               +-------- fill ring <---------+<----------------------------------------------+
//! ```
//!
//! It notes who has each frame and asserts that the worker gives it only what the worker has. What it
//! hands over is decided when the worker takes it: a stray descriptor, one that stands for no frame, then
//! names a frame that this ring could not have had at that moment, as no worker could tell it from a sound
//! one otherwise.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use crossbeam::channel::Sender;
use dataplane::batch::PortId;
use dataplane::port::FrameAccount;
use dataplane::worker::Order;
use dataplane::xdp::{Memory, Rings, SocketStatistics, WakeFailures};
use nix::errno::Errno;

use crate::memory::{Entry, FRAME_BYTES, PlainMemory};
use crate::packet::{FLOWS, Model, PACKET_BYTES_MAX, PACKET_BYTES_MIN, Packet};
use crate::random::Random;

const HEADROOM_BYTES: usize = 256;
/// Packets that wait for a driver which receives nothing.
pub(crate) const WIRE_PACKETS_MAX: usize = 200;
/// Calls in a row that may come to nothing before one has to work.
const CALLS_IGNORED_MAX: usize = 8;
/// Each sleep lets the kernel send a ring of packets.
const SLEEPS_MAX: usize = 1000;
/// Entries of the transmit ring that one call reads, without a larger budget.
const CALL_BUDGET: usize = 32;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Config {
    pub(crate) entries: usize,
    pub(crate) zero_copy: bool,
    /// Whether a driver that ran out of frames has to be called to receive again.
    pub(crate) receive_stops: bool,
}

/// How often, in 256, the kernel does what.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Temper {
    pub(crate) ignores_call: usize,
    pub(crate) fails_call: usize,
    pub(crate) damages: usize,
    pub(crate) drops: usize,
    pub(crate) moves_start: usize,
    /// Does something while the worker is between two calls.
    pub(crate) acts_between: usize,
}

/// Who has a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Worker,
    Receiving(PortId),
    Transmitting(PortId),
}

/// What an entry of the receive ring stands for.
enum Received {
    Packet { address: usize, packet: Packet },
    Damaged { address: usize },
    Stray,
}

#[derive(Default)]
struct Side {
    fill: VecDeque<usize>,
    /// Entries of the fill and transmit rings that were read, and have not been said to be.
    fill_unpublished: usize,
    transmit_unpublished: usize,
    /// Frames taken from the fill ring, without a packet yet.
    held: Vec<usize>,
    receive: VecDeque<Received>,
    receive_visible: usize,
    transmit: VecDeque<Entry>,
    /// Addresses that were read from the transmit ring and have not completed.
    sending: Vec<usize>,
    /// `None` for a stray one.
    completion: VecDeque<Option<usize>>,
    completion_visible: usize,
    wire: VecDeque<Packet>,
    /// What should leave here next.
    expected: VecDeque<Packet>,
    /// Neither receives nor sends.
    down: bool,
    /// Receives, but never sends.
    stuck: bool,
    /// The driver sends without being called.
    sends_alone: bool,
    transmit_flag: bool,
    receive_stopped: bool,
    receive_flag: bool,
    calls_ignored: usize,
    statistics: SocketStatistics,
    injected: u64,
    damaged: u64,
    delivered: u64,
    sent: u64,
}

pub(crate) struct Kernel {
    config: Config,
    pub(crate) temper: Temper,
    random: Random,
    memory: PlainMemory,
    places: Vec<Place>,
    sides: [Side; 2],
    pub(crate) model: Model,
    next_number: u64,
    alone: Option<Alone>,
    /// How often the worker slept before all was at rest.
    sleeps: usize,
}

/// What a kernel does that nobody drives but the worker, with its calls.
enum Alone {
    /// Nothing that was sent completes before the worker sleeps; at rest, the order is sent.
    UntilRest(Sender<Order>),
    /// A ring of packets arrives in the very moment in which the worker takes the order.
    UntilOrder,
    /// What was sent completes now and then; the number of calls.
    Slowly(u32),
}

pub(crate) type Shared = Rc<RefCell<Kernel>>;

/// What may happen in the kernel, apart from calls.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Inject,
    Take,
    Receive,
    PublishReceive,
    PublishFill,
    PublishTransmit,
    Send,
    Complete,
    PublishCompletion,
    StrayReceive,
    StrayCompletion,
    SendsAlone,
    Flag,
    Link,
}

impl Event {
    pub(crate) const ALL: [Event; 14] = [
        Event::Inject,
        Event::Take,
        Event::Receive,
        Event::PublishReceive,
        Event::PublishFill,
        Event::PublishTransmit,
        Event::Send,
        Event::Complete,
        Event::PublishCompletion,
        Event::StrayReceive,
        Event::StrayCompletion,
        Event::SendsAlone,
        Event::Flag,
        Event::Link,
    ];
}

impl Kernel {
    pub(crate) fn new(config: Config, random: Random) -> Kernel {
        let memory = PlainMemory::new(4 * config.entries);
        let side = || Side { transmit_flag: true, ..Side::default() };
        Kernel {
            config,
            temper: Temper::default(),
            random,
            places: vec![Place::Worker; memory.frames()],
            memory,
            sides: [side(), side()],
            model: Model::default(),
            next_number: 0,
            alone: None,
            sleeps: 0,
        }
    }

    pub(crate) fn memory(&self) -> PlainMemory {
        self.memory.clone()
    }

    pub(crate) fn entries(&self) -> usize {
        self.config.entries
    }

    /// Has a port send nothing until the kernel behaves.
    pub(crate) fn get_stuck(&mut self, port: PortId) {
        self.sides[port.index()].stuck = true;
    }

    /// From here on nobody else drives it. The worker is told to stop when all is at rest.
    pub(crate) fn run_alone(&mut self, orders: Sender<Order>) {
        self.inject_everywhere(WIRE_PACKETS_MAX);
        self.alone = Some(Alone::UntilRest(orders));
    }

    fn inject_everywhere(&mut self, packets: usize) {
        PortId::ALL.into_iter().for_each(|port| self.inject(port, packets));
    }

    pub(crate) fn sent(&self, port: PortId) -> u64 {
        self.sides[port.index()].sent
    }

    pub(crate) fn delivered(&self, port: PortId) -> u64 {
        self.sides[port.index()].delivered
    }

    /// Packets that arrive at a port.
    pub(crate) fn inject(&mut self, port: PortId, packets: usize) {
        for _ in 0..packets {
            let side = &mut self.sides[port.index()];
            if side.wire.len() >= WIRE_PACKETS_MAX {
                return;
            }
            side.wire.push_back(Packet {
                number: self.next_number,
                bytes: PACKET_BYTES_MIN
                    + self.random.below(PACKET_BYTES_MAX - PACKET_BYTES_MIN + 1),
                flow: self.random.below(FLOWS),
                opens: self.random.below(32) == 0,
                traffic_class: self.random.below(256) as u8,
            });
            side.injected += 1;
            self.next_number += 1;
        }
    }

    pub(crate) fn happen(&mut self, event: Event) {
        let port = self.random.pick(&PortId::ALL);
        let count = 1 + self.random.below(48);
        let config = self.config;
        let side = &mut self.sides[port.index()];
        match event {
            Event::Inject => self.inject(port, count),
            Event::Take => {
                let count = count.min(side.fill.len());
                side.held.extend(side.fill.drain(..count));
                side.fill_unpublished += count;
            }
            Event::Receive => self.receive(port, count),
            Event::PublishReceive => side.receive_visible = side.receive.len(),
            Event::PublishFill => side.fill_unpublished = 0,
            Event::PublishTransmit => side.transmit_unpublished = 0,
            Event::Send if side.sends_alone && !side.down => {
                let unread = side.transmit.len();
                self.send(port, count);
                let side = &mut self.sides[port.index()];
                side.transmit_unpublished += unread - side.transmit.len();
            }
            Event::Send => {}
            Event::Complete if config.zero_copy && !side.sends_alone => {}
            Event::Complete => self.complete(port, count),
            Event::PublishCompletion => side.completion_visible = side.completion.len(),
            Event::StrayReceive if side.receive.len() < config.entries => {
                side.receive.push_back(Received::Stray);
            }
            Event::StrayCompletion
                if side.completion.len() + side.sending.len() < config.entries =>
            {
                side.completion.push_back(None);
            }
            Event::StrayReceive | Event::StrayCompletion => {}
            Event::SendsAlone => side.sends_alone = self.random.below(2) == 0,
            // It need not agree with what the driver does: it may be early, late or needless.
            Event::Flag => {
                side.transmit_flag = self.random.below(2) == 0;
                side.receive_flag = self.random.below(2) == 0;
            }
            Event::Link => side.down = self.random.below(4) == 0,
        }
    }

    /// From here on it does what it should, all that it can at once, and only when it is called where it
    /// may ask for that.
    pub(crate) fn behave(&mut self) {
        self.temper = Temper::default();
        for side in &mut self.sides {
            side.down = false;
            side.stuck = false;
            side.sends_alone = false;
            side.transmit_flag = true;
            side.receive_flag = side.receive_stopped;
        }
        PortId::ALL.into_iter().for_each(|port| self.act(port));
    }

    /// A port's share of a round of a kernel that behaves.
    pub(crate) fn act(&mut self, port: PortId) {
        self.receive(port, usize::MAX);
        let completes = match &mut self.alone {
            None => true,
            Some(Alone::UntilRest(_) | Alone::UntilOrder) => false,
            Some(Alone::Slowly(calls)) => {
                *calls += 1;
                *calls % 64 < 2
            }
        };
        if completes && !self.config.zero_copy {
            self.complete(port, usize::MAX);
        }
        let side = &mut self.sides[port.index()];
        side.receive_flag = side.receive_stopped;
        side.receive_visible = side.receive.len();
        side.fill_unpublished = 0;
        side.transmit_unpublished = 0;
        side.completion_visible = side.completion.len();
    }

    /// Whether nothing is under way. Stray completions may wait for the next packet that is sent.
    pub(crate) fn at_rest(&self) -> bool {
        let received = |side: &Side| side.wire.is_empty() && side.receive.is_empty();
        self.frames_at_rest() && self.sides.iter().all(received)
    }

    fn frames_at_rest(&self) -> bool {
        PortId::ALL.into_iter().all(|port| {
            self.count(Place::Receiving(port)) == self.config.entries
                && self.count(Place::Transmitting(port)) == 0
        })
    }

    fn count(&self, place: Place) -> usize {
        self.places.iter().filter(|found| **found == place).count()
    }

    /// Where the kernel knows the frames to be. The worker has nothing in its hands between two rounds.
    pub(crate) fn account(&self) -> FrameAccount {
        let mut account = FrameAccount { total: self.places.len(), ..FrameAccount::default() };
        for place in &self.places {
            match place {
                Place::Worker => account.free += 1,
                Place::Receiving(port) => account.receiving[port.index()] += 1,
                Place::Transmitting(port) => account.transmitting[port.index()] += 1,
            }
        }
        account
    }

    pub(crate) fn statistics(&self) -> [SocketStatistics; 2] {
        self.sides.each_ref().map(|side| side.statistics)
    }

    /// Every frame that the kernel has is in one of its lists, once; every packet is somewhere.
    pub(crate) fn check_books(&self) {
        let mut found = vec![Place::Worker; self.places.len()];
        let mut note = |address: usize, place| {
            let frame = &mut found[address / FRAME_BYTES];
            assert_eq!(*frame, Place::Worker, "the frame at {address} is in two lists");
            *frame = place;
        };
        for (side, port) in self.sides.iter().zip(PortId::ALL) {
            let received = side.receive.iter().filter_map(|entry| match entry {
                Received::Packet { address, .. } | Received::Damaged { address } => Some(*address),
                Received::Stray => None,
            });
            let receiving = side.fill.iter().chain(&side.held).copied().chain(received);
            receiving.for_each(|address| note(address, Place::Receiving(port)));
            let transmitting = side.transmit.iter().map(|entry| entry.address);
            let transmitting = transmitting.chain(side.sending.iter().copied());
            let transmitting = transmitting.chain(side.completion.iter().flatten().copied());
            transmitting.for_each(|address| note(address, Place::Transmitting(port)));

            let received = side
                .receive
                .iter()
                .filter(|entry| matches!(entry, Received::Packet { .. }))
                .count();
            let statistics = &side.statistics;
            assert_eq!(
                side.injected,
                (side.wire.len() + received) as u64
                    + side.delivered
                    + side.damaged
                    + statistics.rx_dropped
                    + statistics.rx_ring_full
            );
        }
        assert_eq!(found, self.places);
        let under_way: usize = self.sides.iter().map(|side| side.expected.len()).sum();
        let sent: u64 = self.sides.iter().map(|side| side.sent).sum();
        assert_eq!(self.model.received, sent + under_way as u64 + self.model.exceeds_mtu);
    }

    /// A run in which some fault never came up proves less than it seems to.
    pub(crate) fn check_variety(&self) {
        for side in &self.sides {
            let SocketStatistics { rx_dropped, rx_ring_full, faulty_descriptors, .. } =
                side.statistics;
            let WakeFailures { again, busy, no_buffers, network_down, other } =
                side.statistics.wake_failures;
            let came_up = [
                side.statistics.rx_fill_ring_empty_descs,
                rx_dropped,
                rx_ring_full,
                side.damaged,
                faulty_descriptors - side.damaged,
                again,
                busy,
                no_buffers,
                network_down,
                other,
            ];
            assert!(came_up.iter().all(|times| *times > 0), "{came_up:?}");
        }
    }

    fn receive(&mut self, port: PortId, count: usize) {
        let side = &mut self.sides[port.index()];
        if side.down || side.receive_stopped {
            return;
        }
        for _ in 0..count.min(side.wire.len()) {
            // A driver uses what it holds in the order it likes.
            let from_held = !side.held.is_empty();
            let frame = if from_held {
                let index = self.random.below(side.held.len());
                Some(side.held.swap_remove(index))
            } else {
                side.fill.pop_front()
            };
            let Some(frame) = frame else {
                side.statistics.rx_fill_ring_empty_descs += 1;
                side.receive_stopped = self.config.receive_stops;
                side.receive_flag |= side.receive_stopped && !self.random.chance(64);
                return;
            };
            side.fill_unpublished += usize::from(!from_held);
            let packet = side.wire.pop_front().expect("counted");
            let full = side.receive.len() == self.config.entries;
            if full || self.random.chance(self.temper.drops) {
                side.statistics.rx_ring_full += u64::from(full);
                side.statistics.rx_dropped += u64::from(!full);
                side.held.push(frame);
                continue;
            }
            let mut address = frame - frame % FRAME_BYTES + HEADROOM_BYTES;
            if self.random.chance(self.temper.moves_start) {
                address += self.random.below(1400);
            }
            if self.random.chance(self.temper.damages) {
                side.damaged += 1;
                side.receive.push_back(Received::Damaged { address });
            } else {
                self.memory.write(address, packet.write(&mut [0; PACKET_BYTES_MAX]));
                side.receive.push_back(Received::Packet { address, packet });
            }
        }
    }

    /// Reads the transmit ring, compares what it finds with what should be there, and says that it has
    /// read.
    fn send(&mut self, port: PortId, budget: usize) {
        let side = &mut self.sides[port.index()];
        for _ in 0..budget {
            if side.completion.len() + side.sending.len() == self.config.entries {
                break;
            }
            let Some(entry) = side.transmit.pop_front() else { break };
            let expected = side.expected.pop_front().expect("a packet that nobody sent");
            let mut buffer = [0; PACKET_BYTES_MAX];
            let bytes = expected.write(&mut buffer);
            let sound = entry.packet_bytes == bytes.len()
                && entry.options == 0
                && self.memory.holds(entry.address, bytes);
            if !sound {
                let found = self.memory.read(entry.address, entry.packet_bytes);
                panic!("{entry:?} should be {expected:?}\n{bytes:02x?}, is\n{found:02x?}");
            }
            side.sending.push(entry.address);
            side.sent += 1;
        }
    }

    /// What is sent completes in any order, but not before its entry is known to have been read.
    fn complete(&mut self, port: PortId, count: usize) {
        let side = &mut self.sides[port.index()];
        side.transmit_unpublished = 0;
        for _ in 0..count.min(side.sending.len()) {
            let index = self.random.below(side.sending.len());
            side.completion.push_back(Some(side.sending.swap_remove(index)));
        }
    }

    /// A call that may come to nothing, but not for ever.
    fn call(&mut self, port: PortId) -> Result<bool, Errno> {
        let side = &mut self.sides[port.index()];
        let failures = &mut side.statistics.wake_failures;
        if side.down {
            failures.network_down += 1;
            return Err(Errno::ENETDOWN);
        }
        if side.calls_ignored < CALLS_IGNORED_MAX {
            side.calls_ignored += 1;
            if self.random.chance(self.temper.ignores_call) {
                return Ok(false);
            }
            if self.random.chance(self.temper.fails_call) {
                let WakeFailures { again, busy, no_buffers, other, .. } = failures;
                let failure = self.random.below(4);
                *[again, busy, no_buffers, other][failure] += 1;
                let errors = [Errno::EAGAIN, Errno::EBUSY, Errno::ENOBUFS, Errno::ENXIO];
                return Err(errors[failure]);
            }
        }
        side.calls_ignored = 0;
        Ok(true)
    }

    fn wake_transmit(&mut self, port: PortId) -> Result<(), Errno> {
        let side = &mut self.sides[port.index()];
        if side.stuck {
            side.statistics.wake_failures.again += 1;
            return Err(Errno::EAGAIN);
        }
        if !self.call(port)? {
            return Ok(());
        }
        if self.config.zero_copy {
            self.send(port, usize::MAX);
            let sending = self.sides[port.index()].sending.len();
            self.complete(port, sending);
            return Ok(());
        }
        self.send(port, CALL_BUDGET);
        let side = &mut self.sides[port.index()];
        side.transmit_unpublished = 0;
        if side.transmit.is_empty() {
            return Ok(());
        }
        side.statistics.wake_failures.again += 1;
        Err(Errno::EAGAIN)
    }

    fn wake_receive(&mut self, port: PortId) -> Result<(), Errno> {
        if self.call(port)? {
            let side = &mut self.sides[port.index()];
            side.receive_stopped = false;
            side.receive_flag = false;
        }
        Ok(())
    }

    /// The kernel has a core of its own.
    fn between(&mut self) {
        if self.random.chance(self.temper.acts_between) {
            let event = self.random.pick(&Event::ALL[..9]);
            self.happen(event);
        }
    }

    /// A frame changes hands.
    fn go(&mut self, address: usize, from: Place, to: Place) {
        let place = self.places.get_mut(address / FRAME_BYTES);
        let place = place.unwrap_or_else(|| panic!("there is no frame at {address}"));
        assert_eq!(*place, from, "the frame at {address} cannot become {to:?}");
        *place = to;
    }

    /// An address of nothing that `place` has.
    fn stray(&mut self, place: Place) -> Entry {
        let end = self.places.len() * FRAME_BYTES;
        let address = match self.random.below(8) {
            0 => end,
            1 => self.random.pick(&[usize::MAX, usize::MAX / 2, 1 << 48, end + FRAME_BYTES]),
            _ => self.random.below(end),
        };
        let believable = self.places.get(address / FRAME_BYTES) == Some(&place);
        let address = if believable { end + address } else { address };
        Entry { address, packet_bytes: self.random.pick(&[0, 60, 1500, 1 << 31]), options: 0 }
    }

    /// A frame, but no packet.
    fn damaged(&mut self, address: usize) -> Entry {
        let start = address - address % FRAME_BYTES;
        let room = FRAME_BYTES - address % FRAME_BYTES;
        let entry = |address, packet_bytes, options| Entry { address, packet_bytes, options };
        match self.random.below(6) {
            0 => entry(address, 0, 0),
            1 => entry(address, 1 + self.random.below(13), 0),
            2 => entry(address, room + 1 + self.random.below(100), 0),
            3 => entry(address, self.random.pick(&[usize::MAX, 1 << 31, FRAME_BYTES]), 0),
            4 => entry(address, 60, 1 << self.random.below(32)),
            _ => entry(start + FRAME_BYTES - 1 - self.random.below(59), 60, 0),
        }
    }
}

/// A port's rings in a simulated kernel.
pub(crate) struct SimulatedRings {
    pub(crate) kernel: Shared,
    pub(crate) port: PortId,
}

impl SimulatedRings {
    fn with<T>(&self, act: impl FnOnce(&mut Kernel) -> T) -> T {
        let mut kernel = self.kernel.borrow_mut();
        kernel.between();
        act(&mut kernel)
    }

    fn side<T>(&self, act: impl FnOnce(&mut Side, usize) -> T) -> T {
        self.with(|kernel| act(&mut kernel.sides[self.port.index()], kernel.config.entries))
    }
}

impl Rings for SimulatedRings {
    type Memory = PlainMemory;

    fn entries(&self) -> usize {
        self.side(|_, entries| entries)
    }

    fn zero_copy(&self) -> bool {
        self.kernel.borrow().config.zero_copy
    }

    fn fill_room(&mut self, _wanted: usize) -> usize {
        self.side(|side, entries| entries - side.fill.len() - side.fill_unpublished)
    }

    unsafe fn fill(&mut self, frames: &[Entry]) -> usize {
        let port = self.port;
        self.with(|kernel| {
            let side = &kernel.sides[port.index()];
            if side.fill.len() + side.fill_unpublished + frames.len() > kernel.config.entries {
                return 0;
            }
            for entry in frames {
                kernel.go(entry.address, Place::Worker, Place::Receiving(port));
                kernel.sides[port.index()].fill.push_back(entry.address);
            }
            frames.len()
        })
    }

    fn receive(&mut self, packets: &mut [Entry]) -> usize {
        let port = self.port;
        self.with(|kernel| {
            if kernel.alone.is_some() {
                kernel.act(port);
            }
            let count = packets.len().min(kernel.sides[port.index()].receive_visible);
            kernel.sides[port.index()].receive_visible -= count;
            for entry in &mut packets[..count] {
                let side = &mut kernel.sides[port.index()];
                *entry = match side.receive.pop_front().expect("visible") {
                    Received::Packet { address, packet } => {
                        side.delivered += 1;
                        kernel.go(address, Place::Receiving(port), Place::Worker);
                        if let Some(changed) = kernel.model.forward(port, packet) {
                            kernel.sides[port.opposite().index()].expected.push_back(changed);
                        }
                        Entry { address, packet_bytes: packet.bytes, options: 0 }
                    }
                    Received::Damaged { address } => {
                        side.statistics.faulty_descriptors += 1;
                        kernel.go(address, Place::Receiving(port), Place::Worker);
                        kernel.damaged(address)
                    }
                    Received::Stray => {
                        side.statistics.faulty_descriptors += 1;
                        kernel.stray(Place::Receiving(port))
                    }
                };
            }
            count
        })
    }

    unsafe fn transmit(&mut self, packets: &[Entry]) -> usize {
        let port = self.port;
        self.with(|kernel| {
            let side = &kernel.sides[port.index()];
            if side.transmit.len() + side.transmit_unpublished + packets.len()
                > kernel.config.entries
            {
                return 0;
            }
            for entry in packets {
                kernel.go(entry.address, Place::Worker, Place::Transmitting(port));
                kernel.sides[port.index()].transmit.push_back(*entry);
            }
            packets.len()
        })
    }

    fn transmit_unread(&mut self) -> usize {
        self.side(|side, _| side.transmit.len() + side.transmit_unpublished)
    }

    fn complete(&mut self, frames: &mut [Entry]) -> usize {
        let port = self.port;
        self.with(|kernel| {
            let count = frames.len().min(kernel.sides[port.index()].completion_visible);
            kernel.sides[port.index()].completion_visible -= count;
            for entry in &mut frames[..count] {
                let side = &mut kernel.sides[port.index()];
                *entry = match side.completion.pop_front().expect("visible") {
                    Some(address) => {
                        kernel.go(address, Place::Transmitting(port), Place::Worker);
                        Entry { address, ..Entry::default() }
                    }
                    None => {
                        side.statistics.faulty_descriptors += 1;
                        kernel.stray(Place::Transmitting(port))
                    }
                };
            }
            count
        })
    }

    fn receive_needs_wakeup(&self) -> bool {
        self.side(|side, _| side.receive_flag)
    }

    fn transmit_needs_wakeup(&self) -> bool {
        self.side(|side, _| side.transmit_flag)
    }

    fn wake_receive(&mut self) -> Result<(), Errno> {
        self.with(|kernel| kernel.wake_receive(self.port))
    }

    fn wake_transmit(&mut self) -> Result<(), Errno> {
        self.with(|kernel| kernel.wake_transmit(self.port))
    }

    /// Nobody sleeps here; but nobody may want to sleep for long while only a round of the worker can get
    /// things going.
    fn wait(
        rings: [&mut SimulatedRings; 2],
        wanted: [bool; 2],
        _bell: Option<BorrowedFd<'_>>,
        timeout: Duration,
    ) {
        let mut kernel = rings[0].kernel.borrow_mut();
        kernel.sleeps += usize::from(matches!(kernel.alone, Some(Alone::UntilRest(_))));
        assert!(kernel.sleeps < SLEEPS_MAX, "it never comes to rest: {:?}", kernel.account());
        for port in PortId::ALL {
            let egress = kernel.account().transmitting[port.opposite().index()];
            let room = egress < kernel.config.entries;
            assert_eq!(wanted[port.index()], room, "woken by what it cannot take: {port:?}");
        }
        if !kernel.frames_at_rest() {
            assert!(timeout <= Duration::from_millis(1), "{timeout:?}");
            PortId::ALL.into_iter().for_each(|port| kernel.complete(port, usize::MAX));
        } else if kernel.at_rest()
            && let Some(Alone::UntilRest(orders)) = &kernel.alone
        {
            orders.send(Order::Stop).expect("the worker is there");
            kernel.alone = Some(Alone::UntilOrder);
        }
    }

    fn statistics(&self) -> SocketStatistics {
        let mut kernel = self.kernel.borrow_mut();
        if let Some(Alone::UntilOrder) = kernel.alone {
            kernel.alone = Some(Alone::Slowly(0));
            let entries = kernel.config.entries;
            kernel.inject_everywhere(entries);
        }
        let side = &kernel.sides[self.port.index()];
        SocketStatistics {
            faulty_descriptors: 0,
            frames_short: 0,
            wake_failures: WakeFailures::default(),
            ..side.statistics
        }
    }
}
