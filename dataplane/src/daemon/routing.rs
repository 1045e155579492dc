//! The control thread's part of routed mode: what the kernel knows goes to the workers and to the XDP programs,
//! what the workers ask goes to the kernel.
//!
//! ```text
//!   kernel --news--> Mirror --snapshot--> Order::Routes --> workers
//!     ^                |  \--own addresses--> destinations of the XDP programs
//!     |                |
//!     +--- resolve ----+<------ Ask ------------------------ workers
//! ```

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::batch::PortId;
use crate::config::{Config, Routed};
use crate::fib::Fib;
use crate::router::{Router, Site};
use crate::routes::{Mirror, RouteStatistics, RoutesError};
use crate::worker::Ask;
use crate::xdp::{Attachment, XdpError};

/// Questions of workers that may wait for this thread.
const ASKS_MAX: usize = 256;
/// Where nothing says yet what the WAN port carries.
const MTU_BYTES: u32 = 1500;
/// How long a question waits, at most.
const ASKS_EVERY: Duration = Duration::from_millis(10);

/// Routes, tunnels and questions.
pub(super) struct Routing {
    routed: Routed,
    site: Site,
    mirror: Mirror,
    /// What workers route by.
    fib: Arc<Fib>,
    asks: Sender<Ask>,
    asked: Receiver<Ask>,
}

impl Routing {
    /// Reads the kernel's tables; nothing in inline mode.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub(super) fn start(config: &Config) -> Result<Option<Routing>, RoutesError> {
        let (Some(routed), Some(ports)) = (&config.routed, &config.ports) else { return Ok(None) };
        let mut mirror = Mirror::start([&ports.lan.value, &ports.wan.value])?;
        let fib = mirror.turn(Instant::now()).unwrap_or_default();
        let (asks, asked) = bounded(ASKS_MAX);
        Ok(Some(Routing {
            site: site(routed, &fib),
            routed: routed.clone(),
            mirror,
            fib,
            asks,
            asked,
        }))
    }

    /// One for a worker.
    pub(super) fn router(&self, worker: usize) -> Router {
        let router = Router::new(&self.site, Arc::clone(&self.fib));
        if worker == 0 { router } else { router.beside_the_first() }
    }

    /// Where a worker asks for next hops.
    pub(super) fn asks(&self) -> Sender<Ask> {
        self.asks.clone()
    }

    /// What workers route by.
    pub(super) fn fib(&self) -> Arc<Fib> {
        Arc::clone(&self.fib)
    }

    pub(super) fn statistics(&self) -> RouteStatistics {
        self.mirror.statistics()
    }

    /// How long the next turn may be away when there is no news.
    pub(super) fn wait_max(&self) -> Duration {
        self.mirror.wait_max(Instant::now()).min(ASKS_EVERY)
    }

    /// Passes questions on, and takes in what has changed; returns it, for the workers.
    pub(super) fn turn(&mut self) -> Option<Arc<Fib>> {
        let now = Instant::now();
        for (port, address) in self.asked.try_iter().take(ASKS_MAX) {
            self.mirror.request(port, address, now);
        }
        self.fib = self.mirror.turn(now)?;
        Some(self.fib())
    }

    /// Has the XDP programs take what is the gateway's, and leave the rest.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(super) fn divert(&self, attachments: &mut [Attachment; 2]) -> Result<(), XdpError> {
        for (port, attachment) in PortId::ALL.into_iter().zip(attachments) {
            attachment
                .set_destinations(&self.routed.destinations(port, self.fib.own_addresses()))?;
        }
        Ok(())
    }
}

impl AsFd for Routing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mirror.as_fd()
    }
}

/// What routers are made of.
fn site(routed: &Routed, fib: &Fib) -> Site {
    let mtu_bytes = fib.port(PortId::Wan).map_or(MTU_BYTES, |port| port.mtu_bytes);
    Site::new(
        &routed.local_prefixes.value,
        &routed.remote_prefixes.value,
        routed.lanes.each_ref().map(|lane| lane.value),
        mtu_bytes,
    )
}
