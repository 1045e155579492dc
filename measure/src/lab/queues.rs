//! The queues of the routers: their rate, what they hold, and what they counted.

use serde::Deserialize;

use super::error::LabError;
use super::namespace::Namespace;
use super::records::{QueueRecord, Settings, Way};
use super::testbed::{PATHS, Testbed};

/// The device of a router that is slow.
const DEVICE: &str = "mid";

/// What may go at once after a pause: six full packets, 0.7 ms at 100 Mbit/s. Less, and timers that come late
/// would cost rate.
const BURST_BYTES: u32 = 9084;

/// AF21, the mark of the short lane, in the place of the DSCP.
const SHORT_MARK: &str = "0x48 0xfc";

/// Gives a router the queue towards the other one that a run wants, whatever it has so far. Its counters begin at zero.
///
/// # Errors
///
/// When the kernel refuses; the router may then have no queue of its own, which the next attempt does not mind.
pub fn set(router: &Namespace, settings: &Settings) -> Result<(), LabError> {
    // There is none at first, or after an attempt that failed. What could not be taken away lets nothing be added.
    let _ = router.tc(&format!("qdisc del dev {DEVICE} root"));
    router.tc(&commands(settings))
}

/// What tells `tc` of a router how to queue towards the other one.
///
/// For [`Way::Priority`] the one path has the rate of both. Short packets are served while there are any, then all
/// others, background among them, which nobody marked.
fn commands(settings: &Settings) -> String {
    let rate = settings.rate_mbit_per_s;
    let limit_bytes = u64::from(rate) * 1000 / 8 * u64::from(settings.buffer_ms);
    // Less than a burst, and a full packet might never get through.
    let limit_bytes = limit_bytes.max(BURST_BYTES.into());
    match settings.way {
        Way::Priority => {
            let (rate, limit_bytes) = (2 * rate, 2 * limit_bytes);
            let burst = format!("burst {BURST_BYTES} cburst {BURST_BYTES}");
            format!(
                "qdisc add dev {DEVICE} root handle 1: htb default 20\n\
                 class add dev {DEVICE} parent 1: classid 1:1 htb rate {rate}mbit {burst}\n\
                 class add dev {DEVICE} parent 1:1 classid 1:10 htb rate {rate}mbit {burst} prio 0 quantum 1514\n\
                 class add dev {DEVICE} parent 1:1 classid 1:20 htb rate 8kbit ceil {rate}mbit {burst} prio 1 \
                 quantum 1514\n\
                 qdisc add dev {DEVICE} parent 1:10 handle 10: bfifo limit {limit_bytes}\n\
                 qdisc add dev {DEVICE} parent 1:20 handle 20: bfifo limit {limit_bytes}\n\
                 filter add dev {DEVICE} parent 1: protocol ip u32 match ip dsfield {SHORT_MARK} flowid 1:10\n"
            )
        }
        _ => format!(
            "qdisc add dev {DEVICE} root handle 1: tbf rate {rate}mbit burst {BURST_BYTES} limit {limit_bytes}\n"
        ),
    }
}

/// A queue, as `tc` tells.
#[derive(Deserialize)]
struct Queue {
    #[serde(default)]
    root: bool,
    packets: u64,
    bytes: u64,
    drops: u64,
}

/// What all queues have counted.
///
/// # Errors
///
/// When `tc` does not say.
pub fn count(testbed: &Testbed) -> Result<Vec<QueueRecord>, LabError> {
    let mut records = Vec::new();
    for (path, routers) in PATHS.iter().zip(&testbed.routers) {
        for (direction, router) in ["a-to-b", "b-to-a"].iter().zip(routers) {
            let Queue { packets, bytes, drops, .. } = root(router)?;
            records.push(QueueRecord {
                path: (*path).into(),
                direction: (*direction).into(),
                sent: packets,
                sent_bytes: bytes,
                dropped: drops,
            });
        }
    }
    Ok(records)
}

fn root(router: &Namespace) -> Result<Queue, LabError> {
    let said = router.run(&["tc", "-s", "-j", "qdisc", "show", "dev", DEVICE])?;
    let what = || format!("what tc says of {DEVICE} in {}", router.name());
    let queues: Vec<Queue> = serde_json::from_str(&said).map_err(LabError::content(what()))?;
    let root = queues.into_iter().find(|queue| queue.root);
    root.ok_or_else(|| LabError::content(what())("no root queue"))
}
