//! A gateway that starts in the place of another goes on with its flows.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dataplane::status::Status;
use nix::sys::stat::Mode;

use crate::daemon::{Daemon, Files, Setting, run_to_end};
use crate::lab::{CLIENT, CLIENT_V6, wait_for};
use crate::site::{BOUND, Site, on_site, on_site_with_two_queues, text, words};
use crate::sniffer::Sniffer;
use crate::traffic::{Conversation, Transfer};

/// Runs a test with the settings that have flows saved, four times a second.
fn with_file(site: &Site, test: impl FnOnce(&Path, &[Setting<'_>])) {
    let path = site.folder.file("flows");
    let file = format!("{:?}", text(&path));
    test(&path, &[("state.file", &file), ("state.interval", "\"250ms\"")]);
}

/// Waits until everything that is known now has been saved.
fn wait_for_save(daemon: &Daemon<'_>) {
    // The walk under way may have begun before now; the one after it has not.
    let saves = |status: &Status| status.state.as_ref().expect("flows are saved").saves;
    let before = saves(&daemon.status());
    daemon.wait_for("two saves", |now| saves(now) >= before + 2);
}

fn taken_over(status: &Status) -> u64 {
    let state = status.state.as_ref().expect("flows are saved");
    state.restored.as_ref().unwrap_or_else(|| panic!("{state:?}")).flows
}

#[test]
fn a_flow_keeps_its_count_and_its_lane_through_restarts_and_a_kill() {
    on_site(|site| {
        with_file(site, |path, settings| {
            let daemon = Daemon::start(site, settings);
            let far = Sniffer::start(site, site.far_host(), "far");
            let mut long = Conversation::open(site);
            // With every acknowledgement apart, fewer packets than the threshold of 40.
            let mut short = Conversation::open(site);
            long.talk(50);
            short.talk(12);
            daemon.wait_for("a long flow", |now| now.total.flows.promoted == 1);
            let last = daemon.stop().state.expect("flows are saved");
            let save = last.last_save.expect("at least the one at the end");
            assert_eq!((save.flows, save.left_out, last.failures), (2, 0, 0));
            let metadata = fs::metadata(path).expect("it is there");
            assert_eq!(metadata.len(), save.bytes);
            assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);

            let daemon = Daemon::start(site, settings);
            let first = daemon.first_answer();
            assert_eq!((taken_over(&first), first.total.flows.restored), (2, 2));
            assert_eq!((first.total.flows.created, first.total.flows.promoted), (2, 0));
            long.talk(20);
            short.talk(6);
            wait_for_save(&daemon);
            daemon.kill();

            let daemon = Daemon::start(site, settings);
            assert_eq!(taken_over(&daemon.first_answer()), 2);
            long.talk(20);
            // Counted on through both: some of these are the first long ones.
            short.talk(40);
            let ports = [&long, &short].map(|one| one.port().to_string());
            drop((long, short));
            site.wait_for_silence();
            let [far] = Sniffer::end(site, [far]);
            let last = daemon.stop();
            assert_eq!((last.total.flows.restored, last.total.flows.promoted), (2, 1));
            assert!(last.total.flows.created == 2 && last.total.flows.table_full == 0);
            let packets = far.tcp_packets();
            for port in ports {
                let flow = packets.iter().filter(|one| one.is_outbound() && one.flow[3] == port);
                let marks: Vec<u8> = flow.map(|packet| packet.dscp).collect();
                assert!(marks.len() > 55);
                // Forty short ones, then long ones: as if there had been one gateway all the time.
                assert!(marks[..40].iter().all(|mark| *mark == 18), "{marks:?}");
                assert!(marks[40..].iter().all(|mark| *mark == 10), "{marks:?}");
            }
        });
    });
}

#[test]
fn a_transfer_at_full_speed_is_long_after_a_stop_and_after_a_kill() {
    on_site(|site| {
        site.bridge();
        with_file(site, |_, settings| {
            let mut daemon = Daemon::start(site, settings);
            let transfer = Transfer::start(site);
            transfer.wait_for_progress();
            for kills in [false, true, false, true] {
                daemon.wait_for("the transfer to be long", |now| now.total.long > 100);
                if kills {
                    wait_for_save(&daemon);
                    daemon.kill();
                } else {
                    daemon.stop();
                }
                transfer.wait_for_progress();
                daemon = Daemon::start(site, settings);
                transfer.wait_for_progress();
                let now = daemon.wait_for("its packets", |now| now.total.long > 100);
                assert_eq!((taken_over(&now), now.total.flows.created), (1, 1), "kill: {kills}");
                assert_eq!(now.total.short, 0, "kill: {kills}");
            }
            transfer.finish();
            daemon.stop();
        });
    });
}

#[test]
fn flows_of_iperf3_and_of_both_ip_versions_stay_long_on_their_workers() {
    on_site_with_two_queues(|site| {
        site.bridge();
        with_file(site, |_, settings| {
            let settings = [settings, &[("workers.cores", "[0, 1]")]].concat();
            let daemon = Daemon::start(site, &settings);
            let clients = [(CLIENT, "5201"), (CLIENT_V6, "5202")].map(|(address, port)| {
                let server = site.datacenter().spawn(&["iperf3", "--server", "-p", port]);
                wait_for("iperf3 to listen", BOUND, || {
                    let listening = format!("ss -Htln sport = {port}");
                    !site.datacenter().run(&words(&listening)).is_empty()
                });
                // The datacenter sends, on four connections, for longer than this test takes.
                let client = ["iperf3", "-c", address, "-p", port, "-R", "-P", "4", "-b", "20M"];
                let client = [&client[..], &["-t", "60"]].concat();
                (server, site.far_host().spawn(&client))
            });
            daemon.wait_for("eight long flows", |now| now.total.flows.promoted >= 8);
            let last = daemon.stop();
            let daemon = Daemon::start(site, &settings);
            let first = daemon.first_answer();
            // Those that were active, and of each worker its own: none is created, none becomes long again.
            for (before, after) in last.workers.iter().zip(&first.workers) {
                let (before, after) = (before.report.counters.flows, after.report.counters.flows);
                assert_eq!(after.restored, before.active);
            }
            let before = first.total.long;
            let now = daemon.wait_for("packets", |now| now.total.long > before + 1000);
            assert_eq!(now.total.flows.created, now.total.flows.restored, "{:?}", now.total);
            assert_eq!(now.total.flows.promoted, 0);
            drop(clients);
            daemon.stop();
        });
    });
}

#[test]
fn routed_mode_hands_its_flows_over_too() {
    on_site(|site| {
        let (near, gateway, far) = (site.datacenter(), site.gateway(), site.far_host());
        near.address("eth0", "10.1.0.1/24");
        gateway.address("lan", "10.1.0.9/24");
        gateway.address("wan", "10.2.0.9/24");
        far.address("eth0", "10.2.0.1/24");
        gateway.run(&words("sysctl -q -w net.ipv4.ip_forward=1"));
        near.run(&words("ip route add 10.2.0.0/24 via 10.1.0.9"));
        far.run(&words("ip route add 10.1.0.0/24 via 10.2.0.9"));
        with_file(site, |_, settings| {
            let routed = [
                ("mode", "\"routed\""),
                ("routed.local_prefixes", "[\"10.1.0.0/24\"]"),
                ("routed.remote_prefixes", "[\"10.2.0.0/24\"]"),
            ];
            let settings = [settings, &routed].concat();
            let daemon = Daemon::start(site, &settings);
            let mut talk = Conversation::open_at(site, "10.1.0.1");
            talk.talk(50);
            wait_for_save(&daemon);
            daemon.kill();
            let daemon = Daemon::start(site, &settings);
            assert_eq!(taken_over(&daemon.first_answer()), 1);
            talk.talk(10);
            let now = daemon.wait_for("its packets", |now| now.total.long >= 10);
            assert_eq!(now.total.short, 0);
            daemon.signal(nix::sys::signal::Signal::SIGTERM);
            wait_for("the end", BOUND, || !site.has_programs());
            drop(daemon);
            let daemon = Daemon::start(site, &settings);
            assert_eq!(taken_over(&daemon.first_answer()), 1);
            talk.talk(10);
            let now = daemon.wait_for("its packets", |now| now.total.long >= 10);
            assert_eq!(now.total.short, 0);
        });
    });
}

/// Writes the file of a gateway with two workers that saw a flow of each IP version, 40 and 30 packets.
const WRITER: &str = r#"
import ipaddress, struct, sys, time, zlib
path, near4, far4, near6, far6 = sys.argv[1], *map(int, sys.argv[2:])
address = lambda text: int(ipaddress.ip_address(text))
boot = int(open("/proc/sys/kernel/random/boot_id").read().strip().replace("-", ""), 16)
clocks = time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns(), 10**12
data = b"LSflows\n" + struct.pack("<II", 1, 2) + boot.to_bytes(16, "little")
data += struct.pack("<QQQ", *clocks) + struct.pack("<QQQQ", 0, 1, 1, 0)
s, d = address("fd00::1"), address("fd00::2")
data += s.to_bytes(16, "big")[7::-1] + s.to_bytes(16, "big")[:7:-1]
data += d.to_bytes(16, "big")[7::-1] + d.to_bytes(16, "big")[:7:-1]
data += struct.pack("<QQIB", near6 << 48 | far6 << 32, 10**12 - 10**9, 30, 0)
s, d = address("10.0.0.1"), address("10.0.0.2")
data += struct.pack("<QQQIB", s << 32 | d, near4 << 48 | far4 << 32, 10**12, 40, 0)
open(path, "wb").write(data + struct.pack("<I", zlib.crc32(data)))
"#;

#[test]
fn a_file_that_somebody_else_wrote_is_understood() {
    on_site(|site| {
        site.bridge();
        let mut talks = [CLIENT, CLIENT_V6].map(|address| Conversation::open_at(site, address));
        with_file(site, |path, settings| {
            let [v4, v6] = &talks;
            let ports = [v4.port(), v4.far_port(), v6.port(), v6.far_port()];
            let ports = ports.map(|port| port.to_string());
            let mut command = Command::new("python3");
            let wrote = command.args(["-c", WRITER, text(path)]).args(&ports).status();
            assert!(wrote.expect("python3 is installed").success());
            let daemon = Daemon::start(site, settings);
            assert_eq!(taken_over(&daemon.first_answer()), 2);
            for talk in &mut talks {
                talk.talk(20);
            }
            // Of the flow over IPv6 ten packets were missing to the threshold.
            let now = daemon.wait_for("its packets", |now| now.total.long >= 30);
            assert_eq!((now.total.short, now.total.flows.created), (10, 2), "{:?}", now.total);
            assert_eq!(now.total.flows.promoted, 2);
            daemon.stop();
        });
    });
}

#[test]
fn a_flow_that_was_silent_for_longer_than_the_idle_timeout_starts_anew() {
    on_site(|site| {
        with_file(site, |_, settings| {
            let settings = [settings, &[("classifier.idle_timeout", "\"800ms\"")]].concat();
            let daemon = Daemon::start(site, &settings);
            let mut talk = Conversation::open(site);
            talk.talk(50);
            let silent_since = Instant::now();
            let last = daemon.stop().state.expect("flows are saved");
            let saved = last.last_save.expect("the last").flows;
            wait_for("the flow to end by silence", BOUND, || {
                silent_since.elapsed() > Duration::from_millis(900)
            });
            let daemon = Daemon::start(site, &settings);
            let state = daemon.first_answer().state.expect("flows are saved");
            let report = state.restored.expect("the file is good");
            assert_eq!((report.flows, report.ended), (0, saved));
            talk.talk(10);
            let last = daemon.stop();
            assert_eq!((last.total.flows.restored, last.total.flows.created), (0, 1));
            assert!(last.total.long == 0 && last.total.short >= 10);
        });
    });
}

#[test]
fn a_damaged_file_is_said_and_ignored() {
    on_site(|site| {
        with_file(site, |path, settings| {
            let daemon = Daemon::start(site, settings);
            let mut talk = Conversation::open(site);
            talk.talk(50);
            daemon.stop();
            let good = fs::read(path).expect("it is there");
            let mut flipped = good.clone();
            flipped[70] ^= 4;
            let mut newer = good.clone();
            newer[8] = 9;
            let damages: [(&[u8], &str); 4] = [
                (&good[..good.len() - 1], "bytes where its header promises"),
                (&flipped, "its header promises"),
                (&newer, "it has version 9"),
                (b"", "its 0 bytes are too few"),
            ];
            for (bytes, words) in damages {
                fs::write(path, bytes).expect("writable");
                let daemon = starts_empty(site, path, settings, words);
                assert!(site.line.answers());
                let state = daemon.stop().state.expect("flows are saved");
                assert!(state.failures == 0 && state.saves > 0, "{state:?}");
            }
            // What is there now was saved after the last of them.
            let daemon = Daemon::start(site, settings);
            assert_eq!(taken_over(&daemon.first_answer()), 0);
            daemon.stop();
        });
    });
}

#[test]
fn what_is_no_file_is_said_and_left_alone() {
    on_site(|site| {
        with_file(site, |path, settings| {
            let ends = |daemon: Daemon<'_>| {
                daemon.wait_for("a save to fail", |now| {
                    now.state.as_ref().is_some_and(|state| state.failures > 1)
                });
                let log = daemon.files().log();
                assert_eq!(
                    log.matches("flows cannot be saved there").count(),
                    1,
                    "said once: {log}"
                );
                let state = daemon.stop().state.expect("flows are saved");
                assert_eq!(state.saves, 0);
            };
            nix::unistd::mkfifo(path, Mode::S_IRWXU).expect("possible");
            ends(starts_empty(site, path, settings, "it is no regular file"));
            fs::remove_file(path).expect("it is still there");
            fs::create_dir(path).expect("possible");
            ends(starts_empty(site, path, settings, "it is no regular file"));
            assert!(path.is_dir());
        });
    });
}

/// Starts a gateway that warns of its file and takes nothing over.
fn starts_empty<'a>(
    site: &'a Site,
    path: &Path,
    settings: &[Setting<'_>],
    words: &str,
) -> Daemon<'a> {
    let daemon = Daemon::start(site, settings);
    let first = daemon.first_answer();
    assert_eq!(first.total.flows.restored, 0);
    let state = first.state.expect("flows are saved");
    assert!(state.restored.is_none());
    assert!(state.ignored.as_ref().is_some_and(|why| why.contains(words)), "{state:?}");
    let log = daemon.files().log();
    let warnings = log.lines().filter(|line| line.contains("WARN") && line.contains("ignored"));
    let [warning] = warnings.collect::<Vec<_>>()[..] else { panic!("not one warning: {log}") };
    assert!(warning.contains(text(path)) && warning.contains(words), "{warning}");
    daemon
}

/// Root's right to write anywhere is gone when the file is written.
#[test]
fn a_folder_of_another_user_is_said_at_the_start_and_costs_nothing_else() {
    on_site(|site| {
        let folder = site.folder.file("theirs");
        fs::create_dir(&folder).expect("possible");
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).expect("ours");
        chown(&folder, Some(65534), Some(65534)).expect("possible");
        let file = format!("{:?}", text(&folder.join("flows")));
        let settings = [("state.file", file.as_str())];
        let daemon = Daemon::start(site, &settings);
        // Long before the first interval is over.
        daemon.wait_for("the failure", |now| {
            now.state.as_ref().is_some_and(|state| state.failures == 1)
        });
        let log = daemon.files().log();
        assert!(log.contains("flows cannot be saved there: Permission denied"), "{log}");
        assert!(site.line.answers());
        let state = daemon.stop().state.expect("flows are saved");
        assert_eq!((state.saves, state.failures), (0, 2));
        assert_eq!(fs::read_dir(&folder).expect("it is there").count(), 0);
    });
}

#[test]
fn a_folder_that_is_missing_is_refused_with_its_remedy() {
    on_site(|site| {
        let files = Files::new(site, "missing");
        let folder = site.folder.file("missing-folder");
        let file = format!("{:?}", text(&folder.join("flows")));
        files.configure(&[("state.file", &file)]);
        for command in ["check", "run"] {
            let end = run_to_end(site, &[command, "--config", text(&files.configuration)]);
            assert_eq!(end.status.code(), Some(2));
            let said = String::from_utf8_lossy(&end.stderr).into_owned();
            // Long lines are broken wherever they are.
            let said = said.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>();
            let said = said.join(" ");
            for words in ["flows cannot be saved in", "No such file", "install -d -m 0700"] {
                assert!(said.contains(words), "{words:?} is not in {said}");
            }
        }
    });
}
