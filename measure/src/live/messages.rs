//! What the reader of a live run's figures must know.

use super::{LiveTap, Outcome, Reason};
use crate::results::Message;
use crate::source::Tap;
use crate::source::xdp::XdpNotes;

/// All that a live run gives reason to say.
pub fn about(outcome: &Outcome) -> Vec<Message> {
    let mut messages = Vec::new();
    for tap in Tap::BOTH {
        about_tap(tap, &outcome.taps[tap.index()], &mut messages);
        about_stamps(tap, outcome, &mut messages);
    }
    let [ingress, egress] = &outcome.taps;
    if let (Some(one), Some(other)) = (ingress.clock, egress.clock)
        && one != other
    {
        messages.push(Message::new(
            "two_clocks",
            format!(
                "the taps are stamped by two clocks, /dev/ptp{one} and /dev/ptp{other}: delays are right only if \
                 these are synchronised (phc2sys), or to within --offset"
            ),
        ));
    }
    if ingress.interface == egress.interface {
        messages.push(Message::new(
            "same_interface",
            format!(
                "{} was given for both taps: all it can show is what the program does with equal packets",
                ingress.interface
            ),
        ));
    }
    if outcome.ended == Reason::Signal {
        messages.push(Message::new("interrupted", "the run was ended by a signal".into()));
    }
    messages
}

fn about_tap(tap: Tap, live: &LiveTap, messages: &mut Vec<Message>) {
    let (name, interface) = (tap.name(), &live.interface);
    let mut say = |kind: &str, text: String| messages.push(Message::new(kind, text));
    if let Some(reason) = &live.gone {
        say(
            "tap_gone",
            format!(
                "tap {name}, {interface}, ended the run: {reason}; the results are of the time before"
            ),
        );
    }
    if live.downs > 0 {
        say(
            "interface_down",
            format!(
                "{interface} of tap {name} was down {} times; it saw nothing meanwhile",
                live.downs
            ),
        );
    }
    if live.dropped > 0 {
        let remedy = match live.xdp {
            None => "a larger --ring-mib, or a smaller --snap",
            Some(_) => "or a larger --ring-mib",
        };
        say(
            "capture_drops",
            format!(
                "the kernel dropped {} of {} packets of tap {name}, because its ring was full {} times: they look \
                 like packets lost; give the readers cores of their own (--cores), {remedy}",
                live.dropped, live.kernel_frames, live.ring_full,
            ),
        );
    }
    if live.takes_tags_off {
        say(
            "tags_taken_off",
            format!(
                "{interface} takes VLAN tags off and cannot be told otherwise: where its driver does not hand them \
                 over, the bytes of tagged packets are 4 too few, or 8"
            ),
        );
    }
    if live.dropped_by_interface.is_some_and(|dropped| dropped > 0) {
        say(
            "interface_drops",
            format!(
                "{interface} of tap {name} dropped {} packets before anybody saw them; see ethtool -S {interface}",
                live.dropped_by_interface.unwrap_or(0),
            ),
        );
    }
    if live.oversize > 0 || !live.merging.is_empty() {
        say(
            "packets_merged",
            format!(
                "{} frames of tap {name} are longer than {interface} allows: packets were merged, or never \
                 segmented, and cannot be recognised as what they were on the wire; on {interface} use ethtool -K \
                 {interface} gro off lro off{}, on a veth's hosts ethtool -K DEV tso off gso off",
                live.oversize,
                match live.merging.is_empty() {
                    true => String::new(),
                    false => format!(" ({} could not be switched off)", live.merging.join(", ")),
                },
            ),
        );
    }
    if !live.pinned && live.gone.is_none() {
        say(
            "not_pinned",
            format!("the reader of tap {name} could not be pinned to its core; see --cores"),
        );
    }
    if live.promises_broken > 0 {
        say(
            "packets_late",
            format!(
                "{} packets of tap {name} came later than the tap had promised; their stamps were used as they are, \
                 and a few may have missed their window: the machine is too busy",
                live.promises_broken,
            ),
        );
    }
}

fn about_stamps(tap: Tap, outcome: &Outcome, messages: &mut Vec<Message>) {
    let live = &outcome.taps[tap.index()];
    let counts = &outcome.found.taps[tap.index()];
    let name = tap.name();
    let mut say = |kind: &str, text: String| messages.push(Message::new(kind, text));
    let [_, software, driver, hardware] = counts.stamps;
    let stamper = match live.xdp {
        None => "The kernel",
        Some(_) => "The XDP program in the driver",
    };
    if let Some(reason) = &live.no_hardware_stamps {
        say(
            "software_stamps",
            format!(
                "SOFTWARE STAMPS at tap {name}: {reason}. {stamper} stamps packets when it gets to them, which is \
                 microseconds after they came, and more when the machine is busy; see calibrate for how much{}",
                live.xdp.map_or(String::new(), |xdp| answers(&xdp)),
            ),
        );
    } else if software + driver > 0 {
        say(
            "hardware_stamps_missing",
            format!(
                "{} of {} frames of tap {name} have no stamp of the NIC although it was told to stamp: they have a \
                 software stamp, which is not compared with the NIC's{}",
                software + driver,
                software + driver + hardware,
                live.xdp
                    .map_or(String::new(), |xdp| answers(&xdp) + "; --source packet may get them"),
            ),
        );
    }
    if live.without_stamp > 0 {
        say(
            "no_stamps",
            format!(
                "{} frames of tap {name} had no stamp, or one of zero; they got the time at which they were read",
                live.without_stamp,
            ),
        );
    }
    if live.stamped_late > 0 {
        say(
            "stamped_late",
            format!(
                "{} frames of tap {name} were stamped only when the kernel copied them, later than it could have",
                live.stamped_late,
            ),
        );
    }
}

/// What the driver answered, asked for the NIC's stamps.
fn answers(xdp: &XdpNotes) -> String {
    let error = xdp.nic_error.map_or("", |error| nix::errno::Errno::from_raw(error).desc());
    let answers: Vec<String> = [
        (xdp.nic_zero, "zero".to_owned()),
        (xdp.nic_refused, format!("an error ({error})")),
        (xdp.nic_unknown, "a stamp of nobody knows whose clock, which was not used".to_owned()),
    ]
    .into_iter()
    .filter(|(frames, _)| *frames > 0)
    .map(|(frames, answer)| format!("for {frames} frames with {answer}"))
    .collect();
    match answers.is_empty() {
        true => String::new(),
        false => format!(
            ". Asked for the NIC's stamp (bpf_xdp_metadata_rx_timestamp), its driver answered {}",
            answers.join(", ")
        ),
    }
}
