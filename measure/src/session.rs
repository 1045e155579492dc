//! A run: batches of both taps in, the measurement out.
//!
//! ```text
//!   Batch --feed--> identify --> queue of the tap --\
//!                                                    >-- pump: the earlier first --> Matcher --> Measurement
//!   Batch --feed--> identify --> queue of the tap --/
//! ```
//!
//! A sighting is passed on when the other tap can have none earlier: its queue says so, or
//! [`Batch::complete_until_ns`] does. So the result does not depend on how the taps are read.
//!
//! **Clocks.** A tap's stamps may come in disorder by a little; delays are of the stamps, and for merging time stands
//! still meanwhile. When a stamp is more than [`STEP_NS`] earlier than the one before, the clock was set back:
//! merging goes on from where it was, and stamps of before and after do not compare, nor do stamps of two taps
//! of which one has taken more steps: packets are matched then, and have no delay.
//!
//! Invariant: frames of a tap = its packets + not IP + malformed + truncated.

use std::collections::VecDeque;

use dataplane::wire::window::Unparsed;

use crate::flow::Flows;
use crate::identity::Identifier;
use crate::lane::Lanes;
use crate::matcher::{Matcher, Memory, Rules, Sighting};
use crate::measurement::{Measurement, Rows};
use crate::source::{Batch, Stamp, Tap};

/// A clock that goes back by more than this was set.
pub const STEP_NS: u64 = 10_000_000;

/// A tap that sees nothing for longer than this, and than the window, while the other sees
/// [`SILENT_PACKETS`], is silent.
const SILENT_NS: u64 = 1_000_000_000;

/// As many packets of the other tap make the silence of one worth telling.
pub const SILENT_PACKETS: u64 = 10;

/// How a run is made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How packets are matched.
    pub rules: Rules,
    /// Bytes of content that belong to a packet's identity.
    pub content_bytes: usize,
    /// The egress tap's clock less the ingress tap's.
    pub offset_ns: i64,
    /// Every flow goes from ingress to egress.
    pub one_way: bool,
    /// Samples of a series whose percentiles are exact.
    pub exact_max: usize,
    /// Most flows.
    pub flows_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            rules: Rules::default(),
            content_bytes: crate::identity::CONTENT_BYTES,
            offset_ns: 0,
            one_way: false,
            exact_max: crate::statistics::EXACT_MAX,
            flows_max: 1 << 22,
        }
    }
}

/// What is known of a tap beside its packets' classes.
#[derive(Debug, Clone, Default)]
pub struct TapCounts {
    /// Frames.
    pub frames: u64,
    /// Those that are not IP.
    pub not_ip: u64,
    /// Those whose headers lie.
    pub malformed: u64,
    /// Those of which too little was kept to recognise them.
    pub truncated: u64,
    /// Packets of which less content was kept than belongs to the identity.
    pub cut: u64,
    /// Packets that are fragments of a tunnel's own packets.
    pub tunnel_fragments: u64,
    /// Frames by who stamped them: file, software, driver, hardware.
    pub stamps: [u64; 4],
    /// Packets without a flow, because there were too many.
    pub without_flow: u64,
    /// Stamp of the first frame, as the tap gave it.
    pub first_ns: Option<u64>,
    /// Stamp of the latest frame, as the tap gave it.
    pub last_ns: Option<u64>,
    /// Stamps earlier than the one before them.
    pub backwards: u64,
    /// The farthest that one of them was back.
    pub backwards_most_ns: u64,
    /// Times the clock was set back.
    pub steps: u64,
    /// Stamp behind the first step.
    pub first_step_ns: Option<u64>,
    /// Stretches in which this tap was silent while the other was not.
    pub silences: u64,
    /// The longest of them.
    pub longest_silence_ns: u64,
    /// When the longest began: the tap's last stamp before it. `None`: it had not begun to see anything.
    pub longest_silence_from_ns: Option<u64>,
    /// Packets that the other tap saw in all of them.
    pub silence_packets: u64,
}

/// One tap on its way to the merger.
#[derive(Debug, Default)]
struct Line {
    counts: TapCounts,
    queue: VecDeque<Sighting>,
    /// The clock as far as merging goes, always forward.
    order_ns: u64,
    /// Added to stamps to get there, since the clock was set back.
    correction_ns: u64,
    /// Steps, counted round.
    clock: u8,
    /// No sighting before this will come.
    complete_until_ns: u64,
    /// When its latest packet was passed on.
    passed_on_ns: Option<u64>,
    /// Packets of the other tap since then.
    others_since: u64,
}

/// See the module.
pub struct Session {
    settings: Settings,
    identifier: Identifier,
    lanes: Lanes,
    flows: Flows,
    matcher: Matcher,
    measurement: Measurement,
    lines: [Line; 2],
    began_ns: Option<u64>,
}

/// Everything a run has found.
pub struct Found {
    /// What was measured.
    pub measurement: Measurement,
    /// The flows.
    pub flows: Flows,
    /// The names of lanes.
    pub lanes: Lanes,
    /// Of each tap.
    pub taps: [TapCounts; 2],
    /// What memory was needed.
    pub memory: Memory,
    /// How the run was made.
    pub settings: Settings,
}

impl Session {
    /// Ready for batches. `rows` gets every packet.
    pub fn new(settings: Settings, rows: Option<Box<dyn Rows + Send>>) -> Self {
        Session {
            identifier: Identifier::new(settings.content_bytes),
            lanes: Lanes::default(),
            flows: Flows::new(settings.flows_max, settings.one_way),
            matcher: Matcher::new(settings.rules.clone()),
            measurement: Measurement::new(settings.exact_max, settings.one_way, rows),
            lines: Default::default(),
            began_ns: None,
            settings,
        }
    }

    /// Takes in a batch of a tap; [`Session::pump`] passes it on.
    pub fn feed(&mut self, tap: Tap, batch: &Batch) {
        let line = &mut self.lines[tap.index()];
        let counts = &mut line.counts;
        let offset_ns = match tap {
            Tap::Ingress => 0,
            Tap::Egress => self.settings.offset_ns,
        };
        for frame in batch.frames() {
            counts.frames += 1;
            counts.stamps[match frame.stamp {
                Stamp::File => 0,
                Stamp::Software => 1,
                Stamp::Driver => 2,
                Stamp::Hardware => 3,
            }] += 1;
            counts.first_ns.get_or_insert(frame.time_ns);
            counts.last_ns = Some(frame.time_ns);
            let found = match self.identifier.identify(frame.bytes, frame.wire_bytes as usize) {
                Ok(found) => found,
                Err(unparsed) => {
                    *match unparsed {
                        Unparsed::NonIp | Unparsed::NonTcp => &mut counts.not_ip,
                        Unparsed::Malformed => &mut counts.malformed,
                        Unparsed::Truncated => &mut counts.truncated,
                    } += 1;
                    continue;
                }
            };
            counts.cut += u64::from(found.cut);
            counts.tunnel_fragments += u64::from(found.tunnel_fragment);
            let time_ns = frame.time_ns.saturating_add_signed(-offset_ns);
            let order_ns = merge_time(
                time_ns,
                &mut line.order_ns,
                &mut line.correction_ns,
                &mut line.clock,
                counts,
            );
            let sighting = Sighting {
                digest: found.digest,
                check: found.check,
                time_ns,
                order_ns,
                stream: self.flows.stream_id(&found.stream),
                wire_bytes: frame.wire_bytes,
                sequence: found.sequence,
                acknowledgement: found.acknowledgement,
                tcp_flags: found.tcp_flags,
                lane: self.lanes.id(&found.lane),
                clock: line.clock,
            };
            counts.without_flow += u64::from(sighting.stream == crate::stream::StreamId::UNKNOWN);
            self.matcher.prefetch_slot(&sighting);
            self.flows.prefetch_current(sighting.stream);
            line.queue.push_back(sighting);
        }
        let promised_ns = match batch.complete_until_ns() {
            u64::MAX => u64::MAX,
            stamp_ns => {
                stamp_ns.saturating_add_signed(-offset_ns).saturating_add(line.correction_ns)
            }
        };
        line.complete_until_ns = line.complete_until_ns.max(promised_ns).max(line.order_ns);
    }

    /// The tap to read next, when it is for the reader to choose: the one that the other waits for. `None` when
    /// both are at their end.
    pub fn wanted(&self) -> Option<Tap> {
        let behind = |tap: &Tap| {
            let line = &self.lines[tap.index()];
            line.complete_until_ns < u64::MAX && line.queue.is_empty()
        };
        Tap::BOTH.into_iter().find(behind)
    }

    /// Passes on what can be passed on.
    pub fn pump(&mut self) {
        loop {
            let next = |line: &Line| line.queue.front().map(|sighting| sighting.order_ns);
            let [ingress, egress] = &self.lines;
            let tap = match (next(ingress), next(egress)) {
                (None, None) => break,
                // At the same time, ingress first: then nothing took no time.
                (Some(here), Some(there)) if here <= there => Tap::Ingress,
                (Some(_), Some(_)) => Tap::Egress,
                (Some(here), None) if here <= egress.complete_until_ns => Tap::Ingress,
                (None, Some(there)) if there < ingress.complete_until_ns => Tap::Egress,
                _ => break,
            };
            self.pass_on(tap);
        }
    }

    /// No more batches come.
    pub fn finish(mut self) -> Found {
        for line in &mut self.lines {
            line.complete_until_ns = u64::MAX;
        }
        self.pump();
        self.matcher.finish(&self.lanes, &mut self.flows, &mut self.measurement);
        let end_ns = self.lines.iter().filter_map(|line| line.passed_on_ns).max();
        for at in 0..2 {
            if let Some(end_ns) = end_ns {
                self.note_silence(at, end_ns);
            }
        }
        let memory = self.matcher.memory();
        let [ingress, egress] = self.lines;
        Found {
            measurement: self.measurement,
            flows: self.flows,
            lanes: self.lanes,
            taps: [ingress.counts, egress.counts],
            memory,
            settings: self.settings,
        }
    }

    /// The measurement as it stands, for those who watch.
    pub fn measurement(&mut self) -> &mut Measurement {
        &mut self.measurement
    }

    /// Of one tap, as it stands.
    pub fn tap(&self, tap: Tap) -> &TapCounts {
        &self.lines[tap.index()].counts
    }

    #[inline(always)]
    fn pass_on(&mut self, tap: Tap) {
        const AHEAD: usize = 6;
        let here = tap.index();
        let line = &mut self.lines[here];
        let Some(sighting) = line.queue.pop_front() else { return };
        if let Some(ahead) = line.queue.get(AHEAD) {
            self.matcher.prefetch_entry(ahead);
        }
        let now_ns = sighting.order_ns;
        self.began_ns.get_or_insert(now_ns);
        if self.lines[here].others_since >= SILENT_PACKETS {
            self.note_silence(here, now_ns);
        }
        self.lines[here].others_since = 0;
        self.lines[here].passed_on_ns = Some(now_ns);
        self.lines[1 - here].others_since += 1;
        self.matcher.see(&sighting, tap, &self.lanes, &mut self.flows, &mut self.measurement);
    }

    /// A tap sees something again, or it is the end: was it silent?
    fn note_silence(&mut self, at: usize, now_ns: u64) {
        let line = &mut self.lines[at];
        let Some(from_ns) = line.passed_on_ns.or(self.began_ns) else { return };
        let silence_ns = now_ns.saturating_sub(from_ns);
        let long_ns = SILENT_NS.max(self.settings.rules.window_ns);
        if silence_ns <= long_ns || line.others_since < SILENT_PACKETS {
            return;
        }
        let counts = &mut line.counts;
        counts.silences += 1;
        counts.silence_packets += line.others_since;
        if silence_ns > counts.longest_silence_ns {
            counts.longest_silence_ns = silence_ns;
            counts.longest_silence_from_ns = line.passed_on_ns;
        }
    }
}

/// The time by which a stamp is merged: it never goes back.
#[inline(always)]
fn merge_time(
    time_ns: u64,
    order_ns: &mut u64,
    correction_ns: &mut u64,
    clock: &mut u8,
    counts: &mut TapCounts,
) -> u64 {
    let corrected_ns = time_ns.saturating_add(*correction_ns);
    if corrected_ns < *order_ns {
        let back_ns = *order_ns - corrected_ns;
        counts.backwards += 1;
        counts.backwards_most_ns = counts.backwards_most_ns.max(back_ns);
        if back_ns > STEP_NS {
            *correction_ns += back_ns;
            *clock = clock.wrapping_add(1);
            counts.steps += 1;
            counts.first_step_ns.get_or_insert(time_ns);
        }
        return *order_ns;
    }
    *order_ns = corrected_ns;
    corrected_ns
}
