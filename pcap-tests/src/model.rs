//! The reference model: the classification rule written down slowly, to be compared with the gateway.
//!
//! It shares nothing with the gateway but the names of the answers. It parses with plain index
//! arithmetic from the outside in, keeps every flow for ever, remembers every life a flow ever had,
//! and never looks ahead. Where it is slow it is so that a reader can hold it against the rule.
//!
//! Two lengths matter for every header. Whether a header *lies* is decided by the bytes that were on
//! the wire; whether it can be *read* is decided by the bytes that were kept. A lie is found first.

pub mod routed;

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::verdict::{Class, Outcome, Untouched};

/// Most IPv6 extension headers of one packet, fragment headers among them.
const EXTENSION_HEADERS_MAX: usize = 8;
/// IPv4's protocol number and IPv6's next-header value of TCP.
const TCP: u8 = 6;
/// IPv6's next-header value of a fragment header.
const FRAGMENT: u8 = 44;

/// What is done with flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Short flows and long flows go apart.
    Split,
    /// Nothing is looked at.
    None,
}

/// The rule's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// What is done with flows.
    pub policy: Policy,
    /// A flow is short up to and including this many packets.
    pub threshold_packets: u32,
    /// A flow silent for more than this is over.
    pub idle_timeout_ns: u64,
    /// A SYN without ACK starts its flow afresh.
    pub restart_on_syn: bool,
    /// The code point of short packets.
    pub short_dscp: u8,
    /// The code point of long packets.
    pub long_dscp: u8,
    /// Most fragmented datagrams whose class is remembered.
    pub fragmented_datagrams_max: usize,
}

impl Default for Rule {
    fn default() -> Self {
        Rule {
            policy: Policy::Split,
            threshold_packets: 40,
            idle_timeout_ns: 30_000_000_000,
            restart_on_syn: true,
            short_dscp: 18,
            long_dscp: 10,
            fragmented_datagrams_max: 1024,
        }
    }
}

/// What the gateway should say of one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What the packet was.
    pub outcome: Outcome,
    /// The bytes that leave, as many as came in.
    pub frame: Vec<u8>,
}

/// One direction of a TCP connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// 12-bit VLAN identifiers, outer to inner.
    pub vlans: Vec<u16>,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// TCP source port.
    pub source_port: u16,
    /// TCP destination port.
    pub destination_port: u16,
}

/// How a life of a flow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// No packet has shown it to be over; by the clock it may be.
    Open,
    /// The next packet came after more than the idle timeout.
    Idle,
    /// A SYN without ACK came while it was not silent for too long.
    Restarted,
}

/// A flow from a first packet until it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// Whose life.
    pub flow: Flow,
    /// Packets counted.
    pub packets: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
    /// When its first packet was handled.
    pub first_ns: u64,
    /// When its last packet was handled.
    pub last_ns: u64,
    /// The class of its last packet.
    pub class: Class,
    /// When its first long packet was handled.
    pub promoted_at_ns: Option<u64>,
    /// How it ended.
    pub ending: Ending,
}

/// Lives by what became of them; `created == expired + restarted + active`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All lives.
    pub created: u64,
    /// Lives that became long.
    pub promoted: u64,
    /// Lives ended by silence, the silence of those still open measured up to the last packet handled.
    pub expired: u64,
    /// Lives ended by a SYN without ACK.
    pub restarted: u64,
    /// Lives that have not ended.
    pub active: u64,
}

/// What all fragments of one IP datagram have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Datagram {
    /// 12-bit VLAN identifiers, outer to inner.
    pub vlans: Vec<u16>,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IPv4: the protocol. IPv6: the fragment header's next header.
    pub protocol: u8,
    /// The identification field.
    pub identification: u32,
}

/// The rule at work on one sequence of packets from LAN to WAN.
#[derive(Debug)]
pub struct Model {
    rule: Rule,
    handled_ns: u64,
    lives: Vec<Life>,
    /// The latest life of every flow, as an index of `lives`.
    latest: HashMap<Flow, usize>,
    /// Classes of fragmented datagrams.
    datagrams: HashMap<Datagram, Class>,
    /// The same datagrams, the one inserted longest ago in front.
    datagrams_by_age: VecDeque<Datagram>,
}

impl Model {
    /// A gateway that has seen nothing.
    pub fn new(rule: Rule) -> Self {
        Model {
            rule,
            handled_ns: 0,
            lives: Vec::new(),
            latest: HashMap::new(),
            datagrams: HashMap::new(),
            datagrams_by_age: VecDeque::new(),
        }
    }

    /// The answer for the next packet from LAN to WAN: `kept` of its `wire_bytes` are at hand.
    pub fn packet(&mut self, kept: &[u8], wire_bytes: u32, received_ns: u64) -> Answer {
        // Time never runs backwards.
        self.handled_ns = self.handled_ns.max(received_ns);

        let mut frame = kept.to_vec();
        let outcome = match self.classify(kept, wire_bytes) {
            Ok((class, ip)) => {
                self.mark(&mut frame, ip, class);
                Outcome::Classified(class)
            }
            Err(why) => Outcome::Untouched(why),
        };
        Answer { outcome, frame }
    }

    /// The answer for the next packet from WAN to LAN: it moves the time and nothing else.
    pub fn packet_from_wan(&mut self, kept: &[u8], received_ns: u64) -> Answer {
        self.handled_ns = self.handled_ns.max(received_ns);
        Answer { outcome: Outcome::Untouched(Untouched::Unclassified), frame: kept.to_vec() }
    }

    /// The answer for a packet from LAN to WAN for whose flow the gateway found no room: short, and nothing is
    /// kept of its flow. `None` when that must not happen: the flow is known, or the packet is none that counts.
    pub fn packet_without_room(
        &mut self,
        kept: &[u8],
        wire_bytes: u32,
        received_ns: u64,
    ) -> Option<Answer> {
        self.handled_ns = self.handled_ns.max(received_ns);
        if self.rule.policy == Policy::None {
            return None;
        }
        let Parsed { ip, kind } = parse(kept, wire_bytes as usize).ok()?;
        let Kind::Tcp { flow, first_of, .. } = kind else { return None };
        if let Some(&index) = self.latest.get(&flow) {
            if !self.silent_too_long(&self.lives[index]) {
                return None;
            }
            self.lives[index].ending = Ending::Idle;
            self.latest.remove(&flow);
        }
        if let Some(datagram) = first_of {
            self.remember(datagram, Class::Short);
        }
        let mut frame = kept.to_vec();
        self.mark(&mut frame, ip, Class::Short);
        Some(Answer { outcome: Outcome::Classified(Class::Short), frame })
    }

    /// Other parameters from the next packet on; the number of datagrams stays. Lives keep their count and
    /// their class, and those that are over by now stay so, however long a silence the new rule allows.
    pub fn reload(&mut self, rule: Rule) {
        let (mut latest, mut lives) = (mem::take(&mut self.latest), mem::take(&mut self.lives));
        latest.retain(|_, &mut index| {
            let over = self.silent_too_long(&lives[index]);
            if over {
                lives[index].ending = Ending::Idle;
            }
            !over
        });
        (self.latest, self.lives) = (latest, lives);
        let fragmented_datagrams_max = self.rule.fragmented_datagrams_max;
        self.rule = Rule { fragmented_datagrams_max, ..rule };
    }

    /// Every life of every flow, in order of their first packets.
    pub fn lives(&self) -> &[Life] {
        &self.lives
    }

    /// As [`lives`](Model::lives), for keeps.
    pub fn into_lives(self) -> Vec<Life> {
        self.lives
    }

    /// What became of the lives.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for life in &self.lives {
            counts.created += 1;
            if life.promoted_at_ns.is_some() {
                counts.promoted += 1;
            }
            match life.ending {
                Ending::Idle => counts.expired += 1,
                Ending::Restarted => counts.restarted += 1,
                Ending::Open if self.silent_too_long(life) => counts.expired += 1,
                Ending::Open => counts.active += 1,
            }
        }
        counts
    }

    /// The class, and where the IP header begins.
    fn classify(&mut self, kept: &[u8], wire_bytes: u32) -> Result<(Class, usize), Untouched> {
        if self.rule.policy == Policy::None {
            return Err(Untouched::Unclassified);
        }
        let Parsed { ip, kind } = parse(kept, wire_bytes as usize)?;
        let class = match kind {
            Kind::Later(datagram) => {
                // It takes the class of its datagram's first fragment and does not count.
                *self.datagrams.get(&datagram).ok_or(Untouched::Fragment)?
            }
            Kind::Tcp { flow, starts, first_of } => {
                let class = self.count(flow, starts, u64::from(wire_bytes));
                if let Some(datagram) = first_of {
                    self.remember(datagram, class);
                }
                class
            }
        };
        Ok((class, ip))
    }

    /// One more packet of `flow`; `starts` says that it is a SYN without ACK.
    fn count(&mut self, flow: Flow, starts: bool, bytes: u64) -> Class {
        let goes_on = match self.latest.get(&flow) {
            None => None,
            Some(&index) if self.silent_too_long(&self.lives[index]) => {
                self.lives[index].ending = Ending::Idle;
                None
            }
            Some(&index) if starts && self.rule.restart_on_syn => {
                self.lives[index].ending = Ending::Restarted;
                None
            }
            Some(&index) => Some(index),
        };
        let index = goes_on.unwrap_or_else(|| {
            self.lives.push(Life {
                flow: flow.clone(),
                packets: 0,
                bytes: 0,
                first_ns: self.handled_ns,
                last_ns: self.handled_ns,
                class: Class::Short,
                promoted_at_ns: None,
                ending: Ending::Open,
            });
            self.latest.insert(flow, self.lives.len() - 1);
            self.lives.len() - 1
        });

        let life = &mut self.lives[index];
        life.packets += 1;
        life.bytes += bytes;
        life.last_ns = self.handled_ns;
        if life.packets > u64::from(self.rule.threshold_packets) && life.class == Class::Short {
            life.class = Class::Long;
            life.promoted_at_ns = Some(self.handled_ns);
        }
        life.class
    }

    /// Silent for more than the idle timeout.
    fn silent_too_long(&self, life: &Life) -> bool {
        self.handled_ns - life.last_ns > self.rule.idle_timeout_ns
    }

    /// Keeps the class for the later fragments, in place of the oldest if there is no room.
    fn remember(&mut self, datagram: Datagram, class: Class) {
        if let Some(known) = self.datagrams.get_mut(&datagram) {
            *known = class;
            return;
        }
        if self.rule.fragmented_datagrams_max == 0 {
            return;
        }
        if self.datagrams.len() == self.rule.fragmented_datagrams_max {
            let oldest = self.datagrams_by_age.pop_front().expect("it is full, so not empty");
            self.datagrams.remove(&oldest);
        }
        self.datagrams.insert(datagram.clone(), class);
        self.datagrams_by_age.push_back(datagram);
    }

    /// Writes the code point of `class` into the IP header at `ip`.
    fn mark(&self, frame: &mut [u8], ip: usize, class: Class) {
        let dscp = match class {
            Class::Short => self.rule.short_dscp,
            Class::Long => self.rule.long_dscp,
        };
        if frame[ip] >> 4 == 4 {
            mark_ipv4(&mut frame[ip..], dscp);
        } else {
            mark_ipv6(&mut frame[ip..], dscp);
        }
    }
}

/// A packet that can be classified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// Where the IP header begins.
    pub ip: usize,
    /// What is behind it.
    pub kind: Kind,
}

/// What is behind an IP header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// It has a TCP header.
    Tcp {
        /// Whose packet it is.
        flow: Flow,
        /// A SYN without ACK.
        starts: bool,
        /// The datagram whose first fragment it is.
        first_of: Option<Datagram>,
    },
    /// A fragment that is not the first of its datagram.
    Later(Datagram),
}

/// The addresses around a transport header, and where they were found.
struct Ends {
    ip: usize,
    vlans: Vec<u16>,
    source: IpAddr,
    destination: IpAddr,
}

impl Ends {
    fn datagram(&self, protocol: u8, identification: u32) -> Datagram {
        Datagram {
            vlans: self.vlans.clone(),
            source: self.source,
            destination: self.destination,
            protocol,
            identification,
        }
    }
}

/// A header that reaches up to `end` must lie within `bound`, else it lies, and must have been kept.
fn reaches(end: usize, bound: usize, kept: &[u8]) -> Result<(), Untouched> {
    if end > bound {
        Err(Untouched::Malformed)
    } else if end > kept.len() {
        Err(Untouched::Truncated)
    } else {
        Ok(())
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from(bytes[at]) * 256 + u16::from(bytes[at + 1])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) * 65536 + u32::from(u16_at(bytes, at + 2))
}

/// Reads a frame of which `kept` of the `wire` bytes are at hand.
pub fn parse(kept: &[u8], wire: usize) -> Result<Parsed, Untouched> {
    // Two MAC addresses and an EtherType.
    reaches(14, wire, kept)?;
    let mut ether_type = u16_at(kept, 12);
    let mut at = 14;

    // Up to two tags: four bytes of tag control and the next EtherType.
    let mut vlans = Vec::new();
    while is_tag(ether_type) {
        if vlans.len() == 2 {
            return Err(Untouched::NonIp);
        }
        reaches(at + 4, wire, kept)?;
        vlans.push(u16_at(kept, at) % 4096);
        ether_type = u16_at(kept, at + 2);
        at += 4;
    }

    match ether_type {
        0x0800 => parse_ipv4(kept, wire, at, vlans),
        0x86dd => parse_ipv6(kept, wire, at, vlans),
        _ => Err(Untouched::NonIp),
    }
}

fn is_tag(ether_type: u16) -> bool {
    [0x8100, 0x88a8, 0x9100].contains(&ether_type)
}

fn parse_ipv4(kept: &[u8], wire: usize, ip: usize, vlans: Vec<u16>) -> Result<Parsed, Untouched> {
    reaches(ip + 20, wire, kept)?;
    let version = kept[ip] / 16;
    let header_bytes = usize::from(kept[ip] % 16) * 4;
    let total_bytes = usize::from(u16_at(kept, ip + 2));
    if version != 4 || header_bytes < 20 {
        return Err(Untouched::Malformed);
    }
    // The options lie within the total length, and that within the frame. Padding may follow.
    if total_bytes < header_bytes || ip + total_bytes > wire {
        return Err(Untouched::Malformed);
    }

    let protocol = kept[ip + 9];
    if protocol != TCP {
        return Err(Untouched::NonTcp);
    }
    let ends = Ends {
        ip,
        vlans,
        source: IpAddr::V4(ipv4_at(kept, ip + 12)),
        destination: IpAddr::V4(ipv4_at(kept, ip + 16)),
    };

    // Reserved, don't fragment, more fragments, and 13 bits of offset.
    let identification = u32::from(u16_at(kept, ip + 4));
    let more = u16_at(kept, ip + 6) & 0x2000 != 0;
    let offset = u16_at(kept, ip + 6) % 0x2000;
    if offset != 0 {
        let kind = Kind::Later(ends.datagram(protocol, identification));
        return Ok(Parsed { ip, kind });
    }
    let first_of = more.then(|| ends.datagram(protocol, identification));
    parse_tcp(kept, ip + header_bytes, ip + total_bytes, ends, first_of)
}

fn ipv4_at(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}

fn parse_ipv6(kept: &[u8], wire: usize, ip: usize, vlans: Vec<u16>) -> Result<Parsed, Untouched> {
    reaches(ip + 40, wire, kept)?;
    let version = kept[ip] / 16;
    let payload_bytes = usize::from(u16_at(kept, ip + 4));
    let end = ip + 40 + payload_bytes;
    if version != 6 || end > wire {
        return Err(Untouched::Malformed);
    }
    let ends = Ends {
        ip,
        vlans,
        source: IpAddr::V6(ipv6_at(kept, ip + 8)),
        destination: IpAddr::V6(ipv6_at(kept, ip + 24)),
    };

    let mut next_header = kept[ip + 6];
    let mut at = ip + 40;
    let mut walked = 0;
    let mut first_of = None;
    while is_walked(next_header) {
        if walked == EXTENSION_HEADERS_MAX {
            return Err(Untouched::Malformed);
        }
        walked += 1;
        // No extension header is shorter than eight bytes.
        reaches(at + 8, end, kept)?;
        let following = kept[at];
        if next_header == FRAGMENT {
            // 13 bits of offset, two reserved, and more fragments.
            let offset = u16_at(kept, at + 2) / 8;
            let more = u16_at(kept, at + 2) % 2 == 1;
            let identification = u32_at(kept, at + 4);
            if offset != 0 {
                if following != TCP && !is_walked(following) {
                    return Err(Untouched::NonTcp);
                }
                let kind = Kind::Later(ends.datagram(following, identification));
                return Ok(Parsed { ip, kind });
            }
            if more {
                first_of = Some(ends.datagram(following, identification));
            }
            at += 8;
        } else {
            let header_bytes = 8 * (usize::from(kept[at + 1]) + 1);
            if at + header_bytes > end {
                return Err(Untouched::Malformed);
            }
            at += header_bytes;
        }
        next_header = following;
    }
    if next_header != TCP {
        return Err(Untouched::NonTcp);
    }
    parse_tcp(kept, at, end, ends, first_of)
}

/// Hop-by-hop options, routing, fragment, destination options.
fn is_walked(next_header: u8) -> bool {
    [0, 43, FRAGMENT, 60].contains(&next_header)
}

fn ipv6_at(bytes: &[u8], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[at..at + 16]);
    Ipv6Addr::from(octets)
}

/// The TCP header at `tcp` in an IP payload that ends at `end`.
fn parse_tcp(
    kept: &[u8],
    tcp: usize,
    end: usize,
    ends: Ends,
    first_of: Option<Datagram>,
) -> Result<Parsed, Untouched> {
    reaches(tcp + 20, end, kept)?;
    // The options must be there, but nothing in them is read.
    let header_bytes = usize::from(kept[tcp + 12] / 16) * 4;
    if header_bytes < 20 || tcp + header_bytes > end {
        return Err(Untouched::Malformed);
    }
    let flags = kept[tcp + 13];
    let syn = flags & 0b0000_0010 != 0;
    let ack = flags & 0b0001_0000 != 0;
    let flow = Flow {
        vlans: ends.vlans,
        source: ends.source,
        destination: ends.destination,
        source_port: u16_at(kept, tcp),
        destination_port: u16_at(kept, tcp + 2),
    };
    let kind = Kind::Tcp { flow, starts: syn && !ack, first_of };
    Ok(Parsed { ip: ends.ip, kind })
}

/// The code point is the upper six bits of the type of service.
fn mark_ipv4(header: &mut [u8], dscp: u8) {
    let word_before = u16_at(header, 0);
    let type_of_service = dscp * 4 + header[1] % 4;
    if header[1] == type_of_service {
        return;
    }
    header[1] = type_of_service;
    let word_after = u16_at(header, 0);

    // A one's complement sum is a sum modulo 65535. To leave what the header sums to, right or wrong,
    // the checksum takes back what the first word gained. RFC 1624 (equation 3) never writes 0xffff,
    // the other zero; neither does a remainder.
    let checksum = u64::from(u16_at(header, 10));
    let gives = checksum + u64::from(word_before) + 65535 - u64::from(word_after);
    let checksum = (gives % 65535) as u16;
    header[10] = (checksum / 256) as u8;
    header[11] = (checksum % 256) as u8;
}

/// The traffic class lies across the first two bytes; its upper six bits are the code point.
fn mark_ipv6(header: &mut [u8], dscp: u8) {
    let traffic_class = (header[0] % 16) * 16 + header[1] / 16;
    let traffic_class = dscp * 4 + traffic_class % 4;
    header[0] = (header[0] / 16) * 16 + traffic_class / 16;
    header[1] = (traffic_class % 16) * 16 + header[1] % 16;
}
