//! How fast it is: two captures of made-up traffic, measured, beside tshark's extraction of the same fields.
//!
//! The captures are as a rig for small packets would take them: 64 bytes kept of each frame, TCP with time
//! stamps, ten thousand flows, a million packets a second. At egress the packets are marked, one in a thousand is
//! missing, and each comes 10 ms after it was sent, give or take a microsecond.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::Serialize;

use crate::offline::{self, OpenError, Place};
use crate::session::Settings;

const SNAP_BYTES: usize = 64;
const FLOWS: u64 = 10_000;
const GAP_NS: u64 = 1_000;
const DELAY_NS: u64 = 10_000_000;
const START_NS: u64 = 1_700_000_000_000_000_000;

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Bench {
    /// Packets of both captures.
    pub packets: u64,
    /// Bytes of both captures.
    pub bytes: u64,
    /// Packets that were matched.
    pub matched: u64,
    /// The fastest of the rounds.
    pub seconds: f64,
    /// Packets of both captures a second.
    pub packets_per_second: f64,
    /// Time that the processor spent on the round that needed least, in user mode and in the kernel: on a machine
    /// that does other things as well, this says more.
    pub processor_seconds: f64,
    /// Packets of both captures by that time.
    pub packets_per_processor_second: f64,
    /// Time of all rounds.
    pub rounds_seconds: Vec<f64>,
    /// Most packets in memory at one time.
    pub packets_in_memory: u64,
    /// Most resident memory of the process so far, in bytes.
    pub resident_bytes: Option<u64>,
    /// tshark's time for the fields of the same files.
    pub tshark_seconds: Option<f64>,
    /// tshark's time by ours.
    pub times_tshark: Option<f64>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The captures cannot be written.
    #[error("cannot write the captures to {}: {cause}; choose another --folder", folder.display())]
    Write {
        /// Where.
        folder: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The captures cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// tshark cannot be run.
    #[error("tshark: {0}; install it, or leave out --tshark")]
    Tshark(io::Error),
}

/// Writes the captures to `folder` (and removes them again), measures them `rounds` times and has tshark read
/// them once.
///
/// # Errors
///
/// See [`BenchError`].
pub fn run(folder: &Path, packets: u64, rounds: usize, tshark: bool) -> Result<Bench, BenchError> {
    let paths = ["ingress", "egress"].map(|tap| folder.join(format!("lanesplit-bench-{tap}.pcap")));
    let result = measure(&paths, packets, rounds, tshark);
    for path in &paths {
        let _ = std::fs::remove_file(path);
    }
    result.map_err(|error| match error {
        BenchError::Write { cause, .. } => BenchError::Write { folder: folder.into(), cause },
        error => error,
    })
}

fn measure(
    paths: &[PathBuf; 2],
    packets: u64,
    rounds: usize,
    tshark: bool,
) -> Result<Bench, BenchError> {
    let [ingress, egress] = paths;
    let written = write_captures(ingress, egress, packets);
    let bytes = written.map_err(|cause| BenchError::Write { folder: PathBuf::new(), cause })?;
    let [ingress, egress] =
        [ingress, egress].map(|path| Place { path: path.clone(), interface: None });
    let mut bench = Bench {
        packets: 0,
        bytes,
        matched: 0,
        seconds: f64::MAX,
        packets_per_second: 0.0,
        processor_seconds: f64::MAX,
        packets_per_processor_second: 0.0,
        rounds_seconds: Vec::new(),
        packets_in_memory: 0,
        resident_bytes: None,
        tshark_seconds: None,
        times_tshark: None,
    };
    for _ in 0..rounds.max(1) {
        let (start, used) = (Instant::now(), processor_seconds());
        let places = [&ingress, &egress];
        let mut found = offline::run(places, Settings::default(), None, None)?.found;
        // As much as a run with results takes.
        for way in &mut found.measurement.ways {
            way.delay.summary();
            way.variation.summary();
        }
        let seconds = start.elapsed().as_secs_f64();
        bench.rounds_seconds.push(seconds);
        bench.processor_seconds = bench.processor_seconds.min(processor_seconds() - used);
        bench.seconds = bench.seconds.min(seconds);
        bench.packets = found.measurement.classes.iter().map(|classes| classes.total()).sum();
        bench.matched = found.measurement.classes[0].matched;
        bench.packets_in_memory = found.memory.packets_most;
    }
    bench.packets_per_second = bench.packets as f64 / bench.seconds;
    bench.packets_per_processor_second = bench.packets as f64 / bench.processor_seconds;
    bench.resident_bytes = resident_bytes();
    if tshark {
        let seconds = time_tshark(paths).map_err(BenchError::Tshark)?;
        bench.tshark_seconds = Some(seconds);
        bench.times_tshark = Some(seconds / bench.seconds);
    }
    Ok(bench)
}

/// The fields that somebody needs who matches packets with tshark, of both captures.
fn time_tshark(paths: &[PathBuf; 2]) -> io::Result<f64> {
    let start = Instant::now();
    for path in paths {
        let mut command = Command::new("tshark");
        command.arg("-r").arg(path).args(["-n", "-T", "fields", "-e", "frame.time_epoch"]);
        for field in ["ip.src", "ip.dst", "ip.id", "ip.len", "tcp.srcport", "tcp.dstport"] {
            command.args(["-e", field]);
        }
        for field in ["tcp.seq_raw", "tcp.ack_raw", "tcp.flags", "tcp.len"] {
            command.args(["-e", field]);
        }
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        if !status.success() {
            return Err(io::Error::other(format!("it ended with {status}")));
        }
    }
    Ok(start.elapsed().as_secs_f64())
}

fn write_captures(ingress: &Path, egress: &Path, packets: u64) -> io::Result<u64> {
    let mut files = [BufWriter::new(File::create(ingress)?), BufWriter::new(File::create(egress)?)];
    let mut bytes = 0;
    for file in &mut files {
        for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, SNAP_BYTES as u32, 1] {
            file.write_all(&word.to_le_bytes())?;
        }
        bytes += 24;
    }
    for number in 0..packets {
        let mut frame = frame(number);
        let time_ns = START_NS + number * GAP_NS;
        bytes += write_record(&mut files[0], time_ns, &frame)?;
        if number % 1000 != 999 {
            frame[15] = 18 << 2;
            frame[22] -= 1;
            // Less than a gap from one packet to the next, so the order stays.
            let delay_ns = DELAY_NS + number * 7919 % 100_000 / 101;
            bytes += write_record(&mut files[1], time_ns + delay_ns, &frame)?;
        }
    }
    files.iter_mut().try_for_each(|file| file.flush())?;
    Ok(bytes)
}

fn write_record(file: &mut impl Write, time_ns: u64, frame: &[u8]) -> io::Result<u64> {
    let [seconds, rest_ns] = [time_ns / 1_000_000_000, time_ns % 1_000_000_000];
    for word in [seconds, rest_ns, frame.len() as u64, 1514] {
        file.write_all(&(word as u32).to_le_bytes())?;
    }
    file.write_all(frame)?;
    Ok(16 + frame.len() as u64)
}

/// Ethernet, IPv4, TCP with a time stamp option, cut at the snap length.
fn frame(number: u64) -> [u8; SNAP_BYTES] {
    let flow = number % FLOWS;
    let of_flow = number / FLOWS;
    let mut frame = [0; SNAP_BYTES];
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14..18].copy_from_slice(&[0x45, 0, 0x05, 0xdc]);
    frame[18..20].copy_from_slice(&(of_flow as u16).to_be_bytes());
    frame[20..24].copy_from_slice(&[0x40, 0, 64, 6]);
    frame[26..30].copy_from_slice(&[10, 0, (flow >> 8) as u8, flow as u8]);
    frame[30..34].copy_from_slice(&[10, 1, 0, 1]);
    frame[34..36].copy_from_slice(&(20_000 + flow as u16).to_be_bytes());
    frame[36..38].copy_from_slice(&443_u16.to_be_bytes());
    let sequence = (of_flow * 1448) as u32;
    frame[38..42].copy_from_slice(&sequence.to_be_bytes());
    frame[42..46].copy_from_slice(&1_u32.to_be_bytes());
    frame[46..50].copy_from_slice(&[0x80, if of_flow == 0 { 0x02 } else { 0x10 }, 0x20, 0]);
    frame[54..58].copy_from_slice(&[1, 1, 8, 10]);
    frame[58..62].copy_from_slice(&(number as u32 / 1000).to_be_bytes());
    frame
}

/// Of this process, which has one thread.
fn processor_seconds() -> f64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return f64::NAN };
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

impl std::fmt::Display for Bench {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            out,
            "{} packets of two captures ({} MB) in {:.3} s: {:.2} million packets a second, {} matched",
            self.packets,
            self.bytes / 1_000_000,
            self.seconds,
            self.packets_per_second / 1e6,
            self.matched
        )?;
        writeln!(
            out,
            "processor time {:.3} s: {:.2} million packets a second of it",
            self.processor_seconds,
            self.packets_per_processor_second / 1e6
        )?;
        writeln!(
            out,
            "rounds: {:.3?} s; at most {} packets in memory, {} MB resident",
            self.rounds_seconds,
            self.packets_in_memory,
            self.resident_bytes.unwrap_or(0) / 1_000_000
        )?;
        match (self.tshark_seconds, self.times_tshark) {
            (Some(seconds), Some(times)) => {
                writeln!(
                    out,
                    "tshark took {seconds:.1} s for the fields of the same files: {times:.0} times as long"
                )
            }
            _ => Ok(()),
        }
    }
}
