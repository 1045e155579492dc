//! What the gateway will not start with: it says what, where and what to do about it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::daemon::{Daemon, Files, PROGRAM, assert_accounts, run_to_end};
use crate::lab::wait_for;
use crate::site::{BOUND, Site, on_site, text};

/// What a good file begins with, in three lines.
const PORTS: &str = "[ports]\nlan = \"lan\"\nwan = \"wan\"\n";

#[test]
fn a_bad_configuration_is_refused_with_its_place_and_remedy() {
    on_site(|site| {
        // The file, the place and words that must be said.
        let rows: [(String, &str, &[&str]); 13] = [
            (
                format!("{PORTS}[classifier]\ntreshold_packets = 4\n"),
                ":5:1",
                &["unknown key `classifier.treshold_packets`", "did you mean `threshold_packets`"],
            ),
            (
                format!("{PORTS}[classifier]\nthreshold_packets = 0\n"),
                ":5:21",
                &["0 is out of range", "1 to 4294967295"],
            ),
            (format!("{PORTS}[lanes.short]\n"), ":4:1", &["`lanes.short` has no mark", "dscp = "]),
            (
                "[ports]\nlan = \"lan\"\nwan = \"lan\"\n".to_owned(),
                ":3:7",
                &["are both \"lan\"", "two different ones"],
            ),
            (
                "[ports]\nlan = \"lan\"\nwan = \"nosuchport\"\n".to_owned(),
                ":3:7",
                &["nosuchport", "`ip link show`"],
            ),
            ("[ports]\nlan = \"lan\"\n".to_owned(), ":2:7", &["only one of", "the other"]),
            (String::new(), ":1:1", &["`ports.lan` and `ports.wan` are missing", "add both"]),
            (
                format!("{PORTS}[workers]\ncores = [0, 1]\n"),
                ":5:9",
                &["2 workers for 1 queues", "ethtool -L"],
            ),
            (
                format!("{PORTS}[workers]\ncores = [1000]\n"),
                ":5:9",
                &["core 1000", "the cores it may run on are"],
            ),
            (
                format!("{PORTS}[workers]\ncores = [100000]\n"),
                ":5:9",
                &["100000 is out of range", "0 to 65535"],
            ),
            (
                format!("mode = \"bridged\"\n{PORTS}"),
                ":1:8",
                &["\"bridged\" is none of its values", "\"inline\", \"routed\""],
            ),
            (format!("{PORTS}this is not TOML\n"), ":4:", &["not TOML", "https://toml.io"]),
            ("\u{feff}\u{0}\u{1}".to_owned(), ":1:", &["not TOML"]),
        ];
        let path = site.folder.file("bad.toml");
        for (file, place, words) in rows {
            fs::write(&path, &file).expect("writable");
            let place = format!("{}{place}", path.display());
            let words = [words, &[place.as_str()]].concat();
            for command in ["check", "run"] {
                assert_refused(site, &[command, "--config", text(&path)], 2, &words);
            }
        }
    });
}

#[test]
fn a_file_that_cannot_be_read_is_refused_by_its_name() {
    on_site(|site| {
        let missing = site.folder.file("missing.toml");
        let no_text = site.folder.file("latin.toml");
        fs::write(&no_text, b"# caf\xe9\n").expect("writable");
        for path in [missing.as_path(), no_text.as_path(), site.folder.path()] {
            for command in ["check", "run"] {
                let arguments = [command, "--config", text(path)];
                assert_refused(site, &arguments, 2, &["cannot read", text(path), "--config"]);
            }
        }
    });
}

#[test]
fn all_mistakes_are_shown_at_once() {
    on_site(|site| {
        let path = site.folder.file("bad.toml");
        let file = "[ports]\nlan = \"one\"\nwan = \"two\"\n[workers]\ncores = [1000]\n";
        fs::write(&path, file).expect("writable");
        let words = ["3 things are wrong", "one: ", "two: ", "core 1000"];
        assert_refused(site, &["check", "--config", text(&path)], 2, &words);
    });
}

#[test]
fn a_good_configuration_is_good() {
    on_site(|site| {
        let files = Files::new(site, "good");
        files.configure(&[]);
        let end = run_to_end(site, &["check", "--config", text(&files.configuration)]);
        assert!(end.status.success());
        assert!(!site.has_programs(), "a check touches no port");
    });
}

#[test]
fn an_mtu_that_does_not_fit_is_refused_until_the_remedy_is_applied() {
    on_site(|site| {
        let files = Files::new(site, "mtu");
        files.configure(&[]);
        let set = |mtu| site.gateway().run(&["ip", "link", "set", "dev", "wan", "mtu", mtu]);
        let check = ["check", "--config", text(&files.configuration)];
        set("1775");
        let words = ["MTU of 1775", "`frame_bytes = 4096`", "`ip link set dev wan mtu 1774`"];
        assert_refused(site, &check, 2, &words);
        set("1774");
        assert!(run_to_end(site, &check).status.success());
    });
}

#[test]
fn an_interface_without_ethernet_headers_is_refused_by_its_type() {
    on_site(|site| {
        site.gateway().run(&["ip", "tuntap", "add", "dev", "tun0", "mode", "tun"]);
        let path = site.folder.file("bad.toml");
        for (port, why) in [
            ("lo", "lo is no Ethernet interface: its link is of type 772, loopback"),
            ("tun0", "tun0 is no Ethernet interface: its link is of type 65534, packets without"),
        ] {
            fs::write(&path, format!("[ports]\nlan = \"{port}\"\nwan = \"wan\"\n"))
                .expect("writable");
            let words = ["bad.toml:2:7", "1 thing is wrong", why, "link/ether"];
            for command in ["check", "run"] {
                assert_refused(site, &[command, "--config", text(&path)], 2, &words);
            }
        }
    });
}

#[test]
fn without_its_capabilities_it_names_them() {
    on_site(|site| {
        let files = Files::new(site, "gateway");
        files.configure(&[]);
        let program = copy_for_anybody(site);
        let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        let powerless = ["--inh-caps=-all", "--bounding-set=-all"];
        let run = [text(&program), "run", "--config", text(&files.configuration)];
        let end = site.gateway().try_run(&[&nobody[..], &powerless, &run].concat());
        let words = String::from_utf8_lossy(&end.stderr).into_owned();
        assert_eq!(end.status.code(), Some(1), "{words}");
        for word in ["lacks", "CAP_NET_ADMIN", "CAP_BPF", "run it as root"] {
            assert!(words.contains(word), "{word:?} is not in {words}");
        }
        assert!(!files.socket.exists());
    });
}

#[test]
fn root_is_not_needed_where_the_capabilities_are() {
    on_site(|site| {
        let files = Files::new(site, "gateway");
        files.configure(&[]);
        let needed = "+net_admin,+net_raw,+bpf,+ipc_lock";
        let raise = [
            format!("--inh-caps={needed}"),
            format!("--ambient-caps={needed}"),
            format!("--bounding-set=-all,{needed}"),
        ];
        let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        let raise = raise.each_ref().map(String::as_str);
        let program = copy_for_anybody(site);
        // It makes its socket in a folder of its own.
        fs::set_permissions(site.folder.path(), fs::Permissions::from_mode(0o777)).expect("ours");
        let run = [text(&program), "run", "--config", text(&files.configuration)];
        let mut process = site.gateway().spawn(&[&nobody[..], &raise, &run].concat());
        wait_for("it to answer", BOUND, || {
            assert!(process.runs(), "it ended early");
            files.ask().is_some()
        });
        assert!(site.line.answers());
        assert!(process.terminate(BOUND).success());
        assert!(!site.has_programs() && !files.socket.exists());
    });
}

/// The program where anybody may run it.
fn copy_for_anybody(site: &Site) -> PathBuf {
    let program = site.folder.file("lanesplitd");
    fs::copy(PROGRAM, &program).expect("there is room");
    for path in [site.folder.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    program
}

#[test]
fn an_interface_with_another_program_is_refused_until_the_remedy_is_applied() {
    on_site(|site| {
        let files = Files::new(site, "gateway");
        files.configure(&[]);
        let object = concat!(env!("OUT_DIR"), "/program.bpf.o");
        let link = ["ip", "link", "set", "dev", "wan", "xdp"];
        site.gateway().run(&[&link[..], &["object", object, "section", "xdp"]].concat());
        let run = ["run", "--config", text(&files.configuration)];
        let words = ["wan: another XDP program", "`ip link set dev wan xdp off`"];
        assert_refused(site, &run, 1, &words);
        assert!(!files.socket.exists(), "its socket is left behind");
        let lan = site.gateway().run(&["ip", "-d", "link", "show", "dev", "lan"]);
        assert!(!lan.contains("prog/xdp"), "and so is a program: {lan}");
        site.gateway().run(&[&link[..], &["off"]].concat());
        let daemon = Daemon::start_with(site, files);
        assert!(site.line.answers());
        daemon.stop();
    });
}

#[test]
fn a_second_gateway_on_the_same_ports_is_refused_and_the_first_goes_on() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[]);
        let run = ["run", "--config", text(&daemon.files().configuration)];
        assert_refused(site, &run, 1, &["control socket", "another process listens there"]);
        // With a socket of its own it gets as far as the ports.
        let other = Files::new(site, "other");
        other.configure(&[]);
        let run = ["run", "--config", text(&other.configuration)];
        assert_refused(site, &run, 1, &["lan: another XDP program", "stop that process"]);
        assert!(!other.socket.exists());

        assert!(site.line.answers());
        assert_accounts(&daemon.status());
        daemon.stop();
    });
}

#[test]
fn a_control_socket_that_cannot_be_is_refused_and_the_file_there_stays() {
    on_site(|site| {
        let files = Files::new(site, "gateway");
        files.configure(&[]);
        fs::write(&files.socket, "somebody's letter").expect("writable");
        let run = ["run", "--config", text(&files.configuration)];
        assert_refused(site, &run, 1, &["no socket", "`control.socket`", text(&files.socket)]);
        assert_eq!(fs::read_to_string(&files.socket).expect("it is there"), "somebody's letter");
    });
}

/// Ends with this status, says all these words, and touches no port.
fn assert_refused(site: &Site, arguments: &[&str], status: i32, words: &[&str]) {
    let before = site.has_programs();
    let end = run_to_end(site, arguments);
    let said = String::from_utf8_lossy(&end.stderr).into_owned();
    assert_eq!(end.status.code(), Some(status), "{arguments:?}: {said}");
    assert!(end.stdout.is_empty(), "{arguments:?} is no result");
    // Lines are wrapped for people.
    let flat = said.replace(['│', '\n'], " ");
    let flat = flat.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(flat.contains(word), "{word:?} is not in {said}");
    }
    assert_eq!(site.has_programs(), before);
}
