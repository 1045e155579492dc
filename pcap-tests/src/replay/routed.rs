//! Captures through a routed gateway: both sides at once, in the order of their times.
//!
//! ```text
//!   LAN capture --\                                          /--> frames that left by the LAN port
//!                  merged by time --> Gateway, one at a time
//!   WAN capture --/                                          \--> frames that left by the WAN port
//! ```
//!
//! A frame that leaves is no longer the record that came in: it grew or shrank, was cut into fragments, or is an ICMP
//! error of the gateway's own. So outputs are new captures ([`RecordWriter`]), each frame stamped with the time of
//! the packet that caused it. There is no kernel to find out a next hop: a packet whose neighbour the configuration
//! does not name is dropped and counted as `unresolved`.
//!
//! Invariant: frames sent = forwarded - fragmented + fragments + ICMP errors sent.

use std::path::Path;
use std::sync::Arc;

use dataplane::batch::{Packet, PortId};
use dataplane::capture::{CaptureError, Chunk, Reader, RecordWriter};
use dataplane::config::Config;
use dataplane::counters::Counters;
use dataplane::fib::Full;
use dataplane::flow::observer::Observer;
use dataplane::flow::secret::Secret;
use dataplane::gateway::Gateway;
use dataplane::router::{Router, Site};
use dataplane::verdict::Verdict;
use dataplane::wire::buffer::Buffer;

/// Most bytes of all headers that a tunnel puts around a packet: IPv6, UDP and GRE with every option.
const GROWTH_BYTES_MAX: usize = 64;

/// Why a configuration is not enough for captures.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// In routed mode, without ports.
    #[error(
        "a routed gateway on captures has no kernel that knows its ports, neighbours and routes: tell them in the \
         configuration with [routed.static_ports.lan], [routed.static_ports.wan] and what follows them in \
         configs/default.toml"
    )]
    NoPorts,
    /// More static routes or addresses than there is room for.
    #[error("{0}")]
    Full(#[from] Full),
}

/// What goes in and what comes out, by [`PortId`].
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// What each port received; at least one of them.
    pub inputs: [Option<&'a Path>; 2],
    /// Where what each port sends is written.
    pub outputs: [Option<&'a Path>; 2],
}

/// A gateway in routed mode with the ports, neighbours and routes that the configuration tells; in inline mode one as
/// [`super::gateway`] makes it. The secret keys the hashes of flows.
///
/// # Errors
///
/// When a routed configuration tells no ports, or too much.
pub fn gateway(config: &Config, secret: Secret) -> Result<Gateway, SetupError> {
    let gateway = super::gateway_with(config, secret);
    let Some(routed) = &config.routed else { return Ok(gateway) };
    let fixed = routed.fixed.as_ref().ok_or(SetupError::NoPorts)?;
    let site = Site::new(
        &routed.local_prefixes.value,
        &routed.remote_prefixes.value,
        routed.lanes.each_ref().map(|lane| lane.value),
        fixed.ports[PortId::Wan.index()].mtu_bytes,
    );
    Ok(gateway.with_router(Router::new(&site, Arc::new(fixed.snapshot()?))))
}

/// Sends the packets of all inputs through a routed gateway, in the order of their times (of the same time, first the
/// LAN's; within an input, as they stand there), and writes what leaves.
///
/// # Errors
///
/// When a capture cannot be read on, or an output not written. What was read before that has gone through the gateway
/// and is in the outputs.
///
/// # Panics
///
/// When the gateway is not routed, there is no input, or frames are not accounted for.
pub fn run<O: Observer>(
    gateway: &mut Gateway,
    observer: &mut O,
    files: &Files<'_>,
) -> Result<(), CaptureError> {
    let mut inputs = Vec::new();
    for (port, path) in PortId::ALL.into_iter().zip(files.inputs) {
        if let Some(path) = path {
            inputs.push(Input::open(port, path)?);
        }
    }
    let before = frames_sent(&gateway.counters());
    let mut outputs = Outputs::create(files, &inputs)?;
    let read = pump(gateway, observer, &mut inputs, &mut outputs);
    let frames = outputs.finish()?;
    let counted = frames_sent(&gateway.counters()) - before;
    assert_eq!(frames, counted, "frames sent left, counted right: {:?}", gateway.counters());
    read
}

/// What the equation at the head of this file comes to.
///
/// # Panics
///
/// When the gateway that counted was not routed.
pub fn frames_sent(counters: &Counters) -> u64 {
    let routed = counters.routed.expect("a routed gateway");
    let icmp = routed.icmp;
    let errors = icmp.time_exceeded + icmp.too_big + icmp.unreachable;
    counters.forwarded + routed.fragments + errors - routed.fragmented - routed.not_sent
}

fn pump<O: Observer>(
    gateway: &mut Gateway,
    observer: &mut O,
    inputs: &mut [Input],
    outputs: &mut Outputs,
) -> Result<(), CaptureError> {
    let mut storage = Vec::new();
    loop {
        for input in &mut *inputs {
            input.advance()?;
        }
        let due = inputs.iter_mut().filter_map(|input| Some((input.time_ns()?, input)));
        let Some((_, input)) = due.min_by_key(|(time_ns, _)| *time_ns) else { return Ok(()) };
        let port = input.port;
        let (record, kept) = input.chunk.get(input.next).expect("it has a time");
        storage.clear();
        storage.extend_from_slice(kept);
        storage.resize(kept.len() + GROWTH_BYTES_MAX, 0);
        let buffer = Buffer::new(&mut storage, kept.len());
        let mut batch = [Packet::cut(buffer, record.original_bytes, port, record.time_ns)];
        gateway.process(&mut batch, observer);
        input.next += 1;
        outputs.send(gateway, &batch[0])?;
    }
}

/// A capture, and which of its packets is next.
struct Input {
    port: PortId,
    reader: Reader,
    chunk: Chunk,
    next: usize,
    is_at_end: bool,
}

impl Input {
    fn open(port: PortId, path: &Path) -> Result<Self, CaptureError> {
        let reader = Reader::open(path)?;
        Ok(Input { port, reader, chunk: Chunk::new(), next: 0, is_at_end: false })
    }

    /// Reads on when all that was read is used up; chunks without packets are passed over.
    fn advance(&mut self) -> Result<(), CaptureError> {
        while self.next >= self.chunk.len() && !self.is_at_end {
            self.next = 0;
            self.is_at_end = !self.reader.read(&mut self.chunk)?;
        }
        Ok(())
    }

    /// Of the next packet.
    fn time_ns(&self) -> Option<u64> {
        self.chunk.get(self.next).map(|(record, _)| record.time_ns)
    }
}

/// Captures of what leaves, by port.
struct Outputs {
    writers: [Option<RecordWriter>; 2],
    frames: u64,
}

impl Outputs {
    fn create(files: &Files<'_>, inputs: &[Input]) -> Result<Self, CaptureError> {
        let readers: Vec<&Reader> = inputs.iter().map(|input| &input.reader).collect();
        let mut outputs = Outputs { writers: [None, None], frames: 0 };
        for (writer, path) in outputs.writers.iter_mut().zip(files.outputs) {
            *writer = path.map(|path| RecordWriter::create(path, &readers)).transpose()?;
        }
        Ok(outputs)
    }

    /// Writes a packet that has been through the gateway, and what the gateway made because of it.
    fn send(&mut self, gateway: &mut Gateway, packet: &Packet<'_>) -> Result<(), CaptureError> {
        if let Verdict::Transmit(port) = packet.verdict {
            self.write(port, packet.received_ns, packet.wire_bytes, &packet.bytes)?;
        }
        let outbox = gateway.router().expect("a routed gateway").outbox();
        for (port, bytes, wire_bytes) in outbox.frames() {
            self.write(port, packet.received_ns, wire_bytes, bytes)?;
        }
        outbox.clear();
        Ok(())
    }

    fn write(
        &mut self,
        port: PortId,
        time_ns: u64,
        wire_bytes: u32,
        bytes: &[u8],
    ) -> Result<(), CaptureError> {
        self.frames += 1;
        match &mut self.writers[port.index()] {
            Some(writer) => writer.write(time_ns, wire_bytes, bytes),
            None => Ok(()),
        }
    }

    /// How many frames left, written or not.
    fn finish(self) -> Result<u64, CaptureError> {
        for writer in self.writers.into_iter().flatten() {
            writer.finish()?;
        }
        Ok(self.frames)
    }
}
