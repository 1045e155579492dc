//! One request: a TCP connection of its own, plain or with TLS 1.3, and its stamps.
//!
//! Every request makes a full handshake: nothing of a session is kept for the next. It is ready before the handshake
//! ends and leaves with its last message. Who closes first is the server, and the client waits for that after the
//! answer's last byte was stamped: so no connection ends by a reset.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::exchange::{BUFFER_BYTES, Exchange};
use super::line::Line;
use super::{DriverError, Plan};
use crate::lab::records::RequestRecord;
use crate::lab::workload::Wire;

/// Why a request failed that the end of the run cut off.
pub(super) const CUT_OFF: &str = "not answered before the run ended";
/// rustls counts a record's bytes with its header.
const RECORD_HEADER_BYTES: u32 = 5;

/// The wall clock, in which everything is stamped.
pub(super) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("the clock is set to a time after 1970").as_nanos() as u64
}

/// Asks one server.
pub(super) struct Client {
    server: SocketAddr,
    wire: Wire,
    tls: Option<Arc<ClientConfig>>,
}

impl Client {
    /// For the server of a plan.
    pub(super) fn new(plan: &Plan) -> Result<Client, DriverError> {
        let wire = plan.wire();
        let tls = plan.certificate.as_deref().map(|path| tls(path, wire)).transpose()?;
        Ok(Client { server: plan.server, wire, tls })
    }

    /// Does what the record asks for, and notes in it what came of it.
    pub(super) fn request(
        &self,
        record: &mut RequestRecord,
        line: &Line,
        end: Instant,
        buffer: &mut [u8; BUFFER_BYTES],
    ) {
        record.started_ns = now_ns();
        let result = self.attempt(record, line, end, buffer);
        line.release();
        record.error = match result {
            Ok(finished_ns) => {
                record.finished_ns = Some(finished_ns);
                None
            }
            Err(_) if line.is_cut() || Instant::now() >= end => Some(CUT_OFF.to_owned()),
            Err(what) => Some(what),
        };
    }

    /// When the answer was there.
    fn attempt(
        &self,
        record: &mut RequestRecord,
        line: &Line,
        end: Instant,
        buffer: &mut [u8; BUFFER_BYTES],
    ) -> Result<u64, String> {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let stream = TcpStream::connect_timeout(&self.server, left)
            .map_err(|error| format!("connect: {error}"))?;
        record.connected_ns = Some(now_ns());
        let prepare = stream.local_addr().and_then(|address| {
            record.port = Some(address.port());
            stream.set_nodelay(true)?;
            line.hold(&stream)
        });
        prepare.map_err(|error| format!("connection: {error}"))?;

        let mut exchange = Exchange::new(record, self.server, self.wire);
        let Some(config) = &self.tls else { return exchange.run(stream, buffer) };
        let name = ServerName::IpAddress(self.server.ip().into());
        let mut connection =
            ClientConnection::new(config.clone(), name).map_err(|error| format!("TLS: {error}"))?;
        let first = exchange.next(buffer).expect("a request has a head");
        connection.writer().write_all(first).map_err(|error| format!("TLS: {error}"))?;
        exchange.run(StreamOwned::new(connection, stream), buffer)
    }
}

fn tls(path: &Path, wire: Wire) -> Result<Arc<ClientConfig>, DriverError> {
    let fail = |what: String| DriverError::Certificate { path: path.display().to_string(), what };
    let certificate =
        CertificateDer::from_pem_file(path).map_err(|error| fail(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate).map_err(|error| fail(error.to_string()))?;
    let mut config =
        ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| fail(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.max_fragment_size = Some((wire.record_plain_bytes() + RECORD_HEADER_BYTES) as usize);
    Ok(config.into())
}
