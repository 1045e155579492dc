//! Routes by BGP: BIRD on the gateway and on its peer.

use std::fs;
use std::path::{Path, PathBuf};

use dataplane::fib::Resolution;
use lab::{Process, wait_for};

use super::*;

/// A BIRD in a namespace, with its configuration and its control socket in a folder of its own.
struct Bird<'a> {
    namespace: &'a Namespace,
    folder: PathBuf,
    _process: Process,
}

impl<'a> Bird<'a> {
    fn start(namespace: &'a Namespace, configuration: &str) -> Bird<'a> {
        let folder = std::env::temp_dir().join(namespace.name());
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("bird.conf");
        fs::write(&file, configuration).unwrap();
        let path = |name: &str| folder.join(name).display().to_string();
        let (file, socket, pid) = (path("bird.conf"), path("bird.ctl"), path("bird.pid"));
        let process = namespace.spawn(&["bird", "-f", "-c", &file, "-s", &socket, "-P", &pid]);
        wait_for("BIRD to listen", BOUND, || Path::new(&socket).exists());
        Bird { namespace, folder, _process: process }
    }

    fn tell(&self, command: &str) -> String {
        let socket = self.folder.join("bird.ctl").display().to_string();
        let words: Vec<&str> =
            ["birdc", "-s", &socket].into_iter().chain(command.split(' ')).collect();
        self.namespace.run(&words)
    }
}

impl Drop for Bird<'_> {
    fn drop(&mut self) {
        // During a panic nothing more can be done about a failure.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn configuration(
    id: &str,
    neighbour: &str,
    routes: &str,
    neighbour_as: u32,
    own_as: u32,
) -> String {
    format!(
        "log stderr {{ error, fatal, bug }};\nrouter id {id};\n\
         protocol device {{ scan time 1; }}\n\
         protocol kernel k4 {{ ipv4 {{ export where source = RTS_BGP; }}; }}\n\
         protocol kernel k6 {{ ipv6 {{ export where source = RTS_BGP; }}; }}\n\
         {routes}\n\
         protocol bgp site {{ local as {own_as}; neighbor {neighbour} as {neighbour_as}; direct;\n\
           connect delay time 1; connect retry time 1; error wait time 1, 2;\n\
           ipv4 {{ import all; export where source = RTS_STATIC; next hop self; }};\n\
           ipv6 {{ import all; export where source = RTS_STATIC; next hop self; }}; }}\n"
    )
}

#[test]
fn a_route_by_bgp_is_used_when_it_comes_and_not_when_it_was_withdrawn() {
    let Some(lab) = Lab::new() else { return };
    let site = Site::new(&lab);
    let mut watched = site.mirror();
    let announced = "protocol static far4 { disabled; ipv4; route 10.2.0.0/16 blackhole; }\n\
                     protocol static far6 { disabled; ipv6; route fd03::/64 blackhole; }";
    let _gateway =
        Bird::start(&site.gateway, &configuration("192.0.2.2", "192.0.2.1", "", 65001, 65002));
    let peer =
        Bird::start(&site.peer, &configuration("192.0.2.1", "192.0.2.2", announced, 65002, 65001));
    wait_for("BGP to be established", BOUND, || {
        peer.tell("show protocols site").contains("Established")
    });
    for _ in 0..2 {
        assert_eq!(watched.resolve("10.2.1.1"), Resolution::NoRoute);
        assert_eq!(watched.resolve("fd03::1"), Resolution::NoRoute);
        peer.tell("enable far4");
        peer.tell("enable far6");
        let came = watched.until("the routes", |fib| {
            is_unresolved(fib, "10.2.1.1", PortId::Wan, "192.0.2.1")
                && is_unresolved(fib, "fd03::1", PortId::Wan, "fd02::1")
        });
        let expected = link((&site.gateway, "wan"), (&site.peer, "eth0"), [0x08, 0x00]);
        assert_eq!(watched.until_it_is_sent("10.2.1.1"), expected);
        peer.tell("disable far4");
        peer.tell("disable far6");
        let went = watched.until("the routes to go", |fib| {
            fib.resolve(ip("10.2.1.1"), 0) == Resolution::NoRoute
                && fib.resolve(ip("fd03::1"), 0) == Resolution::NoRoute
        });
        eprintln!("routes by BGP: known after {came:?}, gone after {went:?}");
    }
}
