//! What the reader of the figures must know: one sentence each, with a word for scripts.

use std::time::{Duration, SystemTime};

use dataplane::capture::CaptureError;
use humantime::{format_duration, format_rfc3339_nanos};

use crate::offline::Estimate;
use crate::results::{Message, Results, TapResult};
use crate::session::{SILENT_PACKETS, TapCounts};
use crate::source::Tap;

/// Of fewer matched packets nobody should conclude that the taps are swapped, or the captures the same.
const EVIDENCE_PACKETS: u64 = 10;

impl Message {
    /// A message.
    pub fn new(kind: &str, text: String) -> Message {
        Message { kind: kind.into(), text }
    }

    /// The offset was estimated, or could not be.
    pub fn estimate(estimate: &Estimate) -> Message {
        let text = match estimate {
            Estimate::Both { offset_ns, uncertainty_ns, pairs } => format!(
                "THE CLOCK OFFSET IS AN ESTIMATE: egress is taken to be {} {} ingress. That is right if the \
                 shortest ways there and back, of {pairs} pairs of flows, take the same time; if not, every delay \
                 is off by as much as {}",
                duration(offset_ns.unsigned_abs()),
                if *offset_ns < 0 { "behind" } else { "ahead of" },
                duration(*uncertainty_ns),
            ),
            Estimate::Unknown => {
                "the clock offset cannot be estimated, because no conversation was seen both ways: \
                 it is taken to be zero; give it with --offset"
                    .into()
            }
        };
        Message::new("offset_estimated", text)
    }

    /// Both taps are one file.
    pub fn same_file(path: &std::path::Path) -> Message {
        let text = format!(
            "{} was given for both taps: all it can show is what the program does with equal packets",
            path.display()
        );
        Message::new("same_file", text)
    }

    /// A capture that could not be read to its end.
    pub fn damaged(tap: Tap, error: &CaptureError) -> Message {
        let kind = match error {
            CaptureError::Truncated { .. } => "capture_truncated",
            CaptureError::NotEthernet { .. } => "not_ethernet",
            _ => "capture_damaged",
        };
        let text = format!(
            "the capture of tap {} was used only as far as it could be read: {error}",
            tap.name()
        );
        Message::new(kind, text)
    }
}

/// All that the figures and the taps themselves give reason to say.
pub fn of(results: &Results, counts: &[TapCounts; 2]) -> Vec<Message> {
    let mut messages = Vec::new();
    for tap in Tap::BOTH {
        let Some(result) = results.tap(tap) else { continue };
        about_clock(tap, result, &counts[tap.index()], &mut messages);
        about_silence(tap, &counts[tap.index()], &mut messages);
        about_packets(tap, result, results, &mut messages);
    }
    about_resolution(results, &mut messages);
    about_matches(results, &mut messages);
    about_memory(results, &mut messages);
    messages
}

fn about_clock(tap: Tap, result: &TapResult, counts: &TapCounts, messages: &mut Vec<Message>) {
    let name = tap.name();
    if result.clock_steps > 0 {
        let at =
            counts.first_step_ns.map_or(String::new(), |ns| format!(", first to {}", moment(ns)));
        messages.push(Message::new(
            "clock_set_back",
            format!(
                "the clock of tap {name} jumps back {}{at} and by up to {}: delays and completion times are \
                 only given for packets whose two stamps are of the same side of the jumps; synchronise the clock \
                 by slewing, and measure again",
                times(result.clock_steps),
                duration(counts.backwards_most_ns),
            ),
        ));
    } else if result.stamps_backwards > 0 {
        let xdp = result.live.as_ref().and_then(|live| live.xdp);
        let why = match xdp.map_or(1, |xdp| xdp.queues) {
            1 => "delays are of the stamps as they are, so expect an error of that size".to_owned(),
            queues => format!(
                "its {queues} queues are read by one reader, and a packet can wait in one of them; where that is all, \
                 delays are right"
            ),
        };
        messages.push(Message::new(
            "stamps_backwards",
            format!(
                "{} stamps of tap {name} are earlier than the one before, by up to {}: {why}",
                result.stamps_backwards,
                duration(counts.backwards_most_ns),
            ),
        ));
    }
}

fn about_silence(tap: Tap, counts: &TapCounts, messages: &mut Vec<Message>) {
    let (name, other) = (tap.name(), tap.other().name());
    if counts.silences == 0 {
        return;
    }
    let from = match counts.longest_silence_from_ns {
        Some(ns) => format!("from {} on", moment(ns)),
        None => "from the start".into(),
    };
    messages.push(Message::new(
        "tap_silent",
        format!(
            "tap {name} was silent {}, the longest time for {} {from}, while tap {other} saw {} packets: these \
             are counted as seen at one tap only, which may be the capture's doing and not the network's; check \
             the mirror port and the capture of tap {name}",
            times(counts.silences),
            duration(counts.longest_silence_ns),
            counts.silence_packets,
        ),
    ));
}

fn about_packets(tap: Tap, result: &TapResult, results: &Results, messages: &mut Vec<Message>) {
    let name = tap.name();
    if result.frames == 0 {
        messages.push(Message::new("no_frames", format!("tap {name} has no frames")));
    } else if result.packets == 0 {
        messages.push(Message::new(
            "no_ip",
            format!("tap {name} has {} frames and no IP packet that could be read", result.frames),
        ));
    }
    let messages_of = [
        (
            "packets_truncated",
            result.truncated,
            "were cut inside of their headers and could not be recognised; they are in no account. Capture with a \
             longer snap length",
        ),
        (
            "content_cut",
            result.cut,
            "were kept shorter than the identity wants, and may not be recognised at the other tap; choose a \
             smaller --content-bytes, or capture with a longer snap length",
        ),
        (
            "tunnel_fragments",
            result.tunnel_fragments,
            "are fragments of a tunnel's own packets: what they carry cannot be seen and counts as lost. Lower the \
             MTU inside the tunnel",
        ),
    ];
    for (kind, count, text) in messages_of {
        if count > 0 {
            let text = format!("{count} packets of tap {name} {text}");
            let text = match kind {
                "content_cut" => {
                    format!("{text} (it is {} now)", results.settings.content_bytes)
                }
                _ => text,
            };
            messages.push(Message::new(kind, text));
        }
    }
}

fn about_resolution(results: &Results, messages: &mut Vec<Message>) {
    let unit = |tap| results.tap(tap).and_then(|tap| tap.resolution_ns);
    let [Some(ingress), Some(egress)] = Tap::BOTH.map(unit) else { return };
    if ingress != egress {
        messages.push(Message::new(
            "different_resolution",
            format!(
                "tap ingress has stamps in units of {} and tap egress in units of {}: a delay is right to within \
                 the coarser one",
                duration(ingress),
                duration(egress),
            ),
        ));
    }
}

fn about_matches(results: &Results, messages: &mut Vec<Message>) {
    let packets = &results.packets;
    if packets.matched == 0 && packets.ingress > 0 && packets.egress > 0 {
        messages.push(Message::new(
            "nothing_matched",
            format!(
                "no packet was seen at both taps within {}{}: check that the captures are of the same traffic and \
                 time, and that --window and --offset fit them",
                duration(results.settings.window_ns),
                match packets.out_of_window {
                    0 => String::new(),
                    later => format!(", and {later} were seen there further apart"),
                },
            ),
        ));
    }
    if packets.matched < EVIDENCE_PACKETS {
        return;
    }
    let at_egress_first = results.reverse.matched + results.forward.negative_delay_ns.packets;
    if at_egress_first * 10 >= packets.matched * 9 {
        messages.push(Message::new(
            "taps_swapped",
            format!(
                "the taps look swapped: {at_egress_first} of {} matched packets were seen at egress first. Exchange \
                 --ingress and --egress, or correct the clocks with --offset",
                packets.matched,
            ),
        ));
    }
    let negative =
        results.forward.negative_delay_ns.packets + results.reverse.negative_delay_ns.packets;
    if negative > 0 {
        let min_ns = [&results.forward, &results.reverse].map(|way| way.negative_delay_ns.min);
        let min_ns = min_ns.into_iter().flatten().min().unwrap_or(0);
        messages.push(Message::new(
            "negative_delays",
            format!(
                "{negative} packets have a delay below zero (down to -{}) and are in no figure of delay: the clocks \
                 of the taps differ by more than the way takes",
                duration(min_ns.unsigned_abs()),
            ),
        ));
    }
    let same = results.forward.delay_ns.max == Some(0) && packets.lost + packets.unmatched == 0;
    if same && packets.matched == packets.ingress {
        messages.push(Message::new(
            "same_capture",
            "every packet was seen at both taps at the same nanosecond: the two captures are the same".into(),
        ));
    }
}

fn about_memory(results: &Results, messages: &mut Vec<Message>) {
    let memory = &results.memory;
    if memory.evicted > 0 {
        messages.push(Message::new(
            "window_shortened",
            format!(
                "{} packets left the memory before their window had passed, the first after {}: raise --memory, or \
                 lower --window",
                memory.evicted,
                duration(memory.evicted_after_ns.unwrap_or(0)),
            ),
        ));
    }
    if results.flows.packets_without_flow > 0 {
        messages.push(Message::new(
            "too_many_flows",
            format!(
                "{} packets are of flows for which there was no room: they are in the accounts and in the delays, \
                 and in no flow; raise --flows-max (a flow takes about 0.8 kB until the end of the run)",
                results.flows.packets_without_flow,
            ),
        ));
    }
}

/// Nobody reads more than two units: of a second and more milliseconds are told, of a millisecond microseconds.
fn duration(ns: u64) -> String {
    let unit_ns = match ns {
        1_000_000_000.. => 1_000_000,
        1_000_000.. => 1_000,
        _ => 1,
    };
    format_duration(Duration::from_nanos(ns - ns % unit_ns)).to_string()
}

/// A stamp as people, and tshark's filters, read it.
fn moment(ns: u64) -> String {
    let since_1970 = Duration::from_nanos(ns);
    match SystemTime::UNIX_EPOCH.checked_add(since_1970) {
        Some(time) if since_1970.as_secs() < 253_402_300_800 => {
            format_rfc3339_nanos(time).to_string()
        }
        _ => format!("{ns} ns"),
    }
}

fn times(count: u64) -> String {
    match count {
        1 => "once".into(),
        count => format!("{count} times"),
    }
}

const _: () = assert!(SILENT_PACKETS >= EVIDENCE_PACKETS);
