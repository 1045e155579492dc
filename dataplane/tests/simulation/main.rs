//! The real worker, ports and ledger on a simulated kernel: no frame is lost or doubled, no packet is
//! lost, doubled, overtaken or changed, and nothing waits for ever.
//!
//! An operation is one thing that happens in the kernel, or one round or tick of the worker; which one and
//! how is decided by a seed. After every operation of the worker its accounts and counters must be what
//! the kernel and a model of the gateway have noted. Now and then the kernel behaves: then everything has
//! to come to rest within a number of rounds.
//!
//!     SEED=7 cargo test --release --test simulation copy_mode      # one seed again
//!     OPERATIONS=100000000 cargo test --release --test simulation  # a longer run

mod kernel;
mod memory;
mod packet;
mod random;

use std::cell::RefCell;
use std::env;
use std::rc::Rc;

use crossbeam::channel::{Sender, bounded};
use dataplane::batch::PortId;
use dataplane::config::Poll;
use dataplane::counters::{Dropped, Untouched};
use dataplane::flow::classifier::{Capacity, Policy, Rule};
use dataplane::flow::secret::Secret;
use dataplane::gateway::{Gateway, Settings};
use dataplane::lane::Lanes;
use dataplane::lane::mark::Mark;
use dataplane::port::BURST_MAX;
use dataplane::worker::{Order, Published, Worker, WorkerReport};
use dataplane::xdp::{Frames, RingPort, SocketStatistics};

use kernel::{Config, Event, Kernel, Shared, SimulatedRings, Temper, WIRE_PACKETS_MAX};
use packet::{LONG_DSCP, SHORT_DSCP, THRESHOLD_PACKETS, WAN_FRAME_BYTES_MAX};
use random::Random;

/// Of all configurations together: some seconds, but a minute in a build that is not optimised.
const OPERATIONS: u64 = 12_000_000;
const CONFIGURATIONS: u64 = 3;
const SEEDS: u64 = 4;
/// How long the kernel keeps its temper, and how long it misbehaves.
const TEMPER_OPERATIONS: u64 = 1500;
const EPOCH_OPERATIONS: u64 = 12_000;

#[test]
fn copy_mode_loses_and_doubles_nothing() {
    run_seeds(|seed| Config {
        entries: [64, 128, 64, 256][seed as usize % 4],
        zero_copy: false,
        receive_stops: false,
    });
}

#[test]
fn zero_copy_mode_loses_and_doubles_nothing() {
    run_seeds(|seed| Config {
        entries: [64, 64, 128, 256][seed as usize % 4],
        zero_copy: true,
        receive_stops: true,
    });
}

#[test]
fn small_rings_that_want_wakeups_lose_and_double_nothing() {
    run_seeds(|seed| Config {
        entries: [2, 4, 16, 32][seed as usize % 4],
        zero_copy: seed % 2 == 1,
        receive_stops: true,
    });
}

#[test]
fn a_port_that_cannot_send_does_not_hold_up_the_other() {
    const ROUNDS: u64 = 1000;
    for zero_copy in [false, true] {
        for stuck in PortId::ALL {
            let config = Config { entries: 64, zero_copy, receive_stops: zero_copy };
            let mut simulation = Simulation::new(config, 1);
            simulation.kernel.borrow_mut().get_stuck(stuck);
            for _ in 0..ROUNDS {
                for port in PortId::ALL {
                    simulation.kernel.borrow_mut().inject(port, 32);
                    simulation.kernel.borrow_mut().act(port);
                }
                simulation.round();
            }
            let kernel = simulation.kernel.borrow();
            assert_eq!(kernel.sent(stuck), 0);
            assert_eq!(kernel.account().transmitting[stuck.index()], config.entries);
            assert!(kernel.delivered(stuck) >= 32 * (ROUNDS - 4), "{}", kernel.delivered(stuck));
            drop(kernel);
            simulation.settle();
        }
    }
}

#[test]
fn a_worker_that_stops_sends_what_it_received() {
    for zero_copy in [false, true] {
        let config = Config { entries: 64, zero_copy, receive_stops: zero_copy };
        let Simulation { kernel, mut worker, orders, .. } = Simulation::new(config, 1);
        kernel.borrow_mut().run_alone(orders);
        let report = worker.run();
        let kernel = kernel.borrow();
        assert!(kernel.at_rest(), "{:?}", kernel.account());
        assert_eq!(kernel.model.received, 2 * (WIRE_PACKETS_MAX + config.entries) as u64);
        kernel.check_books();
        check(&kernel, &report);
    }
}

fn run_seeds(config: impl Fn(u64) -> Config) {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let operations = number("OPERATIONS").unwrap_or(OPERATIONS);
    let seeds = number("SEED").map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        let _say = SaySeed { seed, config: config(seed) };
        run(seed, config(seed), operations / CONFIGURATIONS / SEEDS);
    }
}

/// What it takes to see a failure again.
struct SaySeed {
    seed: u64,
    config: Config,
}

impl Drop for SaySeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SEED={} reproduces this; {:?}", self.seed, self.config);
        }
    }
}

fn run(seed: u64, config: Config, operations: u64) {
    let mut random = Random::new(seed);
    let mut simulation = Simulation::new(config, !seed);
    let mut weights = [1; Event::ALL.len() + 2];
    for operation in 1..=operations {
        if operation % TEMPER_OPERATIONS == 1 {
            // Some things often, some rarely, some not at all.
            weights = std::array::from_fn(|_| random.pick(&[0, 1, 1, 4, 16]));
            weights[ROUND] = random.pick(&[4, 16, 32]);
            simulation.kernel.borrow_mut().temper = temper(&mut random);
        }
        match random.weighted(&weights) {
            ROUND => simulation.round(),
            TICK => simulation.tick(),
            event => simulation.kernel.borrow_mut().happen(Event::ALL[event]),
        }
        if operation % EPOCH_OPERATIONS == 0 {
            simulation.settle();
        }
    }
    simulation.settle();
    let model = &simulation.kernel.borrow().model;
    let entries = config.entries.min(BURST_MAX) as u64;
    assert!(model.received > operations * entries / 512, "hardly anything happened: {model:?}");
    assert!(model.long > 0 && model.short > 0 && model.exceeds_mtu > 0, "{model:?}");
    simulation.kernel.borrow().check_variety();
}

const ROUND: usize = Event::ALL.len();
const TICK: usize = ROUND + 1;

fn temper(random: &mut Random) -> Temper {
    let mut often = || random.pick(&[0, 0, 2, 16, 128]);
    Temper {
        ignores_call: often(),
        fails_call: often(),
        damages: often(),
        drops: often(),
        moves_start: often(),
        acts_between: often(),
    }
}

struct Simulation {
    kernel: Shared,
    worker: Worker<RingPort<SimulatedRings>>,
    /// A worker stops when nobody is left to give it orders.
    orders: Sender<Order>,
    now_ns: u64,
}

impl Simulation {
    fn new(config: Config, seed: u64) -> Simulation {
        let kernel = Kernel::new(config, Random::new(seed));
        let memory = kernel.memory();
        let kernel = Rc::new(RefCell::new(kernel));
        let free = memory.free();
        let mut frames = Frames::new(memory, free);
        let ports = PortId::ALL.map(|port| {
            RingPort::new(port, SimulatedRings { kernel: Rc::clone(&kernel), port }, &mut frames)
        });
        let (orders, inbox) = bounded(1);
        let published = Published::default();
        let worker = Worker::new(ports, frames, gateway(), Poll::Adaptive, inbox, published);
        Simulation { kernel, worker, orders, now_ns: 0 }
    }

    fn round(&mut self) {
        self.now_ns += 1000;
        self.worker.round(self.now_ns);
        self.check();
    }

    fn tick(&mut self) {
        assert!(self.worker.tick(self.now_ns).is_continue(), "nobody said stop");
        self.check();
    }

    fn check(&mut self) {
        let report = self.worker.report();
        check(&self.kernel.borrow(), &report);
    }

    /// Lets the kernel behave until nothing is under way.
    fn settle(&mut self) {
        self.kernel.borrow().check_books();
        self.kernel.borrow_mut().behave();
        // At least every other round moves a ring full of packets, or a burst, from each wire.
        let burst = self.kernel.borrow().entries().min(BURST_MAX);
        for _ in 0..2 * (WIRE_PACKETS_MAX / burst + 8) {
            self.round();
            PortId::ALL.into_iter().for_each(|port| self.kernel.borrow_mut().act(port));
            if self.kernel.borrow().at_rest() {
                self.kernel.borrow().check_books();
                return;
            }
        }
        let account = self.kernel.borrow().account();
        panic!("something waits for ever: {account:?}");
    }
}

/// What the worker says of itself is what the kernel knows.
fn check(kernel: &Kernel, report: &WorkerReport<SocketStatistics>) {
    assert_eq!(report.frames, kernel.account());
    assert!(report.frames.balances() && report.frames_balance);
    assert_eq!(report.ports, kernel.statistics());
    let (counters, model) = (&report.counters, &kernel.model);
    assert!(counters.balances(), "{counters:?}");
    assert_eq!(counters.received, model.received);
    assert_eq!(counters.dropped, Dropped { exceeds_mtu: model.exceeds_mtu, ..Dropped::default() });
    assert_eq!((counters.short, counters.long), (model.short, model.long));
    let untouched = Untouched {
        non_tcp: model.non_tcp,
        unclassified: model.unclassified,
        ..Untouched::default()
    };
    assert_eq!(counters.untouched, untouched);
    assert_eq!(counters.flows.table_full, 0);
}

fn gateway() -> Gateway {
    let mark = |dscp| Mark::new(dscp).expect("six bits");
    let settings = Settings {
        rule: Rule {
            policy: Policy::Split,
            threshold_packets: THRESHOLD_PACKETS,
            idle_timeout_ns: 3_600_000_000_000,
            restart_on_syn: true,
        },
        lanes: Lanes { short: mark(SHORT_DSCP), long: mark(LONG_DSCP) },
        frame_bytes_max: [u32::MAX, WAN_FRAME_BYTES_MAX as u32],
    };
    let capacity = Capacity { ipv4_flows_max: 256, ipv6_flows_max: 1, fragmented_datagrams_max: 1 };
    Gateway::new(settings, capacity, Secret::from_seed(1))
}
