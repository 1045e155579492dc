//! The daemon: opens the ports, starts the workers, and waits for signals and questions.
//!
//! The control thread is the one that started the process. It blocks the signals it cares for before there
//! are other threads, and reads them from a descriptor, between questions on the control socket.
//!
//! | signal            | what happens                                                                     |
//! |-------------------|----------------------------------------------------------------------------------|
//! | SIGTERM, SIGINT   | detach, send what was received, stop, print the last counters                    |
//! | SIGHUP            | read the configuration again; a bad one is refused and the old one stays         |
//! | anything deadly   | the kernel detaches the XDP programs: a bridge over the ports carries the traffic |

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, bounded};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::config::{self, Config, ConfigError};
use crate::control::Listener;
use crate::counters::Counters;
use crate::flow::secret::Secret;
use crate::gateway::{Gateway, Settings};
use crate::port::Port;
use crate::preflight::{self, Plan};
use crate::privileges;
use crate::sandbox::{self, SandboxError};
use crate::status::{PortStatus, Ports, Reloads, Status, WorkerStatus};
use crate::worker::{Order, Published, Worker, WorkerReport};
use crate::xdp::{
    self, Attachment, Interface, KernelCounters, SocketStatistics, XdpError, XdpPort,
};

/// How often the control thread looks at workers and interfaces when nothing else happens.
const WATCH_MS: u16 = 200;
/// Orders that may wait for a worker; it takes them once a tick.
const ORDERS_MAX: usize = 16;
/// How long a worker that is stuck may hold up an order.
const ORDER_WAIT_MAX: Duration = Duration::from_secs(1);
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
}

/// A worker's thread. At its end it hands back the worker too, whose ports it may not close itself.
type Thread<P> = JoinHandle<(WorkerReport<<P as Port>::Statistics>, Worker<P>)>;

struct Daemon {
    path: PathBuf,
    config: Config,
    interfaces: [Interface; 2],
    attachments: [Attachment; 2],
    /// "zero-copy" or "copy", of each port.
    copy_modes: [&'static str; 2],
    workers: Vec<Handle>,
    reloads: Reloads,
    started: Instant,
}

/// Runs a gateway until it is told to stop; returns its last words.
pub fn run(path: &Path) -> Result<Status, DaemonError> {
    let config = Config::load(path)?;
    let plan = preflight::plan(&config).map_err(ConfigError::Problems)?;
    let missing = xdp::missing_capabilities();
    if !missing.is_empty() {
        return Err(DaemonError::Capabilities(missing));
    }
    let signals = block_signals()?;
    let listener = Listener::bind(&config.control_socket)
        .map_err(|cause| DaemonError::Control { path: config.control_socket.clone(), cause })?;
    let mut daemon = Daemon::start(path, config, plan)?;
    tracing::info!(config = %path.display(), workers = daemon.workers.len(), "running");
    let watched = daemon.watch(&signals, &listener);
    let status = daemon.stop();
    watched.map(|()| status)
}

/// Everything that is wrong with a configuration on this machine.
pub fn check(path: &Path) -> Result<(), ConfigError> {
    let config = Config::load(path)?;
    preflight::plan(&config).map_err(ConfigError::Problems)?;
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
    fn start(path: &Path, config: Config, plan: Plan) -> Result<Daemon, DaemonError> {
        let settings = settings(&config, &plan.interfaces);
        let gateways: Vec<Gateway> = plan
            .cores
            .iter()
            .map(|_| Gateway::new(settings, config.capacity, Secret::random()))
            .collect();
        let attachments = attach(&config, &plan)?;
        let [lan, wan] = &attachments;
        let opened = (0..plan.cores.len() as u32)
            .map(|queue| xdp::open(lan, wan, queue, &config.xdp))
            .collect::<Result<Vec<_>, XdpError>>()?;
        let copy_modes = match opened.first() {
            Some((ports, _)) => ports.each_ref().map(XdpPort::mode),
            None => unreachable!("an interface has at least one queue"),
        };
        // Workers begin with what this thread has left.
        let kept = privileges::keep_what_ports_need()?;
        tracing::info!(
            capabilities = kept.join(","),
            "all other privileges given up; workers have none"
        );
        check_reload(path);
        let mut workers = Vec::with_capacity(opened.len());
        for (queue, ((ports, frames), gateway)) in opened.into_iter().zip(gateways).enumerate() {
            let (orders, inbox) = bounded(ORDERS_MAX);
            let published = Published::default();
            let worker =
                Worker::new(ports, frames, gateway, config.poll, inbox, Arc::clone(&published));
            let core = plan.cores[queue];
            match spawn(queue, core, worker) {
                Ok(thread) => workers.push(Handle { core, orders, published, thread }),
                Err(error) => {
                    drop(attachments);
                    end(workers);
                    return Err(error);
                }
            }
        }
        Ok(Daemon {
            path: path.to_owned(),
            config,
            interfaces: plan.interfaces,
            attachments,
            copy_modes,
            workers,
            reloads: Reloads::default(),
            started: Instant::now(),
        })
    }

    /// Until a signal says stop.
    fn watch(&mut self, signals: &SignalFd, listener: &Listener) -> Result<(), DaemonError> {
        loop {
            let mut waited = [
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waited, PollTimeout::from(WATCH_MS)) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(system("waiting for signals")(errno)),
            }
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
            listener.answer(|| self.status(self.kernel_counters(), self.worker_statuses()));
            self.notice_mtu();
        }
    }

    /// Reads the file again. What cannot be taken over as a whole is not taken over at all.
    fn reload(&mut self) {
        let path = self.path.display().to_string();
        let loaded = Config::load(&self.path).and_then(|config| {
            preflight::plan(&config).map(|_| config).map_err(ConfigError::Problems)
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

    /// An MTU may be changed under our feet; what a port can send changes with it.
    fn notice_mtu(&mut self) {
        let mut changed = false;
        for interface in &mut self.interfaces {
            if let Ok(now) = Interface::find(&interface.name)
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

    fn order_settings(&self) {
        let settings = settings(&self.config, &self.interfaces);
        for (queue, worker) in self.workers.iter().enumerate() {
            if worker.orders.send_timeout(Order::Reload(settings), ORDER_WAIT_MAX).is_err() {
                tracing::error!("worker {queue} takes no orders and keeps its settings");
            }
        }
    }

    /// Detaches first, so that new packets go to the kernel while the workers send what they have.
    fn stop(self) -> Status {
        let mut status = self.status(self.kernel_counters(), Vec::new());
        drop(self.attachments);
        for worker in end(self.workers) {
            status.add(worker);
        }
        status
    }

    fn status(&self, kernel: [KernelCounters; 2], workers: Vec<WorkerStatus>) -> Status {
        let port = |index: usize| PortStatus {
            interface: self.interfaces[index].name.clone(),
            xdp: self.attachments[index].mode(),
            copy: self.copy_modes[index].to_owned(),
            mtu: self.interfaces[index].mtu,
            kernel: kernel[index],
        };
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            reloads: self.reloads,
            mode: "inline".to_owned(),
            classifier: self.config.rule,
            lanes: self.config.lanes,
            ports: Ports::new([port(0), port(1)]),
            total: Counters::default(),
            workers: Vec::new(),
        };
        for worker in workers {
            status.add(worker);
        }
        status
    }

    fn worker_statuses(&self) -> Vec<WorkerStatus> {
        let workers = self.workers.iter().enumerate();
        workers
            .map(|(queue, worker)| WorkerStatus {
                queue: queue as u32,
                core: worker.core,
                report: worker.published.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            })
            .collect()
    }

    fn kernel_counters(&self) -> [KernelCounters; 2] {
        self.attachments.each_ref().map(|attachment| {
            attachment.counters().unwrap_or_else(|error| {
                tracing::warn!(
                    "{}: no counters of its XDP program: {error}",
                    attachment.interface()
                );
                KernelCounters::default()
            })
        })
    }
}

fn attach(config: &Config, plan: &Plan) -> Result<[Attachment; 2], XdpError> {
    let queues = plan.cores.len() as u32;
    let [lan, wan] = plan.interfaces.each_ref().map(|interface| {
        let xdp = &config.xdp;
        let mut attachment =
            Attachment::attach(&interface.name, xdp.attach, xdp.frame_bytes, queues)?;
        // A wire carries frames to any address.
        attachment.receive_all()?;
        Ok(attachment)
    });
    Ok([lan?, wan?])
}

/// What the gateways do, as the configuration says it and as the interfaces allow.
fn settings(config: &Config, interfaces: &[Interface; 2]) -> Settings {
    Settings {
        rule: config.rule,
        lanes: config.lanes,
        frame_bytes_max: interfaces.each_ref().map(|port| Some(port.mtu + LINK_HEADER_BYTES)),
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
    P::Frames: Send,
{
    let (tell, is_ready) = bounded(1);
    let thread = thread::Builder::new()
        .name(format!("worker-{queue}"))
        .spawn(move || {
            let ready = settle(queue, core);
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

/// Stops workers whose programs are detached, and closes their ports.
fn end(workers: Vec<Handle>) -> Vec<WorkerStatus> {
    for worker in &workers {
        // A worker that is gone needs no order.
        let _ = worker.orders.send(Order::Stop);
    }
    let join = |(queue, worker): (usize, Handle)| {
        let ended = worker.thread.join();
        let (report, _ports) = ended.expect("a worker that panics ends the process");
        WorkerStatus { queue: queue as u32, core: worker.core, report }
    };
    workers.into_iter().enumerate().map(join).collect()
}

/// Moves the calling thread to its core, then shuts the door behind it.
fn settle(queue: usize, core: usize) -> Result<(), DaemonError> {
    if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        return Err(DaemonError::Pin { queue, core });
    }
    sandbox::enter().map_err(|cause| DaemonError::Sandbox { queue, cause })
}
