//! A capture through the gateway: inline here, routed in [`routed`].

pub mod routed;

use std::path::Path;

use dataplane::batch::{Batch, Packet, PortId};
use dataplane::capture::{CaptureError, Chunk, Reader, Writer};
use dataplane::config::Config;
use dataplane::flow::observer::Observer;
use dataplane::flow::secret::Secret;
use dataplane::gateway::{Gateway, Settings};

/// Runs repeat: the same capture gives the same answer, also under `policy = "ecmp"`.
const SEED: u64 = 0;

/// A gateway set up as the configuration says, for capture files: there is no MTU to exceed.
pub fn gateway(config: &Config) -> Gateway {
    gateway_with(config, secret())
}

/// What keys the hashes of every run.
pub fn secret() -> Secret {
    Secret::from_seed(SEED)
}

fn gateway_with(config: &Config, secret: Secret) -> Gateway {
    let settings =
        Settings { rule: config.rule, lanes: config.lanes, frame_bytes_max: [u32::MAX; 2] };
    Gateway::new(settings, config.capacity, secret)
}

/// Sends every packet of `input` into `port` of the gateway and writes what comes out of the other port to
/// `output`: inline, one frame for each, in the same order.
///
/// # Errors
///
/// When the capture cannot be read on, or the output not written. What was read before has gone through the
/// gateway and is in the output.
pub fn run<O: Observer>(
    gateway: &mut Gateway,
    observer: &mut O,
    port: PortId,
    input: &Path,
    output: Option<&Path>,
) -> Result<(), CaptureError> {
    let mut reader = Reader::open(input)?;
    let mut writer = output.map(|output| Writer::create(output, &reader)).transpose()?;
    let mut chunk = Chunk::new();
    let read = loop {
        match reader.read(&mut chunk) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
        process(gateway, observer, port, &mut chunk);
        if let Some(writer) = &mut writer {
            writer.write(&chunk)?;
        }
    };
    if let Some(writer) = writer {
        writer.finish()?;
    }
    read
}

fn process<O: Observer>(gateway: &mut Gateway, observer: &mut O, port: PortId, chunk: &mut Chunk) {
    let mut batch: Batch<'_> = chunk
        .iter_mut()
        .map(|(record, bytes)| Packet::cut(bytes, record.original_bytes, port, record.time_ns))
        .collect();
    gateway.process(&mut batch, observer);
}
