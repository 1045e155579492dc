//! A script for [`process`](super::process): bytes that mean packets, batches, ticks and reloads. Every
//! sequence of bytes means something, so that a fuzzer wastes no time on what would be refused.
//!
//! ```text
//! start    IPv4 flows, IPv6 flows, datagrams, secret, frame limits and ECMP; then a rule
//! rule     threshold, idle timeout and flags, short DSCP, long DSCP: a byte each
//! step     0..7   frame: port and time, bytes not kept, length (2 bytes), the frame
//!          8..11  a frame of before again: port and time, how far back, offset, flipped bits, times
//!          12     end of batch     13  tick: time     14  tick and sweep: time     15  a rule
//! ```

use dataplane::batch::{Packet, PortId};

use crate::model::{Policy, Rule};
use crate::traffic::{Frame, Random, RoutedTraffic, Traffic};

/// Most bytes of a frame.
const FRAME_BYTES_MAX: u16 = 2047;
/// Idle timeouts to choose from.
const TIMEOUTS_NS: [u64; 4] = [1, 1000, 30_000_000_000, 3_600_000_000_000];

/// What holds for a whole script.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    /// IPv4 and IPv6.
    pub(super) flows_max: [usize; 2],
    pub(super) seed: u64,
    pub(super) frame_bytes_max: [u32; 2],
    /// Where the rule says "split", the gateways are told "ecmp".
    pub(super) ecmp: bool,
    pub(super) rule: Rule,
}

/// A packet as it comes in.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) kept: Vec<u8>,
    pub(super) wire_bytes: u32,
    pub(super) ingress: PortId,
    pub(super) received_ns: u64,
}

impl Arrival {
    /// The packet, with its bytes in `frame`.
    pub(super) fn packet<'a>(&self, frame: &'a mut [u8]) -> Packet<'a> {
        Packet::cut(frame, self.wire_bytes, self.ingress, self.received_ns)
    }
}

/// What happens next.
pub(super) enum Step {
    /// The same packet, so many times.
    Packets(Arrival, usize),
    EndOfBatch,
    Tick {
        now_ns: u64,
        settle: bool,
    },
    Reload(Rule),
}

/// A script that is being read.
pub(super) struct Script<'a> {
    bytes: &'a [u8],
    now_ns: u64,
    idle_timeout_ns: u64,
    fragmented_datagrams_max: usize,
    frames: Vec<(Vec<u8>, u32)>,
}

impl<'a> Script<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Script {
            bytes,
            now_ns: 0,
            idle_timeout_ns: 1,
            fragmented_datagrams_max: 1,
            frames: Vec::new(),
        }
    }

    pub(super) fn start(&mut self) -> Option<Start> {
        let flows_max = [1 + self.up_to(31)?, 1 + self.up_to(31)?];
        self.fragmented_datagrams_max = 1 + self.up_to(7)?;
        let seed = u64::from(self.byte()?);
        let flags = self.byte()?;
        let limit = |bit: u8, bytes| if flags & bit != 0 { bytes } else { u32::MAX };
        Some(Start {
            flows_max,
            seed,
            frame_bytes_max: [limit(1, 300), limit(2, 100)],
            ecmp: flags & 4 != 0,
            rule: self.rule()?,
        })
    }

    pub(super) fn step(&mut self) -> Option<Step> {
        Some(match self.up_to(15)? {
            0..8 => {
                let (ingress, received_ns) = self.port_and_time()?;
                let cut = u32::from(self.byte()?);
                let length = self.take(2)?;
                let length = u16::from_be_bytes([length[0], length[1]]) & FRAME_BYTES_MAX;
                let kept = self.take(usize::from(length))?.to_vec();
                // The last of these is a jumbo frame.
                let wire_bytes = kept.len() as u32 + if cut == 255 { 9000 } else { cut };
                self.frames.push((kept.clone(), wire_bytes));
                Step::Packets(Arrival { kept, wire_bytes, ingress, received_ns }, 1)
            }
            8..12 => {
                let (ingress, received_ns) = self.port_and_time()?;
                let [back, offset, flipped, times] = *self.take(4)?.first_chunk::<4>()?;
                let count = self.frames.len();
                let (mut kept, wire_bytes) = match count {
                    0 => (Vec::new(), 0),
                    _ => self.frames[count - 1 - usize::from(back) % count].clone(),
                };
                if let Some(byte) = kept.get_mut(usize::from(offset)) {
                    *byte ^= flipped;
                }
                let arrival = Arrival { kept, wire_bytes, ingress, received_ns };
                Step::Packets(arrival, 1 + usize::from(times) % 64)
            }
            12 => Step::EndOfBatch,
            kind @ (13 | 14) => {
                let (_, now_ns) = self.port_and_time()?;
                Step::Tick { now_ns, settle: kind == 14 }
            }
            _ => Step::Reload(self.rule()?),
        })
    }

    /// The highest bit is the port; the others move the time, around the idle timeout above all.
    fn port_and_time(&mut self) -> Option<(PortId, u64)> {
        let byte = self.byte()?;
        let port = if byte & 0x80 == 0 { PortId::Lan } else { PortId::Wan };
        let timeout_ns = self.idle_timeout_ns;
        let step_ns = match byte & 0x7f {
            0..32 => 0,
            small @ 32..64 => u64::from(small),
            64..72 => timeout_ns - 1,
            72..80 => timeout_ns,
            80..88 => timeout_ns + 1,
            88..96 => timeout_ns / 2,
            96..100 => 3 * timeout_ns,
            100 => 1 << 62,
            // Backwards, for this packet alone.
            far => {
                return Some((port, self.now_ns.saturating_sub(u64::from(far) * timeout_ns / 100)));
            }
        };
        self.now_ns = self.now_ns.saturating_add(step_ns);
        Some((port, self.now_ns))
    }

    fn rule(&mut self) -> Option<Rule> {
        let [threshold, flags, short, long] = *self.take(4)?.first_chunk::<4>()?;
        self.idle_timeout_ns = TIMEOUTS_NS[usize::from(flags & 3)];
        Some(Rule {
            policy: if flags & 0x30 == 0x30 { Policy::None } else { Policy::Split },
            threshold_packets: u32::from(threshold) % 48,
            idle_timeout_ns: self.idle_timeout_ns,
            restart_on_syn: flags & 4 != 0,
            short_dscp: short & 0x3f,
            long_dscp: long & 0x3f,
            fragmented_datagrams_max: self.fragmented_datagrams_max,
        })
    }

    /// A number from 0 to `largest`, one less than a power of two.
    fn up_to(&mut self, largest: u8) -> Option<usize> {
        Some(usize::from(self.byte()? & largest))
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }
}

/// A frame of random traffic as an input of [`parse`](super::parse).
pub fn parse_seed(frame: &Frame<'_>) -> Vec<u8> {
    let cut = frame.wire_bytes as usize - frame.kept.len();
    let cut = u16::try_from(cut).unwrap_or(u16::MAX);
    [&cut.to_be_bytes(), frame.kept].concat()
}

/// Random traffic of so many frames as an input of [`process`](super::process), some of them repeated, in
/// batches of any size, with ticks and reloads in between.
pub fn process_seed(random: &mut Random, traffic: &mut Traffic, frames: usize) -> Vec<u8> {
    let mut script = random_bytes(random, 9);
    // In some of them time hardly passes, so that tables fill; in others flows end all the time.
    let calm = random.pick(&[4, 40, 400]);
    for _ in 0..frames {
        let frame = traffic.next_frame();
        let kept = &frame.kept[..frame.kept.len().min(usize::from(FRAME_BYTES_MAX))];
        let cut = (frame.wire_bytes as usize - kept.len()).min(255) as u8;
        let port_and_time = if random.one_in(calm) { random.byte() } else { 0 };
        script.extend([0, port_and_time, cut]);
        script.extend((kept.len() as u16).to_be_bytes());
        script.extend(kept);
        if random.one_in(2) {
            let port_and_time = if random.one_in(calm) { random.byte() } else { 0 };
            script.extend([8, port_and_time]);
            script.extend(random_bytes(random, 4));
        }
        if random.one_in(calm) {
            script.push(12 + random.below(4) as u8);
            script.extend(random_bytes(random, 4));
        }
    }
    script
}

/// Random traffic of both sides of a routed gateway as an input of [`routed`](super::routed).
pub fn routed_seed(
    random: &mut Random,
    number: usize,
    traffic: &mut RoutedTraffic,
    frames: usize,
) -> Vec<u8> {
    let mut script = vec![number as u8];
    script.extend(random_bytes(random, 9));
    for _ in 0..frames {
        let frame = traffic.next_frame();
        let kept = &frame.kept[..frame.kept.len().min(usize::from(FRAME_BYTES_MAX))];
        let cut = (frame.wire_bytes as usize - kept.len()).min(255) as u8;
        let time = if random.one_in(20) { random.byte() & 0x7f } else { 0 };
        let port = if frame.ingress == PortId::Wan { 0x80 } else { 0 };
        script.extend([0, port | time, cut]);
        script.extend((kept.len() as u16).to_be_bytes());
        script.extend(kept);
        if random.one_in(6) {
            script.push(12 + random.below(2) as u8);
            script.extend(random_bytes(random, 1));
        }
    }
    script
}

fn random_bytes(random: &mut Random, count: usize) -> Vec<u8> {
    (0..count).map(|_| random.byte()).collect()
}
