//! Background traffic: mgen's messages of 1472 bytes, a Poisson process, from router to router.
//!
//! The load is in per cent of the path's rate as its queue counts it: whole Ethernet frames, of which a full one is 1514
//! bytes. Each end of a path runs one mgen, which sends to the other and takes what the other sends. It keeps no log;
//! what was sent is what the routers' interfaces counted.
//!
//! mgen catches up on what it could not send in time, so that the rate is kept on a busy machine, in small bursts.
//!
//! Invariant: no script sends for longer, nor more, than it says, whoever forgets to end it.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// Bytes of a message.
pub const MESSAGE_BYTES: u32 = 1472;
/// UDP, IPv4 and Ethernet headers.
const HEADER_BYTES: u32 = 8 + 20 + 14;
/// Where messages go.
const PORT: u16 = 5000;

/// The background of one direction of a path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Background {
    /// Rate of the path.
    pub rate_mbit_per_s: u32,
    /// Of that rate, with headers.
    pub percent: u32,
    /// For how long: the time until everything else runs, the run, and until the last request has ended.
    pub duration: Duration,
}

impl Background {
    /// Messages a second, on average.
    pub fn packets_per_s(&self) -> f64 {
        let bits_per_s = f64::from(self.rate_mbit_per_s) * 1e6 * f64::from(self.percent) / 100.0;
        bits_per_s / f64::from((MESSAGE_BYTES + HEADER_BYTES) * 8)
    }

    /// Messages in all, at most: six standard deviations more than expected. mgen may send a few more, when it
    /// reaches that number while it catches up.
    pub fn packets_max(&self) -> u64 {
        let mean = self.packets_per_s() * self.duration.as_secs_f64();
        (mean + 6.0 * mean.sqrt()).ceil() as u64
    }

    /// What the mgen of one end is to do; none when there is no load.
    pub fn script(&self, peer: IpAddr) -> Option<String> {
        (self.percent > 0).then(|| format!("0.0 LISTEN UDP {PORT}\n{}", self.flow(1, peer)))
    }

    /// One flow of a script, with a number of its own in it.
    pub fn flow(&self, number: u32, peer: IpAddr) -> String {
        let (packets_per_s, packets_max) = (self.packets_per_s(), self.packets_max());
        let end_s = self.duration.as_secs_f64();
        format!(
            "0.0 ON {number} UDP DST {peer}/{PORT} POISSON [{packets_per_s:.3} {MESSAGE_BYTES}] COUNT {packets_max}\n\
             {end_s:.3} OFF {number}\n"
        )
    }
}

/// What starts mgen with a script. It sends at once, and listens until SIGTERM.
pub fn command(script: &Path) -> Vec<String> {
    ["mgen", "input", &script.display().to_string(), "nolog"].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORTY: Background =
        Background { rate_mbit_per_s: 100, percent: 40, duration: Duration::from_secs(10) };

    #[test]
    fn a_load_is_of_whole_frames() {
        assert_eq!((FORTY.packets_per_s() * 1514.0 * 8.0).round(), 40e6);
    }

    #[test]
    fn a_script_is_bounded_in_time_and_in_number() {
        let peer = "10.0.0.2".parse().expect("it is an address");
        let script = FORTY.script(peer).expect("there is a load");
        assert_eq!(
            script,
            "0.0 LISTEN UDP 5000\n\
             0.0 ON 1 UDP DST 10.0.0.2/5000 POISSON [3302.510 1472] COUNT 34116\n\
             10.000 OFF 1\n"
        );
        assert_eq!(Background { percent: 0, ..FORTY }.script(peer), None);
    }
}
