//! A GRE that is not ours: the other end of the tunnels is Open vSwitch's user-space datapath, in place of gateway B.
//!
//! ```text
//!    segment b --- wan | outer --- br-outer (addresses) <- routes -- short, long --- inner | lan --- server
//! ```
//!
//! Of what is inside, IPv4 comes back through the short lane and IPv6 through the long one.

use std::fs;
use std::path::Path;

use crate::daemon::{Daemon, Outer, Plan, missed, routed};
use crate::lab::{Namespace, Process, SERVER, SERVER_V6, wait_for};
use crate::site::{BOUND, NETS, Site, on_sites, text, words};
use crate::sniffer::Sniffer;
use crate::web::{Nginx, download, upload};

#[test]
fn open_vswitch_understands_the_tunnels_and_is_understood_with_key_without_and_with_checksum() {
    if !is_there() {
        return;
    }
    on_sites(|site| {
        let switch = Switch::start(site);
        for options in [
            Options { outer: Outer::Ipv4, key: true, checksum: false },
            Options { outer: Outer::Ipv4, key: false, checksum: false },
            Options { outer: Outer::Ipv4, key: true, checksum: true },
            Options { outer: Outer::Ipv6, key: true, checksum: false },
            Options { outer: Outer::Ipv6, key: false, checksum: false },
            Options { outer: Outer::Ipv6, key: true, checksum: true },
        ] {
            switch.connect(options);
            let sniffers = site.routers.each_ref().map(|router| Sniffer::start(site, router, "a0"));
            let plan = Plan::new(options.outer).with("gre.checksum", &options.checksum.to_string());
            let plan = if options.key { plan.with_keys() } else { plan };
            let gateway = Daemon::start(site, 0, &plan);
            wait_for("an answer through the switch", BOUND, || site.answers());
            files_arrive(site);
            site.wait_for_silence();
            let paths = sniffers.map(Sniffer::finish);
            let last = gateway.stop();
            let router = routed(&last);
            assert_eq!((router.refused.total(), missed(&last)), (0, 0), "{options:?} {router:?}");
            let (family, net) = match options.outer {
                Outer::Ipv4 => ("ip", "192.0.2.0/24"),
                Outer::Ipv6 => ("ip6", "2001:db8:a::/64"),
            };
            for (lane, path) in router.lanes.iter().zip(&paths) {
                let sent = path.count(&format!("{family} proto 47 and src net {net}"));
                let received = path.count(&format!("{family} proto 47 and dst net {net}"));
                assert_eq!([lane.sent, lane.received], [sent, received], "{options:?}");
                assert!(sent > 100 && received > 100, "both lanes, both ways: {lane:?}");
            }
            let flags = paths.each_ref().map(|path| {
                let fields = ["gre.flags.key", "gre.flags.checksum", "gre.proto"];
                // Not those that ICMP errors quote.
                let address = if family == "ip" { "ip.dst" } else { "ipv6.dst" };
                let filter = format!("gre and not icmp and not icmpv6 and {address} == {net}");
                let mut flags = path.fields(&filter, &fields);
                flags.sort();
                flags.dedup();
                flags
            });
            let is_set = |flag: bool| if flag { "1" } else { "0" };
            for (flags, protocol) in flags.iter().zip(["0x0800", "0x86dd"]) {
                let expected = [is_set(options.key), is_set(options.checksum), protocol];
                assert_eq!(flags.len(), 1, "{flags:?}");
                assert_eq!(flags[0], expected, "what the switch sends");
            }
        }
    });
}

/// Both ways, over both families; the flows take both lanes.
fn files_arrive(site: &Site) {
    let nginx = Nginx::start(site, &site.server);
    for size in [1_000, 1_000_000] {
        let name = nginx.serve(size);
        for address in [SERVER, SERVER_V6] {
            download(site, &site.client, &nginx, address, &name);
            upload(&site.client, &nginx, address, &name);
        }
    }
}

/// Of both tunnels.
#[derive(Debug, Clone, Copy)]
struct Options {
    outer: Outer,
    key: bool,
    checksum: bool,
}

/// Whether Open vSwitch is installed; says so when not.
fn is_there() -> bool {
    let is_there = Path::new("/usr/sbin/ovs-vswitchd").exists();
    assert!(
        is_there || std::env::var_os("REQUIRE_ORACLES").is_none(),
        "Open vSwitch is not installed: apt-get install openvswitch-switch"
    );
    if !is_there {
        eprintln!("NOT TESTED: Open vSwitch is not installed");
    }
    is_there
}

/// The MAC address that the server takes for its gateway's.
const INNER_MAC: &str = "02:00:00:00:00:99";

/// Open vSwitch in gateway B's namespace, with a database and sockets in the test's folder.
struct Switch<'a> {
    site: &'a Site,
    namespace: &'a Namespace,
    folder: String,
    _processes: [Process; 2],
}

impl<'a> Switch<'a> {
    fn start(site: &'a Site) -> Switch<'a> {
        let folder = site.folder.file("switch");
        fs::create_dir(&folder).expect("the folder can be written to");
        let folder = text(&folder).to_owned();
        let namespace = &site.gateways[1];
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        let (database, socket) = (format!("{folder}/db"), format!("{folder}/db.sock"));
        namespace.run(&["ovsdb-tool", "create", &database, schema]);
        let environment =
            [("OVS_RUNDIR", &folder[..]), ("OVS_LOGDIR", &folder), ("OVS_DBDIR", &folder)];
        let quiet = ["-vconsole:off", "--no-chdir"];
        let remote = format!("--remote=punix:{socket}");
        let pid = format!("--pidfile={folder}/ovsdb-server.pid");
        let server = [&["ovsdb-server", &database, &remote, &pid][..], &quiet].concat();
        let server = namespace.spawn_with(&server, &environment);
        wait_for("the switch's database", BOUND, || Path::new(&socket).exists());
        let database = format!("unix:{socket}");
        let pid = format!("--pidfile={folder}/ovs-vswitchd.pid");
        let switch = [&["ovs-vswitchd", &database, &pid][..], &quiet].concat();
        let switch = namespace.spawn_with(&switch, &environment);
        let switch = Switch { site, namespace, folder, _processes: [server, switch] };
        switch.add_bridges();
        switch
    }

    /// A bridge for what is outside of tunnels, which has gateway B's addresses, and one for what is inside.
    fn add_bridges(&self) {
        self.vsctl("init");
        for (bridge, port) in [("br-outer", "wan"), ("br-inner", "lan")] {
            self.namespace.run(&["ip", "address", "flush", "dev", port]);
            self.vsctl(&format!(
                "add-br {bridge} -- set bridge {bridge} datapath_type=netdev -- add-port {bridge} {port}"
            ));
        }
        let namespace = self.namespace;
        namespace.run(&words("ip link set dev br-outer up"));
        let [[far, far_v6], [near, near_v6]] = NETS;
        // Over IPv6 the switch does not send from `local_ip` but from the address whose network, the narrowest first,
        // has the next hop in it.
        self.site.routers[1].address("b0", &format!("{near_v6}a/64"));
        for (address, to, by) in [
            (format!("{near}1/24"), format!("{far}1/32"), format!("{near}11")),
            (format!("{near}2/24"), format!("{far}2/32"), format!("{near}12")),
            (format!("{near_v6}1/64"), format!("{far_v6}1/128"), format!("{near_v6}11")),
            (format!("{near_v6}2/124"), format!("{far_v6}2/128"), format!("{near_v6}a")),
        ] {
            namespace.address("br-outer", &address);
            namespace.run(&words(&format!("ip route replace {to} via {by}")));
        }
        for router in &self.site.routers {
            router.run(&words("ip neigh flush dev b0"));
        }
        for gateway in ["10.2.0.1", "fd02::1"] {
            let neighbour = format!("ip neigh replace {gateway} lladdr {INNER_MAC} dev eth0");
            self.site.server.run(&words(&neighbour));
        }
    }

    /// Tunnels with these options instead of those before, and what goes into them.
    fn connect(&self, options: Options) {
        let server = self.site.server.mac("eth0");
        let mut flows = vec!["table=0,priority=0,actions=drop".to_owned()];
        for (number, name, prefixes) in
            [(1, "short", "ip,nw_dst=10.1.0.0/24"), (2, "long", "ipv6,ipv6_dst=fd01::/64")]
        {
            let [far, near] = NETS.map(|nets| nets[options.outer as usize]);
            let key = if options.key { format!("options:key={number}") } else { String::new() };
            let ends = format!("options:remote_ip={far}{number} options:local_ip={near}{number}");
            self.vsctl(&format!(
                "--if-exists del-port br-inner {name} -- add-port br-inner {name} -- set interface {name} \
                 type=gre options:packet_type=legacy_l3 options:csum={} {ends} {key} ofport_request=1{number}",
                options.checksum
            ));
            flows.push(format!("priority=1,in_port=lan,{prefixes},actions=output:{name}"));
            flows.push(format!(
                "priority=1,in_port={name},actions=mod_dl_src:{INNER_MAC},mod_dl_dst:{server},output:lan"
            ));
        }
        self.ofctl("del-flows br-inner");
        for flow in flows {
            self.ofctl(&format!("add-flow br-inner {flow}"));
        }
    }

    fn vsctl(&self, command: &str) {
        let database = format!("--db=unix:{}/db.sock", self.folder);
        self.namespace
            .run(&[&["ovs-vsctl", "--timeout=20", &database][..], &words(command)].concat());
    }

    fn ofctl(&self, command: &str) {
        let folder = format!("OVS_RUNDIR={}", self.folder);
        self.namespace.run(&[&["env", &folder, "ovs-ofctl"][..], &words(command)].concat());
    }
}
