//! Traffic over an emulated path.
//!
//! ```text
//!   client              middle             server
//!    eth0 --- lan [ emulator ] wan --------- eth0
//!   10.0.0.1                              10.0.0.2
//! ```
//!
//! Nobody speaks unasked, so the hosts' interfaces count the test's packets and no others.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use measure::lab::background::{Background, command};
use measure::lab::emulator::{self, Emulation, Impairment, Report};
use nix::sys::resource::{UsageWho, getrusage};

use crate::hosts::{BOUND, has};
use crate::lab::{CLIENT, Folder, Lab, Namespace, SERVER, cable, wait_for};

const NONE: Impairment =
    Impairment { delay: Duration::ZERO, jitter: Duration::ZERO, loss: 0.0, reorders: false };

struct Site {
    client: Namespace,
    middle: Namespace,
    server: Namespace,
    folder: Folder,
}

impl Site {
    fn new() -> Option<Site> {
        let lab = Lab::new()?;
        let site = Site {
            client: lab.namespace("client"),
            middle: lab.namespace("middle"),
            server: lab.namespace("server"),
            folder: Folder::new(),
        };
        let Site { client, middle, server, .. } = &site;
        for namespace in [client, middle, server] {
            for scope in ["all", "default"] {
                let setting = format!("net.ipv6.conf.{scope}.disable_ipv6=1");
                namespace.run(&["sysctl", "-q", "-w", &setting]);
            }
        }
        cable((client, "eth0"), (middle, "lan"));
        cable((middle, "wan"), (server, "eth0"));
        for (host, own, other, address) in
            [(client, CLIENT, server, SERVER), (server, SERVER, client, CLIENT)]
        {
            host.address("eth0", &format!("{own}/24"));
            let mac = other.mac("eth0");
            host.run(&["ip", "neighbour", "add", address, "lladdr", &mac, "dev", "eth0"]);
        }
        Some(site)
    }

    /// Emulates a path with the same impairment of both directions while `work` goes on. Before it ends, both hosts
    /// have received all that was sent.
    fn emulate(&self, impairment: Impairment, frames_max: usize, work: impl FnOnce()) -> Report {
        let emulation = Emulation {
            interfaces: ["lan".into(), "wan".into()],
            impairments: [impairment; 2],
            frames_max,
            seed: 5,
        };
        let stop = AtomicBool::new(false);
        let (say, ready) = mpsc::channel();
        std::thread::scope(|scope| {
            let (stop, emulation) = (&stop, &emulation);
            let emulating = scope.spawn(move || {
                self.middle.enter(|| {
                    let report = emulator::run(emulation, stop, || say.send(()).expect("we wait"));
                    let cpu = getrusage(UsageWho::RUSAGE_THREAD).expect("it is this thread's");
                    eprintln!("emulator: {} user, {} system", cpu.user_time(), cpu.system_time());
                    report.unwrap_or_else(|error| panic!("{error}"))
                })
            });
            ready.recv_timeout(BOUND).expect("it listens");
            let stopping = Stop(stop);
            work();
            drop(stopping);
            emulating.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Of both hosts: packets sent, packets received.
    fn counts(&self) -> [[u64; 2]; 2] {
        [&self.client, &self.server].map(|host| {
            ["tx", "rx"].map(|which| {
                let file = format!("/sys/class/net/eth0/statistics/{which}_packets");
                host.run(&["cat", &file]).trim().parse().expect("a number")
            })
        })
    }

    /// Asks so often, a millisecond apart; round trips in milliseconds.
    fn ping(&self, count: u32, options: &[&str]) -> Vec<f64> {
        let count = count.to_string();
        let ping = ["ping", "-n", "-c", &count, "-i", "0.001", "-W", "1", SERVER];
        let output = self.client.try_run(&[&ping[..], options].concat());
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        let times = output.lines().filter_map(|line| line.split_once("time=")?.1.split_once(" ms"));
        times.map(|(time, _)| time.parse().expect("a number")).collect()
    }
}

/// Stops also when the work panics, for the emulator is waited for.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_round_trip_is_shorter_than_both_delays() {
    let Some(site) = Site::new() else { return };
    let impairment = Impairment { delay: Duration::from_millis(5), ..NONE };
    let mut times = Vec::new();
    let report = site.emulate(impairment, 1000, || times = site.ping(1000, &[]));

    assert_eq!(times.len(), 1000);
    times.sort_by(f64::total_cmp);
    eprintln!(
        "round trips {} to {}, p50 {}, p99 {} ms",
        times[0], times[999], times[500], times[990]
    );
    assert!(times[0] >= 10.0, "{} ms", times[0]);
    for direction in &report {
        eprintln!("{direction:?}");
        assert_eq!((direction.account.received, direction.account.sent), (1000, 1000));
    }
}

#[test]
fn what_is_lost_is_lost_on_purpose_and_accounted_for_exactly() {
    let Some(site) = Site::new() else { return };
    let impairment = Impairment {
        delay: Duration::from_millis(3),
        jitter: Duration::from_millis(2),
        loss: 0.1,
        reorders: true,
    };
    let mut answers = 0;
    let report = site.emulate(impairment, 1000, || answers = site.ping(2000, &[]).len() as u64);

    let [[client_sent, client_received], [server_sent, server_received]] = site.counts();
    let [forth, back] = report.map(|direction| {
        assert_eq!((direction.missed, direction.oversize), (0, 0));
        direction.account
    });
    assert_eq!((forth.received, forth.sent), (client_sent, server_received));
    assert_eq!((back.received, back.sent), (server_sent, client_received));
    assert_eq!((client_sent, client_received), (2000, answers));
    for account in [forth, back] {
        assert_eq!(account.received, account.sent + account.lost);
        // Five standard deviations of a binomial count.
        let expected = account.received as f64 * 0.1;
        let deviation = (account.lost as f64 - expected) / (expected * 0.9).sqrt();
        assert!(deviation.abs() < 5.0, "{account:?}");
    }
}

/// As much as a path of 100 Mbit/s has room for, both ways, through a queue of 100 ms.
#[test]
fn a_full_path_of_100_mbit_per_s_loses_nothing() {
    if !has("mgen") {
        return;
    }
    let Some(site) = Site::new() else { return };
    let impairment = Impairment { delay: Duration::from_millis(20), ..NONE };
    let load = Background { rate_mbit_per_s: 100, percent: 100, duration: Duration::from_secs(3) };
    let report = site.emulate(impairment, 10_000, || {
        let ends = [(&site.client, SERVER), (&site.server, CLIENT)].map(|(host, peer)| {
            let script = load.script(peer.parse().expect("it is an address"));
            let file = site.folder.file(&format!("to-{peer}.mgn"));
            fs::write(&file, script.expect("there is a load")).expect("the folder is there");
            let command = command(&file);
            host.spawn(&command.iter().map(String::as_str).collect::<Vec<_>>())
        });
        let mut before = site.counts();
        wait_for("all to be sent", BOUND, || {
            std::thread::sleep(Duration::from_millis(250));
            let now = site.counts();
            std::mem::replace(&mut before, now) == now && now[0][0] > 0
        });
        drop(ends);
    });

    let [[client_sent, client_received], [server_sent, server_received]] = site.counts();
    eprintln!("{report:#?}");
    for (direction, sent, received) in
        [(&report[0], client_sent, server_received), (&report[1], server_sent, client_received)]
    {
        assert!(direction.account.sent > 20_000);
        let account = direction.account;
        assert_eq!((account.received, account.sent), (sent, received));
        assert_eq!((sent, direction.missed), (received, 0));
    }
}

#[test]
fn a_queue_that_is_full_drops_and_counts() {
    let Some(site) = Site::new() else { return };
    let impairment = Impairment { delay: Duration::from_secs(60), ..NONE };
    let report = site.emulate(impairment, 10, || {
        assert_eq!(site.ping(100, &[]).len(), 0);
    });
    let account = report[0].account;
    assert!(account.balances());
    assert_eq!((account.received, account.held, account.full), (100, 10, 90));
}

#[test]
fn frames_that_no_wire_carries_are_counted_and_not_taken() {
    let Some(site) = Site::new() else { return };
    for (namespace, interface) in [
        (&site.client, "eth0"),
        (&site.middle, "lan"),
        (&site.middle, "wan"),
        (&site.server, "eth0"),
    ] {
        namespace.run(&["ip", "link", "set", "dev", interface, "mtu", "9000"]);
    }
    let report = site.emulate(NONE, 10, || {
        assert_eq!(site.ping(5, &["-s", "4000"]).len(), 0);
        assert_eq!(site.ping(5, &["-s", "1472"]).len(), 5);
    });
    assert_eq!((report[0].oversize, report[0].account.received), (5, 5));
}

#[test]
fn an_interface_that_is_down_refuses_frames_and_takes_them_again_later() {
    let Some(site) = Site::new() else { return };
    let report = site.emulate(NONE, 10, || {
        site.middle.run(&["ip", "link", "set", "dev", "wan", "down"]);
        assert_eq!(site.ping(5, &[]).len(), 0);
        site.middle.run(&["ip", "link", "set", "dev", "wan", "up"]);
        assert_eq!(site.ping(5, &[]).len(), 5);
    });
    let account = report[0].account;
    assert_eq!((account.received, account.sent, account.refused), (10, 5, 5));
}

#[test]
fn an_emulation_that_cannot_be_says_why() {
    let stop = AtomicBool::new(true);
    let mut emulation = Emulation {
        interfaces: ["lane0".into(), "lane1".into()],
        impairments: [NONE; 2],
        frames_max: 1,
        seed: 0,
    };
    let error = |emulation: &Emulation| {
        emulator::run(emulation, &stop, || ()).expect_err("it cannot be").to_string()
    };
    assert!(error(&emulation).starts_with("interface lane0: "));
    emulation.impairments[1].loss = 1.5;
    assert_eq!(error(&emulation), "a loss of 1.5 is no share; it must be 0 to 1");
}
