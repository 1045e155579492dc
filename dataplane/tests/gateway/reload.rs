//! A new configuration takes over between two packets, or not at all.

use std::fs;

use nix::sys::signal::Signal;

use crate::daemon::{Daemon, Setting};
use crate::site::on_site;
use crate::sniffer::Sniffer;
use crate::traffic::{Conversation, Train, Transfer};

const FIRST: &[Setting<'_>] = &[];
const LOWER: &[Setting<'_>] =
    &[("classifier.threshold_packets", "15"), ("lanes.short.dscp", "8"), ("lanes.long.dscp", "24")];
const HIGHER: &[Setting<'_>] = &[
    ("classifier.threshold_packets", "100000"),
    ("lanes.short.dscp", "32"),
    ("lanes.long.dscp", "40"),
];

#[test]
fn a_flow_keeps_its_count_and_its_lane() {
    on_site(|site| {
        let daemon = Daemon::start(site, FIRST);
        let far = Sniffer::start(site, site.far_host(), "far");
        let mut conversation = Conversation::open(site);
        // More than 15 packets and, with every acknowledgement apart, fewer than 40.
        conversation.talk(17);
        daemon.reload(LOWER);
        conversation.talk(17);
        daemon.reload(HIGHER);
        conversation.talk(17);
        let now = daemon.status();
        assert_eq!((now.reloads.accepted, now.reloads.refused), (2, 0));
        assert_eq!(now.classifier.threshold_packets, 100_000);
        assert_eq!((now.lanes.short.dscp(), now.lanes.long.dscp()), (32, 40));
        let mut newer = Conversation::open(site);
        newer.talk(17);
        let ports = [&conversation, &newer].map(|one| one.port().to_string());
        drop((conversation, newer));
        site.wait_for_silence();

        let [far] = Sniffer::end(site, [far]);
        let packets = far.tcp_packets();
        let marks = ports.map(|port| {
            let flow = packets.iter().filter(|one| one.is_outbound() && one.flow[3] == port);
            let mut marks: Vec<u8> = flow.map(|packet| packet.dscp).collect();
            assert!(marks.len() > 17);
            marks.dedup();
            marks
        });
        // Packet 16 and later are long at once, because the count went on; and stay long.
        assert_eq!(marks[0], [18, 24, 40]);
        assert_eq!(marks[1], [32]);
        assert_eq!(daemon.stop().total.flows.created, 2);
    });
}

#[test]
fn a_transfer_goes_on_through_reloads() {
    on_site(|site| {
        let daemon = Daemon::start(site, FIRST);
        let far = Transfer::start(site);
        for settings in [LOWER, HIGHER, FIRST, LOWER, FIRST] {
            far.wait_for_progress();
            daemon.reload(settings);
        }
        far.wait_for_progress();
        far.finish();
        site.wait_for_silence();
        let last = daemon.stop();
        assert_eq!((last.total.flows.created, last.total.flows.promoted), (1, 1));
        assert_eq!(last.reloads.accepted, 5);
    });
}

#[test]
fn fifty_reloads_cost_no_datagram() {
    on_site(|site| {
        let daemon = Daemon::start(site, FIRST);
        let train = Train::start(site, true);
        for round in 0..50 {
            daemon.reload(if round % 2 == 0 { LOWER } else { FIRST });
        }
        train.wait_for_progress();
        let arrivals = train.end();
        assert_eq!((arrivals.lost, arrivals.doubled), (0, 0), "{arrivals:?}");
        let last = daemon.stop();
        assert_eq!((last.reloads.accepted, last.reloads.refused), (50, 0));
        assert!(last.workers.iter().all(|worker| worker.report.reloads == 50));
    });
}

#[test]
fn a_bad_file_is_refused_and_the_old_one_stays() {
    on_site(|site| {
        let daemon = Daemon::start(site, LOWER);
        let files = daemon.files().clone();
        let path = files.configuration.display().to_string();
        let good = fs::read_to_string(&files.configuration).expect("it was written");
        // Each with words that the log must have after it.
        let bad: [(String, &[&str]); 4] = [
            (
                format!("{good}treshold = 3\n"),
                &["unknown key `treshold`", ":9:1]", "the configuration before stays"],
            ),
            (
                good.replace("threshold_packets = 15", "threshold_packets = 0"),
                &["0 is out of range", ":3:32]", "1 to 4294967295"],
            ),
            ("[[[".to_owned(), &["not TOML", ":1:", "https://toml.io"]),
            (
                good.replace("\"wan\"", "\"nosuchport\""),
                &["nosuchport: looking it up", ":8:13]", "`ip link show`"],
            ),
        ];
        for (index, (text, words)) in bad.iter().enumerate() {
            let logged_bytes = files.log().len();
            fs::write(&files.configuration, text).expect("writable");
            daemon.signal(Signal::SIGHUP);
            let refused = index as u64 + 1;
            daemon.wait_for("the refusal", |now| now.reloads.refused == refused);
            let log = files.log()[logged_bytes..].to_owned();
            for word in words.iter().chain(&[path.as_str()]) {
                assert!(log.contains(word), "{word:?} is not in {log}");
            }
        }
        fs::remove_file(&files.configuration).expect("it is there");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for("the refusal", |now| now.reloads.refused == 5);

        let now = daemon.status();
        assert_eq!(now.reloads.accepted, 0);
        assert_eq!(now.classifier.threshold_packets, 15);
        assert_eq!((now.lanes.short.dscp(), now.lanes.long.dscp()), (8, 24));
        assert!(site.line.answers(), "and packets are forwarded");
        daemon.stop();
    });
}

#[test]
fn a_file_that_changes_a_fixed_key_is_refused_by_that_key() {
    on_site(|site| {
        let daemon = Daemon::start(site, FIRST);
        let log = || daemon.files().log();
        let changes: [&[Setting<'_>]; 6] = [
            &[("ports.ring_entries", "1024")],
            &[("ports.lan", "\"wan\""), ("ports.wan", "\"lan\"")],
            &[("workers.poll", "\"busy\"")],
            &[("classifier.ipv4_flows_max", "5000")],
            &[("control.socket", "\"/run/elsewhere\"")],
            // The threshold alone could change; not with a fixed key beside it.
            &[("ports.copy", "\"copy\""), ("classifier.threshold_packets", "7")],
        ];
        for (index, settings) in changes.iter().enumerate() {
            let logged_bytes = log().len();
            daemon.files().configure(settings);
            daemon.signal(Signal::SIGHUP);
            let refused = index as u64 + 1;
            daemon.wait_for("the refusal", |now| now.reloads.refused == refused);
            let log = log()[logged_bytes..].to_owned();
            assert!(log.contains(settings[0].0), "{:?} is not named in {log}", settings[0].0);
            assert!(log.contains("can only change with a restart"), "{log}");
        }
        let now = daemon.status();
        assert_eq!((now.reloads.accepted, now.classifier.threshold_packets), (0, 40));
        daemon.stop();
    });
}
