//! Every life of every flow, in order of first packet.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::IpAddr;

use dataplane::flow::key::FlowKey;
use dataplane::flow::observer::{FlowPacket, Observer};
use dataplane::verdict::Class;
use serde::Serialize;

/// One life of one flow; times in nanoseconds since the epoch, as the gateway handled the packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Life {
    /// VLAN identifiers, outer first.
    pub vlan: Vec<u16>,
    /// Source address.
    pub src: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination address.
    pub dst: IpAddr,
    /// Destination port.
    pub dst_port: u16,
    /// TCP: 6.
    pub protocol: u8,
    /// Packets, later fragments not among them.
    pub packets: u64,
    /// Frame lengths on the wire, summed.
    pub bytes: u64,
    /// Its first packet.
    pub first_ns: u64,
    /// Its last packet.
    pub last_ns: u64,
    /// The class of its last packet.
    pub class: Class,
    /// The packet with which it moved to the long lane.
    pub promoted_at_ns: Option<u64>,
}

/// An observer that keeps them all.
#[derive(Debug, Default)]
pub struct Lives {
    lives: Vec<Life>,
    current: HashMap<FlowKey, usize>,
}

impl Lives {
    /// All so far, in order of first packet.
    pub fn as_slice(&self) -> &[Life] {
        &self.lives
    }

    /// Writes them as JSON, one life a line.
    pub fn write_json_lines(&self, output: &mut impl Write) -> io::Result<()> {
        for life in &self.lives {
            serde_json::to_writer(&mut *output, life)?;
            output.write_all(b"\n")?;
        }
        output.flush()
    }
}

impl Observer for Lives {
    fn packet(&mut self, packet: FlowPacket<'_>) {
        if packet.begins {
            self.current.insert(*packet.key, self.lives.len());
            self.lives.push(begin(&packet));
        }
        let current = self.current[packet.key];
        let life = &mut self.lives[current];
        if packet.class != life.class {
            life.class = packet.class;
            life.promoted_at_ns = Some(packet.handled_ns);
        }
        life.packets += 1;
        life.bytes += u64::from(packet.wire_bytes);
        life.last_ns = packet.handled_ns;
    }
}

fn begin(packet: &FlowPacket<'_>) -> Life {
    let tuple = packet.key.tuple();
    Life {
        vlan: tuple.vlans.to_vec(),
        src: tuple.source,
        src_port: tuple.source_port,
        dst: tuple.destination,
        dst_port: tuple.destination_port,
        protocol: 6,
        packets: 0,
        bytes: 0,
        first_ns: packet.handled_ns,
        last_ns: packet.handled_ns,
        class: packet.class,
        promoted_at_ns: None,
    }
}
