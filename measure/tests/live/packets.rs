//! Per packet: what others say of the same packets.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use measure::flow::{Direction, Flows};
use measure::lane::Lanes;
use measure::live::{self, Event, LiveSettings, Watch};
use measure::matcher::{Class, Outcome};
use measure::measurement::Rows;
use measure::session::Settings;
use measure::source::listener::{TapSettings, Way};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::wait_for;
use crate::site::{BOUND, Site, has, quantile, text};

/// Stamps of both taps of one UDP flow's packets, in the order in which they were sent.
#[derive(Default)]
pub struct Stamps {
    port: u16,
    pub packets: Vec<[u64; 2]>,
    pub others: Vec<[Class; 2]>,
}

/// Keeps what the test looks at afterwards.
struct Keep(Arc<Mutex<Stamps>>);

impl Rows for Keep {
    fn row(&mut self, outcome: &Outcome, _: Option<Direction>, flows: &Flows, _: &Lanes) {
        let stamps = &mut *self.0.lock().expect("nobody panics with it");
        let Some(flow) = flows.iter().nth(outcome.flow.0 as usize) else { return };
        if flows.key(flow).destination_port() != stamps.port {
            return;
        }
        match outcome.class[0] {
            Class::Matched => stamps.packets.push(outcome.time_ns),
            _ => stamps.others.push(outcome.class),
        }
    }

    fn finish(self: Box<Self>, _: &Lanes) -> io::Result<()> {
        Ok(())
    }
}

/// Measures in this process, so that every packet can be had, while `work` goes on.
fn measure_while(site: &Site, port: u16, frames: u64, work: impl FnOnce() + Send) -> Stamps {
    measure_by(Way::Packet, site, port, frames, work)
}

/// The same whichever way the packets come.
pub fn measure_by(
    way: Way,
    site: &Site,
    port: u16,
    frames: u64,
    work: impl FnOnce() + Send,
) -> Stamps {
    let settings = LiveSettings {
        interfaces: ["tap0".into(), "tap1".into()],
        tap: TapSettings {
            way,
            stamps: Default::default(),
            snap_bytes: 192,
            ring_bytes: 16 << 20,
            keep_offloads: false,
        },
        cores: None,
        duration: Some(BOUND),
        packets: Some(frames),
        linger: Duration::from_secs(1),
        session: Settings::default(),
    };
    let stamps = Arc::new(Mutex::new(Stamps { port, ..Stamps::default() }));
    let (say, listening) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let watch = Watch::new(Some(Box::new(Keep(stamps.clone()))));
        let measuring = scope.spawn(move || {
            site.measuring.enter(|| {
                let outcome = live::run(&settings, watch, |event| {
                    if matches!(event, Event::Listening(_)) {
                        say.send(()).expect("the test waits");
                    }
                });
                let outcome = outcome.expect("the taps can be opened");
                assert_eq!(outcome.taps.map(|tap| tap.dropped), [0, 0]);
            });
        });
        listening.recv_timeout(BOUND).expect("it listens");
        work();
        measuring.join().expect("it ends");
    });
    std::mem::take(&mut stamps.lock().expect("it has ended"))
}

/// A line of mgen's log.
fn field<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('>'))
}

/// A time of day in microseconds; mgen says no date.
fn time_of_day_us(text: &str) -> u64 {
    let numbers: Vec<f64> = text.split(':').map(|part| part.parse().expect("a number")).collect();
    ((numbers[0] * 3600.0 + numbers[1] * 60.0 + numbers[2]) * 1e6).round() as u64
}

#[test]
fn one_way_delays_lie_within_those_of_mgen_for_every_sequence_number() {
    const PACKETS: usize = 2000;
    const DAY_US: u64 = 86_400_000_000;
    let Some(site) = Site::new() else { return };
    if !has("mgen") {
        return;
    }
    // 1000 packets a second of 242 bytes on the wire take all of it, so that they queue now and then.
    site.slow("2mbit");
    let log = site.file("received.log");
    let mut receiver =
        site.server.spawn(&["mgen", "flush", "event", "listen udp 5000", "output", text(&log)]);
    wait_for("mgen to listen", BOUND, || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("LISTEN"))
    });
    let stamps = measure_while(&site, 5000, PACKETS as u64, || {
        let on = format!("ON 1 UDP DST 10.0.0.2/5000 POISSON [1000 200] COUNT {PACKETS}");
        let mut sender = site.client.spawn(&["mgen", "event", &on]);
        let received = || {
            let log = fs::read_to_string(&log).unwrap_or_default();
            log.lines().filter(|line| line.contains(" RECV ") && line.ends_with(' ')).count()
        };
        wait_for("all packets to arrive", BOUND, || received() >= PACKETS);
        sender.kill();
    });
    receiver.terminate(BOUND);
    let log = fs::read_to_string(&log).expect("mgen wrote it");
    let rows: Vec<&str> = log.lines().filter(|line| line.contains(" RECV ")).collect();
    assert_eq!((rows.len(), stamps.packets.len()), (PACKETS, PACKETS), "{:?}", stamps.others);
    let midnight_us = |ns: u64| ns / 1000 % DAY_US;
    let (mut ours, mut rest) = (Vec::new(), Vec::new());
    for row in rows {
        let sequence: usize = field(row, "seq").expect("a number").parse().expect("a number");
        let sent_us = time_of_day_us(field(row, "sent").expect("a time"));
        let received_us = time_of_day_us(row.split_whitespace().next().expect("a time"));
        let [ingress_ns, egress_ns] = stamps.packets[sequence];
        // Past midnight everything is about the day before.
        let since_us = |us: u64| (us + DAY_US - sent_us) % DAY_US;
        let [ingress_us, egress_us] = [ingress_ns, egress_ns].map(|ns| since_us(midnight_us(ns)));
        let mgen_us = since_us(received_us);
        // mgen sends, the tap before the WAN sees it, the tap behind sees it, mgen receives.
        assert!(ingress_us <= egress_us && egress_us <= mgen_us, "packet {sequence}: {row}");
        ours.push((egress_ns - ingress_ns) as f64 / 1000.0);
        rest.push(mgen_us as f64 - (egress_ns - ingress_ns) as f64 / 1000.0);
    }
    let [own50, own99] = [0.5, 0.99].map(|share| quantile(&mut ours, share));
    let [rest50, rest99] = [0.5, 0.99].map(|share| quantile(&mut rest, share));
    eprintln!(
        "mgen: {PACKETS} packets; between the taps p50 {own50:.1} us, p99 {own99:.1} us; mgen says more by p50 \
         {rest50:.1} us, p99 {rest99:.1} us, which is the way from program to tap and from tap to program"
    );
}

/// tcpdump on a tap.
struct Tcpdump {
    child: Child,
    log: std::path::PathBuf,
}

impl Tcpdump {
    fn start(site: &Site, tap: &str) -> Tcpdump {
        let (file, log) = (site.file(&format!("{tap}.pcap")), site.file(&format!("{tap}.log")));
        let child = Command::new("ip")
            .args([
                "netns",
                "exec",
                site.measuring.name(),
                "tcpdump",
                "-n",
                "-i",
                tap,
                "-Z",
                "root",
            ])
            .args(["--time-stamp-precision=nano", "-j", "host", "--immediate-mode", "-U"])
            .args(["-B", "16384", "-w", text(&file), "udp"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("the folder can be written to"))
            .spawn()
            .expect("tcpdump is installed");
        let tcpdump = Tcpdump { child, log };
        wait_for("tcpdump to listen", BOUND, || tcpdump.words().contains("listening on"));
        tcpdump
    }

    fn words(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn end(mut self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).expect("our child");
        wait_for("tcpdump to end", BOUND, || !matches!(self.child.try_wait(), Ok(None)));
        assert!(self.words().contains("\n0 packets dropped by kernel"), "{}", self.words());
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Payload and time of every packet, as tshark reads them.
fn times_by_payload(site: &Site, tap: &str) -> HashMap<String, u64> {
    let output = Command::new("tshark")
        .args(["-n", "-r", text(&site.file(&format!("{tap}.pcap"))), "-Y", "udp.dstport==6000"])
        .args(["-T", "fields", "-e", "frame.time_epoch", "-e", "udp.payload"])
        .output()
        .expect("tshark is installed");
    let text = String::from_utf8(output.stdout).expect("fields are text");
    let row = |line: &str| {
        let (time, payload) = line.split_once('\t').expect("two fields");
        let (seconds, fraction) = time.split_once('.').expect("a fraction");
        let number = |text: &str| text.parse::<u64>().expect("a number");
        (
            payload.to_owned(),
            number(seconds) * 1_000_000_000 + number(&format!("{fraction:0<9}")[..9]),
        )
    };
    text.lines().map(row).collect()
}

#[test]
fn every_udp_packet_has_the_stamps_that_tcpdump_and_tshark_give_it_to_the_nanosecond() {
    const PACKETS: usize = 3000;
    let Some(site) = Site::new() else { return };
    if !has("tcpdump") || !has("tshark") {
        return;
    }
    let dumps = ["tap0", "tap1"].map(|tap| Tcpdump::start(&site, tap));
    let start = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let stamps = measure_while(&site, 6000, PACKETS as u64, || {
        site.send(6000, PACKETS as u32);
    });
    dumps.into_iter().for_each(Tcpdump::end);
    let [before, behind] = ["tap0", "tap1"].map(|tap| times_by_payload(&site, tap));
    assert_eq!((before.len(), behind.len()), (PACKETS, PACKETS));
    assert_eq!(stamps.packets.len(), PACKETS, "{:?}", stamps.others);
    let mut theirs: Vec<[u64; 2]> =
        before.iter().map(|(payload, &ns)| [ns, behind[payload]]).collect();
    theirs.sort_unstable();
    let mut ours = stamps.packets.clone();
    ours.sort_unstable();
    assert!(ours[0][0] >= start);
    // The kernel stamps a packet once, when it arrives at the tap, and everybody who asked for stamps gets that.
    let different = ours.iter().zip(&theirs).filter(|(ours, theirs)| ours != theirs).count();
    let mut gaps: Vec<f64> = (ours.iter().zip(&theirs))
        .map(|(ours, theirs)| {
            (ours[1] - ours[0]) as f64 - theirs[1].wrapping_sub(theirs[0]).cast_signed() as f64
        })
        .collect();
    let [least, most] = [0.0, 1.0].map(|share| quantile(&mut gaps, share));
    eprintln!(
        "tcpdump: {PACKETS} packets, {different} with other stamps; delays differ by {least} to {most} ns"
    );
    assert_eq!(different, 0, "the first: {:?} and {:?}", ours[0], theirs[0]);
}

/// A figure of ITGDec's summary.
fn itg_figure(summary: &str, name: &str) -> Option<f64> {
    let line = summary.lines().find(|line| line.starts_with(name))?;
    line.split_once('=')?.1.split_whitespace().next()?.parse().ok()
}

#[test]
fn jitter_and_delay_of_a_flow_lie_beside_those_of_d_itg() {
    let Some(site) = Site::new() else { return };
    if !has("ITGSend") {
        return;
    }
    // About as much is sent as passes, in bursts, so the queue makes most of delay and jitter.
    site.slow("1mbit");
    let log = site.file("itg.log");
    let log = text(&log);
    let receiver = site.server.spawn(&["ITGRecv", "-l", log]);
    wait_for("ITGRecv to listen", BOUND, || site.server.run(&["ss", "-ltn"]).contains(":9000"));
    // Whoever waits for longer than the window has no delay here, and has one there.
    let patience = ["--window", "20s", "--linger", "100ms"];
    let taps = ["--ingress", "tap0", "--egress", "tap1"];
    let measuring = site.measure(&[&taps[..], &patience].concat());
    let flow =
        ["-a", "10.0.0.2", "-rp", "8999", "-T", "UDP", "-O", "1000", "-c", "172", "-z", "2000"];
    site.client.run(&[&["ITGSend"], &flow[..]].concat());
    let mut summary = String::new();
    wait_for("d-itg's log to be complete", BOUND, || {
        let decoded = site.server.try_run(&["ITGDec", log]);
        summary = String::from_utf8_lossy(&decoded.stdout).into_owned();
        itg_figure(&summary, "Total packets") == Some(2000.0)
    });
    drop(receiver);
    let ended = measuring.stop();
    let found = ended.flows.iter().find(|flow| flow["dst_port"] == 8999).expect("it was sent");
    assert_eq!((&found["packets_egress"], &found["lost"]), (&2000.into(), &0.into()), "{found:#}");
    assert_eq!(ended.packets("out_of_window"), 0);
    let theirs = |name: &str| itg_figure(&summary, name).expect("a figure") * 1e6;
    let ours = |name: &str| found[name].as_f64().expect("a figure") / 1e3;
    eprintln!(
        "d-itg: 2000 packets; mean delay between the taps {:.0} us, d-itg {:.0} us; mean jitter {:.0} us, d-itg {:.0} us",
        ours("delay_mean_ns"),
        theirs("Average delay"),
        ours("jitter_ns"),
        theirs("Average jitter"),
    );
    // Its way contains ours for every packet; it tells microseconds.
    assert!(theirs("Average delay") + 1.0 >= ours("delay_mean_ns"));
}
