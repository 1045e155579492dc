//! The kernel's routes, neighbours and addresses, mirrored by rtnetlink into [`Fib`] snapshots.
//!
//! ```text
//!                 news (multicast)            dump (question, answer)
//!   kernel  ------------------------> Mirror <------------------------  kernel
//!      ^                               |   |
//!      |  use this neighbour           |   |  Arc<Fib>, when something changed
//!      +-------------------------------+   +------------------------------------->  workers
//! ```
//!
//! A [`Mirror`] belongs to one thread, which calls [`Mirror::turn`] when its descriptor is readable and when
//! [`Mirror::wait_max`] has passed. Nothing here is asynchronous: that thread has a handful of descriptors, and a
//! turn is short. It takes `CAP_NET_ADMIN` (of ports' capabilities) to have neighbours resolved.
//!
//! **The kernel does not tell everything.** It takes IPv4 routes away without a word when their interface goes down,
//! their source address or their next-hop object is deleted; and a message about one of several routes with equal
//! key does not say which. After anything of that kind the whole state is asked for again, as after lost messages
//! (ENOBUFS), and every [`FULL_EVERY`] for what nobody thought of. Asking again builds the tables from nothing, so
//! stale entries cannot stay. News that arrived meanwhile are read after it: whatever order they come in, the last
//! word about each thing is the kernel's last.
//!
//! **Neighbours.** The dataplane's packets do not show the kernel that a neighbour is in use. So the gateways of
//! routes are resolved before anybody needs them, and neighbours on the ports that the kernel holds for stale are
//! confirmed, at most [`CONFIRMATIONS_MAX`] a second. A neighbour that has moved to another MAC address silently is
//! found by the kernel's own probes; one that announces itself (gratuitous ARP) is known at once.
//!
//! **Limits.** [`ROUTES_MAX`](crate::fib::ROUTES_MAX) and its neighbours in `fib`. What is beyond is left out, counted,
//! and said once. A full dump of a million routes takes about a second (measured: 0.96 s, 62 MB); it is made no more often than every ten times
//! what the last one took.

mod message;
mod nexthops;
mod socket;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::PortId;
use crate::fib::{Fib, Full, PortLink, RouteKey, Shelf, Tables};
use message::{Event, How, Link, Message, RouteSource};
use nexthops::NextHops;
use socket::{Heard, News, Questions};

/// How often everything is asked for again though nothing seems to be wrong.
pub const FULL_EVERY: Duration = Duration::from_secs(60);
/// Least time between two snapshots.
pub const SNAPSHOT_EVERY: Duration = Duration::from_millis(20);
/// Stale neighbours that are confirmed in a second, at most.
pub const CONFIRMATIONS_MAX: usize = 256;
/// Neighbours that the dataplane has asked for lately.
pub const REQUESTS_MAX: usize = 1024;

/// Least time between full dumps that something called for.
const FULL_AFTER: Duration = Duration::from_millis(100);
/// How often neighbours are looked after; a neighbour is asked for no more often.
const NEIGHBOURS_EVERY: Duration = Duration::from_secs(1);
/// Datagrams of news read in one turn, so that a turn ends.
const DATAGRAMS_MAX: usize = 4096;

/// What a mirror has seen and done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RouteStatistics {
    /// Routes known now.
    pub routes: u64,
    /// Neighbours known now, on the ports.
    pub neighbours: u64,
    /// Changes heard.
    pub news: u64,
    /// Times that the kernel said that changes were lost.
    pub lost: u64,
    /// Times that everything was asked for.
    pub full_dumps: u64,
    /// Such times that failed.
    pub failed_dumps: u64,
    /// Snapshots made.
    pub snapshots: u64,
    /// Neighbours that the kernel was told to find or confirm.
    pub neighbour_requests: u64,
    /// Entries left out because there were too many.
    pub left_out: u64,
}

/// Why there is no mirror.
#[derive(Debug, thiserror::Error)]
#[error(
    "{operation}: {cause}. Routed mode needs the kernel's rtnetlink (AF_NETLINK, in a unit RestrictAddressFamilies=)"
)]
pub struct RoutesError {
    operation: &'static str,
    cause: io::Error,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Mirror {
    names: [String; 2],
    news: News,
    questions: Questions,
    state: State,
    shelf: Shelf,
    /// When neighbours were last asked for.
    requested: HashMap<(u32, IpAddr), Instant>,
    /// Something changed since the last snapshot.
    is_changed: bool,
    /// Something may be wrong that only a full dump can mend.
    is_doubtful: bool,
    snapshot_next: Instant,
    /// What taking in changes has cost since the last snapshot: the first of them copies the tries.
    spent: Duration,
    neighbours_next: Instant,
    full_at: Instant,
    full_took: Duration,
    statistics: RouteStatistics,
}

/// What the kernel has said.
#[derive(Debug, Default)]
struct State {
    names: [String; 2],
    links: BTreeMap<u32, Link>,
    next_hops: NextHops,
    tables: Tables,
    left_out: Option<Full>,
    left_out_count: u64,
}

/// What follows from an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Effect {
    is_changed: bool,
    is_doubtful: bool,
}

const NOTHING: Effect = Effect { is_changed: false, is_doubtful: false };
const CHANGED: Effect = Effect { is_changed: true, is_doubtful: false };
const DOUBTFUL: Effect = Effect { is_changed: true, is_doubtful: true };

impl Mirror {
    /// Reads everything, in the network namespace of the calling thread. `names` are the interfaces of the ports,
    /// LAN first; they may come and go.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn start(names: [&str; 2]) -> Result<Mirror, RoutesError> {
        let fail = |operation| move |cause| RoutesError { operation, cause };
        // First, so that nothing is missed of what is asked after it.
        let news = News::listen().map_err(fail("listening to changes of routes"))?;
        let questions = Questions::open().map_err(fail("opening a socket to ask for routes"))?;
        let now = Instant::now();
        let mut mirror = Mirror {
            names: names.map(str::to_owned),
            news,
            questions,
            state: State::default(),
            shelf: Shelf::default(),
            requested: HashMap::new(),
            is_changed: true,
            is_doubtful: false,
            snapshot_next: now,
            spent: Duration::ZERO,
            neighbours_next: now,
            full_at: now,
            full_took: Duration::ZERO,
            statistics: RouteStatistics::default(),
        };
        mirror.ask_everything(now).map_err(fail("asking for routes"))?;
        Ok(mirror)
    }

    /// Takes in what changed. Returns a snapshot when there is a new one to give to the workers. Does not wait,
    /// but for a full dump when one is due.
    pub fn turn(&mut self, now: Instant) -> Option<Arc<Fib>> {
        self.read_news();
        if self.is_full_due(now) {
            if let Err(error) = self.ask_everything(now) {
                self.statistics.failed_dumps += 1;
                tracing::warn!("asking for routes: {error}; what is known stays, trying again");
            }
            // What changed meanwhile.
            self.read_news();
        }
        if now >= self.neighbours_next {
            self.look_after_neighbours(now);
            self.neighbours_next = now + NEIGHBOURS_EVERY;
        }
        self.say_what_is_left_out();
        if !self.is_changed || now < self.snapshot_next || !self.shelf.has_room() {
            return None;
        }
        let begun = Instant::now();
        let fib = self.shelf.keep(self.state.tables.snapshot());
        let spent = std::mem::take(&mut self.spent) + begun.elapsed();
        self.is_changed = false;
        // A third of this thread's time at most.
        self.snapshot_next = now + SNAPSHOT_EVERY.max(spent * 2);
        self.statistics.snapshots += 1;
        Some(fib)
    }

    /// How long the next turn may be away when no news comes.
    pub fn wait_max(&self, now: Instant) -> Duration {
        let full = if self.is_doubtful { self.full_after() } else { FULL_EVERY };
        let mut next = self.neighbours_next.min(self.full_at + full);
        if self.is_changed {
            next = next.min(self.snapshot_next);
        }
        next.saturating_duration_since(now)
    }

    /// Has the kernel find out the MAC address of a next hop ([`Unresolved`](crate::fib::Resolution::Unresolved)).
    /// The answer comes with a later snapshot. Asked again within a second, it does nothing.
    pub fn request(&mut self, port: PortId, address: IpAddr, now: Instant) {
        if let Some(link) = self.state.tables.port(port) {
            self.use_neighbour(link.interface, address, now);
        }
    }

    /// What it has seen and done.
    pub fn statistics(&self) -> RouteStatistics {
        RouteStatistics {
            routes: self.state.tables.routes() as u64,
            neighbours: self.state.tables.neighbours().len() as u64,
            ..self.statistics
        }
    }

    fn read_news(&mut self) {
        let begun = Instant::now();
        let Mirror { news, state, statistics, .. } = self;
        let (mut is_changed, mut is_doubtful) = (false, false);
        for _ in 0..DATAGRAMS_MAX {
            let heard = news.read(|message: Message<'_>| {
                if let Some(event) = message.event() {
                    statistics.news += 1;
                    let effect = state.take(event);
                    is_changed |= effect.is_changed;
                    is_doubtful |= effect.is_doubtful;
                }
            });
            match heard {
                Heard::Something => {}
                Heard::Nothing => break,
                Heard::Lost => {
                    statistics.lost += 1;
                    is_doubtful = true;
                    // What still waits is older than what was lost, and its opposite may be among that: read
                    // after a full dump, it would bring back what has gone.
                    news.discard();
                }
            }
        }
        self.is_changed |= is_changed;
        self.is_doubtful |= is_doubtful;
        self.spent += begun.elapsed();
    }

    fn full_after(&self) -> Duration {
        FULL_AFTER.max(self.full_took * 10)
    }

    fn is_full_due(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.full_at);
        since >= FULL_EVERY.max(self.full_after()) || self.is_doubtful && since >= self.full_after()
    }

    /// Builds everything anew, and takes it over as a whole or not at all.
    fn ask_everything(&mut self, now: Instant) -> io::Result<()> {
        let begun = Instant::now();
        self.full_at = now;
        self.is_doubtful = false;
        self.statistics.full_dumps += 1;
        let mut fresh = State { names: self.names.clone(), ..State::default() };
        let asked = fresh.ask(&mut self.questions);
        self.full_took = begun.elapsed();
        if let Err(error) = asked {
            self.is_doubtful = true;
            return Err(error);
        }
        fresh.left_out = fresh.left_out.or(self.state.left_out);
        fresh.left_out_count += self.state.left_out_count;
        self.state = fresh;
        self.is_changed = true;
        Ok(())
    }

    /// Gateways before anybody needs them, and whoever the kernel is not sure of any more.
    fn look_after_neighbours(&mut self, now: Instant) {
        self.requested.retain(|_, at| now.saturating_duration_since(*at) < NEIGHBOURS_EVERY);
        let tables = &self.state.tables;
        let is_unknown = |(interface, address): &(u32, IpAddr)| {
            tables.neighbour(*interface, *address).is_none_or(|known| known.mac.is_none())
        };
        let unknown = tables.gateways().into_iter().filter(is_unknown);
        let stale = tables.neighbours().filter(|(_, _, known)| known.is_stale);
        let stale = stale.map(|(interface, address, _)| (interface, address));
        let wanted: Vec<_> = unknown.chain(stale).take(CONFIRMATIONS_MAX).collect();
        for (interface, address) in wanted {
            self.use_neighbour(interface, address, now);
        }
    }

    fn use_neighbour(&mut self, interface: u32, address: IpAddr, now: Instant) {
        let last = self.requested.get(&(interface, address));
        if last.is_some_and(|last| now.saturating_duration_since(*last) < NEIGHBOURS_EVERY) {
            return;
        }
        if self.requested.len() >= REQUESTS_MAX {
            return;
        }
        self.requested.insert((interface, address), now);
        self.statistics.neighbour_requests += 1;
        if let Err(error) = self.questions.use_neighbour(interface, address) {
            tracing::debug!("asking for the neighbour {address}: {error}");
        }
    }

    fn say_what_is_left_out(&mut self) {
        let State { left_out, left_out_count, .. } = &mut self.state;
        if *left_out_count > 0
            && self.statistics.left_out == 0
            && let Some(full) = left_out
        {
            tracing::error!("{full}");
        }
        self.statistics.left_out += std::mem::take(left_out_count);
    }
}

impl AsFd for Mirror {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }
}

impl State {
    /// Links first and next-hop objects before routes: what follows refers to them.
    fn ask(&mut self, questions: &mut Questions) -> io::Result<()> {
        let both = [libc::AF_INET, libc::AF_INET6];
        self.ask_for(questions, message::GET_LINK, libc::AF_UNSPEC)?;
        match self.ask_for(questions, message::GET_NEXT_HOP, libc::AF_UNSPEC) {
            // Kernels before 5.3 have none.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            asked => asked?,
        }
        for family in both {
            self.ask_for(questions, message::GET_ADDRESS, family)?;
            self.ask_for(questions, message::GET_NEIGHBOUR, family)?;
            self.ask_for(questions, message::GET_ROUTE, family)?;
        }
        Ok(())
    }

    fn ask_for(&mut self, questions: &mut Questions, kind: u16, family: i32) -> io::Result<()> {
        questions.dump(kind, family, |message| {
            if let Some(event) = message.event() {
                self.take(event);
            }
        })
    }

    fn take(&mut self, event: Event) -> Effect {
        match event {
            Event::Link { interface, link } => self.take_link(interface, link),
            Event::LinkGone { interface } => {
                self.links.remove(&interface);
                self.find_ports();
                DOUBTFUL
            }
            Event::Address { address } => {
                let added = self.tables.add_address(address);
                self.unless_full(added)
            }
            // Routes that had it for their source went without a word.
            Event::AddressGone { interface, address } => {
                self.tables.remove_address(interface, address);
                DOUBTFUL
            }
            Event::Route { key, route, how } => self.take_route(key, route, how),
            Event::RouteGone { key, route } => self.remove_route(&key, &route),
            Event::Neighbour { interface, address, neighbour } => {
                if !self.is_a_port(interface) {
                    return NOTHING;
                }
                let set = self.tables.set_neighbour(interface, address, neighbour);
                self.unless_full(set)
            }
            Event::NeighbourGone { interface, address } => {
                let is_changed = self.tables.remove_neighbour(interface, address);
                Effect { is_changed, is_doubtful: false }
            }
            // Routes that have it know only its number.
            Event::NextHop { id, next_hop } => match self.next_hops.set(id, next_hop) {
                true => DOUBTFUL,
                false => NOTHING,
            },
            Event::NextHopGone => DOUBTFUL,
        }
    }

    fn take_link(&mut self, interface: u32, link: Link) -> Effect {
        let before = self.links.insert(interface, link.clone());
        let ports_changed = self.find_ports();
        // Of an interface that went down, IPv4 routes go without a word; neighbours of a new port were not taken.
        let is_doubtful = ports_changed || before.is_some_and(|before| before.state != link.state);
        Effect { is_changed: ports_changed || is_doubtful, is_doubtful }
    }

    /// Whether one of the ports is another now.
    fn find_ports(&mut self) -> bool {
        let mut is_changed = false;
        for (port, name) in PortId::ALL.into_iter().zip(&self.names) {
            let found = self.links.iter().find(|(_, link)| link.name == *name);
            let found = found.and_then(|(interface, link)| {
                let (interface, mtu_bytes) = (*interface, link.mtu_bytes);
                Some(PortLink { interface, mac: link.mac?, mtu_bytes })
            });
            is_changed |= self.tables.set_port(port, found);
        }
        is_changed
    }

    fn is_a_port(&self, interface: u32) -> bool {
        let is = |port| self.tables.port(port).is_some_and(|link| link.interface == interface);
        PortId::ALL.into_iter().any(is)
    }

    fn take_route(&mut self, key: RouteKey, source: RouteSource, how: How) -> Effect {
        let route = self.next_hops.expand(source);
        match self.tables.route(&key) {
            Some(known) if *known == route => NOTHING,
            // One of several with equal key, and which is used is the kernel's to say. In a dump the first is.
            Some(_) if how == How::Added => Effect { is_changed: false, is_doubtful: true },
            _ => {
                let set = self.tables.set_route(key, route);
                self.unless_full(set)
            }
        }
    }

    fn remove_route(&mut self, key: &RouteKey, source: &RouteSource) -> Effect {
        let route = self.next_hops.expand(source.clone());
        match self.tables.route(key) {
            None => NOTHING,
            Some(known) if *known == route => {
                self.tables.remove_route(key);
                CHANGED
            }
            // Hops may have died since, or it was one of several.
            Some(_) => Effect { is_changed: false, is_doubtful: true },
        }
    }

    fn unless_full(&mut self, result: Result<bool, Full>) -> Effect {
        match result {
            Ok(is_changed) => Effect { is_changed, is_doubtful: false },
            Err(full) => {
                self.left_out = Some(full);
                self.left_out_count += 1;
                NOTHING
            }
        }
    }
}
