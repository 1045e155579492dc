//! Gateways whose flows go through a file: every later packet gets the class it would have got without a restart.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use etherparse::PacketBuilder;

use super::format::Section;
use super::*;
use crate::batch::{Packet, PortId};
use crate::flow::classifier::{Capacity, Policy, Rule};
use crate::flow::observer::Unobserved;
use crate::flow::secret::Secret;
use crate::flow::slice::Slice;
use crate::gateway::Settings;
use crate::lane::Lanes;
use crate::lane::mark::Mark;
use crate::verdict::{Class, Outcome};

const SECOND_NS: u64 = 1_000_000_000;
const IDLE_NS: u64 = 30 * SECOND_NS;
const THRESHOLD: u32 = 5;

fn gateway(seed: u64, flows_max: usize) -> Gateway {
    let rule = Rule {
        policy: Policy::Split,
        threshold_packets: THRESHOLD,
        idle_timeout_ns: IDLE_NS,
        restart_on_syn: true,
    };
    let lanes = Lanes { short: Mark::new(18).unwrap(), long: Mark::new(10).unwrap() };
    let settings = Settings { rule, lanes, frame_bytes_max: [u32::MAX; 2] };
    let capacity = Capacity {
        ipv4_flows_max: flows_max,
        ipv6_flows_max: flows_max,
        fragmented_datagrams_max: 10,
    };
    Gateway::new(settings, capacity, Secret::from_seed(seed))
}

/// One packet of a flow; even ones are IPv4, odd ones IPv6. A gateway without room says short too.
fn send(gateway: &mut Gateway, flow: u32, syn: bool, now_ns: u64) -> Class {
    let [a, b, c, d] = flow.to_be_bytes();
    let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let ip = match flow % 2 {
        0 => link.ipv4([10, b, c, d], [192, 0, 2, 1], 64),
        _ => link.ipv6([0xfd, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [0xfe; 16], 64),
    };
    let tcp = ip.tcp(1000, 443, 7, 100);
    let mut bytes = Vec::new();
    if syn { tcp.syn().write(&mut bytes, &[]) } else { tcp.ack(1).write(&mut bytes, &[]) }.unwrap();
    let mut batch = [Packet::new(&mut bytes[..], PortId::Lan, now_ns)];
    gateway.process(&mut batch, &mut Unobserved);
    let Outcome::Classified(class) = batch[0].outcome else { panic!("{:?}", batch[0].outcome) };
    class
}

fn send_many(gateway: &mut Gateway, flow: u32, packets: u32, now_ns: u64) {
    for _ in 0..packets {
        send(gateway, flow, false, now_ns);
    }
}

/// Everything that a gateway knows, in slices of so many buckets.
fn known(gateway: &Gateway, buckets: usize) -> Vec<KnownFlow> {
    let mut slice = Slice::new(buckets);
    let mut flows = Vec::new();
    while !slice.is_last() {
        gateway.fill(&mut slice);
        assert!(slice.flows().len() <= 2 * buckets);
        flows.extend_from_slice(slice.flows());
    }
    flows
}

/// A folder with a file, as long as a test needs it.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lanesplit-state-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a new name");
        Place(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("flows")
    }

    /// Saves what gateways know at `now_ns` of their clock.
    fn save(&self, gateways: &[&Gateway], now_ns: u64) {
        self.save_at(gateways, now_ns, &Moment::now());
    }

    fn save_at(&self, gateways: &[&Gateway], now_ns: u64, moment: &Moment) {
        let sections: Vec<Section> = gateways
            .iter()
            .map(|gateway| {
                let mut section = Section::default();
                known(gateway, 1000).iter().for_each(|flow| section.push(flow));
                section
            })
            .collect();
        file::replace(&self.file(), |file| format::write(file, moment, now_ns, &sections))
            .expect("the folder is ours");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 33) % below
}

/// Clocks differ, secrets differ, table sizes differ: what follows is classified alike, to the packet.
#[test]
fn a_restarted_gateway_goes_on_as_one_that_was_not() {
    for seed in 1..=20 {
        let mut random = seed;
        let mut before = gateway(seed, 3000);
        let mut now_ns = 5;
        for _ in 0..20_000 {
            now_ns += draw(&mut random, 10_000_000);
            let flow = draw(&mut random, 1500) as u32;
            let syn = draw(&mut random, 50) == 0;
            send(&mut before, flow, syn, now_ns);
        }
        let place = Place::new();
        place.save(&[&before], now_ns);
        let mut after = gateway(seed + 100, 5000);
        let clock = Clock::start_at(40 * 3600 * SECOND_NS);
        let status = restore(&place.file(), &mut [&mut after], clock);
        let report = status.restored.unwrap_or_else(|| panic!("{:?}", status.ignored));
        let lives = known(&before, 64);
        assert_eq!(report.flows + report.ended, lives.len() as u64);
        assert!(report.flows > 1000 && report.no_room == 0 && report.twice == 0, "{report:?}");
        let counters = after.counters();
        assert!(counters.balances());
        assert_eq!(counters.flows.created, report.flows);
        assert_eq!((counters.flows.restored, counters.flows.promoted), (report.flows, 0));

        // How much later it is by the new clock is found from a flow; all others must agree.
        let (there, here) = (&lives[0], known(&after, 7));
        let shift_ns =
            here.iter().find(|flow| flow.key == there.key).expect("kept").last_ns - there.last_ns;
        let shifted: BTreeSet<String> = here
            .iter()
            .map(|flow| format!("{:?}", KnownFlow { last_ns: flow.last_ns - shift_ns, ..*flow }))
            .collect();
        let all: BTreeSet<String> = lives.iter().map(|flow| format!("{flow:?}")).collect();
        assert!(shifted.is_subset(&all));

        // Time went on by some seconds at most while this ran, which is made good here.
        now_ns = (clock.now_ns() - shift_ns).max(now_ns);
        for _ in 0..20_000 {
            now_ns += draw(&mut random, 10_000_000);
            let flow = draw(&mut random, 1500) as u32;
            let syn = draw(&mut random, 50) == 0;
            let class = send(&mut before, flow, syn, now_ns);
            assert_eq!(send(&mut after, flow, syn, now_ns + shift_ns), class, "flow {flow}");
        }
        assert_eq!(before.counters().flows.table_full, 0);
    }
}

#[test]
fn the_walk_finds_each_flow_once_whatever_the_slices() {
    let mut gateway = gateway(3, 500);
    for flow in 0..900 {
        send(&mut gateway, flow, false, 10);
    }
    let whole = known(&gateway, 1_000_000);
    assert_eq!(whole.len(), 900);
    for buckets in [1, 7, 64, 749, 750, 751, 1499, 1500, 1501] {
        assert_eq!(known(&gateway, buckets), whole, "{buckets} at once");
    }
}

/// A walk during which packets come, in a table so crowded that flows move: what comes out of it are flows as they
/// were at some time of the walk, almost all, few of them twice, and all those that stayed where they were.
#[test]
fn a_walk_under_traffic_finds_flows_as_they_were_then() {
    let (mut missed, mut twice, mut random) = (0, 0, 7);
    for seed in 0..20 {
        let mut before = gateway(seed, 300);
        for flow in 0..600 {
            send(&mut before, 2 * flow, false, 10);
        }
        let old = known(&before, 1000);
        let place = Place::new();
        let (mut slice, mut section) = (Slice::new(8), Section::default());
        let mut now_ns = 10;
        while !slice.is_last() {
            before.fill(&mut slice);
            slice.flows().iter().for_each(|flow| section.push(flow));
            for _ in 0..20 {
                now_ns += 1;
                send(&mut before, 2 * draw(&mut random, 800) as u32, false, now_ns);
            }
        }
        let new = known(&before, 1000);
        let moment = Moment::now();
        file::replace(&place.file(), |file| format::write(file, &moment, now_ns, &[section]))
            .expect("the folder is ours");
        let mut after = gateway(seed + 100, 600);
        let clock = Clock::start_at(40 * 3600 * SECOND_NS);
        let report = restore(&place.file(), &mut [&mut after], clock).restored.expect("sound");
        assert_eq!((report.no_room, report.ended), (0, 0));
        assert!(after.counters().balances());
        twice += report.twice;
        let found = known(&after, 1000);
        let packets_of = |flows: &[KnownFlow], key| {
            flows.iter().find(|flow| flow.key == key).map(|flow| flow.packets)
        };
        for flow in &found {
            let least = packets_of(&old, flow.key).unwrap_or(1);
            let most = packets_of(&new, flow.key).expect("no flow ends here");
            assert!((least..=most).contains(&flow.packets));
        }
        missed += old.iter().filter(|flow| packets_of(&found, flow.key).is_none()).count();
    }
    eprintln!("of 12000 flows {missed} were missed and {twice} found twice");
    assert!(missed > 0 && twice > 0, "no flow moved: this showed nothing");
    assert!(missed < 240 && twice < 240);
}

#[test]
fn flows_that_ended_meanwhile_are_left_out() {
    let place = Place::new();
    let mut before = gateway(1, 100);
    for (flow, second) in [(2, 1), (4, 20)] {
        send_many(&mut before, flow, 10, second * SECOND_NS);
    }
    // Saved 15 s ago, when it was 25 s by the old clock: one has been silent for 39 s by now, one for 20 s.
    let now = Moment::now();
    let moment = Moment { boottime_ns: now.boottime_ns - 15 * SECOND_NS, ..now };
    place.save_at(&[&before], 25 * SECOND_NS, &moment);
    let mut after = gateway(2, 100);
    let clock = Clock::start_at(40 * 3600 * SECOND_NS);
    let report = restore(&place.file(), &mut [&mut after], clock).restored.expect("it is sound");
    assert_eq!((report.flows, report.ended), (1, 1));
    assert_eq!(send(&mut after, 2, false, clock.now_ns()), Class::Short);
    assert_eq!(send(&mut after, 4, false, clock.now_ns()), Class::Long);
}

#[test]
fn a_smaller_table_keeps_the_long_ones() {
    let place = Place::new();
    let mut before = gateway(1, 10_000);
    for flow in 0..10_000 {
        let packets = if flow % 50 < 2 { THRESHOLD + 1 } else { 1 };
        send_many(&mut before, 2 * flow, packets, SECOND_NS);
    }
    place.save(&[&before], SECOND_NS);
    let mut after = gateway(2, 1000);
    let clock = Clock::start_at(40 * 3600 * SECOND_NS);
    let report = restore(&place.file(), &mut [&mut after], clock).restored.expect("it is sound");
    assert_eq!(report.flows + report.no_room, 10_000);
    assert!((2500..=3000).contains(&report.flows), "{report:?}");
    assert!(after.counters().balances());
    for flow in (0..10_000).filter(|flow| flow % 50 < 2) {
        assert_eq!(send(&mut after, 2 * flow, false, clock.now_ns()), Class::Long, "flow {flow}");
    }
}

#[test]
fn of_two_entries_of_one_flow_the_later_stays() {
    let place = Place::new();
    let key = known(
        &{
            let mut gateway = gateway(1, 10);
            send(&mut gateway, 2, false, 1);
            gateway
        },
        10,
    )[0]
    .key;
    for (first, second) in [(0, 1), (1, 0)] {
        let entries = [
            KnownFlow { key, last_ns: 10, packets: 1000, long: true },
            KnownFlow { key, last_ns: 20, packets: 3, long: false },
        ];
        let mut section = Section::default();
        section.push(&entries[first]);
        section.push(&entries[second]);
        let moment = Moment::now();
        file::replace(&place.file(), |file| format::write(file, &moment, 30, &[section]))
            .expect("the folder is ours");
        let mut after = gateway(2, 10);
        let clock = Clock::start_at(40 * 3600 * SECOND_NS);
        let report = restore(&place.file(), &mut [&mut after], clock).restored.expect("sound");
        assert_eq!((report.flows, report.twice), (1, 1));
        assert!(after.counters().balances());
        assert_eq!(known(&after, 10).iter().map(|flow| flow.packets).collect::<Vec<_>>(), [3]);
        assert_eq!(send(&mut after, 2, false, clock.now_ns()), Class::Short);
    }
}

#[test]
fn flows_go_to_the_worker_of_their_number_or_to_that_modulo() {
    let place = Place::new();
    let before: Vec<Gateway> = (0..4)
        .map(|worker| {
            let mut gateway = gateway(worker, 100);
            (0..=worker)
                .for_each(|flow| send_many(&mut gateway, (flow + 10 * worker) as u32, 1, 9));
            gateway
        })
        .collect();
    place.save(&before.iter().collect::<Vec<_>>(), 9);
    for (workers, expected) in
        [(4, &[1, 2, 3, 4][..]), (2, &[4, 6]), (3, &[5, 2, 3]), (6, &[1, 2, 3, 4, 0, 0])]
    {
        let mut after: Vec<Gateway> = (0..workers).map(|seed| gateway(seed, 100)).collect();
        let clock = Clock::start_at(40 * 3600 * SECOND_NS);
        let status = restore(&place.file(), &mut after.iter_mut().collect::<Vec<_>>(), clock);
        assert_eq!(status.restored.expect("it is sound").flows, 10);
        let active: Vec<u64> =
            after.iter().map(|gateway| gateway.counters().flows.active).collect();
        assert_eq!(active, expected);
    }
}

#[test]
fn what_is_no_file_of_flows_is_ignored_and_said() {
    let place = Place::new();
    let path = place.file();
    let said = |words: &str| {
        let mut after = gateway(2, 10);
        let status = restore(&path, &mut [&mut after], Clock::start_at(SECOND_NS));
        assert_eq!(after.counters().flows.created, 0);
        assert!(status.restored.is_none());
        let reason = status.ignored.expect("it is ignored");
        assert!(reason.contains(words), "{reason:?} does not say {words:?}");
        let _ = std::fs::remove_file(&path);
    };
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("possible");
    said("no regular file");
    std::os::unix::fs::symlink("/dev/zero", &path).expect("possible");
    said("no regular file");
    std::fs::create_dir(&path).expect("possible");
    said("no regular file");
    assert!(file::replace(&path, |_| Ok(())).is_err(), "and a folder is not replaced");
    std::fs::remove_dir(&path).expect("it is empty");
    let huge = std::fs::File::create(&path).expect("possible");
    huge.set_len(1 << 40).expect("a hole takes no room");
    said("1099511627776 bytes are more than");
    std::fs::write(&path, "").expect("possible");
    said("its 0 bytes are too few");
    std::fs::write(&path, "[ports]\nlan = \"eth1\"\n".repeat(10)).expect("possible");
    said("it begins otherwise");
    let later = Moment { boottime_ns: u64::MAX, ..Moment::now() };
    place.save_at(&[&gateway(1, 10)], 1, &later);
    said("later than now");

    let status = restore(&path, &mut [&mut gateway(2, 10)], Clock::start());
    assert_eq!((status.restored, status.ignored), (None, None), "no file is no news");
}

#[test]
fn a_file_is_replaced_as_a_whole_and_for_nobody_else() {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    let place = Place::new();
    let path = place.file();
    // What somebody left, and what a kill left.
    std::fs::write(&path, "old").expect("possible");
    nix::unistd::mkfifo(&place.0.join("flows.new"), nix::sys::stat::Mode::S_IRWXU)
        .expect("possible");
    let failed: std::io::Result<()> = file::replace(&path, |mut file| {
        file.write_all(b"half")?;
        Err(std::io::ErrorKind::StorageFull.into())
    });
    assert!(failed.is_err());
    assert_eq!(std::fs::read(&path).expect("it stays"), b"old");
    file::replace(&path, |mut file| file.write_all(b"new")).expect("possible");
    assert_eq!(std::fs::read(&path).expect("it is there"), b"new");
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(std::fs::read_dir(&place.0).expect("ours").count(), 1, "nothing is left beside it");
}
