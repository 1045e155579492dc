//! The daemon: opens the ports, starts the workers, and waits for signals and questions.
//!
//! The control thread is the one that started the process. It blocks the signals it cares for before there
//! are other threads, and reads them from a descriptor, between questions on the control socket.
//!
//! | signal            | what happens                                                                     |
//! |-------------------|----------------------------------------------------------------------------------|
//! | SIGTERM, SIGINT   | detach, send what was received, stop, save the flows, print the last counters    |
//! | SIGHUP            | read the configuration again; a bad one is refused and the old one stays         |
//! | anything deadly   | the kernel detaches the XDP programs: a bridge over the ports carries the traffic |
//!
//! When an interface goes, or gets another MAC address, both ports are closed, because the two sockets of a
//! worker share its packet memory. They are opened again as soon as that is possible; meanwhile what there is
//! to carry is the kernel's. Gateways outlive their ports, with flows, counters and clock:
//!
//! ```text
//!                     take_over: a thread each
//!   Idle (gateway) --------------------------> Handle (worker with ports)
//!         ^                                          |
//!         +---------- close_ports: joined -----------+
//! ```

mod routing;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use crossbeam::channel::{Sender, bounded};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::batch::PortId;
use crate::clock::Clock;
use crate::config::{self, Config, ConfigError};
use crate::control::Listener;
use crate::counters::Counters;
use crate::flow::secret::Secret;
use crate::gateway::{Gateway, Settings};
use crate::links::{Gone, News};
use crate::port::Port;
use crate::preflight::{self, Plan};
use crate::privileges;
use crate::routes::RoutesError;
use crate::sandbox::{self, Bells, SandboxError};
use crate::state::keeper::Keeper;
use crate::state::{self, StateStatus};
use crate::status::{PortState, PortStatus, Ports, Reloads, Status, WorkerStatus};
use crate::worker::{Exchange, Order, Published, Worker, WorkerReport};
use crate::xdp::{
    self, Attachment, Interface, KernelCounters, Mode, SocketStatistics, XdpError, XdpFrames,
    XdpPort,
};

use routing::Routing;

/// How often the control thread looks at workers and interfaces when nothing else happens.
const WATCH_MS: u16 = 200;
/// Longest time between two tries to open ports that are there and cannot be opened. A try takes the
/// traffic away from the kernel for a moment, so they become fewer.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Orders that may wait for a worker; it takes them once a tick.
const ORDERS_MAX: usize = 16;
/// How long a worker that is stuck may hold up an order.
const ORDER_WAIT_MAX: Duration = Duration::from_secs(1);
/// What the clock of all workers shows at the start: no flow that lives was seen longer before it.
const CLOCK_START_NS: u64 = 25 * 3600 * 1_000_000_000;
/// Ethernet header and one VLAN tag: what a frame may have besides the MTU, as for a Linux bridge.
const LINK_HEADER_BYTES: u32 = 14 + 4;

/// Why the daemon could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Capabilities.
    #[error(
        "this process lacks {}: run it as root, or grant them (AmbientCapabilities= in its unit, or `setcap`)",
        .0.join(", ")
    )]
    Capabilities(Vec<String>),
    /// A port.
    #[error(transparent)]
    Port(#[from] XdpError),
    /// The control socket.
    #[error("cannot listen at the control socket {}: {cause}. Set `control.socket` to another path, or stop the other process", path.display())]
    Control {
        /// Its path.
        path: PathBuf,
        /// The reason.
        cause: io::Error,
    },
    /// Something the kernel should have done.
    #[error("{operation}: {cause}")]
    System {
        /// What.
        operation: &'static str,
        /// The reason.
        cause: io::Error,
    },
    /// The kernel's routes.
    #[error(transparent)]
    Routes(#[from] RoutesError),
    /// Giving up capabilities.
    #[error("cannot give up privileges: {0}")]
    Privileges(#[from] caps::errors::CapsError),
    /// A worker's sandbox.
    #[error("cannot confine worker {queue}: {cause}")]
    Sandbox {
        /// Its queue.
        queue: usize,
        /// The reason.
        cause: SandboxError,
    },
    /// A worker's core.
    #[error("cannot pin worker {queue} to core {core}: choose another core in `workers.cores`")]
    Pin {
        /// Its queue.
        queue: usize,
        /// Its core.
        core: usize,
    },
}

/// What a worker is known by to the control thread.
struct Handle {
    core: usize,
    orders: Sender<Order>,
    published: Published<SocketStatistics>,
    thread: Thread<XdpPort>,
    past: Option<WorkerReport<SocketStatistics>>,
}

/// What is left of a worker without ports.
struct Idle {
    core: usize,
    gateway: Gateway,
    clock: Clock,
    /// What it said at the end of its last ports; nothing when it had none yet.
    past: Option<WorkerReport<SocketStatistics>>,
}

/// Ports that nobody serves yet.
struct Opened {
    attachments: [Attachment; 2],
    /// Of each queue.
    sockets: Vec<([XdpPort; 2], XdpFrames)>,
}

/// Ports that could not be opened, and when to try again.
struct Refused {
    reason: String,
    times: u32,
    next: Instant,
}

/// A worker's thread. At its end it hands back the worker too, whose ports it may not close itself.
type Thread<P> = JoinHandle<(WorkerReport<<P as Port>::Statistics>, Worker<P>)>;

struct Daemon {
    path: PathBuf,
    config: Config,
    /// As they were when the ports were opened, but for the MTU, which is kept up to date.
    interfaces: [Interface; 2],
    /// As they were when they were last looked at: up, down or gone.
    links: [PortState; 2],
    news: News,
    /// When the ports were last looked after.
    watched: Instant,
    /// Of open ports.
    attachments: Option<[Attachment; 2]>,
    /// Of the ports open now or last.
    modes: [Mode; 2],
    /// The same: "zero-copy" or "copy".
    copy_modes: [&'static str; 2],
    /// Of ports that were open before.
    past_kernel: [KernelCounters; 2],
    /// With open ports; without, they are idle.
    workers: Vec<Handle>,
    idle: Vec<Idle>,
    ports_reopened: u64,
    refused: Option<Refused>,
    reloads: Reloads,
    /// In routed mode.
    routing: Option<Routing>,
    /// When flows are saved.
    keeper: Option<Keeper>,
    started: Instant,
}

/// Runs a gateway until it is told to stop; returns its last words.
pub fn run(path: &Path) -> Result<Status, DaemonError> {
    let config = Config::load(path)?;
    // First, so that nothing is missed of what is looked at after it.
    let news = News::listen()
        .map_err(|cause| DaemonError::System { operation: "listening to news of links", cause })?;
    let plan = preflight::plan_start(&config).map_err(ConfigError::Problems)?;
    let missing = xdp::missing_capabilities();
    if !missing.is_empty() {
        return Err(DaemonError::Capabilities(missing));
    }
    let signals = block_signals()?;
    let listener = Listener::bind(&config.control_socket)
        .map_err(|cause| DaemonError::Control { path: config.control_socket.clone(), cause })?;
    let mut daemon = Daemon::start(path, config, plan, news)?;
    tracing::info!(config = %path.display(), workers = daemon.workers.len(), "running");
    let watched = daemon.watch(&signals, &listener);
    let status = daemon.stop();
    watched.map(|()| status)
}

/// Everything that is wrong with a configuration on this machine.
pub fn check(path: &Path) -> Result<(), ConfigError> {
    let config = Config::load(path)?;
    preflight::plan_start(&config).map_err(ConfigError::Problems)?;
    Ok(())
}

fn system(operation: &'static str) -> impl FnOnce(nix::errno::Errno) -> DaemonError {
    move |errno| DaemonError::System { operation, cause: errno.into() }
}

fn block_signals() -> Result<SignalFd, DaemonError> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().map_err(system("blocking signals"))?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(system("opening a descriptor for signals"))
}

impl Daemon {
    /// Memory first, then ports: traffic is diverted to the workers only when they are ready for it.
    fn start(path: &Path, config: Config, plan: Plan, news: News) -> Result<Daemon, DaemonError> {
        let settings = settings(&config, &plan.interfaces);
        let routing = Routing::start(&config)?;
        let gateway = |worker| {
            let gateway = Gateway::new(settings, config.capacity, Secret::random());
            match &routing {
                Some(routing) => gateway.with_router(routing.router(worker)),
                None => gateway,
            }
        };
        let clock = Clock::start_at(CLOCK_START_NS);
        let idle = plan.cores.iter().enumerate().map(|(worker, core)| Idle {
            core: *core,
            gateway: gateway(worker),
            clock,
            past: None,
        });
        let mut idle: Vec<Idle> = idle.collect();
        // Before the ports: meanwhile the traffic is the kernel's. And with the privileges of the start.
        let restored = restore(&config, &mut idle, clock);
        let opened = open_ports(&config, &plan, routing.as_ref())?;
        // Workers begin with what this thread has left.
        let kept = privileges::keep_what_ports_need()?;
        tracing::info!(
            capabilities = kept.join(","),
            "all other privileges given up; workers have none"
        );
        check_reload(path);
        let keeper = match (&config.state, restored) {
            (Some(config::State { file, interval }), Some(status)) => {
                let buckets: Vec<usize> = idle.iter().map(|idle| idle.gateway.buckets()).collect();
                let keeper = Keeper::start(&file.value, *interval, &buckets, clock, status);
                let operation = "starting the thread that saves flows";
                Some(keeper.map_err(|cause| DaemonError::System { operation, cause })?)
            }
            _ => None,
        };
        let mut daemon = Daemon {
            path: path.to_owned(),
            config,
            links: plan.interfaces.each_ref().map(link_state),
            interfaces: plan.interfaces.clone(),
            news,
            watched: Instant::now(),
            attachments: None,
            modes: opened.attachments.each_ref().map(Attachment::mode),
            copy_modes: opened.copy_modes(),
            past_kernel: [KernelCounters::default(); 2],
            workers: Vec::new(),
            idle,
            ports_reopened: 0,
            refused: None,
            reloads: Reloads::default(),
            routing,
            keeper,
            started: Instant::now(),
        };
        daemon.take_over(plan.interfaces, opened)?;
        Ok(daemon)
    }

    /// Gives every idle worker its ports and its thread.
    fn take_over(&mut self, interfaces: [Interface; 2], opened: Opened) -> Result<(), DaemonError> {
        self.modes = opened.attachments.each_ref().map(Attachment::mode);
        self.copy_modes = opened.copy_modes();
        self.interfaces = interfaces;
        let settings = settings(&self.config, &self.interfaces);
        let idle = std::mem::take(&mut self.idle);
        let mut exchanges = match &self.routing {
            Some(_) if idle.len() > 1 => Exchange::between(idle.len())
                .map_err(system("opening descriptors to wake workers"))?
                .into_iter(),
            _ => Vec::new().into_iter(),
        };
        for (queue, (sockets, idle)) in opened.sockets.into_iter().zip(idle).enumerate() {
            let (ports, frames) = sockets;
            let Idle { core, mut gateway, clock, past } = idle;
            gateway.reload(settings);
            if let (Some(routing), Some(router)) = (&self.routing, gateway.router()) {
                router.set_fib(routing.fib());
            }
            let (orders, inbox) = bounded(ORDERS_MAX);
            let published = Published::default();
            let poll = self.config.poll;
            let mut worker =
                Worker::new(ports, frames, gateway, poll, inbox, Arc::clone(&published))
                    .with_clock(clock);
            if let Some(routing) = &self.routing {
                worker = worker.with_asks(routing.asks());
            }
            if let Some(exchange) = exchanges.next() {
                worker = worker.with_exchange(exchange);
            }
            if let Some(keeper) = &self.keeper {
                worker = worker.with_export(keeper.export(queue));
            }
            match spawn(queue, core, worker) {
                Ok(thread) => self.workers.push(Handle { core, orders, published, thread, past }),
                Err(error) => {
                    drop(opened.attachments);
                    self.close_ports();
                    return Err(error);
                }
            }
        }
        self.attachments = Some(opened.attachments);
        Ok(())
    }

    /// Detaches first, so that new packets go to the kernel while the workers send what they have.
    fn close_ports(&mut self) {
        self.past_kernel = self.kernel_counters();
        self.attachments = None;
        for worker in &self.workers {
            // A worker that is gone needs no order.
            let _ = worker.orders.send(Order::Stop);
        }
        for Handle { core, thread, past, .. } in self.workers.drain(..) {
            let (report, worker) = thread.join().expect("a worker that panics ends the process");
            let (gateway, clock) = worker.into_gateway();
            let past = Some(joined(report, past.as_ref()));
            self.idle.push(Idle { core, gateway, clock, past });
        }
    }

    /// Until a signal says stop.
    fn watch(&mut self, signals: &SignalFd, listener: &Listener) -> Result<(), DaemonError> {
        loop {
            let has_news = self.wait(signals, listener)?;
            while let Some(signal) = signals.read_signal().map_err(system("reading a signal"))? {
                match Signal::try_from(signal.ssi_signo as i32) {
                    Ok(Signal::SIGHUP) => self.reload(),
                    Ok(signal) => {
                        tracing::info!("{signal}: stopping");
                        return Ok(());
                    }
                    Err(_) => {}
                }
            }
            listener.answer(|| self.status());
            self.look_after_routes();
            if has_news || self.watched.elapsed() >= Duration::from_millis(WATCH_MS.into()) {
                self.watched = Instant::now();
                self.look_after_ports()?;
            }
        }
    }

    /// Sleeps until something happens; whether that is news of links.
    fn wait(&self, signals: &SignalFd, listener: &Listener) -> Result<bool, DaemonError> {
        let readable = |descriptor| PollFd::new(descriptor, PollFlags::POLLIN);
        let mut waited: ArrayVec<PollFd<'_>, 4> = ArrayVec::new();
        waited.push(readable(self.news.as_fd()));
        waited.extend([readable(signals.as_fd()), readable(listener.as_fd())]);
        waited.extend(self.routing.as_ref().map(|routing| readable(routing.as_fd())));
        let wait_ms = match &self.routing {
            Some(routing) => routing.wait_max().as_millis() as u16,
            None => WATCH_MS,
        };
        match poll(&mut waited, PollTimeout::from(wait_ms)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(waited[0].any() == Some(true)),
            Err(errno) => Err(system("waiting for signals")(errno)),
        }
    }

    /// Reads the file again. What cannot be taken over as a whole is not taken over at all.
    fn reload(&mut self) {
        let path = self.path.display().to_string();
        let loaded = Config::load(&self.path).and_then(|config| {
            let workers = self.idle.len().max(self.workers.len()) as u32;
            let planned = preflight::plan_running(&config, workers);
            planned.map(|_| config).map_err(ConfigError::Problems)
        });
        let config = match loaded {
            Ok(config) => config,
            Err(error) => {
                self.reloads.refused += 1;
                tracing::error!("{path} refused, the configuration before stays: {error}");
                if let ConfigError::Problems(problems) = &error {
                    config::show(problems);
                }
                return;
            }
        };
        let fixed = self.config.differs_in_fixed_keys(&config);
        if !fixed.is_empty() {
            self.reloads.refused += 1;
            tracing::error!(
                "{path} refused, the configuration before stays: {} can only change with a restart",
                fixed.join(", ")
            );
            return;
        }
        self.config = config;
        self.order_settings();
        self.reloads.accepted += 1;
        tracing::info!("{path} taken over");
    }

    /// In routed mode: routes, neighbours and addresses change.
    fn look_after_routes(&mut self) {
        let Some(routing) = &mut self.routing else { return };
        let Some(fib) = routing.turn() else { return };
        for (queue, worker) in self.workers.iter().enumerate() {
            let order = Order::Routes(Arc::clone(&fib));
            if worker.orders.send_timeout(order, ORDER_WAIT_MAX).is_err() {
                tracing::error!("worker {queue} takes no orders and keeps its routes");
            }
        }
        if let Some(attachments) = &mut self.attachments
            && let Err(error) = routing.divert(attachments)
        {
            tracing::error!("{error}: the destinations before stay");
        }
    }

    /// Interfaces go, come back and change under our feet.
    fn look_after_ports(&mut self) -> Result<(), DaemonError> {
        let gone = self.news.read();
        let seen = self.interfaces.each_ref().map(|known| Interface::find(&known.name).ok());
        self.notice_links(&seen);
        if self.attachments.is_some() {
            let unfit = self.interfaces.iter().zip(&seen);
            let unfit = unfit.filter_map(|(known, seen)| why_unfit(known, seen.as_ref(), &gone));
            let reasons: Vec<String> = unfit.collect();
            if reasons.is_empty() {
                self.notice_mtu(&seen);
                self.notice_queues(&seen);
                return Ok(());
            }
            tracing::warn!("{}: both ports closed, to be opened again", reasons.join(", "));
            self.close_ports();
            self.refused = None;
        }
        self.try_to_open()
    }

    fn notice_links(&mut self, seen: &[Option<Interface>; 2]) {
        for ((known, link), seen) in self.interfaces.iter().zip(&mut self.links).zip(seen) {
            let now = seen.as_ref().map_or(PortState::Gone, link_state);
            if *link != now {
                tracing::warn!("{}: link {now}, was {link}", known.name);
                *link = now;
            }
        }
    }

    /// Interfaces that are not there are looked for every time; those that are there and cannot be opened,
    /// more and more seldom.
    fn try_to_open(&mut self) -> Result<(), DaemonError> {
        let now = Instant::now();
        if self.refused.as_ref().is_some_and(|refused| now < refused.next) {
            return Ok(());
        }
        let (reason, touched) = match preflight::plan_running(&self.config, self.idle.len() as u32)
        {
            Err(problems) => {
                let reasons: Vec<String> = problems.iter().map(ToString::to_string).collect();
                (reasons.join(", "), false)
            }
            Ok(plan) if plan.cores.len() != self.idle.len() => {
                ("another number of queues takes a restart".to_owned(), false)
            }
            Ok(plan) => match open_ports(&self.config, &plan, self.routing.as_ref()) {
                Ok(opened) => {
                    self.take_over(plan.interfaces, opened)?;
                    self.ports_reopened += 1;
                    self.refused = None;
                    tracing::info!("both ports open again; flows and counters were kept");
                    return Ok(());
                }
                Err(error) => (error.to_string(), true),
            },
        };
        let before = self.refused.take();
        if before.as_ref().is_none_or(|before| before.reason != reason) {
            tracing::warn!("the ports stay closed, trying again: {reason}");
        }
        let times = before.map_or(0, |before| before.times) + u32::from(touched);
        let pause = Duration::from_millis(WATCH_MS.into()) * (1 << times.min(8)) / 2;
        let next = if touched { now + pause.min(RETRY_MAX) } else { now };
        self.refused = Some(Refused { reason, times, next });
        Ok(())
    }

    /// What a port can send changes with its MTU.
    fn notice_mtu(&mut self, seen: &[Option<Interface>; 2]) {
        let mut changed = false;
        for (interface, now) in self.interfaces.iter_mut().zip(seen) {
            if let Some(now) = now
                && now.mtu != interface.mtu
            {
                tracing::info!("{}: MTU {} instead of {}", interface.name, now.mtu, interface.mtu);
                interface.mtu = now.mtu;
                changed = true;
            }
        }
        if changed {
            self.order_settings();
        }
    }

    /// There are as many workers as there were queues at the start. The kernel lets a queue go no sooner than its
    /// socket, but adds some at any time; and to serve only some is better than none.
    fn notice_queues(&mut self, seen: &[Option<Interface>; 2]) {
        let workers = self.workers.len() as u32;
        for (interface, now) in self.interfaces.iter_mut().zip(seen) {
            let Some(now) = now.as_ref().filter(|now| now.queues != interface.queues) else {
                continue;
            };
            interface.queues = now.queues;
            let Interface { name, queues, .. } = interface;
            if *queues <= workers {
                tracing::info!("{name}: {queues} queues now, and a worker for each");
                continue;
            }
            let loss = if self.routing.is_some() { ", which unpacks no tunnel" } else { "" };
            tracing::warn!(
                "{name}: {queues} queues now, and workers for {workers}: what the others receive is left to the \
                 kernel{loss}. Set the number of queues back with `ethtool -L`, or restart with a worker for each"
            );
        }
    }

    fn order_settings(&self) {
        let settings = settings(&self.config, &self.interfaces);
        for (queue, worker) in self.workers.iter().enumerate() {
            if worker.orders.send_timeout(Order::Reload(settings), ORDER_WAIT_MAX).is_err() {
                tracing::error!("worker {queue} takes no orders and keeps its settings");
            }
        }
    }

    fn stop(mut self) -> Status {
        self.close_ports();
        let mut status = self.status();
        if let Some(keeper) = self.keeper.take() {
            let gateways = self.idle.drain(..).map(|idle| idle.gateway).collect();
            status.state = Some(keeper.finish(gateways));
        }
        status
    }

    fn status(&self) -> Status {
        let kernel = self.kernel_counters();
        let port = |index: usize| PortStatus {
            interface: self.interfaces[index].name.clone(),
            state: match self.links[index] {
                PortState::Up | PortState::Down if self.attachments.is_none() => PortState::Closed,
                state => state,
            },
            xdp: self.modes[index],
            copy: self.copy_modes[index].to_owned(),
            mtu: self.interfaces[index].mtu,
            queues: self.interfaces[index].queues,
            kernel: kernel[index],
        };
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            reloads: self.reloads,
            mode: if self.routing.is_some() { "routed" } else { "inline" }.to_owned(),
            classifier: self.config.rule,
            lanes: self.config.lanes,
            ports: Ports::new([port(0), port(1)]),
            ports_reopened: self.ports_reopened,
            routes: self.routing.as_ref().map(Routing::statistics),
            state: self.keeper.as_ref().map(Keeper::status),
            total: Counters::default(),
            workers: Vec::new(),
        };
        let reports = self.reports().into_iter().enumerate();
        for (queue, (core, report)) in reports {
            status.add(WorkerStatus { queue: queue as u32, core, report });
        }
        status
    }

    /// Core and report of every worker, with its whole life in it.
    fn reports(&self) -> Vec<(usize, WorkerReport<SocketStatistics>)> {
        let idle = self.idle.iter().filter_map(|idle| Some((idle.core, idle.past.clone()?)));
        let running = self.workers.iter().map(|worker| {
            let now = worker.published.lock().unwrap_or_else(PoisonError::into_inner).clone();
            (worker.core, joined(now, worker.past.as_ref()))
        });
        idle.chain(running).collect()
    }

    /// Of open ports and those before them.
    fn kernel_counters(&self) -> [KernelCounters; 2] {
        let mut counters = self.past_kernel;
        for (counters, attachment) in counters.iter_mut().zip(self.attachments.iter().flatten()) {
            match attachment.counters() {
                Ok(now) => *counters += now,
                Err(error) => tracing::warn!(
                    "{}: no counters of its XDP program: {error}",
                    attachment.interface()
                ),
            }
        }
        counters
    }
}

fn joined(
    report: WorkerReport<SocketStatistics>,
    past: Option<&WorkerReport<SocketStatistics>>,
) -> WorkerReport<SocketStatistics> {
    match past {
        Some(past) => report.after(past),
        None => report,
    }
}

impl Opened {
    fn copy_modes(&self) -> [&'static str; 2] {
        match self.sockets.first() {
            Some((ports, _)) => ports.each_ref().map(XdpPort::mode),
            None => unreachable!("an interface has at least one queue"),
        }
    }
}

fn link_state(interface: &Interface) -> PortState {
    if interface.running { PortState::Up } else { PortState::Down }
}

/// Why a port that was opened on `known` serves it no longer.
fn why_unfit(known: &Interface, seen: Option<&Interface>, gone: &Gone) -> Option<String> {
    let reason = match seen {
        None => "is gone",
        Some(seen) if seen.index != known.index || gone.has(known.index) => "went and came back",
        Some(seen) if seen.address != known.address => "has another MAC address",
        Some(_) => return None,
    };
    Some(format!("{} {reason}", known.name))
}

/// Takes over what an earlier process saved; what came of it, when flows are saved.
fn restore(config: &Config, idle: &mut [Idle], clock: Clock) -> Option<StateStatus> {
    let file = &config.state.as_ref()?.file.value;
    let mut gateways: Vec<&mut Gateway> = idle.iter_mut().map(|idle| &mut idle.gateway).collect();
    Some(state::restore(file, &mut gateways, clock))
}

fn open_ports(config: &Config, plan: &Plan, routing: Option<&Routing>) -> Result<Opened, XdpError> {
    let mut attachments = attach(config, plan)?;
    if let Some(routing) = routing {
        routing.divert(&mut attachments)?;
    }
    let [lan, wan] = &attachments;
    let sockets = (0..plan.cores.len() as u32)
        .map(|queue| xdp::open(lan, wan, queue, &config.xdp))
        .collect::<Result<Vec<_>, XdpError>>()?;
    Ok(Opened { attachments, sockets })
}

fn attach(config: &Config, plan: &Plan) -> Result<[Attachment; 2], XdpError> {
    let queues = plan.cores.len() as u32;
    let [lan, wan] = PortId::ALL.map(|port| {
        let (name, xdp) = (&plan.interfaces[port.index()].name, &config.xdp);
        let Some(routed) = &config.routed else {
            let mut attachment = Attachment::attach(name, xdp.attach, xdp.frame_bytes, queues)?;
            // A wire carries frames to any address.
            attachment.receive_all()?;
            return Ok(attachment);
        };
        Attachment::attach_as(routed.role(port), name, xdp.attach, xdp.frame_bytes, queues)
    });
    Ok([lan?, wan?])
}

/// What the gateways do, as the configuration says it and as the interfaces allow.
fn settings(config: &Config, interfaces: &[Interface; 2]) -> Settings {
    Settings {
        rule: config.rule,
        lanes: config.lanes,
        frame_bytes_max: match config.routed {
            // Routes know what fits.
            Some(_) => [u32::MAX; 2],
            None => interfaces.each_ref().map(|port| port.mtu + LINK_HEADER_BYTES),
        },
    }
}

/// A file that only root's privileges open can be read at the start and never again.
fn check_reload(path: &Path) {
    if let Err(error) = std::fs::File::open(path) {
        tracing::warn!(
            "{} cannot be read without privileges, so a reload will be refused ({error}): give the file to \
             the user that lanesplitd runs as",
            path.display()
        );
    }
}

/// Starts a worker on its core and in its sandbox; returns when it is there.
fn spawn<P>(queue: usize, core: usize, mut worker: Worker<P>) -> Result<Thread<P>, DaemonError>
where
    P: Port + Send + 'static,
    P::Frame: Send,
    P::Frames: Send,
{
    let (tell, is_ready) = bounded(1);
    let bells = worker.exchange().map(bells_of).unwrap_or_default();
    let thread = thread::Builder::new()
        .name(format!("worker-{queue}"))
        .spawn(move || {
            let ready = settle(queue, core, &bells);
            let is_settled = ready.is_ok();
            // Heard by whoever waits below.
            let _ = tell.send(ready);
            let report = if is_settled { worker.run() } else { worker.report() };
            (report, worker)
        })
        .map_err(|cause| DaemonError::System { operation: "starting a worker", cause })?;
    match is_ready.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(error),
        Err(_) => unreachable!("a worker that panics ends the process"),
    }
}

/// Moves the calling thread to its core, then shuts the door behind it.
fn settle(queue: usize, core: usize, bells: &Bells) -> Result<(), DaemonError> {
    if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        return Err(DaemonError::Pin { queue, core });
    }
    sandbox::enter(bells).map_err(|cause| DaemonError::Sandbox { queue, cause })
}

fn bells_of(exchange: &Exchange) -> Bells {
    let (own, others) = exchange.descriptors();
    Bells { own: Some(own.as_raw_fd()), others: others.map(|bell| bell.as_raw_fd()).collect() }
}
