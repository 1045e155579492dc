//! Files of 1 kB to 100 MB arrive as they were sent.

use dataplane::status::Status;

use crate::daemon::Daemon;
use crate::lab::{CLIENT, CLIENT_V6, SERVER, SERVER_V6};
use crate::site::{Site, on_site};
use crate::web::{Nginx, SIZES, download, upload};

#[test]
fn files_of_every_size_arrive_unchanged_over_ipv4_and_ipv6() {
    on_site(|site| files_arrive(site, [CLIENT, CLIENT_V6]));
}

#[test]
fn files_of_every_size_arrive_unchanged_behind_a_vlan_tag() {
    on_site(|site| {
        let _vlan = site.add_vlan();
        files_arrive(site, ["10.7.0.1", "fd07::1"]);
    });
}

/// The datacenter serves, the far host downloads: the data go from LAN to WAN and are marked.
fn files_arrive(site: &Site, addresses: [&str; 2]) {
    let daemon = Daemon::start(site, &[]);
    let nginx = Nginx::start(site, site.datacenter());
    for size in SIZES {
        let name = nginx.serve(size);
        for address in addresses {
            download(site, site.far_host(), &nginx, address, &name);
        }
    }
    site.wait_for_silence();
    let last = daemon.stop();
    let connections = SIZES.len() as u64 * 2;
    assert_eq!(opened(&last), connections);
    assert_eq!(last.total.dropped.exceeds_mtu, 0);
    let payload: u64 = SIZES.iter().map(|size| *size as u64 * 2).sum();
    assert!(last.total.bytes.short + last.total.bytes.long > payload, "{:?}", last.total);
    // Of 100 kB and more there are more than 40 packets; of 10 kB and less there are not.
    assert_eq!(
        last.total.flows.promoted,
        2 * SIZES.iter().filter(|size| **size >= 100_000).count() as u64
    );
}

#[test]
fn uploads_and_downloads_arrive_unchanged_the_other_way() {
    on_site(|site| {
        let daemon = Daemon::start(site, &[]);
        let nginx = Nginx::start(site, site.far_host());
        for size in [1_000, 1_000_000, 10_000_000] {
            let name = nginx.serve(size);
            for address in [SERVER, SERVER_V6] {
                download(site, site.datacenter(), &nginx, address, &name);
                upload(site.datacenter(), &nginx, address, &name);
            }
        }
        site.wait_for_silence();
        let last = daemon.stop();
        // The datacenter's acknowledgements and uploads are flows too.
        assert_eq!(opened(&last), 12);
    });
}

/// Connections, each once: a SYN that had to be sent again starts its flow again.
fn opened(status: &Status) -> u64 {
    status.total.flows.created - status.total.flows.restarted
}
