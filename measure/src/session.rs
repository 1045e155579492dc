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
//! of which one has taken more steps: packets are matched then, and have no delay. A NIC's clock and the system's
//! do not compare either. A tap has the kind of its first frame; a frame that somebody else stamped is merged where
//! time stands.
//!
//! **The end of a live run.** Packets are under way when it comes. So after [`Session::end`] a tap's frames are
//! only looked at to find the packets that the other tap had already seen; others are left out of every account.
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

/// See [`Line::clock`].
const HARDWARE_CLOCK: u8 = 0x80;

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
    /// A flow that is silent for longer has ended.
    pub flow_timeout_ns: u64,
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
            flow_timeout_ns: 300_000_000_000,
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
    /// Frames whose stamp is of another kind than the first one's.
    pub other_clock: u64,
    /// Packets that came when the tap had promised that no earlier one would; they were merged where time stood.
    pub promises_broken: u64,
    /// Packets after the end that had nothing to do with those before it, in no account.
    pub after_end: u64,
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
    /// Steps, counted round, in seven bits; the highest bit says that the NIC's clock stamps.
    clock: u8,
    /// Whether the NIC stamped the first frame.
    hardware: Option<bool>,
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
    /// The latest sighting that was passed on.
    merged_ns: u64,
    /// Nothing new is looked at after this.
    end_ns: Option<u64>,
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
            flows: Flows::new(settings.flows_max, settings.one_way, settings.flow_timeout_ns),
            matcher: Matcher::new(settings.rules.clone()),
            measurement: Measurement::new(settings.exact_max, settings.one_way, rows),
            lines: Default::default(),
            began_ns: None,
            merged_ns: 0,
            end_ns: None,
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
            counts.stamps[place_of(frame.stamp)] += 1;
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
            let hardware = frame.stamp == Stamp::Hardware;
            let order_ns = match *line.hardware.get_or_insert(hardware) == hardware {
                true => merge_time(
                    time_ns,
                    &mut line.order_ns,
                    &mut line.correction_ns,
                    &mut line.clock,
                    counts,
                ),
                false => {
                    counts.other_clock += 1;
                    line.order_ns
                }
            };
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
                clock: line.clock & !HARDWARE_CLOCK | if hardware { HARDWARE_CLOCK } else { 0 },
                stamp: frame.stamp,
            };
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

    /// The measurement ends now; what comes later only completes it. `now_ns` is the system's clock, which counts
    /// where it stamps; where a NIC does, its latest stamp is the end.
    pub fn end(&mut self, now_ns: u64) {
        let system = self.lines.iter().all(|line| line.hardware != Some(true));
        let latest_ns = self.lines.iter().map(|line| line.order_ns).max().unwrap_or(0);
        let end_ns = if system { latest_ns.max(now_ns) } else { latest_ns };
        self.end_ns.get_or_insert(end_ns);
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

    /// Packets seen at one tap only whose window has passed, as it stands.
    pub fn late(&self) -> usize {
        self.matcher.late()
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
        let Some(mut sighting) = line.queue.pop_front() else { return };
        if let Some(ahead) = line.queue.get(AHEAD) {
            self.matcher.prefetch_entry(ahead);
        }
        if sighting.order_ns < self.merged_ns {
            line.counts.promises_broken += 1;
            sighting.order_ns = self.merged_ns;
        }
        let now_ns = sighting.order_ns;
        self.merged_ns = now_ns;
        if self.end_ns.is_some_and(|end_ns| now_ns > end_ns)
            && !self.matcher.knows(&sighting, &self.flows)
        {
            line.counts.frames -= 1;
            line.counts.stamps[place_of(sighting.stamp)] -= 1;
            line.counts.after_end += 1;
            return;
        }
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

/// See [`TapCounts::stamps`].
#[inline(always)]
fn place_of(stamp: Stamp) -> usize {
    match stamp {
        Stamp::File => 0,
        Stamp::Software => 1,
        Stamp::Driver => 2,
        Stamp::Hardware => 3,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Frame;

    /// UDP from 10.0.0.1 to 10.0.0.2 with this IP identification.
    fn packet(id: u16) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 28];
        bytes.extend(id.to_be_bytes());
        bytes.extend([0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend([0, 7, 0, 9, 0, 8, 0, 0]);
        bytes
    }

    fn feed(session: &mut Session, tap: Tap, stamp: Stamp, frames: &[(u16, u64)], until_ns: u64) {
        let mut batch = Batch::new();
        for &(id, time_ns) in frames {
            batch.push(Frame { time_ns, stamp, wire_bytes: 42, bytes: &packet(id) });
        }
        batch.set_complete_until_ns(until_ns);
        session.feed(tap, &batch);
        session.pump();
    }

    #[test]
    fn stamps_of_the_nic_and_of_the_kernel_do_not_compare() {
        let mut session = Session::new(Settings::default(), None);
        feed(&mut session, Tap::Ingress, Stamp::Hardware, &[(1, 1_000), (2, 2_000)], 0);
        feed(&mut session, Tap::Egress, Stamp::Hardware, &[(1, 1_500)], 0);
        feed(&mut session, Tap::Egress, Stamp::Software, &[(2, 700)], 0);
        let mut found = session.finish();
        let way = &mut found.measurement.ways[0];
        let delay = way.delay.summary();
        assert_eq!((way.matched, way.without_delay), (2, 1));
        assert_eq!((delay.samples, delay.min), (1, Some(500)));
        assert_eq!((found.taps[1].other_clock, found.taps[1].backwards), (1, 0));
    }

    #[test]
    fn a_promise_that_is_not_kept_keeps_stamps_and_is_counted() {
        let mut session = Session::new(Settings::default(), None);
        feed(&mut session, Tap::Egress, Stamp::Software, &[], 10_000_000_000);
        feed(&mut session, Tap::Ingress, Stamp::Software, &[(1, 9_000_000_000)], 0);
        feed(&mut session, Tap::Egress, Stamp::Software, &[(1, 8_999_999_000)], 0);
        let mut found = session.finish();
        assert_eq!(found.measurement.classes.map(|classes| classes.matched), [1, 1]);
        assert_eq!(found.taps[1].promises_broken, 1);
        let delay = found.measurement.ways[1].delay.summary();
        assert_eq!(delay.min, Some(1_000), "seen at egress first");
    }

    #[test]
    fn after_the_end_only_packets_from_before_it_count() {
        let mut session = Session::new(Settings::default(), None);
        feed(&mut session, Tap::Ingress, Stamp::Software, &[(1, 1_000), (2, 2_000)], 0);
        feed(&mut session, Tap::Egress, Stamp::Software, &[(1, 1_900)], 0);
        session.end(2_100);
        feed(&mut session, Tap::Ingress, Stamp::Software, &[(3, 2_500)], 0);
        feed(&mut session, Tap::Egress, Stamp::Software, &[(2, 2_700), (3, 3_000)], 0);
        let found = session.finish();
        assert_eq!(found.measurement.classes.map(|classes| classes.matched), [2, 2]);
        assert_eq!(found.measurement.classes.map(|classes| classes.total()), [2, 2]);
        assert_eq!(found.taps.each_ref().map(|tap| (tap.frames, tap.after_end)), [(2, 1), (2, 1)]);
        assert_eq!(found.taps.each_ref().map(|tap| tap.stamps), [[0, 2, 0, 0]; 2]);
    }
}
