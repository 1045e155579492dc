//! What the application asks for: mixes of kinds of requests, and how large a body is that makes so many packets.
//!
//! A kind is told by the packets of its bulk direction as a tap between client and server sees them, all of them:
//! SYN, TLS handshake, pure acknowledgements, body, FIN. [`Wire::body_bytes`] turns that into a body. What goes
//! with a body was counted on the wire, because no standard says when a kernel sends an acknowledgement of its own; a
//! packet or two more or less are chance.
//!
//! # Load
//!
//! On a path of 100 Mbit/s there is room for 8 250 full packets a second and direction. By `split` all long flows
//! of a direction have one path, with up to 40 % background; by `ecmp` they have two.
//!
//! | packets a second, `paper` | downloads | uploads |
//! | --- | --- | --- |
//! | short flows, up to 40 packets | 820: 10 % of a path | 40 |
//! | longer flows | 820: 10 % of a path | 660: 8 % |
//!
//! Long flows are as seldom as that on purpose: a WAN is not made for fewer paths than its bulk needs. At 40 %
//! background a path leaves them 4 950 packets a second; by `ecmp` short flows take 410 of these on each path, by
//! `split` none on the long one. If those who share a path share it evenly, the mean time of a long flow is in
//! proportion to 1 / (4950 - 820) by `split` and 1 / (4540 - 410) by `ecmp`, which is the same. With three times as
//! many long flows, `split` as it is would cost them a third. By `ecmp` a short flow meets a long one on its path, in
//! one direction or the other, a sixth of the time.

use serde::{Deserialize, Serialize};

use super::records::Bulk;

/// A kind of requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kind {
    /// What it is called.
    pub name: &'static str,
    /// Which way its bulk goes.
    pub bulk: Bulk,
    /// Packets of that direction, all of them.
    pub packets: u32,
    /// Arrivals, as a Poisson process.
    pub per_s: f64,
}

/// A mix of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// What it is called.
    pub name: &'static str,
    /// Its kinds; no two have the same name.
    pub kinds: Vec<Kind>,
}

const fn download(name: &'static str, packets: u32, per_s: f64) -> Kind {
    Kind { name, bulk: Bulk::Download, packets, per_s }
}

const fn upload(name: &'static str, packets: u32, per_s: f64) -> Kind {
    Kind { name, bulk: Bulk::Upload, packets, per_s }
}

/// For paths of 100 Mbit/s and runs of two minutes: some five thousand short flows, and now and then one of the
/// longest.
const PAPER: [Kind; 12] = [
    download("listing", 5, 12.0),
    download("message", 10, 12.0),
    download("page", 20, 12.0),
    download("picture", 40, 10.0),
    upload("form", 10, 4.0),
    download("document", 100, 2.0),
    download("album", 1_000, 0.1),
    upload("attachment", 1_000, 0.1),
    download("archive", 8_000, 0.02),
    upload("dump", 8_000, 0.02),
    download("video", 60_000, 0.006),
    upload("upload", 100_000, 0.004),
];

/// For paths of 100 Mbit/s and runs of half a minute: the same load, of long flows that end soon enough.
const QUICK: [Kind; 10] = [
    download("listing", 5, 12.0),
    download("message", 10, 12.0),
    download("page", 20, 12.0),
    download("picture", 40, 10.0),
    upload("form", 10, 4.0),
    download("document", 100, 2.0),
    download("archive", 2_000, 0.1),
    upload("dump", 2_000, 0.1),
    download("video", 8_000, 0.05),
    upload("upload", 8_000, 0.05),
];

/// For a network that is idle but for a request now and then, none of which waits for another.
const IDLE: [Kind; 4] = [
    download("listing", 5, 5.0),
    download("message", 10, 5.0),
    download("page", 20, 5.0),
    download("picture", 40, 5.0),
];

impl Mix {
    /// The names there are.
    pub const NAMES: [&'static str; 3] = ["paper", "quick", "idle"];

    /// The mix of a name.
    pub fn named(name: &str) -> Option<Mix> {
        match name {
            "paper" => Some(Mix { name: "paper", kinds: PAPER.to_vec() }),
            "quick" => Some(Mix { name: "quick", kinds: QUICK.to_vec() }),
            "idle" => Some(Mix { name: "idle", kinds: IDLE.to_vec() }),
            _ => None,
        }
    }

    /// The same kinds, so many times as often: for paths of another rate.
    #[must_use]
    pub fn scaled(mut self, factor: f64) -> Mix {
        for kind in &mut self.kinds {
            kind.per_s *= factor;
        }
        self
    }

    /// Packets a second that a direction's bulks bring on average.
    pub fn packets_per_s(&self, bulk: Bulk) -> f64 {
        let kinds = self.kinds.iter().filter(|kind| kind.bulk == bulk);
        kinds.map(|kind| kind.per_s * f64::from(kind.packets)).sum()
    }
}

/// What decides how many packets a body takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// Bytes that a full TCP segment carries: the maximum segment size less [`TIMESTAMPS_BYTES`].
    pub segment_bytes: u32,
    /// Whether it is encrypted.
    pub tls: bool,
}

/// Of every segment, the kernel's timestamps option takes so much.
pub const TIMESTAMPS_BYTES: u32 = 12;
/// What TLS 1.3 adds to a record: header, kind of content, authentication.
pub const RECORD_BYTES: u32 = 5 + 1 + 16;
/// The most that a record carries.
const RECORD_PLAIN_BYTES_MAX: u32 = 1 << 14;

/// Room for the head of a request or an answer, and for the end of a handshake, so that a few bytes more of them do not
/// make a packet.
const HEAD_BYTES: u64 = 400;

/// Packets of the bulk's direction that carry nothing of it, counted on the wire between two Linux hosts, nginx and
/// the driver.
struct Beside {
    plain: u32,
    tls: u32,
}

/// SYN, acknowledgement of the request, of the client's FIN; and for TLS, the handshake's one packet and its goodbye,
/// which sometimes leaves with the last of the body instead.
const BESIDE_DOWNLOAD: Beside = Beside { plain: 3, tls: 5 };
/// SYN, acknowledgements of the server's SYN and of its answer, FIN; and for TLS, the client's first message and the
/// acknowledgement of the server's.
const BESIDE_UPLOAD: Beside = Beside { plain: 4, tls: 6 };

impl Wire {
    /// For a network that takes IP packets of so many bytes.
    pub fn of_mtu(mtu: u32, tls: bool) -> Wire {
        Wire { segment_bytes: mtu - 20 - 20 - TIMESTAMPS_BYTES, tls }
    }

    /// Full segments of a TLS record: as many as fit, so that no record ends in the midst of one, and packets can be
    /// told from bytes.
    pub fn segments_per_record(&self) -> u32 {
        (RECORD_PLAIN_BYTES_MAX + RECORD_BYTES) / self.segment_bytes
    }

    /// Bytes of a full record before encryption.
    pub fn record_plain_bytes(&self) -> u32 {
        self.segments_per_record() * self.segment_bytes - RECORD_BYTES
    }

    /// Bytes of the body of a kind, so that its bulk takes the packets that the kind says. Where that many do not
    /// even carry a handshake, it is a body of a byte: by TLS, what should take 5 packets takes 6.
    pub fn body_bytes(&self, kind: &Kind) -> u64 {
        let beside = match kind.bulk {
            Bulk::Download => BESIDE_DOWNLOAD,
            Bulk::Upload => BESIDE_UPLOAD,
        };
        let beside = if self.tls { beside.tls } else { beside.plain };
        let segments = u64::from(kind.packets.saturating_sub(beside));
        let bytes = segments * u64::from(self.segment_bytes);
        let records = match self.tls {
            true => segments.div_ceil(u64::from(self.segments_per_record())),
            false => 0,
        };
        bytes.saturating_sub(records * u64::from(RECORD_BYTES) + HEAD_BYTES).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 2] = [download("a", 40, 1.0), upload("b", 40, 1.0)];

    fn mixes() -> impl Iterator<Item = Mix> {
        Mix::NAMES.iter().map(|name| Mix::named(name).expect("the name is in the list"))
    }

    #[test]
    fn every_name_is_a_mix_of_that_name_whose_kinds_have_different_names() {
        for (mix, name) in mixes().zip(Mix::NAMES) {
            assert_eq!(mix.name, name);
            let names: std::collections::BTreeSet<_> = mix.kinds.iter().map(|k| k.name).collect();
            assert_eq!(names.len(), mix.kinds.len());
        }
        assert_eq!(Mix::named("paper "), None);
    }

    /// Of a path's 8 250 packets of 1 514 bytes a second, by kinds of up to 40 packets or by longer ones.
    fn share(mix: &Mix, is_short: bool, bulk: Bulk) -> f64 {
        let mut part = mix.clone();
        part.kinds.retain(|kind| (kind.packets <= 40) == is_short);
        part.packets_per_s(bulk) / 8_250.0
    }

    /// The table above.
    #[test]
    fn long_flows_take_no_more_than_short_ones_leave_by_changing_paths() {
        for mix in ["paper", "quick"].map(|name| Mix::named(name).expect("it is there")) {
            let [down, up] = [Bulk::Download, Bulk::Upload].map(|bulk| share(&mix, false, bulk));
            let short = share(&mix, true, Bulk::Download);
            assert!(down < short + 0.001, "{}: {down} long, {short} short", mix.name);
            assert!((0.07..0.1).contains(&down) && (0.07..0.1).contains(&up), "{down} {up}");
        }
    }

    #[test]
    fn a_run_has_thousands_of_short_flows_that_leave_their_path_mostly_idle() {
        for (name, seconds) in [("paper", 120.0), ("quick", 30.0)] {
            let mix = Mix::named(name).expect("it is there");
            let short = mix.kinds.iter().filter(|kind| kind.packets <= 40);
            let flows: f64 = short.map(|kind| kind.per_s * seconds).sum();
            assert!(flows >= 1_500.0, "{name}: {flows}");
            assert!(share(&mix, true, Bulk::Download) < 0.15, "{name}");
        }
    }

    #[test]
    fn an_idle_network_has_short_flows_alone_and_few() {
        let mix = Mix::named("idle").expect("it is there");
        assert!(mix.kinds.iter().all(|kind| kind.packets <= 40));
        assert!(share(&mix, true, Bulk::Download) < 0.05);
    }

    #[test]
    fn scaling_changes_rates_and_nothing_else() {
        for mix in mixes() {
            let scaled = mix.clone().scaled(0.5);
            for (one, half) in mix.kinds.iter().zip(&scaled.kinds) {
                assert_eq!(Kind { per_s: half.per_s * 2.0, ..*half }, *one);
            }
        }
    }

    #[test]
    fn records_end_where_segments_end() {
        for segment_bytes in [536, 1_348, 1_424, 1_448, 8_948] {
            let wire = Wire { segment_bytes, tls: true };
            assert_eq!((wire.record_plain_bytes() + RECORD_BYTES) % segment_bytes, 0);
            assert!(wire.record_plain_bytes() <= RECORD_PLAIN_BYTES_MAX);
            assert!(wire.record_plain_bytes() + segment_bytes > RECORD_PLAIN_BYTES_MAX);
        }
    }

    /// Head, body and records, as they are sent, take the segments that are left for them.
    #[test]
    fn a_body_fills_the_segments_that_are_left_for_it() {
        for (kind, wire, segments) in [
            (KINDS[0], Wire::of_mtu(1500, false), 37),
            (KINDS[0], Wire::of_mtu(1476, true), 35),
            (KINDS[1], Wire::of_mtu(1476, false), 36),
            (KINDS[1], Wire::of_mtu(1500, true), 34),
        ] {
            let plain = wire.body_bytes(&kind) + 250;
            let records = plain.div_ceil(wire.record_plain_bytes().into());
            let bytes = if wire.tls { plain + records * 22 } else { plain };
            assert_eq!(bytes.div_ceil(wire.segment_bytes.into()), segments, "{kind:?} {wire:?}");
        }
    }

    #[test]
    fn what_takes_fewer_packets_than_a_handshake_has_a_body_of_a_byte() {
        assert_eq!(Wire::of_mtu(1476, true).body_bytes(&download("a", 5, 1.0)), 1);
        assert_eq!(Wire::of_mtu(1476, false).body_bytes(&download("a", 5, 1.0)), 2 * 1424 - 400);
    }
}
