//! What is for the gateway itself, or not for a router at all, is the kernel's as if no `lanesplitd` were there.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

use crate::daemon::{Outer, Plan, start_both, stop_both};
use crate::lab::{CLIENT, CLIENT_V6, Namespace, SERVER};
use crate::site::{BOUND, on_sites, words};

#[test]
fn the_kernel_answers_for_every_address_of_the_gateway() {
    on_sites(|site| {
        let daemons = start_both(site, &Plan::new(Outer::Ipv4).with_keys());
        let [a, b] = &site.gateways;
        let before = daemons[0].status_at_rest();
        // From the own site, from the WAN, and from the other site through the tunnel.
        let pings = [
            (&site.client, &["10.1.0.1", "fd01::1", "192.0.2.1", "2001:db8:a::2"][..]),
            (&site.routers[0], &["192.0.2.1", "192.0.2.2", "2001:db8:a::1"][..]),
        ];
        for (host, addresses) in pings {
            for address in addresses {
                host.run(&["ping", "-n", "-q", "-c", "3", "-i", "0.01", "-W", "5", address]);
            }
        }
        // As SSH would: a connection to a port of the box, of more packets than the short lane takes.
        for (host, gateway, address) in [
            (&site.client, a, "10.1.0.1"),
            (&site.client, a, "fd01::1"),
            (&site.routers[0], a, "192.0.2.1"),
            (&site.server, b, "fd02::1"),
        ] {
            converse(host, gateway, address);
        }
        let after = daemons[0].wait_for("the kernel's share to be counted", |now| {
            now.ports.lan.kernel.own_address >= before.ports.lan.kernel.own_address + 50
        });
        assert!(after.ports.wan.kernel.own_address > before.ports.wan.kernel.own_address);
        // None of it was any of the gateway's business.
        assert_eq!(after.total.received, before.total.received);
        stop_both(daemons);
    });
}

#[test]
fn neighbours_and_multicast_are_the_kernels() {
    on_sites(|site| {
        let daemons = start_both(site, &Plan::new(Outer::Ipv4).with_keys());
        let gateway = &site.gateways[0];
        // Both sides forget each other, and find each other again by ARP and neighbour discovery.
        for (host, interface, port, address) in [
            (&site.client, "eth0", "lan", "10.1.0.1"),
            (&site.client, "eth0", "lan", "fd01::1"),
            (&site.routers[0], "a0", "wan", "192.0.2.1"),
            (&site.routers[0], "a0", "wan", "2001:db8:a::1"),
        ] {
            host.run(&words(&format!("ip neigh flush dev {interface}")));
            gateway.run(&words(&format!("ip neigh flush dev {port}")));
            host.run(&["ping", "-n", "-q", "-c", "1", "-W", "5", address]);
            let neighbours = host.run(&["ip", "neigh", "show", address, "dev", interface]);
            assert!(neighbours.contains(&gateway.mac(port)), "{neighbours}");
        }
        // A group that somebody on the box has joined.
        let group = "239.1.2.3";
        let listener = gateway.enter(|| {
            let socket = UdpSocket::bind((group, 0)).expect("free");
            let (group, port) = (group.parse().unwrap(), "10.1.0.1".parse().unwrap());
            socket.join_multicast_v4(&group, &port).expect("possible");
            socket.set_read_timeout(Some(BOUND)).expect("possible");
            socket
        });
        let sender = site.client.enter(|| UdpSocket::bind((CLIENT, 0)).expect("free"));
        let port = listener.local_addr().expect("bound").port();
        sender.send_to(b"to all", (group, port)).expect("there is a route");
        let mut heard = [0; 100];
        assert_eq!(listener.recv(&mut heard).expect("it arrives"), 6);
        // All hosts and all nodes of the link, and a broadcast.
        let all = words("ping -n -c 2 -i 0.01 -W 1 -I eth0 ff02::1");
        let said = site.client.try_run(&all);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("from fe80:"), "the gateway's link-local address: {said}");
        let ping = words("ping -n -q -c 1 -W 5");
        for (host, address) in
            [(&site.client, SERVER), (&site.server, CLIENT), (&site.server, CLIENT_V6)]
        {
            host.run(&[&ping[..], &[address]].concat());
        }
        let [a, _] = stop_both(daemons);
        // To all or to many.
        assert!(a.ports.lan.kernel.other_link > 3, "{:?}", a.ports.lan.kernel);
    });
}

/// A connection with fifty packets there and back.
fn converse(host: &Namespace, gateway: &Namespace, address: &str) {
    let listener = gateway.enter(|| TcpListener::bind((address, 0)).expect("free"));
    let port = listener.local_addr().expect("bound").port();
    let mut caller = host.enter(|| TcpStream::connect((address, port)).expect("it listens"));
    let (mut called, _) = listener.accept().expect("it is connected");
    for stream in [&caller, &called] {
        stream.set_nodelay(true).expect("possible");
        stream.set_read_timeout(Some(BOUND)).expect("possible");
    }
    let mut heard = [0; 100];
    for number in 0..50 {
        caller.write_all(&[number; 100]).expect("open");
        called.read_exact(&mut heard).expect("it arrives");
        assert_eq!(heard, [number; 100]);
        called.write_all(&[number]).expect("open");
        caller.read_exact(&mut heard[..1]).expect("it arrives");
    }
}
