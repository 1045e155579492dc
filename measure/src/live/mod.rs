//! A run over two network interfaces.
//!
//! ```text
//!   interface --> reader, pinned --> bounded queue of batches --\
//!                                                                >-- this thread: Session, progress, signals
//!   interface --> reader, pinned --> bounded queue of batches --/
//! ```
//!
//! Each tap has [`QUEUE_BATCHES`] batches, which go round: empty to the reader, full to the session. When the
//! session is slow, the reader finds none empty, which is counted, and waits; the kernel's ring fills and, when it
//! is full, the kernel drops and counts. So packets are lost in one place only, and memory is bounded: ring and
//! batches of each tap, and the packets of [`listener::HOLD`] and of one window.
//!
//! A run ends when its time is over, its packets were seen, a signal came, or an interface went. Then the taps
//! are listened to for a little longer, for the packets that are under way ([`Session::end`]).
//!
//! Invariant: whatever ended the run, everything found until then is returned, and the interfaces are as they were.

mod messages;
mod progress;
mod reader;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Select, Sender, bounded};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde::{Deserialize, Serialize};

pub use messages::about;
pub use progress::{Progress, Watch};
use reader::{Gauges, Reader};

use crate::identity::FRAME_BYTES_MAX;
use crate::matcher::Rules;
use crate::session::{Found, Session, Settings};
use crate::source::interface::Switch;
use crate::source::listener::{
    self, Listener, Prepared, TapError, TapNotes, TapSettings, Way, now_ns,
};
use crate::source::packet_ring::BLOCK_BYTES;
use crate::source::xdp::XdpNotes;
use crate::source::{Batch, Tap};

/// Batches of a tap.
pub const QUEUE_BATCHES: usize = 64;

/// How often signals, time and progress are looked at, at least.
const LOOK: Duration = Duration::from_millis(20);
/// How often progress is shown.
const SHOW: Duration = Duration::from_secs(1);

/// How a run is made.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    /// Ingress and egress.
    pub interfaces: [String; 2],
    /// Of both taps.
    pub tap: TapSettings,
    /// The cores of the readers; by default the first two that this process may use.
    pub cores: Option<[usize; 2]>,
    /// Ends the run.
    pub duration: Option<Duration>,
    /// Ends the run: so many frames at the ingress tap.
    pub packets: Option<u64>,
    /// How long packets that are under way at the end are waited for.
    pub linger: Duration,
    /// Of the measurement.
    pub session: Settings,
}

impl LiveSettings {
    /// The memory that rings, queues and matcher take at most, in bytes.
    pub fn memory_bytes_max(&self) -> usize {
        2 * (self.tap.ring_bytes + queue_bytes_max(&self.tap))
            + matcher_bytes_max(&self.session.rules)
    }
}

/// What is only known of a tap that was live.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveTap {
    /// The interface.
    pub interface: String,
    /// Which way its packets came: `packet` or `xdp`.
    #[serde(default)]
    pub source: String,
    /// What is only known of a tap by XDP.
    pub xdp: Option<XdpNotes>,
    /// Why the NIC did not stamp; nothing when it was told to.
    pub no_hardware_stamps: Option<String>,
    /// The number of the NIC's clock (`/dev/ptpN`).
    pub clock: Option<u32>,
    /// Frames of the kernel = frames of the tap + before the start + after the end + dropped.
    pub kernel_frames: u64,
    /// Frames that the kernel dropped because its ring was full.
    pub dropped: u64,
    /// Times its ring was full.
    pub ring_full: u64,
    /// Frames that the interface dropped before anybody saw them, where the kernel tells.
    pub dropped_by_interface: Option<u64>,
    /// Times the reader found no empty batch, and waited.
    pub queue_full: u64,
    /// Frames before both taps listened, in no account.
    pub before_start: u64,
    /// Packets after the end that had nothing to do with those before it, in no account.
    pub after_end: u64,
    /// Frames longer than the wire allows.
    pub oversize: u64,
    /// VLAN tags that the kernel had taken off, and that were put back.
    pub tags_restored: u64,
    /// Frames without a stamp, which got the time of reading.
    pub without_stamp: u64,
    /// Frames stamped only when the kernel copied them.
    pub stamped_late: u64,
    /// Frames stamped by another clock than the tap's first one.
    pub other_clock: u64,
    /// Frames that came after the tap had promised that none would.
    pub promises_broken: u64,
    /// Times the interface was down.
    pub downs: u64,
    /// Whether the interface, or its reader, was gone before the end.
    pub gone: Option<String>,
    /// Offloads that merge packets and could not be switched off.
    pub merging: Vec<String>,
    /// Whether the NIC takes VLAN tags off and could not be told otherwise, out of sight of an XDP program.
    #[serde(default)]
    pub takes_tags_off: bool,
    /// Whether the reader could be pinned to its core.
    pub pinned: bool,
    /// Bytes of the kernel's ring.
    pub ring_bytes: usize,
    /// Bytes of its batches, at most.
    pub queue_bytes_max: usize,
}

/// Why nothing is measured.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// A tap cannot be opened.
    #[error("tap {}: {cause}", tap.name())]
    Tap {
        /// Which.
        tap: Tap,
        /// Why.
        #[source]
        cause: TapError,
    },
    /// A program takes packets for one tap only.
    #[error(
        "{interface} was given for both taps, and an XDP program gives a packet to one reader: use --source packet, \
         or two interfaces"
    )]
    OneInterface {
        /// Which.
        interface: String,
    },
    /// The system refuses something that it gives to everybody.
    #[error("{what}: {cause}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// What ended a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its time was over.
    Duration,
    /// Its packets were seen.
    Packets,
    /// A signal.
    Signal,
    /// An interface went, or a reader did.
    Gone,
}

/// What came of a run.
pub struct Outcome {
    /// What was found.
    pub found: Found,
    /// Of each tap.
    pub taps: [LiveTap; 2],
    /// What ended it.
    pub ended: Reason,
}

/// What is told.
#[derive(Debug)]
pub enum Event<'e> {
    /// Both taps listen now.
    Listening(&'e [LiveTap; 2]),
    /// Once a second.
    Progress(&'e Progress),
    /// What is under way is waited for.
    Ending(Reason),
}

/// Runs until something ends it.
///
/// # Errors
///
/// When a tap cannot be opened. What goes wrong later is in the outcome, beside what was measured.
pub fn run(
    settings: &LiveSettings,
    watch: Watch,
    mut tell: impl FnMut(Event<'_>),
) -> Result<Outcome, LiveError> {
    // Before there is another thread, so that none of them gets the signals.
    let signals = block_signals()?;
    let mut taps = Taps::open(settings)?;
    tell(Event::Listening(&taps.lives));
    let mut progress = Progress::new(watch.recent());
    let mut session = Session::new(settings.session.clone(), Some(Box::new(watch)));
    let ended = taps.measure(settings, &mut session, &signals, &mut progress, &mut tell);
    let found = session.finish();
    let lives = taps.close(&found);
    Ok(Outcome { found, taps: lives, ended })
}

/// Both taps, with their readers.
struct Taps {
    lines: [Line; 2],
    lives: [LiveTap; 2],
    stop: Arc<AtomicBool>,
    /// As they were before.
    drops_before: [Option<u64>; 2],
    /// Dropped last: the interfaces get their settings back when nobody reads them any more.
    _prepared: [Prepared; 2],
}

/// A tap's reader and its batches.
struct Line {
    full: Option<Receiver<Batch>>,
    /// `None` ends a reader that waits for a batch.
    empty: Option<Sender<Batch>>,
    gauges: Arc<Gauges>,
    reader: Option<JoinHandle<Box<dyn Listener>>>,
}

impl Taps {
    fn open(settings: &LiveSettings) -> Result<Taps, LiveError> {
        let fail = |tap| move |cause| LiveError::Tap { tap, cause };
        let [one, other] = &settings.interfaces;
        if settings.tap.way == Way::Xdp && one == other {
            return Err(LiveError::OneInterface { interface: one.clone() });
        }
        let open = |tap: Tap| {
            listener::open(&settings.interfaces[tap.index()], &settings.tap).map_err(fail(tap))
        };
        let (mut ingress, prepared_ingress) = open(Tap::Ingress)?;
        let (mut egress, prepared_egress) = open(Tap::Egress)?;
        ingress.listen().map_err(fail(Tap::Ingress))?;
        egress.listen().map_err(fail(Tap::Egress))?;
        let begin_ns = now_ns();
        let prepared = [prepared_ingress, prepared_egress];
        let mut taps = [ingress, egress];
        let cores = settings.cores.unwrap_or_else(default_cores);
        let lives = [0, 1].map(|at| describe(&mut *taps[at], &prepared[at], settings));
        let drops_before = lives.each_ref().map(|live| interface_drops(&live.interface));
        let stop = Arc::new(AtomicBool::new(false));
        let mut lines = Vec::new();
        for (mut tap, core) in taps.into_iter().zip(cores) {
            tap.begin_at(begin_ns);
            lines.push(Line::start(tap, core, &stop)?);
        }
        let lines = lines.try_into().unwrap_or_else(|_| unreachable!("there are two taps"));
        Ok(Taps { lines, lives, stop, drops_before, _prepared: prepared })
    }

    /// Feeds the session until both readers have ended.
    fn measure(
        &mut self,
        settings: &LiveSettings,
        session: &mut Session,
        signals: &SignalFd,
        progress: &mut Progress,
        tell: &mut impl FnMut(Event<'_>),
    ) -> Reason {
        let began = Instant::now();
        let mut shown = began;
        let mut ended: Option<(Reason, Instant)> = None;
        while self.lines.iter().any(|line| line.full.is_some()) {
            self.feed(session);
            let signals = pending(signals);
            let reason = if signals > 0 {
                Some(Reason::Signal)
            } else if self.lines.iter().any(|line| line.full.is_none()) {
                Some(Reason::Gone)
            } else if settings.duration.is_some_and(|duration| began.elapsed() >= duration) {
                Some(Reason::Duration)
            } else if settings.packets.is_some_and(|n| session.tap(Tap::Ingress).frames >= n) {
                Some(Reason::Packets)
            } else {
                None
            };
            match (&ended, reason) {
                (None, Some(reason)) => {
                    session.end(now_ns());
                    tell(Event::Ending(reason));
                    // Who signals twice wants no more waiting.
                    let until = Instant::now() + settings.linger * u32::from(signals < 2);
                    ended = Some((reason, until));
                }
                (Some((_, until)), _) if signals > 0 || Instant::now() >= *until => {
                    self.stop.store(true, Ordering::Relaxed);
                }
                _ => {}
            }
            if shown.elapsed() >= SHOW {
                shown = Instant::now();
                let drops = self.lines.each_ref().map(|line| line.gauges.drops());
                progress.take(session, began.elapsed(), drops);
                tell(Event::Progress(progress));
            }
        }
        ended.map_or(Reason::Gone, |(reason, _)| reason)
    }

    /// Waits for a batch, and feeds it and what else there is.
    fn feed(&mut self, session: &mut Session) {
        let mut select = Select::new();
        let receivers: Vec<(Tap, &Receiver<Batch>)> = Tap::BOTH
            .into_iter()
            .filter_map(|tap| Some((tap, self.lines[tap.index()].full.as_ref()?)))
            .collect();
        for (_, receiver) in &receivers {
            select.recv(receiver);
        }
        let Ok(operation) = select.select_timeout(LOOK) else { return };
        let (tap, receiver) = receivers[operation.index()];
        let received = operation.recv(receiver).map_err(|_| RecvTimeoutError::Disconnected);
        let line = &mut self.lines[tap.index()];
        match received {
            Ok(batch) => {
                session.feed(tap, &batch);
                // The reader may have ended meanwhile.
                let _ = line.empty.as_ref().map(|empty| empty.send(batch));
            }
            Err(_) => {
                line.full = None;
                let mut last = Batch::new();
                last.set_complete_until_ns(u64::MAX);
                session.feed(tap, &last);
            }
        }
        session.pump();
    }

    /// Everything that is known of the taps, when their readers have ended.
    fn close(mut self, found: &Found) -> [LiveTap; 2] {
        for tap in Tap::BOTH {
            let (line, live) = (&mut self.lines[tap.index()], &mut self.lives[tap.index()]);
            let counts = &found.taps[tap.index()];
            let reader = line.reader.take().map(JoinHandle::join);
            match reader {
                Some(Ok(mut read)) => note(live, &read.notes()),
                _ => {
                    live.dropped = line.gauges.drops();
                    live.gone = Some("its reader failed; the message is above".into());
                }
            }
            live.gone = live.gone.take().or_else(|| line.gauges.gone());
            live.pinned = line.gauges.pinned();
            live.queue_full = line.gauges.queue_full();
            live.after_end = counts.after_end;
            live.other_clock = counts.other_clock;
            live.promises_broken = counts.promises_broken;
            let now = interface_drops(&live.interface);
            let before = self.drops_before[tap.index()];
            live.dropped_by_interface =
                now.zip(before).map(|(now, before)| now.saturating_sub(before));
        }
        self.lives.clone()
    }
}

impl Line {
    fn start(
        tap: Box<dyn Listener>,
        core: usize,
        stop: &Arc<AtomicBool>,
    ) -> Result<Line, LiveError> {
        let (empty, to_fill) = bounded(QUEUE_BATCHES);
        let (filled, full) = bounded(QUEUE_BATCHES);
        for _ in 0..QUEUE_BATCHES {
            empty.send(Batch::new()).expect("there is room, and both ends are here");
        }
        let gauges = Arc::new(Gauges::default());
        let reader =
            Reader { tap, core, to_fill, filled, stop: stop.clone(), gauges: gauges.clone() };
        let name = format!("tap {}", reader.tap.interface().name());
        let reader = std::thread::Builder::new().name(name).spawn(|| reader.run());
        let reader =
            reader.map_err(|cause| LiveError::System { what: "starting a reader", cause })?;
        Ok(Line { full: Some(full), empty: Some(empty), gauges, reader: Some(reader) })
    }
}

/// A reader that finds its channels closed ends; nobody waits for it when the run could not begin.
impl Drop for Taps {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for line in &mut self.lines {
            (line.full, line.empty) = (None, None);
            if let Some(reader) = line.reader.take() {
                let _ = reader.join();
            }
        }
    }
}

fn describe(tap: &mut dyn Listener, prepared: &Prepared, settings: &LiveSettings) -> LiveTap {
    let remain = || prepared.offloads.iter().flat_map(|offloads| offloads.remain());
    let merging = remain().filter(|switch| Switch::MERGING.contains(switch));
    LiveTap {
        interface: tap.interface().name().to_owned(),
        source: settings.tap.way.name().to_owned(),
        xdp: tap.notes().xdp,
        no_hardware_stamps: prepared.no_hardware_stamps().map(str::to_owned),
        clock: prepared.clock(),
        merging: merging.map(|switch| switch.name().to_owned()).collect(),
        takes_tags_off: remain().any(|&switch| switch == Switch::ReceiveVlan),
        ring_bytes: tap.ring_bytes(),
        queue_bytes_max: queue_bytes_max(&settings.tap),
        ..LiveTap::default()
    }
}

fn note(live: &mut LiveTap, notes: &TapNotes) {
    live.kernel_frames = notes.kernel_frames;
    live.dropped = notes.drops;
    live.ring_full = notes.ring_full;
    live.before_start = notes.before_start;
    live.oversize = notes.oversize;
    live.tags_restored = notes.tags_restored;
    live.without_stamp = notes.without_stamp;
    live.stamped_late = notes.stamped_late;
    live.downs = notes.downs;
    live.xdp = notes.xdp;
}

/// A batch holds what a block held.
fn queue_bytes_max(settings: &TapSettings) -> usize {
    let frame_bytes = (settings.snap_bytes as usize).min(FRAME_BYTES_MAX);
    // A frame in a block has a header of 48 bytes and a gap before its bytes.
    let frames = BLOCK_BYTES / (48 + 16 + frame_bytes.min(60));
    QUEUE_BATCHES * (BLOCK_BYTES + frames * 32)
}

/// An entry and its two slots.
fn matcher_bytes_max(rules: &Rules) -> usize {
    rules.packets_max.next_power_of_two() * (64 + 16)
}

fn default_cores() -> [usize; 2] {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let core = |at: usize| cores.get(at).or(cores.first()).map_or(0, |core| core.id);
    [core(0), core(1)]
}

/// Frames that an interface has dropped so far, as /proc/net/dev says.
fn interface_drops(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").ok()?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))?;
    // Receive: bytes, packets, errs, drop.
    line.split_whitespace().nth(3)?.parse().ok()
}

fn block_signals() -> Result<SignalFd, LiveError> {
    let system =
        |what| move |errno: nix::errno::Errno| LiveError::System { what, cause: errno.into() };
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().map_err(system("blocking signals"))?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(system("opening a descriptor for signals"))
}

/// How many signals came.
fn pending(signals: &SignalFd) -> u32 {
    let mut count = 0;
    while let Ok(Some(_)) = signals.read_signal() {
        count += 1;
    }
    count
}

const _: () = assert!(listener::HOLD.as_millis() >= 10 * LOOK.as_millis());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_rings_queues_and_matcher_may_have() {
        let settings = LiveSettings {
            interfaces: ["a".into(), "b".into()],
            tap: TapSettings {
                way: Way::Packet,
                stamps: Default::default(),
                snap_bytes: 192,
                ring_bytes: 64 << 20,
                keep_offloads: false,
            },
            cores: None,
            duration: None,
            packets: None,
            linger: Duration::ZERO,
            session: Settings {
                rules: Rules { packets_max: 1 << 20, ..Rules::default() },
                ..Settings::default()
            },
        };
        let queue = queue_bytes_max(&settings.tap);
        assert!((16 << 20..24 << 20).contains(&queue), "{queue}");
        assert_eq!(settings.memory_bytes_max(), (128 << 20) + 2 * queue + (80 << 20));
    }

    #[test]
    fn the_loopback_interface_tells_its_drops() {
        assert!(interface_drops("lo").is_some());
        assert_eq!(interface_drops("nosuchtap0"), None);
    }
}
