//! What a gateway says of itself, and who may ask in what way.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::daemon::{Daemon, PROGRAM, assert_accounts};
use crate::lab::CLIENT;
use crate::site::{on_site, text};
use crate::traffic::Train;
use crate::web::{Nginx, download};

#[test]
fn every_field_of_the_status_says_what_is_so() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[("workers.cores", "[0]")]);
        let nginx = Nginx::start(site, site.datacenter());
        let name = nginx.serve(100_000);
        download(site, site.far_host(), &nginx, CLIENT, &name);
        site.wait_for_silence();
        drop(nginx);

        let answer = daemon.files().ask().expect("it answers");
        let status: Value = serde_json::from_str(&answer).expect("JSON");
        let at = |path: &str| {
            status.pointer(path).unwrap_or_else(|| panic!("no {path} in {answer}")).clone()
        };
        assert_eq!(at("/version"), env!("CARGO_PKG_VERSION"));
        assert_eq!(at("/pid"), daemon.id());
        assert_eq!(at("/mode"), "inline");
        assert_eq!((at("/reloads/accepted"), at("/reloads/refused")), (0.into(), 0.into()));
        assert_eq!(at("/classifier/policy"), "split");
        assert_eq!(at("/classifier/threshold_packets"), 40);
        assert_eq!(at("/classifier/idle_timeout_ns"), 30_000_000_000_u64);
        assert_eq!(at("/classifier/restart_on_syn"), true);
        assert_eq!((at("/lanes/short/dscp"), at("/lanes/long/dscp")), (18.into(), 10.into()));
        for port in ["lan", "wan"] {
            assert_eq!(at(&format!("/ports/{port}/interface")), port);
            assert_eq!(at(&format!("/ports/{port}/state")), "up");
            assert_eq!(at(&format!("/ports/{port}/xdp")), "native");
            assert_eq!(at(&format!("/ports/{port}/copy")), "copy");
            assert_eq!(at(&format!("/ports/{port}/mtu")), 1500);
            for reason in ["own_address", "oversize", "no_socket"] {
                assert!(at(&format!("/ports/{port}/kernel/{reason}")).is_u64());
            }
        }
        assert_eq!(at("/workers").as_array().map(Vec::len), Some(1));
        assert_eq!((at("/workers/0/queue"), at("/workers/0/core")), (0.into(), 0.into()));
        assert_eq!(at("/workers/0/frames/total"), 4 * 2048);
        assert_eq!(at("/workers/0/frames_balance"), true);
        assert_eq!(at("/total/flows/created"), 1);
        assert_eq!(at("/total/short"), 40);
        assert!(at("/uptime_ms").as_u64().is_some_and(|uptime| uptime > 0));
        for counter in ["received", "forwarded", "long", "bytes/received", "untouched/unclassified"]
        {
            assert!(at(&format!("/total/{counter}")).as_u64().is_some_and(|count| count > 0));
        }
        daemon.stop();
    });
}

#[test]
fn the_first_answer_after_the_start_is_true_already() {
    on_site(|site| {
        for _ in 0..5 {
            let daemon = Daemon::start(site, &[]);
            let first = daemon.first_answer();
            assert!(first.workers[0].report.frames_balance, "{:?}", first.workers[0].report.frames);
            assert_accounts(&first);
            daemon.stop();
        }
    });
}

#[test]
fn only_the_owner_may_ask() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[]);
        let metadata = daemon.files().socket.metadata().expect("it is there");
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
        daemon.stop();
    });
}

#[test]
fn people_get_a_table() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[]);
        let files = daemon.files();
        let ask = |arguments: &[&str]| {
            let asked = Command::new(PROGRAM).arg("status").args(arguments).output();
            asked.expect("it is there")
        };
        for arguments in
            [["--socket", text(&files.socket)], ["--config", text(&files.configuration)]]
        {
            let answer = ask(&arguments);
            assert!(answer.status.success());
            let table = String::from_utf8_lossy(&answer.stdout).into_owned();
            for words in
                ["LAN lan: up, XDP native, copy, MTU 1500", "all accounted for", "short lane"]
            {
                assert!(table.contains(words), "{words:?} is not in {table}");
            }
        }
        let socket = files.socket.clone();
        daemon.stop();
        let answer = ask(&["--socket", text(&socket)]);
        assert_eq!(answer.status.code(), Some(1));
        let words = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert!(words.contains("Is lanesplitd running") && words.contains("--socket"), "{words}");
    });
}

#[test]
fn bad_clients_disturb_neither_packets_nor_other_clients() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[]);
        let train = Train::start(site, true);
        let connect = || {
            let stream = UnixStream::connect(&daemon.files().socket).expect("it listens");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("possible");
            stream
        };
        // What is no request is answered with an error, or with the end.
        let questions: [&[u8]; 6] = [
            b"hello\n",
            b"{\"request\":\"reboot\"}\n",
            b"\n",
            b"\xff\xfe\x00\n",
            &[b'['; 10_000],
            b"{\"request\":\"status\"",
        ];
        for question in questions {
            let mut stream = connect();
            // A long line is cut off, so it may not be taken as a whole.
            let _ = stream.write_all(question);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            // And what was not read may end the connection with a reset.
            let _ = stream.read_to_end(&mut answer);
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.is_empty() || answer.contains("\"answer\":\"error\""), "{answer}");
            daemon.status();
        }
        // Some say nothing, some go away at once, some do not listen to the answer.
        let silent: Vec<UnixStream> = (0..5).map(|_| connect()).collect();
        (0..5).for_each(|_| drop(connect()));
        let deaf: Vec<UnixStream> = (0..5)
            .map(|_| {
                let mut stream = connect();
                stream.write_all(b"{\"request\":\"status\"}\n").expect("it listens");
                stream
            })
            .collect();
        daemon.status();
        drop((silent, deaf));
        train.wait_for_progress();
        let arrivals = train.end();
        assert_eq!((arrivals.lost, arrivals.doubled), (0, 0), "{arrivals:?}");
        daemon.stop();
    });
}

#[test]
fn a_client_that_writes_letter_by_letter_holds_nobody_up() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[]);
        let mut slow = UnixStream::connect(&daemon.files().socket).expect("it listens");
        let end = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                use std::sync::atomic::Ordering::Relaxed;
                while !end.load(Relaxed) && slow.write_all(b" ").is_ok() {
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
            let answer = daemon.files().ask();
            end.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(answer.is_some(), "no answer while another client is slow");
        });
        daemon.stop();
    });
}
